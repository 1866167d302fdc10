"""A run, from its spec to its record.

Everything that decides a number is in the `Run`; where it is computed (device, threads, loader) is in the
`Environment`, which the record's provenance tells.
"""

from __future__ import annotations

import hashlib
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ipbench import methods, output
from ipbench.data import digest
from ipbench.data import own as own_data
from ipbench.data.loaders import Data
from ipbench.errors import BadInput, BadProduct
from ipbench.files import Missing
from ipbench.machine import distributed
from ipbench.machine.precision import set_tf32
from ipbench.machine.process_state import reset
from ipbench.machine.provenance import provenance
from ipbench.models.build import build as build_model
from ipbench.models.catalog import TIMM
from ipbench.models.initialise import initialise
from ipbench.planning.numerics import numerics
from ipbench.runs.controls import Source, initial_seed
from ipbench.runs.effective import describe_effective
from ipbench.runs.external import external_masks
from ipbench.runs.latency import side_by_side
from ipbench.runs.outcome import complete, describe
from ipbench.runs.stages import Given, execute_stages
from ipbench.runs.state import End, State, has_end, read_end, write_end
from ipbench.runs.trials import check_share, check_strict
from ipbench.sparse import measure
from ipbench.sparse.net import SparseNet
from ipbench.sparse.selection import Impossible, NotFinite
from ipbench.sparse.slicing import plan, slice_net
from ipbench.spec import Run, canonical_json
from ipbench.store import read_json, without_nan, write_json


@dataclass(frozen=True)
class Environment:
    """Where and how a run is computed; in strict mode none of it but the device and the threads can change a number.

    Attributes:
        root: the folder of the data sets.
        device: "cpu", "cuda" or "cuda:1".
        threads: of torch on the CPU.
        loader: "memory" or "ffcv"; both give the same pixels.
        workers: threads that read images (ffcv, and folders of images).
    """

    root: Path = Path("data")
    device: str = "cpu"
    threads: int = 1
    loader: Literal["memory", "ffcv"] = "memory"
    workers: int = 1


def choose_device(wanted: str) -> str:
    """ "auto" to "cuda" if there is a GPU, else "cpu".

    Raises:
        BadInput: the device does not exist here.
    """
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise BadInput(f"unknown device {wanted!r}; valid: auto, cpu, cuda, cuda:0, cuda:1, ...") from None
    if device.type not in ("cpu", "cuda"):
        raise BadInput(f"unknown device {wanted!r}; valid: auto, cpu, cuda, cuda:0, cuda:1, ...")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BadInput(f"device {wanted!r} is not here: torch sees {torch.cuda.device_count()} GPUs")
    return wanted


def set_mode(mode: str, environment: Environment) -> None:
    """Set torch's switches for `strict` (bit-equal on one machine) or `fast`, and the GPU that this process uses."""
    strict, device = mode == "strict", torch.device(environment.device)
    if device.type == "cuda":
        torch.cuda.init()
        torch.cuda.set_device(torch.cuda.current_device() if device.index is None else device.index)
    torch.set_num_threads(environment.threads)
    # Not `use_deterministic_algorithms`: it does the same and imports torch's compiler, which takes four seconds.
    torch.set_deterministic_debug_mode("error" if strict else "default")
    # New memory would be filled with NaN, a kernel for every tensor: it finds mistakes, and changes no number.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not strict
    set_tf32(not strict, not strict)


def begin_anew(run: Run, environment: Environment) -> None:
    """Make this process one in which nothing has run before: other runs, other methods and their state."""
    reset(run.seed)
    methods.renew()
    reset(run.seed)  # a method's file may have changed something when it was run
    set_mode(run.mode, environment)


def channels_last(mode: str, environment: Environment) -> bool:
    """Whether nets and images lie in torch's channels-last memory format: faster, and sums are formed in another order.

    Always on GPUs; on CPUs in `fast` mode alone, so that strict runs stay what they were.
    """
    return mode == "fast" or torch.device(environment.device).type == "cuda"


def record_path(results: Path, run: Run) -> Path:
    """Where the record of a run lies."""
    return results / "runs" / run.cell / f"{run.seed}.json"


def state_path(results: Path, run: Run) -> Path:
    """Where the resume state of a run lies until its record is written."""
    return results / "state" / run.cell / f"{run.seed}.safetensors"


