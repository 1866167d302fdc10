"""The page of a figure: panels in inches, a strip with title and legend above, one with the note below.

Sizes are fixed by hand rather than by a layout engine: panels of one kind have one size in every figure, nothing moves
with the length of a tick label, and a figure with fifty panels is laid out at once.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ipbench.analysis import style

#: Inches: margins, between panels of a row, above a panel for its title, between rows, per line of the note.
_LEFT, _RIGHT, _GAP, _TITLE, _SPACE, _LINE = 0.52, 0.1, 0.14, 0.2, 0.08, 0.125
#: Characters per inch of the note and of a panel's title.
_NOTE_CHARACTERS, _TITLE_CHARACTERS = 25, 16.5
#: Below this width the legend goes under the title instead of beside it.
_NARROW = 5.0


@dataclass(frozen=True)
class Page:
    """An empty figure with its panels.

    Attributes:
        figure: to draw on.
        panels: row by row.
        places: (row, column) of each.
        width: of a panel, in inches.
        below: inches between the lowest tick labels and the lower edge.
    """

    figure: Figure
    panels: list[Axes]
    places: list[tuple[int, int]]
    width: float
    below: float

    def lowest(self, index: int) -> bool:
        """Whether no panel is below this one."""
        row, column = self.places[index]
        return (row + 1, column) not in self.places


def page(rows: Sequence[int], titles: Sequence[str], note: str, tick_room: float = 0.16) -> Page:
    """Lay out panels that share both axes' ranges.

    Args:
        rows: number of panels of each row, at most `style.COLUMNS`; none at all gives one panel.
        titles: of the panels; a long one is broken into two lines at most.
        note: goes to the bottom, wrapped to the width of the figure.
        tick_room: inches below a lowest panel for its tick labels.
    """
    rows = [number for number in rows if number] or [1]
    columns = max(rows)
    height = style.PANEL_HEIGHT * (1.5 if rows == [1] else 1)
    width = min(style.PANEL_WIDTH, (style.PAGE_WIDTH - _LEFT - _RIGHT - (columns - 1) * _GAP) / columns)
    total = _LEFT + _RIGHT + columns * width + (columns - 1) * _GAP
    lines = textwrap.wrap(note, int((total - 0.08) * _NOTE_CHARACTERS))
    room_for = int((width + 0.6 * _GAP) * _TITLE_CHARACTERS)
    broken = ["\n".join(textwrap.wrap(title, room_for, max_lines=2, placeholder="…")) for title in titles]
    places = [(row, column) for row, number in enumerate(rows) for column in range(number)]
    two_lines = {row for (row, _), title in zip(places, broken, strict=False) if "\n" in title}
    above = [_TITLE + (_LINE if row in two_lines else 0.0) for row in range(len(rows))]
    # Where a row is shorter than the one above it, the panels above its gap have tick labels of their own.
    room = [tick_room if row and number < rows[row - 1] else 0.0 for row, number in enumerate(rows)]
    top = 0.36 if total < _NARROW else 0.22
    below = 0.24 + _LINE * len(lines)
    heights = [title + height + _SPACE + gap for title, gap in zip(above, room, strict=True)]
    ends = [top + sum(heights[: row + 1]) - _SPACE for row in range(len(rows))]
    whole = ends[-1] + tick_room + below
    figure = Figure(figsize=(total, whole), facecolor="white")
    panels: list[Axes] = []
    for row, column in places:
        left, bottom = _LEFT + column * (width + _GAP), whole - ends[row]
        box = (left / total, bottom / whole, width / total, height / whole)
        first = panels[0] if panels else None
        panels.append(figure.add_axes(box, sharex=first, sharey=first))
        sns.despine(ax=panels[-1])
    for axes, title in zip(panels, broken, strict=False):
        axes.set_title(title, linespacing=1.1)
    figure.text(0.04 / total, 0.04 / whole, "\n".join(lines), size=5.8, color=style.GREY, va="bottom", linespacing=1.35)
    return Page(figure, panels, places, width, below)


def chunks(number: int) -> list[int]:
    """The rows of `number` panels that follow each other, for `page`."""
    return [min(style.COLUMNS, number - start) for start in range(0, number, style.COLUMNS)]


def label(page: Page, title: str, x: str, y: str, handles: Sequence[Artist]) -> None:
    """Write what stands once per figure: title and legend above, the names of the axes left and below."""
    figure = page.figure
    total, whole = figure.get_size_inches()
    narrow = total < _NARROW
    figure.text(0.04 / total, 1 - 0.05 / whole, title, size=style.FONT_TITLE, weight="bold", va="top")
    figure.legend(
        handles=handles,
        loc="upper right",
        bbox_to_anchor=(1 - 0.02 / total, 1 - (0.19 if narrow else 0.02) / whole),
        ncols=len(handles),
        frameon=False,
        handlelength=1.6 if narrow else 1.9,
        columnspacing=0.8 if narrow else 1.1,
        handletextpad=0.45,
        borderaxespad=0,
        borderpad=0.2,
    )
    boxes = [axes.get_position() for axes in page.panels]
    centre = (min(box.x0 for box in boxes) + max(box.x1 for box in boxes)) / 2
    figure.text(centre, (page.below - 0.02) / whole, x, ha="center", va="top", size=style.FONT)
    middle = (min(box.y0 for box in boxes) + max(box.y1 for box in boxes)) / 2
    figure.text(0.05 / total, middle, y, ha="left", va="center", rotation=90, size=style.FONT)


def ticks(page: Page, drawn: bool = True) -> None:
    """Keep tick labels only where no neighbour repeats them, and none on the y-axis if nothing was `drawn` at all."""
    for index, axes in enumerate(page.panels):
        first = page.places[index][1] == 0
        axes.tick_params(labelleft=first and drawn, labelbottom=page.lowest(index))
        axes.tick_params(which="minor", labelleft=False)


def empty(axes: Axes, text: str) -> None:
    """Say in the middle of a panel why nothing is drawn there."""
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5}
    where = axes.transAxes
    axes.text(
        0.5, 0.5, text, transform=where, ha="center", va="center", color=style.GREY, size=style.FONT_SMALL, bbox=box
    )
