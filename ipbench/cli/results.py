"""The commands on results: `ipbench status`, `collect`, `tables`, `figures`, `summary`, `survive`, `compare`,
`verify`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ipbench import methods, output
from ipbench.cli.arguments import path, whole
from ipbench.errors import BadInput

app = typer.Typer()

#: Of records that cannot be used, as many are named when they are collected.
_MOST_LEFT_OUT = 5

Results = Annotated[
    Path, typer.Argument(metavar="RESULTS", help="An experiment's folder, such as results/quickstart.", parser=path)
]
SeveralResults = Annotated[
    list[Path], typer.Argument(metavar="RESULTS...", help="Folders such as results/quickstart.", parser=path)
]


@app.command()
def status(
    experiments: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[EXPERIMENT]...",
            help="Folders such as results/quickstart, or files such as config/quickstart.yaml; left out: all in "
            "results.",
            parser=path,
        ),
    ] = None,
) -> None:
    """Tell how far experiments are: runs done, begun, failed, diverged, and the time that is left."""
    from ipbench.analysis import status as text

    found = experiments or sorted(file.parent for file in Path("results").glob("*/grid.json"))
    if not found:
        by_hand = sorted(folder.parent for folder in Path("results").glob("*/runs"))
        hint = f"{by_hand[0]} has runs by hand, see ipbench summary {by_hand[0]}" if by_hand else "name an experiment"
        raise BadInput(f"results: no folder in it is an experiment's, with a grid.json; {hint}")
    for one in found:
        if one.suffix in (".yaml", ".yml"):
            from ipbench.planning.experiment import Experiment

            experiment = Experiment.load(one)
            output.say(text(Path("results") / experiment.name, experiment.grid()))
        else:
            output.say(text(_folder(one)))


@app.command()
def collect(
    results: Results,
    complete: Annotated[bool, typer.Option("--complete", help="Refuse if a planned run has no usable record.")] = False,
) -> None:
    """Gather the records of an experiment into runs.parquet; those that cannot be used are named, and left out."""
    from ipbench.analysis import unreadable, write_runs

    output.progress(write_runs(_folder(results), complete=complete))
    left_out = unreadable(results)
    for line in left_out[:_MOST_LEFT_OUT]:
        output.complain(f"left out: {results}/{line}")
    if more := len(left_out[_MOST_LEFT_OUT:]):
        output.complain(f"left out: {more} more records; `ipbench status {results}` lists all")


@app.command()
def tables(results: Results) -> None:
    """Write the tables of an experiment, of all the runs there are so far (CSV, Markdown, LaTeX)."""
    from ipbench.analysis import write_tables

    _up_to_date(results)
    output.progress("\n".join(map(str, write_tables(results))))


@app.command()
def figures(
    results: SeveralResults,
    overview: Annotated[bool, typer.Option("--overview", help="Only those over all methods and both spaces.")] = False,
    across: Annotated[
        Path | None,
        typer.Option(help="Draw one figure over all RESULTS instead: IP - SP, as PATH.svg and PATH.pdf.", parser=path),
    ] = None,
) -> None:
    """Draw the figures of experiments, of all the runs there are so far (SVG, PDF)."""
    from ipbench.analysis import write_across, write_figures

    if overview and across:
        raise BadInput("--across draws one figure, of which there is no --overview; leave one of them out")
    for folder in results:
        _up_to_date(folder)
    if across:
        if across.suffix in (".svg", ".pdf"):
            raise BadInput(f"--across: {across}: leave out {across.suffix}, both formats are written")
        output.progress("\n".join(map(str, write_across(results, across))))
        return
    for folder in results:
        output.progress("\n".join(map(str, write_figures(folder, overview))))


@app.command()
def report(
    results: Annotated[
        Path | None, typer.Argument(metavar="[RESULTS]", help="An experiment's folder.", parser=path)
    ] = None,
    index: Annotated[
        Path | None,
        typer.Option(help="A folder of experiments: write the page of each, and index.html over all.", parser=path),
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="The file; report.html or index.html in the folder if left out.", parser=path)
    ] = None,
) -> None:
    """Write one page with the result, interactive and complete in one file: charts, tables, how they were made."""
    from ipbench.analysis import write_index, write_report

    if (results is None) == (index is None):
        raise BadInput("report: name one experiment's folder, or --index and a folder of experiments")
    if to is not None and to.is_dir():
        raise BadInput(f"--to: {to} is a folder; name a file")
    if index is not None:
        output.progress("\n".join(map(str, write_index(index, to))))
    elif results is not None:
        _up_to_date(results)
        output.progress(write_report(results, to))


@app.command()
def summary(results: Results) -> None:
    """Print the result table of an experiment, or of runs by hand (results/single)."""
    from ipbench.analysis import summary as text

    if not (_folder(results) / "grid.json").is_file():
        _up_to_date(results)
    output.say(text(results))


@app.command()
def survive(results: Results) -> None:
    """Tell what controls leave of each method's gain over random pruning, and of IP - SP; write the table and figure.

    The gain is in the positions, the layer ratios, the inherited values or the additional training: a sentence for
    each method, sparsity and space, from records alone. Written: tables/survival.* and figures/survival.*.
    """
    from ipbench.analysis import survive as told

    _up_to_date(results)
    text, files = told(results)
    output.say(text)
    output.progress("\n".join(map(str, files)))


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="An experiment's folder.", parser=path)],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one's, of whatever machine.", parser=path)],
) -> None:
    """Set two experiments side by side, of two commits or machines, say: cells that both have, paired by seed.

    Where no cell is the same, cells that differ in the recipe, say, are set side by side, and a warning says so.
    """
    from ipbench.analysis import compare as text

    for results in (first, second):
        _up_to_date(results)
    output.say(text(first, second))


@app.command()
def verify(
    results: Results,
    sample: Annotated[int, typer.Option(help="How many runs to train again.", parser=whole(1))] = 3,
    method_file: Annotated[list[str] | None, typer.Option(help="A Python file that declares methods.")] = None,
    model_file: Annotated[
        list[Path] | None, typer.Option(help="A Python file with a model, found by its digest.", parser=path)
    ] = None,
    weights: Annotated[
        list[Path] | None, typer.Option(help="A .safetensors file that a model starts with, likewise.", parser=path)
    ] = None,
    dataset_folder: Annotated[
        list[Path] | None, typer.Option(help="A data set of yours, likewise.", parser=path)
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    data: Annotated[Path, typer.Option("--data", help="Folder of the data sets.", parser=path)] = Path("data"),
) -> None:
    """Train sampled runs again and compare them with what is recorded; RESULTS may be a folder of experiments, too.

    Each run is equal (to the bit), consistent (bits cannot agree here, and its accuracy is as near as that of runs of
    the same cell), different, or not comparable. Exit code: 0 if all that was compared is equal or consistent, 1 if
    something is different, 3 if nothing could be compared, 2 for bad input.
    """
    methods.load(method_file or [])
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    from ipbench.runs import verify as verifying
    from ipbench.runs.environment import Environment, choose_device
    from ipbench.runs.given import Given

    environment = Environment(root=data, device=choose_device(device))
    given = Given(model_file or (), weights or (), dataset_folder or ())
    given.check()
    found = verifying.candidates(results, sample, environment, given)
    for line in verifying.announce(found):
        output.say(line)
    kinds = []
    for candidate, verdict in verifying.verify(found, environment, given):
        output.say(": ".join(part for part in (candidate.label, verdict.kind, verdict.reason) if part))
        kinds.append(verdict.kind)
    output.say(", ".join(f"{kinds.count(kind)} {kind}" for kind in verifying.KINDS))
    if verifying.DIFFERENT in kinds:
        raise typer.Exit(1)
    if not {verifying.EQUAL, verifying.CONSISTENT} & set(kinds):
        raise typer.Exit(3)


def _folder(results: Path) -> Path:
    """An experiment's folder, recognised by its grid, or one of runs by hand."""
    if not (results / "grid.json").is_file() and not (results / "runs").is_dir():
        raise BadInput(f"{results}: not an experiment's folder, it holds no grid.json (run the experiment first)")
    return results


def _up_to_date(results: Path) -> None:
    """Bring runs.parquet up to its records. Published results come without records: their parquet is all there is."""
    from ipbench.analysis import write_runs

    if (_folder(results) / "runs").is_dir() or not (results / "runs.parquet").is_file():
        write_runs(results)
