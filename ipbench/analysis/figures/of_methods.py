"""The figure that sets methods against each other: accuracy against sparsity, all methods of a space in one panel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ipbench.analysis import style
from ipbench.analysis.cells import PRIMARY
from ipbench.analysis.figures.curves import Curve, curve, handles, looks
from ipbench.analysis.figures.edge import Point, edge_note, living_axis
from ipbench.analysis.figures.layout import empty, label, page
from ipbench.analysis.figures.marks import DOTS, MEANS, interval, legend_columns, reference, sparsities
from ipbench.analysis.figures.scene import Scene, shown_spaces, title
from ipbench.analysis.plan import FigureFile
from ipbench.analysis.shares import SHARES_OF, budgets_of, share_name

#: Inches: a panel's height, and what is left and right of a single one.
_HEIGHT, _MARGINS = 2.4, 0.6


def methods(scene: Scene, file: FigureFile) -> Figure:
    """Test accuracy after the last epoch against sparsity: a panel per space, a line per method, a band for dense.

    Shares of different budgets share no panel: each budget has a row of its own.
    """
    panels = scene.panels(file)
    shown = shown_spaces(file, panels)
    cells = [cell for panel in panels for space in shown for cell in panel.side(space)]
    # One per recipe, where there are several.
    dense = {
        space: {panel.dense[space].id: panel.dense[space] for panel in panels if space in panel.dense}
        for space in shown
    }
    bands = [cell for found in dense.values() for cell in found.values()]
    named = sum(map(bool, dense.values()))
    width = style.PAGE_WIDTH if len(shown) > 1 else style.PANEL_WIDTH + _MARGINS
    columns = legend_columns([panel.title for panel in panels] + ["dense (SP)"] * named, width)
    budgets = budgets_of(cells) or ["parameters"]
    text = f"{MEANS} Band: that of the dense net."
    if any(scene.counts[cell.id].lost for cell in cells):
        text += " Dots: single seeds, where a run is lost."
    text += edge_note(scene, cells, bands)
    sheet = page(
        [len(shown)] * len(budgets),
        [_title(space, budget, len(budgets) > 1) for budget in budgets for space in shown],
        scene.note([*cells, *bands], text),
        height=_HEIGHT,
        legend_rows=math.ceil((len(panels) + named) / columns),
    )
    references: dict[str, Artist] = {}
    drawn: list[list[Point]] = []
    styles = list(zip(panels, looks(panels), strict=True))
    for axes, (budget, space) in zip(sheet.panels, product(budgets, shown), strict=True):
        for cell in dense[space]:
            reference(axes, scene.cells(PRIMARY)[cell], space, references)
        # A net that is dense in all of its cells has no budget.
        own = [(panel, look) for panel, look in styles if panel.rows[0].any.dense or panel.rows[0].any.budget == budget]
        drawn.append(_lines(axes, scene, own, space))
        if not drawn[-1]:
            empty(axes, scene.nothing(cell for panel, _ in own for cell in panel.side(space)))
    sparsities(scene, sheet, panels, any(drawn) or bool(references))
    living_axis(scene, [point for found in drawn for point in found], bands)
    legend = [*handles(styles), *references.values()]
    label(sheet, title(file), share_name(cells), f"test {scene.metric} (%)", legend, columns)
    return sheet.figure


def _title(space: str, budget: str, several: bool) -> str:
    """The title of a panel."""
    return f"{style.LABEL[space]}, p of {SHARES_OF[budget]}" if several else style.LABEL[space]


def _lines(axes: Axes, scene: Scene, styles: Sequence[Curve], space: str) -> list[Point]:
    """Draw the methods of one space; gives what was drawn."""
    drawn = []
    span = [place for panel, _ in styles for place in scene.places(panel)] or [0.0]
    step = 0.04 * (max(span) - min(span) or 1.0) / max(1, len(styles) - 1)
    for number, (panel, look) in enumerate(styles):
        places, means = [], []
        for cell in scene.side(panel, space):
            found = scene.cells(PRIMARY)[cell.id]
            if not found.n:
                continue
            # Beside each other, so that intervals do not cover each other.
            x = scene.position(cell) + step * (number - (len(styles) - 1) / 2)
            interval(axes, x, 100 * found.mean, 100 * found.lower, 100 * found.upper, look.colour)
            if scene.counts[cell.id].lost:  # no interval says what happened there
                values = scene.values(PRIMARY)[cell.id].values()
                axes.scatter([x] * found.n, [100 * value for value in values], color=look.colour, **DOTS)
            drawn.append(Point(axes, x, cell.id, look.colour))
            places.append(x)
            means.append(100 * found.mean)
        curve(axes, places, means, look)
    return drawn
