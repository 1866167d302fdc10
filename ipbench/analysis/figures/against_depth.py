"""The figure over the layers of a net, a panel per method and sparsity: the density; and the axis of layers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ipbench.analysis import style
from ipbench.analysis.figures.layout import Page, empty, label, log_axis, page, ticks
from ipbench.analysis.figures.scene import Scene, title
from ipbench.analysis.figures.spots import DASHES, cells_of, handles, sides, spots_of, titles
from ipbench.analysis.grid import Row
from ipbench.analysis.plan import FigureFile

#: With more layers than this, or longer names, layers are numbered.
_NAMED_LAYERS, _NAME_LENGTH = 12, 16


def density(scene: Scene, file: FigureFile) -> Figure:
    """Kept coefficients / size of each layer, in the order of the net; a cross at the bottom is a collapsed layer."""
    spots, rows, left_out = spots_of(scene, file)
    found = {cell.id: _densities(scene.done.get(cell.id, [])) for cell in cells_of(spots, file)}
    names = max((layers for layers, _ in found.values()), key=len, default=[])
    text = f"Line: mean over seeds; band: their range; dotted: 1 − p; cross: nothing kept in some seed.{left_out}"
    sheet = page(rows, titles(spots), scene.note(cells_of(spots, file), text), tick_room=tick_room(names))
    positive = [float(share[share > 0].min()) for _, share in found.values() if (share > 0).any()]
    targets = [1 - float(row.any.sparsity) for _, row in spots if _planned(row)]
    floor = min([*positive, *targets], default=1.0) / 2.5
    anything = False
    for axes, (_, row) in zip(sheet.panels, spots, strict=True):
        if _planned(row):
            axes.axhline(1 - float(row.any.sparsity), color=style.GREY, linestyle=":", linewidth=0.8, zorder=1)
        drawn = False
        for space, cell in sides(row, file):
            share = found[cell.id][1]
            if share.size:
                _profile(axes, share, floor, space)
                drawn = True
        if not drawn:
            empty(axes, scene.nothing(cell for _, cell in sides(row, file)))
        anything = anything or drawn
    layer_axis(sheet, names)
    log_axis(sheet, sheet.panels[0], (floor / 1.4, 1.4))
    ticks(sheet, anything)
    label(sheet, title(file), "layer", "density (kept / size)", handles(file, markers=True))
    return sheet.figure


def tick_room(names: Sequence[str]) -> float:
    """Inches below a panel for the names of layers, or their numbers."""
    return 0.1 + 0.058 * max(map(len, names), default=1) if _named(names) else 0.16


def _named(names: Sequence[str]) -> bool:
    """Whether layers are named on the axis, and not numbered."""
    return len(names) <= _NAMED_LAYERS and all(len(name) <= _NAME_LENGTH for name in names)


def layer_axis(sheet: Page, names: Sequence[str]) -> None:
    """The x-axis of all panels: layers, in the order of the net."""
    first, count = sheet.panels[0], max(len(names), 1)
    first.set_xlim(0.6 - 0.02 * count, count + 0.4 + 0.02 * count)
    if _named(names) and names:
        for axes in sheet.panels:
            axes.set_xticks(range(1, len(names) + 1), names, rotation=90)
    else:
        first.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))


def _planned(row: Row) -> bool:
    """Whether the density of the whole net was asked for."""
    return row.any.budget == "parameters" and not row.any.knob


def _profile(axes: Axes, share: NDArray[np.float64], floor: float, space: str) -> None:
    """One line over layers; what is zero stands at the floor of the logarithmic axis, as a cross."""
    colour, layers = style.COLOUR[space], np.arange(1, share.shape[1] + 1)
    lifted = np.maximum(share, floor)
    axes.fill_between(layers, lifted.min(0), lifted.max(0), color=colour, alpha=0.18, linewidth=0)
    collapsed = (share == 0).any(0)
    mean = np.maximum(share.mean(0), floor)
    whole = [int(index) for index in np.flatnonzero(~collapsed)]  # a collapsed layer gets its cross alone
    line = {"linestyle": DASHES[space], "marker": style.MARKER[space], "markersize": 2.8, "markevery": whole}
    axes.plot(layers, mean, color=colour, zorder=3, **line)
    axes.plot(layers[collapsed], np.full(int(collapsed.sum()), floor), "x", color=colour, markersize=4.5, zorder=4)


def _densities(runs: Sequence[dict[str, Any]]) -> tuple[list[str], NDArray[np.float64]]:
    """Names of the layers, and the densities as an array (seeds, layers)."""
    nets = [json.loads(run["layers"]) for run in runs if isinstance(run["layers"], str)]
    names = [layer["name"] for layer in nets[0]] if nets else []
    rows = [[layer["kept"] / layer["size"] for layer in net] for net in nets if len(net) == len(names)]
    return names, np.array(rows, dtype=np.float64)
