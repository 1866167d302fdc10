"""Weight decay of groups that grows with their averaged rank, until a share of each layer is gone (IncReg)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING, Any

from ipbench.errors import BadInput
from ipbench.methods._increments import Increments
from ipbench.methods._ratios import rates_of
from ipbench.updaters import Steps, Updater

if TYPE_CHECKING:
    from torch import Tensor

    from ipbench.data.loaders import Batch
    from ipbench.sparse.channels import Group
    from ipbench.sparse.view import TrainedView


class GroupDecay(Updater):
    """Adds a factor to the weight decay of every group, by its averaged rank, and prunes it when that is large enough.

    A group is a unit of the run's pattern. A block that has lost its share has the recipe's weight decay from the next
    step on, whatever the factors of what stays. When a channel is read by nothing any more, the filters that make it
    go, too; when nothing makes it any more, all that reads it goes; not where a skip connection adds another one to
    it. A base for updaters that say how much is to go, and what comes then.
    """

    masks = "pruned"

    def __init__(
        self, net: TrainedView, steps: Steps, rise: float, limit: float, shares: Mapping[str, Fraction]
    ) -> None:
        """A beginning.

        Args:
            net: as the training begins.
            steps: of the training.
            rise: the largest increment of a factor at a step.
            limit: the factor at which a group goes.
            shares: of the groups of each block that are to go, rounded up; one group stays.
        """
        self.end, self.rise, self.limit = steps.epochs, rise, limit
        self.groups = Increments(net.units, counted(net, shares))
        self.first, self.done = -1, False
        self.decays: dict[str, Tensor] | None = None

    @property
    def settled(self) -> bool:  # type: ignore[override]
        """Whether it has pruned."""
        return self.done

    def decay(self, net: TrainedView) -> Mapping[str, Tensor] | None:
        """The recipe's weight decay and the factors of this step; None where there are no factors."""
        return self.decays

    def tensors(self) -> Mapping[str, Tensor | int | float | bool]:
        """What the groups remember, and how far it has come."""
        return {"first": self.first, "done": self.done, **self.groups.tensors()}

    def load(self, tensors: Mapping[str, Any]) -> None:
        """Take these over."""
        self.first, self.done = tensors["first"], tensors["done"]
        self.groups.load(tensors)

    def _regularise(self, net: TrainedView, step: int) -> bool:
        """One step of all factors; whether the last group is gone that was to go."""
        units = self.groups.units
        sizes = units.sums({name: weights.abs() for name, weights in net.weights.items()})
        going, added = self.groups.step(sizes, self.rise, self.limit)
        self.decays = {
            name: net.weight_decay + values.to(net.coefficients[name].dtype)
            for name, values in units.spread(added).items()
        }
        if not bool(going.any()):
            return False
        masks = units.masks(~self.groups.gone)
        net.prune(severed(net, {name: mask & masks[name] for name, mask in net.masks.items()}))
        self.first = step if self.first < 0 else self.first
        return not bool((self.groups.remaining > 0).any())


class RankedDecay(GroupDecay):
    """Until each block has lost its share: that of the run's budget, or one that the user gives."""

    def __init__(
        self, net: TrainedView, steps: Steps, *, rise: float, limit: float, ratios: str = "", first: bool = True
    ) -> None:
        """Count how many groups of each block are to go.

        Args:
            net: as the training begins.
            steps: of the training.
            rise: of `GroupDecay`.
            limit: likewise.
            ratios: shares of groups by block; empty: what the run's budget asks for, of all inner blocks.
            first: without ratios: whether the first layer is pruned, too.
        """
        shares = _shares(ratios, net) if ratios else budget_shares(net, first)
        super().__init__(net, steps, rise, limit, shares)
        self.done = not bool((self.groups.wanted > 0).any())

    def due(self, step: int) -> bool:
        """Whether factors grow, or did so at the step before."""
        return not self.done or self.decays is not None

    def after_backward(self, net: TrainedView, batch: Batch, step: int) -> bool:
        """Rank all groups, let their factors grow, prune what is due; weights are trained at every step."""
        if self.done:
            self.decays = None
        elif self._regularise(net, step):
            self.done = True
            net.notes["steps"] = {"first_pruned": self.first + 1, "last_pruned": step + 1}
        return True

    def after_epoch(self, net: TrainedView, epoch: int) -> None:
        """See whether there is time left.

        Raises:
            Impossible: the training ends here, and not all groups are gone that are to go.
        """
        if not self.done and epoch + 1 == self.end:
            raise _impossible(f"{int(self.groups.remaining.sum()):,} groups that are to go have not gone", epoch + 1)


