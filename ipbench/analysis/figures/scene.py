"""What the figures of one collection have in common: its statistics, each computed once, and counts for the notes."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

from ipbench.analysis import comparisons as stats
from ipbench.analysis.collect import Collection
from ipbench.analysis.grid import Cell
from ipbench.analysis.panels import Panel, panels
from ipbench.analysis.plan import ALL, BOTH, FigureFile
from ipbench.spec import SPACES

#: The columns of single runs that figures read; one of newer records may be absent.
_COLUMNS = (
    "layers", "basis_drift", "basis_condition", "curves_epoch", "curves_train_loss", "curves_gradient_norm",
)  # fmt: skip


class Scene:
    """A collection with its statistics, computed when first asked for."""

    def __init__(self, collection: Collection) -> None:
        self.collection = collection
        self._values: dict[str, dict[str, dict[int, float]]] = {}
        self._cells: dict[str, dict[str, stats.CellStatistics]] = {}

    def values(self, metric: str) -> dict[str, dict[int, float]]:
        """{cell: {seed: value}} of a metric."""
        if metric not in self._values:
            self._values[metric] = stats.metric_values(self.collection.runs, metric)
        return self._values[metric]

    def cells(self, metric: str) -> dict[str, stats.CellStatistics]:
        """{cell: statistics} of a metric."""
        if metric not in self._cells:
            self._cells[metric] = stats.all_cells(self.collection, metric)
        return self._cells[metric]

    @cached_property
    def pairs(self) -> dict[str, Any]:
        """The comparisons of the primary metric, by `comparisons.pair_name`."""
        return stats.by_pair(stats.paired(self.collection))

    @cached_property
    def counts(self) -> dict[str, stats.Counts]:
        """How the runs of each cell ended."""
        return stats.counts(self.collection)

    @cached_property
    def done(self) -> dict[str, list[dict[str, Any]]]:
        """The finished runs of each cell, as rows."""
        rows: dict[str, list[dict[str, Any]]] = {}
        runs = self.collection.runs
        columns = [name for name in ("cell", "seed", *_COLUMNS) if name in runs]
        for values in runs.loc[runs["status"] == "done", columns].itertuples(index=False, name=None):
            row = dict(zip(columns, values, strict=True))
            rows.setdefault(row["cell"], []).append(row)
        return rows

    def panels(self, file: FigureFile) -> list[Panel]:
        """The panels of a figure."""
        found = panels(self.collection.grid, file.dataset, file.model)
        return [panel for panel in found if file.method in (ALL, panel.method)]

    def nothing(self, cells: Iterable[Cell]) -> str:
        """Why a panel of these cells, none of which has a finished run, is empty."""
        ended = [self.counts[cell.id] for cell in cells]
        return "impossible" if ended and all(count.impossible for count in ended) else "no finished runs"

    def note(self, cells: Iterable[Cell], text: str) -> str:
        """`text` with how many of the runs of `cells` it rests on."""
        counts = [self.counts[name] for name in dict.fromkeys(cell.id for cell in cells)]
        done, planned = sum(count.done for count in counts), sum(count.planned for count in counts)
        parts = [f"{done} of {planned} runs"]
        for what in ("diverged", "impossible", "missing"):
            number = sum(getattr(count, what) for count in counts)
            parts += [f"{number} {what}"] if number else []
        return f"{text} {', '.join(parts)}."


def spaces(file: FigureFile) -> tuple[str, ...]:
    """The spaces a figure shows."""
    return SPACES if file.space == BOTH else (file.space,)


def title(file: FigureFile) -> str:
    """The net a figure is about."""
    return f"{file.dataset}, {file.model}"
