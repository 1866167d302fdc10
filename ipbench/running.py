"""A run, from its spec to its record (floor 5).

Everything that decides a number is in the `Run`; where it is computed (device, threads, loader) is in the
`Environment`, which the record's provenance tells.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch

from ipbench import NUMERICS, distributed, measure, methods
from ipbench.data.loaders import Data
from ipbench.errors import BadInput, BadProduct
from ipbench.masks import Impossible, NotFinite
from ipbench.models.build import build as build_model
from ipbench.outcome import assess, describe
from ipbench.provenance import provenance
from ipbench.resume import End, State, read_end, write_end
from ipbench.sparse_net import SparseNet
from ipbench.spec import Run, canonical_json
from ipbench.stages import execute_stages
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
    """Set torch's switches for `strict` (bit-equal on one machine) or `fast`."""
    strict = mode == "strict"
    torch.set_num_threads(environment.threads)
    # Not `use_deterministic_algorithms`: it does the same and imports torch's compiler, which takes four seconds.
    torch.set_deterministic_debug_mode("error" if strict else "default")
    torch.backends.cudnn.benchmark = not strict
    torch.backends.cudnn.allow_tf32 = not strict
    torch.backends.cuda.matmul.allow_tf32 = not strict


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


def finished(results: Path, run: Run, *, keep: bool = False) -> dict[str, Any] | None:
    """The record of a run if it is there, whole and of the present numerics.

    Args:
        results: the experiment's folder.
        run: which.
        keep: ask for the end of the run, too, where there is one to keep.

    Raises:
        BadProduct: it is there but cannot be trusted.
    """
    path = record_path(results, run)
    if not path.exists():
        return None
    record = read_json(path)
    if record.get("id") != run.id:
        raise BadProduct(f"{path}: not the record of run {run.id}; delete it to have it made again")
    missing = keep and record["status"] == "done" and not end_path(results, run).exists()
    return record if record["provenance"]["numerics"] == NUMERICS and not missing else None


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
    if record := finished(results, run, keep=keep):
        if distributed.first():  # left by a process that was killed before it came to this
            state_path(results, run).unlink(missing_ok=True)
        return record
    parent = methods.parent(run)
    before = execute(parent, results, environment, keep=True, on_epoch=on_epoch) if parent else None
    begin, begin_cpu = time.perf_counter(), time.process_time()
    set_mode(run.mode, environment)
    if torch.device(environment.device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(environment.device)  # of this run alone, though a job trains several
    data = Data(
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
    net = build_net(run, data, environment)
    state = State(state_path(results, run), run)
    status, reason, outcome = "done", None, {}

    def save(seconds: float, cpu_seconds: float) -> None:
        if distributed.first():
            state.save(net, seconds, cpu_seconds)
        distributed.wait()

    try:
        if before and before["status"] != "done":
            raise {"impossible": Impossible, "diverged": NotFinite}[before["status"]](
                f"the run that this one continues ({before['cell']}) is {before['status']}: {before['reason']}"
            )
        state.load(net)
        execute_stages(
            net,
            data,
            state,
            fresh=lambda: build_net(run, data, environment),
            start=lambda: read_end(end_path(results, parent), parent) if parent else End({}, {}),
            save=lambda: save(time.perf_counter() - begin, time.process_time() - begin_cpu),
            on_epoch=on_epoch,
        )
        outcome = {**describe(net, data, state), **assess(net, data, state)}
        if keep and distributed.first():
            facts = {"training_flops": outcome["training_flops"]}
            facts |= {"faded": net.faded} if run.off == "decayed" else {}
            write_end(end_path(results, run), run, End(net.tensors(), net.masks, state.point, facts))
    except Impossible as error:
        status, reason, outcome = "impossible", str(error), {}
    except NotFinite as error:
        status, reason, outcome = "diverged", str(error), describe(net, data, state)
    record = {
        "id": run.id,
        "cell": run.cell,
        "run": run.model_dump(mode="json"),
        "status": status,
        "reason": reason,
        "outcome": (outcome := without_nan(outcome)),
        "outcome_sha256": hashlib.sha256(canonical_json(outcome).encode()).hexdigest(),
        "cost": {
            "wall_seconds": round(state.seconds + time.perf_counter() - begin, 3),
            "cpu_seconds": round(state.cpu_seconds + time.process_time() - begin_cpu, 3),
            "peak_memory_bytes": measure.peak_memory(environment.device),
        },
        "provenance": {
            "numerics": NUMERICS,
            **provenance(environment.device),
            "threads": environment.threads,
            "processes": distributed.processes(),
            "mode": run.mode,
            "loader": environment.loader,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    }
    if distributed.first():
        write_json(record_path(results, run), record)
        state.path.unlink(missing_ok=True)
    distributed.wait()
    return record


def build_net(run: Run, data: Data, environment: Environment) -> SparseNet:
    """The net of a run with its initial values, in the run's space and on the device."""
    net = SparseNet(build_model(run.model, data.shape, data.classes, run.seed, run.recipe.init), run, data.shape)
    net = net.to(environment.device)
    return net.to(memory_format=torch.channels_last) if channels_last(run.mode, environment) else net
