"""What controls leave: for every method and sparsity, of its gain over random pruning in SP and in IP, and IP - SP."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from ipbench.analysis import style
from ipbench.analysis.comparisons import Finding
from ipbench.analysis.figures.layout import empty, label, page
from ipbench.analysis.figures.marks import interval, legend_columns
from ipbench.analysis.figures.scene import Scene, title
from ipbench.analysis.grid import Cell
from ipbench.analysis.labels import labels
from ipbench.analysis.panels import panel_title
from ipbench.analysis.plan import FigureFile
from ipbench.analysis.survival import ORIGIN, Line
from ipbench.analysis.text import points
from ipbench.spec import CONTROLS, NO_CONTROL, SPACES

#: Inches: of a mark's line and of what is between two methods, of a character of a name.
_LINE, _BETWEEN, _CHARACTER = 0.095, 0.1, 0.06
#: Characters of a line of a name.
_NAME = 24
_NOTE = (
    "Mean paired difference in points with 95 % interval by inversion of the sign-flip test, over seeds, not test"
    " images. SP, IP: test {metric} over that of random pruning at equal budget; bar: the gain of the method's own"
    " runs, of which a control leaves what is left of its mark. Filled: of a gain, that it is claimed; of a control,"
    " that it is claimed to take something (of origin: to give the dense net something); IP − SP: that it is"
    " claimed not to be zero. Arrows: a mean that is far from those of own runs, with its value."
)
_OWN = "own runs"
_DIFFERENCE = "IP − SP"


def survival(scene: Scene, file: FigureFile) -> Figure:
    """What each control leaves of the gains of a net's methods over random pruning, and of IP - SP."""
    net = (file.dataset, file.model)
    planned = [line for line in scene.survival.lines if (line.row.any.dataset, line.row.any.model) == net]
    lines = [line for line in planned if _begun(line)] or planned
    controls = [name for name in CONTROLS if any(name in line.controls for line in lines)]
    spaces = [space for space in SPACES if any(space in line.sides for line in lines)]
    panels = [style.LABEL[space] for space in spaces] + ([_DIFFERENCE] if any(line.apart for line in lines) else [])
    names = labels(scene.collection.grid)
    told = [
        "\n".join(textwrap.wrap(f"{panel_title(names, line.row)}, {names.row(line.row, 'sparsity')}", _NAME))
        for line in lines
    ]
    places = _places(lines)
    handles = _handles(controls)
    columns = legend_columns([str(handle.get_label()) for handle in handles])
    sheet = page(
        [len(panels)], panels, _note(scene, planned, len(planned) - len(lines)), height=_LINE * places[-1], own_x=True,
        left=0.12 + _CHARACTER * max(len(part) for name in told for part in name.split("\n")),
        legend_rows=-(-len(handles) // columns),
    )  # fmt: skip
    ranges = {panel: _range(lines, [other for other in panels if (other == _DIFFERENCE) == (panel == _DIFFERENCE)])
              for panel in panels}  # fmt: skip
    for axes, panel in zip(sheet.panels, panels, strict=True):
        drawn = [_line(axes, at, line, panel, ranges[panel]) for at, line in zip(places, lines, strict=False)]
        _finish(axes, places, ranges[panel], any(drawn))
    first = sheet.panels[0]
    first.set_yticks([_middle(places, number) for number in range(len(lines))], told)
    for axes in sheet.panels:
        axes.tick_params(axis="y", length=0, labelleft=axes is first)
    label(sheet, title(file), "points", "", handles, legend_columns=columns)
    return sheet.figure


def _begun(line: Line) -> bool:
    """Whether there is anything to draw of a method at one sparsity."""
    found = [_found(line, panel, control)[0] for panel in (*style.LABEL.values(), _DIFFERENCE)
             for control in (NO_CONTROL, *line.controls)]  # fmt: skip
    return any(one is not None and one.comparison.n for one in found)


def _places(lines: Sequence[Line]) -> list[float]:
    """Where each line begins, and where the last one ends, in lines of marks from the top."""
    places = [0.0]
    for line in lines:
        places.append(places[-1] + 1 + len(line.controls) + _BETWEEN / _LINE)
    return places


def _middle(places: Sequence[float], number: int) -> float:
    return (places[number] + places[number + 1]) / 2


def _range(lines: Sequence[Line], panels: Sequence[str]) -> tuple[float, float]:
    """The points that panels show: all that is above random pruning, and half as far below it where so much is below.

    At least three points below. Of IP - SP, on either side twice as far as own runs reach, and at least a point. What a
    control makes much worse than random pruning, as `invert` may, would hide all else. Where an interval of a
    mean that is shown ends up to half as far again, all of it is shown.
    """
    known = [*_reached(lines, panels, of_controls=True), 0.0]
    low, high = min(known), max(known)
    if panels != [_DIFFERENCE]:
        low = max(low, -max(0.5 * high, 3.0))
    elif own := _reached(lines, panels, of_controls=False):
        low, high = max(low, 2 * min(*own, -0.5)), min(high, 2 * max(*own, 0.5))
    ends = _reached(lines, panels, of_controls=True, within=(low, high))
    near = [low, high, *(end for end in ends if 1.5 * low <= end <= 1.5 * high)]
    low, high = min(near), max(near)
    room = 0.05 * (high - low) or 1.0
    return low - room, high + room


def _reached(
    lines: Sequence[Line],
    panels: Sequence[str],
    *,
    of_controls: bool,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> list[float]:
    """Means within some points and the finite ends of their intervals: of own runs, and of controls if asked for."""
    found = [one for panel in panels for line in lines for control in (NO_CONTROL, *line.controls * of_controls)
             if (one := _found(line, panel, control)[0]) and one.comparison.n]  # fmt: skip
    compared = [one.comparison for one in found if within[0] <= 100 * one.comparison.mean <= within[1]]
    numbers = [end for one in compared for end in (one.mean, one.interval.lower, one.interval.upper)]
    return [100 * number for number in numbers if math.isfinite(number)]


def _line(axes: Axes, top: float, line: Line, panel: str, limits: tuple[float, float]) -> bool:
    """Draw a method at one sparsity in a panel; says whether there was anything to draw.

    Args:
        axes: the panel.
        top: where the line begins.
        line: what is drawn.
        panel: its title.
        limits: the ends of the panel, where a mean beyond them is written.
    """
    start, drawn = top + 0.5 + _BETWEEN / _LINE / 2, False
    for number, control in enumerate((NO_CONTROL, *line.controls)):
        found, filled = _found(line, panel, control)
        if found is None or not found.comparison.n:
            continue
        at, mean, bar = start + number, 100 * found.comparison.mean, found.comparison.interval
        colour, shape = _look(control)
        drawn = True
        if not limits[0] <= mean <= limits[1]:
            low, told = mean < limits[0], points(mean / 100)
            axes.text(limits[not low], at, f"◂ {told}" if low else f"{told} ▸", color=colour, size=style.FONT_SMALL - 1,
                      va="center_baseline", ha="left" if low else "right")  # fmt: skip
            continue
        interval(axes, at, mean, 100 * bar.lower, 100 * bar.upper, colour, along="x")
        axes.plot(mean, at, marker=shape, color=colour, markerfacecolor=colour if filled else "white",
                  markersize=4.4 if control == NO_CONTROL else 3.4, markeredgewidth=0.8, zorder=5)  # fmt: skip
        if control == NO_CONTROL:
            shade = style.DIFFERENCE_COLOUR if panel == _DIFFERENCE else style.COLOUR[panel.lower()]
            height = 1 + len(line.controls)
            axes.barh(start - 0.5 + height / 2, mean, height, color=shade, alpha=0.1, linewidth=0, zorder=0)
    return drawn


def _found(line: Line, panel: str, control: str) -> tuple[Finding | None, bool]:
    """What is drawn of a control in a panel, and whether its mark is filled."""
    if panel == _DIFFERENCE:
        apart = line.apart.get(control)
        return (apart.difference, bool(apart.difference.claim)) if apart else (None, False)
    side = line.sides.get(panel.lower())
    if side is None:
        return None, False
    if control in (NO_CONTROL, ORIGIN):
        found = side.gain if control == NO_CONTROL else side.extra
        return found, bool(found and found.claim)
    return side.left.get(control), control in side.taken and bool(side.taken[control].loss.claim)


def _look(control: str) -> tuple[str, str]:
    """Colour and marker, the same in every figure."""
    if control == NO_CONTROL:
        return style.DIFFERENCE_COLOUR, "D"
    number = CONTROLS.index(control) - 1
    return style.METHOD_COLOURS[number], style.METHOD_MARKERS[number]


def _handles(controls: Sequence[str]) -> list[Artist]:
    def mark(text: str, control: str) -> Line2D:
        colour, shape = _look(control)
        return Line2D([], [], color=colour, marker=shape, markerfacecolor="white", linestyle="none", label=text)

    said = {ORIGIN: "origin − dense net"}
    marks: list[Artist] = [mark(_OWN, NO_CONTROL), *(mark(said.get(name, name), name) for name in controls)]
    return [*marks, Patch(color=style.DIFFERENCE_COLOUR, alpha=0.15, linewidth=0, label="0 to own runs")]


def _note(scene: Scene, lines: Sequence[Line], empty_rows: int) -> str:
    """What stands below the figure of all planned lines, of which so many have nothing yet to draw."""
    cells: dict[str, Cell] = {}
    for line in lines:
        for side in line.sides.values():
            there = (side.beside.cell, side.beside.baseline, side.beside.dense, *side.beside.controls.values())
            cells |= {cell.id: cell for cell in there if cell}
    counted = Scene(scene.whole)
    without = dict.fromkeys(side.beside.cell.method for line in lines for side in line.sides.values() if not side.gain)
    more = f" Without a baseline: {', '.join(without)}." if without else ""
    more += f" Left out, since nothing is in yet: {empty_rows} of {len(lines)} rows." if empty_rows else ""
    return counted.note(cells.values(), _NOTE.format(metric=scene.metric) + more)


def _finish(axes: Axes, places: Sequence[float], limits: tuple[float, float], drawn: bool) -> None:
    """The axes of a panel: zero, lines between methods, the first on top."""
    axes.set_ylim(places[-1], places[0])
    axes.axvline(0, color=style.GREY, linewidth=0.7, zorder=1)
    for place in places[1:-1]:
        axes.axhline(place, color=style.GREY, linewidth=0.3, zorder=1)
    axes.set_xlim(limits)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    if not drawn:
        empty(axes, "no finished runs")
