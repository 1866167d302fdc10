"""The command line. Bad input is one line on stderr and exit code 2, never a traceback.

torch is imported by the commands that compute, so that planning and help answer at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from ipbench import __version__, files, methods, numerals, output
from ipbench.cli import exchange as exchange_command
from ipbench.cli import experiment as experiment_commands
from ipbench.cli import lists, own
from ipbench.cli import packed as packing_commands
from ipbench.cli import results as results_commands
from ipbench.cli import run as run_command
from ipbench.cli.arguments import path, whole
from ipbench.cli.run import DataFolder, MethodFiles
from ipbench.data import catalog as datasets
from ipbench.data.own import keep
from ipbench.errors import BadInput, valid_choice
from ipbench.machine.lease import parse_gpus, run_with_gpus
from ipbench.models import catalog as models
from ipbench.models.own import own_of
from ipbench.planning.experiment import Experiment
from ipbench.planning.jobs import Job
from ipbench.planning.lint import lint

#: The base of all complaints about a command line; typer carries its own copy of click from 0.25 on.
UsageProblem: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

app = typer.Typer(
    help="A reproducibility benchmark for neural-network pruning.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="List, fetch and make data sets, write .beton files.")
app.add_typer(data_app, name="data")
app.add_typer(run_command.app)
app.add_typer(exchange_command.app)
app.add_typer(experiment_commands.app)
app.add_typer(results_commands.app)
app.add_typer(packing_commands.app)
app.add_typer(lists.app)

#: Values of an image whose net is counted.
_LARGEST_IMAGE = 2**22
#: Characters of a message; a path may have thousands.
_LONGEST = 900

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    if version:
        output.say(__version__)
        raise typer.Exit
    _help_alone(context)


@data_app.callback(invoke_without_command=True)
def _data(context: typer.Context) -> None:
    _help_alone(context)


def _help_alone(context: typer.Context) -> None:
    """What is called without a command prints its help; typer's own way would make it the text of an error."""
    if context.invoked_subcommand is None:
        output.say(context.get_help())
        raise typer.Exit


@app.command("methods")
def list_methods(as_json: AsJson = False, method_file: MethodFiles = None) -> None:
    """List the pruning methods with their options and papers."""
    methods.load([*methods.rule_files(), *(method_file or [])])
    entries = [entry.describe() for entry in methods.methods().values()]
    if as_json:
        output.say(json.dumps(entries, indent=1))
        return
    for entry in entries:
        output.say(f"{entry['name']}  ({entry['family']})\n    {entry['summary']}\n    {entry['paper']}")
        output.say(f"    stages: {', '.join(entry['stages'])}")
        for name, option in entry["options"].items():
            output.say(f"    --option {name}={option['default']}")


@app.command()
def lease(
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND", help="A program and its arguments.")],
    gpus: Annotated[str, typer.Option(help="Indices or UUIDs of the GPUs to take from, e.g. 0,1.")],
    per_gpu: Annotated[int, typer.Option(help="Jobs that share a GPU.", parser=whole(1))] = 1,
    count: Annotated[int, typer.Option(help="GPUs that the command needs.", parser=whole(1))] = 1,
) -> None:
    """Run a command with free GPUs of this machine, in CUDA_VISIBLE_DEVICES; wait if there are none.

    They are free again when the last process of the command is gone, however it ends.
    """
    try:
        chosen = parse_gpus(gpus)
    except BadInput as error:
        raise BadInput(f"--gpus: {error}") from None
    run_with_gpus(chosen, per_gpu, count, command, lambda text: output.complain(f"ipbench: {text}"))


