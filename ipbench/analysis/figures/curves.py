"""Methods that share a panel: how each is drawn, its line, the legend."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from ipbench.analysis import style
from ipbench.analysis.figures.scene import Scene
from ipbench.analysis.labels import differences, labels
from ipbench.analysis.panels import Panel, panel_title
from ipbench.analysis.plan import FigureFile

#: The line of a method whose colour another one has too.
_DASHES = (0, (3, 1.2))


class Look(NamedTuple):
    """How a method is drawn.

    Attributes:
        colour: of its line, marker and intervals.
        shape: of its marker.
        again: another method has the same colour: this one gets a dashed line and an open marker.
    """

    colour: str
    shape: str
    again: bool = False

    def line(self) -> dict[str, Any]:
        """The arguments of a line with markers."""
        fill = "white" if self.again else self.colour
        return {
            "color": self.colour, "linestyle": _DASHES if self.again else "-", "marker": self.shape,
            "markerfacecolor": fill, "markeredgecolor": self.colour if self.again else "white",
        }  # fmt: skip


#: A method, and how it is drawn.
Curve = tuple[Panel, Look]


def looks(panels: Sequence[Panel]) -> list[Look]:
    """How every method is drawn; cycles of colours and markers differ in length, so that a pair comes again late."""
    colours, shapes = style.METHOD_COLOURS, style.METHOD_MARKERS
    return [
        Look(colours[number % len(colours)], shapes[number % len(shapes)], number // len(colours) % 2 == 1)
        for number in range(len(panels))
    ]


def curve(axes: Axes, xs: ArrayLike, ys: ArrayLike, look: Look, size: float = 3.6) -> None:
    """The line of one method through its means; `size` of the markers, in points."""
    axes.plot(
        xs, ys, **look.line(), linewidth=0.9, zorder=4, markersize=size, markeredgewidth=0.6 if look.again else 0.4
    )


def handles(curves: Iterable[Curve]) -> list[Artist]:
    """The legend of some methods."""
    return [Line2D([], [], **look.line() | {"markeredgecolor": look.colour}, label=panel.title)
            for panel, look in curves]  # fmt: skip


def cut_curves(scene: Scene, file: FigureFile) -> list[Curve]:
    """The methods of a figure whose channels are cut, each drawn as it is among all methods.

    Their titles are what tells the curves of one method from each other: methods have different names.
    """
    panels = scene.panels(file)
    curves = [found for found in zip(panels, looks(panels), strict=True) if found[0].rows[0].any.cut]
    shown = {side.id for panel, _ in curves for row in panel.rows for side in (row.sp, row.ip) if side}
    grid = scene.collection.grid
    names = labels(replace(grid, cells=tuple(cell for cell in grid.cells if cell.id in shown)))
    return [(replace(panel, title=panel_title(names, panel.rows[0], own=True)), look) for panel, look in curves]


def unsaid(curves: Sequence[Curve]) -> str:
    """For a note, what titles of `cut_curves` leave out: the axes in which methods differ."""
    found = differences([row.any for panel, _ in curves for row in panel.rows])
    return f" Methods: {found}." if found else ""
