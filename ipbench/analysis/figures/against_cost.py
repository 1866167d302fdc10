"""Figures of accuracy against what is left of nets whose channels were cut: multiply-accumulates, time of a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ipbench.analysis import style
from ipbench.analysis.cells import PRIMARY, CellStatistics
from ipbench.analysis.figures.curves import Curve, curve, cut_curves, handles, unsaid
from ipbench.analysis.figures.edge import Point, edge_note, living_axis
from ipbench.analysis.figures.layout import empty, label, page, ticks
from ipbench.analysis.figures.marks import DOTS, interval, legend_columns, reference
from ipbench.analysis.figures.scene import Scene, shown_spaces, title
from ipbench.analysis.grid import Cell
from ipbench.analysis.plan import FigureFile
from ipbench.analysis.setting import hardware
from ipbench.analysis.sliced import latency, macs_left, ratio_statistics, share_statistics

#: Inches: a panel's height, what it is higher for every method after so many, and what is beside the panels.
_HEIGHT, _MORE, _FEW, _MARGINS = 2.4, 0.12, 8, 0.6
#: Per cent of the dense net: no axis of shares is shorter, so that nets of equal size stand close to each other.
_LEAST = 20


@dataclass(frozen=True)
class _Block:
    """A row of panels, one for each space.

    Attributes:
        title: what tells it from other rows; '' of a single one.
        shares: by cell and seed, what is left of the dense net.
    """

    title: str
    shares: Mapping[str, Mapping[int, float]]


def macs(scene: Scene, file: FigureFile) -> Figure:
    """Test accuracy after the last epoch against the MACs that are left: a panel per space, a line per method."""
    shares = {
        cell.id: {run["seed"]: share for run in scene.done.get(cell.id, []) if math.isfinite(share := macs_left(run))}
        for cell in _cells(cut_curves(scene, file))
    }
    text = (
        "MACs left: multiply-accumulates of one image in the net without the channels that were cut, as a share of the"
        " dense net's; mean over seeds. What was reached, not what was asked for."
    )
    return _figure(scene, file, [_Block("", shares)], share_statistics, text, "MACs left (% of the dense net)")


def time(scene: Scene, file: FigureFile) -> Figure:
    """The same against the time of a batch; what was measured on different hardware has rows of panels of its own."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    missing = 0
    for cell in _cells(cut_curves(scene, file)):
        for run in scene.done.get(cell.id, []):
            told = latency(run)
            missing += told is None
            if told is not None:
                found.setdefault(told.where, {}).setdefault(cell.id, {})[run["seed"]] = told.ratio
    blocks = [_Block(where if len(found) > 1 else "", shares) for where, shares in sorted(found.items())]
    text = (
        "Time: seconds of a forward pass of the net without the channels that were cut over those of the dense net,"
        " both measured in turns in one run; geometric mean over seeds."
    )
    text += f" Measured on: {' / '.join(sorted(found))}." if found else f" {hardware(scene.collection)}"
    text += (
        f" {missing} run{'' if missing == 1 else 's'} of which nothing was cut, or measured, left out."
        if missing
        else ""
    )
    return _figure(
        scene, file, blocks or [_Block("", {})], ratio_statistics, text, "time of a batch (% of the dense net)"
    )


def _cells(curves: Sequence[Curve]) -> list[Cell]:
    """The cells of some curves, each once."""
    sides = (side for panel, _ in curves for row in panel.rows for side in (row.sp, row.ip) if side)
    return list({side.id: side for side in sides}.values())


