"""The sign-flip test, its inversion and the joint test of a family, against plain enumeration."""

from __future__ import annotations

import math
from itertools import combinations, product

import numpy as np
import pytest

from ipbench.analysis import flips
from ipbench.analysis.flips import flip_interval, max_t, ratio_interval, sign_flip


def data_sets(number, seed=0, sizes=(6, 7, 8, 9)):
    """Differences of all sorts: smooth, rounded to hundredths (ties), with zeros, with outliers, shifted."""
    rng = np.random.default_rng(seed)
    for index in range(number):
        n = sizes[index % len(sizes)]
        x = rng.normal(rng.choice([0, 0.3, 0.8, 1.5]), 1, n)
        kind = index % 5
        if kind == 1:
            x = np.round(x, 1) / 100
        elif kind == 2:
            x = rng.integers(-2, 4, n) / 297
        elif kind == 3:
            x[rng.integers(n)] *= 20
        elif kind == 4:
            x = np.abs(np.round(x, 1))
        yield x


def test_sign_flip_by_hand():
    # Sums of ±1 ±2 ±3: |sum| = 6 twice, 4 twice, 2 twice, 0 twice.
    assert sign_flip([1, 2, 3]).p == 2 / 8
    assert sign_flip([-1, 2, 3]).p == 4 / 8  # observed 4: patterns with |sum| of 4 or 6
    assert sign_flip([1, 2, -3]).p == 1.0  # observed 0
    assert sign_flip([0.5]).p == 1.0


def test_six_of_one_sign_reach_two_in_sixty_four():
    assert sign_flip([0.01, 0.02, 0.005, 0.004, 0.03, 0.011]).p == 2 / 64
    assert sign_flip([-0.1] * 6).p == 2 / 64


def test_sign_flip_keeps_ties_that_rounding_would_break():
    # In binary 0.1 + 0.2 is not 0.3, but as accuracies the sums tie: 0.1 + 0.2 - 0.3 and 0.3 - 0.1 - 0.2.
    assert sign_flip([0.1, 0.2, -0.3]).p == sign_flip([1, 2, -3]).p == 1.0
    assert sign_flip([0.3, 0.3, 0.6]).p == sign_flip([1, 1, 2]).p


def test_sign_flip_agrees_with_plain_enumeration():
    for x in data_sets(20, seed=3):
        sums = [
            abs(sum(sign * value for sign, value in zip(signs, x, strict=True)))
            for signs in product((1, -1), repeat=len(x))
        ]
        assert sign_flip(x).p == np.mean(np.array(sums) >= abs(x.sum()) - 1e-9)


def test_sign_flip_of_nothing_and_of_zeros():
    nothing = sign_flip([])
    assert math.isnan(nothing.p) and nothing.kind == "none"
    assert sign_flip([0.0] * 6).p == 1.0


def test_sign_flip_is_exact_up_to_twenty_and_says_when_it_is_not():
    assert sign_flip([1.0] * 20) == flips.Test(2 / 2**20, "exact")
    x = np.random.default_rng(1).normal(0.3, 1, 25)
    drawn = sign_flip(x)
    assert drawn.kind == "Monte Carlo" and drawn == sign_flip(x)
    assert drawn.p == pytest.approx(sign_flip(-x[::-1]).p, abs=0.01)  # other flips of the same differences
    assert sign_flip([1.0] * 25).p == 1 / (1 + flips.FLIPS)


def test_numbers_that_are_not_finite_are_refused():
    for function in (sign_flip, flip_interval, lambda x: max_t([x])):
        with pytest.raises(ValueError, match="finite"):
            function([1.0, math.nan])


def test_the_interval_excludes_zero_just_where_the_test_rejects():
    """Thousands of data sets, ties and zeros among them, at both levels that are used."""
    rejected = 0
    for x in data_sets(3000):
        p = sign_flip(x).p
        for alpha in (0.05, 0.1):
            found = flip_interval(x, alpha)
            assert (found.lower > 0 or found.upper < 0) == (p <= alpha), (x, alpha)
            assert x.min() - 1e-12 <= found.lower <= x.mean() + 1e-12 <= found.upper + 2e-12 <= x.max() + 3e-12
        rejected += p <= 0.05
    assert 500 < rejected < 2500