def end_path(results: Path, run: Run) -> Path:
    """Where the end of a run lies that others continue from."""
    return results / "ends" / run.cell / f"{run.seed}.safetensors"


def finished(
    results: Path, run: Run, environment: Environment | None = None, *, keep: bool = False
) -> dict[str, Any] | None:
    """The record of a run if it is there, whole, and of the present numerics, method code and images.

    Args:
        results: the experiment's folder.
        run: which.
        environment: where its images are; left out, they are not compared.
        keep: ask for the end of the run, too, where there is one to keep.

    Raises:
        BadProduct: it is there but cannot be trusted.
    """
    path = record_path(results, run)
    try:
        record = read_json(path)
    except Missing:
        return None
    if not _is_of(record, run):
        raise BadProduct(f"{path}: not the record of run {run.id}; delete it to have it made again")
    if _stale(record["provenance"], run, environment):
        return None
    kept = not keep or record["status"] != "done" or has_end(end_path(results, run), run, record["provenance"])
    return record if kept else None


def _is_of(record: Mapping[str, Any], run: Run) -> bool:
    """Whether a record is that of a run and whole, by what it holds and not by what it is called."""
    try:
        of_run = (record["id"], Run.model_validate(record["run"]).id) == (run.id, run.id)
        outcome = hashlib.sha256(canonical_json(record["outcome"]).encode()).hexdigest()
        known = record["status"] in ("done", "diverged", "impossible") and "numerics" in dict(record["provenance"])
    except (KeyError, TypeError, ValueError, RecursionError):  # a pydantic error is a ValueError
        return False
    return of_run and known and record["outcome_sha256"] == outcome


def _stale(provenance: dict[str, Any], run: Run, environment: Environment | None) -> bool:
    """Whether a record was made of something else than what is there now."""
    code = methods.code(run.method)
    if provenance["numerics"] != numerics(run) or provenance.get("method") != (code.sha256 if code else None):
        return True
    if environment is None or provenance.get("data") is None:  # records of version 0.1 do not tell their images
        return False
    try:
        return bool(provenance["data"] != digest.of(run.dataset, environment.root, environment.loader))
    except BadProduct:
        raise
    except BadInput:  # a finished run needs no images
        return False


def execute(
    run: Run,
    results: Path,
    environment: Environment,
    *,
    keep: bool = False,
    on_epoch: Callable[[int, int], None] = lambda epoch, epochs: None,
) -> dict[str, Any]:
    """Train one run and write its record; a finished one is read, an interrupted one continued.

    Args:
        run: what to train. If it continues another run, that one is executed first, unless it is finished.
        results: the experiment's folder.
        environment: where and how.
        keep: keep the end of the run for others that continue it.
        on_epoch: called with the epochs finished and all epochs, for a progress bar.

    Returns:
        The record (docs/design.md lists its keys).
    """

    def found() -> dict[str, Any] | None:
        if record := finished(results, run, environment, keep=keep):
            state_path(results, run).unlink(missing_ok=True)  # left by a process that was killed before it came to this
        return record

    record: dict[str, Any] | None = distributed.by_first(found)
    if record:
        return record
    parent, source = next(iter(methods.line(run)), None), methods.source_of(run)
    records = [
        execute(other, results, environment, keep=True, on_epoch=on_epoch) if other else None
        for other in (source, parent)
    ]
    work = _Work(run, results, environment, parent, records[1], source, records[0])
    record = work.record(*work.result(keep, on_epoch))

    def write() -> dict[str, Any]:
        write_json(record_path(results, run), record)
        work.state.path.unlink(missing_ok=True)
        return record

    written: dict[str, Any] = distributed.by_first(write)
    return written


