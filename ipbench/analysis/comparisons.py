"""The statistics of a collection: one row per cell, one per SP/IP comparison, and one for the whole grid.

Accuracies are fractions here; tables and figures turn them into per cent and percentage points.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from ipbench.analysis.collect import Collection
from ipbench.analysis.grid import Cell, Grid, Row
from ipbench.analysis.statistics import CLAIM_SEEDS, claim, holm, mean_interval, seeds_needed, sign_flip
from ipbench.errors import BadInput

#: What claims are made about: the accuracy on the test set after the last epoch.
PRIMARY = "test_accuracy"
SELECTED = "test_accuracy_selected"
#: Train minus test accuracy after the last epoch; the only metric that is not a column of the runs.
GAP = "generalisation_gap"

#: {cell: {seed: value}} of one metric.
Values = Mapping[str, Mapping[int, float]]


@dataclass(frozen=True)
class Counts:
    """How the planned runs of a cell ended."""

    planned: int
    done: int
    diverged: int
    impossible: int
    missing: int
    reason: str


@dataclass(frozen=True)
class CellStatistics:
    """One metric over the finished runs of a cell: mean, standard deviation (n - 1) and interval of the mean."""

    n: int
    mean: float
    std: float
    lower: float
    upper: float
    interval: str


@dataclass(frozen=True)
class Comparison:
    """IP - SP of one metric, paired by seed (see `compare`)."""

    n: int
    mean: float
    lower: float
    upper: float
    interval: str
    p: float
    p_kind: str


@dataclass(frozen=True)
class Overall:
    """One comparison of SP and IP over a whole grid: per seed the mean difference over `cells`, then as any other.

    `included` and `excluded` hold the ids of comparisons as `sp/ip`; a comparison is included if every planned seed of
    both sides is done.
    """

    comparison: Comparison
    included: tuple[str, ...]
    excluded: tuple[str, ...]


def metric_values(runs: pd.DataFrame, metric: str = PRIMARY) -> dict[str, dict[int, float]]:
    """The finite values of one metric over the runs that are done, by cell and seed.

    Args:
        runs: of a `Collection`.
        metric: a column of it, or `GAP`.
    """
    done = runs[runs["status"] == "done"]
    column = done["train_accuracy"] - done["test_accuracy"] if metric == GAP else done[metric]
    values: dict[str, dict[int, float]] = {}
    for cell, seed, value in zip(done["cell"], done["seed"], column, strict=True):
        if not pd.isna(value) and math.isfinite(value):
            values.setdefault(cell, {})[int(seed)] = float(value)
    return values


def counts(collection: Collection) -> dict[str, Counts]:
    """How the runs of every planned cell ended, by cell."""
    ended: dict[str, dict[str, int]] = {}
    reasons: dict[str, str] = {}
    for cell, status, reason in zip(*(collection.runs[name] for name in ("cell", "status", "reason")), strict=True):
        number = ended.setdefault(cell, {})
        number[status] = number.get(status, 0) + 1
        if not pd.isna(reason):
            reasons.setdefault(cell, str(reason))
    result = {}
    for cell in collection.grid.cells:
        number = ended.get(cell.id, {})
        done, diverged, impossible = (number.get(status, 0) for status in ("done", "diverged", "impossible"))
        missing = len(cell.seeds) - done - diverged - impossible
        result[cell.id] = Counts(len(cell.seeds), done, diverged, impossible, missing, reasons.get(cell.id, ""))
    return result


def cell_statistics(values: Mapping[int, float], *key: str) -> CellStatistics:
    """Mean, spread and BCa interval of the values of one cell.

    The interval of a mean is BCa as well, not Student's t, so that every interval of a report is of one kind.
    """
    x = np.array([values[seed] for seed in sorted(values)])
    interval = mean_interval(x, *key)
    mean = float(x.mean()) if x.size else math.nan
    std = float(x.std(ddof=1)) if x.size > 1 else math.nan
    return CellStatistics(x.size, mean, std, interval.lower, interval.upper, interval.kind)


def all_cells(collection: Collection, metric: str = PRIMARY) -> dict[str, CellStatistics]:
    """`cell_statistics` of every planned cell, by cell."""
    values = metric_values(collection.runs, metric)
    return {cell.id: cell_statistics(values.get(cell.id, {}), metric, cell.id) for cell in collection.grid.cells}


def differences(row: Row, values: Values) -> dict[int, float]:
    """IP - SP by seed, of the seeds that both sides have."""
    if row.sp is None or row.ip is None:
        return {}
    sp, ip = values.get(row.sp.id, {}), values.get(row.ip.id, {})
    return {seed: ip[seed] - sp[seed] for seed in sorted(sp.keys() & ip.keys())}


def compare(by_seed: Mapping[int, float], *key: str) -> Comparison:
    """Mean, BCa interval and sign-flip p of paired differences (see `ipbench.analysis.statistics`)."""
    x = np.array([by_seed[seed] for seed in sorted(by_seed)])
    interval, test = mean_interval(x, *key), sign_flip(x, *key)
    mean = float(x.mean()) if x.size else math.nan
    return Comparison(x.size, mean, interval.lower, interval.upper, interval.kind, test.p, test.kind)


def paired(collection: Collection, metric: str = PRIMARY) -> pd.DataFrame:
    """Every comparison of a grid: one row per pair of an SP and an IP cell, in the order of the grid.

    Returns:
        `sp_cell`, `ip_cell`, the fields of `Comparison`, `p_holm`, `claim`, `reference`, `planned` (seeds), `diverged`
        (seeds left out because a side diverged), `impossible`. The family of Holm's correction is every comparison that
        is planned and possible, finished or not. Dense references (`reference`) are shown, but belong to no family and
        make no claim; their `p_holm` is NaN.

    Raises:
        BadInput: runs of two modes or two versions of the numerics would meet in a test.
    """
    values, ended = metric_values(collection.runs, metric), counts(collection)
    unmixed = _Unmixed(collection)
    diverged = _diverged_seeds(collection)
    records = []
    for row in collection.grid.rows():
        if row.sp is None or row.ip is None:
            continue
        unmixed.check([row.sp, row.ip])
        key = pair_name(row)
        planned = set(row.sp.seeds) & set(row.ip.seeds)
        records.append(
            {"sp_cell": row.sp.id, "ip_cell": row.ip.id}
            | asdict(compare(differences(row, values), metric, key))
            | {
                "reference": not row.compared,
                "planned": len(planned),
                "diverged": len(planned & (diverged.get(row.sp.id, set()) | diverged.get(row.ip.id, set()))),
                "impossible": any(ended[side.id].impossible > 0 for side in (row.sp, row.ip)),
            }
        )
    names = ["sp_cell", "ip_cell", *Comparison.__dataclass_fields__, "reference", "planned", "diverged", "impossible"]
    frame = pd.DataFrame(records, columns=names)
    family = ~(frame["reference"].astype(bool) | frame["impossible"].astype(bool))
    frame["p_holm"] = math.nan
    frame.loc[family, "p_holm"] = holm([float(p) for p in frame.loc[family, "p"]])
    frame["claim"] = [claim(mean, p, n) for mean, p, n in zip(frame["mean"], frame["p_holm"], frame["n"], strict=True)]
    return frame


def family_size(pairs: pd.DataFrame) -> int:
    """Number of comparisons that Holm's correction runs over, of the frame that `paired` returns."""
    return int((~(pairs["reference"].astype(bool) | pairs["impossible"].astype(bool))).sum())


