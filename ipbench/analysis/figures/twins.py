"""Twin panels: the same runs against the coefficients that are kept, and against the multiply-accumulates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ipbench.analysis import style
from ipbench.analysis.cells import PRIMARY
from ipbench.analysis.figures.curves import Curve, curve, handles, looks
from ipbench.analysis.figures.edge import Point, edge_note, living_axis
from ipbench.analysis.figures.layout import empty, label, page, ticks
from ipbench.analysis.figures.marks import DOTS, MEANS, interval, legend_columns, reference
from ipbench.analysis.figures.scene import Scene, spaces, title
from ipbench.analysis.grid import Cell
from ipbench.analysis.kept import shares
from ipbench.analysis.plan import FigureFile
from ipbench.analysis.twins import EFFECTIVE, MACS, PARAMETERS, spaces_of, twin_panels

#: Inches of a panel's height.
_HEIGHT = 2.1
#: Powers of ten up to which an axis has ticks between them.
_FEW = 2.8
_TEXT = (
    f"{MEANS} Each method is drawn at the mean share that its runs have kept, of the dense net's numbers. Coefficients:"
    " with the filter bases. MACs: of sparse layers; IP: in two stages, the filter basis first. Band: the dense net."
)


def twins(scene: Scene, file: FigureFile) -> Figure:
    """Test accuracy against the share that is kept: a column per measure, a row per space, a line per method."""
    everything = scene.panels(file)
    told = {panel.title for panel in twin_panels(scene.collection.grid, file.dataset, file.model)}
    curves = [found for found in zip(everything, looks(everything), strict=True) if found[0].title in told]
    shown = [space for space in spaces(file) if space in spaces_of([panel for panel, _ in curves])]
    cells = [cell for panel, _ in curves for space in shown for cell in panel.side(space)]
    dense = {
        space: {panel.dense[space].id: panel.dense[space] for panel, _ in curves if space in panel.dense}
        for space in shown
    }
    bands = [cell for found in dense.values() for cell in found.values()]
    kept = shares(scene.runs)
    measures = [PARAMETERS, MACS, *([EFFECTIVE] if any(cell.id in kept.get(EFFECTIVE, {}) for cell in cells) else [])]
    names = [panel.title for panel, _ in curves] + [f"dense ({style.LABEL[space]})" for space in shown]
    columns = legend_columns(names)
    text = _TEXT + (" Effective: on a path from the input to the output." if EFFECTIVE in measures else "")
    if any(scene.counts[cell.id].lost for cell in cells):
        text += " Dots: single seeds, where a run is lost."
    sheet = page(
        [len(measures)] * len(shown),
        [f"{style.LABEL[space]}, {measure} kept" for space, measure in product(shown, measures)],
        scene.note([*cells, *bands], text + edge_note(scene, cells, bands)),
        height=_HEIGHT,
        legend_rows=math.ceil(len(names) / columns),
        blocks=list(range(len(shown))),
    )
    references: dict[str, Artist] = {}
    for number, space in enumerate(shown):
        drawn: list[Point] = []
        for axes, measure in zip(sheet.block(number), measures, strict=True):
            for cell in dense[space]:
                reference(axes, scene.cells(PRIMARY)[cell], space, references)
            found = [point for line in curves for point in _line(axes, scene, line, space, kept[measure])]
            if not found:
                empty(axes, scene.nothing(cell for panel, _ in curves for cell in panel.side(space)))
            drawn += found
        living_axis(scene, drawn, list(dense[space].values()))
    _share_axis(sheet.panels, [kept[m][cell.id] for m in measures for cell in cells if cell.id in kept[m]])
    ticks(sheet, bool(cells))
    y = [f"test {scene.metric} (%)"] * len(shown)
    label(sheet, title(file), "kept (% of the dense net)", y, [*handles(curves), *references.values()], columns)
    return sheet.figure


def _line(axes: Axes, scene: Scene, line: Curve, space: str, kept: Mapping[str, float]) -> list[Point]:
    """Draw one method of one space, by growing share; gives what was drawn."""
    panel, look = line
    cells: list[Cell] = [cell for cell in panel.side(space) if kept.get(cell.id, 0) > 0]
    cells = sorted((cell for cell in cells if scene.cells(PRIMARY)[cell.id].n), key=lambda cell: kept[cell.id])
    for cell in cells:
        found, x = scene.cells(PRIMARY)[cell.id], place(kept[cell.id])
        interval(axes, x, 100 * found.mean, 100 * found.lower, 100 * found.upper, look.colour)
        if scene.counts[cell.id].lost:  # no interval says what happened there
            values = scene.values(PRIMARY)[cell.id].values()
            axes.scatter([x] * found.n, [100 * value for value in values], color=look.colour, **DOTS)
    means = [100 * scene.cells(PRIMARY)[cell.id].mean for cell in cells]
    curve(axes, [place(kept[cell.id]) for cell in cells], means, look)
    return [Point(axes, place(kept[cell.id]), cell.id, look.colour) for cell in cells]


def place(share: float) -> float:
    """Where a share stands: on a logarithmic axis, sparse nets on the right, as in the other figures."""
    return -math.log10(share) + 0.0  # + 0.0: no minus zero for the dense net


def _share_axis(panels: Sequence[Axes], found: Sequence[float]) -> None:
    """Ticks in per cent at 1, 2, 5 times the powers of ten; at these powers alone where they are many."""
    spots = [place(share) for share in found if share > 0] or [0.0, 1.0]
    margin = 0.06 * (max(spots) - min(spots)) or 0.3
    low, high = min(spots) - margin, max(spots) + margin
    factors = (1, 2, 5) if high - low < _FEW else (1,)
    values = [factor * 10.0**power for power in range(-6, 4) for factor in factors]
    ticked = {place(value / 100): f"{value:g}" for value in values if low <= place(value / 100) <= high}
    for axes in panels:
        axes.set_xlim(low, high)
        axes.set_xticks(list(ticked), list(ticked.values()))
        axes.margins(y=0.08)
