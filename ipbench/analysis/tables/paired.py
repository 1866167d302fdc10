"""The tables of comparisons: IP - SP for every pair of cells, for every method, and once over the whole grid."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ipbench.analysis import comparisons as stats
from ipbench.analysis.collect import Collection
from ipbench.analysis.labels import AXES, Labels, labels
from ipbench.analysis.render import Table
from ipbench.analysis.statistics import CLAIM_SEEDS, FLIPS, seeds_needed
from ipbench.analysis.tables.parts import (
    INTERVALS,
    axes,
    column_names,
    common_notes,
    describe,
    raw_axes,
    setting_notes,
    table,
)
from ipbench.analysis.text import NOTHING, points, probability, with_interval

_DIFFERENCE = (("difference", "mean"), ("lower", "lower"), ("upper", "upper"))


def paired_table(collection: Collection, names: Labels, pairs: pd.DataFrame) -> Table:
    """One row per comparison; `pairs` is what `comparisons.paired` returns."""
    found = stats.by_pair(pairs)
    data: list[dict[str, Any]] = []
    printed: list[dict[str, str]] = []
    for row in collection.grid.rows():
        record: Any = found.get(stats.pair_name(row))
        if record is None:
            continue
        numbers = raw_axes(row) | {"sp_cell": record["sp_cell"], "ip_cell": record["ip_cell"], "n": record["n"]}
        numbers |= {"planned": record["planned"], "diverged": record["diverged"], "impossible": record["impossible"]}
        numbers |= {f"{to}_pp": 100 * record[of] for to, of in _DIFFERENCE}
        numbers |= {name: record[name] for name in ("interval", "p", "p_kind", "p_holm", "claim", "reference")}
        data.append(numbers)
        texts = axes(names, row) | {
            "IP − SP": with_interval(*(points(record[of]) for _, of in _DIFFERENCE)),
            "n": NOTHING if record["impossible"] else _number(record),
            "p": probability(record["p"]),
            "p (Holm)": probability(record["p_holm"]),
            "claim": claim_text(record),
        }
        printed.append(texts)
    kinds = set(pairs["p_kind"])
    notes = (
        "IP − SP: mean difference of the test accuracy after the last epoch in percentage points, runs paired by seed.",
        INTERVALS,
        "p: exact two-sided sign-flip test"
        + (f" (Monte Carlo with {FLIPS:,} draws beyond 20 seeds)" if "Monte Carlo" in kinds else "")
        + f", then Holm's correction over {stats.family_size(pairs)} comparisons; dense references are outside of it.",
        f"A claim needs a corrected p of at most 0.05 and at least {CLAIM_SEEDS} seeds. {stats.seeds_note(pairs)}",
        *common_notes(collection, names),
    )
    columns = [*column_names(names), "IP − SP", "n", "p", "p (Holm)", "claim"]
    raw = [*AXES, "family", "sp_cell", "ip_cell", "n"]  # of a grid without comparisons
    return table(collection, "paired", "IP against SP, paired by seed", data, printed, notes, columns, raw)


def claim_text(record: Any) -> str:
    """What the claim column prints for a row of the frame that `comparisons.paired` returns."""
    if record["impossible"]:
        return "impossible"
    return "reference" if record["reference"] else str(record["claim"])


def _number(record: Any) -> str:
    """'6', or '4 of 6 (1 diverged)'."""
    number = str(record["n"]) if record["n"] == record["planned"] else f"{record['n']} of {record['planned']}"
    return number + (f" ({record['diverged']} diverged)" if record["diverged"] else "")


def methods_table(collection: Collection) -> Table:
    """One row per method: its comparisons averaged per seed, and Holm's correction over the methods."""
    frame = stats.by_method(collection)
    nets = len(frame[["dataset", "model"]].drop_duplicates()) > 1
    data: list[dict[str, Any]] = []
    printed: list[dict[str, str]] = []
    for record in frame.to_dict("records"):
        place = {name: str(record[name]) for name in ("dataset", "model", "method")}
        numbers = {f"{to}_pp": 100 * record[of] for to, of in _DIFFERENCE}
        numbers |= {name: record[name] for name in ("interval", "n", "p", "p_kind", "p_holm", "claim")}
        data.append({**place, **numbers, "comparisons": record["comparisons"], "excluded": record["excluded"]})
        printed.append(
            (place if nets else {"method": place["method"]})
            | {
                "IP − SP": with_interval(*(points(record[of]) for _, of in _DIFFERENCE)),
                "n": str(record["n"]),
                "comparisons": f"{record['comparisons']} of {record['comparisons'] + record['excluded']}",
                "p": probability(record["p"]),
                "p (Holm)": probability(record["p_holm"]),
                "claim": str(record["claim"]),
            }
        )
    needed = max(CLAIM_SEEDS, seeds_needed(len(frame))) if len(frame) else CLAIM_SEEDS
    notes = (
        "One test per method: per seed, the difference of the test accuracy (percentage points) is averaged over the"
        " method's complete comparisons (its sparsities and variants); n is the number of seeds.",
        INTERVALS,
        f"p: two-sided sign-flip test over seeds, then Holm's correction over {len(frame)} methods, apart from that"
        f" over single comparisons. A claim needs a corrected p of at most 0.05; with so many methods, {needed} seeds.",
        *setting_notes(collection),
    )
    head = ["dataset", "model", "method"] if nets else ["method"]
    columns = [*head, "IP − SP", "n", "comparisons", "p", "p (Holm)", "claim"]
    raw = ["dataset", "model", "method", "n"]
    return table(collection, "methods", "IP against SP, method by method", data, printed, notes, columns, raw)


def global_table(collection: Collection, pairs: pd.DataFrame) -> Table:
    """One row: the global test over all complete comparisons."""
    result = stats.overall(collection)
    found = result.comparison
    numbers = {
        "difference_pp": 100 * found.mean,
        "lower_pp": 100 * found.lower,
        "upper_pp": 100 * found.upper,
        "interval": found.interval,
        "n": found.n,
        "p": found.p,
        "p_kind": found.p_kind,
        "comparisons": len(result.included),
        "excluded": len(result.excluded),
        "excluded_pairs": " ".join(result.excluded),
    }
    texts = {
        "IP − SP": with_interval(points(found.mean), points(found.lower), points(found.upper)),
        "n": str(found.n),
        "p": probability(found.p),
        "comparisons": f"{len(result.included)} of {stats.family_size(pairs)}",
    }
    notes = [
        "One test over the grid: per seed, the difference of the test accuracy (percentage points) is averaged over all"
        " complete comparisons, those with every planned seed finished on both sides; n is the number of seeds.",
        INTERVALS,
        f"p: {found.p_kind if found.p_kind != 'none' else 'exact'} two-sided sign-flip test over seeds.",
    ]
    if result.excluded:
        names = labels(collection.grid)
        rows = {stats.pair_name(row): row for row in collection.grid.rows()}
        listed = [describe(names, rows[name].any) for name in result.excluded]
        notes.append(f"Excluded as impossible or incomplete: {'; '.join(listed)}.")
    notes += setting_notes(collection)
    return table(collection, "global", "IP against SP over the whole grid", [numbers], [texts], tuple(notes))
