"""Combinations with several controls: a master program over cutting planes of the dual (Dantzig, Wolfe, 1960)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ipbench.methods._combination_rounding import corner
from ipbench.methods._combination_weights import (
    CERTAIN,
    HIGHS,
    MOST_CUTS,
    SAME,
    SHARE,
    Array,
    Infeasible,
    Part,
    Places,
    Set,
    Unsolved,
    Weights,
)

#: How often a relaxation is solved for the sake of whole weights.
_TRIES = 30


def cut(weights: Weights, required: dict[int, float]) -> Part:
    """Several controls: the relaxation's optimum, and whole weights near it that retain what is required."""
    first = weights.select({})
    if all(first.retained[place] >= bound for place, bound in required.items()):
        return Part(first.value, {}, first.places, {})
    sets = [first, *_extremes(weights, required)]
    for slack in (0.0, SAME, CERTAIN):  # asked for all there is, rounding alone can make it impossible
        try:
            part = _mixed(weights, {place: bound * (1 - slack) for place, bound in required.items()}, sets)
        except Infeasible:
            if slack == CERTAIN:
                raise
        else:
            break
    return part._replace(places=_whole_weights(weights, required, sets, part))


def _extremes(weights: Weights, required: Mapping[int, float]) -> list[Set]:
    """What retains most of each control."""
    return [weights.select({place: 1.0}, target=0.0) for place in required]


def _whole_weights(weights: Weights, required: dict[int, float], sets: list[Set], part: Part) -> Places:
    """The mask of an optimum that retains what is required, or of those that were found the one that lacks least.

    Where a mask lacks something, the requirements are tightened by it. Where that is impossible, as when one weight
    holds most of a control, the fractional weight that helps most is kept for good.
    """
    best, least, tight = part.places, math.inf, dict(required)
    for _ in range(_TRIES):
        lacks = {p: max(0.0, 1 - float(weights.all_cs[p][part.places].sum()) / bound) for p, bound in required.items()}
        if max(lacks.values()) < least:
            best, least = part.places, max(lacks.values())
        if least <= SAME:
            break
        tight = {place: bound + 1.5 * lacks[place] * required[place] for place, bound in tight.items()}
        try:
            part = _mixed(weights, tight, sets)
        except Infeasible:
            tight = dict(required)
            helps = {
                place: sum(lack * weights.all_cs[p][place] / required[p] for p, lack in lacks.items())
                for place in part.fractional
            }
            if not helps:
                break
            forced = max(helps, key=lambda place: helps[place])
            weights.forced.append(forced)
            sets = [found for found in sets if (found.places == forced).any()] + _extremes(weights, required)
            try:
                part = _mixed(weights, tight, sets)
            except (Infeasible, Unsolved):
                break
        except Unsolved:  # the optimum is known; a better mask is not
            break
    return best


def _mixed(weights: Weights, required: dict[int, float], sets: list[Set]) -> Part:
    """The optimum by cutting planes of the dual, which are columns of a small linear program (Dantzig, Wolfe, 1960).

    No set is better than the known ones at the last multipliers by more than `CERTAIN`: the bound that shows it.
    """
    asked = list(required)
    for _ in range(MOST_CUTS):
        shares, multipliers, worth, feasible = _master(sets, required)
        found = weights.select(multipliers, target=1.0 if feasible else 0.0)
        better = sum(multipliers[place] * found.retained[place] for place in asked) + (found.value if feasible else 0.0)
        size = abs(better) + abs(worth) + sum(multipliers[place] * required[place] for place in asked)
        if better - worth <= SAME * 10 * size or any(_same(found, known) for known in sets):
            break
        sets.append(found)
    if better - worth > CERTAIN * size:
        raise Unsolved(
            f"the linear program of {len(weights.s):,} weights is solved to {(better - worth) / size:.2g} only"
            f" (relatively, {len(sets)} cuts)"
        )
    if not feasible:
        text = "; ".join(f"control {place + 1} requires {required[place]:.6g}" for place in asked)
        raise Infeasible(f"no choice of {weights.keep} weights retains all that the controls require: {text}")
    used = [(share, found) for share, found in zip(shares, sets, strict=True) if share > SHARE]
    total = sum(share for share, _ in used)
    amount = np.zeros(len(weights.all_s))
    for share, found in used:
        amount[found.places] += share / total
    return corner(weights, required, amount, multipliers)


def _same(one: Set, other: Set) -> bool:
    """Whether two sets are the same cutting plane."""
    return one.value == other.value and np.array_equal(one.retained, other.retained)


def _master(sets: Sequence[Set], required: Mapping[int, float]) -> tuple[Array, dict[int, float], float, bool]:
    """The best mixture of known sets: shares, multipliers of the controls, worth of its sets, and whether it suffices.

    While no mixture retains what is required, the mixture that lacks least, in shares of what is required.
    """
    from scipy.optimize import linprog  # here: scipy.optimize takes half a second to import

    asked = list(required)
    scale = {place: abs(required[place]) or 1.0 for place in asked}
    retained = np.array([[found.retained[place] / scale[place] for found in sets] for place in asked])
    bound = np.array([required[place] / scale[place] for place in asked])
    values = np.array([found.value for found in sets])
    size = float(np.abs(values).max()) or 1.0
    one = np.ones((1, len(sets)))
    result = linprog(-values / size, A_ub=-retained, b_ub=-bound, A_eq=one, b_eq=[1.0], method="highs", options=HIGHS)
    if result.status == 0 and result.x is not None:
        multipliers = {
            p: max(0.0, -float(m)) * size / scale[p] for p, m in zip(asked, result.ineqlin.marginals, strict=True)
        }
        return result.x, multipliers, -float(result.eqlin.marginals[0]) * size, True
    lacking = np.eye(len(asked))
    costs = np.concatenate([np.zeros(len(sets)), np.ones(len(asked))])
    result = linprog(
        costs,
        A_ub=-np.hstack([retained, lacking]),
        b_ub=-bound,
        A_eq=np.hstack([one, np.zeros((1, len(asked)))]),
        b_eq=[1.0],
        method="highs",
        options=HIGHS,
    )
    if result.x is None:  # mixtures that may lack something exist
        raise Unsolved(f"the linear program of {len(sets)} cuts is not solved: {result.message}")
    multipliers = {p: max(0.0, -float(m)) / scale[p] for p, m in zip(asked, result.ineqlin.marginals, strict=True)}
    return result.x[: len(sets)], multipliers, -float(result.eqlin.marginals[0]), False
