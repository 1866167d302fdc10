"""Figures about the filter basis (FB): what training makes of it, and what its variants change."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from ipbench.analysis import style
from ipbench.analysis.cells import PRIMARY, cell_statistics
from ipbench.analysis.comparisons import IMPOSSIBLE, MIXED, differences, pair_name
from ipbench.analysis.figures.layout import chunks, empty, label, log_axis, page, ticks
from ipbench.analysis.figures.marks import (
    DIFFERENCES,
    DOTS,
    difference_axis,
    difference_handles,
    interval,
    marker,
    sparsities,
    verdict_fill,
)
from ipbench.analysis.figures.scene import Scene, title
from ipbench.analysis.figures.spots import at_level
from ipbench.analysis.grid import Row
from ipbench.analysis.labels import labels
from ipbench.analysis.panels import Panel, ablations
from ipbench.analysis.plan import FigureFile
from ipbench.analysis.shares import share_name

#: Characters of a line of a variant's name in `ablation`; inches of one, of a variant, left and right of the panels.
_NAME, _CHARACTER, _VARIANT, _LEFT, _RIGHT = 30, 0.052, 0.2, 0.35, 0.3


def basis(scene: Scene, file: FigureFile) -> Figure:
    """Drift ||F - F0|| and condition number of the FBs after training, against sparsity: two blocks of panels."""
    panels = scene.panels(file)
    cells = [cell for panel in panels for cell in panel.side("ip")]
    rows = chunks(len(panels))
    text = (
        "After training. Point: mean over the FBs of a net and over seeds (geometric for the condition number), with"
        " its 95 % interval by Student's t over seeds, not test images; band: from the smallest to the largest FB, each"
        " averaged over seeds."
    )
    names = [panel.title for panel in panels]
    sheet = page([*rows, *rows], [*names, *names], scene.note(cells, text), blocks=[0] * len(rows) + [1] * len(rows))
    anything = []
    for number, (column, ruler) in enumerate((("basis_drift", _PLAIN), ("basis_condition", _LOGARITHM))):
        found = [
            _basis_panel(axes, scene, panel, column, ruler)
            for axes, panel in zip(sheet.block(number), panels, strict=False)
        ]
        anything.append(any(found))
    sparsities(scene, sheet, panels, any(anything))
    drift, condition = sheet.block(0)[0], sheet.block(1)[0]
    drift.set_ylim(0, drift.get_ylim()[1])
    log_axis(sheet, condition, (0.9, max(10.0, condition.get_ylim()[1])) if anything[1] else (1, 10))
    ticks(sheet, any(anything))
    handles: list[Artist] = [
        marker("mean over FBs", style.COLOUR["ip"], style.MARKER["ip"], style.COLOUR["ip"]),
        Patch(color=style.COLOUR["ip"], alpha=0.2, linewidth=0, label="range over FBs"),
    ]
    label(sheet, title(file), share_name(cells), ["drift ‖F − F₀‖", "condition number"], handles)
    return sheet.figure


#: How numbers are averaged: as they are, or their logarithms; (there, back).
Ruler = tuple[Callable[[float], float], Callable[[float], float]]
_PLAIN: Ruler = (float, float)
_LOGARITHM: Ruler = (math.log, math.exp)


def _basis_panel(axes: Axes, scene: Scene, panel: Panel, column: str, ruler: Ruler) -> bool:
    """Draw one number of the FBs of one panel; says whether there was anything to draw."""
    there, back = ruler
    colour = style.COLOUR["ip"]
    places, means, lows, highs = [], [], [], []
    for cell in scene.side(panel, "ip"):
        by_seed = of_bases(scene.done.get(cell.id, []), column)
        # A condition number is at least 1; whatever is not positive has no logarithm.
        known = {
            seed: {name: there(value) for name, value in values.items() if value > 0 or ruler is _PLAIN}
            for seed, values in by_seed.items()
        }
        nets = {seed: float(np.mean(list(values.values()))) for seed, values in known.items() if values}
        if not nets:
            continue
        found = cell_statistics(nets)
        names = dict.fromkeys(name for values in known.values() for name in values)
        single = [np.mean([values[name] for values in known.values() if name in values]) for name in names]
        x = scene.position(cell)
        places.append(x)
        means.append(back(found.mean))
        lows.append(back(float(min(single))))
        highs.append(back(float(max(single))))
        interval(axes, x, back(found.mean), back(found.lower), back(found.upper), colour)
    if not places:
        done = any(scene.done.get(cell.id) for cell in panel.side("ip"))
        empty(axes, "no filter basis" if done else scene.nothing(panel.side("ip")))
        return False
    if len(places) == 1:  # a band needs two places: of one, it is a bar
        axes.vlines(places, lows, highs, color=colour, alpha=0.18, linewidth=5)
    axes.fill_between(places, lows, highs, color=colour, alpha=0.18, linewidth=0)
    axes.plot(places, means, color=colour, marker=style.MARKER["ip"], markeredgecolor="white", markeredgewidth=0.4)
    return True


def of_bases(runs: Sequence[Mapping[str, Any]], column: str) -> dict[int, dict[str, float]]:
    """{seed: {FB: value}} of a column that holds one number per FB as JSON; what is not finite is left out."""
    found = {}
    for run in runs:
        values = json.loads(run[column]) if isinstance(run[column], str) else {}
        found[int(run["seed"])] = {
            name: float(value)
            for name, value in values.items()
            if isinstance(value, int | float) and math.isfinite(value)
        }
    return found


def ablation(scene: Scene, file: FigureFile) -> Figure:
    """IP - SP for every FB variant of an SP cell: variants on the y-axis, a panel per method and sparsity."""
    names = labels(scene.collection.grid)
    groups = ablations(scene.collection.grid, file.dataset, file.model)
    # Every method (and variant of it that is no FB's) starts a row.
    methods: dict[str, list[list[Row]]] = {}
    for group in groups:
        variant = names.variant(group[0].sp or group[0].any)
        methods.setdefault(", ".join(filter(None, (group[0].any.method, variant))), []).append(group)
    spots = [(name, group) for name, same in methods.items() for group in same]
    rows = [number for same in methods.values() for number in chunks(len(same))]
    variants = list(dict.fromkeys(names.row(row, "basis") for _, group in spots for row in group))
    written = {variant: textwrap.fill(variant, _NAME) for variant in variants}
    longest = max(len(line) for text in written.values() for line in text.split("\n"))
    pairs = [row for _, group in spots for row in group]
    cells = [cell for row in pairs for cell in (row.sp, row.ip) if cell]
    text = f"{DIFFERENCES} Right: number of pairs. All share one SP side: the test assumes symmetry."
    sheet = page(
        rows,
        [at_level(name, group[0].any) for name, group in spots],
        scene.note(cells, text, pairs),
        height=0.1 + len(variants) * max(_VARIANT, 0.11 * max(text.count("\n") + 1 for text in written.values())),
        left=_LEFT + _CHARACTER * longest,
        gap=_RIGHT,
        right=_RIGHT,
    )
    found = [
        _ablation_panel(axes, scene, group, {variant: at for at, variant in enumerate(variants)}, names.row)
        for axes, (_, group) in zip(sheet.panels, spots, strict=True)
    ]
    first = sheet.panels[0]
    first.set_ylim(len(variants) - 0.4, -0.6)  # the first variant on top
    for axes in sheet.panels:
        axes.set_yticks(range(len(variants)), [written[variant] for variant in variants])
    first.margins(x=0.08)
    if not any(found):
        first.set_xlim(-1, 1)
    first.xaxis.set_major_locator(MaxNLocator(5))
    more = difference_axis(sheet, "x", scene.collection.grid.margin)
    ticks(sheet)
    x = f"IP − SP (points{f'; {more}' if more else ''})"
    label(sheet, title(file), x, "filter basis of IP", difference_handles(scene.collection.grid.margin))
    return sheet.figure


def _ablation_panel(
    axes: Axes, scene: Scene, group: Sequence[Row], places: Mapping[str, int], name: Callable[[Row, str], str]
) -> bool:
    """Draw one panel of `ablation`; says whether there was anything to draw."""
    colour = style.DIFFERENCE_COLOUR
    drawn = False
    for row in group:
        found = scene.pairs[pair_name(row)]
        y, n = places[name(row, "basis")], found.comparison.n
        place: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "size": 5.8, "color": style.GREY}
        axes.text(1.02, y, f"n = {n}", va="center", **place)
        if not n:
            words = {IMPOSSIBLE: "impossible", MIXED: f"not formed: mixed {found.mixed}"}
            word = words.get(found.state, "no finished pairs")
            box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0}
            axes.text(0.5, y, word, ha="center", va="center", bbox=box, **place)
            continue
        seeds = differences(row, scene.values(PRIMARY)).values()
        axes.scatter([100 * value for value in seeds], [y] * n, color=colour, **DOTS)
        mean, bar = 100 * found.comparison.mean, found.comparison.interval
        interval(axes, y, mean, 100 * bar.lower, 100 * bar.upper, colour, along="x")
        axes.plot(mean, y, "D", color=colour, markerfacecolor=verdict_fill(found))
        drawn = True
    return drawn