def _figure(
    scene: Scene,
    file: FigureFile,
    blocks: Sequence[_Block],
    statistics: Callable[[Mapping[int, float]], CellStatistics],
    text: str,
    x: str,
) -> Figure:
    """Test accuracy against the shares of each block, in per cent; the dense net is a band."""
    curves = cut_curves(scene, file)
    shown = shown_spaces(file, [panel for panel, _ in curves])
    dense = {
        space: {panel.dense[space].id: panel.dense[space] for panel, _ in curves if space in panel.dense}
        for space in shown
    }
    bands = [cell for cells in dense.values() for cell in cells.values()]
    names = [panel.title for panel, _ in curves] + [f"dense ({style.LABEL[space]})" for space in shown if dense[space]]
    columns = legend_columns(names, len(shown) * style.PANEL_WIDTH + _MARGINS)
    note = (
        f"{text} Bars: 95 % intervals by Student's t over seeds, not test images, in both directions; none where all"
        f" seeds are equal. Band: that of the dense net's {scene.metric}."
    )
    note += unsaid(curves)
    if any(scene.counts[cell.id].lost for cell in _cells(curves)):
        note += " Dots: single seeds, where a run is lost."
    note += edge_note(scene, _cells(curves), bands, close=True)
    sheet = page(
        [len(shown)] * len(blocks),
        [
            ", ".join(filter(None, (style.LABEL[space], block.title)))
            for block, space in product(blocks, shown)
        ],
        scene.note([*_cells(curves), *bands], note),
        height=_HEIGHT + _MORE * max(0, len(curves) - _FEW) if len(blocks) == 1 else None,
        legend_rows=math.ceil(len(names) / columns),
    )  # fmt: skip
    references: dict[str, Artist] = {}
    places: list[float] = []
    drawn: list[Point] = []
    for axes, (block, space) in zip(sheet.panels, product(blocks, shown), strict=True):
        for cell in dense[space]:
            reference(axes, scene.cells(PRIMARY)[cell], space, references)
        found = [_line(axes, scene, line, space, block, statistics) for line in curves]
        if not any(ends for ends, _ in found):
            empty(axes, scene.nothing(cell for panel, _ in curves for cell in panel.side(space)))
        places += [place for ends, _ in found for place in ends]
        drawn += [point for _, points in found for point in points]
    _share_axis(sheet.panels, places)
    living_axis(scene, drawn, bands, close=True)
    ticks(sheet, bool(places) or bool(references))
    legend = [*handles(curves), *references.values()]
    label(sheet, title(file), x, f"test {scene.metric} (%)", legend, columns)
    return sheet.figure


def _line(
    axes: Axes,
    scene: Scene,
    line: Curve,
    space: str,
    block: _Block,
    statistics: Callable[[Mapping[int, float]], CellStatistics],
) -> tuple[list[float], list[Point]]:
    """Draw one method of one space, by growing share; gives the ends of all intervals along x, and the points."""
    panel, look = line
    points, drawn = [], []
    for cell in panel.side(space):
        share, accuracy = statistics(block.shares.get(cell.id, {})), scene.cells(PRIMARY)[cell.id]
        if share.n and accuracy.n:
            points.append((share, accuracy))
            drawn.append(Point(axes, 100 * share.mean, cell.id, look.colour))
            if scene.counts[cell.id].lost:  # no interval says what happened there
                values = scene.values(PRIMARY)[cell.id].values()
                axes.scatter(
                    [100 * share.mean] * accuracy.n, [100 * value for value in values], **DOTS, color=look.colour
                )
    points.sort(key=lambda point: point[0].mean)
    ends = []
    for share, accuracy in points:
        x, y = 100 * share.mean, 100 * accuracy.mean
        interval(axes, x, y, 100 * accuracy.lower, 100 * accuracy.upper, look.colour)
        if share.interval != "constant":
            interval(axes, y, x, 100 * share.lower, 100 * share.upper, look.colour, along="x")
        ends += [x, *(100 * end for end in (share.lower, share.upper) if math.isfinite(end))]
    curve(axes, [100 * share.mean for share, _ in points], [100 * accuracy.mean for _, accuracy in points], look)
    return ends, drawn


def _share_axis(panels: Sequence[Axes], places: Sequence[float]) -> None:
    """The x-axis of all panels: what was found is in sight; a line at 100 %, the dense net, where that is among it."""
    low, high = min(places, default=0.0), max(places, default=100.0)
    margin = max(0.05 * (high - low), (_LEAST - (high - low)) / 2)
    for axes in panels:
        if low - margin <= 100 <= high + margin:
            axes.axvline(100, color=style.GREY, linewidth=0.7, zorder=1)
        axes.set_xlim(low - margin, high + margin)
        axes.margins(y=0.08)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
