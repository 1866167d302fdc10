"""What the figures against sparsity share: points with their intervals, the axis of sparsities, that of differences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullLocator

from ipbench.analysis import style
from ipbench.analysis.cells import CellStatistics
from ipbench.analysis.comparisons import Finding
from ipbench.analysis.figures.layout import Page, ticks
from ipbench.analysis.figures.scene import Scene
from ipbench.analysis.panels import Panel

#: What the notes say of intervals.
MEANS = "Mean with 95 % interval by Student's t, over seeds, not test images."
DIFFERENCES = (
    "Mean paired difference with 95 % interval by inversion of the sign-flip test, over seeds, not test images; dots:"
    " single seeds; filled: claimed (one level of 5 % for the whole grid)."
)
#: How single seeds and intervals look.
DOTS: dict[str, Any] = {"s": 5, "alpha": 0.35, "linewidths": 0, "zorder": 2}
_BAR: dict[str, Any] = {"capsize": 1.8, "elinewidth": 0.8, "capthick": 0.8}

#: The fill of a difference that is small.
_WITHIN = "#B0B0B0"
#: Inches of a character and of the line in a legend.
_CHARACTER, _HANDLE = 0.054, 0.5

#: A range of differences, in points, from which the axis is logarithmic on both sides of a linear middle.
_WIDE, _LINEAR = 8, 1
_TICKS = (-100, -30, -10, -3, -1, 0, 1, 3, 10, 30, 100)


def interval(
    axes: Axes, at: float, mean: float, lower: float, upper: float, colour: str, along: Literal["x", "y"] = "y"
) -> None:
    """The bar of an interval, in the unit of the axis `along` which it lies; none where it is not finite."""
    if math.isfinite(lower) and math.isfinite(upper):
        # A mean may lie outside of a degenerate interval by rounding; lengths are never negative.
        arms = [[max(0.0, mean - lower)], [max(0.0, upper - mean)]]
        place: dict[str, Any] = {"x": [at], "y": [mean], "yerr": arms}
        if along == "x":
            place = {"x": [mean], "y": [at], "xerr": arms}
        axes.errorbar(**place, fmt="none", ecolor=colour, zorder=3, **_BAR)


def dodge(places: Sequence[float]) -> float:
    """Half the distance between SP and IP of one sparsity, so that their intervals do not cover each other."""
    return 0.016 * (max(places, default=0.0) - min(places, default=0.0) or 1.0)


def sparsities(scene: Scene, sheet: Page, panels: Iterable[Panel], drawn: bool) -> None:
    """The axis of sparsities under every panel of a page: ticks at those planned, in sight what a knob has reached."""
    panels = list(panels)
    texts = list(dict.fromkeys(sparsity for panel in panels for sparsity in panel.sparsities))
    by_knob = [panel for panel in panels if any(row.any.knob for row in panel.rows)]
    reached = [place for panel in by_knob for place in scene.places(panel)]
    for axes in sheet.panels:
        style.sparsity_axis(axes, texts, sheet.width, reached)
        axes.margins(y=0.08)
    ticks(sheet, drawn)


def reference(axes: Axes, dense: CellStatistics, space: str, drawn: dict[str, Artist]) -> None:
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


def marker(text: str, colour: str, shape: str, fill: str) -> Line2D:
    """A line with a marker, for a legend."""
    return Line2D([], [], color=colour, marker=shape, markerfacecolor=fill, label=text)


def legend_columns(names: Sequence[str], width: float = style.PAGE_WIDTH) -> int:
    """The most columns of names, filled one after the other, that fit below the title in so many inches."""
    for columns in range(len(names), 1, -1):
        widest = [max(map(len, some)) for some in np.array_split(np.array(names, dtype=object), columns)]
        if sum(_HANDLE + _CHARACTER * number for number in widest) <= width:
            return columns
    return 1


def verdict_fill(found: Finding) -> str:
    """How the marker of a paired difference is filled."""
    return style.DIFFERENCE_COLOUR if found.claim else _WITHIN if found.within else "white"


def difference_handles(margin: float) -> list[Artist]:
    """The legend of paired differences."""
    return [
        marker("claim", style.DIFFERENCE_COLOUR, "D", style.DIFFERENCE_COLOUR),
        marker(f"within ±{margin:g}", style.DIFFERENCE_COLOUR, "D", _WITHIN),
        marker("undecided", style.DIFFERENCE_COLOUR, "D", "white"),
        Patch(color=style.COLOUR["ip"], alpha=0.2, linewidth=0, label="IP better"),
        Patch(color=style.COLOUR["sp"], alpha=0.2, linewidth=0, label="SP better"),
    ]


def difference_axis(sheet: Page, along: Literal["x", "y"], margin: float) -> str:
    """Make an axis of every panel one of differences in points: zero in sight, the sides shaded for IP and SP.

    Dotted lines stand at the margin, inside of which a difference is small.

    Returns:
        What the name of the axis has to add.
    """
    limits = [axes.get_xlim() if along == "x" else axes.get_ylim() for axes in sheet.panels]
    wide = any(high - low > _WIDE for low, high in limits)
    for axes, (low, high) in zip(sheet.panels, limits, strict=True):
        low, high = min(low, -0.05 * (high - low)), max(high, 0.05 * (high - low))
        span, line = (axes.axvspan, axes.axvline) if along == "x" else (axes.axhspan, axes.axhline)
        axis = axes.xaxis if along == "x" else axes.yaxis
        if wide:  # a collapse in one cell would hide what happens in all the others
            (axes.set_xscale if along == "x" else axes.set_yscale)("symlog", linthresh=_LINEAR)
            axis.set_ticks([tick for tick in _TICKS if low <= tick <= high])
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))
            axis.set_minor_locator(NullLocator())
        (axes.set_xlim if along == "x" else axes.set_ylim)(low, high)  # zero is always in sight
        span(0, high, color=style.COLOUR["ip"], alpha=0.07, linewidth=0, zorder=0)
        span(low, 0, color=style.COLOUR["sp"], alpha=0.07, linewidth=0, zorder=0)
        line(0, color=style.GREY, linewidth=0.7, zorder=1)
        for end in (-margin, margin):
            if low < end < high:
                line(end, color=style.GREY, linewidth=0.5, linestyle=":", zorder=1)
    return f"log. beyond ±{_LINEAR}" if wide else ""
