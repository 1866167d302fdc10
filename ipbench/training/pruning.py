"""The pruning stage: score, select, repeat."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ipbench import keys
from ipbench.data.loaders import Data
from ipbench.errors import BadInput
from ipbench.methods import Prune
from ipbench.methods._stages import ONE_RANKING
from ipbench.sparse.net import SparseNet
from ipbench.sparse.patterns import selector


def pruned_masks(net: SparseNet, stage: Prune, data: Data) -> dict[str, Tensor]:
    """The masks that a `Prune` stage ends with; `net` is left as it is.

    In several rounds what is kept falls exponentially in the unit of the run's budget.

    Raises:
        Impossible: the budget cannot be met.
        NotFinite: a score is not finite.
        BadInput: the score function does not return one score per coefficient, or means another allocation.
    """
    if stage.whole_ranking and net.run.allocation != "global":
        raise BadInput(f"method {net.run.method}: {ONE_RANKING}")
    batch = data.score_batch(per_class=stage.per_class or None)
    selects, masks = selector(net, stage.units), dict(net.masks)
    start, target = selects.kept(masks), selects.target
    values = net.tensors()
    with net.scratch() as twin:
        for r in range(1, stage.rounds + 1):
            keep = target if r == stage.rounds else max(target, round(start * (target / start) ** (r / stage.rounds)))
            # What was left out is zero while scores are taken, whatever its off-value will be.
            twin.load_tensors(values)
            twin.masks = masks
            twin.zero(masks)
            scores = stage.score(twin, batch, **stage.options)
            if r == 1:
                _note_ties(net, scores, masks)
            if stage.inverted:
                scores = {name: -score for name, score in scores.items()}
            tie_key = keys.key(net.run.seed, "ties", r)
            masks = selects.select(scores, keep, tie_key=tie_key, among=masks)
    return masks


def _note_ties(net: SparseNet, scores: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> None:
    """Write down the layers in which all scores are zero at the start: what is kept there is a matter of ties."""
    tied = [name for name, values in scores.items() if not bool(values.any())]
    if tied and all(bool(mask.all()) for mask in masks.values()):
        net.notes["layers_without_scores"] = tied
