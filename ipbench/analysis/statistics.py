"""The statistics of paired comparisons, over plain arrays.

Differences are IP - SP of runs that share a seed and therefore initial weights, data order, augmentation and score
batch. The choice of paired seeds, a BCa interval and a sign-flip test follows Du, arXiv:2511.19794; why the seed must
vary as much as possible: Bouthillier et al., MLSys 2021, arXiv:2103.03098.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import bootstrap

#: Level of every interval.
CONFIDENCE = 0.95
#: Level of every claim, after Holm's correction.
ALPHA = 0.05
#: Bootstrap resamples behind an interval.
RESAMPLES = 10_000
#: Below so many seeds there is no interval: a bootstrap of one or two numbers says nothing.
INTERVAL_SEEDS = 3
#: Below so many seeds there is no claim: the smallest two-sided p is 2 / 2^n, and 2 / 2^5 > 0.05.
CLAIM_SEEDS = 6
#: Up to so many seeds all 2^n sign flips are enumerated; beyond, `FLIPS` are drawn.
EXACT_SEEDS = 20
FLIPS = 100_000

IP_BETTER, SP_BETTER, NO_CLAIM = "IP better", "SP better", "no claim"


@dataclass(frozen=True)
class Interval:
    """An interval of a mean, in the unit of the data.

    `kind` says how it was made: `BCa`; `constant` (all values equal, so it has no width); `percentile` (BCa is
    undefined for these values); `none` (fewer than `INTERVAL_SEEDS` values; both ends are NaN).
    """

    lower: float
    upper: float
    kind: str


@dataclass(frozen=True)
class Test:
    """A two-sided p-value; `kind` is `exact`, `Monte Carlo` or `none` (no values; p is NaN)."""

    __test__ = False  # not one of pytest's

    p: float
    kind: str


def keyed_rng(*parts: str) -> np.random.Generator:
    """A generator that depends on nothing but `parts`, so no interval depends on which others were computed."""
    digest = hashlib.blake2b("\x1f".join(["analysis", *parts]).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))


def mean_interval(values: ArrayLike, *key: str) -> Interval:
    """The bias-corrected and accelerated bootstrap interval of a mean (Efron, JASA 1987), at level `CONFIDENCE`.

    Args:
        values: finite numbers, shape (n,).
        key: names the resamples, e.g. a cell.

    Returns:
        In the unit of `values`; for degenerate data see `Interval`.
    """
    x = _finite(values)
    if x.size < INTERVAL_SEEDS:
        return Interval(math.nan, math.nan, "none")
    if np.ptp(x) <= 1e-12 * np.abs(x).max():  # equal up to rounding; BCa would divide by their spread
        return Interval(float(x.mean()), float(x.mean()), "constant")
    interval = _bootstrap(x, "BCa", key)
    return interval if math.isfinite(interval.lower + interval.upper) else _bootstrap(x, "percentile", key)


def sign_flip(differences: ArrayLike, *key: str) -> Test:
    """The sign-flip (paired permutation) test of a mean difference of zero, two-sided (Fisher 1935).

    Under the null, the sign of each difference is a fair coin. p is the share of the 2^n sign patterns whose |sum| is
    at least the observed one; beyond `EXACT_SEEDS` differences, (1 + hits) / (1 + FLIPS) over random patterns.

    Args:
        differences: finite numbers, shape (n,); zeros stay in and flip to themselves.
        key: names the random patterns, where there are any.
    """
    x = _finite(differences)
    if x.size == 0:
        return Test(math.nan, "none")
    # Accuracies are multiples of 1 / n_test, so ties are the rule; the slack keeps rounding from breaking them.
    observed = abs(x.sum()) - 1e-9 * np.abs(x).sum()
    if x.size <= EXACT_SEEDS:
        sums = x[:1]  # |sum| is the same for a pattern and its opposite: the first sign can stay
        for difference in x[1:]:
            sums = np.concatenate([sums + difference, sums - difference])
        return Test(float(np.mean(np.abs(sums) >= observed)), "exact")
    rng = keyed_rng("sign flip", *key)
    hits = 0
    for start in range(0, FLIPS, 10_000):  # in blocks, to stay small in memory
        signs = rng.integers(0, 2, (min(10_000, FLIPS - start), x.size)) * 2 - 1
        hits += int(np.sum(np.abs(signs @ x) >= observed))
    return Test((1 + hits) / (1 + FLIPS), "Monte Carlo")


def holm(p: Sequence[float], comparisons: int | None = None) -> list[float]:
    """Holm's step-down adjusted p-values (Scandinavian Journal of Statistics, 1979).

    Args:
        p: raw p-values; NaN (a comparison without data yet) stays NaN.
        comparisons: size of the family, at least `len(p)`; by default `len(p)`. NaNs count as members, so that a
            half-finished grid is not judged more mildly than the finished one.

    Returns:
        In the order of `p`.
    """
    size = len(p) if comparisons is None else comparisons
    if size < len(p):
        raise ValueError(f"a family of {size} comparisons cannot hold {len(p)} p-values")
    adjusted = [math.nan] * len(p)
    running = 0.0
    for rank, index in enumerate(sorted((i for i, value in enumerate(p) if not math.isnan(value)), key=lambda i: p[i])):
        running = max(running, min(1.0, (size - rank) * p[index]))
        adjusted[index] = running
    return adjusted


def claim(difference: float, p_adjusted: float, n: int) -> str:
    """What may be claimed from a mean difference IP - SP over `n` pairs: `IP better`, `SP better` or `no claim`."""
    if n < CLAIM_SEEDS or math.isnan(p_adjusted) or p_adjusted > ALPHA or difference == 0:
        return NO_CLAIM
    return IP_BETTER if difference > 0 else SP_BETTER


def seeds_needed(comparisons: int, alpha: float = ALPHA) -> int:
    """The fewest seeds with which a grid of `comparisons` can reach an adjusted p of `alpha` at all.

    The smallest two-sided sign-flip p of n pairs is 2 / 2^n, and Holm multiplies the smallest of the grid by
    `comparisons`: the least n with comparisons * 2 / 2^n <= alpha. Six for one comparison, nine for twelve, at 0.05.
    """
    if comparisons < 1 or not 0 < alpha < 1:
        raise ValueError("at least one comparison and an alpha between 0 and 1")
    n = 1
    while Fraction(2 * comparisons, 2**n) > Fraction(str(alpha)):
        n += 1
    return n


def _bootstrap(x: NDArray[np.float64], method: Literal["BCa", "percentile"], key: tuple[str, ...]) -> Interval:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what scipy warns of ends in NaN, and the caller looks at that
        result = bootstrap(
            [x],
            np.mean,
            n_resamples=RESAMPLES,
            confidence_level=CONFIDENCE,
            method=method,
            vectorized=True,
            rng=keyed_rng("interval", *key),
        )
    lower, upper = result.confidence_interval
    return Interval(float(lower), float(upper), method)


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or not np.isfinite(x).all():
        raise ValueError("expected a one-dimensional array of finite numbers")
    return x
