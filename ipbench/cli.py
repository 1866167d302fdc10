"""The command line (floor 6). Bad input is one line on stderr and exit code 2, never a traceback.

torch is imported by the commands that compute, so that planning and help answer at once.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
import yaml

from ipbench import __version__, methods, packing_commands, plain_yaml, results_commands
from ipbench.data import catalog as datasets
from ipbench.errors import BadInput, valid_choice
from ipbench.experiment import Experiment, Job, merged_recipe
from ipbench.models import catalog as models
from ipbench.spec import Basis, Run, build

if TYPE_CHECKING:
    from ipbench.running import Environment

#: The base of all complaints about a command line; typer carries its own copy of click from 0.25 on.
UsageProblem: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

app = typer.Typer(
    help="A reproducibility benchmark for neural-network pruning.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Fetch data sets, write .beton files.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(results_commands.app)
app.add_typer(packing_commands.app)

DataFolder = Annotated[Path, typer.Option("--data", help="Folder of the data sets.")]
MethodFiles = Annotated[list[str] | None, typer.Option("--method-file", help="A Python file that declares methods.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command("methods")
def list_methods(as_json: AsJson = False, method_file: MethodFiles = None) -> None:
    """List the pruning methods with their options and papers."""
    methods.load(method_file or [])
    entries = [entry.describe() for entry in methods.methods().values()]
    if as_json:
        typer.echo(json.dumps(entries, indent=1))
        return
    for entry in entries:
        typer.echo(f"{entry['name']}  ({entry['family']})\n    {entry['summary']}\n    {entry['paper']}")
        typer.echo(f"    stages: {', '.join(entry['stages'])}")
        for name, option in entry["options"].items():
            typer.echo(f"    --option {name}={option['default']}")


@app.command()
def run(
    dataset: Annotated[str, typer.Option(help="Data set.")] = "digits",
    model: Annotated[str | None, typer.Option(help="Model; left out: the data set's default.")] = None,
    method: Annotated[str, typer.Option(help="Pruning method, see `ipbench methods`.")] = "snip",
    space: Annotated[str, typer.Option(help="sp or ip.")] = "sp",
    sparsity: Annotated[str | None, typer.Option(help="From 0 up to, not including, 1; 0.9 if left out.")] = None,
    off: Annotated[
        str | None,
        typer.Option(help="What a masked coefficient is: zero, frozen or decayed; the method's if left out."),
    ] = None,
    allocation: Annotated[str, typer.Option(help="global, uniform or erk.")] = "global",
    seed: Annotated[list[str] | None, typer.Option(help="Seed; repeat it for several runs.")] = None,
    mode: Annotated[str, typer.Option(help="strict (bit-equal on one machine) or fast.")] = "strict",
    option: Annotated[list[str] | None, typer.Option(help="An option of the method, NAME=VALUE.")] = None,
    basis: Annotated[
        list[str] | None, typer.Option(help="Of the filter basis, NAME=VALUE, e.g. sharing=stage.")
    ] = None,
    recipe: Annotated[list[str] | None, typer.Option(help="Of the recipe, NAME=VALUE, e.g. epochs=3.")] = None,
    method_file: MethodFiles = None,
    loader: Annotated[str, typer.Option(help="memory or ffcv; the pixels are the same.")] = "memory",
    workers: Annotated[
        int,
        typer.Option(help="Threads that read images: of the FFCV loader, and for folders of images.", min=1, max=1024),
    ] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    threads: Annotated[
        int, typer.Option(help="CPU threads of torch; 0: one if strict, else all.", min=0, max=1024)
    ] = 0,
    data: DataFolder = Path("data"),
    out: Annotated[Path, typer.Option(help="The folder that takes the records.")] = Path("results/single"),
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep where the runs end, for others that continue them.")
    ] = False,
    done: Annotated[
        Path | None, typer.Option(help="A file to write when all runs are finished (for Snakemake).")
    ] = None,
) -> None:
    """Train one run, or the same run with several seeds; the defaults of the data set fill what is left out.

    A finished run is not repeated, an interrupted one continues after its last epoch.
    """
    methods.load(method_file or [])
    facts = datasets.dataset(dataset, "--dataset")
    chosen = methods.get(method, "--method")
    models.check(model or facts.model, "--model")
    valid_choice(loader, ("memory", "ffcv"), "loader", "--loader")
    if not chosen.prunes and sparsity not in (None, "0"):
        raise BadInput(f"--sparsity: method {chosen.name} does not prune; leave --sparsity out")
    values: dict[str, Any] = {
        "dataset": dataset,
        "model": model or facts.model,
        "method": chosen.name,
        "recipe": merged_recipe(facts.recipe, _nested(_pairs(recipe, "--recipe")), "--recipe"),
        "space": space,
        "basis": build(Basis, _pairs(basis, "--basis"), "--basis"),
        "off": off or chosen.off,
        "sparsity": (sparsity or "0.9") if chosen.prunes else "0",
        "allocation": allocation,
        "options": chosen.check_options(_pairs(option, "--option"), "--option"),
        "mode": mode,
    }
    runs = [build(Run, {**values, "seed": _integer(word, "--seed")}, "run") for word in seed or ["0"]]
    chosen.check_run(runs[0], "run")
    if len({item.seed for item in runs}) < len(runs):
        raise BadInput("--seed: the same seed is given twice")
    _train(runs, out, done, keep, data=data, device=device, threads=threads, loader=loader, workers=workers)


def _train(
    runs: Sequence[Run],
    out: Path,
    done: Path | None,
    keep: bool,
    *,
    data: Path,
    device: str,
    threads: int,
    loader: str,
    workers: int,
) -> None:
    """Train runs one after the other; one that fails does not stop the others."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # strict mode needs it before CUDA starts
    from ipbench import distributed, running

    with distributed.joined(running.choose_device(device)) as own:
        environment = running.Environment(
            root=data,
            device=own,
            threads=threads or (1 if runs[0].mode == "strict" else os.cpu_count() or 1),
            loader="ffcv" if loader == "ffcv" else "memory",
            workers=workers,
        )
        _train_in(environment, runs, out, done if distributed.first() else None, keep, quiet=not distributed.first())