class _Work:
    """A run while it is trained: its net, its state, and what it has cost."""

    def __init__(
        self,
        run: Run,
        results: Path,
        environment: Environment,
        parent: Run | None,
        before: Mapping[str, Any] | None,
        source: Run | None,
        of_source: Mapping[str, Any] | None,
    ) -> None:
        """Begin as a new process does, open the data and build the net.

        Args:
            run: that is trained.
            results: the experiment's folder.
            environment: where and how.
            parent: the run that it continues.
            before: the record of that run.
            source: the run that it is a control of.
            of_source: the record of that one.
        """
        self.run, self.results, self.environment, self.parent, self.before = run, results, environment, parent, before
        self.source, self.of_source = source, of_source
        self.begin = time.perf_counter(), time.process_time()
        begin_anew(run, environment)
        with distributed.together():
            self.data = open_data(run, environment)
            tell_notes(self.data)
            self.there = content(run, environment)
            self.net = build_net(run, self.data, environment)
            check_share(self.net, self.data)
            check_strict(self.net, self.data)
        measure.begin_peak(environment.device)  # of this run alone, though a job trains several
        self.state = State(state_path(results, run), run, {**self.there, **versions(environment)})

    def spent(self) -> tuple[float, float]:
        """Seconds of the clock and of the processor, of this process."""
        return time.perf_counter() - self.begin[0], time.process_time() - self.begin[1]

    def save(self) -> None:
        """Write the state."""
        spent = self.spent()
        distributed.by_first(lambda: self.state.save(self.net, *spent))

    def start(self) -> End:
        """Where the run begins: the end of the one that it continues."""
        if self.parent is None:
            return End({}, {})
        return read_end(end_path(self.results, self.parent), self.parent, self.there)

    def taken(self) -> Source:
        """What the run takes of the one that it is a control of."""
        assert self.source is not None and self.of_source is not None
        end = read_end(end_path(self.results, self.source), self.source, self.there)
        return Source(self.source, self.of_source, end)

    def require(self) -> None:
        """Check that the runs which this one needs are done.

        Raises:
            Impossible: one of them is impossible.
            NotFinite: one has diverged.
        """
        for record, which in ((self.before, "continues"), (self.of_source, "is a control of")):
            if record and record["status"] != "done":
                raise {"impossible": Impossible, "diverged": NotFinite}[record["status"]](
                    f"the run that this one {which} ({record['cell']}) is {record['status']}: {record['reason']}"
                )

    def result(self, keep: bool, on_epoch: Callable[[int, int], None]) -> tuple[str, str | None, dict[str, Any]]:
        """Train; status, reason and outcome of the record."""
        net, data, state = self.net, self.data, self.state
        try:
            self.require()
            state.load(net)
            given = Given(
                fresh=lambda: build_net(self.run, data, self.environment),
                start=self.start,
                external=lambda net: external_masks(net, self.results, self.there),
                source=self.taken,
                small=lambda net: initial_values(net, data),
            )
            execute_stages(net, data, state, given, save=self.save, on_epoch=on_epoch)
            outcome = complete(net, data, state)
            if keep:
                self.keep(outcome)
        except Impossible as error:
            return "impossible", str(error), {}
        except NotFinite as error:
            return "diverged", str(error), describe(net, data, state)
        return "done", None, outcome

    def keep(self, outcome: Mapping[str, Any]) -> None:
        """Write where the run ended, for others that continue it."""
        facts = {"training_flops": outcome["training_flops"]}
        if math.isfinite(self.state.epochs):
            facts |= {"epochs": self.state.epochs}
            facts |= {name: self.state.facts.get(name, 0) for name in ("inherited_epochs", "inherited_flops")}
        facts |= {"faded": self.net.faded} if self.run.off == "decayed" else {}
        end = End(self.net.tensors(), self.net.masks, self.state.point, facts, self.net.structure)
        distributed.by_first(lambda: write_end(end_path(self.results, self.run), self.run, end, self.there))

    def cost(self, status: str) -> dict[str, Any]:
        """What the run has cost: also what choosing took where a method chooses by more than a ranking, and of a net
        whose channels were cut its latency, beside the dense net's.
        """
        wall, processor = self.spent()
        cost: dict[str, Any] = {
            "wall_seconds": round(self.state.seconds + wall, 3),
            "cpu_seconds": round(self.state.cpu_seconds + processor, 3),
            "peak_memory_bytes": measure.peak_memory(self.environment.device),
        }
        if any(isinstance(stage, methods.Choose) for stage in methods.get(self.run.method).stages_of(self.run)):
            cost["choosing_seconds"] = round(self.state.choosing, 3)
        if status == "done" and self.net.structure:
            dense = build_net(self.run, self.data, self.environment)
            cost["latency"] = side_by_side(dense, self.net, self.data)
        return cost

    def record(self, status: str, reason: str | None, outcome: dict[str, Any]) -> dict[str, Any]:
        """The record of the run."""
        run, environment, state, before = self.run, self.environment, self.state, self.before
        cost = self.cost(status)
        return {
            "id": run.id,
            "cell": run.cell,
            "run": run.to_json(),
            "status": status,
            "reason": reason,
            "outcome": (outcome := without_nan(outcome)),
            "outcome_sha256": hashlib.sha256(canonical_json(outcome).encode()).hexdigest(),
            **({"activity": vars(state.activity)} if methods.get(run.method).updates(run) else {}),
            **({} if status == "impossible" else {"effective": describe_effective(self.net)}),
            "cost": cost,
            "provenance": {
                "numerics": numerics(run),
                **self.there,
                **of_the_model(run),
                **({"boxes": self.data.notes} if self.data.notes else {}),
                **handed_on(provenance(environment.device), before),
                "threads": environment.threads,
                **handed_on({"processes": in_turn(state.processes)}, before),
                "mode": run.mode,
                "loader": environment.loader,
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            },
        }


