"""As much pruning as an accuracy floor allows: rounds of growing decay, settling and judging, taken back on failure."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from ipbench.methods._increments import FIRST_INCREMENT, LEAST_INCREMENT, limit_of, multiplier_of
from ipbench.methods._ranked import GroupDecay, budget_shares, candidates, counted
from ipbench.methods._ratios import rates_of

if TYPE_CHECKING:
    from torch import Tensor

    from ipbench.data.loaders import Batch
    from ipbench.sparse.view import TrainedView
    from ipbench.updaters import Steps

#: How far below the floor an accuracy may be, what a margin of accuracy is multiplied by, and the increments between.
_GAP, _PER_MARGIN, _MOST_INCREMENT = 5e-4, 10.0, 0.2
#: The share that no layer's pruned share exceeds, and the pruned share at which `pace` is told.
_MOST_PRUNED, _HALF = Fraction(9, 10), Fraction(1, 2)
#: Best accuracies over whose mean a round is judged.
_JUDGED = 3
#: What a round is doing.
_MEASURE, _PRUNE, _SETTLE, _RETRAIN = range(4)
#: What is remembered of a round.
_NUMBERS = ("phase", "since", "round", "increment", "accuracy", "limit")


class FloorDecay(GroupDecay):
    """Prunes in rounds, as long as the validation accuracy stays above a floor.

    In the first epoch nothing is pruned; its validation accuracy is that of the dense net. Every round raises the
    shares of all blocks by an increment, trains `settle` steps more with these masks, and then evaluates at the end of
    every epoch until there has been no new best for more than `patience` of them. The mean of the three best accuracies
    judges it. At most 0.0005 below the floor it is good: the net of its best epoch is kept, and the next increment is
    ten times the margin, from 0.01 to 0.2. Else the net of the last good round comes back, and the increment is what a
    straight line between the two accuracies gives. It is done when that is below 0.01, or when all blocks have lost as
    much as they may.
    """

    def __init__(
        self,
        net: TrainedView,
        steps: Steps,
        *,
        rise: float,
        target: float,
        floor: float,
        settle: int,
        patience: int,
        ratios: str = "",
        pace: str = "",
        first: bool = True,
    ) -> None:
        """Find what each block may lose.

        Args:
            net: as the training begins.
            steps: of the training.
            rise: the largest increment of a factor at a step.
            target: the factor at which a group goes, before it is multiplied by what the increment of a round gives.
            floor: of the validation accuracy, 0 to 1; 0: none, and the run's budget says when it is enough.
            settle: steps of a round without factors before it is evaluated.
            patience: evaluations without a new best, at most.
            ratios: the shares that blocks may lose; empty: 0.9 of all, or with floor 0 what the budget asks for.
            pace: by how much a block's share grows while the mean share grows by 0.5; empty: 0.5 for all.
            first: without ratios: whether the first layer is pruned, too.
        """
        super().__init__(net, steps, rise, 0.0, {})
        self.target, self.floor, self.settle, self.patience = target, floor, settle, patience
        self.most, self.pace = counted(net, _caps(net, ratios, floor, first)), dict.fromkeys(net.blocks, _HALF)
        if pace:
            self.pace |= rates_of(pace, net.blocks)
        self.phase, self.since, self.round = _MEASURE, 0, 0
        self.increment, self.accuracy = FIRST_INCREMENT, 0.0
        self.accuracies: list[float] = []
        self.good: dict[str, Tensor] = {}

    def after_backward(self, net: TrainedView, batch: Batch, step: int) -> bool:
        """Let factors grow while a round prunes; count the steps that it settles for."""
        self.decays = None
        if self.phase == _PRUNE:
            if self._regularise(net, step):
                self._settle(step)
        elif self.phase == _SETTLE and step - self.since >= self.settle:
            self.phase = _RETRAIN
        return True

    def after_evaluation(self, net: TrainedView, epoch: int, accuracy: float) -> None:
        """Remember the best net of a round, judge the round, begin the next one.

        Raises:
            Impossible: the dense net is below the floor.
        """
        if self.phase == _MEASURE:
            self._measured(net, accuracy)
        elif self.phase == _RETRAIN and not self.done:
            if accuracy > max(self.accuracies, default=-1.0):
                net.remember("best")
            self.accuracies.append(accuracy)
            if len(self.accuracies) - 1 - self.accuracies.index(max(self.accuracies)) > self.patience:
                self._judge(net)
        if not self.done and epoch + 1 == self.end:
            raise _not_done(epoch + 1)

    def tensors(self) -> Mapping[str, Tensor | int | float | bool]:
        """What the groups remember, how far the rounds have come, and what to come back to beside the net."""
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        accuracies = {f"accuracy {place}": value for place, value in enumerate(self.accuracies)}
        good = {f"good {name}": tensor for name, tensor in self.good.items()}
        return {**super().tensors(), "most": self.most, **numbers, **accuracies, **good}

    def load(self, tensors: Mapping[str, Any]) -> None:
        """Take these over."""
        super().load(tensors)
        self.most = tensors["most"]
        for name in _NUMBERS:
            setattr(self, name, tensors[name])
        self.accuracies = []
        while (key := f"accuracy {len(self.accuracies)}") in tensors:
            self.accuracies.append(tensors[key])
        self.good = {name: tensors[f"good {name}"] for name in self.groups.tensors() if f"good {name}" in tensors}

    def _settle(self, step: int) -> None:
        """All groups of a round are gone; what is left of factors is forgotten."""
        self.phase, self.since = _SETTLE, step
        self.groups.factor = self.groups.factor * self.groups.gone

    def _measured(self, net: TrainedView, accuracy: float) -> None:
        """The dense net: what comes back if no round is good."""
        if self.floor - accuracy > _GAP:
            raise _too_high(self.floor, accuracy)
        self.accuracy = accuracy
        self._keep(net)
        self._begin(net, FIRST_INCREMENT)

    def _judge(self, net: TrainedView) -> None:
        """Keep the round or take it back, and begin the next one, if there is to be one."""
        best = sorted(self.accuracies, reverse=True)[:_JUDGED]
        accuracy = sum(best) / len(best)
        good = self.floor - accuracy <= _GAP
        self._note(net, accuracy, good)
        if good:
            net.recall("best")
            self._keep(net)
            self.accuracy = accuracy
            increment = min(max(_PER_MARGIN * (accuracy - self.floor), LEAST_INCREMENT), _MOST_INCREMENT)
        else:
            increment = self.increment / (self.accuracy - accuracy) * (self.accuracy - self.floor)
            net.recall("good")
            self.groups.load({name: tensor.clone() for name, tensor in self.good.items()})
        self._begin(net, increment)

    def _begin(self, net: TrainedView, increment: float) -> None:
        """Begin a round: new shares, and the limit of factors that goes with their increment. Or end the training."""
        units, gone = self.groups.units, self.groups.units.counts(self.groups.gone)
        step = Fraction(increment).limit_denominator(10**9) / _HALF
        shares = {
            name: min(Fraction(lost, size) + step * self.pace[name], Fraction(1))
            for name, lost, size in zip(units.blocks, gone.tolist(), units.sizes.tolist(), strict=True)
        }
        wanted = counted(net, shares).minimum(self.most).maximum(gone)
        self.accuracies = []
        if increment < LEAST_INCREMENT or not bool((wanted > gone).any()):
            self.done = True
            net.forget("good")
            net.forget("best")
            return
        self.groups.wanted, self.phase, self.round = wanted, _PRUNE, self.round + 1
        self.increment, self.limit = increment, limit_of(self.target, multiplier_of(increment))

    def _keep(self, net: TrainedView) -> None:
        """Remember the net, and what the groups remember, to come back to."""
        net.remember("good")
        self.good = {name: tensor.clone() for name, tensor in self.groups.tensors().items()}

    def _note(self, net: TrainedView, accuracy: float, good: bool) -> None:
        told = net.notes.setdefault("rounds", [])
        assert isinstance(told, list)
        told.append({"increment": self.increment, "limit": self.limit, "validation_accuracy": accuracy, "kept": good})


def _caps(net: TrainedView, ratios: str, floor: float, first: bool) -> dict[str, Fraction]:
    """The share of its units that each block may lose at most."""
    if not floor:
        return budget_shares(net, first)
    return rates_of(ratios, net.inner) if ratios else dict.fromkeys(candidates(net, first), _MOST_PRUNED)


def _too_high(floor: float, accuracy: float) -> Exception:
    from ipbench.sparse.selection import Impossible

    return Impossible(
        f"the validation accuracy of the dense net is {accuracy:.4f}, below the floor of {floor:g}; a lower option"
        " `floor`, or a better dense net, may do"
    )


def _not_done(epochs: int) -> Exception:
    from ipbench.sparse.selection import Impossible

    return Impossible(f"the rounds are not finished after {epochs:,} epochs; a larger option `limit` may do")
