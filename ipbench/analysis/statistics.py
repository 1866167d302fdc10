"""Single means, rates of collapse, seeds to plan with, and what may be said: over plain numbers."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaincinv, ndtr, stdtrit

from ipbench.analysis.flips import ALPHA, CLAIM_SEEDS, Interval, finite

#: Below so many seeds a single mean has no interval.
INTERVAL_SEEDS = 3
#: The probability with which `seeds_for` finds what it looks for.
POWER = 0.8

IP_BETTER, SP_BETTER, UNDECIDED = "IP better", "SP better", "undecided"


def mean_interval(values: ArrayLike, least: float = -math.inf, most: float = math.inf) -> Interval:
    """The interval of a single mean at level 1 - ALPHA by Student's t, clipped to [least, most].

    Args:
        values: finite numbers, shape (n,).
        least: the smallest possible value, e.g. 0 for an accuracy.
        most: the largest.

    Returns:
        `constant` where all values are equal; `none` below `INTERVAL_SEEDS`.
    """
    x = finite(values)
    if x.size < INTERVAL_SEEDS:
        return Interval(math.nan, math.nan, "none")
    mean = float(x.mean())
    if np.ptp(x) <= 1e-12 * np.abs(x).max():  # equal up to rounding
        return Interval(mean, mean, "constant")
    half = float(stdtrit(x.size - 1, 1 - ALPHA / 2) * x.std(ddof=1) / math.sqrt(x.size))
    return Interval(max(least, mean - half), min(most, mean + half), "t")


def rate_bound(n: int) -> float:
    """The upper bound, at level 1 - ALPHA, of the rate of what never happened in `n` seeds: (1 - rate)^n = ALPHA."""
    return 1 - ALPHA ** (1 / n)


def seeds_for(effect: float, spread: float, members: int = 1) -> int:
    """About how many seeds find a mean difference with probability `POWER`, as one of a family of `members`.

    By the power of Student's t test at level ALPHA / members, and never below `CLAIM_SEEDS`. `benchmarks/coverage.py`
    compares it with simulations of the real test, from which it is off by one seed at most.

    Args:
        effect: the mean difference.
        spread: the standard deviation of the paired differences, in the same unit.
        members: size of the family.
    """
    if effect <= 0 or spread < 0 or members < 1:
        raise ValueError("an effect above zero, a spread of at least zero and a family of at least one")
    enough = CLAIM_SEEDS
    while spread > 0 and _power(enough, effect / spread, ALPHA / members) < POWER:
        enough *= 2
    return next(
        n
        for n in range(max(CLAIM_SEEDS, enough // 2), enough + 1)
        if n == enough or _power(n, effect / spread, ALPHA / members) >= POWER
    )


def _power(n: int, effect: float, alpha: float) -> float:
    """Of the two-sided t test of n normal differences with mean `effect` and variance one."""
    middles = (np.arange(400) + 0.5) / 400
    spread = np.sqrt(2 * gammaincinv((n - 1) / 2, middles) / (n - 1))  # sample deviations, each as probable
    critical, shift = stdtrit(n - 1, 1 - alpha / 2), effect * math.sqrt(n)
    return float(np.mean(ndtr(shift - critical * spread) + ndtr(-shift - critical * spread)))


def better(difference: float, p_adjusted: float) -> str:
    """What is claimed from a mean difference IP - SP and its adjusted p: `IP better`, `SP better` or ''."""
    if math.isnan(p_adjusted) or p_adjusted > ALPHA or difference == 0:
        return ""
    return IP_BETTER if difference > 0 else SP_BETTER
