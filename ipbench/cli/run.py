"""The command `ipbench run`: runs from the command line, one after the other."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Sequence
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ipbench import files, methods, numerals, output
from ipbench.cli import own
from ipbench.cli.arguments import path, whole
from ipbench.data import catalog as datasets
from ipbench.errors import BadInput, BadProduct, valid_choice
from ipbench.machine.stopping import EXIT_STATUS, Stopped, on_signals, reason
from ipbench.models import catalog as models
from ipbench.planning import plain_yaml
from ipbench.planning.axes import merged_recipe
from ipbench.planning.own import own_of
from ipbench.spec import COEFFICIENTS, CONTROLS, NO_CONTROL, Basis, Run, build, only_sparsity

if TYPE_CHECKING:
    from ipbench.runs.environment import Environment

app = typer.Typer()

DataFolder = Annotated[Path, typer.Option("--data", help="Folder of the data sets.", parser=path)]
MethodFiles = Annotated[
    list[str] | None,
    typer.Option("--method-file", help="A Python file that declares methods, or a file of rules, NAME.smk."),
]


@app.command()
def run(
    dataset: Annotated[
        str | None,
        typer.Option(
            help=f"Data set: {', '.join(datasets.DATASETS)}; digits if left out. Of --dataset-folder: what to call it."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help=f"Model: {', '.join(models.MODELS)}, one of torchvision's, or timm/NAME; left out: the data set's"
            " default. Of --model-file: the function in it."
        ),
    ] = None,
    method: Annotated[
        str, typer.Option(help=f"Pruning method: {', '.join(methods.methods())}; `ipbench methods` tells of them.")
    ] = "snip",
    space: Annotated[str, typer.Option(help="sp or ip.")] = "sp",
    sparsity: Annotated[
        list[str] | None,
        typer.Option(
            help="From 0 up to, not including, 1; 0.9 if left out, of N:M its own. Several runs: 0.9,0.95, or"
            " --sparsity twice."
        ),
    ] = None,
    off: Annotated[
        str | None,
        typer.Option(help="What a masked coefficient is: zero, frozen or decayed; the method's if left out."),
    ] = None,
    allocation: Annotated[str | None, typer.Option(help="global, uniform or erk; the method's if left out.")] = None,
    pattern: Annotated[
        str | None,
        typer.Option(
            help="What is kept as one: coefficients, filters, columns, channels, or N:M such as 2:4; the method's if"
            " left out."
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="What the sparsity is the removed share of: parameters, macs or channels; the method's if left out."
        ),
    ] = None,
    control: Annotated[
        str, typer.Option(help=f"A control of the method's run of the same seed: {', '.join(CONTROLS[1:])}.")
    ] = NO_CONTROL,
    seed: Annotated[list[str] | None, typer.Option(help="Seed; several runs: 0,1,2, or --seed twice.")] = None,
    mode: Annotated[str, typer.Option(help="strict (bit-equal on one machine) or fast.")] = "strict",
    option: Annotated[list[str] | None, typer.Option(help="Of the method, NAME=VALUE; once for each.")] = None,
    basis: Annotated[
        list[str] | None, typer.Option(help="Of the filter basis, NAME=VALUE, e.g. sharing=stage.")
    ] = None,
    recipe: Annotated[
        list[str] | None, typer.Option(help="Of the recipe, NAME=VALUE: epochs=3; once for each.")
    ] = None,
    method_file: MethodFiles = None,
    model_file: own.ModelFile = None,
    weights: own.Weights = None,
    label: own.Label = None,
    dataset_folder: own.DatasetFolder = None,
    image_size: own.ImageSize = None,
    resize: own.Resize = None,
    test: own.Test = None,
    digest: own.Digests = None,
    loader: Annotated[str, typer.Option(help="memory or ffcv; the pixels are the same.")] = "memory",
    workers: Annotated[
        int,
        typer.Option(
            help="Threads that read images: of the FFCV loader, and for folders of images.", parser=whole(1, 1024)
        ),
    ] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    threads: Annotated[
        int, typer.Option(help="CPU threads of torch; 0: one if strict, else all.", parser=whole(0, 1024))
    ] = 0,
    data: DataFolder = Path("data"),
    out: Annotated[Path, typer.Option(help="The folder that takes the records.", parser=path)] = Path("results/single"),
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep where the runs end, for others that continue them.")
    ] = False,
    done: Annotated[
        Path | None, typer.Option(help="A file to write when all runs are finished (for Snakemake).", parser=path)
    ] = None,
    exchange: Annotated[bool, typer.Option("--exchange", hidden=True, help="As `ipbench exchange`.")] = False,
) -> None:
    """Train one run, or the same with several sparsities and seeds; the data set's defaults fill what is left out.

    A finished run is not repeated, an interrupted one continues where it was.
    """
    methods.load([*(method_file or []), *filter(None, [methods.rule_file(method)])])
    sparsity, seed = _each(sparsity, "--sparsity"), _each(seed, "--seed")
    given = own.the_data_set(dataset, dataset_folder, data, image_size=image_size, resize=resize, test=test)
    facts = datasets.dataset(given or ("digits" if dataset is None else dataset), "--dataset")
    chosen = methods.get(method, "--method")
    net = own.the_model(model, model_file, weights, label, facts.model, data)
    models.check_task(net, facts.name, facts.task, "--model")
    datasets.check_loader(facts, valid_choice(loader, ("memory", "ffcv"), "loader", "--loader"), "--loader")
    chosen_pattern = (chosen.pattern if chosen.prunes else COEFFICIENTS) if pattern is None else pattern
    values: dict[str, Any] = {
        "dataset": facts.name,
        "model": net,
        "own": own_of(facts.name, net),
        "method": chosen.name,
        "recipe": merged_recipe(facts.recipe, _nested(_pairs(recipe, "--recipe")), "--recipe"),
        "space": space,
        "basis": build(Basis, _pairs(basis, "--basis"), "--basis"),
        "off": chosen.off if off is None else off,
        "allocation": chosen.allocation if allocation is None else allocation,
        "pattern": chosen_pattern,
        "budget": chosen.budget_for(chosen_pattern) if budget is None else budget,
        "options": chosen.check_options(_pairs(option, "--option"), "--option"),
        "control": valid_choice(control, CONTROLS, "control", "--control"),
        "mode": mode,
    }
    if not chosen.prunes:
        _check_does_not_prune(chosen, sparsity or ["0"], pattern or COEFFICIENTS, budget or "parameters", control)
    runs = _runs(chosen, values, sparsity, [_integer(word, "--seed") for word in seed or ["0"]])
    datasets.check_recipe(facts, runs[0].recipe, "--recipe")
    chosen.check_run(runs[0], "run")
    own.check_digests(digest, runs[0].own)
    if exchange:
        from ipbench.cli.exchange_writing import write

        write(runs, out, data=data, device=device, threads=threads, loader=loader, workers=workers)
        return
    _train(runs, out, done, keep, data=data, device=device, threads=threads, loader=loader, workers=workers)


def _each(words: list[str] | None, option: str) -> list[str] | None:
    """The values of an option that is given several times, or once with commas."""
    if words is None:
        return None
    for word in words:
        if "," in word and "" in word.split(","):
            raise BadInput(f"{option}: {word!r:.80} names nothing between two commas, or at an end")
    return [value for word in words for value in word.split(",")]


def _check_does_not_prune(method: methods.Method, sparsity: list[str], pattern: str, budget: str, control: str) -> None:
    """Whether a method without sparsities is given none of what only others have."""
    usual = {"sparsity": ["0"], "pattern": COEFFICIENTS, "budget": "parameters", "control": NO_CONTROL}
    given = {"sparsity": sparsity, "pattern": pattern, "budget": budget, "control": control}
    for name in usual:
        if given[name] != usual[name]:
            raise BadInput(f"--{name}: method {method.name} does not prune; leave --{name} out")


def _runs(method: methods.Method, values: dict[str, Any], sparsity: list[str] | None, seeds: list[int]) -> list[Run]:
    """A run of every sparsity and seed; a level of a lottery ticket comes after those that it continues."""
    usual = "0" if method.by_knob(values["options"]) else only_sparsity(values["pattern"]) or "0.9"
    sparsities = (sparsity or [usual]) if method.prunes else ["0"]
    runs = [build(Run, {**values, "sparsity": p, "seed": number}, "run") for p, number in product(sparsities, seeds)]
    if problem := method.without_control(runs[0]):
        raise BadInput(f"--control: method {method.name}: control {runs[0].control} {problem}")
    if len(set(seeds)) < len(seeds):
        raise BadInput("--seed: the same seed is given twice")
    if len({item.sparsity for item in runs}) < len(sparsities):
        raise BadInput("--sparsity: the same sparsity is given twice")
    ordered = sorted(runs, key=lambda item: Fraction(item.sparsity))
    return list({item.id: item for item in map(method.canonical, ordered)}.values())


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
    """Train runs one after the other; one that fails does not stop the others, a signal does."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # strict mode needs it before CUDA starts
    from ipbench.machine import distributed
    from ipbench.runs.environment import Environment, choose_device

    # While processes join, a signal still ends this one at once: torchrun ends all if one of them cannot.
    with output.lenient(), distributed.joined(choose_device(device)) as own, on_signals():
        environment = Environment(
            root=data.absolute(),
            device=own,
            threads=threads or (1 if runs[0].mode == "strict" else os.cpu_count() or 1),
            loader="ffcv" if loader == "ffcv" else "memory",
            workers=workers,
        )
        first = distributed.first()
        try:
            _train_in(environment, runs, out, done if first else None, keep, quiet=not first)
        except Stopped:
            if first:
                text = f"stopped by {reason()}; what is trained is saved: the same call goes on there"
                output.complain(f"ipbench: {text}")
            raise typer.Exit(EXIT_STATUS) from None
        except BadInput as error:
            if first or not error.told:
                raise
            raise typer.Exit(2) from None
        except distributed.Failed:
            raise typer.Exit(1) from None


