"""The figure of a method's numeric option: accuracy against its value, beside the single scores it combines."""

from __future__ import annotations

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ipbench.analysis import style
from ipbench.analysis.cells import PRIMARY
from ipbench.analysis.figures.layout import chunks, empty, label, page, ticks
from ipbench.analysis.figures.marks import DOTS, MEANS, interval, marker
from ipbench.analysis.figures.scene import Scene, title
from ipbench.analysis.grid import Cell
from ipbench.analysis.plan import FigureFile
from ipbench.analysis.tradeoffs import Tradeoff, tradeoffs


def tradeoff(scene: Scene, file: FigureFile) -> Figure:
    """Test accuracy against an option, a panel per sparsity; dotted lines are the scores that are combined, alone."""
    found = tradeoffs(scene.collection.grid, file.dataset, file.model)
    cells = [cell for panel in found for curve in panel.curves.values() for _, cell in curve]
    text = f"{MEANS} Dots: single seeds; dotted: the single scores alone."
    sheet = page(chunks(len(found)), [panel.title for panel in found], scene.note(cells, text), own_y=True, gap=0.42)
    drawn = False
    for axes, panel in zip(sheet.panels, found, strict=True):
        curves = [_curve(axes, scene, space, curve) for space, curve in panel.curves.items()]
        if any(curves):
            _single(axes, scene, panel)
        else:
            empty(axes, scene.nothing(cell for curve in panel.curves.values() for _, cell in curve))
        drawn = drawn or any(curves)
        axes.margins(x=0.06, y=0.1)
    ticks(sheet, drawn)
    spaces = [space for space in style.LABEL if any(space in panel.curves for panel in found)]
    handles: list[Artist] = [marker(style.LABEL[s], style.COLOUR[s], style.MARKER[s], style.COLOUR[s]) for s in spaces]
    options = ", ".join(dict.fromkeys(panel.option for panel in found))
    label(sheet, title(file), options, f"test {scene.metric} (%)", handles)
    return sheet.figure


#: Where names of single scores stand on their lines: the target right, controls left and in the middle.
_PLACES = ((1.0, "right"), (0.0, "left"), (0.5, "center"))


def _curve(axes: Axes, scene: Scene, space: str, curve: list[tuple[float, Cell]]) -> bool:
    """Draw one space, says whether there was anything to draw."""
    colour, places, means = style.COLOUR[space], [], []
    for value, cell in curve:
        found = scene.cells(PRIMARY)[cell.id]
        if not found.n:
            continue
        values = scene.values(PRIMARY)[cell.id].values()
        axes.scatter([value] * found.n, [100 * accuracy for accuracy in values], color=colour, **DOTS)
        interval(axes, value, 100 * found.mean, 100 * found.lower, 100 * found.upper, colour)
        places.append(value)
        means.append(100 * found.mean)
    axes.plot(places, means, color=colour, marker=style.MARKER[space], markeredgecolor="white", markeredgewidth=0.4)
    return bool(places)


def _single(axes: Axes, scene: Scene, panel: Tradeoff) -> None:
    """The methods that the other options name, at the same sparsity, as lines."""
    some = next(cell for curve in panel.curves.values() for _, cell in curve)
    for cell in scene.collection.grid.cells:
        alike = ("dataset", "model", "recipe", "sparsity", "structure")
        same = all(getattr(cell, axis) == getattr(some, axis) for axis in alike)
        if not same or cell.method not in panel.named or cell.space not in panel.curves:
            continue
        found = scene.cells(PRIMARY)[cell.id]
        if found.n:
            x, side = _PLACES[panel.named.index(cell.method) % len(_PLACES)]
            axes.axhline(100 * found.mean, color=style.COLOUR[cell.space], linestyle=":", linewidth=0.9, zorder=1.5)
            axes.annotate(
                cell.method, (x, 100 * found.mean), xycoords=("axes fraction", "data"), ha=side, va="bottom",
                size=style.FONT_SMALL, color=style.COLOUR[cell.space],
            )  # fmt: skip
