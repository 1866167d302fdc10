"""Soft pruning: after every epoch the weakest units shrink, and all keep training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from ipbench.methods._stages import Choose, Stage, Train
from ipbench.updaters import Updater

if TYPE_CHECKING:
    from torch import Tensor

    from ipbench.sparse.view import NetView, TrainedView
    from ipbench.updaters import Steps

#: The pruned share comes to three quarters of its end after this share of the training (ASFP's D).
_D = 1 / 8


@dataclass(frozen=True)
class Weakest:
    """Which units are the weakest, by the L2 norm of what they are measured by.

    Attributes:
        rate: the share of the units of every layer; 0: what the run's budget does not let stay.
        inner: only layers, or groups, whose channels no skip connection shares.
    """

    rate: float = 0.0
    inner: bool = False

    def __str__(self) -> str:
        share = f"{self.rate:g} of each layer" if self.rate else "what the budget does not let stay"
        return share + (", of inner layers alone" if self.inner else "")

    def masks(self, net: NetView, left: float = 0.0) -> dict[str, Tensor]:
        """The masks that leave the weakest out.

        The number of filters is that of the reference, `int(n * (1 - kept))` in floating point: of 10 filters at a kept
        rate of 0.9 it is none.

        Args:
            net: whose units are compared.
            left: the part, 0 to 1, of what is pruned in the end that still stays.
        """
        scores = {name: weights.square() for name, weights in net.weights.items()}
        if not self.rate:
            return net.select(scores, net.budget_at(1 - left), blocks=net.inner if self.inner else None)
        kept = float(1 - Fraction(str(self.rate)))
        kept += (1 - kept) * left
        blocks = {name: n for name, n in net.blocks.items() if not self.inner or name in net.inner}
        return net.select_each(scores, {name: Fraction(int(n * (1 - kept)), n) for name, n in blocks.items()})


@dataclass(frozen=True)
class Schedule:
    """By how much the weakest shrink, and how many they are, at an epoch of a training.

    Attributes:
        alpha: the factor at epoch 0; 0: they are set to zero.
        sigma: about the factor at the last epoch.
        until: the share of the training behind which the factor is 0; it is at the last epoch, however few there are.
        grow: how the pruned share rises to its end: "" (it is there from the first), "exp" or "cubic".
        grown: the share of the training behind which it is there; likewise.
    """

    alpha: float = 0.0
    sigma: float = 1e-5
    until: float = 0.9
    grow: str = ""
    grown: float = 0.95

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1 or not 0 < self.sigma <= 1:
            raise ValueError("alpha is from 0 to 1, sigma above 0 and up to 1")
        if not 0 <= self.until <= 1:
            raise ValueError("until is from 0 to 1: a share of the training")
        if self.grow not in ("", "exp", "cubic"):
            raise ValueError(f'grow is exp or cubic, or "", not {self.grow!r:.40}')

    def __str__(self) -> str:
        return f"alpha {self.alpha:g}" + (f", growing by {self.grow}" if self.grow else "")

    def factor(self, epoch: int, epochs: int) -> float:
        """alpha_t = alpha exp(-k t) with k = -ln(sigma / (alpha + sigma / 100)) / T."""
        if not self.alpha or epoch >= min(epochs * self.until, epochs - 1):
            return 0.0
        k = -math.log(self.sigma / (self.alpha + 0.01 * self.sigma)) / epochs
        return self.alpha * math.exp(-k * epoch)

    def left(self, epoch: int, epochs: int) -> float:
        """The part of what is pruned in the end that still stays.

        exp(-k t) with k = ln 4 / (D T), D = 1/8; or (1 - (t + 1) / T)^3.
        """
        if not self.grow or epoch >= min(epochs * self.grown, epochs - 1):
            return 0.0
        if self.grow == "cubic":
            return (1 - (epoch + 1) / epochs) ** 3
        return math.exp(-math.log(4) / (_D * epochs) * epoch)


class Soften(Updater):
    """Multiplies the weakest units by a factor, before the first epoch and after every one.

    Norms, biases and momentum are left alone, as in the reference. So a filter that is zero before a batch norm whose
    shift is not positive gets no gradient, and stays zero: such filters are counted in the record, and not mended.
    """

    def __init__(self, net: TrainedView, steps: Steps, *, weakest: Weakest, schedule: Schedule) -> None:
        """Shrink them a first time."""
        self.weakest, self.schedule, self.epochs = weakest, schedule, steps.epochs
        #: Filters that have been zero at every look, and those that were zero once and came back.
        self.still = {name: _zeros(weights) for name, weights in net.weights.items()}
        self.back = {name: still & False for name, still in self.still.items()}
        self._shrink(net, 0)
        self.still = {name: _zeros(weights) for name, weights in net.weights.items()}
        self.zeroed = {name: still.clone() for name, still in self.still.items()}

    def after_epoch(self, net: TrainedView, epoch: int) -> None:
        """Look which zero filters have come back, and shrink again."""
        for name, weights in net.weights.items():
            zero = _zeros(weights)
            self.still[name] &= zero
            self.back[name] |= self.zeroed[name] & ~zero
        self._shrink(net, epoch)
        self.zeroed = {name: _zeros(weights) for name, weights in net.weights.items()}
        net.notes["filters_never_back"] = sum(int(still.sum()) for still in self.still.values())
        net.notes["filters_back"] = sum(int(back.sum()) for back in self.back.values())

    def _shrink(self, net: TrainedView, epoch: int) -> None:
        factor = self.schedule.factor(epoch, self.epochs)
        masks = self.weakest.masks(net, self.schedule.left(epoch, self.epochs))
        for name, c in net.coefficients.items():
            c.mul_(masks[name].to(c.dtype).mul_(1 - factor).add_(factor) if factor else masks[name])

    def tensors(self) -> Mapping[str, Tensor | int | float | bool]:
        """Which filters have been zero."""
        parts = {"still": self.still, "back": self.back, "zeroed": self.zeroed}
        return {f"{part} {name}": flags for part, values in parts.items() for name, flags in values.items()}

    def load(self, tensors: Mapping[str, Any]) -> None:
        """Likewise."""
        parts = {"still": self.still, "back": self.back, "zeroed": self.zeroed}
        for part, values in parts.items():
            values.update({name: tensors[f"{part} {name}"] for name in values})


def _zeros(weights: Tensor) -> Tensor:
    """Which filters are zero."""
    return (weights == 0).flatten(1).all(dim=1)


@dataclass(frozen=True)
class Trainings:
    """How long a run trains, and at which rates.

    Attributes:
        epochs: of the soft training; 0: as many as the recipe has.
        lr: of it, as a factor of the recipe's.
        tune: epochs of a training of what is left; 0: none.
        tune_lr: of it, likewise.
    """

    epochs: int
    lr: float
    tune: int
    tune_lr: float


def stages(weakest: Weakest, schedule: Schedule, start: list[Stage], trainings: Trainings) -> list[Stage]:
    """Train softly, then leave out the weakest of the end, and train what is left, if that is wanted."""
    if not 0 <= weakest.rate < 1:
        raise ValueError("rate is from 0 up to, not including, 1: the share of the units of every layer that goes")
    if trainings.tune < 0:
        raise ValueError("tune is 0 or more epochs")
    soft = Soften.spec(weakest=weakest, schedule=schedule)
    found = [
        *start,
        Train(soft, epochs=trainings.epochs, lr=trainings.lr),
        Choose(weakest.masks, "all but the weakest"),
    ]
    return [*found, Train(epochs=trainings.tune, lr=trainings.tune_lr)] if trainings.tune else found
