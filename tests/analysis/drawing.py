"""Draws single figures and reads off what stands in them."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import same_color
from matplotlib.figure import Figure

from ipbench.analysis import style, write_runs
from ipbench.analysis.collect import load_both
from ipbench.analysis.figures import _DRAWERS
from ipbench.analysis.figures.scene import Scene
from ipbench.analysis.plan import plan


def figure(results: Path, name: str, method: str = "all") -> Figure:
    """The planned figure `name` over both spaces, of the records as they are now; a warning is an error."""
    write_runs(results)
    whole, own = load_both(results)
    (file,) = [
        file
        for file in plan(whole.grid)
        if (file.figure, file.method, file.space, file.format) == (name, method, "both", "svg")
    ]
    with style.styled(), warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = _DRAWERS[name](Scene(own, whole), file)
        drawn.canvas.draw()
    return drawn


def panels(drawn: Figure, title: str) -> list[Axes]:
    """The panels of that title, from the top."""
    return [axes for axes in drawn.axes if axes.get_title().replace("\N{NO-BREAK SPACE}", " ") == title]


def points(axes: Axes, colour: str, shape: str = "") -> tuple[list[float], list[float]]:
    """Where the line of that colour (and marker) goes."""
    (line,) = [
        line
        for line in axes.get_lines()
        if same_color(line.get_color(), colour) and len(line.get_xdata()) and (not shape or line.get_marker() == shape)
        if line.get_linestyle() != "None"
    ]
    return list(np.asarray(line.get_xdata(), dtype=float)), list(np.asarray(line.get_ydata(), dtype=float))


def texts(drawn: Figure | Axes) -> str:
    """All that is written on a figure or in a panel."""
    return "\n".join(text.get_text() for text in drawn.texts).replace("\n", " ")
