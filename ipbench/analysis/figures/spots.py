"""Figures with a panel per method and sparsity: which panels there are, and how the two spaces differ in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.lines import Line2D

from ipbench.analysis import style
from ipbench.analysis.figures.layout import chunks
from ipbench.analysis.figures.scene import Scene, spaces
from ipbench.analysis.grid import Cell, Row
from ipbench.analysis.panels import Panel
from ipbench.analysis.plan import ALL, FigureFile

#: A panel of a figure: a method (and variant) at one sparsity.
Spot = tuple[Panel, Row]

#: Curves of both spaces often lie on each other: the second is dashed.
DASHES: dict[str, Any] = {"sp": "-", "ip": (0, (3.5, 1.2))}


def spots_of(scene: Scene, file: FigureFile) -> tuple[list[Spot], list[int], str]:
    """Which (panel, sparsity) get axes, how many in each row of the page, and a sentence on those left out.

    Every method starts a row, unless all have one sparsity only: then they follow each other. A figure over all methods
    has one row for each, with at most `style.COLUMNS` of its sparsities, spread evenly.
    """
    spots: list[Spot] = []
    rows: list[int] = []
    left_out = 0
    for panel in scene.panels(file):
        chosen = list(panel.rows)
        if file.method == ALL and len(chosen) > style.COLUMNS:
            spread = np.linspace(0, len(chosen) - 1, style.COLUMNS).round().astype(int)
            left_out = max(left_out, len(chosen) - style.COLUMNS)
            chosen = [chosen[index] for index in spread]
        spots += [(panel, row) for row in chosen]
        rows += chunks(len(chosen))
    if set(rows) == {1}:
        rows = chunks(len(spots))
    return spots, rows, f" {left_out} more sparsities are in the figures of single methods." if left_out else ""


def cells_of(spots: Sequence[Spot], file: FigureFile) -> list[Cell]:
    """The cells that a figure shows."""
    return [cell for _, row in spots for _, cell in sides(row, file)]


def sides(row: Row, file: FigureFile) -> list[tuple[str, Cell]]:
    """The spaces of a panel that a figure shows, with the cell of each."""
    found = {"sp": row.sp, "ip": row.ip}
    return [(space, cell) for space in spaces(file) if (cell := found[space]) is not None]


def titles(spots: Sequence[Spot]) -> list[str]:
    """The titles of the panels."""
    return [at_level(panel.title, row.any) for panel, row in spots]


def at_level(name: str, cell: Cell) -> str:
    """The title of a panel of one sparsity, or one value of a knob, which no line break takes from its name."""
    return f"{name}, {level(cell)}"


def level(cell: Cell) -> str:
    """'p = 0.9', or 'rate = 0.4' where a knob says how much is pruned."""
    # A text of shares by layer is long: it may be broken behind commas.
    what, value = (cell.knob, cell.setting.replace(",", ", ")) if cell.knob else ("p", cell.sparsity)
    return f"{what}\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{value}"


def handles(file: FigureFile, markers: bool) -> list[Artist]:
    """The legend: a line for each space."""
    return [
        Line2D(
            [],
            [],
            color=style.COLOUR[space],
            linestyle=DASHES[space],
            marker=style.MARKER[space] if markers else "",
            label=style.LABEL[space],
        )
        for space in spaces(file)
    ]
