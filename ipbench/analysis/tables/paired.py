"""The tables of comparisons: IP - SP for every pair of cells, for every method, and once over the whole grid."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ipbench.analysis.cells import Counts, counts
from ipbench.analysis.collect import Collection
from ipbench.analysis.comparisons import IMPOSSIBLE, INCOMPLETE, MIXED, Analysis, Comparison, Finding, pair_name
from ipbench.analysis.flips import ALPHA, CLAIM_SEEDS, EXACT_SEEDS, FLIPS
from ipbench.analysis.grid import Row
from ipbench.analysis.labels import AXES, Labels, guess_text, labels, metric_name
from ipbench.analysis.render import Table
from ipbench.analysis.tables.parts import (
    DIFFERENCES,
    axes,
    column_names,
    common_notes,
    describe,
    lost_text,
    raw_axes,
    raw_reached,
    seeds_note,
    setting_notes,
    table,
)
from ipbench.analysis.text import NOTHING, points, probability, with_interval

_PRINTED = ["IP − SP", "n", "p", "p (max-T)", "verdict"]
_WITHOUT = "without diverged"
#: What of a key of `comparisons.Method` is behind the method.
_UNITS = ("pattern", "budget")
#: Of lost runs: heading, field of `Counts`.
_LOST = {"collapsed": "collapsed", "at chance": "chance"}
#: Columns of a comparison in the CSV, needed where there may be no row to tell them.
_RAW = ["n", "planned", "diverged", "difference_pp", "lower_pp", "upper_pp", "p", "p_adjusted", "verdict"]


def paired_table(collection: Collection, names: Labels, analysis: Analysis) -> Table:
    """One row per comparison."""
    ended = counts(collection)
    data: list[dict[str, Any]] = []
    printed: list[dict[str, str]] = []
    for row in collection.grid.rows():
        found = analysis.pairs.get(pair_name(row))
        if found is None or row.sp is None or row.ip is None:
            continue
        sides = (ended[row.sp.id], ended[row.ip.id])
        more = {f"{space}_{what}": getattr(side, what) for what in _LOST.values()
                for space, side in zip(("sp", "ip"), sides, strict=True)}  # fmt: skip
        levels = raw_axes(row) | raw_reached(names, collection.grid, row)
        data.append(levels | {"sp_cell": row.sp.id, "ip_cell": row.ip.id} | _raw(found) | more)
        printed.append(axes(names, row) | _texts(found) | {"n": _number(found)} | _lost(sides))
    lost = [what for what in _LOST if any(texts[what] != NOTHING for texts in printed)]
    shared = (
        "Several comparisons have one SP side in common: flipping a seed is then no exchange of SP and IP, and the"
        " joint test assumes that differences scatter symmetrically.",
    )
    notes = (
        f"IP − SP: mean difference of the test {metric_name(collection.grid.cells)} after the last epoch in percentage"
        " points, runs paired by seed.",
        DIFFERENCES,
        *_claim_notes(collection, analysis, analysis.pairs.values()),
        *(shared if analysis.shared else ()),
        seeds_note(collection, analysis),
        *([lost_text(collection.grid.cells)] if lost else []),
        *common_notes(collection, names),
    )
    columns = [*column_names(names), *_columns(analysis.pairs.values())]
    columns[-1:-1] = lost
    raw = [*AXES, "family", "sp_cell", "ip_cell", *_RAW]
    return table(collection, "paired", "IP against SP, paired by seed", data, printed, notes, columns, raw)


def methods_table(collection: Collection, analysis: Analysis) -> Table:
    """One row per method: its comparisons averaged per seed."""
    nets = len({key[:2] for key in analysis.methods}) > 1
    units = [*_UNITS] if len({key[3:] for key in analysis.methods}) > 1 else []
    head = [*(["dataset", "model"] if nets else []), "method", *units]
    data: list[dict[str, Any]] = []
    printed: list[dict[str, str]] = []
    for key, found in analysis.methods.items():
        place = dict(zip(("dataset", "model", "method", *_UNITS), key, strict=True))
        data.append(place | _raw(found) | _raw_average(found))
        printed.append({name: place[name] for name in head} | _texts(found) | _average(found))
    notes = (
        f"Per seed, the difference of the test {metric_name(collection.grid.cells)} (percentage points) is averaged"
        " over the method's complete comparisons (its sparsities and variants); n is the number of seeds.",
        *_not_averaged(analysis),
        DIFFERENCES,
        *_claim_notes(collection, analysis, analysis.methods.values()),
        *setting_notes(collection),
    )
    columns = [*head, *_columns(analysis.methods.values(), "comparisons", "signs")]
    raw = ["dataset", "model", "method", *_UNITS, *_RAW]
    return table(collection, "methods", "IP against SP, method by method", data, printed, notes, columns, raw)


def global_table(collection: Collection, analysis: Analysis) -> Table:
    """One row: the average over all complete comparisons; none where options or filter bases vary."""
    found = analysis.overall
    findings = [found] if found else []
    data = [_raw(one) | _raw_average(one) | {"excluded_pairs": " ".join(one.excluded)} for one in findings]
    printed = [_texts(one) | _average(one) for one in findings]
    notes = [
        f"Per seed, the difference of the test {metric_name(collection.grid.cells)} (percentage points) is averaged"
        " over all complete comparisons, those with every planned seed in on both sides; n is the number of seeds.",
        *_not_averaged(analysis),
        DIFFERENCES,
        *_claim_notes(collection, analysis, findings),
    ]
    if found and found.excluded:
        names = labels(collection.grid)
        rows: dict[str, Row] = {pair_name(row): row for row in collection.grid.rows()}
        listed = [describe(names, rows[name].any) for name in found.excluded]
        notes.append(f"Excluded as impossible or incomplete: {'; '.join(listed)}.")
    notes += setting_notes(collection)
    columns = _columns(findings, "comparisons", "signs")
    title = "IP against SP over the whole grid"
    return table(collection, "global", title, data, printed, tuple(notes), columns, _RAW)


def _claim_notes(collection: Collection, analysis: Analysis, shown: Iterable[Finding]) -> list[str]:
    """How claims are made, of a family with these rows in sight."""
    shown = list(shown)
    if not analysis.members:
        return []
    drawn = any(found.comparison.p_kind == "Monte Carlo" for found in shown)
    test = f"{FLIPS:,} random flips beyond {EXACT_SEEDS} seeds" if drawn else "exact"
    notes = [
        f"p: two-sided sign-flip test over seeds ({test}). p (max-T): after step-down max-T over joint flips, for one"
        f" family of {analysis.members} at one level of 5 %: the average over the grid, those of its methods, and"
        " single comparisons. Dense references and what is impossible are outside of it.",
        f"verdict: better, with a p (max-T) of at most {ALPHA:g}, for which at least {CLAIM_SEEDS} seeds are needed;"
        f" within ±{collection.grid.margin:g}: no claim, and the interval of 90 % lies inside the margin of the"
        " experiment (each row for itself); undecided: neither.",
    ]
    if any(found.state == INCOMPLETE for found in shown):
        notes.append("incomplete: planned runs are not in yet. There is no claim before they are.")
    if any(found.diverged for found in shown):
        notes.append(
            f"A diverged run counts as {guess_text(collection.grid.cells)}; beside it the result without its seed."
        )
    return notes


def _not_averaged(analysis: Analysis) -> list[str]:
    if not analysis.not_averaged:
        several = len({key[3:] for key in analysis.methods}) > 1
        return ["No average is formed over several patterns or budgets."] if several else []
    names = ", ".join(dict.fromkeys(key[2] for key in analysis.not_averaged))
    return [
        f"No average is formed over options or filter bases that an experiment varies ({names}), nor over the grid."
    ]


def _raw(found: Finding) -> dict[str, Any]:
    """The numbers of a finding, in points."""
    shown, rest = found.comparison, found.complete_case
    raw: dict[str, Any] = {"n": shown.n, "planned": found.planned, "diverged": found.diverged}
    raw |= {"difference_pp": 100 * shown.mean, "std_pp": 100 * shown.std}
    raw |= {"lower_pp": 100 * shown.interval.lower, "upper_pp": 100 * shown.interval.upper}
    raw |= {"interval": shown.interval.kind}
    raw |= {"lower90_pp": 100 * shown.narrow.lower, "upper90_pp": 100 * shown.narrow.upper}
    raw |= {"p": shown.p, "p_kind": shown.p_kind, "p_adjusted": found.p_adjusted}
    raw |= {"claim": found.claim, "within": found.within, "margin_pp": found.margin, "verdict": found.verdict}
    raw |= {"mixed": found.mixed, "complete_n": rest.n, "complete_difference_pp": 100 * rest.mean}
    raw |= {"complete_lower_pp": 100 * rest.interval.lower, "complete_upper_pp": 100 * rest.interval.upper}
    return raw | {"complete_p": rest.p}


def _raw_average(found: Finding) -> dict[str, Any]:
    above, below = found.signs
    sizes = {"comparisons": len(found.included), "excluded": len(found.excluded)}
    return sizes | {"above_zero": above, "below_zero": below, "mixed_signs": found.several_signs}


def _texts(found: Finding) -> dict[str, str]:
    difference = _difference(found.comparison)
    return {
        "IP − SP": f"not formed: {found.mixed}" if found.mixed else difference,
        "n": str(found.comparison.n),
        "p": probability(found.comparison.p),
        "p (max-T)": probability(found.p_adjusted),
        _WITHOUT: f"{_difference(found.complete_case)}, n = {found.complete_case.n}" if found.diverged else NOTHING,
        "verdict": "not formed" if found.state == MIXED else found.verdict,
    }


def _average(found: Finding) -> dict[str, str]:
    above, below = found.signs
    signs = "all +" if above else "all −" if below else NOTHING
    if found.several_signs:
        signs = f"mixed signs ({above} +, {below} −)"
    number = len(found.included)
    return {"comparisons": f"{number} of {number + len(found.excluded)}", "signs": signs}


def _columns(shown: Iterable[Finding], *more: str) -> list[str]:
    """The columns of findings, in order."""
    without = [_WITHOUT] if any(found.diverged for found in shown) else []
    return [*_PRINTED[:2], *more, *_PRINTED[2:-1], *without, _PRINTED[-1]]


def _difference(found: Comparison) -> str:
    return with_interval(points(found.mean), points(found.interval.lower), points(found.interval.upper))


def _number(found: Finding) -> str:
    """'6', or '4 of 6', or '6 (1 diverged)'."""
    if found.state == IMPOSSIBLE:
        return NOTHING
    n = found.comparison.n
    number = str(n) if n == found.planned else f"{n} of {found.planned}"
    return number + (f" ({found.diverged} diverged)" if found.diverged else "")


def _lost(sides: tuple[Counts, Counts]) -> dict[str, str]:
    """'SP 2, IP 5', of runs that collapsed, and of runs at chance level."""
    found = {
        what: [f"{name} {number}" for name, side in zip(("SP", "IP"), sides, strict=True)
               if (number := getattr(side, field))]
        for what, field in _LOST.items()
    }  # fmt: skip
    return {what: ", ".join(texts) or NOTHING for what, texts in found.items()}
