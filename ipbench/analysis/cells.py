"""The numbers of single cells: their values by seed, how their runs ended, means with intervals.

Accuracies are fractions here; tables and figures turn them into per cent and percentage points.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ipbench.analysis.collect import Collection
from ipbench.analysis.lost import CHANCE, COLLAPSED, fates, guess
from ipbench.analysis.settings import Settings
from ipbench.analysis.statistics import mean_interval
from ipbench.data.catalog import known

#: What claims are made about: the accuracy on the test set after the last epoch.
PRIMARY = "test_accuracy"
SELECTED = "test_accuracy_selected"
#: Train minus test accuracy after the last epoch; the only metric that is not a column of the runs.
GAP = "generalisation_gap"

#: {cell: {seed: value}} of one metric.
Values = Mapping[str, Mapping[int, float]]


@dataclass(frozen=True)
class Counts:
    """How the planned runs of a cell ended, and how many lost their net (`analysis.lost`).

    `collapsed` and `chance` runs are done, and may be the same; `lost` counts each of these and each diverged one once.
    """

    planned: int
    done: int
    diverged: int
    impossible: int
    missing: int
    collapsed: int
    chance: int
    lost: int
    reason: str


@dataclass(frozen=True)
class CellStatistics:
    """One metric over the runs of a cell: mean, standard deviation (n - 1) and interval of the mean.

    `mixed` tells what differs between runs that no mean may hold together; then there is none (n is 0).
    """

    n: int
    mean: float
    std: float
    lower: float
    upper: float
    interval: str
    mixed: str = ""


def metric_values(runs: pd.DataFrame, metric: str = PRIMARY, *, complete_case: bool = False) -> Values:
    """The finite values of one metric by cell and seed.

    A diverged run has the test accuracy of a guess, 1 / classes, or for detection an mAP of 0: left out, it would
    favour the side that diverges.

    Args:
        runs: of a `Collection`.
        metric: a column of it, or `GAP`.
        complete_case: leave diverged runs out all the same.
    """
    done = runs[runs["status"] == "done"]
    column = done["train_accuracy"] - done["test_accuracy"] if metric == GAP else done[metric]
    values: dict[str, dict[int, float]] = {}
    for cell, seed, value in zip(done["cell"], done["seed"], column, strict=True):
        if not pd.isna(value) and math.isfinite(value):
            values.setdefault(cell, {})[int(seed)] = float(value)
    if metric in (PRIMARY, SELECTED) and not complete_case:
        lost = runs[runs["status"] == "diverged"]
        for cell, seed, dataset in zip(lost["cell"], lost["seed"], lost["dataset"], strict=True):
            if facts := known(dataset):
                values.setdefault(cell, {})[int(seed)] = guess(facts)
    return values


def counts(collection: Collection) -> dict[str, Counts]:
    """How the runs of every planned cell ended, by cell."""
    ended: dict[str, dict[str, int]] = {}
    reasons: dict[str, str] = {}
    runs = collection.runs
    for cell, status, reason in zip(runs["cell"], runs["status"], runs["reason"], strict=True):
        number = ended.setdefault(cell, {})
        number[status] = number.get(status, 0) + 1
        if not pd.isna(reason):
            reasons.setdefault(cell, str(reason))
    fate = lost_runs(collection)
    result = {}
    for cell in collection.grid.cells:
        number = ended.get(cell.id, {})
        done, diverged, impossible = (number.get(status, 0) for status in ("done", "diverged", "impossible"))
        missing = len(cell.seeds) - done - diverged - impossible
        found = fate.get(cell.id, {})
        collapsed, chance = (sum(what in said for said in found.values()) for what in (COLLAPSED, CHANCE))
        ended_as = (done, diverged, impossible, missing, collapsed, chance, len(found), reasons.get(cell.id, ""))
        result[cell.id] = Counts(len(cell.seeds), *ended_as)
    return result


def cell_statistics(
    values: Mapping[int, float], least: float = -math.inf, most: float = math.inf, mixed: str = ""
) -> CellStatistics:
    """Mean, spread and Student's t interval of the values of one cell, whose possible range is [least, most]."""
    x = np.array([] if mixed else [values[seed] for seed in sorted(values)])
    interval = mean_interval(x, least, most)
    mean = float(x.mean()) if x.size else math.nan
    std = float(x.std(ddof=1)) if x.size > 1 else math.nan
    return CellStatistics(x.size, mean, std, interval.lower, interval.upper, interval.kind, mixed)


def all_cells(
    collection: Collection, metric: str = PRIMARY, *, complete_case: bool = False
) -> dict[str, CellStatistics]:
    """`cell_statistics` of every planned cell, by cell; the metric is a fraction."""
    values, settings = metric_values(collection.runs, metric, complete_case=complete_case), Settings(collection)
    least = -1.0 if metric == GAP else 0.0
    return {
        cell.id: cell_statistics(values.get(cell.id, {}), least, 1.0, settings.mixed([cell.id]) or "")
        for cell in collection.grid.cells
    }


def lost_runs(collection: Collection) -> dict[str, dict[int, frozenset[str]]]:
    """{cell: {seed: what is said of it}} of the runs that lost their net; see `lost.fates`."""
    found: dict[str, dict[int, frozenset[str]]] = {}
    for cell, seed, said in fates(collection.runs, PRIMARY):
        found.setdefault(cell, {})[seed] = said
    return found
