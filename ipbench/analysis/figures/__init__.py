"""The figures of an experiment, from its `runs.parquet`; which there are is told by `ipbench.analysis.plan`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from matplotlib.figure import Figure

from ipbench.analysis import style
from ipbench.analysis.collect import load
from ipbench.analysis.figures.against_depth import density
from ipbench.analysis.figures.against_sparsity import accuracy, difference, generalisation, spatial_zeros
from ipbench.analysis.figures.of_basis import ablation, basis
from ipbench.analysis.figures.of_cost import cost
from ipbench.analysis.figures.over_epochs import gradient_norm, training_loss
from ipbench.analysis.figures.scene import Scene
from ipbench.analysis.plan import FigureFile, plan

_DRAWERS: dict[str, Callable[[Scene, FigureFile], Figure]] = {
    "accuracy": accuracy,
    "difference": difference,
    "ablation": ablation,
    "training-loss": training_loss,
    "gradient-norm": gradient_norm,
    "generalisation": generalisation,
    "density": density,
    "spatial-zeros": spatial_zeros,
    "basis": basis,
    "cost": cost,
}


def write_figures(results: Path) -> list[Path]:
    """Draw every figure of `results/runs.parquet` under `results/figures/`; returns the files, as `plan.plan`."""
    return draw(results)


def draw(results: Path, files: Iterable[FigureFile] | None = None) -> list[Path]:
    """Draw the given figure files, by default all.

    Args:
        results: a folder with `runs.parquet`.
        files: some of `plan.plan(grid)`.

    Returns:
        The files, in the order asked for.

    Raises:
        BadInput: `runs.parquet` is missing, damaged or of another grid, or a test would mix modes.
    """
    collection = load(results)
    scene = Scene(collection)
    wanted = list(plan(collection.grid) if files is None else files)
    pictures: dict[str, list[FigureFile]] = {}
    for file in wanted:
        pictures.setdefault(file.stem, []).append(file)
    with style.styled():
        for same in pictures.values():
            figure = _DRAWERS[same[0].figure](scene, same[0])
            for file in same:
                style.save(figure, results / file.path)
    return [results / file.path for file in wanted]
