"""The linear program of COPS against HiGHS, by hand, and its mask."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

from ipbench.combination import Infeasible, combine


def reference(s, cs, keep, required):
    """HiGHS on the whole program."""
    return linprog(
        -s, A_ub=-np.array(cs), b_ub=-np.array(required), A_eq=np.ones((1, len(s))), b_eq=[keep], bounds=(0, 1),
        method="highs",
    )  # fmt: skip


def most(c, keep):
    return float(np.sort(c)[-keep:].sum())


def test_two_weights_by_hand():
    """S = (3, 2, 1), C = (0, 1, 3), one weight kept, 2 of 3 required, all by hand.

    Sets: {0}: S 3, C 0; {1}: 2, 1; {2}: 1, 3. Mixing {0} and {2} to retain 2 takes 2/3 of {2}: S = 5/3. Mixing {1} and
    {2} takes half: S = 1.5. So the optimum is 5/3 at mu = (3 - 1) / (3 - 0), and the mask that retains 2 is {2}.
    """
    found = combine(np.array([3.0, 2.0, 1.0]), [np.array([0.0, 1.0, 3.0])], 1, [2 / 3])
    assert found.lp_value == pytest.approx(5 / 3, rel=1e-12)
    assert found.multipliers == pytest.approx((2 / 3,)) and found.active == (True,)
    assert list(found.mask) == [False, False, True] and found.value == 1 and found.retained == (3.0,)
    assert found.fractional == pytest.approx({0: 1 / 3, 2: 2 / 3})


def test_nothing_asked_is_the_target_alone_and_all_asked_the_control():
    rng = np.random.default_rng(0)
    s, c = rng.exponential(size=(2, 500))
    alone = combine(s, [c], 50, [0.0])
    assert set(np.flatnonzero(alone.mask)) == set(np.argsort(s)[-50:]) and alone.active == (False,)
    inactive = combine(s, [c], 50, [0.01])
    assert (inactive.mask == alone.mask).all() and inactive.multipliers == (0.0,) and not inactive.fractional
    control = combine(s, [c], 50, [1.0])
    assert set(np.flatnonzero(control.mask)) == set(np.argsort(c)[-50:])
    assert control.retained[0] == pytest.approx(control.required[0], rel=1e-12)


@pytest.mark.parametrize(("controls", "low", "high"), [(1, 0.3, 0.97), (3, 0.3, 0.6)])
def test_two_hundred_problems_equal_highs(controls, low, high):
    """To 1e-9, with at most J + 1 fractional entries; signed scores among them, as GraSP's."""
    rng = np.random.default_rng(controls)
    active = 0
    for number in range(200):
        d, keep = 200, 20
        s, *cs = rng.exponential(size=(controls + 1, d)) if number % 2 else rng.normal(size=(controls + 1, d))
        betas = rng.uniform(low, high, controls)
        required = [beta * most(c, keep) for beta, c in zip(betas, cs, strict=True)]
        expected = reference(s, cs, keep, required)
        if expected.status == 2:
            with pytest.raises(Infeasible):
                combine(s, cs, keep, betas)
            continue
        assert expected.status == 0
        found = combine(s, cs, keep, betas)
        assert found.lp_value == pytest.approx(-expected.fun, rel=1e-9, abs=1e-9)
        assert len(found.fractional) <= controls + 1
        assert found.mask.sum() == keep and found.required == pytest.approx(required)
        if all(r >= q - 1e-9 for r, q in zip(found.retained, required, strict=True)):
            assert found.value <= found.lp_value + 1e-9
        else:
            assert controls > 1  # one control is always met by whole weights
        active += sum(found.active)
    assert active > 100


def test_a_large_problem_takes_the_estimate_and_stays_exact():
    """Above 200,000 weights a sample tells where to look; what comes out is the optimum (no duality gap)."""
    rng = np.random.default_rng(3)
    d, keep = 300_000, 20_000
    s = rng.exponential(size=d) ** 2
    c = rng.exponential(size=d) * (0.5 + s) ** 0.3
    found = combine(s, [c], keep, [0.9])
    (mu,) = found.multipliers
    dual = most(s + mu * c, keep) - mu * found.required[0]
    assert found.active == (True,) and found.lp_value == pytest.approx(dual, rel=1e-12)
    assert found.retained[0] >= found.required[0] and found.value <= found.lp_value
    assert found.lp_value - found.value < 1e-4 * found.lp_value  # one weight of 20,000
    assert len(found.fractional) <= 2 and found.selections <= 6


def test_ties_are_broken_the_same_way_twice():
    s, c = np.repeat([1.0, 2.0, 3.0], 100), np.tile([1.0, 2.0, 3.0], 100)
    first, second = combine(s, [c], 30, [0.9]), combine(s, [c], 30, [0.9])
    assert (first.mask == second.mask).all() and first.mask.sum() == 30
    expected = reference(s, [c], 30, [0.9 * most(c, 30)])
    assert first.lp_value == pytest.approx(-expected.fun, rel=1e-9)


def test_controls_that_contradict_each_other_say_so():
    c = np.linspace(0, 1, 100) ** 8
    with pytest.raises(Infeasible, match="no choice of 10 weights retains all that the controls require") as error:
        combine(np.ones(100), [c, c[::-1].copy()], 10, [0.9, 0.9])
    assert "\n" not in str(error.value)
    assert reference(np.ones(100), [c, c[::-1]], 10, [0.9 * most(c, 10)] * 2).status == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"keep": 0}, "cannot keep 0 of 10"),
        ({"keep": 11}, "cannot keep 11 of 10"),
        ({"betas": [1.5]}, "from 0 to 1"),
        ({"betas": []}, "a share for each control"),
        ({"controls": [np.ones(9)]}, "of one length"),
        ({"target": np.full(10, np.nan)}, "not finite"),
    ],
)
def test_bad_input(values, message):
    given = {"target": np.arange(10.0), "controls": [np.arange(10.0)], "keep": 3, "betas": [0.5], **values}
    with pytest.raises(ValueError, match=message):
        combine(**given)


def test_a_control_of_nothing_is_no_requirement():
    with pytest.raises(Infeasible, match="control 1 retains nothing"):
        combine(np.arange(10.0), [np.zeros(10)], 3, [0.5])
