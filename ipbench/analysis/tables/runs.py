"""The tables about runs: what they cost, and which have no result."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ipbench.analysis.collect import Collection
from ipbench.analysis.grid import Row
from ipbench.analysis.labels import AXES, Labels
from ipbench.analysis.render import Table
from ipbench.analysis.settings import Settings
from ipbench.analysis.tables.parts import axes, column_names, common_notes, raw_axes, table
from ipbench.analysis.text import NOTHING, factor, percent, quantity, ranges, seconds
from ipbench.spec import NO_CONTROL

#: Columns of the cost table: its name in the CSV, its heading, and how a mean of it is printed.
_COSTS = (
    ("coefficients_kept", "kept", quantity),
    ("basis_entries", "FB", quantity),
    ("parameters", "parameters", quantity),
    ("macs_dense", "MACs dense", quantity),
    ("macs_sparse", "MACs sparse", quantity),
    ("macs_sparse_two_stage", "MACs two-stage", quantity),
    ("training_flops", "training FLOPs", quantity),
    ("bytes_stored_bitmask", "stored, bitmask", lambda value: quantity(value, "B")),
    ("bytes_stored_entropy", "stored, entropy", lambda value: quantity(value, "B")),
    ("factor_parameters", "fewer parameters", factor),
    ("factor_bytes", "fewer bytes", factor),
    ("cost_wall_seconds", "wall time", seconds),
    ("cost_peak_memory_bytes", "peak memory", lambda value: quantity(value, "B")),
)
_SLICED = (
    "removed of the budget: in per cent of the dense net's parameters, MACs or units, as the budget says. Sliced: of"
    " the net without the channels that are gone.",
)
_CONNECTED = (
    "Effective: of the kept coefficients those on a path from the input to the output; the FB is counted as in achieved"
    " p. None where a record of the cell does not tell.",
)
#: The same of runs with another pattern or budget alone.
_COSTS_OF_UNITS = (
    ("reached", "removed of the budget", percent),
    ("macs_sliced", "MACs sliced", quantity),
    ("macs_sliced_two_stage", "MACs sliced, two-stage", quantity),
    ("parameters_sliced", "parameters sliced", quantity),
)
#: The same of records that tell which coefficients are connected; see docs/rules.md.
_EFFECTIVE = (
    ("effective_sparsity", "effective p", lambda value: NOTHING if math.isnan(value) else f"{value:.5f}"),
    ("effective_macs", "MACs effective", quantity),
)


def cost_table(collection: Collection, names: Labels) -> Table:
    """One row per cell: means over its finished runs."""
    runs = collection.runs[collection.runs["status"] == "done"].copy()
    for kind in ("bitmask", "entropy"):
        runs[f"bytes_stored_{kind}"] = runs[["bytes_values", f"bytes_{kind}", "bytes_other"]].sum(axis=1, skipna=False)
    runs["factor_parameters"] = runs["parameters_dense"] / runs["parameters"]
    runs["factor_bytes"] = 4 * runs["parameters_dense"] / runs["bytes_stored_entropy"]
    costs = (*_COSTS, *(entry for entry in (*_COSTS_OF_UNITS, *_EFFECTIVE) if entry[0] in runs))
    columns = ["achieved_sparsity", *(name for name, _, _ in costs)]
    places = {str(cell): rows for cell, rows in runs.reset_index(drop=True).groupby("cell").indices.items()}
    number = {cell: len(rows) for cell, rows in places.items()}
    numbers = {name: pd.to_numeric(runs[name]).astype("Float64").to_numpy(float, na_value=math.nan) for name in columns}
    settings = Settings(collection)
    data: list[dict[str, Any]] = []
    printed: list[dict[str, str]] = []
    # An SP cell that several filter bases are compared with is listed once.
    for cell in dict.fromkeys(side for row in collection.grid.rows() for side in (row.sp, row.ip) if side):
        mixed = settings.mixed([cell.id])
        n = 0 if mixed else number.get(cell.id, 0)
        mean = {name: _mean(numbers[name][places[cell.id]]) if n else math.nan for name in columns}
        told = {name: bool(n) and bool(np.isfinite(numbers[name][places[cell.id]]).all()) for name in columns}
        mean |= {name: math.nan for name, _, _ in _EFFECTIVE if name in mean and not told[name]}
        data.append(
            {"cell": cell.id, "space": cell.space} | raw_axes(Row(cell, None)) | {"n": n} | mean | {"mixed": mixed}
        )
        achieved = mean["achieved_sparsity"]
        texts = axes(names, Row(cell, None)) | {"space": cell.space.upper(), "n": str(n)}
        texts["achieved p"] = NOTHING if math.isnan(achieved) else f"{achieved:.5f}"
        texts |= {"achieved p": f"not formed: {mixed}"} if mixed else {}
        printed.append(texts | {heading: write(mean[name]) for name, heading, write in costs})
    notes = (
        "Means over the finished runs. kept: non-zero coefficients; FB: filter-basis entries, which count against the"
        " same budget; parameters: kept, FB and all that is never pruned.",
        "MACs are per image: of the dense net, of the sparse one convolved directly, and of IP in two stages (basis"
        " first). Stored: values in fp32 with the mask as a bitmask, or ideally entropy coded, and all other state."
        " Fewer: against the parameters of the dense net, and against their bytes in fp32 (entropy coded).",
        *(_SLICED if "reached" in runs else ()),
        *(_CONNECTED if "effective_sparsity" in runs else ()),
        *_left_out(runs),
        *common_notes(collection, names),
    )
    order = [*column_names(names), "space", "n", "achieved p", *(heading for _, heading, _ in costs)]
    return table(collection, "cost", "what a run costs", data, printed, notes, order)


def _left_out(runs: pd.DataFrame) -> list[str]:
    """What is never pruned though it has two or more dimensions, and what is never used, by model."""
    notes = []
    for column, what, kind in (
        ("not_prunable", "Not prunable, dense in every run", dict),
        ("unused_layers", "Prunable, but not used by an evaluated image", list),
    ):
        texts = []
        told = runs[["model", column]].dropna().drop_duplicates() if column in runs else runs[:0]
        for model, text in zip(told["model"], told.get(column, ()), strict=True):
            with suppress(ValueError, TypeError):  # a foreign record may hold anything here
                value = json.loads(text)
                size = f"{sum(value.values()):,} weights in " if kind is dict and isinstance(value, dict) else ""
                texts += [f"{model}: {size}{', '.join(value)}"] if isinstance(value, kind) else []
        notes += [f"{what}: {'; '.join(texts)}."] if texts else []
    return notes


def missing_table(collection: Collection, names: Labels) -> Table:
    """One row per cell and kind of loss: missing, unreadable, impossible, diverged; with the reason.

    Args:
        collection: with its controls, which have a column if there are any.
        names: of its methods.
    """
    lost: dict[str, dict[tuple[str, str], list[int]]] = {}  # by cell, then by (what, reason): the seeds

    def note(cell: str, what: str, reason: str, seed: int) -> None:
        lost.setdefault(cell, {}).setdefault((what, reason), []).append(seed)

    broken = {(record.cell, record.seed): record.message for record in collection.unreadable}
    for run in collection.missing:
        note(run[0], "unreadable" if run in broken else "missing", broken.get(run, ""), run[1])
    failed = collection.runs[collection.runs["status"] != "done"]
    for name, status, reason, seed in failed[["cell", "status", "reason", "seed"]].itertuples(index=False, name=None):
        note(name, status, "" if pd.isna(reason) else reason, int(seed))
    controls = ["control"] if any(cell.control != NO_CONTROL for cell in collection.grid.cells) else []
    data: list[dict[str, Any]] = []
    printed: list[dict[str, str]] = []
    for cell in collection.grid.cells:
        for (what, why), seeds in lost.get(cell.id, {}).items():
            listed = {"space": cell.space, "what": what, "runs": len(seeds), "seeds": ranges(seeds), "reason": why}
            control = {"control": cell.control} if controls else {}
            data.append({"cell": cell.id} | raw_axes(Row(cell, None)) | control | listed)
            texts = axes(names, Row(cell, None)) | control | {"space": cell.space.upper(), "what": what}
            printed.append(texts | {"runs": str(len(seeds)), "seeds": ranges(seeds), "reason": why or NOTHING})
    done = int((collection.runs["status"] == "done").sum())
    notes = (
        f"{done} of {collection.grid.planned} planned runs are finished.",
        "impossible: the budget cannot be met, for the reason given; diverged: a loss that is not finite.",
    )
    order = [*column_names(names), *controls, "space", "what", "runs", "seeds", "reason"]
    raw = ["cell", *AXES, *controls, "family", "space", "what", "runs", "seeds", "reason"]
    return table(collection, "missing", "runs without a result", data, printed, notes, order, raw)


def _mean(values: NDArray[np.floating[Any]]) -> float:
    """The mean of the numbers that there are; NaN where there is nothing to average."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan
