"""Masks that change during training: gradual pruning, dropping and growing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ipbench import keys
from ipbench.data.loaders import Batch
from ipbench.machine.distributed import averaged, from_first, together
from ipbench.machine.precision import full_precision
from ipbench.machine.process_state import method_code
from ipbench.methods import DropAndGrow, Gradual
from ipbench.sparse.net import SparseNet
from ipbench.sparse.scoring import as_score
from ipbench.sparse.selection import NotFinite, largest, select


@dataclass
class Activity:
    """What updates have done to the masks of a run.

    Attributes:
        mask_updates: steps that changed masks.
        coefficients_removed: that masks lost at these steps, in all; of an exchange, as many came in.
    """

    mask_updates: int = 0
    coefficients_removed: int = 0

    def count(self, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> None:
        """Add one step."""
        removed = sum(int((mask & ~after[name]).sum()) for name, mask in before.items())
        self.mask_updates += removed > 0
        self.coefficients_removed += removed


def prune_gradually(net: SparseNet, update: Gradual, batch: Batch, step: int, total: int) -> None:
    """Prune `net` as far as the cubic has come at this step; the last step ends at the run's budget exactly.

    Args:
        net: its masks shrink.
        update: when and by what score.
        batch: of this training step.
        step: of the training, counted from 0.
        total: steps of the training.

    Raises:
        NotFinite: a score is not finite.
        Impossible: the budget cannot be met.
    """
    start, target = net.prunable - net.basis_entries, net.budget
    # The filter bases are paid for from the first step on; rounded up, so that no step prunes below the cubic.
    keep = max(target, math.ceil(start - update.share(step, total) * (start - target)))
    if keep >= sum(int(mask.sum()) for mask in net.masks.values()):
        return
    with together(), full_precision(), net.scratch() as twin:
        twin.zero(net.masks)
        scores = update.score(twin, batch, **update.options)
    tie_key = keys.key(net.run.seed, "ties", step)
    scores = averaged(scores)  # every process has seen its part of the batch
    with together():
        masks = select(scores, keep, net.run.allocation, tie_key=tie_key, among=net.masks)
    net.prune(from_first(masks))


def drop_and_grow(net: SparseNet, update: DropAndGrow, step: int, total: int) -> dict[str, int]:
    """Exchange coefficients of `net`, whose dense gradients must be at hand; every layer keeps as many as it had.

    With n trained coefficients in a layer, floor(f n) are dropped, f the fraction at this step, and as many grown among
    all that are then masked. A new coefficient starts at its off-value; one that was just dropped and is grown again
    keeps its value.

    Args:
        net: its masks change.
        update: fractions, and what to grow by.
        step: of the training, counted from 0.
        total: steps of the training.

    Returns:
        How many coefficients each layer exchanged.

    Raises:
        NotFinite: a gradient or a growth score is not finite.
        BadInput: growth does not give one score per coefficient.
    """
    with together():
        masks, exchanged = _exchange(net, update, step, total)
    net.prune(from_first(masks))
    return exchanged


def _exchange(net: SparseNet, update: DropAndGrow, step: int, total: int) -> tuple[dict[str, Tensor], dict[str, int]]:
    """The masks after an exchange, and how many coefficients of each layer it exchanges."""
    fraction = fraction_at(update, step, total)
    growth = _growth(net, update, step)
    magnitudes = net.magnitudes(update.scaled)
    masks: dict[str, Tensor] = {}
    exchanged: dict[str, int] = {}
    for place, (name, c) in enumerate(net.coefficients.items()):
        mask = net.masks[name].flatten()
        active = int(mask.sum())
        tie_key = keys.key(net.run.seed, "ties", step, place)
        drop = math.floor(fraction * active)
        stay = largest(magnitudes[name].flatten(), mask, active - drop, tie_key)
        masks[name] = (stay | largest(growth[name].flatten(), ~stay, drop, keys.splitmix64(tie_key))).view(c.shape)
        exchanged[name] = int((masks[name].flatten() & ~mask).sum())
    return masks, exchanged


def _growth(net: SparseNet, update: DropAndGrow, step: int) -> dict[str, Tensor]:
    """What to grow by in every layer; the function sees a copy of the net, as scores do."""
    scores = {}
    with net.scratch() as twin:
        for name, c in net.coefficients.items():
            gradient = torch.zeros_like(c) if c.grad is None else c.grad.clone()
            if not bool(torch.isfinite(gradient).all()):
                raise NotFinite(f"a gradient in layer {name} is not finite")
            found = update.grow(twin, name, gradient, step)
            scores[name] = as_score(found, c, f"method {net.run.method}: the growth score of layer {name}")
            if not bool(torch.isfinite(scores[name]).all()):
                raise NotFinite(f"a growth score in layer {name} is not finite")
    return scores


def fraction_at(update: DropAndGrow, step: int, total: int) -> float:
    """The fraction that is dropped at a step: a cosine from `fraction` to `end` over the steps that exchange."""
    way = min(step / (update.until * total), 1.0)
    return update.end + (update.fraction - update.end) * 0.5 * (1 + math.cos(math.pi * way))


def revise(
    net: SparseNet,
    update: Gradual | DropAndGrow,
    batch: Batch,
    step: int,
    total: int,
    momentum: Mapping[str, Tensor],
    activity: Activity | None = None,
) -> bool:
    """Change the masks where `update` is due, and clear the momentum of what is masked; `activity` counts it.

    Returns:
        Whether the weights are trained at this step: not where coefficients are exchanged (Evci et al., alg. 1).
    """
    if not update.due(step, total):
        return True
    before = net.masks
    with method_code(net.run.method, net.run.seed, step):
        if isinstance(update, Gradual):
            prune_gradually(net, update, batch, step, total)
        else:
            drop_and_grow(net, update, step, total)
    if activity:
        activity.count(before, net.masks)
    net.clear(momentum)
    return isinstance(update, Gradual)
