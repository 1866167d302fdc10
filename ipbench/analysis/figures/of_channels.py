"""The figure of the channels that are left of every layer, where channels were cut: a panel per space and level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ipbench.analysis import style
from ipbench.analysis.figures.against_depth import layer_axis, tick_room
from ipbench.analysis.figures.curves import Look, curve, cut_curves, handles, unsaid
from ipbench.analysis.figures.layout import empty, label, page, ticks
from ipbench.analysis.figures.marks import legend_columns
from ipbench.analysis.figures.scene import Scene, shown_spaces, title
from ipbench.analysis.figures.spots import level
from ipbench.analysis.grid import Cell, Row
from ipbench.analysis.panels import Panel
from ipbench.analysis.plan import FigureFile
from ipbench.analysis.shares import SHARES_OF
from ipbench.analysis.sliced import channels_left

#: As many levels at most get panels.
_LEVELS = 8
#: Inches left and right of the panels.
_MARGINS = 0.6
#: Between the first and the last method at a layer, where layers are 1 apart.
_BESIDE = 0.3


@dataclass(frozen=True)
class _Level:
    """What cells of different methods were asked for: a share of one budget, or a value of a knob.

    Attributes:
        name: of it.
        rows: of each method how it is drawn, and its cells.
    """

    name: str
    rows: tuple[tuple[Look, Row], ...]

    def sides(self, space: str) -> list[tuple[Look, Cell]]:
        """The cells of one space, each with how it is drawn."""
        cells = [(look, row.sp if space == "sp" else row.ip) for look, row in self.rows]
        return [(look, cell) for look, cell in cells if cell is not None]

    def title(self, scene: Scene, space: str) -> str:
        """'SP, p = 0.5', or 'SP, rate = 0.4 (p = 0.41)' with what was reached, its range over methods if it has one."""
        placed = [cell for _, cell in self.sides(space) if cell.knob and not math.isnan(scene.position(cell))]
        shares = sorted({f"{style.share_at(scene.position(cell)):.2f}" for cell in placed})
        reached = "–".join(dict.fromkeys((shares[0], shares[-1]))) if shares else ""
        return f"{style.LABEL[space]}, {self.name}" + (
            f" (p\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{reached})" * bool(reached)
        )


def channels(scene: Scene, file: FigureFile) -> Figure:
    """Share of the channels of each layer that are left, in the order of the net: a line per method."""
    curves = cut_curves(scene, file)
    shown = shown_spaces(file, [panel for panel, _ in curves])
    levels, left_out = _levels(scene, curves)
    across = math.ceil(len(levels) / math.ceil(len(levels) / style.COLUMNS))  # rows of one length, or nearly
    blocks = [levels[start : start + across] for start in range(0, len(levels), across)]
    spots = [(space, one) for block in blocks for space in shown for one in block]
    cells = list({cell.id: cell for space, one in spots for _, cell in one.sides(space)}.values())
    found = {cell.id: _shares(scene.done.get(cell.id, [])) for cell in cells}
    names = max((layers for layers, _ in found.values()), key=len, default=[])
    width = min(style.PAGE_WIDTH, across * style.PANEL_WIDTH + _MARGINS)
    columns = legend_columns([panel.title for panel, _ in curves], width)
    text = (
        "Output channels of each layer in the net without the channels that were cut, as a share of the dense net's."
        f" Line: mean over seeds; band: their range.{_REACHED if any(cell.knob for cell in cells) else ''}{left_out}"
    )
    text += unsaid(curves)
    sheet = page(
        [len(block) for block in blocks for _ in shown],
        [one.title(scene, space) for space, one in spots],
        scene.note(cells, text),
        tick_room=tick_room(names),
        legend_rows=math.ceil(len(curves) / columns),
    )
    anything = False
    for axes, (space, one) in zip(sheet.panels, spots, strict=True):
        lines = [(found[cell.id][1], look) for look, cell in one.sides(space) if found[cell.id][1].size]
        for number, (share, look) in enumerate(lines):
            # Beside each other: methods that leave the same would cover each other.
            _line(axes, share, look, _BESIDE * (number / max(1, len(lines) - 1) - 0.5) * (len(lines) > 1))
        if not lines:
            empty(axes, scene.nothing(cell for _, cell in one.sides(space)))
        anything = anything or bool(lines)
    layer_axis(sheet, names)
    sheet.panels[0].set_ylim(0, 105)
    ticks(sheet, anything)
    label(sheet, title(file), "layer", "channels left (%)", handles(curves), columns)
    return sheet.figure


_REACHED = " In brackets: the removed share p that was reached where another option says how much is pruned."


def _levels(scene: Scene, curves: Sequence[tuple[Panel, Look]]) -> tuple[list[_Level], str]:
    """The levels, shares by budget first, then values of knobs, each growing; and a sentence on those left out."""
    groups: dict[tuple[str, str, str], list[tuple[Look, Row]]] = {}
    for panel, look in curves:
        for row in panel.rows:
            groups.setdefault(_asked(row.any), []).append((look, row))
    several = len({budget for budget, *_ in groups}) > 1

    def order(group: Sequence[tuple[Look, Row]]) -> tuple[bool, str, float]:
        row = group[0][1]
        place = scene.place(row)
        return bool(row.any.knob), row.any.knob or row.any.budget, math.inf if math.isnan(place) else place

    found = []
    for group in sorted(groups.values(), key=order):
        cell = group[0][1].any
        name = level(cell) + (f" of {SHARES_OF[cell.budget]}" if several and not cell.knob else "")
        found.append(_Level(name, tuple(group)))
    if len(found) <= _LEVELS:
        return found, ""
    spread = np.linspace(0, len(found) - 1, _LEVELS).round().astype(int)
    return [found[index] for index in spread], f" Panels are those of {_LEVELS} of {len(found)} levels."


def _asked(cell: Cell) -> tuple[str, str, str]:
    """What a cell was asked for: cells of different methods for which it is the same share a panel.

    A number means something else to every knob; a text of shares by layer does not, whatever the knob is called.
    """
    if not cell.knob:
        return cell.budget, "", cell.sparsity
    return cell.budget, "by layer" if "=" in cell.setting else cell.knob, cell.setting


def _line(axes: Axes, share: NDArray[np.float64], look: Look, beside: float) -> None:
    """Draw one method over layers, from shares of shape (seeds, layers), `beside` the places of the layers."""
    layers, percent = np.arange(1, share.shape[1] + 1) + beside, 100 * share
    axes.fill_between(layers, percent.min(0), percent.max(0), color=look.colour, alpha=0.18, linewidth=0)
    curve(axes, layers, percent.mean(0), look, size=2.8)


def _shares(runs: Sequence[dict[str, Any]]) -> tuple[list[str], NDArray[np.float64]]:
    """Names of the layers, and the shares of their channels that are left as an array (seeds, layers)."""
    nets = [shares for run in runs if (shares := channels_left(run))]
    names = list(nets[0]) if nets else []
    rows = [list(net.values()) for net in nets if list(net) == names]
    return names, np.array(rows, dtype=np.float64)
