"""The figure that sets methods against each other: accuracy against sparsity, all methods of a space in one panel."""

from __future__ import annotations

import math

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ipbench.analysis import style
from ipbench.analysis.cells import PRIMARY
from ipbench.analysis.figures.layout import empty, label, page
from ipbench.analysis.figures.marks import DOTS, MEANS, interval, legend_columns, looks, marker, reference, sparsities
from ipbench.analysis.figures.scene import Scene, spaces, title
from ipbench.analysis.panels import Panel
from ipbench.analysis.plan import FigureFile

#: Inches: a panel's height, and what is left and right of a single one.
_HEIGHT, _MARGINS = 2.4, 0.6


def methods(scene: Scene, file: FigureFile) -> Figure:
    """Test accuracy after the last epoch against sparsity: a panel per space, a line per method, a band for dense."""
    panels = scene.panels(file)
    shown = [space for space in spaces(file) if any(panel.side(space) for panel in panels)]
    cells = [cell for panel in panels for space in shown for cell in panel.side(space)]
    # One per recipe, where there are several.
    dense = {
        space: {panel.dense[space].id: panel.dense[space] for panel in panels if space in panel.dense}
        for space in shown
    }
    bands = [cell for cells in dense.values() for cell in cells.values()]
    named = sum(map(bool, dense.values()))
    width = style.PAGE_WIDTH if len(shown) > 1 else style.PANEL_WIDTH + _MARGINS
    columns = legend_columns([panel.title for panel in panels] + ["dense (SP)"] * named, width)
    text = f"{MEANS} Band: that of the dense net. Dots: single seeds, where a run collapsed."
    sheet = page(
        [len(shown)],
        [style.LABEL[space] for space in shown],
        scene.note([*cells, *bands], text),
        height=_HEIGHT,
        legend_rows=math.ceil((len(panels) + named) / columns),
    )
    references: dict[str, Artist] = {}
    drawn = []
    for axes, space in zip(sheet.panels, shown, strict=True):
        for cell in dense[space]:
            reference(axes, scene.cells(PRIMARY)[cell], space, references)
        drawn.append(_lines(axes, scene, panels, space))
        if not drawn[-1]:
            empty(axes, scene.nothing(cell for panel in panels for cell in panel.side(space)))
    sparsities(sheet, panels, any(drawn) or bool(references))
    handles: list[Artist] = [
        marker(panel.title, *look, look[0]) for panel, look in zip(panels, looks(panels), strict=True)
    ]
    label(sheet, title(file), "sparsity p", "test accuracy (%)", [*handles, *references.values()], columns)
    return sheet.figure


def _lines(axes: Axes, scene: Scene, panels: list[Panel], space: str) -> bool:
    """Draw the methods of one space; says whether there was anything to draw."""
    anything = False
    span = [style.sparsity_position(text) for panel in panels for text in panel.sparsities]
    step = 0.04 * (max(span) - min(span) or 1.0) / max(1, len(panels) - 1)
    for number, (panel, (colour, shape)) in enumerate(zip(panels, looks(panels), strict=True)):
        places, means = [], []
        for cell in panel.side(space):
            found = scene.cells(PRIMARY)[cell.id]
            if not found.n:
                continue
            # Beside each other, so that intervals do not cover each other.
            x = style.sparsity_position(cell.sparsity) + step * (number - (len(panels) - 1) / 2)
            interval(axes, x, 100 * found.mean, 100 * found.lower, 100 * found.upper, colour)
            if scene.counts[cell.id].collapsed:  # no interval says what happened there
                values = scene.values(PRIMARY)[cell.id].values()
                axes.scatter([x] * found.n, [100 * value for value in values], color=colour, **DOTS)
            places.append(x)
            means.append(100 * found.mean)
        axes.plot(
            places, means, color=colour, marker=shape, linewidth=0.9, zorder=4, markeredgecolor="white",
            markeredgewidth=0.4,
        )  # fmt: skip
        anything = anything or bool(places)
    return anything
