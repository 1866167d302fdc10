"""Figures over epochs, a panel per method and sparsity: the training loss, the norm of the gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ipbench.analysis import style
from ipbench.analysis.figures.layout import empty, label, log_axis, page, ticks
from ipbench.analysis.figures.scene import Scene, title
from ipbench.analysis.figures.spots import DASHES, cells_of, handles, sides, spots_of, titles
from ipbench.analysis.plan import FigureFile

#: How far below the smallest mean of an epoch a logarithmic axis goes on with the values of single seeds.
_DEEPEST = 1 / 3


def training_loss(scene: Scene, file: FigureFile) -> Figure:
    """Mean training loss of each epoch: the mean over seeds as a line, their range as a band; a logarithmic axis."""
    return _curves(scene, file, "curves_train_loss", "training loss", "")


def gradient_norm(scene: Scene, file: FigureFile) -> Figure:
    """Norm of the gradient in the trained coefficients, at the first batch of each epoch; drawn as `training_loss`."""
    text = " The gradient is that of the trained coefficients, at the first batch of each epoch."
    return _curves(scene, file, "curves_gradient_norm", "gradient norm", text)


def _curves(scene: Scene, file: FigureFile, name: str, y: str, more: str) -> Figure:
    """Curves of one name in all panels of a figure."""
    spots, rows, left_out = spots_of(scene, file)
    found = {cell.id: by_epoch(scene.done.get(cell.id, []), name) for cell in cells_of(spots, file)}
    floor = _floor([values for _, values in found.values()])
    cut = any((values < floor).any() for _, values in found.values())
    below = " What is zero or further below stands at the lower end." if cut else ""
    text = f"Line: mean over seeds; band: their range.{more}{below}{left_out}"
    sheet = page(rows, titles(spots), scene.note(cells_of(spots, file), text))
    anything = False
    for axes, (_, row) in zip(sheet.panels, spots, strict=True):
        drawn = False
        for space, cell in sides(row, file):
            epochs, curves = found[cell.id]
            if not curves.size:
                continue
            low, high, mean = (np.maximum(values, floor) for values in (curves.min(0), curves.max(0), curves.mean(0)))
            marker = style.MARKER[space] if epochs.size == 1 else ""  # one epoch is a point
            axes.fill_between(epochs, low, high, color=style.COLOUR[space], alpha=0.18, linewidth=0)
            axes.plot(epochs, mean, color=style.COLOUR[space], linestyle=DASHES[space], marker=marker)
            drawn = True
        if not drawn:
            empty(axes, scene.nothing(cell for _, cell in sides(row, file)))
        anything = anything or drawn
    sheet.panels[0].xaxis.set_major_locator(MaxNLocator(5, integer=True))
    log_axis(sheet, sheet.panels[0], None if anything else (0.1, 1))
    ticks(sheet, anything)
    label(sheet, title(file), "epoch", y, handles(file, markers=False))
    return sheet.figure


def by_epoch(runs: Sequence[dict[str, Any]], name: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The curves of one cell: the epochs that every seed with a curve has a number for, and the numbers.

    A training may begin later than at epoch 1 (after rewinding) or go on after it has ended (fine-tuning): a record
    that tells its epochs (`curves.epoch`) is drawn at them. Otherwise epochs are counted from 1; a gap is an epoch
    without a number.

    Returns:
        Epochs, shape (epochs,), and values, shape (seeds, epochs).
    """
    curves = []
    for run in runs:
        values, places = run[name], run.get("curves_epoch")
        if not isinstance(values, list):
            continue
        if not isinstance(places, list) or len(places) != len(values) or None in places:
            places = range(1, len(values) + 1)
        known = zip(places, values, strict=True)
        curve = {int(place): value for place, value in known if value is not None and math.isfinite(value)}
        curves += [curve] if curve else []
    epochs = sorted(set.intersection(*map(set, curves))) if curves else []
    values = [[curve[epoch] for epoch in epochs] for curve in curves if epochs]
    return np.array(epochs, dtype=np.int64), np.array(values, dtype=np.float64)


def _floor(curves: Sequence[NDArray[np.float64]]) -> float:
    """Where values are drawn that have no place on a logarithmic axis: zeros, and single seeds far below all means."""
    seeds = [float(values[values > 0].min()) for values in curves if (values > 0).any()]
    means = [
        float(mean[mean > 0].min()) for mean in (values.mean(0) for values in curves if values.size) if (mean > 0).any()
    ]
    return max(min(seeds) / 1.5, min(means) * _DEEPEST) if seeds else 1e-8
