"""Figures with the share of what is removed on the x-axis and a panel per method: accuracy, gap, difference, zeros."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ipbench.analysis import style
from ipbench.analysis.cells import GAP, PRIMARY
from ipbench.analysis.comparisons import differences, pair_name
from ipbench.analysis.figures.edge import Point, edge_note, living_axis, lost_pairs
from ipbench.analysis.figures.layout import chunks, empty, label, page
from ipbench.analysis.figures.marks import (
    DIFFERENCES,
    DOTS,
    MEANS,
    difference_axis,
    difference_handles,
    dodge,
    interval,
    marker,
    reference,
    sparsities,
    verdict_fill,
)
from ipbench.analysis.figures.scene import Scene, shown_spaces, title
from ipbench.analysis.grid import Cell
from ipbench.analysis.panels import Panel
from ipbench.analysis.plan import FigureFile
from ipbench.analysis.shares import share_name


def accuracy(scene: Scene, file: FigureFile) -> Figure:
    """Test accuracy after the last epoch against sparsity: means with intervals, single seeds, dense references."""
    return _metric(scene, file, PRIMARY, f"test {scene.metric} (%)")


def generalisation(scene: Scene, file: FigureFile) -> Figure:
    """Train minus test accuracy after the last epoch against sparsity, drawn as `accuracy`."""
    return _metric(scene, file, GAP, "train − test (points)")


def difference(scene: Scene, file: FigureFile) -> Figure:
    """IP - SP in percentage points against sparsity: means with intervals, single seeds; filled where claimed."""
    panels = scene.panels(file)
    rows = [row for panel in panels for row in panel.rows if row.compared]
    cells = [cell for row in rows for cell in (row.sp, row.ip) if cell]
    sheet = page(
        chunks(len(panels)),
        [panel.title for panel in panels],
        scene.note(cells, lost_pairs(scene, DIFFERENCES, rows), rows),
    )
    drawn = False
    for axes, panel in zip(sheet.panels, panels, strict=False):
        drawn = _difference_panel(axes, scene, panel) or drawn
    sparsities(scene, sheet, panels, drawn)
    more = difference_axis(sheet, "y", scene.collection.grid.margin)
    handles = difference_handles(scene.collection.grid.margin)
    label(sheet, title(file), share_name(cells), f"IP − SP (points{f'; {more}' if more else ''})", handles)
    return sheet.figure


def spatial_zeros(scene: Scene, file: FigureFile) -> Figure:
    """Share of zero entries of the spatial K x K filters against sparsity, before and after training."""
    panels = scene.panels(file)
    shown = shown_spaces(file, panels)
    cells = [cell for panel in panels for space in shown for cell in panel.side(space)]
    text = f"Share of zeros among the spatial weights of K × K filters. {MEANS}"
    sheet = page(chunks(len(panels)), [panel.title for panel in panels], scene.note(cells, text))
    anything = False
    for axes, panel in zip(sheet.panels, panels, strict=False):
        found = [
            _series(axes, scene, metric, panel, space, len(shown) > 1, **look)
            for metric, look in (("spatial_zeros_start", _BEFORE), ("spatial_zeros_end", _AFTER))
            for space in shown
        ]
        if not any(found):
            empty(axes, scene.nothing(cell for space in shown for cell in panel.side(space)))
        anything = anything or any(found)
    sparsities(scene, sheet, panels, anything)
    looks = (("before", _BEFORE), ("after", _AFTER))
    handles: list[Artist] = [
        Line2D([], [], color=style.COLOUR[space], label=f"{style.LABEL[space]} {when}", **_line(space, **look))
        for space in shown
        for when, look in looks
    ]
    label(sheet, title(file), share_name(cells), "zero spatial weights (%)", handles)
    return sheet.figure


#: Before training hollow and dotted, larger: what has not changed is a ring around the filled marker of after training.
_BEFORE: dict[str, Any] = {"hollow": True, "dots": False}
_AFTER: dict[str, Any] = {"hollow": False, "dots": True}


def _metric(scene: Scene, file: FigureFile, metric: str, y: str) -> Figure:
    """A metric that is a fraction, in per cent."""
    panels = scene.panels(file)
    shown = shown_spaces(file, panels)
    cells = [cell for panel in panels for space in shown for cell in panel.side(space)]
    references = [cell for panel in panels for cell in _references(panel, shown).values()]
    living = metric == PRIMARY
    more = edge_note(scene, cells, references) if living else ""
    note = scene.note([*cells, *references], f"{MEANS} Dots: single seeds.{more}")
    sheet = page(chunks(len(panels)), [panel.title for panel in panels], note)
    drawn: dict[str, Artist] = {}
    points: list[Point] = []
    for axes, panel in zip(sheet.panels, panels, strict=False):
        for space, cell in _references(panel, shown).items():
            reference(axes, scene.cells(metric)[cell.id], space, drawn)
        found = [_series(axes, scene, metric, panel, space, len(shown) > 1) for space in shown]
        if not any(found):
            empty(axes, scene.nothing(cell for space in shown for cell in panel.side(space)))
        points += [point for same in found for point in same]
    sparsities(scene, sheet, panels, bool(points) or bool(drawn))
    if living:
        living_axis(scene, points, references)
    handles: list[Artist] = [marker(style.LABEL[s], style.COLOUR[s], style.MARKER[s], style.COLOUR[s]) for s in shown]
    label(sheet, title(file), share_name(cells), y, [*handles, *drawn.values()])
    return sheet.figure


def _series(
    axes: Axes,
    scene: Scene,
    metric: str,
    panel: Panel,
    space: str,
    dodged: bool,
    *,
    hollow: bool = False,
    dots: bool = True,
) -> list[Point]:
    """Draw one space in one panel, a fraction in per cent; gives what was drawn."""
    colour = style.COLOUR[space]
    shift = (-1 if space == "sp" else 1) * dodge(scene.places(panel)) if dodged else 0.0
    places, means, drawn = [], [], []
    for cell in scene.side(panel, space):
        found = scene.cells(metric)[cell.id]
        if not found.n:
            continue
        x = scene.position(cell) + shift
        values = scene.values(metric)[cell.id].values()
        if dots:
            axes.scatter([x] * found.n, [100 * value for value in values], color=colour, **DOTS)
        interval(axes, x, 100 * found.mean, 100 * found.lower, 100 * found.upper, colour)
        drawn.append(Point(axes, x, cell.id, colour))
        places.append(x)
        means.append(100 * found.mean)
    axes.plot(places, means, color=colour, zorder=3.5 if hollow else 4, **_line(space, hollow, dots))
    return drawn


def _line(space: str, hollow: bool, dots: bool) -> dict[str, Any]:
    """How the line of a space looks."""
    if hollow:
        return {
            "marker": style.MARKER[space], "linestyle": ":", "markersize": 5.6, "markerfacecolor": "none",
            "markeredgewidth": 0.7, "linewidth": 0.9,
        }  # fmt: skip
    return {"marker": style.MARKER[space], "markeredgecolor": "white", "markeredgewidth": 0.4}


def _difference_panel(axes: Axes, scene: Scene, panel: Panel) -> bool:
    """Draw one panel of `difference`; says whether there was anything to draw."""
    places, means = [], []
    for row in panel.rows:
        found = scene.pairs.get(pair_name(row))
        x = scene.place(row)
        if found is None or not found.comparison.n or math.isnan(x):
            continue
        seeds = differences(row, scene.values(PRIMARY)).values()
        axes.scatter([x] * len(seeds), [100 * value for value in seeds], color=style.DIFFERENCE_COLOUR, **DOTS)
        mean, bar = 100 * found.comparison.mean, found.comparison.interval
        interval(axes, x, mean, 100 * bar.lower, 100 * bar.upper, style.DIFFERENCE_COLOUR)
        axes.plot(x, mean, "D", color=style.DIFFERENCE_COLOUR, markerfacecolor=verdict_fill(found), zorder=5)
        if any(scene.counts[side.id].lost for side in (row.sp, row.ip) if side):
            axes.plot(x, mean, "x", color=style.DIFFERENCE_COLOUR, markersize=8, markeredgewidth=0.8, zorder=6)
        places.append(x)
        means.append(mean)
    axes.plot(places, means, color=style.DIFFERENCE_COLOUR, linewidth=0.9, zorder=3)
    if not places:
        empty(axes, "no finished pairs")
    return bool(places)


def _references(panel: Panel, shown: tuple[str, ...]) -> dict[str, Cell]:
    """The dense nets to draw, by space: those of the shown spaces, or if there are none, whichever there is."""
    if any(row.any.dense for row in panel.rows):
        return {}
    return {space: cell for space, cell in panel.dense.items() if space in shown} or panel.dense
