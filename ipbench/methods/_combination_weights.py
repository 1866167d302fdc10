"""The weights of a combination of scores: which are best for some multipliers, and which are decided already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Places = NDArray[np.int64]

#: Relative gain below which a new cutting plane is one that is known already.
SAME = 1e-12
#: Relative distance of the dual bound from the optimum, above which a problem counts as not solved.
CERTAIN = 1e-9
#: Shares of sets below this are rounding.
SHARE = 1e-11
#: HiGHS answers to 1e-7 unless told otherwise: too coarse to tell one weight of a million.
HIGHS: Any = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
MOST_CUTS = 2000


class Infeasible(Exception):
    """No k weights retain what the controls require; the text says what is required and what is possible."""


class Unsolved(Exception):
    """No solution was found whose dual bound shows that it is the best; the text says how far apart they are."""


class Part(NamedTuple):
    """An optimum of the relaxation, and the places of a mask."""

    lp_value: float
    multipliers: dict[int, float]
    places: Places
    fractional: dict[int, float]


class Set(NamedTuple):
    """The k weights that are best for some multipliers."""

    value: float
    retained: Array
    places: Places
    threshold: float


class Weights:
    """All weights, and which of them are still open: the others are kept or left out whatever comes."""

    def __init__(self, s: Array, cs: tuple[Array, ...], keep: int) -> None:
        self.all_s, self.all_cs = s, cs
        self.s, self.cs, self.keep = s, cs, keep
        self.open: Places | None = None
        self.kept: Places = np.empty(0, dtype=np.int64)
        self.value, self.retained = 0.0, np.zeros(len(cs))
        self.forced: list[int] = []  # kept whatever comes, while all are open
        self.selections = 0

    def select(self, multipliers: Mapping[int, float], target: float = 1.0) -> Set:
        """The best k for target · S + sum of mu_j · C_j; among equal ones those with the larger S, then by place."""
        self.selections += self.open is None
        scores = target * self.s
        for place, multiplier in multipliers.items():
            scores += multiplier * self.cs[place]
        scores[self.forced] = np.inf
        chosen, threshold = top(scores, self.keep - len(self.kept), self.s)
        value = self.value + float(self.s[chosen].sum())
        retained = self.retained + np.array([float(c[chosen].sum()) for c in self.cs])
        places = chosen if self.open is None else np.concatenate([self.kept, self.open[chosen]])
        return Set(value, retained, places, threshold)

    def decide(self, kept: NDArray[np.bool_], left_out: NDArray[np.bool_]) -> None:
        """Take weights out of the open ones; both masks are over these."""
        stay = np.flatnonzero(~(kept | left_out))
        now = np.arange(len(self.s)) if self.open is None else self.open
        self.kept = np.concatenate([self.kept, now[kept]])
        self.value += float(self.s[kept].sum())
        self.retained = self.retained + np.array([float(c[kept].sum()) for c in self.cs])
        self.open, self.s, self.cs = now[stay], self.s[stay], tuple(c[stay] for c in self.cs)


def top(scores: Array, keep: int, second: Array) -> tuple[Places, float]:
    """Places of the `keep` largest scores, equal ones by `second`, then by place; and the smallest of these scores."""
    if keep >= len(scores):
        return np.arange(len(scores)), float(scores.min(initial=np.inf))
    if keep == 0:
        return np.empty(0, dtype=np.int64), float(scores.max(initial=-np.inf))
    threshold = np.partition(scores, len(scores) - keep)[len(scores) - keep]
    chosen = np.flatnonzero(scores >= threshold)
    if len(chosen) > keep:
        above, equal = chosen[scores[chosen] > threshold], chosen[scores[chosen] == threshold]
        equal = equal[np.argsort(-second[equal], kind="stable")]
        chosen = np.concatenate([above, equal[: keep - len(above)]])
    return chosen, float(threshold)


def most(c: Array, keep: int) -> float:
    """The sum of the `keep` largest."""
    return float(np.partition(c, len(c) - keep)[len(c) - keep :].sum())
