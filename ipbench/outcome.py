"""The deterministic part of a record: what was kept, what it costs, how well it classifies (floor 5)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional
from torch.nn.utils.parametrize import is_parametrized

from ipbench import measure
from ipbench.data.loaders import Batch, Data
from ipbench.resume import State
from ipbench.sparse_net import Gradient, SparseNet
from ipbench.store import tensors_digest
from ipbench.training import Progress, evaluate, gradient_norm


def starting_gradient_norm(net: SparseNet, data: Data) -> float:
    """Norm of the loss gradient in the trained coefficients before the first step, on the score batch."""
    batch = data.score_batch()
    with net.scratch() as twin:

        def gradients(part: Batch) -> list[Gradient]:
            return twin.gradients(functional.cross_entropy(twin(part.images), part.labels))

        for _, c, gradient in twin.averaged(gradients, batch):
            c.grad = torch.empty_like(c).copy_(gradient)  # in its layout, in whose order the norm is summed
    twin.mask_gradients(0.0)
    return float(gradient_norm(twin))


def describe(net: SparseNet, data: Data, state: State) -> dict[str, Any]:
    """The part of the outcome that needs no evaluation: what was kept, what it costs, how the training went."""
    kept = {name: int(mask.sum()) for name, mask in net.masks.items()}
    total, counted = sum(kept.values()), net.counted
    images = state.trained_steps * net.run.recipe.batch_size
    macs_dense = counted.macs
    facts = dict(state.facts)
    inherited = facts.pop("inherited_flops", 0)
    others = counted.parameters - net.prunable
    with_basis = [name for name, layer in net.layers.items() if is_parametrized(layer, "weight")]
    return {
        "curves": _curves(state.progress),
        "selected_epoch": state.progress.best_epoch,
        **facts,
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
        "basis_condition": {name: _condition(basis.matrix) for name, basis in net.bases.items()},
        "macs_dense": macs_dense,
        "macs_sparse": measure.sparse_macs(counted.layers, kept),
        "macs_sparse_two_stage": measure.two_stage_macs(counted.layers, kept, with_basis),
        "training_flops": measure.training_flops(macs_dense, images) + inherited,
        **measure.stored_bytes(
            [(mask.numel(), kept[name]) for name, mask in net.masks.items()], net.basis_entries, counted.other_values
        ),
        **({"faded": net.faded} if net.run.off == "decayed" else {}),
        "masks_sha256": tensors_digest(net.masks),
        "weights_sha256": tensors_digest(net.tensors()),
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
