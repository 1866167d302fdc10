from __future__ import annotations

import math
from itertools import product
from statistics import NormalDist

import numpy as np
import pytest

from ipbench.analysis import statistics
from ipbench.analysis.statistics import claim, holm, mean_interval, seeds_needed, sign_flip


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
    x = np.random.default_rng(0).integers(-5, 9, 9) / 100
    sums = [
        abs(sum(sign * value for sign, value in zip(signs, x, strict=True))) for signs in product((1, -1), repeat=9)
    ]
    expected = np.mean(np.array(sums) >= abs(x.sum()) - 1e-12)
    assert sign_flip(x).p == expected


def test_sign_flip_of_nothing_and_of_zeros():
    nothing = sign_flip([])
    assert math.isnan(nothing.p) and nothing.kind == "none"
    assert sign_flip([0.0] * 6).p == 1.0


def test_sign_flip_is_exact_up_to_twenty_and_says_when_it_is_not():
    assert sign_flip([1.0] * 20) == statistics.Test(2 / 2**20, "exact")
    x = np.random.default_rng(1).normal(0.3, 1, 25)
    drawn = sign_flip(x, "a")
    assert drawn.kind == "Monte Carlo"
    assert drawn == sign_flip(x, "a")
    assert drawn.p == pytest.approx(sign_flip(x, "b").p, abs=0.01)
    assert sign_flip([1.0] * 25).p == 1 / (1 + statistics.FLIPS)


def test_numbers_that_are_not_finite_are_refused():
    for function in (sign_flip, mean_interval):
        with pytest.raises(ValueError, match="finite"):
            function([1.0, math.nan])


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1 = 0.04, 0.06, 0.06, 0.04, then never decreasing.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_counts_comparisons_without_data():
    adjusted = holm([0.01, math.nan, 0.02])
    assert adjusted[0] == pytest.approx(0.03) and math.isnan(adjusted[1]) and adjusted[2] == pytest.approx(0.04)
    assert holm([0.01], comparisons=10) == pytest.approx([0.1])
    with pytest.raises(ValueError, match="cannot hold"):
        holm([0.1, 0.2], comparisons=1)


@pytest.mark.parametrize(("comparisons", "seeds"), [(1, 6), (2, 7), (12, 9), (13, 10), (25, 10), (26, 11)])
def test_seeds_needed(comparisons, seeds):
    assert seeds_needed(comparisons) == seeds
    best, next_best = (holm([2 / 2**n] * comparisons)[0] for n in (seeds, seeds - 1))
    assert best <= 0.05 < next_best


def test_seeds_needed_at_another_level_and_of_nothing():
    assert seeds_needed(1, alpha=0.5) == 2
    assert seeds_needed(1, alpha=0.01) == 8
    with pytest.raises(ValueError, match="at least one"):
        seeds_needed(0)


def test_claims():
    assert claim(0.01, 0.05, 6) == "IP better"
    assert claim(-0.01, 0.03, 6) == "SP better"
    assert claim(0.01, 0.0501, 6) == "no claim"
    assert claim(0.01, 0.0001, 5) == "no claim"  # whatever p
    assert claim(0.01, math.nan, 10) == "no claim"


def test_bca_agrees_with_full_enumeration():
    x = np.array([1.0, 1.4, 1.5, 2.2, 4.0])
    # All 5^5 resamples are the bootstrap distribution itself.
    means = np.sort(np.array(list(product(x, repeat=5))).mean(axis=1).round(12))
    normal = NormalDist()
    below = (np.mean(means < x.mean()) + np.mean(means <= x.mean())) / 2
    bias = normal.inv_cdf(float(below))
    jackknife = np.array([np.delete(x, i).mean() for i in range(5)])
    d = jackknife.mean() - jackknife
    acceleration = (d**3).sum() / (6 * (d**2).sum() ** 1.5)

    def end(alpha: float) -> float:
        z = bias + normal.inv_cdf(alpha)
        return float(np.quantile(means, normal.cdf(bias + z / (1 - acceleration * z))))

    found = mean_interval(x, "enumeration")
    assert found.kind == "BCa"
    assert found.lower == pytest.approx(end(0.025), abs=0.03)
    assert found.upper == pytest.approx(end(0.975), abs=0.06)


def test_intervals_of_degenerate_data():
    for few in ([], [1.0], [1.0, 2.0]):
        found = mean_interval(few)
        assert found.kind == "none" and math.isnan(found.lower) and math.isnan(found.upper)
    assert mean_interval([0.3] * 5) == statistics.Interval(0.3, 0.3, "constant")
    assert mean_interval([0.1 + 0.2, 0.3, 0.3]).kind == "constant"  # equal up to rounding
    assert mean_interval([0.0] * 4) == statistics.Interval(0.0, 0.0, "constant")
    three = mean_interval([0.0, 0.0, 0.001])
    assert math.isfinite(three.lower) and 0 <= three.lower <= three.upper <= 0.001


def test_intervals_are_keyed():
    x = [0.1, 0.4, 0.2, 0.9]
    assert mean_interval(x, "a") == mean_interval(x, "a")
    assert mean_interval(x, "a") != mean_interval(x, "b")
