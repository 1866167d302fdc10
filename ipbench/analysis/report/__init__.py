"""One page for an experiment, and one over several: interactive, complete in one file, the result first.

`contents` -> what is told, as plain values; `charts` -> Vega-Lite by Altair; `page` -> HTML. Nothing in a page depends
on anything but the records, and where the page lies.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ipbench.analysis.collect import RUNS, load_both
from ipbench.errors import BadInput
from ipbench.store import write_text

#: Of the page of an experiment, and of that over several.
REPORT, INDEX = "report.html", "index.html"


def write_report(results: Path, to: Path | None = None) -> Path:
    """Write the page of `results/runs.parquet`; returns the file.

    Args:
        results: a folder with `runs.parquet`.
        to: the file; `results/report.html` if left out.

    Raises:
        BadInput: `runs.parquet` is missing, damaged or of another grid, or a package is missing.
    """
    _packages()
    from ipbench.analysis.figures.scene import Scene
    from ipbench.analysis.report import contents, page

    path = to or results / REPORT
    whole, own = load_both(results)
    scene = Scene(own, whole)
    write_text(path, page.whole(contents.of_experiment(scene, (results / "grid.json").exists()), path))
    return path


def write_index(folder: Path, to: Path | None = None) -> list[Path]:
    """Write the pages of all experiments in a folder, and one over them; returns the files, that one last.

    Args:
        folder: one that holds folders with `runs.parquet`.
        to: the file of the page over all; `folder/index.html` if left out.

    Raises:
        BadInput: no folder in it holds results, one is as of `write_report`, or a package is missing.
    """
    _packages()
    from ipbench.analysis.figures.scene import Scene
    from ipbench.analysis.report import contents, page

    found = sorted(path.parent for path in folder.glob(f"*/{RUNS}"))
    if not found:
        raise BadInput(
            f"{folder}: no folder in it holds {RUNS}; name a folder of experiments, such as results/reference"
        )
    path = to or folder / INDEX
    both = {one.name: load_both(one) for one in found}
    scenes = {name: Scene(own, whole) for name, (whole, own) in both.items()}
    paths = []
    for one in found:
        paths.append(one / REPORT)
        write_text(
            paths[-1], page.whole(contents.of_experiment(scenes[one.name], (one / "grid.json").exists()), paths[-1])
        )
    write_text(path, page.whole(contents.of_several(scenes), path))
    return [*paths, path]


def _packages() -> None:
    """Whether what makes charts is installed."""
    for module, package in (("altair", "altair"), ("vl_convert", "vl-convert-python")):
        if importlib.util.find_spec(module) is None:
            raise BadInput(f"reports need the package {package}: pip install 'ipbench[report]'")
