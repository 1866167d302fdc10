"""The linear program of COPS against HiGHS, by hand, and its mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linprog

from ipbench.data import catalog
from ipbench.data.loaders import Data
from ipbench.methods import _combination_bracket, _combination_planes, cops
from ipbench.methods._combination import Infeasible, Unsolved, combine
from ipbench.models.build import build
from ipbench.planning.axes import merged_recipe
from ipbench.sparse.net import SparseNet
from tests.tiny import make_run


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


@pytest.mark.parametrize(("controls", "low", "high", "problems"), [(1, 0.3, 0.97, 200), (3, 0.3, 0.6, 40)])
def test_small_problems_equal_highs(controls, low, high, problems):
    """To 1e-9, with at most J + 1 fractional entries; signed scores among them, as GraSP's."""
    rng = np.random.default_rng(controls)
    active = 0
    for number in range(problems):
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
    assert (first.mask == second.mask).all() and first.mask.sum() == 30 and len(first.fractional) <= 2
    expected = reference(s, [c], 30, [0.9 * most(c, 30)])
    assert first.lp_value == pytest.approx(-expected.fun, rel=1e-9)


# Problems of real sizes. What certifies an optimum is no other solver but the dual function: for any multipliers it is
# an upper bound of all mixtures.


def bound(s, cs, keep, found) -> float:
    """g(mu) = the sum of the k largest of S + mu C, minus mu b."""
    pairs = [(mu, c, b) for mu, c, b in zip(found.multipliers, cs, found.required, strict=True) if mu]
    return most(s + sum(mu * c for mu, c, _ in pairs), keep) - sum(mu * b for mu, _, b in pairs)


def certify(s, cs, keep, betas, lack: float = 1e-12):
    """Solve, check the mask and that the optimum has no duality gap; returns the solution."""
    found = combine(s, cs, keep, betas)
    required = [beta * most(c, keep) for beta, c in zip(betas, cs, strict=True)]
    assert found.mask.sum() == keep and len(found.fractional) <= len(cs) + 1
    assert found.required == pytest.approx(required, rel=1e-12)
    assert found.value == pytest.approx(s[found.mask].sum(), rel=1e-12)
    assert found.retained == pytest.approx([c[found.mask].sum() for c in cs], rel=1e-12)
    assert all(kept >= least * (1 - lack) for kept, least in zip(found.retained, required, strict=True))
    size = abs(found.lp_value) + sum(mu * b for mu, b in zip(found.multipliers, required, strict=True))
    assert abs(bound(s, cs, keep, found) - found.lp_value) <= 1e-9 * size
    assert found.value <= found.lp_value + 1e-9 * size
    return found


def heavy(d: int, controls: int, seed: int = 0):
    """A target and controls that agree in part, with long tails; each sums to 1, as COPS gives them."""
    rng = np.random.default_rng(seed)
    s = rng.exponential(size=d) ** 2
    cs = [rng.exponential(size=d) * (0.5 + s) ** 0.3 for _ in range(controls)]
    return s / s.sum(), [c / c.sum() for c in cs]