def test_beyond_twenty_seeds_the_interval_agrees_with_the_test_too():
    both = set()
    for shift in (0.0, 0.2, 0.35, 0.45, 0.55, 0.8):
        x = np.random.default_rng(7).normal(shift, 1, 24)
        found, p = flip_interval(x), sign_flip(x).p
        assert (found.lower > 0 or found.upper < 0) == (p <= 0.05)
        both.add(p <= 0.05)
    assert both == {True, False}


def test_the_ends_by_hand():
    x = [0.3, -0.1, 0.2, 0.5, 0.9, 0.4]
    assert flip_interval(x) == flips.Interval(-0.1, 0.9, "sign-flip")  # floor(32 * 0.05) = 1: the extremes
    seven = [0.3, -0.1, 0.2, 0.5, 0.9, 0.4, 0.7]
    means = sorted(np.mean(some) for size in range(1, 8) for some in combinations(seven, size))
    found = flip_interval(seven)  # floor(64 * 0.05) = 3
    assert (found.lower, found.upper) == pytest.approx((means[2], means[-3]))
    narrow = flip_interval(seven, 0.1)  # floor(64 * 0.1) = 6
    assert (narrow.lower, narrow.upper) == pytest.approx((means[5], means[-6]))


def test_the_ends_against_a_search_over_a_grid():
    """The means that the test does not reject are those between the ends, and no others."""
    for x in data_sets(12, seed=5):
        found = flip_interval(x)
        reach = np.ptp(x) or 1.0
        for theta in np.linspace(x.min() - 0.1 * reach, x.max() + 0.1 * reach, 60):
            if min(abs(theta - found.lower), abs(theta - found.upper)) < 1e-6 * reach:
                continue  # an end itself
            assert (found.lower <= theta <= found.upper) == (sign_flip(x - theta).p > 0.05)


def test_ends_within_rounding_of_zero_are_zero():
    x = [0.1, 0.2, -0.3, 0.0, 0.5, 0.5, 0.5]  # (0.1 + 0.2) - 0.3 is 5.6e-17 in binary
    exact = sorted(sum(some) / len(some) for size in range(1, 8) for some in combinations((1, 2, -3, 0, 5, 5, 5), size))
    place = exact.index(0)
    assert exact.count(0) == 3 and 0.1 + 0.2 - 0.3 != 0
    assert [flip_interval(x, (place + more) / 64 + 1e-9).lower for more in (1, 2, 3)] == [0.0] * 3


def test_ratios_by_hand():
    above, below = [1.0, 4.0, 3.0, 1.0, 5.0, 2.0], [2.0, 5.0, 4.0, 4.0, 10.0, 2.5]
    # One pattern of 32 is too few: the ends are the extremes of single ratios, which are 0.25 and 0.8.
    assert ratio_interval(above, below) == flips.Interval(0.25, 0.8, "sign-flip")
    assert ratio_interval(below, below) == flips.Interval(1.0, 1.0, "sign-flip")
    assert ratio_interval([0.0] * 6, below) == flips.Interval(0.0, 0.0, "sign-flip")
    assert ratio_interval(above[:5], below[:5]).kind == "none"
    with pytest.raises(ValueError, match="one length"):
        ratio_interval(above, below[:5])


@pytest.mark.parametrize("n", [6, 8, 24])
def test_a_ratio_to_one_is_a_mean(n):
    x = np.random.default_rng(n).normal(0.4, 1, n)
    ours, theirs = ratio_interval(x, np.ones(n)), flip_interval(x)
    assert (ours.lower, ours.upper) == pytest.approx((theirs.lower, theirs.upper), rel=1e-12)


def test_ratios_against_a_search_over_a_grid():
    """No ratio outside of the ends passes the test; where all of `below` is above zero, all between them do."""
    for number, y in enumerate(data_sets(16, seed=8)):
        x = 0.6 * y + np.random.default_rng(number).normal(0, 0.3, y.size)
        found = ratio_interval(x, y)
        assert math.isinf(found.lower) == math.isinf(found.upper) == (sign_flip(y).p > 0.05)
        for ratio in np.linspace(-4, 5, 80):
            if sign_flip(x - ratio * y).p > 0.05:
                assert found.lower <= ratio <= found.upper
            elif (y > 0).all():
                assert not found.lower + 1e-9 < ratio < found.upper - 1e-9