def _train_in(
    environment: Environment, runs: Sequence[Run], out: Path, done: Path | None, keep: bool, *, quiet: bool
) -> None:
    from ipbench import distributed, running
    from ipbench.progress import epochs_bar
    from ipbench.store import write_json

    finished, failed = [], []
    for item in runs:
        label = f"{item.dataset} {item.model} {item.method} {item.space} p={item.sparsity} seed {item.seed}"
        try:
            with epochs_bar(label) as on_epoch:
                record = running.execute(item, out, environment, keep=keep, on_epoch=on_epoch)
        except BadInput:
            raise
        except Exception:
            if distributed.processes() > 1:  # one of several processes must not go on alone: torchrun ends all
                raise
            traceback.print_exc()
            failed.append(item.seed)
            continue
        finished.append({key: record[key] for key in ("id", "cell", "status", "outcome_sha256")} | {"seed": item.seed})
        if not quiet:
            typer.echo(f"{label}: {_result(record)}  {running.record_path(out, item)}")
    if failed:
        typer.echo(f"ipbench: {len(failed)} of {len(runs)} runs failed: seeds {', '.join(map(str, failed))}", err=True)
        raise typer.Exit(1)
    if done:
        write_json(done, {"runs": finished})


def _result(record: dict[str, Any]) -> str:
    """One run's result in a few words."""
    if record["status"] != "done":
        return f"{record['status']}: {record['reason']}"
    outcome = record["outcome"]
    return (
        f"test accuracy {100 * outcome['test_accuracy']:.2f} %, sparsity {outcome['achieved_sparsity']:.4f}, "
        f"{record['cost']['wall_seconds']:.0f} s"
    )


@app.command()
def grid(
    config: Annotated[Path, typer.Argument(help="An experiment, such as config/quickstart.yaml.")],
    as_json: AsJson = False,
    out: Annotated[Path | None, typer.Option(help="Write the resolved grid to this file.")] = None,
    seeds_per_job: Annotated[int, typer.Option(help="Runs that one job trains.", min=1)] = 6,
) -> None:
    """Show the cells, runs and jobs an experiment expands to."""
    from ipbench.store import write_json

    experiment = Experiment.load(config)
    jobs = experiment.jobs(seeds_per_job)
    if out:
        write_json(out, experiment.grid())
        return
    counts = _counts(experiment, jobs)
    if as_json:
        typer.echo(
            json.dumps(
                {
                    **experiment.grid(),
                    "runs": [{"id": item.id, "cell": item.cell, "seed": item.seed} for item in experiment.runs],
                    "jobs": [
                        {"path": job.path, "runs": [item.id for item in job.runs], "continues": job.parent}
                        for job in jobs
                    ],
                    "counts": counts,
                },
                indent=1,
            )
        )  # fmt: skip
        return
    before = f"; {counts['levels']} runs more that others continue" if counts["levels"] else ""
    typer.echo(
        f"{experiment.name}: {counts['cells']} cells, {counts['runs']} runs{before}; "
        f"{counts['jobs']} jobs, {counts['dense']} of them dense"
    )
    for job in jobs:
        typer.echo(f"  {job.label}")


