"""What a restarted process or a later run needs to go on from: resume states and ends of runs, on disk."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ipbench.errors import BadInput, BadProduct
from ipbench.files import Missing
from ipbench.machine.distributed import by_first, processes, tensors_by_first
from ipbench.planning.numerics import numerics
from ipbench.runs.memory import packed, packed_by_owner, unpacked, unpacked_by_owner
from ipbench.sparse.net import SparseNet
from ipbench.sparse.structure import Structure
from ipbench.spec import Run
from ipbench.store import read_tensors, without_nan, write_tensors
from ipbench.training.loop import Begun, Progress
from ipbench.training.updates import Activity
from ipbench.updaters import Updater

#: Between two states that are saved after an epoch: more often would cost more than a kill does.
SECONDS_BETWEEN_STATES = 60.0


class State:
    """The state of a run between two epochs or stages, or where a signal stopped it, on disk under `path`.

    Attributes:
        stage: the first stage that is not finished.
        inside: whether that stage is a training that has begun; `progress` is of it then, else of the last one.
        progress: of a training.
        flops: of the finished trainings of this run, each summed with the net as it then was.
        epochs: that the values were trained for, from the initial ones on; NaN behind an end that does not tell.
        updater: that is at work in the training; None between trainings, and where there is none.
        remembered: what the updater of the training that a file was saved in remembers, for its `load`.
        point: the tensors that a rewinding stage went back to, of the dense net.
        facts: numbers taken once, at the start of the first training, or handed on by the run this one continues.
        activity: what updates have done to the masks.
        choosing: seconds of the clock that choices took which are no ranking of scores.
        seconds: of the clock, spent by former processes.
        cpu_seconds: of the processor, spent by former processes.
        processes: how many trained together, one number after the other.
    """

    def __init__(self, path: Path, run: Run, here: Mapping[str, Any] | None = None) -> None:
        """A new run.

        Args:
            path: of the file.
            run: whose state it is.
            here: what else must be the same for a file to be continued: images, code, versions.
        """
        self.path = path
        self.identity = {"kind": "state", "layout": _LAYOUT, "run": run.id, "numerics": numerics(run), **(here or {})}
        self.stage = 0
        self.inside = False
        self.progress = Progress()
        self.flops = 0
        self.epochs = 0.0
        self.updater: Updater | None = None
        self.remembered: dict[str, Any] | None = None
        self.point: dict[str, Tensor] = {}
        self.facts: dict[str, Any] = {}
        self.activity = Activity()
        self.choosing = 0.0
        self.seconds = 0.0
        self.cpu_seconds = 0.0
        self.processes = [processes()]
        self._saved = time.monotonic()

    def due(self) -> bool:
        """Whether the state is worth saving after an epoch: the last one is a while ago. All processes agree."""
        due: bool = by_first(lambda: time.monotonic() - self._saved >= SECONDS_BETWEEN_STATES)
        return due

    @property
    def training_flops(self) -> int:
        """FLOPs of this run's trainings, the epochs of an unfinished one included."""
        return self.flops + (self.progress.flops if self.inside else 0)

    def save(self, net: SparseNet, seconds: float, cpu_seconds: float) -> None:
        """Write everything to the file, with what this process has spent."""
        progress = self.progress
        groups = {
            "net": net.tensors(),
            "mask": net.masks,
            "momentum": progress.momentum,
            "best": progress.best,
            "point": self.point,
            "generator": progress.begun.generator,
            "memory": packed_by_owner(net.state, f"method {net.run.method}: net.state"),
            "updater": remembers(self.updater) if self.updater else {},
        }
        facts = {
            **self.identity,
            "stage": self.stage,
            "inside": self.inside,
            "flops": self.flops,
            "epochs": self.epochs,
            "progress": {name: getattr(progress, name) for name in _NUMBERS},
            "begun": {name: getattr(progress.begun, name) for name in _BEGUN},
            "facts": self.facts,
            "activity": vars(self.activity),
            "structure": net.structure.to_json(),
            "faded": net.faded,
            "notes": _plain(net.notes, f"method {net.run.method}: net.notes"),
            "choosing": self.choosing,
            "seconds": self.seconds + seconds,
            "cpu_seconds": self.cpu_seconds + cpu_seconds,
            "processes": self.processes,
        }
        write_tensors(self.path, _joined(groups), without_nan(facts))
        self._saved = time.monotonic()

    def load(self, net: SparseNet) -> None:
        """Continue where the file stands, if it is of this run, these numerics, images, code and versions.

        Of several processes, the first one reads it.
        """
        found = tensors_by_first(self._read)
        if found is None:
            return
        tensors, facts = found
        groups = _split(tensors)
        structure = Structure.from_json(facts["structure"])
        net.restore(structure, groups["net"], groups["mask"], _nan(facts["faded"]))
        self.stage, self.inside, self.flops = facts["stage"], facts["inside"], facts["flops"]
        self.epochs = _nan(facts["epochs"])
        device = next(net.parameters()).device
        net.state.clear()
        net.state.update(unpacked_by_owner(groups["memory"], device))
        self.remembered = unpacked(groups["updater"], device) if self.inside else None
        self.facts, self.point = facts["facts"], groups["point"]
        self.activity = Activity(**facts["activity"])
        net.notes = facts["notes"]
        self.choosing = facts.get("choosing", 0.0)
        self.seconds, self.cpu_seconds = facts["seconds"], facts["cpu_seconds"]
        before = facts["processes"]
        self.processes = before if before[-1] == processes() else [*before, processes()]
        numbers = facts["progress"]
        curves = {name: [_nan(value) for value in values] for name, values in numbers["curves"].items()}
        numbers |= {"curves": curves, "best_accuracy": _nan(numbers["best_accuracy"])}
        begun = facts["begun"]
        self.progress = Progress(
            **numbers,
            momentum=groups["momentum"],
            best=groups["best"],
            begun=Begun(begun["steps"], [*map(_nan, begun["losses"])], _nan(begun["norm"]), groups["generator"]),
        )

    def _read(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The file, if there is one of this run and numerics."""
        try:
            tensors, facts = read_tensors(self.path)
        except Missing:  # none yet, or another process finished the same run meanwhile
            return None
        same = {name: facts.get(name) for name in self.identity} == self.identity
        return (tensors, facts) if same else None


def remembers(updater: Updater) -> dict[str, Tensor]:
    """What an updater tells of itself, for a file.

    Raises:
        BadInput: it is not tensors and numbers by name.
    """
    who, found = type(updater).__name__, updater.tensors()
    if not isinstance(found, Mapping):
        raise BadInput(f"{who}.tensors must return a dict of tensors and numbers, not {found!r:.60}")
    return packed(found, who)


@dataclass(frozen=True)
class End:
    """Where a run ended: what another run continues from.

    Attributes:
        net: parameters and buffers.
        masks: by layer.
        point: where rewinding went back to, of the dense net; empty if the run did not rewind.
        facts: `training_flops`, all that was spent from the initial values on; `epochs`, those of the values, and of
            these `inherited_epochs` and `inherited_flops`, of the run that it continued (ends of version 0.2.0 tell
            none of the three); and of the off-value `decayed` `faded`.
        structure: what is left of the net's channels.
    """

    net: dict[str, Tensor]
    masks: dict[str, Tensor]
    point: dict[str, Tensor] = field(default_factory=dict)
    facts: dict[str, float] = field(default_factory=dict)
    structure: Structure = field(default_factory=Structure)


def write_end(path: Path, run: Run, end: End, content: Mapping[str, str] | None = None) -> None:
    """Write the end of a run; `content`: digests of its images and code."""
    groups = {"net": end.net, "mask": end.masks, "point": end.point}
    told = {"structure": end.structure.to_json(), "facts": end.facts}
    write_tensors(path, _joined(groups), {**_identity_of_end(run), **(content or {}), **told})


def has_end(path: Path, run: Run, made_of: Mapping[str, Any]) -> bool:
    """Whether the end of a run is there, of what its record was made of; a file of another run is for `read_end`.

    Args:
        path: of the file.
        run: whose end.
        made_of: numerics and digests, as the record tells them; what either of the two does not tell is not compared.

    Raises:
        BadProduct: the file is damaged.
    """
    try:
        facts = read_tensors(path)[1]
    except Missing:
        return False
    both = [name for name in ("numerics", "data", "method") if name in facts and made_of.get(name) is not None]
    return all(facts[name] == made_of[name] for name in both) or facts.get("run") != run.id


def read_end(path: Path, run: Run, content: Mapping[str, str] | None = None) -> End:
    """Read the end of a run; of several processes, the first one reads it.

    Args:
        path: of the file.
        run: whose end it must be.
        content: digests of the images and the code that it must be of; ends of version 0.1 tell none.

    Raises:
        BadProduct: the file is missing, damaged, or of another run or numerics, of other images or other code.
    """
    identity = _identity_of_end(run)

    def read() -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, facts = read_tensors(path)
        told = {name: value for name, value in (content or {}).items() if name in facts}
        if told != {name: facts[name] for name in told}:
            raise BadProduct(
                f"{path}: the end of run {run.id} on other images or of other code; delete it to have it made again"
            )
        if {name: facts.get(name) for name in identity} != identity:
            raise BadProduct(
                f"{path}: not the end of run {run.id} with numerics {numerics(run)}; delete it to have it made again"
            )
        return tensors, facts

    found = tensors_by_first(read)
    assert found
    tensors, facts = found
    groups = _split(tensors)
    structure = Structure.from_json(facts.get("structure", {}))  # ends of version 0.2.0 tell none
    return End(groups["net"], groups["mask"], groups["point"], facts["facts"], structure)


def _identity_of_end(run: Run) -> dict[str, Any]:
    return {"kind": "end", "run": run.id, "numerics": numerics(run)}


#: Of a state's file; one of another layout is left alone, and its run begins anew.
_LAYOUT = 4
_GROUPS = ("net", "mask", "momentum", "best", "point", "generator", "memory", "updater")
_NUMBERS = ("epoch", "flops", "curves", "best_epoch", "best_accuracy")
_BEGUN = ("steps", "losses", "norm")


def _joined(groups: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {f"{group}/{name}": tensor for group, values in groups.items() for name, tensor in values.items()}


def _split(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    groups: dict[str, dict[str, Tensor]] = {group: {} for group in _GROUPS}
    for label, tensor in tensors.items():
        group, _, name = label.partition("/")
        groups[group][name] = tensor
    return groups


def _plain(notes: Mapping[str, object], who: str) -> Mapping[str, object]:
    """Notes that a record can hold.

    Raises:
        BadInput: a value is no plain one.
    """
    for name, value in notes.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            raise BadInput(
                f"{who}: {name!r:.60} is {' '.join(repr(value).split()):.60}; plain numbers, texts, lists and dicts can"
                " be noted"
            ) from None
    return notes


def _nan(value: Any) -> float:
    """JSON has no word for nan: it was written as null."""
    return math.nan if value is None else float(value)
