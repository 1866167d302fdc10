"""The pruning stage: score, select, repeat (floor 5)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ipbench import keys
from ipbench.data.loaders import Data
from ipbench.errors import BadInput
from ipbench.masks import select
from ipbench.methods import Prune
from ipbench.sparse_net import SparseNet


def pruned_masks(net: SparseNet, stage: Prune, data: Data) -> dict[str, Tensor]:
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
            check_scores(scores, masks, stage.name)
            tie_key = keys.key(net.run.seed, "ties", r)
            masks = select(scores, keep, net.run.allocation, tie_key=tie_key, among=masks)
    return masks


def check_scores(scores: Mapping[str, Tensor], masks: Mapping[str, Tensor], method: str) -> None:
    """One score per coefficient, in the order of the net."""
    if not isinstance(scores, dict) or list(scores) != list(masks):
        raise BadInput(f"method {method}: must return a dict with an entry for each of net.coefficients, in that order")
    for name, mask in masks.items():
        check_score(scores[name], mask, f"method {method}: the score of layer {name}")


def check_score(score: Tensor, like: Tensor, what: str) -> None:
    """A number for each entry of a tensor `like` this one."""
    if not isinstance(score, Tensor) or score.shape != like.shape or not score.is_floating_point():
        got = f"{score.dtype} {tuple(score.shape)}" if isinstance(score, Tensor) else type(score).__name__
        raise BadInput(f"{what} must be a tensor of shape {tuple(like.shape)} of floating-point numbers, not {got}")
