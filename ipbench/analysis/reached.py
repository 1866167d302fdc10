"""The share that was removed, where it is a result: of N:M patterns, and where a knob stands in a sparsity's place."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ipbench.analysis.cells import metric_values
from ipbench.analysis.collect import Collection
from ipbench.analysis.grid import Cell
from ipbench.analysis.settings import Settings
from ipbench.spec import COEFFICIENTS, n_of_m


def is_result(cell: Cell) -> bool:
    """Whether the share of a cell is a result, and none that was asked for."""
    return bool(cell.knob) or n_of_m(cell.pattern) is not None


def share_column(cell: Cell) -> str:
    """The column of the runs that tells the share: in the unit of the budget; of single coefficients, with the FBs."""
    return "achieved_sparsity" if cell.pattern == COEFFICIENTS else "reached"


def mean_share(values: Mapping[int, float]) -> float:
    """The mean over seeds; NaN without any."""
    return sum(values.values()) / len(values) if values else math.nan


def reached_by_knob(collection: Collection) -> dict[str, float]:
    """What the cells with a knob have reached, by cell: the mean over the finished runs, where one may be formed."""
    runs, settings = collection.runs, Settings(collection)
    found: dict[str, float] = {}
    for cell in collection.grid.cells:
        column = share_column(cell)
        if cell.knob and column in runs and not settings.mixed([cell.id]):
            values = metric_values(runs[runs["cell"] == cell.id], column).get(cell.id, {})
            found |= {cell.id: mean_share(values)} if values else {}
    return found
