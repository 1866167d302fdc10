"""A weight decay that grows for what is to go, until it is next to nothing (GReg)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import inf, isnan, nan
from typing import TYPE_CHECKING, Any

from numpy import float32

from ipbench.errors import BadInput
from ipbench.methods._ratios import rates_of
from ipbench.updaters import Steps, Updater

if TYPE_CHECKING:
    from torch import Tensor

    from ipbench.data.loaders import Batch
    from ipbench.sparse.view import TrainedView

#: What is added to the decay of what stays, once GReg-2 has picked: the public code's; the paper's cancels all decay.
RECOVERIES = ("code", "paper")
_RECOVERY = -1e-4
#: Updates before it is picked over which ratios are averaged: older ones would weigh less than 3e-5.
_AVERAGED = 100
#: Updates of a factor, at most: more would take months, and single precision adds no such small numbers.
_MOST_UPDATES = 100_000


@dataclass
class Factors:
    """What is added to the weight decay in a layer.

    Attributes:
        gone: for what goes; while GReg-2 picks, for all that may go. A number of single precision, as in the public
            code, on which the number of updates depends.
        kept: for what stays of it.
        ratio: mean magnitude of what stays over that of what goes, averaged over updates with momentum 0.9; nan before
            the first update, and where nothing goes.
        finished: whether they stay as they are.
    """

    gone: float = 0.0
    kept: float = 0.0
    ratio: float = nan
    finished: bool = False


class GrowDecay(Updater):
    """Adds growing factors to the weight decay of units, holds them, then prunes these units.

    Factors change between the backward pass and the step, at steps that `every` divides, step 0 included. A layer is
    finished when its factor is above `ceiling`, or when magnitudes are far enough apart: the ratio of `Factors` has
    come to `ratio_limit`, for GReg-1 in all layers of which there is one so far, for GReg-2 in the layer itself. Where
    units are single coefficients there is no ratio, as in the public code. When all layers are finished, `stabilise`
    more steps are trained, up to the end of the epoch; then the units go, and the training is done.
    """

    masks = "pruned"

    def __init__(
        self,
        net: TrainedView,
        steps: Steps,
        *,
        rise: float,
        every: int,
        ceiling: float,
        stabilise: int,
        ratio_limit: float,
        ratios: str,
        pick: float = 0.0,
        pick_ceiling: float = 0.0,
        recovery: str = "code",
    ) -> None:
        """Find what may go, and for GReg-1 what goes: the units with the smallest mean magnitude.

        Args:
            net: as the training begins.
            steps: of the training.
            rise: of a factor at an update.
            every: steps between two updates.
            ceiling: a factor above it stays as it is.
            stabilise: steps with all factors as they are.
            ratio_limit: see the class.
            ratios: shares of units by layer; empty: what the run's budget asks for, at one rate for all inner blocks.
            pick: GReg-2: rise of all factors before it is chosen what goes; 0 for GReg-1.
            pick_ceiling: GReg-2: the factor at which it is chosen.
            recovery: GReg-2: what is added to the decay of what stays, see `RECOVERIES`.
        """
        self.per_epoch, self.rise, self.every, self.stabilise = steps.per_epoch, float32(rise), every, stabilise
        self.ceiling, self.ratio_limit = float32(ceiling), ratio_limit
        self.pick, self.pick_ceiling = float32(pick), float32(pick_ceiling)
        self.recovery = _RECOVERY if recovery == "code" else -net.weight_decay
        self.rates = _rates(ratios, net)
        self.single = sum(net.blocks.values()) == sum(c.numel() for c in net.coefficients.values())
        self.may_go, self.whole = self._candidates(net)
        self.picked, self.kept = not pick, dict(net.masks)
        if self.picked:
            self.kept = self._choose(net)
            self.may_go = {name: ~mask for name, mask in self.kept.items()}
        self.layers = {name: Factors() for name, mask in self.may_go.items() if bool(mask.any())}
        self.frozen, self.done = -1, False
        self.decays: dict[str, Tensor] = {}

    @property
    def settled(self) -> bool:  # type: ignore[override]
        """Whether it has pruned."""
        return self.done

    def due(self, step: int) -> bool:
        """Whether factors grow at this step."""
        return self.frozen < 0 and step % self.every == 0

    def after_backward(self, net: TrainedView, batch: Batch, step: int) -> bool:
        """Let the factors of all layers grow that are not finished; weights are trained at every step."""
        picking, rated = not self.picked, not self.single and self._near(_AVERAGED)
        self.picked = self.picked or self._near(1)
        if picking and (rated or self.picked):
            self.kept = self._choose(net)
        magnitudes = self._magnitudes(net) if rated else {}
        for name, layer in self.layers.items():
            if not layer.finished:
                self._grow(layer, picking)
                if rated:
                    layer.ratio = _averaged(layer.ratio, _ratio(magnitudes[name], self.kept[name]))
                layer.finished = self._finished(layer, picking, name)
        self.decays = {}
        if all(layer.finished for layer in self.layers.values()):
            self.frozen = step
        return True

    def decay(self, net: TrainedView) -> Mapping[str, Tensor]:
        """The recipe's weight decay and the factors."""
        if not self.decays:
            for name, layer in self.layers.items():
                decay, c = net.weight_decay, net.coefficients[name]
                self.decays[name] = c.new_full(c.shape, decay)
                self.decays[name][self.may_go[name]] = decay + layer.kept
                self.decays[name][~self.kept[name] if self.picked else self.may_go[name]] = decay + layer.gone
        return self.decays

    def after_epoch(self, net: TrainedView, epoch: int) -> None:
        """Prune, if all factors have been as they are for long enough."""
        trained = (epoch + 1) * self.per_epoch
        if self.done or self.frozen < 0 or trained <= self.frozen + self.stabilise:
            return
        net.prune(self.kept)
        self.done = True
        net.notes["steps"] = {"growing": self.frozen + 1, "stable": trained - self.frozen - 1}

    def tensors(self) -> Mapping[str, Tensor | int | float | bool]:
        """Masks of what stays, the numbers of all layers, and how far it has come."""
        numbers = {f"{name} {key}": value for name, layer in self.layers.items() for key, value in vars(layer).items()}
        masks = {f"{name} mask": mask for name, mask in self.kept.items()}
        return {"picked": self.picked, "frozen": self.frozen, "done": self.done, **numbers, **masks}

    def load(self, tensors: Mapping[str, Any]) -> None:
        """Take these over."""
        self.picked, self.frozen, self.done = tensors["picked"], tensors["frozen"], tensors["done"]
        self.kept = {name: tensors[f"{name} mask"] for name in self.kept}
        if not self.pick:  # what stays was chosen when the training began
            self.may_go = {name: ~mask for name, mask in self.kept.items()}
        names = [name for name in self.kept if f"{name} gone" in tensors]
        self.layers = {name: Factors(**{key: tensors[f"{name} {key}"] for key in vars(Factors())}) for name in names}
        self.decays = {}

    def _candidates(self, net: TrainedView) -> tuple[dict[str, Tensor], bool]:
        """What may go, by layer, and whether units are of whole kernels.

        Of every block that may lose units, all but the best are left out, then all but the worst: together all units.
        """
        blocks = net.inner if self.rates is None else [name for name, rate in self.rates.items() if rate]
        scores = {name: c.detach() for name, c in net.coefficients.items()}
        best = net.select_each(scores, dict.fromkeys(blocks, 1))
        worst = net.select_each({name: -score for name, score in scores.items()}, dict.fromkeys(blocks, 1))
        kernels = [mask.flatten(2) for mask in best.values() if mask.dim() > 2]
        whole = all(bool((kernel.any(2) == kernel.all(2)).all()) for kernel in kernels)
        return {name: ~(mask & worst[name]) for name, mask in best.items()}, whole

    def _choose(self, net: TrainedView) -> dict[str, Tensor]:
        """Masks without the units whose mean magnitude is the smallest."""
        scores = {name: values.abs() for name, values in self._magnitudes(net).items()}
        if self.rates is not None:
            return net.select_each(scores, self.rates, rounding="ceil")
        if not self.single:  # the mean over a filter: of one ranking over layers, a sum would be another one
            scores = {name: score / score[0].numel() for name, score in scores.items()}
        return net.select(scores, net.target, blocks=net.inner)

    def _magnitudes(self, net: TrainedView) -> dict[str, Tensor]:
        """What units are judged by: the weights, where units are of whole kernels, which have no coefficients alone."""
        return net.weights if self.whole else {name: c.detach() for name, c in net.coefficients.items()}

    def _near(self, updates: int) -> bool:
        """Whether it is picked, or will be with the last of so many updates."""
        factors = [float32(layer.gone) for layer in self.layers.values()]  # equal until then
        return self.picked or all(factor + updates * self.pick >= self.pick_ceiling for factor in factors)

    def _grow(self, layer: Factors, picking: bool) -> None:
        if picking:
            layer.gone = layer.kept = float(float32(layer.gone) + self.pick)
        else:
            layer.gone = float(float32(layer.gone) + self.rise)
            layer.kept = self.recovery if self.pick else 0.0

    def _finished(self, layer: Factors, picking: bool, name: str) -> bool:
        """Whether a layer is finished after an update."""
        if picking and not self.picked:
            return False
        if self.pick and not picking and bool(self.kept[name].all()):
            return True  # nothing goes; what stays has its factor
        known = [layer] if self.pick else [other for other in self.layers.values() if not isnan(other.ratio)]
        apart = not self.single and all(other.ratio >= self.ratio_limit for other in known)
        return apart or bool(float32(layer.gone) > self.ceiling)


