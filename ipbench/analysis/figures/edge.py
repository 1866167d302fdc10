"""An axis of accuracy for the nets that live: means far below stand at its lower edge, with their values.

"Far below" is: less than half of what the best mean of the figure has above chance; where most means are close to each
other (`close`), also far from these. Both are rules of drawing and say nothing of a net; which runs are lost does
`analysis.lost`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from matplotlib.axes import Axes

from ipbench.analysis import style
from ipbench.analysis.cells import PRIMARY, CellStatistics
from ipbench.analysis.figures.scene import Scene
from ipbench.analysis.grid import Cell, Row
from ipbench.analysis.lost import chance_bound
from ipbench.data.catalog import known

#: What the notes say of marks at the edge, and of crosses, where there are any.
_EDGE = (
    " At the lower edge, with their values: means with less than half of what the best one has above chance (there, a"
    " small cross: single seeds)."
)
_EDGE_OF_CLOSE = (
    " At the lower edge, with their values: means below the median of all by more than five points, and by more than"
    " five times what the best is above it (there, a small cross: single seeds)."
)
#: Points below the median, and times what the best mean is above it: what is farther is far from means that are close.
_FAR_POINTS, _FAR_TIMES = 0.05, 5
_CROSS = " Cross: a mean with lost runs (collapsed, at chance or diverged; in brackets how many), over all runs."
#: Of the height of what is in sight: kept free above it and below.
_ROOM = 0.08
#: Behind a value, so that it can be read on the bars of others.
_ON_WHITE = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.4}
#: Of the width of a panel: what is closer shares its place for texts, and for an edge.
_CLOSE = 0.12


@dataclass(frozen=True)
class Point:
    """Where the mean of a cell stands along the x-axis of a panel, and in which colour."""

    axes: Axes
    x: float
    cell: str
    colour: str


def edge_note(scene: Scene, cells: Iterable[Cell], bands: Iterable[Cell] = (), close: bool = False) -> str:
    """What a caption has to say of means at the edge, and of lost runs."""
    found, cells = scene.cells(PRIMARY), list(cells)
    shown = [cell for cell in cells if found[cell.id].n]
    drawn = [cell.id for cell in [*shown, *bands]]
    lowest = least(scene, drawn, close)
    edge = _EDGE if lowest == least(scene, drawn) else _EDGE_OF_CLOSE
    below = any(found[cell.id].mean < lowest for cell in shown)
    return (edge if below else "") + (_CROSS if any(scene.counts[cell.id].lost for cell in shown) else "")


def lost_pairs(scene: Scene, text: str, rows: Iterable[Row]) -> str:
    """`text`, with what a cross on a difference says if there is one."""
    lost = any(scene.counts[side.id].lost for row in rows for side in (row.sp, row.ip) if side)
    return f"{text} Cross: with lost runs (collapsed, at chance or diverged)." if lost else text


def living_axis(scene: Scene, points: Sequence[Point], bands: Iterable[Cell], close: bool = False) -> None:
    """Give the y-axis, in per cent, to the means that are not far below the best; mark those, and the lost ones.

    Args:
        scene: the collection.
        points: all that is drawn, in panels that share one y-axis.
        bands: dense nets that are drawn too.
        close: most means are close to each other, and an axis for all of them would tell nothing of these.
    """
    found, dense = scene.cells(PRIMARY), [cell.id for cell in bands]
    lowest = least(scene, [*(point.cell for point in points), *dense], close)
    floor = -math.inf
    if any(found[point.cell].mean < lowest for point in points):
        sight = _in_sight(scene, points, [found[cell] for cell in dense], lowest)
        room = _ROOM * (max(sight) - min(sight)) or 1.0
        floor = min(sight) - 2.5 * room
        points[0].axes.set_ylim(floor, max(sight) + room)
    below = [point for point in points if _mark(scene, point, floor)]
    for panel in dict.fromkeys(point.axes for point in below):
        _values(scene, [point for point in below if point.axes is panel], floor)


def least(scene: Scene, cells: Sequence[str], close: bool = False) -> float:
    """Half way from chance to the best mean, a fraction; without one above chance, nothing is far below.

    With `close`, what is far from the median of all, if that is higher.
    """
    means = [scene.cells(PRIMARY)[cell].mean for cell in cells if scene.cells(PRIMARY)[cell].n]
    names = {cell.id: cell.dataset for cell in scene.collection.grid.cells}
    facts = [found for found in (known(names[cell]) for cell in cells) if found]
    chance, best = max(map(chance_bound, facts), default=0.0), max(means, default=0.0)
    if best <= chance:
        return -math.inf
    middle = median(means)
    far = middle - max(_FAR_POINTS, _FAR_TIMES * (best - middle)) if close else -math.inf
    return max((chance + best) / 2, far)


def _in_sight(scene: Scene, points: Sequence[Point], bands: Iterable[CellStatistics], lowest: float) -> list[float]:
    """All values of the axis, in per cent: means, intervals and seeds from `lowest` on."""
    whole = [*(scene.cells(PRIMARY)[point.cell] for point in points), *bands]
    values = [max(end, lowest) for one in whole if one.mean >= lowest for end in (one.mean, one.lower, one.upper)]
    values += [value for point in points for value in scene.values(PRIMARY)[point.cell].values() if value >= lowest]
    return [100 * value for value in values if math.isfinite(value)]


def _mark(scene: Scene, point: Point, floor: float) -> bool:
    """Mark a mean with lost runs, or one that is below the axis; says whether it is."""
    found, lost = scene.cells(PRIMARY)[point.cell], scene.counts[point.cell].lost
    look: dict[str, Any] = {"linestyle": "none", "markersize": 5, "markeredgewidth": 1.1, "zorder": 6, "clip_on": False}
    if 100 * found.mean < floor:
        point.axes.plot(point.x, floor, marker="x" if lost else "v", color=point.colour, **look)
        return True
    if lost:
        point.axes.plot(point.x, 100 * found.mean, marker="x", color=style.CROSS_COLOUR, **look)
    if any(100 * value < floor for value in scene.values(PRIMARY)[point.cell].values()):
        point.axes.plot(point.x, floor, marker="x", color=point.colour, **look | {"markersize": 3})
    return False


def _values(scene: Scene, points: Sequence[Point], floor: float) -> None:
    """Write the values of points at the edge above them; of those that are close to each other, in lines."""
    groups: list[list[Point]] = []
    for point in sorted(points, key=lambda point: point.x):
        low, high = point.axes.get_xlim()
        last = groups[-1] if groups else []
        if last and point.x - last[0].x < _CLOSE * (high - low):
            last.append(point)
        else:
            groups.append([point])
    for group in groups:
        low, high = group[0].axes.get_xlim()
        place = (sum(point.x for point in group) / len(group) - low) / (high - low)
        side = "left" if place < _CLOSE else "right" if place > 1 - _CLOSE else "center"
        for line, point in enumerate(group):
            mean, ended = scene.cells(PRIMARY)[point.cell].mean, scene.counts[point.cell]
            text = f"{100 * mean:.1f}" + (f" ({ended.lost} of {ended.done + ended.diverged})" if ended.lost else "")
            point.axes.annotate(
                text, (low + place * (high - low), floor), xytext=(0, 5 + 5.5 * line), textcoords="offset points",
                ha=side, va="bottom", size=5, color=point.colour, zorder=6, bbox=_ON_WHITE,
            )  # fmt: skip
