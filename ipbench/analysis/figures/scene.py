"""What the figures of one collection have in common: its statistics, each computed once, and counts for the notes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from typing import Any

import pandas as pd

from ipbench.analysis import style
from ipbench.analysis.cells import CellStatistics, Counts, Values, all_cells, counts, lost_runs, metric_values
from ipbench.analysis.collect import Collection
from ipbench.analysis.comparisons import Analysis, Finding, analyse
from ipbench.analysis.grid import Cell, Row
from ipbench.analysis.labels import metric_name
from ipbench.analysis.panels import Panel, panels
from ipbench.analysis.plan import ALL, BOTH, FigureFile
from ipbench.analysis.reached import is_result, mean_share, share_column
from ipbench.analysis.settings import Settings
from ipbench.analysis.sliced import COLUMNS
from ipbench.analysis.survival import Survival, survival
from ipbench.spec import SPACES

#: The columns of single runs that figures read; one of newer records may be absent.
_COLUMNS = (
    "basis_drift", "basis_condition", "curves_epoch", "curves_train_loss", "curves_gradient_norm", *COLUMNS,
)  # fmt: skip

#: The largest share that has a place: that of an empty net, 1, has none on a logarithmic axis.
_MOST = 0.999999


class Scene:
    """A collection with its statistics, computed when first asked for.

    Args:
        collection: without controls.
        whole: the same with them; left out where there are none.
    """

    def __init__(self, collection: Collection, whole: Collection | None = None) -> None:
        self.collection = collection
        self.whole = whole or collection
        self._values: dict[str, Values] = {}
        self._cells: dict[str, dict[str, CellStatistics]] = {}

    def values(self, metric: str) -> Values:
        """{cell: {seed: value}} of a metric; cells whose runs no mean may hold together are left out."""
        if metric not in self._values:
            found = metric_values(self.collection.runs, metric)
            self._values[metric] = {cell: values for cell, values in found.items() if not self.settings.mixed([cell])}
        return self._values[metric]

    def cells(self, metric: str) -> dict[str, CellStatistics]:
        """{cell: statistics} of a metric."""
        if metric not in self._cells:
            self._cells[metric] = all_cells(self.collection, metric)
        return self._cells[metric]

    @property
    def metric(self) -> str:
        """What the primary metric is called."""
        return metric_name(self.collection.grid.cells)

    @cached_property
    def settings(self) -> Settings:
        """What the runs of cells have in common."""
        return Settings(self.collection)

    @cached_property
    def pairs(self) -> dict[str, Finding]:
        """The comparisons of the primary metric, by `comparisons.pair_name`."""
        return self.analysis.pairs

    @cached_property
    def analysis(self) -> Analysis:
        """All comparisons of the primary metric."""
        return analyse(self.collection)

    @cached_property
    def survival(self) -> Survival:
        """What the controls tell."""
        return survival(self.whole)

    @cached_property
    def counts(self) -> dict[str, Counts]:
        """How the runs of each cell ended."""
        return counts(self.collection)

    @cached_property
    def lost(self) -> dict[str, dict[int, frozenset[str]]]:
        """The runs of each cell that lost their net, by seed, with what is said of them."""
        return lost_runs(self.collection)

    @cached_property
    def done(self) -> dict[str, list[dict[str, Any]]]:
        """The finished runs of each cell, as rows; cells whose runs no mean may hold together are left out."""
        rows: dict[str, list[dict[str, Any]]] = {}
        runs = self.collection.runs
        columns = [name for name in ("cell", "seed", *_COLUMNS) if name in runs]
        for values in runs.loc[runs["status"] == "done", columns].itertuples(index=False, name=None):
            row = dict(zip(columns, values, strict=True))
            rows.setdefault(row["cell"], []).append(row)
        return {cell: found for cell, found in rows.items() if not self.settings.mixed([cell])}

    def panels(self, file: FigureFile) -> list[Panel]:
        """The panels of a figure; rows of a method with a knob are in the order of what they reached."""
        found = panels(self.collection.grid, file.dataset, file.model)
        shown = [panel for panel in found if file.method in (ALL, panel.method)]
        return [replace(panel, rows=tuple(sorted(panel.rows, key=self._order))) for panel in shown]

    def _order(self, row: Row) -> tuple[bool, float]:
        """By place; what has none yet comes last, as it was planned."""
        place = self.place(row)
        return math.isnan(place), 0.0 if math.isnan(place) else place

    def place(self, row: Row) -> float:
        """Where the two sides of a row stand together: in the middle of both, NaN if neither has a place."""
        places = [self.position(side) for side in (row.sp, row.ip) if side]
        known = [place for place in places if not math.isnan(place)]
        return sum(known) / len(known) if known else math.nan

    def side(self, panel: Panel, space: str) -> list[Cell]:
        """The cells of one space of a panel that have a place, by growing place."""
        placed = [cell for cell in panel.side(space) if not math.isnan(self.position(cell))]
        return sorted(placed, key=self.position)

    def places(self, panel: Panel) -> list[float]:
        """The places of all cells of a panel that have one."""
        return [self.position(cell) for space in SPACES for cell in self.side(panel, space)]

    def position(self, cell: Cell) -> float:
        """Where a cell stands on the axis of shares: where it was planned; one whose share is a result, there.

        NaN for one that a knob prunes, and of which no run is finished, or none of its runs may meet in a mean.
        """
        column = share_column(cell)
        reached = self.values(column).get(cell.id, {}) if is_result(cell) and column in self.runs else {}
        if not reached:
            return math.nan if cell.knob else style.sparsity_position(cell.sparsity)
        return style.sparsity_position(str(min(mean_share(reached), _MOST)))

    @property
    def runs(self) -> pd.DataFrame:
        """All runs that have a record."""
        return self.collection.runs

    def nothing(self, cells: Iterable[Cell]) -> str:
        """Why a panel of these cells, none of which has a finished run, is empty."""
        names = [cell.id for cell in cells]
        if any(self.settings.mixed([name]) for name in names):
            return "not formed: mixed settings"
        return "impossible" if names and all(self.counts[name].impossible for name in names) else "no finished runs"

    def mixed(self, row: Row) -> str | None:
        """What differs between the two sides of a comparison that no pair may hold together."""
        return self.settings.mixed([side.id for side in (row.sp, row.ip) if side])

    def note(self, cells: Iterable[Cell], text: str, pairs: Iterable[Row] = ()) -> str:
        """`text` with how many of the runs of `cells` it rests on, and what is not drawn of them, or of `pairs`."""
        names = list(dict.fromkeys(cell.id for cell in cells))
        ended = [self.counts[name] for name in names]
        done, planned = sum(count.done for count in ended), sum(count.planned for count in ended)
        parts = [f"{done} of {planned} runs"]
        for what in ("diverged", "collapsed", "chance", "impossible", "missing"):
            number = sum(getattr(count, what) for count in ended)
            parts += [f"{number} {'at chance' if what == 'chance' else what}"] if number else []
        what = "pair" if (rows := list(pairs)) else "mean"
        mixed = list(filter(None, map(self.mixed, rows) if rows else (self.settings.mixed([name]) for name in names)))
        more = f" Not formed: {len(mixed)} {what}{'s' if len(mixed) > 1 else ''}, mixed {mixed[0]}." if mixed else ""
        return f"{text} {', '.join(parts)}.{more}"


def spaces(file: FigureFile) -> tuple[str, ...]:
    """The spaces a figure shows."""
    return SPACES if file.space == BOTH else (file.space,)


def shown_spaces(file: FigureFile, panels: Iterable[Panel]) -> tuple[str, ...]:
    """Of the spaces that a figure shows, those in which one of its panels has cells."""
    known = list(panels)
    return tuple(space for space in spaces(file) if any(panel.side(space) for panel in known))


def title(file: FigureFile) -> str:
    """The net a figure is about."""
    return f"{file.dataset}, {file.model}"
