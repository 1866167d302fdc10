"""The figure of what IP costs against SP: time, parameters and multiply-accumulates, as ratios paired by seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ipbench.analysis import style
from ipbench.analysis.comparisons import compare
from ipbench.analysis.figures.curves import curve, handles, looks
from ipbench.analysis.figures.layout import empty, label, log_axis, page
from ipbench.analysis.figures.marks import interval, legend_columns, sparsities
from ipbench.analysis.figures.scene import Scene, title
from ipbench.analysis.grid import Cell, Row
from ipbench.analysis.panels import Panel
from ipbench.analysis.plan import FigureFile
from ipbench.analysis.setting import hardware
from ipbench.analysis.shares import share_name

WALL, CPU = "cost_wall_seconds", "cost_cpu_seconds"

#: From this ratio between largest and smallest on, an axis is logarithmic.
_WIDE = 5
#: Inches: a panel's height, and between panels.
_HEIGHT, _GAP = 2.0, 0.42


@dataclass(frozen=True)
class Quantity:
    """One panel: a column of the IP runs over one of the SP runs."""

    title: str
    ip: str
    sp: str


def cost(scene: Scene, file: FigureFile) -> Figure:
    """Time, parameters and MACs of IP over those of SP against sparsity, a line per method."""
    panels = [panel for panel in scene.panels(file) if any(row.compared for row in panel.rows)]
    rows = [row for panel in panels for row in panel.rows if row.compared]
    cells = [cell for row in rows for cell in (row.sp, row.ip) if cell]
    time, what = clock(scene, cells)
    quantities = (
        Quantity(f"{what} of a run", time, time),
        Quantity("parameters", "parameters", "parameters"),
        Quantity("MACs, IP in two stages", "macs_sparse_two_stage", "macs_sparse"),
    )
    text = (
        "IP / SP paired by seed: geometric mean with 95 % interval by inversion of the sign-flip test over seeds."
        " Parameters: all stored trained numbers, kept"
        " coefficients, FBs and all that is never pruned. MACs per image: IP in two stages (basis first), SP convolved"
        f" directly, zeros skipped in both. {hardware(scene.collection)}"
    )
    if lost := sum(_lost(scene, row, quantities) for panel in panels for row in panel.rows):
        text += f" {lost} pair{'' if lost == 1 else 's'} with a number of zero left out."
    columns = legend_columns([panel.title for panel in panels])
    sheet = page(
        [len(quantities)],
        [quantity.title for quantity in quantities],
        scene.note(cells, text, rows),
        own_y=True,
        height=_HEIGHT,
        gap=_GAP,
        legend_rows=math.ceil(len(panels) / columns),
    )
    drawn = [_quantity(axes, scene, panels, quantity) for axes, quantity in zip(sheet.panels, quantities, strict=True)]
    sparsities(scene, sheet, panels, any(drawn))
    for axes, found in zip(sheet.panels, drawn, strict=True):
        if not found:
            empty(axes, scene.nothing(cells))
        lowest, highest = axes.dataLim.y0, axes.dataLim.y1
        low, high = (min(lowest, 1), max(highest, 1)) if found else (1, 1)  # 1 is in sight
        axes.axhline(1, color=style.GREY, linewidth=0.7, zorder=1)
        if high / low > _WIDE:
            log_axis(sheet, axes, (low / 1.15, high * 1.15))
        else:
            room = max(0.08 * (high - low), 0.05)
            axes.set_ylim(low - room, high + room)
            axes.yaxis.set_major_locator(MaxNLocator(6))
    legend = handles(zip(panels, looks(panels), strict=True))
    label(sheet, title(file), share_name(cells), "IP / SP", legend, legend_columns=columns)
    return sheet.figure


def clock(scene: Scene, cells: Sequence[Cell]) -> tuple[str, str]:
    """The column that tells the time of a run, and its name.

    CPU time, which other work on the machine does not stretch, where every run of `cells` has it and trained on a CPU;
    else wall time.
    """
    runs = scene.collection.runs
    ours = runs[(runs["status"] == "done") & runs["cell"].isin([cell.id for cell in cells])]
    if CPU in ours and len(ours) and ours[CPU].notna().all() and (ours["provenance_device"] == "cpu").all():
        return CPU, "CPU time"
    return WALL, "wall time"


def ratios(row: Row, ip: Mapping[str, Mapping[int, float]], sp: Mapping[str, Mapping[int, float]]) -> dict[int, float]:
    """IP / SP by seed, of the seeds for which both sides have a positive number."""
    if row.sp is None or row.ip is None:
        return {}
    above, below = ip.get(row.ip.id, {}), sp.get(row.sp.id, {})
    both = sorted(above.keys() & below.keys())
    return {seed: above[seed] / below[seed] for seed in both if above[seed] > 0 and below[seed] > 0}


def _lost(scene: Scene, row: Row, quantities: Sequence[Quantity]) -> int:
    """How many seeds of a comparison have a quantity on both sides, but no ratio of it (an empty net)."""
    lost: set[int] = set()
    for quantity in quantities:
        ip, sp = scene.values(quantity.ip), scene.values(quantity.sp)
        if row.sp is not None and row.ip is not None:
            lost |= (ip.get(row.ip.id, {}).keys() & sp.get(row.sp.id, {}).keys()) - ratios(row, ip, sp).keys()
    return len(lost)


def _quantity(axes: Axes, scene: Scene, panels: Sequence[Panel], quantity: Quantity) -> bool:
    """Draw one panel; says whether there was anything to draw."""
    anything = False
    ip, sp = scene.values(quantity.ip), scene.values(quantity.sp)
    span = [place for panel in panels for place in scene.places(panel)] or [0.0]
    step = 0.06 * (max(span) - min(span) or 1.0) / max(1, len(panels) - 1)
    for number, (panel, look) in enumerate(zip(panels, looks(panels), strict=True)):
        places, means = [], []
        for row in panel.rows:
            logarithms = {seed: math.log(ratio) for seed, ratio in ratios(row, ip, sp).items()}
            place = scene.place(row)
            if not logarithms or scene.mixed(row) or math.isnan(place):
                continue
            found = compare(logarithms)
            lower, upper = math.exp(found.interval.lower), math.exp(found.interval.upper)
            # Beside each other, so that intervals do not cover each other.
            x = place + step * (number - (len(panels) - 1) / 2)
            interval(axes, x, math.exp(found.mean), lower, upper, look.colour)
            places.append(x)
            means.append(math.exp(found.mean))
        curve(axes, places, means, look)
        anything = anything or bool(places)
    return anything
