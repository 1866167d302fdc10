"""`ipbench experiment` and `ipbench quickstart`: an experiment in one call, by Snakemake, with progress to read."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, Annotated

import typer

from ipbench import output, shipped
from ipbench.cli.arguments import whole
from ipbench.errors import BadInput
from ipbench.planning.experiment import Experiment
from ipbench.planning.lint import lint

if TYPE_CHECKING:
    from ipbench.cli.watching import Watch

app = typer.Typer()

#: Signals that end Snakemake and its trainings, which save where they are.
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: The exit status of what was stopped and can go on, as of `ipbench run`.
_STOPPED = 75

Cores = Annotated[int | None, typer.Option(help="Cores to use; all if left out.", parser=whole(1))]
Profile = Annotated[str, typer.Option(help="local, slurm, or a folder with a profile.yaml.")]
Rest = Annotated[
    list[str] | None, typer.Argument(metavar="[-- WORDS]", help="What else Snakemake is told, e.g. -- --config gpus=0.")
]


@app.command()
def experiment(
    name: Annotated[str, typer.Argument(metavar="EXPERIMENT", help="A name such as ip-fashion, or a YAML file.")],
    words: Rest = None,
    profile: Profile = "local",
    cores: Cores = None,
) -> None:
    """Run an experiment to its tables, figures and report; a second call goes on where the first one was stopped.

    It calls Snakemake with the workflow that comes with ipbench, in the folder one is in: results are in results/NAME.
    """
    _run(name, profile, cores, words or [], advised=True)


@app.command()
def quickstart(profile: Profile = "local", cores: Cores = None) -> None:
    """Prune a small net on real 8 x 8 digits in both spaces: a table, figures and a report, in minutes."""
    # Trainings of seconds: one process for the three sparsities of a method, since starting one takes as long.
    # Nor is it told what it lacks: it shows how things work, and claims nothing.
    _run("quickstart", profile, cores, ["--config", "sparsities_per_job=3"], advised=False)


def _run(name: str, profile: str, cores: int | None, words: list[str], *, advised: bool) -> None:
    file, place = shipped.experiment(name), shipped.profile(profile)
    planned = Experiment.load(file)
    if not importlib.util.find_spec("snakemake"):
        raise BadInput("this needs Snakemake: pip install 'ipbench[workflow]'")
    from ipbench.cli.watching import Watch

    results = Path("results") / planned.name
    watch = Watch(results, planned)
    output.progress(watch.opening())
    for finding in lint(planned) if advised else ():
        output.progress(f"lint: {finding}")
    command = [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(shipped.folder() / "Snakefile")),
        *("--profile", str(place), "--configfile", str(file), *(["--cores", str(cores)] if cores else []), *words),
    ]
    with tempfile.TemporaryFile("w+") as told:
        code, stopped = _watched(command, told, watch)
        told.seek(0)
        complaint = _complaint(told)
    if stopped:
        raise _Ended(f"{watch.standing()}: stopped; the same command goes on there", _STOPPED)
    if code:
        _failed(results, planned, complaint, code)
    from ipbench.analysis import summary

    output.say(f"\n{summary(results)}")
    output.say("\n".join(_products(results)))


class _Ended(typer.Exit):
    """The command ends with a line on standard error and an exit status of its own."""

    def __init__(self, message: str, code: int) -> None:
        output.complain(f"ipbench: {message}")
        super().__init__(code)


def _watched(command: list[str], told: IO[str], watch: Watch) -> tuple[int, bool]:
    """Run a command to its end and show how far it is; gives its exit status, and whether a signal stopped it.

    It has a process group of its own, so that it and its trainings get one signal each, whoever sends it to us.
    """
    with _handed_on() as (groups, came):
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=told, stderr=subprocess.STDOUT, text=True, process_group=0
        )
        groups.append(process.pid)
        if came:  # before it was known whom to tell
            os.killpg(process.pid, signal.SIGINT)
        for _ in watch.until(process):
            pass
        return process.wait(), bool(came)


@contextmanager
def _handed_on() -> Iterator[tuple[list[int], list[int]]]:
    """While this lasts, signals that would end us go to process groups, as SIGINT; gives these, and those that came.

    A process that begins now does not ignore them, as one does that a shell started in the background.
    """
    groups: list[int] = []
    came: list[int] = []

    def hand_on(number: int, _: FrameType | None) -> None:
        came.append(number)
        for group in groups:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGINT)

    before = {number: signal.signal(number, hand_on) for number in _ENDING}
    try:
        yield groups, came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _complaint(told: IO[str]) -> str:
    """The last line that Snakemake began with `Error:`, for what it refuses before any job."""
    lines = [line.strip() for line in told if line.startswith(("Error: ", "error: ", "Error in "))]
    return lines[-1].removeprefix("Error: ") if lines else ""


def _failed(results: Path, planned: Experiment, complaint: str, code: int) -> None:
    """Say in a few lines what failed; the exit status is 2 for what was refused, and 1 where trainings failed."""
    from ipbench.analysis import status

    if code == 2 and complaint:
        raise BadInput(complaint)
    if (results / "logs").is_dir():
        output.complain(status(results, planned.grid()))
    raise _Ended(f"{results} is not complete; Snakemake's own log is in .snakemake/log", 1)


def _products(results: Path) -> list[str]:
    """Where to look, in lines."""
    pictures = sorted((results / "figures").glob("forest*.svg")) or sorted((results / "figures").glob("*.svg"))
    found = {"picture": pictures[0] if pictures else results / "figures", "figures": results / "figures",
             "tables": results / "tables", "report": results / "report.html"}  # fmt: skip
    return [f"{name:8}  {path}{'/' if path.is_dir() else ''}" for name, path in found.items()]
