"""A run, from its spec to its record, stage by stage (floor 5).

Everything that decides a number is in the `Run`; where it is computed (device, threads, loader) is in the
`Environment`, which the record's provenance tells.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.parametrize import is_parametrized

from ipbench import NUMERICS, keys, measure, methods
from ipbench.data.loaders import Data
from ipbench.errors import BadInput
from ipbench.masks import Impossible, NotFinite, select
from ipbench.models.build import build as build_model
from ipbench.provenance import provenance
from ipbench.sparse_net import SparseNet
from ipbench.spec import Run, canonical_json
from ipbench.store import read_json, read_tensors, tensors_digest, write_json, write_tensors
from ipbench.training import Progress, evaluate, gradient_norm, train


@dataclass(frozen=True)
class Environment:
    """Where and how a run is computed; in strict mode none of it but the device and the threads can change a number.

    Attributes:
        root: the folder of the data sets.
        device: "cpu", "cuda" or "cuda:1".
        threads: of torch on the CPU.
        loader: "memory" or "ffcv"; both give the same pixels.
        workers: of the FFCV loader.
    """

    root: Path = Path("data")
    device: str = "cpu"
    threads: int = 1
    loader: Literal["memory", "ffcv"] = "memory"
    workers: int = 1


def choose_device(wanted: str) -> str:
    """"auto" to "cuda" if there is a GPU, else "cpu".

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


def record_path(results: Path, run: Run) -> Path:
    """Where the record of a run lies."""
    return results / "runs" / run.cell / f"{run.seed}.json"


def state_path(results: Path, run: Run) -> Path:
    """Where the resume state of a run lies until its record is written."""
    return results / "state" / run.cell / f"{run.seed}.safetensors"


def finished(results: Path, run: Run) -> dict[str, Any] | None:
    """The record of a run if it is there, whole and of the present numerics.

    Raises:
        BadProduct: it is there but cannot be trusted.
    """
    path = record_path(results, run)
    if not path.exists():
        return None
    record = read_json(path)
    return record if record["provenance"]["numerics"] == NUMERICS else None


