"""How masks change while a net trains, as data: gradual pruning, and exchanging coefficients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import ceil, floor
from typing import TYPE_CHECKING

from ipbench.methods._scores import alone
from ipbench.spec import Option
from ipbench.updaters import Steps, Update, Updater

if TYPE_CHECKING:
    from torch import Tensor

    from ipbench.methods._scores import Score
    from ipbench.sparse.view import NetView, TrainedView

    Growth = Callable[[NetView, str, Tensor, int], Tensor]


def _valid(most: int) -> str:
    """What an interval may be, for a message."""
    return f" an interval from 1 to {most} steps is valid" if most > 0 else " train longer, or in a longer part of it"


@dataclass(frozen=True)
class Gradual(Update):
    """Prune while training: the density falls to that of the run along a cubic (Zhu and Gupta, 2017, eq. 1).

    Attributes:
        score: as in `Prune`; its batch is the training batch of that step.
        every: steps between two prunings.
        start: the fraction of the training after which pruning begins.
        until: the fraction after which the run's sparsity is reached.
        options: of the score.
    """

    score: Score
    every: int
    start: float
    until: float
    options: Mapping[str, Option] = field(default_factory=dict)

    masks = "pruned"

    def __post_init__(self) -> None:
        if self.every < 1 or not 0 <= self.start < self.until <= 1:
            raise ValueError("every is 1 or more, and 0 <= start < until <= 1")
        object.__setattr__(self, "score", alone(self.score, getattr(self.score, "__name__", "score")))

    def begin(self, net: TrainedView, steps: Steps) -> Updater:
        """What works in a training."""
        from ipbench.updaters.gradual import GradualPruning  # here, so that planning a grid imports no torch

        return GradualPruning(self, steps)

    def window(self, total: int) -> tuple[int, int]:
        """First and last step that prune, in a training of `total` steps."""
        last = min(floor(self.until * total), total - 1)
        return min(floor(self.start * total), last), last

    def due(self, step: int, total: int) -> bool:
        """Whether masks are revised at this step, counted from 0."""
        first, last = self.window(total)
        return step == last or (first <= step < last and (step - first) % self.every == 0)

    def idle(self, first: int, total: int) -> str:
        """Why a training of the steps `first` up to `total` is not pruned gradually; empty if it is."""
        begin, last = self.window(total)
        most = last - 1 - begin  # of `every`: a step between the first, which prunes nothing, and the last
        between = begin + most // self.every * self.every
        if between > begin and between >= first:
            return ""
        return (
            f"nothing would be pruned gradually: in a training of {total} steps, pruning every {self.every} steps"
            f" from step {begin} to {last} is pruning once;{_valid(begin + most - max(first, begin + 1) + 1)}"
        )

    def share(self, step: int, total: int) -> float:
        """How much of what is to be pruned is pruned after this step: 1 - (1 - t)^3, with t from 0 to 1."""
        first, last = self.window(total)
        return 1.0 if step >= last else 1 - (1 - (step - first) / (last - first)) ** 3

    def __str__(self) -> str:
        return f"pruning gradually every {self.every} steps"


@dataclass(frozen=True)
class DropAndGrow(Update):
    """Exchange coefficients while training, in every layer as many as were there (Evci et al., ICML 2020, alg. 1).

    The smallest of a layer's trained coefficients are dropped, as many masked ones are grown; what was dropped may come
    back at once and has then not moved. At such a step the weights are not trained.

    Attributes:
        grow: a function (net, layer, dense gradient, step) to a number per coefficient; larger = grow.
        every: steps between two exchanges.
        fraction: of the trained coefficients that is dropped, at the start; a cosine takes it to `end`.
        end: the fraction at the end of the exchanges.
        until: the fraction of the training after which masks stay.
        scaled: drop by |coefficient| times the norm of its basis filter instead of |coefficient|.
    """

    grow: Growth
    every: int
    fraction: float
    end: float
    until: float
    scaled: bool

    masks = "exchanged"

    def __post_init__(self) -> None:
        fractions = 0 < self.fraction <= 1 and 0 <= self.end <= self.fraction and 0 < self.until <= 1
        if self.every < 1 or not fractions:
            raise ValueError("every is 1 or more, 0 < fraction <= 1, 0 <= end <= fraction, and 0 < until <= 1")

    def begin(self, net: TrainedView, steps: Steps) -> Updater:
        """What works in a training."""
        from ipbench.updaters.exchange import Exchange  # here, so that planning a grid imports no torch

        return Exchange(self, steps)

    def due(self, step: int, total: int) -> bool:
        """Whether masks are revised at this step, counted from 0."""
        return step > 0 and step % self.every == 0 and step < self.until * total

    def idle(self, first: int, total: int) -> str:
        """Why a training of the steps `first` up to `total` exchanges nothing; empty if it does."""
        last = min(ceil(self.until * total), total) - 1
        if last - last % self.every >= max(first, 1):
            return ""
        return (
            f"no coefficients would be exchanged: in a training of {total} steps, with exchanges every {self.every}"
            f" steps up to step {last}, there is none;{_valid(last - max(first, 1) + 1)}"
        )

    def __str__(self) -> str:
        return f"exchanging {self.fraction:.0%} every {self.every} steps"
