"""Figures with a panel per method and sparsity: the training loss over epochs, the density over layers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from ipbench.analysis import style
from ipbench.analysis.figures.layout import chunks, empty, label, page, ticks
from ipbench.analysis.figures.scene import Scene, spaces, title
from ipbench.analysis.grid import Cell, Row
from ipbench.analysis.panels import Panel
from ipbench.analysis.plan import ALL, FigureFile

#: With more layers than this, or longer names, layers are numbered.
_NAMED_LAYERS, _NAME_LENGTH = 12, 16


def training_loss(scene: Scene, file: FigureFile) -> Figure:
    """Mean training loss of each epoch: the mean over seeds as a line, their range as a band; a logarithmic axis."""
    spots, rows, left_out = _spots(scene, file)
    text = f"Line: mean over seeds; band: their range.{left_out}"
    sheet = page(rows, _titles(spots), scene.note(_cells(spots, file), text))
    anything = False
    for axes, (_, row) in zip(sheet.panels, spots, strict=True):
        drawn = False
        for space, cell in _sides(row, file):
            curves = _losses(scene.done.get(cell.id, []))
            if curves.size:
                epochs = np.arange(1, curves.shape[1] + 1)
                colour, dashes = style.COLOUR[space], _DASHES[space]
                marker = style.MARKER[space] if curves.shape[1] == 1 else ""  # one epoch is a point
                axes.fill_between(epochs, curves.min(0), curves.max(0), color=colour, alpha=0.18, linewidth=0)
                axes.plot(epochs, curves.mean(0), color=colour, linestyle=dashes, marker=marker)
                drawn = True
        if not drawn:
            empty(axes, scene.nothing(cell for _, cell in _sides(row, file)))
        anything = anything or drawn
    sheet.panels[0].xaxis.set_major_locator(MaxNLocator(5, integer=True))
    _log_axis(sheet.panels[0], None if anything else (0.1, 1))
    ticks(sheet, anything)
    handles: list[Artist] = [
        Line2D([], [], color=style.COLOUR[space], linestyle=_DASHES[space], label=style.LABEL[space])
        for space in spaces(file)
    ]
    label(sheet, title(file), "epoch", "training loss", handles)
    return sheet.figure


def density(scene: Scene, file: FigureFile) -> Figure:
    """Kept coefficients / size of each layer, in the order of the net; a cross at the bottom is a collapsed layer."""
    spots, rows, left_out = _spots(scene, file)
    found = {cell.id: _densities(scene.done.get(cell.id, [])) for cell in _cells(spots, file)}
    names = max((layers for layers, _ in found.values()), key=len, default=[])
    named = len(names) <= _NAMED_LAYERS and all(len(name) <= _NAME_LENGTH for name in names)
    room = 0.16 if not named else 0.1 + 0.058 * max(map(len, names), default=1)
    text = f"Line: mean over seeds; band: their range; dotted: 1 − p; cross: nothing kept in some seed.{left_out}"
    sheet = page(rows, _titles(spots), scene.note(_cells(spots, file), text), tick_room=room)
    positive = [float(share[share > 0].min()) for _, share in found.values() if (share > 0).any()]
    targets = [1 - float(row.any.sparsity) for _, row in spots]
    floor = min([*positive, *targets]) / 2.5
    anything = False
    for axes, (_, row) in zip(sheet.panels, spots, strict=True):
        axes.axhline(1 - float(row.any.sparsity), color=style.GREY, linestyle=":", linewidth=0.8, zorder=1)
        drawn = False
        for space, cell in _sides(row, file):
            share = found[cell.id][1]
            if share.size:
                _profile(axes, share, floor, space)
                drawn = True
        if not drawn:
            empty(axes, scene.nothing(cell for _, cell in _sides(row, file)))
        anything = anything or drawn
    first = sheet.panels[0]
    count = max(len(names), 1)
    first.set_xlim(0.6 - 0.02 * count, count + 0.4 + 0.02 * count)
    if named and names:
        for axes in sheet.panels:
            axes.set_xticks(range(1, len(names) + 1), names, rotation=90)
    else:
        first.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    _log_axis(first, (floor / 1.4, 1.4))
    ticks(sheet, anything)
    handles: list[Artist] = [
        Line2D(
            [],
            [],
            color=style.COLOUR[space],
            linestyle=_DASHES[space],
            marker=style.MARKER[space],
            label=style.LABEL[space],
        )
        for space in spaces(file)
    ]
    label(sheet, title(file), "layer", "density (kept / size)", handles)
    return sheet.figure


#: Curves of both spaces often lie on each other: the second is dashed.
_DASHES: dict[str, Any] = {"sp": "-", "ip": (0, (3.5, 1.2))}


def _profile(axes: Axes, share: NDArray[np.float64], floor: float, space: str) -> None:
    """One line over layers; what is zero stands at the floor of the logarithmic axis, as a cross."""
    colour, layers = style.COLOUR[space], np.arange(1, share.shape[1] + 1)
    lifted = np.maximum(share, floor)
    axes.fill_between(layers, lifted.min(0), lifted.max(0), color=colour, alpha=0.18, linewidth=0)
    collapsed = (share == 0).any(0)
    mean = np.maximum(share.mean(0), floor)
    whole = [int(index) for index in np.flatnonzero(~collapsed)]  # a collapsed layer gets its cross alone
    line = {"linestyle": _DASHES[space], "marker": style.MARKER[space], "markersize": 2.8, "markevery": whole}
    axes.plot(layers, mean, color=colour, zorder=3, **line)
    axes.plot(layers[collapsed], np.full(int(collapsed.sum()), floor), "x", color=colour, markersize=4.5, zorder=4)


def _spots(scene: Scene, file: FigureFile) -> tuple[list[tuple[Panel, Row]], list[int], str]:
    """Which (panel, sparsity) get axes, how many in each row of the page, and a sentence on those left out.

    Every method starts a row. A figure over all methods has one row for each, with at most `style.COLUMNS` of its
    sparsities, spread evenly.
    """
    spots, rows, left_out = [], [], 0
    for panel in scene.panels(file):
        chosen = list(panel.rows)
        if file.method == ALL and len(chosen) > style.COLUMNS:
            spread = np.linspace(0, len(chosen) - 1, style.COLUMNS).round().astype(int)
            left_out = max(left_out, len(chosen) - style.COLUMNS)
            chosen = [chosen[index] for index in spread]
        spots += [(panel, row) for row in chosen]
        rows += chunks(len(chosen))
    return spots, rows, f" {left_out} more sparsities are in the figures of single methods." if left_out else ""


def _cells(spots: Sequence[tuple[Panel, Row]], file: FigureFile) -> list[Cell]:
    return [cell for _, row in spots for _, cell in _sides(row, file)]


def _sides(row: Row, file: FigureFile) -> list[tuple[str, Cell]]:
    sides = {"sp": row.sp, "ip": row.ip}
    return [(space, cell) for space in spaces(file) if (cell := sides[space]) is not None]


def _losses(runs: Sequence[dict[str, Any]]) -> NDArray[np.float64]:
    """Curves as an array (seeds, epochs); those with a gap are left out, longer ones are cut to the shortest."""
    curves = [run["curves_train_loss"] for run in runs]
    whole = [curve for curve in curves if isinstance(curve, list) and curve and None not in curve]
    shortest = min(map(len, whole), default=0)
    # A loss of exactly zero has no place on a logarithmic axis.
    return np.maximum(np.array([curve[:shortest] for curve in whole], dtype=np.float64), 1e-8)


def _densities(runs: Sequence[dict[str, Any]]) -> tuple[list[str], NDArray[np.float64]]:
    """Names of the layers, and the densities as an array (seeds, layers)."""
    nets = [json.loads(run["layers"]) for run in runs if isinstance(run["layers"], str)]
    names = [layer["name"] for layer in nets[0]] if nets else []
    rows = [[layer["kept"] / layer["size"] for layer in net] for net in nets if len(net) == len(names)]
    return names, np.array(rows, dtype=np.float64)


def _titles(spots: Sequence[tuple[Panel, Row]]) -> list[str]:
    return [f"{panel.title}, p = {row.any.sparsity}" for panel, row in spots]


def _log_axis(first: Axes, limits: tuple[float, float] | None) -> None:
    """Make the y-axis that all panels share logarithmic; with 1, 2, 5 labelled where powers of ten would be too few.

    Args:
        first: the panel whose axis the others share.
        limits: of the axis; by default those of the data.
    """
    if limits:
        first.set_ylim(limits)
    first.set_yscale("log")
    low, high = first.get_ylim()
    if high / low < 100:
        first.yaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
        first.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    first.yaxis.set_minor_formatter(NullFormatter())