def _ratio(weights: Tensor, kept: Tensor) -> float:
    """Mean magnitude of what stays over that of what goes; nan where nothing goes."""
    sizes = weights.abs().double()
    total, stays, number = float(sizes.sum()), float((sizes * kept).sum()), int(kept.sum())
    gone = kept.numel() - number
    if not gone or not number:
        return nan
    small = (total - stays) / gone
    return stays / number / small if small else inf


def _averaged(ratio: float, new: float) -> float:
    """With momentum 0.9, from the first number on."""
    return new if isnan(ratio) else 0.9 * ratio + 0.1 * new


def _rates(text: str, net: TrainedView) -> dict[str, Fraction] | None:
    """Shares of units by block that the user gives; None: the budget decides.

    Raises:
        BadInput: no block that may lose units begins like that.
    """
    if not text:
        return None
    try:
        return rates_of(text, net.inner)
    except ValueError as error:
        raise BadInput(f"method greg: {error}") from None


@cache
def updates_to(start: float, rise: float, limit: float, beyond: bool) -> tuple[int, float]:
    """How many updates bring a factor to a limit, or beyond it, in single precision; and the factor then.

    Raises:
        ValueError: too many.
    """
    value, step, end, number = float32(start), float32(rise), float32(limit), 0
    while value < end or (beyond and value == end):
        value, number = value + step, number + 1
        if number > _MOST_UPDATES:
            raise ValueError(f"more than {_MOST_UPDATES:,} updates of {rise:g} bring a factor to {limit:g}")
    return number, float(value)
