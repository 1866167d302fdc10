"""What a training step costs on a GPU, in `sp` and in `ip`: time side by side, memory; and what surrounds the steps.

    python benchmarks/gpu.py [--out docs/figures/gpu] [--device cuda] [--only steps calls] [--models vgg16]

A step is all that the training loop does for a batch: forward and backward pass, masks, SGD. Both spaces are measured
in turns in one process, on random images that lie on the device: a loader is no part of it. Every ratio is of one run
of this file; its interval is that of the mean over the turns (Student's t, 95 %).
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch.profiler import ProfilerActivity, profile

from ipbench.data.loaders import Batch
from ipbench.machine.provenance import provenance
from ipbench.runs.building import build_net
from ipbench.runs.environment import Environment, begin_anew, channels_last
from ipbench.runs.state import State
from ipbench.sparse.net import SparseNet
from ipbench.sparse.selection import largest
from ipbench.spec import Recipe, Run
from ipbench.training.loop import Sgd, evaluate, train_steps

#: Shape of an image, and number of classes.
SHAPES = {"mnist": ((1, 28, 28), 10), "cifar10": ((3, 32, 32), 10), "imagenet": ((3, 224, 224), 1000)}
#: Model, data set, images of a batch, steps of a turn.
NETS = (
    ("lenet5-caffe", "mnist", 100, 40),
    ("small-vgg", "mnist", 128, 40),
    ("resnet20-cifar", "cifar10", 128, 25),
    ("vgg16", "cifar10", 128, 25),
    ("resnet18-cifar", "cifar10", 128, 15),
    ("resnet50", "imagenet", 128, 5),
)
#: Mode and precision.
SETTINGS = (("fast", "bf16"), ("fast", "float32"), ("strict", "float32"))
TURNS = 7
#: Operations of which `calls` tells.
MOST = 20


class Images:
    """Stands in for `Data`: one random batch on the device, handed out at every step."""

    def __init__(self, name: str, batch: int, steps: int, device: str, lasting: bool) -> None:
        self.name, self.steps_per_epoch, self.world = name, steps, 1
        self.shape, self.classes = SHAPES[name]
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(batch, *self.shape, generator=generator).to(device)
        labels = torch.randint(self.classes, (batch,), generator=generator).to(device)
        self.batch = Batch(images.to(memory_format=torch.channels_last) if lasting else images, labels)

    def train(self, epoch: int, skip: int = 0) -> Any:
        """The batches of an epoch."""
        return iter([self.batch] * (self.steps_per_epoch - skip))


class Training:
    """A net of which a tenth is trained, and its steps."""

    def __init__(self, setting: dict[str, Any], steps: int, batch: int, device: str) -> None:
        environment = Environment(device=device)
        run = Run(method="snip", sparsity="0.9", **setting)
        begin_anew(run, environment)
        self.data: Any = Images(run.dataset, batch, steps, device, channels_last(run.mode, environment))
        self.net: SparseNet = build_net(run, self.data, environment)
        self.net.prune({name: self.net.uniform(name) < 0.1 for name in self.net.masks})
        self.run, self.optimiser = run, Sgd(self.net, run.recipe, {})

    def turn(self) -> float:
        """Milliseconds of a step, over an epoch of them; the last one is waited for."""
        begin = time.perf_counter()
        train_steps(self.net, self.data, self.run.recipe, self.optimiser, 0, self.data.steps_per_epoch)
        return (time.perf_counter() - begin) * 1e3 / self.data.steps_per_epoch


def interval(values: np.ndarray) -> list[float]:
    """The 95 % interval of a mean."""
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    return [round(float(values.mean()) - half, 4), round(float(values.mean()) + half, 4)]


def free(device: str) -> None:
    """Give memory back."""
    gc.collect()
    if device != "cpu":
        torch.cuda.empty_cache()


def steps(device: str, models: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Milliseconds of a step in both spaces, their ratio, and the most memory that a turn held."""
    for model, dataset, batch, count in (net for net in NETS if net[0] in models):
        for mode, precision in SETTINGS:
            if dataset == "imagenet" and mode == "strict":
                continue  # a step of float32 without TF32 takes most of a second
            free(device)
            yield _steps(device, model, dataset, batch, count, mode, precision)


def _steps(device: str, model: str, dataset: str, batch: int, count: int, mode: str, precision: str) -> dict[str, Any]:
    setting = {"model": model, "dataset": dataset, "mode": mode, "recipe": Recipe(precision=precision)}
    row: dict[str, Any] = {"model": model, "batch": batch, "mode": mode, "precision": precision, "n": TURNS}
    both = {space: Training({**setting, "space": space}, count, batch, device) for space in ("sp", "ip")}
    times: dict[str, list[float]] = {space: [] for space in both}
    for training in both.values():
        for _ in range(2):  # kernels are chosen, memory is allocated
            training.turn()
    for _ in range(TURNS):
        for space, training in both.items():
            times[space].append(training.turn())
    for space, values in times.items():
        row[f"{space}_ms"] = round(float(np.median(values)), 3)
    ratios = np.array(times["ip"]) / np.array(times["sp"])
    row |= {"ip_over_sp": round(float(ratios.mean()), 4), "interval": interval(ratios)}
    if device != "cpu":
        for space, training in both.items():
            held = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            training.turn()
            row[f"{space}_activations_gb"] = round((torch.cuda.max_memory_allocated() - held) / 1e9, 3)
    return row