def seeds_note(pairs: pd.DataFrame) -> str:
    """One sentence: how many seeds a corrected claim over this grid needs, and how many are planned."""
    size = family_size(pairs)
    if not size:
        return "No SP/IP comparison is planned and possible."
    planned = sorted({int(n) for n in pairs.loc[~pairs["reference"].astype(bool), "planned"]})
    have = str(planned[0]) if len(planned) == 1 else f"{planned[0]} to {planned[-1]}"
    need = max(CLAIM_SEEDS, seeds_needed(size))
    plural = "" if size == 1 else "s"
    correction = f"Holm's correction over {size} comparison{plural}"
    return f"A claim that holds after {correction} needs {need} seeds; planned: {have}."


def overall(collection: Collection, metric: str = PRIMARY) -> Overall:
    """The one global test of a grid: does IP differ from SP on average over its complete comparisons?

    Raises:
        BadInput: runs of two modes or two versions of the numerics would meet in the test.
    """
    rows = [row for row in collection.grid.rows() if row.compared]
    return _averaged(collection, rows, metric, "overall")


def by_method(collection: Collection, metric: str = PRIMARY) -> pd.DataFrame:
    """One test per data set, model and method: does IP differ from SP on average over its complete comparisons?

    Returns:
        `dataset`, `model`, `method`, the fields of `Comparison`, `p_holm` over these tests, `claim`; `comparisons` and
        `excluded`: how many comparisons are averaged, and how many are not complete.

    Raises:
        BadInput: runs of two modes or two versions of the numerics would meet in a test.
    """
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in collection.grid.rows():
        if row.compared:
            groups.setdefault((row.any.dataset, row.any.model, row.any.method), []).append(row)
    records = []
    for key, rows in groups.items():
        found = _averaged(collection, rows, metric, "method", *key)
        sizes = {"comparisons": len(found.included), "excluded": len(found.excluded)}
        records.append(dict(zip(("dataset", "model", "method"), key, strict=True)) | asdict(found.comparison) | sizes)
    names = ["dataset", "model", "method", *Comparison.__dataclass_fields__, "comparisons", "excluded"]
    frame = pd.DataFrame(records, columns=names)
    frame["p_holm"] = holm([float(p) for p in frame["p"]])
    frame["claim"] = [claim(mean, p, n) for mean, p, n in zip(frame["mean"], frame["p_holm"], frame["n"], strict=True)]
    return frame


def _averaged(collection: Collection, rows: Sequence[Row], metric: str, *key: str) -> Overall:
    """One comparison over several: per seed, the mean difference of those that are complete."""
    values = metric_values(collection.runs, metric)
    included: list[Row] = []
    excluded: list[Row] = []
    for row in rows:
        if row.sp is None or row.ip is None:
            continue
        complete = all(set(values.get(side.id, {})) >= set(side.seeds) for side in (row.sp, row.ip))
        (included if complete and differences(row, values) else excluded).append(row)
    _Unmixed(collection).check([side for row in included for side in (row.sp, row.ip) if side])
    by_row = [differences(row, values) for row in included]
    seeds = set.intersection(*map(set, by_row)) if by_row else set()
    means = {seed: math.fsum(row[seed] for row in by_row) / len(by_row) for seed in seeds}
    names = tuple(map(pair_name, included))
    return Overall(compare(means, metric, *key, *names), names, tuple(map(pair_name, excluded)))


def pair_name(row: Row) -> str:
    """Names a comparison by its two cells."""
    return f"{row.sp.id if row.sp else ''}/{row.ip.id if row.ip else ''}"


def by_pair(pairs: pd.DataFrame) -> dict[str, dict[Hashable, Any]]:
    """The rows of the frame that `paired` returns, by `pair_name`."""
    return {f"{record['sp_cell']}/{record['ip_cell']}": record for record in pairs.to_dict("records")}


def _diverged_seeds(collection: Collection) -> dict[str, set[int]]:
    runs = collection.runs[collection.runs["status"] == "diverged"]
    seeds: dict[str, set[int]] = {}
    for cell, seed in zip(runs["cell"], runs["seed"], strict=True):
        seeds.setdefault(cell, set()).add(int(seed))
    return seeds


class _Unmixed:
    """Refuses a test over runs that were made in different ways."""

    #: What has to be the same for all runs of one test, and how to say it.
    COLUMNS = (
        ("mode", "modes"),
        ("provenance_mode", "modes"),
        ("provenance_numerics", "versions of the numerics"),
        ("provenance_processes", "numbers of processes"),
    )

    def __init__(self, collection: Collection) -> None:
        runs = collection.runs[collection.runs["status"] == "done"]
        self._grid: Grid = collection.grid
        self._found: dict[str, dict[str, set[str]]] = {}
        for column, _ in self.COLUMNS:
            if column not in runs:  # collected before there was such a column
                continue
            for cell, value in zip(runs["cell"], runs[column], strict=True):
                if not pd.isna(value):
                    self._found.setdefault(column, {}).setdefault(cell, set()).add(str(value))

    def check(self, cells: list[Cell]) -> None:
        for column, what in self.COLUMNS:
            found = set().union(*(self._found.get(column, {}).get(cell.id, set()) for cell in cells))
            if len(found) > 1:
                place = ", ".join(dict.fromkeys(f"{cell.method} at {cell.sparsity}" for cell in cells))
                raise BadInput(
                    f"{self._grid.name}: one test would mix runs of {len(found)} {what} ({', '.join(sorted(found))})"
                    f" in {place:.80}; run the experiment again in one"
                )
