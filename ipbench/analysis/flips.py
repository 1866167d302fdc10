"""Tests and intervals of paired differences, and of ratios of their means, by flips of sign: exact up to 20 seeds, by
keyed random flips beyond.

Differences are IP - SP of runs that share a seed and therefore initial weights, data order, augmentation and score
batch. If the space had no effect, every seed's difference could as well have had the other sign (Fisher 1935). Paired
seeds and the sign-flip test follow Du, arXiv:2511.19794; why the seed must vary as much as possible: Bouthillier et
al., MLSys 2021, arXiv:2103.03098.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Level of every claim, and 1 - that of every interval.
ALPHA = 0.05
#: Below so many seeds there is no claim and no interval: the smallest two-sided p is 2 / 2^n, and 2 / 2^5 > 0.05.
CLAIM_SEEDS = 6
#: Up to so many seeds all 2^(n - 1) flips are enumerated (a flip and its opposite are one); beyond, `FLIPS` are drawn.
EXACT_SEEDS = 20
FLIPS = 100_000

#: To stay small in memory: flips in one block, and members of a family that take all of one at once.
_BLOCK, _MEMBERS = 1 << 14, 200
#: The share of sum |x| that counts as rounding. Accuracies are multiples of 1 / n_test, so ties are the rule, and
#: 0.1 + 0.2 must tie with 0.3.
_SLACK = 1e-9


@dataclass(frozen=True)
class Interval:
    """An interval of a mean, in the unit of the data.

    `kind` says how it was made: `sign-flip` (here), `t` or `constant` (`statistics.mean_interval`), or `none` (too few
    values; both ends are NaN).
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


def sign_flip(differences: ArrayLike) -> Test:
    """The sign-flip (paired permutation) test of a mean difference of zero, two-sided.

    p is the share of the 2^n patterns of signs whose |sum| is at least the observed one; beyond `EXACT_SEEDS`
    differences, (1 + hits) / (1 + FLIPS) over random patterns.

    Args:
        differences: finite numbers, shape (n,); zeros stay in and flip to themselves.
    """
    x = finite(differences)
    if x.size == 0:
        return Test(math.nan, "none")
    least = abs(x.sum()) - _SLACK * np.abs(x).sum()
    hits = sum(int(np.sum(np.abs(signs @ x) >= least)) for signs in _patterns(x.size))
    if x.size <= EXACT_SEEDS:
        return Test(hits / 2 ** (x.size - 1), "exact")
    return Test((1 + hits) / (1 + FLIPS), "Monte Carlo")


def flip_interval(differences: ArrayLike, alpha: float = ALPHA) -> Interval:
    """All mean differences that the sign-flip test does not reject at level `alpha`: its inversion.

    It excludes zero exactly where `sign_flip` gives p <= alpha, and never leaves the range of the data. With S the set
    of seeds that a pattern flips, the pattern counts against a mean of theta just if theta lies between the mean of S
    and that of the other seeds. So the ends are order statistics of the 2^n - 1 means of subsets: the c-th smallest and
    the c-th largest, c = floor(2^(n - 1) alpha). At n = 6 and alpha = 0.05 they are the extremes.

    Args:
        differences: finite numbers, shape (n,).
        alpha: the level; 0.1 for an interval of 90 %.

    Returns:
        `none` below `CLAIM_SEEDS` seeds.
    """
    x = finite(differences)
    if x.size < CLAIM_SEEDS:
        return Interval(math.nan, math.nan, "none")
    if x.size <= EXACT_SEEDS:
        lows = highs = _subset_means(x)
        count = math.floor(2 ** (x.size - 1) * alpha)
    else:
        lows, highs = _split_means(x)
        count = math.floor((1 + FLIPS) * alpha)
    lower = np.partition(lows, count - 1)[count - 1]
    upper = np.partition(highs, highs.size - count)[highs.size - count]
    return Interval(float(lower) + 0.0, float(upper) + 0.0, "sign-flip")  # + 0.0: no minus zero


def ratio_interval(above: ArrayLike, below: ArrayLike, alpha: float = ALPHA) -> Interval:
    """All ratios of two means that the sign-flip test does not reject: Fieller's interval, by flips of sign.

    Fieller (JRSS B 1954): a ratio r is one of mean(above) to mean(below) just if `above` - r `below` has a mean of
    zero, which is tested for every r. With S the seeds that a pattern flips, the pattern counts against an r just if r
    lies between the ratio of the sums over S and that over the other seeds, where both sums of `below` have one sign;
    where they have not, or one is zero, it is counted for every r, which makes the interval wider, if at all. So the
    ends are order statistics, as those of `flip_interval`, which this is where `below` is 1 everywhere.

    Args:
        above: finite numbers, shape (n,).
        below: those of the same seeds.
        alpha: the level.

    Returns:
        From minus to plus infinity where the mean of `below` may be zero (`sign_flip` gives p > alpha), and there
        alone; `none` below `CLAIM_SEEDS` seeds.
    """
    x, y = finite(above), finite(below)
    if x.size != y.size:
        raise ValueError("expected two arrays of one length")
    if x.size < CLAIM_SEEDS:
        return Interval(math.nan, math.nan, "none")
    if x.size <= EXACT_SEEDS:
        count = math.floor(2 ** (x.size - 1) * alpha)
        parts = [_subset_sums(values[:-1])[1:] for values in (x, y)]  # a half is told by the seeds but the last one
        halves = [np.stack([part, values.sum() - part]) for part, values in zip(parts, (x, y), strict=True)]
    else:
        count = math.floor((1 + FLIPS) * alpha)
        flipped = np.concatenate([block < 0 for block in _patterns(x.size)]).astype(np.float64)
        halves = [np.stack([flipped @ values, (1 - flipped) @ values]) for values in (x, y)]
    sums, under = _rounded(halves[0], x), _rounded(halves[1], y)
    one_sign = under[0] * under[1] > 0
    ratios = sums / np.where(one_sign, under, 1)
    lows, highs = np.where(one_sign, ratios.min(0), -math.inf), np.where(one_sign, ratios.max(0), math.inf)
    lower = np.partition(lows, count - 1)[count - 1]
    upper = np.partition(highs, highs.size - count)[highs.size - count]
    return Interval(float(lower) + 0.0, float(upper) + 0.0, "sign-flip")


