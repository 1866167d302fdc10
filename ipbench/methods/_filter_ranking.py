"""Which filters go: one ranking over all layers, with a guard that leaves some to each of them, in several rounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ipbench.methods._filter_scores import filter_score
from ipbench.methods._orthonormal import SHAPE, orthogonality
from ipbench.methods._ratios import beginning

if TYPE_CHECKING:
    from torch import Tensor

    from ipbench.data.loaders import Batch
    from ipbench.sparse.view import NetView

#: Which filters of a layer are left to it whatever the ranking says.
GUARDS = ("index", "score", "none")
#: The share of a layer's filters that is.
_GUARDED = 0.05


def remove(
    net: NetView, batch: Batch, *, score: str, ratio: float, guard: str, inner: bool, whole: str, number: int,
    rounds: int,
) -> dict[str, Tensor]:  # fmt: skip
    """The masks of a round, by a score of this batch; how orthogonal the filters are is noted.

    Args:
        net: as the round begins.
        batch: of images.
        score: one of `_filter_scores.SCORES`.
        ratio: see `masks`; and so are the others.
        guard: likewise.
        inner: likewise.
        whole: likewise.
        number: likewise.
        rounds: likewise.
    """
    key = "orthogonality" if rounds == 1 else f"orthogonality_{number}"
    net.notes[key] = orthogonality(net, SHAPE)
    return masks(net, filter_score(score)(net, batch), ratio, guard, inner, whole, number, rounds)


def masks(
    net: NetView, scores: Mapping[str, Tensor], ratio: float, guard: str, inner: bool, whole: str, number: int = 1,
    rounds: int = 1,
) -> dict[str, Tensor]:  # fmt: skip
    """The masks without the filters, or channels, of the smallest scores of all layers.

    A convolution whose groups are its channels follows the layer that makes them: under the pattern `channels` it has
    no say.

    Args:
        net: as the round begins.
        scores: of coefficients; those of a filter add up to its score.
        ratio: the share of all filters that is gone after the last round; 0: the run's budget.
        guard: of int(0.05 n) + 1 filters of each layer, where it had n: "index", those with the highest indices among
            what stands, "score", those with the best scores, "none".
        inner: only layers, or groups, whose channels no skip connection shares, may lose filters.
        whole: starts of the names of layers, or groups, that lose none.
        number: of the round, from 1.
        rounds: how many there are.

    Raises:
        Impossible: the guard or the budget cannot be kept.
        BadInput: `whole` names nothing.
    """
    followers = {m.layer for group in net.groups.free for m in group.producers if m.role == "both"} - set(net.blocks)
    own = {name: values * 0 if name in followers else values for name, values in scores.items()}
    standing = net.standing()
    units = guarded(net.unit_scores(own), standing, guard)
    blocks = (net.inner if inner else frozenset(net.blocks)) - beginning(whole, net.blocks)
    if ratio:
        found = net.select_units(units, number, share=share_of_round(ratio, number, rounds), blocks=blocks)
    else:
        found = net.select_units(units, number, keep=_budget_of_round(net, number, rounds), blocks=blocks)
    if guard != "none":
        _check_guard(standing, net.standing(found))
    return found


def share_of_round(ratio: float, number: int, rounds: int) -> float:
    """The share of what stands that a round removes: p / (k p + R (1 - p)).

    What stands after round k is R (1 - p) / (k p + R (1 - p)) of the whole: half of it goes in the first of three
    rounds to 75 %, a sixth in the second, a twelfth in the last.

    Args:
        ratio: p, gone after the last round.
        number: k, from 1.
        rounds: R.
    """
    return ratio / (number * ratio + rounds * (1 - ratio))


def _budget_of_round(net: NetView, number: int, rounds: int) -> int:
    """What stays after a round, in the unit of the run's budget, by the same rule."""
    if number == rounds:
        return net.target
    pruned = 1 - net.target / net.budget_at(0.0)
    return net.budget_at(number / (number * pruned + rounds * (1 - pruned)))


def guarded(units: Mapping[str, Tensor], standing: Mapping[str, Tensor], guard: str) -> dict[str, Tensor]:
    """Scores in which what a guard protects is better than all else.

    Args:
        units: scores by block.
        standing: which units can be kept.
        guard: one of `GUARDS`.
    """
    import torch  # here, so that planning a grid imports no torch

    scores = {name: values.clone() for name, values in units.items()}
    if guard == "none" or not scores:
        return scores
    best = torch.cat(list(scores.values())).max()
    for name, values in scores.items():
        alive = standing[name].nonzero().flatten()
        if guard == "score":
            alive = alive[values[alive].argsort(stable=True)]
        values[alive[-_number(len(values)) :]] = torch.nextafter(best, best.new_tensor(torch.inf))
    return scores


def _number(units: int) -> int:
    return int(_GUARDED * units) + 1


def _check_guard(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> None:
    """Raise `Impossible` where a block has lost what is left to it."""
    from ipbench.sparse.selection import Impossible

    for name, kept in after.items():
        least = min(_number(len(kept)), int(before[name].sum()))
        if int(kept.sum()) < least:
            raise Impossible(
                f"the guard leaves {name} {least} of {len(kept)} filters, and {int(kept.sum())} would stay; take guard"
                " none, or remove less"
            )
