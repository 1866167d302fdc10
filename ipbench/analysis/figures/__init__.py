"""The figures of an experiment, from its `runs.parquet`; which there are is told by `ipbench.analysis.plan`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from matplotlib.figure import Figure

from ipbench.analysis import style
from ipbench.analysis.collect import Collection, load_both
from ipbench.analysis.figures import against_cost
from ipbench.analysis.figures.against_depth import density
from ipbench.analysis.figures.against_option import tradeoff
from ipbench.analysis.figures.against_sparsity import accuracy, difference, generalisation, spatial_zeros
from ipbench.analysis.figures.of_basis import ablation, basis
from ipbench.analysis.figures.of_channels import channels
from ipbench.analysis.figures.of_comparisons import forest
from ipbench.analysis.figures.of_controls import survival
from ipbench.analysis.figures.of_cost import cost
from ipbench.analysis.figures.of_methods import methods
from ipbench.analysis.figures.over_epochs import gradient_norm, training_loss
from ipbench.analysis.figures.scene import Scene
from ipbench.analysis.figures.twins import twins
from ipbench.analysis.plan import ALL, BOTH, FigureFile, plan

_DRAWERS: dict[str, Callable[[Scene, FigureFile], Figure]] = {
    "forest": forest,
    "accuracy": accuracy,
    "methods": methods,
    "twins": twins,
    "difference": difference,
    "tradeoff": tradeoff,
    "ablation": ablation,
    "training-loss": training_loss,
    "gradient-norm": gradient_norm,
    "generalisation": generalisation,
    "density": density,
    "spatial-zeros": spatial_zeros,
    "basis": basis,
    "cost": cost,
    "macs": against_cost.macs,
    "latency": against_cost.time,
    "channels": channels,
    "survival": survival,
}


def write_figures(results: Path, overview: bool = False) -> list[Path]:
    """Draw every figure of `results/runs.parquet` under `results/figures/`; returns the files, as `plan.plan`.

    Args:
        results: a folder with `runs.parquet`.
        overview: leave out those of single methods and single spaces.
    """
    files = plan(load_both(results)[0].grid)
    return draw(results, [file for file in files if not overview or (file.method, file.space) == (ALL, BOTH)])


def draw(results: Path, files: Iterable[FigureFile] | None = None) -> list[Path]:
    """Draw the given figure files, by default all.

    Args:
        results: a folder with `runs.parquet`.
        files: some of `plan.plan(grid)`.

    Returns:
        The files, in the order asked for.

    Raises:
        BadInput: `runs.parquet` is missing, damaged or of another grid.
    """
    whole, _ = load_both(results)
    wanted = list(plan(whole.grid) if files is None else files)
    pictures: dict[str, list[FigureFile]] = {}
    for file in wanted:
        pictures.setdefault(file.stem, []).append(file)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes = min(cores, len(pictures) // _PICTURES)
    if processes < 2:
        _draw(whole, results, list(pictures.values()))
    else:
        shares = [list(pictures.values())[start::processes] for start in range(processes)]
        # Fresh processes, not forks: libraries that have started threads do not survive those.
        with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
            list(pool.map(_draw, [whole] * processes, [results] * processes, shares))
    return [results / file.path for file in wanted]


#: A process that draws costs seconds to start: it must have so many pictures to draw.
_PICTURES = 15


def _draw(whole: Collection, results: Path, pictures: list[list[FigureFile]]) -> None:
    """Draw pictures, each into all its files."""
    scene = Scene(whole.without_controls(), whole)
    with style.styled():
        for same in pictures:
            figure = _DRAWERS[same[0].figure](scene, same[0])
            for file in same:
                style.save(figure, results / file.path)