def execute(
    run: Run, results: Path, environment: Environment, *, on_epoch: Callable[[int, int], None] = lambda epoch, epochs: None
) -> dict[str, Any]:
    """Train one run and write its record; a finished one is read, an interrupted one continued.

    Args:
        run: what to train.
        results: the experiment's folder.
        environment: where and how.
        on_epoch: called with the epochs finished and all epochs, for a progress bar.

    Returns:
        The record (docs/design.md lists its keys).
    """
    if record := finished(results, run):
        return record
    begin = time.perf_counter()
    set_mode(run.mode, environment)
    data = Data(
        run.dataset,
        run.recipe,
        run.seed,
        root=environment.root,
        loader=environment.loader,
        workers=environment.workers,
        device=environment.device,
        channels_last=torch.device(environment.device).type == "cuda",
    )
    net = SparseNet(build_model(run.model, data.shape, data.classes, run.seed, run.recipe.init), run, data.shape)
    net = net.to(environment.device)
    if torch.device(environment.device).type == "cuda":
        net = net.to(memory_format=torch.channels_last)
    state = _State(state_path(results, run), run)
    status, reason, outcome = "done", None, {}
    try:
        _execute_stages(net, data, state, begin, on_epoch)
        outcome = {**describe(net, data, state), **assess(net, data, state)}
    except Impossible as error:
        status, reason = "impossible", str(error)
    except NotFinite as error:
        status, reason, outcome = "diverged", str(error), describe(net, data, state)
    record = {
        "id": run.id,
        "cell": run.cell,
        "run": run.model_dump(mode="json"),
        "status": status,
        "reason": reason,
        "outcome": (outcome := _without_nan(outcome)),
        "outcome_sha256": hashlib.sha256(canonical_json(outcome).encode()).hexdigest(),
        "cost": {
            "wall_seconds": round(state.seconds + time.perf_counter() - begin, 3),
            "peak_memory_bytes": measure.peak_memory(environment.device),
        },
        "provenance": {
            "numerics": NUMERICS,
            **provenance(environment.device),
            "threads": environment.threads,
            "mode": run.mode,
            "loader": environment.loader,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    }
    write_json(record_path(results, run), record)
    state.path.unlink(missing_ok=True)
    return record


class _State:
    """What a restarted process needs to continue a run, and the file that holds it.

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
        write_tensors(self.path, tensors, _without_nan(facts))

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


def _execute_stages(
    net: SparseNet, data: Data, state: _State, begin: float, on_epoch: Callable[[int, int], None]
) -> None:
    """Run the stages of the run's method, the finished ones left out; the state is saved after each and every epoch."""
    run = net.run
    stages = methods.get(run.method).stages(run.options)
    state.load(net)
    on_epoch(state.progress.epoch, run.recipe.epochs)

    def save() -> None:
        state.save(net, time.perf_counter() - begin)

    def after_epoch(progress: Progress) -> None:
        save()
        on_epoch(progress.epoch, run.recipe.epochs)

    for place, stage in enumerate(stages):
        if place < state.stage:
            continue
        if isinstance(stage, methods.Prune):
            net.prune(pruned_masks(net, stage, data))
        else:
            if not state.facts:
                state.facts = {
                    "spatial_zeros_start": measure.spatial_zeros(net.spatial_weights()),
                    "gradient_norm_start": starting_gradient_norm(net, data),
                }
            train(net, data, run.recipe, state.progress, after_epoch=after_epoch)
        state.stage = place + 1
        save()


def pruned_masks(net: SparseNet, stage: methods.Prune, data: Data) -> dict[str, Tensor]:
    """The masks that a `Prune` stage ends with; `net` is left as it is.

    Raises:
        Impossible: the budget cannot be met.
        NotFinite: a score is not finite.
        BadInput: the score function does not return one score per coefficient.
    """
    batch = data.score_batch(per_class=stage.per_class or None)
    masks, target = dict(net.masks), net.budget
    start = sum(int(mask.sum()) for mask in masks.values())
    values = net.tensors()
    with net.scratch() as twin:
        for r in range(1, stage.rounds + 1):
            keep = target if r == stage.rounds else max(target, round(start * (target / start) ** (r / stage.rounds)))
            # What was left out is zero while scores are taken, whatever its off-value will be.
            twin.load_tensors(values)
            twin.zero(masks)
            scores = stage.score(twin, batch, **stage.options)
            _check_scores(scores, masks, stage.name)
            tie_key = keys.key(net.run.seed, "ties", r)
            masks = select(scores, keep, net.run.allocation, tie_key=tie_key, among=masks)
    return masks


def _check_scores(scores: Mapping[str, Tensor], masks: Mapping[str, Tensor], method: str) -> None:
    """One score per coefficient, in the order of the net."""
    if not isinstance(scores, dict) or list(scores) != list(masks):
        raise BadInput(f"method {method}: must return a dict with one entry for each of net.coefficients, in that order")
    for name, mask in masks.items():
        if not isinstance(scores[name], Tensor) or scores[name].shape != mask.shape:
            raise BadInput(f"method {method}: the score of layer {name} must be a tensor of shape {tuple(mask.shape)}")


def starting_gradient_norm(net: SparseNet, data: Data) -> float:
    """Norm of the loss gradient in the trained coefficients before the first step, on the score batch."""
    batch = data.score_batch()
    with net.scratch() as twin:
        functional.cross_entropy(twin(batch.images), batch.labels).backward()  # type: ignore[no-untyped-call]
    twin.mask_gradients(0.0)
    return float(gradient_norm(twin))


def describe(net: SparseNet, data: Data, state: _State) -> dict[str, Any]:
    """The part of the outcome that needs no evaluation: what was kept, what it costs, how the training went."""
    kept = {name: int(mask.sum()) for name, mask in net.masks.items()}
    total, counted = sum(kept.values()), net.counted
    images = state.progress.epoch * data.steps_per_epoch * net.run.recipe.batch_size
    macs_dense = counted.macs
    others = counted.parameters - net.prunable
    with_basis = [name for name, layer in net.layers.items() if is_parametrized(layer, "weight")]
    return {
        "curves": state.progress.curves,
        "selected_epoch": state.progress.best_epoch,
        **state.facts,
        "achieved_sparsity": 1 - (total + net.basis_entries) / net.prunable,
        "coefficients_kept": total,
        "basis_entries": net.basis_entries,
        "prunable": net.prunable,
        "parameters": total + net.basis_entries + others,
        "parameters_dense": counted.parameters,
        "layers": [
            {"name": name, "shape": list(mask.shape), "size": mask.numel(), "kept": kept[name]}
            for name, mask in net.masks.items()
        ],
        "collapsed_layers": [name for name, count in kept.items() if count == 0],
        "spatial_zeros_end": measure.spatial_zeros(net.spatial_weights()),
        "basis_drift": {
            name: float((basis.matrix.detach() - net.basis_start[name]).norm()) for name, basis in net.bases.items()
        },
        "basis_condition": {
            name: float(torch.linalg.cond(basis.matrix.detach().double().cpu())) for name, basis in net.bases.items()
        },
        "macs_dense": macs_dense,
        "macs_sparse": measure.sparse_macs(counted.layers, kept),
        "macs_sparse_two_stage": measure.two_stage_macs(counted.layers, kept, with_basis),
        "training_flops": measure.training_flops(macs_dense, images),
        **measure.stored_bytes(
            [(mask.numel(), kept[name]) for name, mask in net.masks.items()], net.basis_entries, counted.other_values
        ),
        "masks_sha256": tensors_digest(net.masks),
        "weights_sha256": tensors_digest(net.tensors()),
    }


def assess(net: SparseNet, data: Data, state: _State) -> dict[str, Any]:
    """Accuracy and loss of the last epoch, and the test accuracy at the epoch of the best validation accuracy."""
    recipe, progress = net.run.recipe, state.progress
    test_accuracy, test_loss = evaluate(net, data.test(), recipe)
    train_accuracy, train_loss = evaluate(net, data.train_plain(), recipe)
    selected = test_accuracy
    if progress.best_epoch != progress.epoch:
        last = {name: tensor.clone() for name, tensor in net.tensors().items()}
        net.load_tensors(progress.best)
        selected, _ = evaluate(net, data.test(), recipe)
        net.load_tensors(last)
    return {
        "test_accuracy": test_accuracy,
        "test_accuracy_selected": selected,
        "test_loss": test_loss,
        "validation_accuracy": progress.curves["validation_accuracy"][-1],
        "train_accuracy": train_accuracy,
        "train_loss": train_loss,
    }


def _without_nan(value: Any) -> Any:
    """The same with None for numbers that are not finite: JSON has no word for them."""
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