def around(device: str) -> dict[str, Any]:
    """Seconds of what happens between steps: a selection, an evaluation, a state written."""
    found: dict[str, Any] = {}
    for size in (14_715_584, 25_502_912):
        scores = torch.rand(size, device=device)
        candidates = torch.ones_like(scores, dtype=torch.bool)
        keep = size // 10
        found[f"select_{size}"] = _seconds(partial(largest, scores, candidates, keep, 1))
        found[f"sort_{size}_on_the_device"] = _seconds(partial(torch.sort, scores))
    training = Training(
        {"model": "vgg16", "dataset": "cifar10", "space": "ip", "mode": "fast", "recipe": Recipe(precision="bf16")},
        2, 128, device,
    )  # fmt: skip
    training.turn()
    found["evaluate_10000_images_of_vgg16"] = _seconds(
        lambda: evaluate(training.net, [training.data.batch] * 79, training.run.recipe)
    )
    state = State(Path("state.safetensors"), training.run, {})
    state.progress.momentum, state.progress.best = training.optimiser.momentum, training.net.tensors()
    try:
        found["state_of_vgg16_written"] = _seconds(lambda: state.save(training.net, 0, 0))
    finally:
        state.path.unlink(missing_ok=True)
    print(json.dumps(found), flush=True)
    return found


def calls(device: str) -> list[dict[str, Any]]:
    """What the host spends a step of ResNet-20 on, by operation: calls, and microseconds without those that it calls.

    Under `all` the sum over all of them; then those on which `ip` spends more than `sp`, the greatest difference first.
    """
    name, dataset, batch, count = next(net for net in NETS if net[0] == "resnet20-cifar")
    found: dict[str, dict[str, list[float]]] = {}
    for place, space in enumerate(("sp", "ip")):
        setting = {"model": name, "dataset": dataset, "space": space, "mode": "fast", "recipe": Recipe()}
        training = Training(setting, count, batch, device)
        training.turn()
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            training.turn()
        for event in profiled.key_averages():
            for what in (event.key, "all"):
                row = found.setdefault(what, {"calls": [0, 0], "us": [0, 0]})
                row["calls"][place] += event.count / count
                row["us"][place] += event.self_cpu_time_total / count
    more = ["all", *sorted(found.keys() - {"all"}, key=lambda what: found[what]["us"][0] - found[what]["us"][1])]
    rows = [{"operation": what}
            | {f"{space}_{kind}": round(found[what][kind][place], 1)
               for kind in ("calls", "us") for place, space in enumerate(("sp", "ip"))}
            for what in more[:MOST]]  # fmt: skip
    for row in rows:
        print(json.dumps(row), flush=True)
    return rows


def _seconds(function: Callable[[], object]) -> float:
    """The median of three calls after a first one, each waited for."""
    values = []
    for _ in range(4):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        begin = time.perf_counter()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        values.append(time.perf_counter() - begin)
    return round(float(np.median(values[1:])), 4)


def table(found: dict[str, Any]) -> str:
    """The steps as a table in Markdown."""
    told = found["provenance"]
    lines = [
        "| net, images of a batch | mode, precision | step in `sp`, ms | step in `ip`, ms | `ip` / `sp` (95 %) |"
        " activations, GB |",
        "|---|---|---|---|---|---|",
    ]
    for row in found["steps"]:
        low, high = row["interval"]
        memory = (
            f"{row['sp_activations_gb']:.2f} / {row['ip_activations_gb']:.2f}" if "sp_activations_gb" in row else ""
        )
        lines.append(
            f"| {row['model']}, {row['batch']} | {row['mode']}, {row['precision']} | {row['sp_ms']:.2f} |"
            f" {row['ip_ms']:.2f} | {row['ip_over_sp']:.2f} ({low:.2f} to {high:.2f}) | {memory} |"
        )
    where = f"{told['device']}, torch {told['torch']}, CUDA {told.get('cuda')}, cuDNN {told.get('cudnn')}"
    lines += ["", f"{where}; {told['cpu']}; commit {str(told['commit'])[:10]}; {TURNS} turns of each space."]
    return "\n".join(lines) + "\n"


SECTIONS = ("steps", "around", "calls")


def write(out: Path | None, found: dict[str, Any]) -> None:
    """All that is measured so far: what is stopped before its end has left what it found."""
    if out:
        out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
        if "steps" in found:
            out.with_suffix(".md").write_text(table(found))


def main() -> None:
    """Measure, print and, with `--out`, write `OUT.json` and the table of steps, `OUT.md`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write OUT.json, and OUT.md of the steps")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", nargs="*", choices=SECTIONS, default=list(SECTIONS))
    models = [net[0] for net in NETS]
    parser.add_argument("--models", nargs="*", choices=models, default=models, help="whose steps are measured")
    given = parser.parse_args()
    found: dict[str, Any] = {"provenance": provenance(given.device)}
    for row in steps(given.device, given.models) if "steps" in given.only else ():
        print(json.dumps(row), flush=True)
        found.setdefault("steps", []).append(row)
        write(given.out, found)
    for section, measure in (("around", around), ("calls", calls)):
        if section in given.only:
            found[section] = measure(given.device)
            write(given.out, found)


if __name__ == "__main__":
    main()
