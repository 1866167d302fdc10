"""Early-Bird tickets: a training that ends when the filters that would go stay nearly the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ipbench.methods._filter_ranking import masks
from ipbench.methods._filter_scores import DATA_FREE
from ipbench.updaters import Steps, Updater

if TYPE_CHECKING:
    from torch import Tensor

    from ipbench.sparse.view import TrainedView

#: What a mask is compared with: that of the epoch before, or all of the last ones.
AGAINST = ("last", "all")


class MaskDistance(Updater):
    """Draws masks after every epoch, without using them, and is done when they stay nearly the same.

    The distance of two masks is the share of units in which they differ. Compared with the last one, the last `window`
    distances must all be below the limit (You et al., alg. 1). Compared with all, the newest of the last `window` masks
    must differ from each of the others by the limit at most (the public code).
    """

    def __init__(
        self, net: TrainedView, steps: Steps, *, score: str, ratio: float, guard: str, inner: bool, whole: str,
        window: int, below: float, against: str, slimming: float,
    ) -> None:  # fmt: skip
        """Begin without masks.

        Args:
            net: as the training begins.
            steps: of the training.
            score: one that looks at no image.
            ratio: as in `_filter_ranking.masks`; and so are guard, inner and whole.
            guard: likewise.
            inner: likewise.
            whole: likewise.
            window: see the class.
            below: the limit.
            against: one of `AGAINST`.
            slimming: of a penalty on the absolute scales of batch norms; 0: none.
        """
        self.score, self.options = DATA_FREE[score], (ratio, guard, inner, whole)
        self.window, self.below, self.against, self.slimming = window, below, against, slimming
        self.drawn: list[Tensor] = []
        self.distances: list[float] = []
        self.done = False

    def penalty(self, net: TrainedView) -> Tensor | None:
        """Slimming, if it is wanted."""
        if not self.slimming:
            return None
        terms = [scale.abs().sum() for scale in net.norms.values()]
        return self.slimming * sum(terms[1:], terms[0]) if terms else None

    def after_epoch(self, net: TrainedView, epoch: int) -> None:
        """Draw the masks of this epoch and compare them."""
        import torch  # here, so that planning a grid imports no torch

        if self.done:
            return
        kept = net.standing(masks(net, self.score(net, None), *self.options))
        drawn = torch.cat(list(kept.values()))
        if self.drawn:
            others = self.drawn if self.against == "all" else self.drawn[-1:]
            self.distances.append(max(float((drawn != other).double().mean()) for other in others))
        keep = self.window - 1 if self.against == "all" else 1
        enough = len(self.drawn) >= keep
        self.drawn = [*self.drawn, drawn][-keep:]
        if self.against == "all":
            self.done = enough and self.distances[-1] <= self.below
        else:
            last = self.distances[-self.window :]
            self.done = len(last) == self.window and max(last) < self.below
        net.notes["early_bird"] = {"epochs": epoch + 1, "found": self.done, "distances": list(self.distances)}

    def tensors(self) -> Mapping[str, Tensor | int | float | bool]:
        """The last masks, all distances, and whether it is done."""
        numbers = {f"distance {place}": value for place, value in enumerate(self.distances)}
        return {"done": self.done, **numbers, **{f"mask {place}": mask for place, mask in enumerate(self.drawn)}}

    def load(self, tensors: Mapping[str, Any]) -> None:
        """Take these over."""
        self.done = tensors["done"]
        self.distances = [tensors[f"distance {n}"] for n in range(sum(name.startswith("distance") for name in tensors))]
        self.drawn = [tensors[f"mask {n}"].cpu() for n in range(sum(name.startswith("mask") for name in tensors))]