def _train_in(
    environment: Environment, runs: Sequence[Run], out: Path, done: Path | None, keep: bool, *, quiet: bool
) -> None:
    from ipbench.runs.records import record_path
    from ipbench.store import write_json

    folder, done = out.absolute(), done and done.absolute()  # a method may change the working directory
    continued = {parent.id for item in runs for parent in _line(item)}
    there = {item.id: _stamp(record_path(folder, item)) for item in runs}
    finished: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    for item in runs:
        label = f"{methods.called(item)} seed {item.seed}"
        if any(parent.id in failed for parent in _line(item)):
            output.complain(f"ipbench: {label}: not trained, for a run that it needs has failed")
            record = None
        else:
            record = _record(item, folder, environment, label, keep or item.id in continued, single=len(runs) == 1)
        if record is None:
            failed[item.id] = f"p={item.sparsity} seed {item.seed}"
            continue
        finished.append({key: record[key] for key in ("id", "cell", "status", "outcome_sha256")} | {"seed": item.seed})
        if not quiet:
            already = "already done: " if there[item.id] and there[item.id] == _stamp(record_path(folder, item)) else ""
            output.progress(f"{label}: {already}{_result(record)}  {record_path(out, item)}")
    if failed:
        output.complain(f"ipbench: {len(failed)} of {len(runs)} runs failed: {', '.join(failed.values())}")
        raise typer.Exit(1)
    if done:
        write_json(done, {"runs": finished})