@app.command()
def grid(
    config: Annotated[Path, typer.Argument(help="An experiment, such as config/quickstart.yaml.", parser=path)],
    as_json: AsJson = False,
    out: Annotated[Path | None, typer.Option(help="Write the resolved grid to this file.", parser=path)] = None,
    seeds_per_job: Annotated[int, typer.Option(help="Seeds that one job trains.", parser=whole(1))] = 6,
    sparsities_per_job: Annotated[int, typer.Option(help="Sparsities that one job trains.", parser=whole(1))] = 1,
) -> None:
    """Show the cells, runs and jobs an experiment expands to, and what it lacks to be a sound comparison."""
    from ipbench.store import write_json

    experiment = Experiment.load(config)
    jobs = experiment.jobs(seeds_per_job, sparsities_per_job)
    if out:
        write_json(out, experiment.grid())
        return
    counts = _counts(experiment, jobs)
    if as_json:
        output.say(
            json.dumps(
                {
                    **experiment.grid(),
                    "runs": [{"id": item.id, "cell": item.cell, "seed": item.seed} for item in experiment.runs],
                    "jobs": [
                        {"path": job.path, "runs": [item.id for item in job.runs], "continues": list(job.parents)}
                        for job in jobs
                    ],
                    "counts": counts,
                    "lint": [vars(finding) for finding in lint(experiment)],
                },
                indent=1,
            )
        )  # fmt: skip
        return
    before = f"; {counts['levels']} runs more that others continue" if counts["levels"] else ""
    output.say(
        f"{experiment.name}: {counts['cells']} cells, {counts['runs']} runs{before}; "
        f"{counts['jobs']} jobs, {counts['dense']} of them dense"
    )
    output.say("\n".join(f"  {job.label}" for job in jobs))
    for finding in lint(experiment):
        output.say(f"lint: {finding}")


def _counts(experiment: Experiment, jobs: Sequence[Job]) -> dict[str, int]:
    """How much there is to do: `levels` are runs that no table asks for, but that others continue."""
    seeds = len(experiment.axes.seeds)
    return {
        "cells": len(experiment.cells),
        "runs": len(experiment.cells) * seeds,
        "levels": (len(experiment.trained) - len(experiment.cells)) * seeds,
        "jobs": len(jobs),
        "dense": sum(not methods.get(job.cells[0].method).prunes for job in jobs),
    }


@app.command()
def count(
    model: Annotated[str, typer.Argument(help="A model by name; of --model-file, the function in it.")],
    shape: Annotated[str, typer.Option("--input", help="Of one image: CxHxW, e.g. 3x32x32.")],
    classes: Annotated[
        int | None,
        typer.Option(
            help="10 for our models and yours, 80 for detectors, 1000 for other models of torchvision and timm.",
            parser=whole(1, 100_000),
        ),
    ] = None,
    model_file: own.ModelFile = None,
    as_json: AsJson = False,
) -> None:
    """Count parameters and multiply-accumulates, layer by layer."""
    net = own.the_model(model, model_file, None, None, model, Path("data"), "MODEL")
    try:
        channels, height, width = map(numerals.whole, shape.lower().split("x"))
        if min(channels, height, width) < 1 or max(channels, height, width) > 4096:
            raise ValueError
    except ValueError:
        raise BadInput(f"--input: {shape!r:.80} is not of the form CxHxW, e.g. 3x32x32") from None
    if channels * height * width > _LARGEST_IMAGE:
        raise BadInput(f"--input: {shape} is too large; an image has at most {_LARGEST_IMAGE} values")
    from ipbench.models.build import outline
    from ipbench.sparse.measure import count as count_net

    small = model_file is not None or net in models.MODELS or net.endswith("-small")
    outputs = classes or (10 if small else 80 if net in models.DETECTORS else 1000)
    size = channels, height, width
    counted = count_net(outline(net, size, outputs, own_of(net)), size)
    if as_json:
        layers = [
            {"name": layer.name, "kind": layer.kind, "shape": list(layer.shape), "parameters": layer.parameters,
             "macs": layer.macs}
            for layer in counted.layers
        ]  # fmt: skip
        facts = {"prunable": counted.prunable, "not_prunable": counted.not_prunable, "unused_layers": counted.unseen}
        told = {"parameters": counted.parameters, "macs": counted.macs, **facts, "layers": layers}
        output.say(json.dumps(told, indent=1))
        return
    for layer in counted.layers:
        output.say(f"{layer.name:32} {'x'.join(map(str, layer.shape)):>18} {layer.parameters:>12,} {layer.macs:>16,}")
    output.say(f"{'all parameters, multiply-accumulates':51} {counted.parameters:>12,} {counted.macs:>16,}")
    output.say(f"{'prunable weights':51} {counted.prunable:>12,}")
    for name, entries in counted.not_prunable.items():
        output.say(f"{f'not prunable: {name}':51} {entries:>12,}")
    if counted.unseen:
        output.say(f"not used by an evaluated image: {', '.join(counted.unseen)}")


data_app.command("list")(lists.list_data_sets)


