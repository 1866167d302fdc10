"""The page of a figure: panels in inches, a strip with title and legend above, one with the note below.

Sizes are fixed by hand rather than by a layout engine: panels of one kind have one size in every figure, nothing moves
with the length of a tick label, and a figure with fifty panels is laid out at once. Where panels of full height would
not fit on a printed page, they are made lower, down to a height at which a curve can still be read.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ipbench.analysis import style

#: Inches: margins, between panels of a row, above a panel for its title, between rows, per line of the note.
_LEFT, _RIGHT, _GAP, _TITLE, _SPACE, _LINE = 0.52, 0.1, 0.14, 0.2, 0.08, 0.125
#: Inches: the least height of a panel, and a line of a legend that has lines of its own.
_LEAST, _LEGEND = 0.6, 0.15
#: Characters per inch of the note and of a panel's title.
_NOTE_CHARACTERS, _TITLE_CHARACTERS = 24, 16.5
#: Inches that a label of the y-axis takes.
_LABEL = 0.13
#: Below this width the legend goes under the title instead of beside it.
_NARROW = 5.0


#: Left, bottom, width and height of a panel, as shares of the figure's.
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Page:
    """An empty figure with its panels.

    Attributes:
        figure: to draw on.
        panels: row by row.
        places: (row, column) of each.
        blocks: the block that each row belongs to; panels of one block share their y-axis.
        width: of a panel, in inches.
        height: of a panel, in inches.
        below: inches between the lowest tick labels and the lower edge.
        own_y: whether no panel shares its y-axis.
    """

    figure: Figure
    panels: list[Axes]
    places: list[tuple[int, int]]
    blocks: tuple[int, ...]
    width: float
    height: float
    below: float
    own_y: bool

    def lowest(self, index: int) -> bool:
        """Whether no panel of the same block is below this one."""
        row, column = self.places[index]
        return (row + 1, column) not in self.places or self.blocks[row + 1] != self.blocks[row]

    def block(self, number: int) -> list[Axes]:
        """The panels of a block."""
        return [axes for axes, (row, _) in zip(self.panels, self.places, strict=True) if self.blocks[row] == number]


def page(
    rows: Sequence[int],
    titles: Sequence[str],
    note: str,
    tick_room: float = 0.16,
    *,
    blocks: Sequence[int] | None = None,
    own_y: bool = False,
    own_x: bool = False,
    height: float | None = None,
    left: float = _LEFT,
    gap: float = _GAP,
    right: float = _RIGHT,
    legend_rows: int = 0,
) -> Page:
    """Lay out panels that share their x-axis, unless each has its own, and within a block their y-axis.

    Args:
        rows: number of panels of each row, at most `style.COLUMNS`; none at all gives one panel.
        titles: of the panels; a long one is broken into three lines at most.
        note: goes to the bottom, wrapped to the width of the figure.
        tick_room: inches below a lowest panel for its tick labels.
        blocks: the block of each row, counted from 0; by default all are one.
        own_y: give every panel a y-axis of its own; then `gap` has to hold its tick labels.
        own_x: give every panel an x-axis of its own; of panels in one row.
        height: of a panel, in inches; by default the usual one, or less where there are many rows.
        left: inches left of the panels.
        gap: inches between panels of a row.
        right: inches right of the panels.
        legend_rows: lines of a legend below the title; with 0 it stands beside it.
    """
    kept = [(number, block) for number, block in zip(rows, blocks or [0] * len(rows), strict=True) if number]
    rows, blocks = [number for number, _ in kept] or [1], [block for _, block in kept] or [0]
    columns = max(rows)
    width = min(style.PANEL_WIDTH, (style.PAGE_WIDTH - left - right - (columns - 1) * gap) / columns)
    total = left + right + columns * width + (columns - 1) * gap
    lines = textwrap.wrap(note, int((total - 0.08) * _NOTE_CHARACTERS))
    characters = int((width + 0.6 * gap) * _TITLE_CHARACTERS)
    broken = ["\n".join(textwrap.wrap(title, characters, max_lines=3, placeholder="…")) for title in titles]
    top = (0.36 if total < _NARROW else 0.22) if not legend_rows else 0.24 + _LEGEND * legend_rows
    below = 0.24 + _LINE * len(lines)
    strips = _strips(rows, blocks, broken, tick_room, height, top, below)
    whole = strips.ends[-1] + tick_room + below
    figure = Figure(figsize=(total, whole), facecolor="white")
    places = [(row, column) for row, number in enumerate(rows) for column in range(number)]
    boxes = [
        ((left + column * (width + gap)) / total, (whole - strips.ends[row]) / whole, width / total,
         strips.height / whole)
        for row, column in places
    ]  # fmt: skip
    panels = _panels(figure, boxes, [None if own_y else blocks[row] for row, _ in places], own_x)
    for axes, title in zip(panels, broken, strict=False):
        axes.set_title(title, linespacing=1.1)
    figure.text(0.04 / total, 0.04 / whole, "\n".join(lines), size=5.8, color=style.GREY, va="bottom", linespacing=1.35)
    return Page(figure, panels, places, tuple(blocks), width, strips.height, below, own_y)


class _Strips(NamedTuple):
    """In inches: the height of a panel, and where the panels of each row end, from the upper edge."""

    height: float
    ends: list[float]


def _strips(
    rows: Sequence[int],
    blocks: Sequence[int],
    titles: Sequence[str],
    tick_room: float,
    height: float | None,
    top: float,
    below: float,
) -> _Strips:
    """Lay out rows of panels below each other.

    Args:
        rows: number of panels of each.
        blocks: of each.
        titles: of the panels, broken into lines.
        tick_room: inches below a lowest panel for its tick labels.
        height: of a panel, if it is given.
        top: inches that the page needs above the rows.
        below: inches that it needs below them.
    """
    more_lines = [0] * len(rows)
    for row, title in zip((row for row, number in enumerate(rows) for _ in range(number)), titles, strict=False):
        more_lines[row] = max(more_lines[row], title.count("\n"))
    above = [_TITLE + _LINE * number for number in more_lines]
    # Where a row is shorter than the one above it, the panels above its gap have tick labels of their own.
    starts = [bool(row) and (rows[row] < rows[row - 1] or blocks[row] != blocks[row - 1]) for row in range(len(rows))]
    room = [tick_room if start else 0.0 for start in starts]
    if height is None:
        taken = top + below + tick_room + sum(above) + sum(room) + len(rows) * _SPACE
        fitting = max(_LEAST, (style.PAGE_HEIGHT - taken) / len(rows))
        height = min(style.PANEL_HEIGHT * (1.5 if list(rows) == [1] else 1), fitting)
    heights = [title + height + _SPACE + extra for title, extra in zip(above, room, strict=True)]
    return _Strips(height, [top + sum(heights[: row + 1]) - _SPACE for row in range(len(rows))])


def _panels(figure: Figure, boxes: Sequence[Box], blocks: Sequence[int | None], own_x: bool) -> list[Axes]:
    """Panels in these places: those of a block (not None) share their y-axis, all the x-axis if no one has its own."""
    panels: list[Axes] = []
    first: dict[int, Axes] = {}
    for box, block in zip(boxes, blocks, strict=True):
        beside = None if block is None else first.get(block)
        panels.append(figure.add_axes(box, sharex=panels[0] if panels and not own_x else None, sharey=beside))
        if block is not None:
            first.setdefault(block, panels[-1])
        sns.despine(ax=panels[-1])
    return panels


def chunks(number: int) -> list[int]:
    """The rows of `number` panels that follow each other, for `page`."""
    return [min(style.COLUMNS, number - start) for start in range(0, number, style.COLUMNS)]


def label(
    page: Page, title: str, x: str, y: str | Sequence[str], handles: Sequence[Artist], legend_columns: int = 0
) -> None:
    """Write what stands once per figure: title and legend above, the names of the axes left and below.

    Args:
        page: to write on.
        title: of the figure.
        x: name of the x-axis.
        y: name of the y-axis, or of that of each block.
        handles: of the legend.
        legend_columns: of a legend below the title; with 0 it is one line, beside the title where there is room.
    """
    figure = page.figure
    total, whole = figure.get_size_inches()
    narrow = total < _NARROW
    figure.text(0.04 / total, 1 - 0.05 / whole, title, size=style.FONT_TITLE, weight="bold", va="top")
    below = narrow or legend_columns > 0
    figure.legend(
        handles=handles,
        loc="upper left" if legend_columns else "upper right",
        bbox_to_anchor=(0.02 / total if legend_columns else 1 - 0.02 / total, 1 - (0.19 if below else 0.02) / whole),
        ncols=legend_columns or len(handles),
        frameon=False,
        handlelength=1.6 if narrow else 1.9,
        columnspacing=0.8 if narrow else 1.1,
        handletextpad=0.45,
        labelspacing=0.3,
        borderaxespad=0,
        borderpad=0.2,
    )
    boxes = [axes.get_position() for axes in page.panels]
    centre = (min(box.x0 for box in boxes) + max(box.x1 for box in boxes)) / 2
    figure.text(centre, (page.below - 0.02) / whole, x, ha="center", va="top", size=style.FONT)
    for number, text in enumerate([y] if isinstance(y, str) else y):
        boxes = [axes.get_position() for axes in page.block(number)]
        middle = (min(box.y0 for box in boxes) + max(box.y1 for box in boxes)) / 2
        figure.text(0.05 / total, middle, text, ha="left", va="center", rotation=90, size=style.FONT)


def ticks(page: Page, drawn: bool = True) -> None:
    """Keep tick labels only where no neighbour repeats them, and none on the y-axis if nothing was `drawn` at all."""
    for index, axes in enumerate(page.panels):
        first = page.places[index][1] == 0
        axes.tick_params(labelleft=(first or page.own_y) and drawn, labelbottom=page.lowest(index))
        axes.tick_params(which="minor", labelleft=False)


def empty(axes: Axes, text: str) -> None:
    """Say in the middle of a panel why nothing is drawn there."""
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5}
    where = axes.transAxes
    axes.text(
        0.5, 0.5, text, transform=where, ha="center", va="center", color=style.GREY, size=style.FONT_SMALL, bbox=box
    )


def log_axis(page: Page, first: Axes, limits: tuple[float, float] | None = None) -> None:
    """Make the y-axis of a panel, and of those that share it, logarithmic.

    Labels stand at all digits, at 1, 2, 5 or at 1, 3 times the powers of ten, the first of these that gives no more
    than fit; where even the last gives too many, at powers of ten alone.

    Args:
        page: the panel's.
        first: the panel.
        limits: of the axis; by default those of the data.
    """
    if limits:
        first.set_ylim(limits)
    first.set_yscale("log")
    low, high = first.get_ylim()
    first.set_ylim(low, high)
    for factors, most in ((range(1, 10), 4), ((1, 2, 5), 7), ((1, 3), 7)):
        exponents = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
        count = sum(low <= factor * 10.0**exponent <= high for exponent in exponents for factor in factors)
        if count <= min(page.height / _LABEL, most):
            first.yaxis.set_major_locator(LogLocator(10, subs=list(factors), numticks=20))
            first.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            break
    first.yaxis.set_minor_formatter(NullFormatter())