def test_a_ratio_beyond_twenty_seeds_is_bounded_where_the_test_of_below_rejects():
    rng = np.random.default_rng(3)
    for shift in (0.0, 0.3, 0.9):
        y = rng.normal(shift, 1, 24)
        found = ratio_interval(0.5 * y + 0.1, y)
        assert math.isfinite(found.upper) == (sign_flip(y).p <= 0.05)
        assert found.lower < (0.5 * y + 0.1).mean() / y.mean() < found.upper


def test_below_six_seeds_there_is_no_interval():
    for n in range(6):
        found = flip_interval([0.1] * n)
        assert found.kind == "none" and math.isnan(found.lower) and math.isnan(found.upper)
    same = flip_interval([0.1] * 6)
    assert (same.lower, same.upper) == pytest.approx((0.1, 0.1)) and same.kind == "sign-flip"


def brute_force(nodes):
    """Step-down max-T as it is written down: all patterns, all members, one after the other."""
    x = np.array(nodes, dtype=float)
    scale = np.sqrt((x**2).sum(1))
    scale[scale == 0] = 1

    def statistic(signs):
        return np.abs((x * np.array(signs)).sum(1)) / scale

    observed = statistic([1] * x.shape[1])
    order = sorted(range(len(x)), key=lambda member: -observed[member])
    adjusted, running = [0.0] * len(x), 0.0
    for place, member in enumerate(order):
        rest = order[place:]
        hits = [max(statistic(signs)[rest]) >= observed[member] - 1e-9 for signs in product((1, -1), repeat=x.shape[1])]
        running = max(running, float(np.mean(hits)))
        adjusted[member] = running
    return adjusted


def test_max_t_against_brute_force():
    rng = np.random.default_rng(2)
    for members, seeds in ((1, 6), (3, 6), (5, 7)):
        shared = rng.normal(size=seeds)
        x = np.round(shared + rng.normal(rng.choice([0, 1, 3], (members, 1)), 1, (members, seeds)), 1)
        x[0, -1] = 0  # a member without that seed
        assert max_t(x) == pytest.approx(brute_force(x), abs=1e-12)
    assert max_t(np.zeros((2, 6))) == [1.0, 1.0]
    assert max_t(np.zeros((0, 6))) == []


def test_one_member_alone_has_the_p_of_the_sign_flip_test():
    for x in data_sets(40, seed=8):
        assert max_t([x]) == [sign_flip(x).p]
    x = np.random.default_rng(1).normal(0.3, 1, 25)
    assert max_t([x]) == [sign_flip(x).p]


def test_the_least_p_does_not_grow_with_the_family():
    """Where all members gain in all seeds by the same: two patterns of 2^9 reach it, in however many members."""
    assert max_t(np.ones((40, 9))) == [2 / 2**9] * 40
    assert min(max_t(np.vstack([np.ones(9), np.random.default_rng(0).normal(size=(30, 9))]))) == 2 / 2**9


def test_members_without_data_count():
    x = np.random.default_rng(4).normal(0.8, 1, (3, 8))
    whole, partial = max_t(x), max_t(x, missing=2)
    raw = [sign_flip(row).p for row in x]
    assert all(p >= q for p, q in zip(partial, whole, strict=True))
    best = int(np.argmax(np.abs(x.sum(1)) / np.sqrt((x**2).sum(1))))
    assert partial[best] == pytest.approx(min(1, whole[best] + 2 * raw[best]))


def test_a_large_family_is_the_same_in_parts(monkeypatch):
    x = np.random.default_rng(6).normal(0.3, 1, (30, 10))
    whole = max_t(x)
    monkeypatch.setattr(flips, "_MEMBERS", 7)
    monkeypatch.setattr(flips, "_BLOCK", 100)
    assert max_t(x) == whole


def test_the_family_holds_its_level():
    """Sixty-four patterns of the same numbers, each as probable under the null: at most 5 % of them make a claim."""
    x = np.random.default_rng(9).normal(0, 1, (4, 6)) + np.random.default_rng(10).normal(size=6)
    claims = sum(min(max_t(x * np.array(signs))) <= 0.05 for signs in product((1, -1), repeat=6))
    assert claims <= 0.05 * 64