@data_app.command("fetch")
def fetch(name: Annotated[str, typer.Argument(help="A data set.")], data: DataFolder = Path("data")) -> None:
    """Download a data set, or make it of one that is downloaded, or say where its files must be put."""
    facts = datasets.dataset(name, "NAME")
    from ipbench.data.coco_folder import check
    from ipbench.data.scenes import make as make_scenes
    from ipbench.data.sources import fetch as fetch_source

    if name in datasets.MADE:
        output.say(fetch_source("fashion-mnist", data))
        output.say(make_scenes(data))
    else:
        output.say((check if facts.task == datasets.DETECTION else fetch_source)(name, data))


@data_app.command("make")
def make(
    name: Annotated[str, typer.Argument(help="A data set that is made of another one: fashion-scenes.")],
    data: DataFolder = Path("data"),
) -> None:
    """Make a data set of another one's images."""
    valid_choice(name, datasets.MADE, "data set to make", "NAME")
    from ipbench.data.scenes import make as make_scenes

    output.say(make_scenes(data))


@data_app.command("check")
def check_own(
    folder: Annotated[str, typer.Argument(help="A data set of yours: a folder, or a .npz file.")],
    dataset: Annotated[str | None, typer.Option(help="What to call it; its own name if left out.")] = None,
    image_size: own.ImageSize = None,
    resize: own.Resize = None,
    test: own.Test = None,
    data: DataFolder = Path("data"),
) -> None:
    """Look at a data set of yours: what it holds, and what a run takes where nothing is said."""
    name = own.the_data_set(dataset, folder, data, image_size=image_size, resize=resize, test=test)
    facts = datasets.OWN[str(name)]
    keep()
    size, mean, std = (" x ".join(map(str, facts.shape)), *(", ".join(map(str, of)) for of in (facts.mean, facts.std)))
    output.say(f"{facts.name}  ({facts.task}): {facts.train:,} training and {facts.test:,} test images of {size}")
    output.say(f"    {facts.classes} classes; mean {mean}; standard deviation {std}")
    output.say(f"    SHA-256 {facts.own.sha256 if facts.own else ''}")
    recipe = facts.recipe.differences()
    output.say(f"    model {facts.model}; recipe {', '.join(f'{key} {value}' for key, value in recipe.items())}")


@data_app.command("weights")
def weights(
    model: Annotated[str, typer.Argument(help="A model of torchvision's, or timm/NAME.")],
    name: Annotated[str, typer.Argument(help="Of its weights, such as IMAGENET1K_V1 or a1_in1k.")],
    data: DataFolder = Path("data"),
) -> None:
    """Download weights that others have trained, for `--weights NAME`; a run reads the file that this writes."""
    from ipbench.models.fetching import fetch as fetch_weights

    output.progress(fetch_weights(model, name, data))


@data_app.command("beton")
def beton(name: Annotated[str, typer.Argument(help="A data set.")], data: DataFolder = Path("data")) -> None:
    """Write the .beton files of a data set for the FFCV loader."""
    datasets.check_loader(datasets.dataset(name, "NAME"), "ffcv")
    from ipbench.data import beton_writing

    splits: tuple[Literal["train", "test"], ...] = ("train", "test")
    for split in splits:
        output.progress(beton_writing.write(name, split, data))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code."""
    output.begin()
    code, message = _run(arguments)
    if code == 0 and (lost := output.lost()):
        code, message = 2, f"standard output: {lost}"
    if message:
        output.complain(f"ipbench: {_short(message)}")
    return code


def _run(arguments: Sequence[str] | None) -> tuple[int, str]:
    """Run a command line; returns the exit code and what is to be said of it."""
    if sys.flags.optimize > 1:
        return 2, "python -OO (PYTHONOPTIMIZE=2) takes away texts that ipbench prints; leave it out"
    command = typer.main.get_command(app)
    try:
        code = command.main(
            args=list(arguments) if arguments is not None else None, prog_name="ipbench", standalone_mode=False
        )
        return code if isinstance(code, int) else 0, ""
    except BadInput as error:
        return 2, str(error)
    except typer.Exit as error:
        return error.exit_code, ""
    except (typer.Abort, KeyboardInterrupt):
        return 130, ""
    except UsageProblem as error:
        return 2, error.format_message()  # type: ignore[attr-defined]
    except BrokenPipeError:  # `ipbench --help | head`
        output.abandon(sys.stdout)
        return 0, ""
    except OSError as error:
        if error.errno is None:  # no answer of the system, but a mistake of a library or of ours
            raise
        return 2, files.refusal(error)


def _short(message: str) -> str:
    """On one line, and of a length that can be read whatever it quotes."""
    line = " ".join(message.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 3 :]}"