def _impossible(why: str, epochs: int) -> Exception:
    from ipbench.sparse.selection import Impossible

    return Impossible(f"{why} after {epochs:,} epochs; a larger option `limit`, or factors that grow faster, may do")


def counted(net: TrainedView, shares: Mapping[str, Fraction]) -> Tensor:
    """How many units of each block a share is, rounded up; one unit stays. Of shape (blocks,)."""
    import torch

    blocks = net.blocks
    numbers = [min(ceil(shares.get(name, Fraction(0)) * number), number - 1) for name, number in blocks.items()]
    return torch.tensor(numbers, dtype=torch.int64, device=next(iter(net.coefficients.values())).device)


def candidates(net: TrainedView, first: bool) -> list[str]:
    """Blocks that may lose units: those whose channels no skip connection shares; without the first layer's, if not
    `first`.
    """
    return [name for name in net.blocks if name in net.inner and (first or name != net.names[0])]


def budget_shares(net: TrainedView, first: bool) -> dict[str, Fraction]:
    """The share of each block that the run's budget does not let stay, by the run's allocation.

    Of one ranking over all layers, units have the mean of their magnitudes: sums would tell how large a unit is.
    """
    blocks = net.blocks
    scores = {
        name: weights.abs() / max(1, weights.numel() // blocks.get(name, 1)) for name, weights in net.weights.items()
    }
    kept = net.select(scores, net.target, blocks=candidates(net, first))
    units = net.units
    stays = units.counts(units.sums({name: mask.double() for name, mask in kept.items()}) > 0).tolist()
    return {name: 1 - Fraction(stay, blocks[name]) for name, stay in zip(units.blocks, stays, strict=True)}


def _shares(ratios: str, net: TrainedView) -> dict[str, Fraction]:
    """Shares of units by block that the user gives.

    Raises:
        BadInput: no block that may lose units begins like that.
    """
    try:
        return rates_of(ratios, net.inner)
    except ValueError as error:
        raise BadInput(f"method increg: {error}") from None


def severed(net: TrainedView, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Masks without what makes a channel that nothing reads any more, and what reads one that nothing makes.

    Of filters and columns, whose masked coefficients are zero. Of channels that one layer makes: a skip connection,
    which adds what several layers make, leaves a channel alive though one of them does not.

    Args:
        net: with the masks before.
        masks: by layer.
    """
    import torch

    from ipbench.sparse.dead import silent, unread
    from ipbench.sparse.view import sparse_net

    result, before, run = {name: mask.clone() for name, mask in masks.items()}, net.masks, sparse_net(net).run
    if run.off != "zero" or run.pattern not in ("filters", "columns"):
        return result
    changed = {name for name, mask in masks.items() if not torch.equal(mask, before[name])}
    groups = net.groups
    touched = [group for group in groups.free if _made_by_one(group) and changed & {m.layer for m in group.members}]
    groups = replace(groups, groups=tuple(touched))
    lost, mute = unread(groups, masks), silent(groups, masks)
    for group in touched:
        for members, flags in ((group.producers, lost[group.name]), (group.consumers, mute[group.name])):
            for member in members:
                if flags.any() and member.layer in result:
                    indices = torch.from_numpy(member.indices[flags].ravel())
                    result[member.layer].index_fill_(member.axis, indices.to(result[member.layer].device), False)
    return result


def _made_by_one(group: Group) -> bool:
    return len({member.layer for member in group.members if member.role == "out"}) == 1