@pytest.mark.parametrize(
    ("d", "controls", "beta"), [(10_000, 2, 0.6), (10_000, 4, 0.45), (100_000, 3, 0.5), (1_000_000, 2, 0.5)]
)
def test_several_controls_at_real_sizes(d, controls, beta):
    s, cs = heavy(d, controls)
    found = certify(s, cs, d // 20, [beta] * controls)
    assert sum(found.active) >= 2
    assert found.lp_value - found.value < 5 * (controls + 1) / (d // 20)  # a few weights
    if d == 10_000:
        rows = [c / b for c, b in zip(cs, found.required, strict=True)]
        assert found.lp_value == pytest.approx(-reference(s * d, rows, d // 20, [1] * controls).fun / d, rel=1e-7)


def test_scores_of_a_real_net_give_the_known_values():
    """LeNet-300-100 on digits, 5,020 of 50,200 weights, target SNIP; the values are those of an independent solve.

    Scores are float32, and differ in their last bits from one processor to the next.
    """
    recipe = merged_recipe(catalog.dataset("digits").recipe, {}, "here")
    data = Data("digits", recipe, 0, root=Path("data"))
    run = make_run(model="lenet-300-100", method="cops", recipe=recipe, sparsity="0.9")
    net = SparseNet(build("lenet-300-100", data.shape, 10, 0), run, data.shape)
    batch = data.score_batch()
    with net.scratch() as twin:
        names = ("snip", "synflow", "grasp", "magnitude")
        vectors = {name: cops.normalised(cops.score(twin, batch, name)) for name in names}
    for controls, beta, value in (
        ("synflow,grasp", 0.5, 0.551435418),
        ("synflow,grasp", 0.8, 0.509696564),
        ("synflow,magnitude", 0.8, 0.516921622),
        ("synflow,grasp,magnitude", 0.8, 0.479008963),
    ):
        cs = [vectors[name] for name in controls.split(",")]
        assert net.budget == 5020
        assert certify(vectors["snip"], cs, 5020, [beta] * len(cs)).lp_value == pytest.approx(value, abs=5e-9)


def odd_scores(kind: str, rng: np.random.Generator, d: int = 10_000):
    """A target and two controls that once were or might be trouble."""
    s = rng.exponential(size=d)
    base = rng.exponential(size=d)
    if kind == "ties":
        s, cs = rng.integers(0, 6, d).astype(float), list(rng.integers(0, 4, (2, d)).astype(float))
    elif kind == "zeros and ones":
        s, cs = (rng.random(d) < 0.5).astype(float), [(rng.random(d) < 0.3).astype(float) for _ in range(2)]
    elif kind == "duplicates":
        cs = [base, 3 * base]
    elif kind == "nearly parallel":
        cs = [base, base * (1 + 1e-7 * rng.normal(size=d))]
    elif kind == "of the target":
        cs = [s.copy(), base]
    elif kind == "opposite":
        cs = [rng.normal(size=d)]
        cs.append(-cs[0])
    elif kind == "many orders":
        s, cs = np.exp(rng.normal(0, 8, d)), list(np.exp(rng.normal(0, 8, (2, d))))
    else:  # by layer
        cs = [10.0 ** rng.uniform(-3, 3, 20)[rng.integers(0, 20, d)] for _ in range(2)]
    return s / np.abs(s).sum(), [c / np.abs(c).sum() for c in cs]


@pytest.mark.parametrize(
    "kind",
    ["ties", "zeros and ones", "duplicates", "nearly parallel", "of the target", "opposite", "many orders", "by layer"],
)
def test_odd_scores_at_a_real_size(kind):
    """Solved with a certificate, or without a solution as HiGHS says, for one control and for two."""
    solved = 0
    for controls in (1, 2):
        for beta in (0.5, 0.8, 0.95):
            s, cs = odd_scores(kind, np.random.default_rng(5))
            cs = cs[:controls]
            required = [beta * most(c, 500) for c in cs]
            try:
                # A few weights may hold most of a control: then whole weights may lack the part of one.
                certify(s, cs, 500, [beta] * controls, lack=1e-12 if controls == 1 else 0.02)
                solved += 1
            except Infeasible:
                rows = [c / b for c, b in zip(cs, required, strict=True)]
                assert reference(s / s.max(), rows, 500, [1] * controls).status == 2
    assert solved >= 3  # with one control there is always a solution


def test_all_of_several_controls_that_agree():
    """What is left to choose is nothing: rounding must not make it impossible."""
    rng = np.random.default_rng(1)
    s, c = rng.exponential(size=(2, 2_000))
    found = combine(s, [c, 2 * c, 3 * c], 100, [1.0, 1.0, 1.0])
    assert set(np.flatnonzero(found.mask)) == set(np.argsort(c)[-100:])


def test_equal_scores_lose_no_more_than_one_weight():
    """Two kinds of weights: 55 of 100 must be of the second; a corner of the program, not one of the two extremes."""
    s, c = np.repeat([2.0, 1.0], 1000), np.repeat([1.0, 2.0], 1000)
    found = combine(s, [c], 100, [155 / 200])
    assert found.lp_value == pytest.approx(145) and found.value == 145 and found.retained == (155.0,)


def test_a_loop_that_runs_out_is_an_error_of_its_own(monkeypatch):
    s, cs = heavy(2_000, 2)
    monkeypatch.setattr(_combination_planes, "MOST_CUTS", 3)
    with pytest.raises(Unsolved, match=r"of 2,000 weights is solved to .* only") as error:
        combine(s, cs, 100, [0.6, 0.6])
    assert "\n" not in str(error.value)
    with pytest.raises(Unsolved, match="did not end"):
        monkeypatch.setattr(_combination_bracket, "MOST_CUTS", 1)
        combine(s, cs[:1], 100, [0.9])


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
