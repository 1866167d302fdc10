"""An axis of accuracy for the nets that live: what was lost stands at its lower edge, as a cross with its value."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from ipbench.analysis import style
from ipbench.analysis.cells import PRIMARY, CellStatistics
from ipbench.analysis.figures.scene import Scene
from ipbench.analysis.grid import Row

#: What the notes say of crosses, where there are any.
CROSSES = (
    " Cross: a mean with lost runs (collapsed, at chance or diverged), like all others over all runs; where it is below"
    " the axis, which is that of the runs that are not lost, it stands at the edge with its value and (lost/all)."
)
#: Of the height of what lives: kept free above it and below.
_ROOM = 0.08


@dataclass(frozen=True)
class Point:
    """Where the mean of a cell stands along the x-axis of a panel, and in which colour."""

    axes: Axes
    x: float
    cell: str
    colour: str


def crosses_note(scene: Scene, cells: Iterable[str]) -> str:
    """`CROSSES` if any of these cells has a lost run and a mean."""
    found = scene.cells(PRIMARY)
    return CROSSES if any(scene.counts[cell].lost and found[cell].n for cell in cells) else ""


def lost_pairs(scene: Scene, text: str, rows: Iterable[Row]) -> str:
    """`text`, with what a cross on a difference says if there is one."""
    lost = any(scene.counts[side.id].lost for row in rows for side in (row.sp, row.ip) if side)
    return f"{text} Cross: with lost runs (collapsed, at chance or diverged)." if lost else text


def living_axis(scene: Scene, points: Sequence[Point], bands: Iterable[CellStatistics]) -> None:
    """Give the y-axis, in per cent, to the runs that are not lost, and mark the means with lost runs by crosses.

    Args:
        scene: the collection.
        points: all that is drawn, in panels that share one y-axis.
        bands: dense nets that are drawn too.
    """
    lost = [point for point in points if scene.counts[point.cell].lost]
    if not lost:
        return
    living = _living(scene, points, bands)
    floor = -math.inf
    if living:
        low, high = min(living), max(living)
        room = _ROOM * (high - low) or 1.0
        if any(100 * scene.cells(PRIMARY)[point.cell].mean < low - room for point in lost):
            floor = low - 2.5 * room
            lost[0].axes.set_ylim(floor, high + room)
    for point in lost:
        _cross(scene, point, floor)


def _living(scene: Scene, points: Sequence[Point], bands: Iterable[CellStatistics]) -> list[float]:
    """All values that have to be in sight, in per cent."""
    whole = [scene.cells(PRIMARY)[point.cell] for point in points if not scene.counts[point.cell].lost]
    found = [end for one in (*whole, *bands) for end in (one.mean, one.lower, one.upper)]
    for point in points:
        lost = scene.lost.get(point.cell, {})
        found += [value for seed, value in scene.values(PRIMARY)[point.cell].items() if seed not in lost]
    return [100 * value for value in found if math.isfinite(value)]


def _cross(scene: Scene, point: Point, floor: float) -> None:
    found, ended = scene.cells(PRIMARY)[point.cell], scene.counts[point.cell]
    look: dict[str, Any] = {
        "marker": "x",
        "linestyle": "none",
        "markersize": 5,
        "markeredgewidth": 1.1,
        "zorder": 6,
        "clip_on": False,
    }
    if 100 * found.mean >= floor:
        point.axes.plot(point.x, 100 * found.mean, color=style.CROSS_COLOUR, **look)
        return
    point.axes.plot(point.x, floor, color=point.colour, **look)
    text = f"{100 * found.mean:.1f} ({ended.lost}/{ended.done + ended.diverged})"
    point.axes.annotate(
        text, (point.x, floor), xytext=(0, 4.5), textcoords="offset points", rotation=90, ha="center", va="bottom",
        size=5, color=point.colour, zorder=6,
    )  # fmt: skip
