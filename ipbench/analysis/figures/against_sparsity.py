"""Figures with the sparsity on the x-axis and a panel per method: accuracy, generalisation gap, paired difference."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullLocator

from ipbench.analysis import comparisons as stats
from ipbench.analysis import style
from ipbench.analysis.figures.layout import Page, chunks, empty, label, page, ticks
from ipbench.analysis.figures.scene import Scene, spaces, title
from ipbench.analysis.grid import Cell
from ipbench.analysis.panels import Panel
from ipbench.analysis.plan import FigureFile
from ipbench.analysis.statistics import NO_CLAIM

_DOTS: dict[str, Any] = {"s": 5, "alpha": 0.35, "linewidths": 0, "zorder": 2}
_BAR: dict[str, Any] = {"capsize": 1.8, "elinewidth": 0.8, "capthick": 0.8}


def accuracy(scene: Scene, file: FigureFile) -> Figure:
    """Test accuracy after the last epoch against sparsity: means with intervals, single seeds, dense references."""
    return _metric(scene, file, stats.PRIMARY, "test accuracy (%)")


def generalisation(scene: Scene, file: FigureFile) -> Figure:
    """Train minus test accuracy after the last epoch against sparsity, drawn as `accuracy`."""
    return _metric(scene, file, stats.GAP, "train − test (points)")


#: A range of differences, in points, from which the axis is logarithmic on both sides of a linear middle.
_WIDE, _LINEAR = 15, 2
_TICKS = (-100, -30, -10, -5, -2, -1, 0, 1, 2, 5, 10, 30, 100)


def difference(scene: Scene, file: FigureFile) -> Figure:
    """IP - SP in percentage points against sparsity: means with intervals, single seeds; filled where claimed."""
    panels = scene.panels(file)
    cells = [cell for panel in panels for row in panel.rows if row.compared for cell in (row.sp, row.ip) if cell]
    text = "Mean paired difference with 95 % BCa interval; dots: single seeds; filled: claimed after Holm's correction."
    sheet = page(chunks(len(panels)), [panel.title for panel in panels], scene.note(cells, text))
    drawn = False
    for axes, panel in zip(sheet.panels, panels, strict=False):
        drawn = _difference_panel(axes, scene, panel) or drawn
    _sparsities(sheet, panels, drawn)
    wide = any(axes.get_ylim()[1] - axes.get_ylim()[0] > _WIDE for axes in sheet.panels)
    for axes in sheet.panels:
        low, high = axes.get_ylim()
        low, high = min(low, -0.05 * (high - low)), max(high, 0.05 * (high - low))
        if wide:  # a collapse in one cell would hide what happens in all the others
            axes.set_yscale("symlog", linthresh=_LINEAR)
            axes.set_yticks([tick for tick in _TICKS if low <= tick <= high])
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))
            axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylim(low, high)  # zero is always in sight
        axes.axhspan(0, high, color=style.COLOUR["ip"], alpha=0.07, linewidth=0, zorder=0)
        axes.axhspan(low, 0, color=style.COLOUR["sp"], alpha=0.07, linewidth=0, zorder=0)
        axes.axhline(0, color=style.GREY, linewidth=0.7, zorder=1)
    handles: list[Artist] = [
        _marker("claim", style.DIFFERENCE_COLOUR, "D", style.DIFFERENCE_COLOUR),
        _marker("no claim", style.DIFFERENCE_COLOUR, "D", "white"),
        Patch(color=style.COLOUR["ip"], alpha=0.2, linewidth=0, label="IP better"),
        Patch(color=style.COLOUR["sp"], alpha=0.2, linewidth=0, label="SP better"),
    ]
    label(sheet, title(file), "sparsity p", "IP − SP (points)" + ("\nlogarithmic beyond ±2" if wide else ""), handles)
    return sheet.figure


def _metric(scene: Scene, file: FigureFile, metric: str, y: str) -> Figure:
    """A metric that is a fraction, in per cent."""
    panels, shown = scene.panels(file), spaces(file)
    cells = [cell for panel in panels for space in shown for cell in panel.side(space)]
    references = [cell for panel in panels for cell in _references(panel, shown).values()]
    text = "Mean with 95 % BCa interval; dots: single seeds."
    note = scene.note([*cells, *references], text)
    sheet = page(chunks(len(panels)), [panel.title for panel in panels], note)
    drawn: dict[str, Artist] = {}
    anything = False
    for axes, panel in zip(sheet.panels, panels, strict=False):
        for space, cell in _references(panel, shown).items():
            _reference(axes, scene.cells(metric)[cell.id], space, drawn)
        found = [_series(axes, scene, metric, panel, space, len(shown) > 1) for space in shown]
        if not any(found):
            empty(axes, scene.nothing(cell for space in shown for cell in panel.side(space)))
        anything = anything or any(found)
    _sparsities(sheet, panels, anything or bool(drawn))
    handles: list[Artist] = [_marker(style.LABEL[s], style.COLOUR[s], style.MARKER[s], style.COLOUR[s]) for s in shown]
    label(sheet, title(file), "sparsity p", y, [*handles, *drawn.values()])
    return sheet.figure


def _series(axes: Axes, scene: Scene, metric: str, panel: Panel, space: str, dodge: bool) -> bool:
    """Draw one space in one panel; says whether there was anything to draw."""
    colour = style.COLOUR[space]
    cells = panel.side(space)
    shift = (-1 if space == "sp" else 1) * _dodge(panel) if dodge else 0.0
    places, means = [], []
    for cell in cells:
        found = scene.cells(metric)[cell.id]
        if not found.n:
            continue
        x = style.sparsity_position(cell.sparsity) + shift
        values = scene.values(metric)[cell.id].values()
        axes.scatter([x] * found.n, [100 * value for value in values], color=colour, **_DOTS)
        _interval(axes, x, found.mean, found.lower, found.upper, colour)
        places.append(x)
        means.append(100 * found.mean)
    axes.plot(
        places, means, color=colour, marker=style.MARKER[space], markeredgecolor="white", markeredgewidth=0.4, zorder=4
    )
    return bool(places)


def _difference_panel(axes: Axes, scene: Scene, panel: Panel) -> bool:
    """Draw one panel of `difference`; says whether there was anything to draw."""
    places, means = [], []
    for row in panel.rows:
        record = scene.pairs.get(stats.pair_name(row))
        if record is None or not record["n"]:
            continue
        x = style.sparsity_position(row.any.sparsity)
        seeds = stats.differences(row, scene.values(stats.PRIMARY)).values()
        axes.scatter([x] * len(seeds), [100 * value for value in seeds], color=style.DIFFERENCE_COLOUR, **_DOTS)
        _interval(axes, x, record["mean"], record["lower"], record["upper"], style.DIFFERENCE_COLOUR)
        fill = "white" if record["claim"] == NO_CLAIM else style.DIFFERENCE_COLOUR
        axes.plot(x, 100 * record["mean"], "D", color=style.DIFFERENCE_COLOUR, markerfacecolor=fill, zorder=5)
        places.append(x)
        means.append(100 * record["mean"])
    axes.plot(places, means, color=style.DIFFERENCE_COLOUR, linewidth=0.9, zorder=3)
    if not places:
        empty(axes, "no finished pairs")
    return bool(places)


def _interval(axes: Axes, x: float, mean: float, lower: float, upper: float, colour: str) -> None:
    if math.isfinite(lower) and math.isfinite(upper):
        # A mean may lie outside of a degenerate interval by rounding; lengths are never negative.
        arms = [[max(0.0, 100 * (mean - lower))], [max(0.0, 100 * (upper - mean))]]
        axes.errorbar([x], [100 * mean], yerr=arms, fmt="none", ecolor=colour, zorder=3, **_BAR)


def _references(panel: Panel, shown: tuple[str, ...]) -> dict[str, Cell]:
    """The dense nets to draw, by space: those of the shown spaces, or if there are none, whichever there is."""
    if any(row.any.dense for row in panel.rows):
        return {}
    return {space: cell for space, cell in panel.dense.items() if space in shown} or panel.dense


def _reference(axes: Axes, dense: stats.CellStatistics, space: str, drawn: dict[str, Artist]) -> None:
    """The mean of a dense net as a line with its interval as a band."""
    if not dense.n:
        return
    colour = style.DENSE_COLOUR[space]
    line = axes.axhline(
        100 * dense.mean,
        color=colour,
        linestyle=style.DENSE_DASHES[space],
        linewidth=0.9,
        zorder=1.5,
        label=f"dense ({style.LABEL[space]})",
    )
    if math.isfinite(dense.lower) and math.isfinite(dense.upper):
        axes.axhspan(100 * dense.lower, 100 * dense.upper, color=colour, alpha=0.13, linewidth=0, zorder=1)
    drawn.setdefault(space, line)


def _dodge(panel: Panel) -> float:
    """Half the distance between SP and IP of one sparsity, so that their intervals do not cover each other."""
    places = [style.sparsity_position(sparsity) for sparsity in panel.sparsities]
    return 0.016 * (max(places) - min(places) or 1.0)


def _sparsities(sheet: Page, panels: list[Panel], drawn: bool) -> None:
    texts = list(dict.fromkeys(sparsity for panel in panels for sparsity in panel.sparsities))
    for axes in sheet.panels:
        style.sparsity_axis(axes, texts, sheet.width)
        axes.margins(y=0.08)
    ticks(sheet, drawn)


def _marker(text: str, colour: str, marker: str, fill: str) -> Line2D:
    return Line2D([], [], color=colour, marker=marker, markerfacecolor=fill, label=text)
