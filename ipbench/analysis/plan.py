"""Which files the analysis of an experiment produces, known from its grid alone (no pandas, no matplotlib)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ipbench.analysis.controls import beside
from ipbench.analysis.grid import Cell, Grid, Row, options_vary, parse
from ipbench.analysis.panels import ablations, panels
from ipbench.analysis.places import places
from ipbench.analysis.tradeoffs import tradeoffs
from ipbench.analysis.twins import twin_nets, twin_panels
from ipbench.errors import BadInput
from ipbench.spec import NO_CONTROL, SPACES

#: Tables and the formats of each, under `tables/`.
TABLES = (
    "accuracy", "paired", "methods", "global", "cost", "missing", "structured", "setups", "twins", "survival",
)  # fmt: skip
TABLE_FORMATS = ("csv", "md", "tex", "html")
#: Figures, under `figures/`; those of `BY_METHOD` also come for a single method, and for a single space of it.
FIGURES = (
    "forest", "accuracy", "methods", "twins", "difference", "ablation", "tradeoff", "training-loss", "gradient-norm",
    "generalisation", "density", "spatial-zeros", "basis", "cost", "macs", "latency", "channels",
    "survival",
)  # fmt: skip
BY_METHOD = ("accuracy", "training-loss", "gradient-norm", "density")
FIGURE_FORMATS = ("svg", "pdf")
#: What stands for "no one method" and "no one space" in names and labels.
ALL, BOTH = "all", "both"


@dataclass(frozen=True)
class FigureFile:
    """One file of a figure, with the labels an HTML report selects by."""

    figure: str
    dataset: str
    model: str
    method: str
    space: str
    format: str

    @property
    def stem(self) -> str:
        """`<figure>.<dataset>-<model>.<method>.<space>`; the files of one stem show the same picture."""
        return f"{self.figure}.{self.dataset}-{self.model}.{self.method}.{self.space}"

    @property
    def path(self) -> str:
        """Where it is, relative to the results folder."""
        return f"figures/{self.stem}.{self.format}"

    @property
    def labels(self) -> dict[str, str]:
        """The labels as plain text."""
        names = ("figure", "dataset", "model", "method", "space")
        return {name: getattr(self, name) for name in names}


def plan(grid: Grid | Mapping[str, Any]) -> list[FigureFile]:
    """Every figure file of an experiment, in a fixed order, whether or not a run has finished.

    Per data set and model: each figure once over all methods and both spaces, then `BY_METHOD` per method for both
    spaces and, where both are planned, for each. `forest` needs a method whose comparisons may be averaged, `methods`
    two methods or variants, `twins` two of them with two sparsities of coefficients each, `difference` and `cost` a
    planned SP/IP comparison, `basis` an IP cell, `ablation` several filter bases for one SP cell, `tradeoff` three
    values of a numeric option, `macs`, `latency` and `channels` runs whose channels are cut, `survival` controls; all
    others are of the runs without controls.

    Args:
        grid: a `Grid`, or the plain value that `grid.json` holds.

    Raises:
        BadInput: the value is no grid, or two figures would have the same name.
    """
    whole = grid if isinstance(grid, Grid) else parse(grid)
    grid, controlled = whole.without_controls(), nets_with_controls(whole)
    cells: dict[tuple[str, str], list[Cell]] = {}
    for cell in grid.cells:
        cells.setdefault((cell.dataset, cell.model), []).append(cell)
    files = [
        FigureFile(figure, *net, method, space, suffix)
        for net, own in cells.items()
        # Alone, for a grid may have many nets.
        for figure, method, space in _of_net(replace(grid, cells=tuple(own)), *net, net in controlled)
        for suffix in FIGURE_FORMATS
    ]
    if len({file.path for file in files}) != len(files):
        raise BadInput(f"{grid.name}: two figures would have the same name; rename a data set or a model")
    return files


def tables_of(grid: Grid) -> list[str]:
    """The tables of an experiment.

    `structured` needs channels that are cut, `setups` several methods at a place, `twins` a net with that figure,
    `survival` controls.
    """
    own = grid.without_controls()
    needs = {
        "structured": any(cell.cut for cell in own.cells),
        "setups": bool(places(own)),
        "twins": bool(twin_nets(own)),
        "survival": bool(nets_with_controls(grid)),
    }
    return [name for name in TABLES if needs.get(name, True)]


def nets_with_controls(grid: Grid) -> set[tuple[str, str]]:
    """The pairs (data set, model) of which methods are planned with controls of their own runs."""
    if all(cell.control == NO_CONTROL for cell in grid.cells):
        return set()
    return {(one.cell.dataset, one.cell.model) for one in beside(grid).values()}


def plan_tables(grid: Grid | Mapping[str, Any]) -> list[str]:
    """Every table file of an experiment, relative to the results folder.

    Args:
        grid: a `Grid`, or the plain value that `grid.json` holds.

    Raises:
        BadInput: the value is no grid.
    """
    grid = grid if isinstance(grid, Grid) else parse(grid)
    return [f"tables/{table}.{suffix}" for table in tables_of(grid) for suffix in TABLE_FORMATS]


def _of_net(grid: Grid, dataset: str, model: str, controlled: bool) -> list[tuple[str, str, str]]:
    """(figure, method, space) of one net; whether there are controls of it."""
    cells = [cell for cell in grid.cells if (cell.dataset, cell.model) == (dataset, model)]
    shown = [cell for cell in cells if not cell.dense] or cells
    spaces = [space for space in SPACES if any(cell.space == space for cell in shown)]
    compared = any(row.compared and (row.any.dataset, row.any.model) == (dataset, model) for row in grid.rows())
    needs = {
        "methods": len(panels(grid, dataset, model)) > 1,
        "twins": bool(twin_panels(grid, dataset, model)),
        "forest": _averaged(grid, dataset, model),
        "difference": compared,
        "cost": compared,
        "basis": "ip" in spaces,
        "ablation": bool(ablations(grid, dataset, model)),
        "tradeoff": bool(tradeoffs(grid, dataset, model)),
        "survival": controlled,
        **dict.fromkeys(("macs", "latency", "channels"), any(cell.cut for cell in cells)),
    }
    keys = [(figure, ALL, BOTH) for figure in FIGURES if needs.get(figure, True)]
    for method in dict.fromkeys(cell.method for cell in shown):
        for figure in BY_METHOD:
            keys += [(figure, method, space) for space in [BOTH, *(spaces if len(spaces) > 1 else [])]]
    return keys


def _averaged(grid: Grid, dataset: str, model: str) -> bool:
    """Whether an average over the comparisons of a method of this net may be formed."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in grid.rows():
        if row.compared and (row.any.dataset, row.any.model) == (dataset, model):
            groups.setdefault((row.any.method, *row.any.structure), []).append(row)
    return any(not options_vary(rows) for rows in groups.values())
