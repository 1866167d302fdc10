"""What the host does in a training step, in `sp` and in `ip`: processor time of a net whose numbers take none.

    python benchmarks/host.py [--out docs/figures/host]

A small net on a GPU takes as long as the host needs to start the kernels. That time can be measured without a GPU, on
a net so narrow that computing its values costs next to nothing: ResNet-20 with a quarter of its channels, on two images
of 8 x 8. Both spaces are measured in turns in one process; a number is the least of the turns, milliseconds of
processor time of this process with one thread. Beside them stand the operations of torch that a step calls. `select` is
the time of a selection on the CPU, seconds, by numpy as it is done there and by the sort that is used on GPUs.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from gpu import Images
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ipbench.machine.provenance import provenance
from ipbench.models.resnet import BasicBlock, PaddedShortcut
from ipbench.runs.environment import Environment, begin_anew, channels_last
from ipbench.sparse import selection
from ipbench.sparse.net import SparseNet
from ipbench.spec import Recipe, Run
from ipbench.training.loop import Sgd, train_steps

SHAPE, CLASSES, BATCH = (3, 8, 8), 10, 2
WIDTHS = (4, 8, 16)
SETTINGS = (("strict", "float32"), ("fast", "float32"), ("fast", "bf16"))
TURNS, STEPS = 25, 20
SCORES = (10_000, 1_000_000, 15_000_000)


def narrow() -> nn.Module:
    """ResNet-20 for CIFAR with a quarter of its channels."""
    net = nn.Sequential(
        OrderedDict(conv=nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False), norm=nn.BatchNorm2d(WIDTHS[0]))
    )
    channels = WIDTHS[0]
    for width in WIDTHS:
        for block in range(3):
            stride = 2 if width > WIDTHS[0] and not block else 1
            net.append(BasicBlock(channels, width, stride, PaddedShortcut))
            channels = width
    return net.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES)])


class Small(Images):
    """One batch of tiny images."""

    def __init__(self, lasting: bool) -> None:
        super().__init__("cifar10", BATCH, STEPS, "cpu", lasting)
        images = self.batch.images[:, :, : SHAPE[1], : SHAPE[2]]
        kept = images.contiguous(memory_format=torch.channels_last if lasting else torch.contiguous_format)
        self.batch, self.shape = self.batch._replace(images=kept), SHAPE


class _Counted(TorchDispatchMode):
    """Counts operations."""

    calls = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One more."""
        self.calls += 1
        return function(*args, **(kwargs or {}))


class Steps:
    """The net in a space, a tenth of it trained, and its steps."""

    def __init__(self, mode: str, precision: str, space: str) -> None:
        environment = Environment(device="cpu")
        run = Run.model_validate(
            {"dataset": "cifar10", "model": "resnet20-cifar", "method": "snip", "sparsity": "0.9", "mode": mode,
             "space": space, "recipe": Recipe(precision=precision)}  # type: ignore[arg-type]
        )  # fmt: skip
        begin_anew(run, environment)
        torch.set_num_threads(1)
        lasting = channels_last(mode, environment)
        self.data: Any = Small(lasting)
        self.net = SparseNet(narrow(), run, SHAPE)
        if lasting:
            self.net.to(memory_format=torch.channels_last)
        self.net.prune({name: self.net.uniform(name) < 0.1 for name in self.net.masks})
        self.run, self.optimiser = run, Sgd(self.net, run.recipe, {})

    def calls(self) -> float:
        """Operations of torch that a step calls."""
        with _Counted() as counted:
            train_steps(self.net, self.data, self.run.recipe, self.optimiser, 0, STEPS)
        return round(counted.calls / STEPS, 1)

    def turn(self) -> float:
        """Milliseconds of a step, over an epoch of them."""
        begin = time.process_time()
        train_steps(self.net, self.data, self.run.recipe, self.optimiser, 0, STEPS)
        return (time.process_time() - begin) * 1e3 / STEPS


def steps() -> list[dict[str, Any]]:
    """Milliseconds of a step in both spaces, and their ratio."""
    rows = []
    for mode, precision in SETTINGS:
        both = {space: Steps(mode, precision, space) for space in ("sp", "ip")}
        least = dict.fromkeys(both, float("inf"))
        for turn in range(TURNS + 1):
            for space, net in both.items():
                found = net.turn()
                least[space] = min(least[space], found) if turn else least[space]  # the first one warms up
        rows.append(
            {"mode": mode, "precision": precision, "n": TURNS}
            | {f"{space}_ms": round(value, 3) for space, value in least.items()}
            | {"ip_over_sp": round(least["ip"] / least["sp"], 3)}
            | {f"{space}_calls": net.calls() for space, net in both.items()}
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def select() -> list[dict[str, float]]:
    """Seconds of a selection of a tenth, in both ways."""
    rows = []
    for size in SCORES:
        scores = torch.rand(size, generator=torch.Generator().manual_seed(0))
        given = scores, torch.ones(size, dtype=torch.bool), size // 10, size, 1
        ways: dict[str, Callable[..., object]] = {
            "partition": selection._by_partition, "sort": selection._by_sorting
        }  # fmt: skip
        rows.append({"scores": size, **{name: _least(way, *given) for name, way in ways.items()}})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def _least(function: Callable[..., object], *given: Any) -> float:
    """Seconds of processor time of one call, the least of three."""
    times = []
    for _ in range(3):
        begin = time.process_time()
        function(*given)
        times.append(time.process_time() - begin)
    return round(min(times), 4)


def main() -> None:
    """Measure, print and, with `--out`, write `OUT.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write OUT.json")
    given = parser.parse_args()
    found = {"steps": steps(), "select": select(), "provenance": provenance("cpu")}
    if given.out:
        given.out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
