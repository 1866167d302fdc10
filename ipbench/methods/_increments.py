"""Increments of a group's L2 factor by its averaged rank (IncReg): what one step does to all groups of a net."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from ipbench.sparse.unit_tensors import UnitTensors

#: The increment at the point of symmetry, as a share of the largest one; u in the paper.
SYMMETRY = 0.25
#: A limit is never above this, whatever multiplies it; and the multiplier of an increment of ratios: its value at the
#: least increment, and the increments at which it is that, and 1.
_MOST, _LEAST_MULTIPLIER, LEAST_INCREMENT, _USUAL_INCREMENT = 10.0, 0.25, 0.01, 0.05
#: Of sums of increments: 10,000 times 0.00025 is 2.5, and its sum in double precision a little less.
_ROUNDING = 1e-9
#: The increment of ratios with which the public code begins, and of which its one-stage task has the multiplier.
FIRST_INCREMENT = 0.2


def multiplier_of(increment: float) -> float:
    """What the public code multiplies the limit of a factor by, for an increment of the pruned ratio.

    A sigmoid: 0.25 at 0.01, 1 at 0.05, 2.452 at 0.2, below 2.5.
    """
    start = (_LEAST_MULTIPLIER - 1) / 3 + 0.5
    steepness = math.log(1 / start - 1) / (_USUAL_INCREMENT - LEAST_INCREMENT)
    return 3 * (1 / (1 + math.exp(-steepness * (increment - _USUAL_INCREMENT))) - 0.5) + 1


def limit_of(target: float, multiplier: float) -> float:
    """The factor at which a group is pruned, at most 10."""
    return min(target * multiplier, _MOST)


def increments(places: Tensor, remaining: Tensor, rise: float) -> Tensor:
    """What factors grow by: `rise` in the first place, nothing in place `remaining`, less than nothing behind it.

    With R remaining groups, u = 0.25, alpha = ln(2 / u) / R and N = -ln(u) / alpha: rise e^(-alpha j) for places
    j < N, and 2 u rise - rise e^(-alpha (2 N - j)) from there on, which is symmetric about (N, u rise).

    Args:
        places: from 0, the group that goes first in front; any shape.
        remaining: how many groups of the block are still to go, above 0; broadcast over `places`.
        rise: the largest increment.
    """
    import torch

    alpha = math.log(2 / SYMMETRY) / remaining.double()
    middle = -math.log(SYMMETRY) / alpha
    falling = rise * torch.exp(-alpha * places)
    beyond = 2 * SYMMETRY * rise - rise * torch.exp(-alpha * (2 * middle - places))
    return torch.where(places < middle, falling, beyond)


class Increments:
    """Ranks, factors and groups that are gone, of all units of a net.

    Of each block so many units are to go (`wanted`). While fewer are gone, every step averages the rank of each unit
    over all steps so far, raises or lowers its factor by its place in these averages, and units whose factor has come
    to the limit go. All numbers are of double precision.

    Attributes:
        units: of the net.
        wanted: of shape (blocks,), int64.
        gone: of shape (units,): which units are gone.
        factor: of shape (units,): what is added to the weight decay.
        rank: of shape (units,): the average of the ranks.
        steps: of shape (blocks,): over how many steps.
    """

    def __init__(self, units: UnitTensors, wanted: Tensor) -> None:
        """At the beginning: nothing is gone, no factor."""
        import torch

        self.units, self.wanted = units, wanted
        self.factor = torch.zeros(units.number, dtype=torch.float64, device=wanted.device)
        self.rank, self.gone = torch.zeros_like(self.factor), torch.zeros_like(self.factor, dtype=torch.bool)
        self.steps = torch.zeros_like(wanted, dtype=torch.float64)

    @property
    def remaining(self) -> Tensor:
        """How many units of each block are still to go."""
        return (self.wanted - self.units.counts(self.gone)).clamp(min=0)

    def step(self, sizes: Tensor, rise: float, limit: float) -> tuple[Tensor, Tensor]:
        """One step.

        Args:
            sizes: the L1 norm of every unit.
            rise: the largest increment.
            limit: a unit whose factor is not below it goes.

        Returns:
            Which units go now; and what is added to their weight decay and that of the others at this step: nothing in
            blocks that were finished before.
        """
        import torch

        units, remaining, gone = self.units, self.remaining, self.gone
        busy = remaining > 0
        live = busy[units.block] & ~gone
        self.steps += busy
        number = self.steps[units.block].clamp(min=1)
        rank = units.ranks(torch.where(gone, -math.inf, sizes))
        self.rank = torch.where(live, ((number - 1) * self.rank + rank) / number, self.rank)
        places = units.ranks(torch.where(gone, -math.inf, self.rank)) - units.counts(gone)[units.block]
        grown = self.factor + increments(places, remaining.clamp(min=1)[units.block], rise)
        self.factor = torch.where(live, grown.clamp(min=0), self.factor)
        going = live & (self.factor >= limit * (1 - _ROUNDING))
        self.gone = gone | going
        return going, torch.where(live, self.factor, 0)

    def tensors(self) -> dict[str, Tensor]:
        """All that is remembered."""
        return {name: getattr(self, name) for name in ("wanted", "gone", "factor", "rank", "steps")}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` gave."""
        for name in self.tensors():
            setattr(self, name, tensors[name])