def _stamp(record: Path) -> tuple[int, int] | None:
    """What changes with every writing of a record; None where there is none."""
    try:
        told = record.stat()
    except OSError:
        return None
    return told.st_ino, told.st_mtime_ns


def _record(
    run: Run, folder: Path, environment: Environment, label: str, keep: bool, *, single: bool
) -> dict[str, Any] | None:
    """The record of a run; None if it failed, and said so, in a way that does not end the others."""
    from ipbench.cli.progress import epochs_bar
    from ipbench.machine import distributed
    from ipbench.runs import execute as running

    # One of several processes must not go on alone: torchrun ends all. And of a single run, its error says it all.
    ends_all = distributed.processes() > 1 or single
    try:
        with epochs_bar(label) as on_epoch:
            return running.execute(run, folder, environment, keep=keep, on_epoch=on_epoch)
    except BadProduct as error:
        if ends_all:
            raise
        output.complain(f"ipbench: {label}: {error}")
    except (BadInput, Stopped):
        raise
    except OSError as error:
        if ends_all or error.errno is None:
            raise
        output.complain(f"ipbench: {label}: {files.refusal(error)}")
    except Exception:
        if distributed.processes() > 1:
            raise
        output.complain(traceback.format_exc().rstrip())
    return None


def _line(item: Run) -> list[Run]:
    """The runs that a run needs: those that it continues or is a control of, and what these need."""
    found: dict[str, Run] = {}
    left = methods.needs(item)
    while left:
        before = left.pop(0)
        if before.id not in found:
            found[before.id] = before
            left += methods.needs(before)
    return list(found.values())


