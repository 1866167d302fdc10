"""Removing the channels that matter least, one after the other while a net trains (Group Fisher)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from math import inf
from typing import TYPE_CHECKING, Any

from ipbench.methods._stages import MOST_EPOCHS, Continue, Slice, Stage, Train
from ipbench.updaters import Steps, Updater

if TYPE_CHECKING:
    from torch import Tensor

    from ipbench.data.loaders import Batch
    from ipbench.sparse.removal import Cost
    from ipbench.sparse.view import TrainedView

#: What a channel is judged by: the squares of the derivatives by its gate, image by image, or the size of their sum.
SCORES = ("fisher", "gradient")
#: What a score is divided by, as the paper calls it, and what a view of a net calls it.
COSTS: dict[str, Cost | None] = {"memory": "memory", "flops": "macs", "none": None}


class RemoveChannels(Updater):
    """Removes the units with the smallest scores, every so many steps, until the run's budget is met.

    A unit has one gate for all layers that read its channels. The derivatives of each image's loss by these are summed
    over layers first, then squared, then summed over the images of `every` steps and divided by what the unit costs.
    """

    masks = "pruned"
    patterns = ("channels",)

    def __init__(
        self,
        net: TrainedView,
        steps: Steps,
        *,
        every: int,
        channels: int,
        normalise: str,
        internal: bool,
        score: str,
    ) -> None:
        """Begin with no scores.

        Args:
            net: as the training begins.
            steps: of the training.
            every: steps from one removal to the next.
            channels: units that go at a removal, or fewer, where the budget is met before.
            normalise: one of `COSTS`.
            internal: whether only channels go that no skip connection shares.
            score: one of `SCORES`.

        Raises:
            Impossible: with one unit of every group more stays than the budget lets.
        """
        import torch  # here, so that planning a grid does not pay for it

        from ipbench.sparse.selection import Impossible

        self.every, self.channels, self.cost, self.score = every, channels, COSTS[normalise], score
        self.target, self.removed, self.ended = net.target, 0, 0
        self.among: Tensor | None = net.channels.inner if internal else None
        if (lowest := net.channels.least(self.among)) > self.target:
            raise Impossible(
                f"the budget cannot be met: with one channel of every group that may lose some, {lowest:,} are left,"
                f" and {self.target:,} may stay"
            )
        self.done = net.kept <= self.target
        self.channel_gates = net.gates()
        device = next(iter(net.coefficients.values())).device
        self.sums = torch.zeros(net.channels.number, dtype=torch.float64, device=device)

    @property
    def settled(self) -> bool:  # type: ignore[override]
        """Whether the budget is met."""
        return self.done

    def gates(self, batch: Batch) -> AbstractContextManager[object]:
        """Gates on all units, as long as some are to be removed."""
        return nullcontext() if self.done else self.channel_gates(batch)

    def due(self, step: int) -> bool:
        """Whether scores are added up."""
        return not self.done

    def after_backward(self, net: TrainedView, batch: Batch, step: int) -> bool:
        """Add the scores of the images, and remove what is the weakest when it is time; weights train at every step."""
        found = self.channel_gates.gradients().double() * len(batch.images)  # of each image's own loss
        self.sums += (found.square() if self.score == "fisher" else found).sum(0)
        if (step + 1) % self.every == 0:
            self._remove(net, step)
        return True

    def tensors(self) -> Mapping[str, Tensor | int | float | bool]:
        """The sums so far, and what has been removed."""
        return {"sums": self.sums, "removed": self.removed, "ended": self.ended, "done": self.done}

    def load(self, tensors: Mapping[str, Any]) -> None:
        """Take these over."""
        self.sums, self.removed = tensors["sums"], tensors["removed"]
        self.ended, self.done = tensors["ended"], tensors["done"]

    def _remove(self, net: TrainedView, step: int) -> None:
        """Remove the weakest of the units that stand, and begin new sums."""
        scores = self._scores(net)
        weakest = net.channels.weakest(scores, self.channels, step, among=self.among)
        # Costs fall with every unit: so many of the weakest as meet the budget, and no more.
        low, high = 1, len(weakest)
        while low < high:
            middle = (low + high) // 2
            met = net.channels.kept_without(weakest[:middle]) <= self.target
            low, high = (low, middle) if met else (middle + 1, high)
        net.remove(weakest[:low])
        self.removed += low
        self.sums.zero_()
        self.done = net.channels.kept_without() <= self.target
        if self.done:
            self.ended = step + 1
            net.notes["removals"] = {"channels": self.removed, "steps": self.ended}

    def _scores(self, net: TrainedView) -> Tensor:
        """What units are ranked by, of all processes; one that no image uses, and that costs nothing, comes last.

        Raises:
            NotFinite: one is not finite.
        """
        from ipbench.sparse.selection import NotFinite

        sums = net.summed({"sums": self.sums})["sums"].abs().cpu()
        if not bool(sums.isfinite().all()):
            raise NotFinite("the score of a channel is not finite")
        if not self.cost:
            return sums
        costs = net.channels.costs(self.cost)
        return (sums / costs).where(costs > 0, sums.new_tensor(inf))


def stages(removal: dict[str, Any], prune_lr: float, batch: int, after: Train) -> list[Stage]:
    """The dense net, a training at a small rate in which channels are removed, the small net, and its training.

    Args:
        removal: options of `RemoveChannels`.
        prune_lr: of the first training, as a factor of the recipe's learning rate.
        batch: images per step of it; 0: as many as the recipe has.
        after: the training of the small net.

    Raises:
        ValueError: an option has no meaning.
    """
    if removal["every"] < 1 or removal["channels"] < 1 or batch < 0:
        raise ValueError("every and channels are 1 or more, batch is 0 or more")
    if removal["normalise"] not in COSTS or removal["score"] not in SCORES:
        raise ValueError(f"normalise is one of {', '.join(COSTS)}, score one of {', '.join(SCORES)}")
    recipe = {"schedule": "constant", "warmup": 0, **({"batch_size": batch} if batch else {})}
    remove = Train(RemoveChannels.spec(**removal), epochs=MOST_EPOCHS, lr=prune_lr, recipe=recipe, until="done")
    return [Continue(), remove, Slice(), after]
