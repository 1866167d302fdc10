"""What a restarted process needs to continue a run, and the file that holds it (floor 5)."""

from __future__ import annotations

import math
from pathlib import Path

from torch import Tensor

from ipbench import NUMERICS
from ipbench.sparse_net import SparseNet
from ipbench.spec import Run
from ipbench.store import read_tensors, without_nan, write_tensors
from ipbench.training import Progress


class State:
    """The state of a run between two epochs or stages, on disk under `path`.

    Attributes:
        stage: the first stage that is not finished.
        progress: of the training in that stage (or in the last one).
        facts: numbers taken once, at the start of the training.
        seconds: spent by former processes.
    """

    def __init__(self, path: Path, run: Run) -> None:
        self.path = path
        self.identity = {"run": run.id, "numerics": NUMERICS}
        self.stage = 0
        self.progress = Progress()
        self.facts: dict[str, float] = {}
        self.seconds = 0.0

    def save(self, net: SparseNet, seconds: float) -> None:
        """Write everything to the file."""
        groups = {
            "net": net.tensors(),
            "mask": net.masks,
            "momentum": self.progress.momentum,
            "best": self.progress.best,
        }
        facts = {
            **self.identity,
            "stage": self.stage,
            "epoch": self.progress.epoch,
            "curves": self.progress.curves,
            "best_epoch": self.progress.best_epoch,
            "facts": self.facts,
            "seconds": self.seconds + seconds,
        }
        tensors = {f"{group}/{name}": tensor for group, values in groups.items() for name, tensor in values.items()}
        write_tensors(self.path, tensors, without_nan(facts))

    def load(self, net: SparseNet) -> None:
        """Continue where the file stands, if there is one of this run and numerics."""
        if not self.path.exists():
            return
        tensors, facts = read_tensors(self.path)
        if {name: facts[name] for name in self.identity} != self.identity:
            return
        groups: dict[str, dict[str, Tensor]] = {"net": {}, "mask": {}, "momentum": {}, "best": {}}
        for label, tensor in tensors.items():
            group, _, name = label.partition("/")
            groups[group][name] = tensor
        net.load_tensors(groups["net"])
        net.masks = {name: groups["mask"][name].to(mask.device) for name, mask in net.masks.items()}
        self.stage, self.facts, self.seconds = facts["stage"], facts["facts"], facts["seconds"]
        curves = {name: [math.nan if v is None else v for v in values] for name, values in facts["curves"].items()}
        self.progress = Progress(facts["epoch"], curves, groups["momentum"], groups["best"], facts["best_epoch"])