def _result(record: dict[str, Any]) -> str:
    """One run's result in a few words."""
    if record["status"] != "done":
        return f"{record['status']}: {record['reason']}"
    outcome = record["outcome"]
    reached = f"{100 * outcome['reached']:.2f} % of {record['run']['budget']} removed, " if "reached" in outcome else ""
    name = {"map": "mAP"}.get(outcome.get("metric", ""), "accuracy")
    left_out = sum(outcome.get("not_prunable", {}).values())
    return (
        f"{_lost(record)}"
        f"test {name} {100 * outcome['test_accuracy']:.2f} %, sparsity {outcome['achieved_sparsity']:.4f}, "
        f"{reached}"
        f"{f'{left_out:,} weights not prunable, ' if left_out else ''}"
        f"{record['cost']['wall_seconds']:.0f} s"
    )


def _lost(record: dict[str, Any]) -> str:
    """Whether a run lost its net, in front of its result; '' if not."""
    from ipbench.analysis.lost import at_chance, empty_layers

    outcome, run = record["outcome"], record["run"]
    empty = empty_layers(run["off"], outcome.get("collapsed_layers"))
    parts = (
        [f"collapsed, nothing is left of {', '.join(empty[:3])}{', ...' if len(empty) > 3 else ''}"] if empty else []
    )
    parts += ["at chance level"] if at_chance(run["dataset"], outcome["test_accuracy"]) else []
    return "".join(f"{part}; " for part in parts)


def _pairs(words: Sequence[str] | None, option: str) -> dict[str, Any]:
    """NAME=VALUE words as a mapping; values are read as YAML."""
    result: dict[str, Any] = {}
    for word in words or []:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise BadInput(f"{option}: {word!r} is not of the form NAME=VALUE")
        if name in result:
            raise BadInput(f"{option}: {name} is given twice")
        if second := re.search(r",\s*(\w+)=", text):
            raise BadInput(f"{option}: {word!r:.80}: one NAME=VALUE each; give {second[1]} with another {option}")
        try:
            result[name] = plain_yaml.read(text)
        except plain_yaml.NotPlain as error:
            raise BadInput(f"{option}: the value of {name} is not readable: {text!r:.80}: {error}") from None
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
        return numerals.whole(word)
    except ValueError as error:
        raise BadInput(f"{option}: {error}") from None
