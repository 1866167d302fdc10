"""The deterministic part of a record: what was kept, what it costs, how well it classifies."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import Any

import torch

from ipbench.data.loaders import Batch, Data
from ipbench.runs.state import State
from ipbench.sparse import measure, spaces
from ipbench.sparse.net import Gradient, SparseNet
from ipbench.sparse.patterns import selector
from ipbench.spec import canonical_json
from ipbench.store import tensors_digest
from ipbench.training.loop import Progress, evaluate, gradient_norm, require_finite, require_finite_net


def starting_gradient_norm(net: SparseNet, data: Data) -> float:
    """Norm of the loss gradient in the trained coefficients before the first step, on the score batch."""
    batch = data.score_batch()
    with net.scratch() as twin:

        def gradients(part: Batch) -> list[Gradient]:
            return twin.gradients(twin.task.loss_of(twin, part, net.run.seed))

        for _, c, gradient in twin.averaged(gradients, batch):
            c.grad = torch.empty_like(c).copy_(gradient)  # in its layout, in whose order the norm is summed
    twin.mask_gradients(0.0)
    return float(gradient_norm(twin))


def describe(net: SparseNet, data: Data, state: State) -> dict[str, Any]:
    """The part of the outcome that needs no evaluation: what was kept, what it costs, how the training went."""
    kept = {name: int(mask.sum()) for name, mask in net.masks.items()}
    total, counted = sum(kept.values()), net.counted
    facts = dict(state.facts)
    inherited = facts.pop("inherited_flops", 0)
    for name in ("inherited_epochs", "source"):  # of the run before, whose own record tells them
        facts.pop(name, None)
    others = counted.parameters - net.prunable
    shapes = {layer.name: layer.shape for layer in counted.layers}
    with_basis = [name for name, layer in net.layers.items() if spaces.filter_basis(layer) is not None]
    return {
        "curves": _curves(state.progress),
        "selected_epoch": state.progress.best_epoch,
        **facts,
        **({"notes": dict(net.notes)} if net.notes else {}),
        "achieved_sparsity": 1 - (total + net.basis_entries) / net.prunable,
        "coefficients_kept": total,
        "basis_entries": net.basis_entries,
        "prunable": net.prunable,
        "parameters": total + net.basis_entries + others,
        "parameters_dense": counted.parameters,
        "layers": [
            {"name": name, "shape": list(shapes[name]), "size": math.prod(shapes[name]), "kept": count}
            for name, count in kept.items()
        ],
        "collapsed_layers": [name for name, count in kept.items() if count == 0],
        "spatial_zeros_end": measure.spatial_zeros(net.spatial_weights()),
        "basis_drift": {
            name: float((basis.matrix.detach() - net.basis_start[name]).norm()) for name, basis in net.bases.items()
        },
        "basis_condition": {name: _condition(basis.matrix) for name, basis in net.bases.items()},
        "macs_dense": counted.macs,
        "macs_sparse": measure.sparse_macs(counted.layers, kept),
        "macs_sparse_two_stage": measure.two_stage_macs(net.now.layers, kept, with_basis),
        "training_flops": state.training_flops + inherited,
        **measure.stored_bytes(
            [(mask.numel(), kept[name]) for name, mask in net.masks.items()], net.basis_entries, net.now.other_values
        ),
        **selector(net).facts(net.masks),
        **_sliced(net),
        **({"faded": net.faded} if net.run.off == "decayed" else {}),
        **({"not_prunable": counted.not_prunable} if counted.not_prunable else {}),
        **({"unused_layers": counted.unseen} if counted.unseen else {}),
        "masks_sha256": tensors_digest(net.masks),
        "weights_sha256": tensors_digest(net.tensors()),
    }


def _sliced(net: SparseNet) -> dict[str, Any]:
    """What a record tells of a net whose channels were cut, and of no other one.

    The dense net's layers, sizes and counts stand beside it, so that shares of it mean what they do everywhere.
    """
    if not net.structure:
        return {}
    dense = {layer.name: layer.out_channels for layer in net.counted.layers if layer.prunable}
    now = {layer.name: layer.out_channels for layer in net.now.layers}
    return {
        "sliced": [
            {"name": name, "channels": channels, "kept": now[name]}
            for name, channels in dense.items()
            if now[name] != channels
        ],
        "structure_sha256": hashlib.sha256(canonical_json(net.structure.to_json()).encode()).hexdigest(),
        "parameters_now": net.now.parameters + net.basis_entries,
        "macs_now": net.now.macs,
    }


def _condition(basis: torch.Tensor) -> float:
    """The condition number of a filter basis; nan of one that is not finite, as a diverged run leaves it."""
    matrix = basis.detach().double().cpu()
    return float(torch.linalg.cond(matrix)) if bool(matrix.isfinite().all()) else math.nan


def _curves(progress: Progress) -> dict[str, list[float]]:
    """The curves, with the number of each epoch where a rewound training left out the first ones."""
    trained = len(progress.curves["train_loss"])
    left_out = progress.epoch - trained
    return {
        **progress.curves,
        **({"epoch": [float(left_out + 1 + place) for place in range(trained)]} if left_out else {}),
    }


def assess(net: SparseNet, data: Data, state: State) -> dict[str, Any]:
    """Accuracy and loss of the net at the end, and the test accuracy of the selected one.

    That is the net of the epoch with the best validation accuracy. Where a stage has changed the net after its last
    training, or there was none, it is the net at the end, and the validation accuracy is of that.

    Raises:
        NotFinite: a loss is not finite.
    """
    recipe, progress = net.run.recipe, state.progress
    test_accuracy, test_loss, others = evaluate(net, data.test(), recipe, lambda: data.truth("test"))
    train_accuracy, train_loss, _ = evaluate(net, data.train_plain(), recipe, lambda: data.truth("train"))
    selected, selected_loss = test_accuracy, test_loss
    if progress.best_epoch != progress.epoch:
        last = {name: tensor.clone() for name, tensor in net.tensors().items()}
        net.load_tensors(progress.best)
        selected, selected_loss, _ = evaluate(net, data.test(), recipe, lambda: data.truth("test"))
        net.load_tensors(last)
    # An accuracy can be taken of logits that are not numbers; the loss tells.
    require_finite({"test loss": test_loss, "training loss": train_loss}, "of the net at the end")
    require_finite({"test loss": selected_loss}, f"of the net that is selected, of epoch {progress.best_epoch},")
    metric = net.task.primary
    return {
        "test_accuracy": test_accuracy,
        "test_accuracy_selected": selected,
        "test_loss": test_loss,
        "validation_accuracy": _validation_accuracy(net, data, progress),
        "train_accuracy": train_accuracy,
        "train_loss": train_loss,
        **({"metric": metric} if metric != "accuracy" else {}),
        **{f"test_{name}": value for name, value in others.items()},
    }


def _validation_accuracy(net: SparseNet, data: Data, progress: Progress) -> float:
    """Of the net as it is: that of the last epoch, unless the net has changed since."""
    if progress.best:
        return progress.curves["validation_accuracy"][-1]
    accuracy, loss, _ = evaluate(net, data.validation(), net.run.recipe, lambda: data.truth("validation"))
    if not math.isnan(accuracy):
        require_finite({"validation loss": loss}, "of the net at the end")
    return accuracy


#: What may be missing in the outcome of a finished run, as null: everything of a validation part that is not there, the
#: condition of a singular filter basis, and what a method writes down itself. Losses of a validation part that is there
#: have been checked where they were taken.
_MAY_BE_MISSING = (
    "validation_accuracy", "curves.validation_accuracy", "curves.validation_loss", "basis_condition", "notes",
)  # fmt: skip


def complete(net: SparseNet, data: Data, state: State) -> dict[str, Any]:
    """The outcome of a run whose stages are finished.

    Raises:
        NotFinite: a number of it, a parameter or a buffer is not finite: the run has diverged.
    """
    require_finite_net(net, "at the end")
    outcome = {**describe(net, data, state), **assess(net, data, state)}
    for name, value in _numbers(outcome):
        if not any(f"{name}.".startswith(f"{missing}.") for missing in _MAY_BE_MISSING):
            require_finite({name: value}, "of the record")
    return outcome


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """All floating-point numbers inside, each with its place: keys and positions joined by dots."""
    if isinstance(value, float):
        yield name, value
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from _numbers(part, f"{name}.{key}" if name else str(key))
