"""Single means, rates, seeds to plan with."""

from __future__ import annotations

import math

import pytest

from ipbench.analysis.flips import Interval
from ipbench.analysis.statistics import better, mean_interval, rate_bound, seeds_for


def test_the_t_interval_by_hand():
    # Mean 3, standard deviation sqrt(2.5), t of four degrees of freedom at 97.5 %: 2.776445.
    half = 2.776445 * math.sqrt(2.5 / 5)
    found = mean_interval([1, 2, 3, 4, 5])
    assert (found.lower, found.upper) == pytest.approx((3 - half, 3 + half), rel=1e-6) and found.kind == "t"


def test_the_t_interval_stays_where_a_mean_can_be():
    found = mean_interval([0.99, 1.0, 0.7], 0.0, 1.0)
    assert found.upper == 1.0 and 0 < found.lower < 0.7
    assert mean_interval([0.01, 0.0, 0.3], 0.0, 1.0).lower == 0.0


def test_intervals_of_degenerate_data():
    for few in ([], [1.0], [1.0, 2.0]):
        found = mean_interval(few)
        assert found.kind == "none" and math.isnan(found.lower) and math.isnan(found.upper)
    assert mean_interval([0.3] * 5) == Interval(0.3, 0.3, "constant")
    assert mean_interval([0.1 + 0.2, 0.3, 0.3]).kind == "constant"  # equal up to rounding
    assert mean_interval([0.0] * 4) == Interval(0.0, 0.0, "constant")
    with pytest.raises(ValueError, match="finite"):
        mean_interval([1.0, math.nan, 2.0])


@pytest.mark.parametrize(("n", "percent"), [(6, 39), (9, 28), (12, 22), (20, 14)])
def test_the_rate_of_what_was_never_seen(n, percent):
    assert round(100 * rate_bound(n)) == percent
    assert (1 - rate_bound(n)) ** n == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("effect", "spread", "seeds"), [(0.5, 0.25, (6, 8, 10)), (0.5, 0.4, (8, 14, 16)), (0.2, 0.25, (15, 25, 33))]
)
def test_seeds_to_plan_with_are_those_of_the_simulation(effect, spread, seeds):
    """By simulation of the real test, alone and in families of 10 and 41: within one seed."""
    for members, expected in zip((1, 10, 41), seeds, strict=True):
        assert abs(seeds_for(effect, spread, members) - expected) <= 1


def test_seeds_to_plan_with_at_the_edges():
    assert seeds_for(0.8, 1.0) == 15  # Cohen's large effect: the textbook's t test, 80 %
    assert seeds_for(5, 0.01) == seeds_for(1, 0) == 6  # below six there is no claim
    assert 780 < seeds_for(0.1, 1.0) < 790  # (1.96 + 0.8416)^2 / 0.01, and a little more
    with pytest.raises(ValueError, match="at least one"):
        seeds_for(0, 1)


def test_claims():
    assert better(0.01, 0.05) == "IP better"
    assert better(-0.01, 0.03) == "SP better"
    assert better(0.01, 0.0501) == better(0.01, math.nan) == better(0.0, 0.01) == ""