def max_t(nodes: ArrayLike, missing: int = 0) -> list[float]:
    """Adjusted p-values of a family of mean differences, by step-down max-T over joint sign flips.

    Westfall and Young, Resampling-Based Multiple Testing (Wiley 1993), alg. 2.8. A flip changes the sign of one seed in
    all members at once, so the dependence between them is that of the data. T = |sum_s f_s x_s| / sqrt(sum_s x_s^2),
    whose denominator no flip changes. The smallest possible p is 2 / 2^n whatever the number of members.

    Args:
        nodes: finite numbers, shape (members, seeds); zero where a member has no such seed.
        missing: members of the family without all of their data. Each adds the member's own p to its adjusted p
            (Bonferroni's bound), so that a half-finished grid is not judged more mildly.

    Returns:
        In the order of `nodes`.
    """
    x = np.asarray(nodes, dtype=np.float64)
    if x.ndim != 2 or not np.isfinite(x).all():
        raise ValueError("expected finite numbers, one row for each member")
    if x.size == 0:
        return [math.nan] * len(x)
    scale = np.sqrt((x**2).sum(1))
    x = x / np.where(scale > 0, scale, 1)[:, None]
    observed = np.abs(x.sum(1))
    order = np.argsort(-observed, kind="stable")
    x, least = x[order], observed[order] - _SLACK * np.abs(x[order]).sum(1)
    alone, joint = np.zeros(len(x)), np.zeros(len(x))
    parts = 1 + len(x) // _MEMBERS
    for signs in (part for block in _patterns(x.shape[1]) for part in np.array_split(block, parts)):
        t = np.abs(x @ signs.T)
        alone += (t >= least[:, None]).sum(1)
        joint += (np.maximum.accumulate(t[::-1])[::-1] >= least[:, None]).sum(1)
    if x.shape[1] <= EXACT_SEEDS:
        alone, joint = (hits / 2 ** (x.shape[1] - 1) for hits in (alone, joint))
    else:
        alone, joint = ((1 + hits) / (1 + FLIPS) for hits in (alone, joint))
    adjusted = np.empty(len(x))
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, joint + missing * alone))
    return [float(p) for p in adjusted]


def finite(values: ArrayLike) -> NDArray[np.float64]:
    """As an array of one dimension.

    Raises:
        ValueError: a number is not finite.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or not np.isfinite(x).all():
        raise ValueError("expected a one-dimensional array of finite numbers")
    return x


def _patterns(n: int) -> Iterator[NDArray[np.float64]]:
    """The signs of n seeds in blocks, shape (patterns, n); random ones depend on n alone."""
    if n <= EXACT_SEEDS:
        places = np.arange(n - 1)
        for start in range(0, 2 ** (n - 1), _BLOCK):
            numbers = np.arange(start, min(start + _BLOCK, 2 ** (n - 1)))
            flipped = (numbers[:, None] >> places) & 1
            # A pattern and its opposite have the same |sum|: the last sign can stay.
            block = np.ones((len(numbers), n))
            block[:, :-1] -= 2.0 * flipped
            yield block
        return
    key = hashlib.blake2b(f"sign flips of {n} seeds".encode(), digest_size=16).digest()
    rng = np.random.Generator(np.random.PCG64(int.from_bytes(key, "little")))
    for start in range(0, FLIPS, _BLOCK):
        yield np.where(rng.integers(0, 2, (min(_BLOCK, FLIPS - start), n)), 1.0, -1.0)


def _subset_means(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The means of all subsets but the empty one; sums within rounding of zero are zero."""
    return _rounded(_subset_sums(x)[1:], x) / _subset_sums(np.ones(x.size))[1:]


def _subset_sums(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sums of all subsets, the empty one first."""
    sums = np.zeros(1)
    for value in x:
        sums = np.concatenate([sums, sums + value])
    return sums


def _split_means(x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of every random split of the seeds, the smaller and the larger of the two means.

    A pattern without flips counts against every theta: its means are minus and plus infinity.
    """
    lows, highs = [], []
    for signs in _patterns(x.size):
        flipped = (signs < 0).astype(np.float64)
        sums, sizes = np.stack([flipped @ x, (1 - flipped) @ x]), np.stack([flipped.sum(1), (1 - flipped).sum(1)])
        means = _rounded(sums, x) / np.maximum(sizes, 1)
        trivial = (sizes == 0).any(0)
        lows.append(np.where(trivial, -math.inf, means.min(0)))
        highs.append(np.where(trivial, math.inf, means.max(0)))
    return np.concatenate(lows), np.concatenate(highs)


def _rounded(sums: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of some of `x`; zero where `sign_flip` could not tell them from zero, so that interval and test agree."""
    return np.where(np.abs(sums) <= _SLACK / 2 * np.abs(x).sum(), 0.0, sums)