def _counts(experiment: Experiment, jobs: Sequence[Job]) -> dict[str, int]:
    """How much there is to do: `levels` are runs that no table asks for, but that others continue."""
    return {
        "cells": len(experiment.cells),
        "runs": len(experiment.runs),
        "levels": sum(len(runs) for runs in experiment.trained.values()) - len(experiment.runs),
        "jobs": len(jobs),
        "dense": sum(not methods.get(job.runs[0].method).prunes for job in jobs),
    }


@app.command()
def count(
    model: Annotated[str, typer.Argument(help="A model by name.")],
    shape: Annotated[str, typer.Option("--input", help="Of one image: CxHxW, e.g. 3x32x32.")],
    classes: Annotated[int | None, typer.Option(help="10 for our models, 1000 for torchvision's.", min=1)] = None,
    as_json: AsJson = False,
) -> None:
    """Count parameters and multiply-accumulates, layer by layer."""
    models.check(model, "MODEL")
    try:
        channels, height, width = (int(side) for side in shape.lower().split("x"))
        if min(channels, height, width) < 1 or max(channels, height, width) > 4096:
            raise ValueError
    except ValueError:
        raise BadInput(f"--input: {shape!r} is not of the form CxHxW, e.g. 3x32x32") from None
    from ipbench.measure import count as count_net
    from ipbench.models.build import build as build_model

    outputs = classes or (10 if model in models.MODELS else 1000)
    net = build_model(model, (channels, height, width), outputs, 0)
    counted = count_net(net, (channels, height, width))
    if as_json:
        layers = [
            {"name": layer.name, "kind": layer.kind, "shape": list(layer.shape), "parameters": layer.parameters,
             "macs": layer.macs}
            for layer in counted.layers
        ]  # fmt: skip
        macs = sum(layer.macs for layer in counted.layers)
        typer.echo(json.dumps({"parameters": counted.parameters, "macs": macs, "layers": layers}, indent=1))
        return
    for layer in counted.layers:
        typer.echo(f"{layer.name:32} {'x'.join(map(str, layer.shape)):>18} {layer.parameters:>12,} {layer.macs:>16,}")
    total = sum(layer.macs for layer in counted.layers)
    typer.echo(f"{'all parameters, multiply-accumulates':51} {counted.parameters:>12,} {total:>16,}")


@data_app.command("fetch")
def fetch(name: Annotated[str, typer.Argument(help="A data set.")], data: DataFolder = Path("data")) -> None:
    """Download a data set, or say where its files must be put."""
    datasets.dataset(name, "NAME")
    from ipbench.data.sources import fetch as fetch_source

    typer.echo(fetch_source(name, data))


@data_app.command("beton")
def beton(name: Annotated[str, typer.Argument(help="A data set.")], data: DataFolder = Path("data")) -> None:
    """Write the .beton files of a data set for the FFCV loader."""
    datasets.dataset(name, "NAME")
    from ipbench.data import beton as files

    splits: tuple[Literal["train", "test"], ...] = ("train", "test")
    for split in splits:
        typer.echo(files.write(name, split, data))


def _pairs(words: Sequence[str] | None, option: str) -> dict[str, Any]:
    """NAME=VALUE words as a mapping; values are read as YAML."""
    result: dict[str, Any] = {}
    for word in words or []:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise BadInput(f"{option}: {word!r} is not of the form NAME=VALUE")
        if name in result:
            raise BadInput(f"{option}: {name} is given twice")
        try:
            result[name] = plain_yaml.read(text)
        except yaml.YAMLError:
            raise BadInput(f"{option}: the value of {name} is not readable: {text!r}") from None
    return result


def _nested(values: dict[str, Any]) -> dict[str, Any]:
    """`augmentation.flip` as a key inside `augmentation`."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        outer, dot, inner = name.partition(".")
        if dot:
            group = result.setdefault(outer, {})
            if not isinstance(group, dict):
                raise BadInput(f"--recipe: {outer} and {name} contradict each other")
            group[inner] = value
        else:
            result[name] = value
    return result


def _integer(word: str, option: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise BadInput(f"{option}: {word!r} is not a whole number") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code."""
    command = typer.main.get_command(app)
    try:
        code = command.main(
            args=list(arguments) if arguments is not None else None, prog_name="ipbench", standalone_mode=False
        )
        return code if isinstance(code, int) else 0
    except BadInput as error:
        message = str(error)
    except typer.Exit as error:
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except UsageProblem as error:
        message = error.format_message()  # type: ignore[attr-defined]
    except BrokenPipeError:  # `ipbench grid ... | head`
        sys.stderr.close()
        return 0
    typer.echo(f"ipbench: {' '.join(message.split())}", err=True)
    return 2