def open_data(run: Run, environment: Environment) -> Data:
    """What a run reads; of several processes each reads its part.

    Raises:
        BadInput: a user's data set is not known here, or has changed; besides, what `Data` raises.
    """
    own_data.check(run.dataset, run.own.data)
    return Data(
        run.dataset,
        run.recipe,
        run.seed,
        root=environment.root,
        loader=environment.loader,
        workers=environment.workers,
        device=environment.device,
        channels_last=channels_last(run.mode, environment),
        rank=distributed.rank(),
        world=distributed.processes(),
    )


def tell_notes(data: Data) -> None:
    """Say what of a data set is not as in its files, once in a process."""
    for split, note in data.notes.items():
        if distributed.first():
            _say_once(f"ipbench: {data.name}, {split} part: {note}")


@cache
def _say_once(text: str) -> None:
    output.complain(text)


def content(run: Run, environment: Environment) -> dict[str, str]:
    """What a run's names stand for here: the digests of its images and, of a user's method, of its code."""
    code = methods.code(run.method)
    images = digest.of(run.dataset, environment.root, environment.loader)
    return {"data": images, **({"method": code.sha256} if code else {})}


def of_the_model(run: Run) -> dict[str, str]:
    """What a record tells of a model that is a user's, or timm's."""
    told = {"model": run.own.code, "weights": run.own.weights, "timm": ""}
    if run.net.startswith(TIMM) or (run.own.code and "timm" in sys.modules):
        told["timm"] = metadata.version("timm")
    return {name: value for name, value in told.items() if value}


def in_turn(numbers: Sequence[int]) -> int | str:
    """A number, or "1 then 2" where it was another one before."""
    return numbers[0] if len(numbers) == 1 else " then ".join(map(str, numbers))


def handed_on(here: Mapping[str, Any], before: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a record tells of these: "2.14.1 then 2.15.0" where the run that it continues was made by something else."""
    told = before["provenance"] if before else {}
    result = dict(here)
    for name in {*here} & {"torch", "torchvision", "device", "processes"}:
        there = told.get(name)
        if there is not None and there != here[name]:
            result[name] = there if str(there).endswith(f" then {here[name]}") else f"{there} then {here[name]}"
    return result


def versions(environment: Environment) -> dict[str, Any]:
    """What one training is not continued across: the release of torch, the kind of device."""
    return {
        "torch": str(torch.__version__).partition("+")[0],
        "device": torch.device(environment.device).type,
    }


def build_net(run: Run, data: Data, environment: Environment) -> SparseNet:
    """The net of a run with its initial values, in the run's space and on the device."""
    made = build_model(run.model, data.shape, data.classes, initial_seed(run), run.recipe.init, run.own)
    net = SparseNet(made, run, data.shape)
    net = net.to(environment.device)
    return net.to(memory_format=torch.channels_last) if channels_last(run.mode, environment) else net


def initial_values(net: SparseNet, data: Data) -> dict[str, Tensor]:
    """Parameters and buffers of a net that was cut, as they are where a net of these widths is built and initialised.

    The variance of a weight follows from the number of its layer's inputs, of which a cut net has fewer.
    """
    run, seed = net.run, initial_seed(net.run)
    made = build_model(run.model, data.shape, data.classes, seed, run.recipe.init, run.own)
    slice_net(made, plan(net.groups, net.structure.removed(net.groups)))
    initialise(made, seed, run.recipe.init)
    return SparseNet(made, run, data.shape).tensors()
