"""Several scores combined by a linear program, solved without a solver for large linear programs (floor 2).

COPS (Wimmer, Mehnert, Condurache, IJCNN 2021) keeps k of d weights so that a target score S is large while control
scores C_j retain required amounts b_j. Relaxed to a linear program:

    maximise S·m   subject to   1·m = k,   C_j·m >= b_j,   0 <= m <= 1.

With multipliers mu >= 0 of the controls, the best m is the top k of S + mu·C. So the dual function
g(mu) = (top-k sum of S + mu·C) - mu·b is convex and piecewise linear, an evaluation is one selection, and every
selected set is one of its cutting planes. The optimum of the relaxation combines at most J + 1 such sets, which differ
in as many weights. How the authors solve it could not be read; this is derived from the problem as they state it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Places = NDArray[np.int64]

#: Relative gain below which a new cutting plane is one that is known already.
_SAME = 1e-12
#: With more weights than twice this, the multiplier is first estimated on so many of them.
_SAMPLE = 100_000
#: How far from the estimate its bracket begins.
_WIDTH = 0.01
#: What counts as a whole weight in a mixture of sets.
_WHOLE = 1e-9
_MOST_CUTS = 2000
#: How often the requirements are tightened for the sake of whole weights.
_TIGHTENINGS = 30


class Infeasible(Exception):
    """No k weights retain what the controls require; the text says what is required and what is possible."""


@dataclass(frozen=True)
class Combination:
    """The solution of the linear program, and the mask nearest to it that retains what is required.

    Attributes:
        lp_value: optimum of the relaxation, S·m.
        multipliers: mu, one per control; 0 where the control is not active.
        value: S·m of the mask, at most `lp_value`.
        required: b_j.
        retained: C_j·m of the mask. At least b_j, unless no k whole weights were found that retain all of it: then
            nearly so.
        mask: boolean, of shape (d,), with k entries.
        fractional: the relaxation's entries that are neither 0 nor 1, by place; at most J + 1 if no scores tie.
        selections: how often all weights were looked at.
    """

    lp_value: float
    multipliers: tuple[float, ...]
    value: float
    required: tuple[float, ...]
    retained: tuple[float, ...]
    mask: NDArray[np.bool_]
    fractional: dict[int, float]
    selections: int

    @property
    def active(self) -> tuple[bool, ...]:
        """Which controls change the choice."""
        return tuple(bool(multiplier > 0) for multiplier in self.multipliers)


def combine(target: Array, controls: Sequence[Array], keep: int, betas: Sequence[float]) -> Combination:
    """Keep `keep` weights by the target score while every control retains a share of what it could retain.

    Args:
        target: S, of shape (d,), finite.
        controls: C_j, of the same shape.
        keep: k, from 1 to d.
        betas: shares from 0 to 1: b_j = beta_j times the sum of the k largest entries of C_j. With 0 a control is not
            asked, with 1 it decides alone.

    Raises:
        Infeasible: the controls contradict each other.
        ValueError: shapes, k or shares are wrong, or a score is not finite.
    """
    s, cs = _checked(target, controls, keep, betas)
    weights = _Weights(s, cs, keep)
    asked = [place for place, beta in enumerate(betas) if beta > 0]
    required = {place: betas[place] * _most(cs[place], keep) for place in asked}
    for place, bound in required.items():
        if bound <= 0:
            raise Infeasible(f"control {place + 1} retains nothing at all: a share of that is no requirement")
    part = _bracketed(weights, asked[0], required[asked[0]]) if len(asked) == 1 else _cut(weights, required)
    mask = np.zeros(len(s), dtype=bool)
    mask[part.places] = True
    return Combination(
        lp_value=part.lp_value,
        multipliers=tuple(part.multipliers.get(place, 0.0) for place in range(len(cs))),
        value=float(s[mask].sum()),
        required=tuple(required.get(place, -np.inf) for place in range(len(cs))),
        retained=tuple(float(c[mask].sum()) for c in cs),
        mask=mask,
        fractional=part.fractional,
        selections=weights.selections,
    )


def _checked(
    target: Array, controls: Sequence[Array], keep: int, betas: Sequence[float]
) -> tuple[Array, tuple[Array, ...]]:
    s = np.ascontiguousarray(target, dtype=np.float64)
    cs = tuple(np.ascontiguousarray(control, dtype=np.float64) for control in controls)
    if s.ndim != 1 or any(c.shape != s.shape for c in cs) or len(betas) != len(cs):
        raise ValueError("target and controls are vectors of one length, with a share for each control")
    if not 1 <= keep <= len(s):
        raise ValueError(f"cannot keep {keep} of {len(s)} weights")
    if not all(0 <= beta <= 1 for beta in betas):
        raise ValueError("the shares of the controls are from 0 to 1")
    if not all(bool(np.isfinite(score.sum())) for score in (s, *cs)):
        raise ValueError("a score is not finite")
    return s, cs


class _Part(NamedTuple):
    """An optimum of the relaxation, and the places of a mask."""

    lp_value: float
    multipliers: dict[int, float]
    places: Places
    fractional: dict[int, float]


class _Set(NamedTuple):
    """The k weights that are best for some multipliers."""

    value: float
    retained: Array
    places: Places
    threshold: float


class _Weights:
    """All weights, and which of them are still open: the others are kept or left out whatever comes."""

    def __init__(self, s: Array, cs: tuple[Array, ...], keep: int) -> None:
        self.all_s, self.all_cs = s, cs
        self.s, self.cs, self.keep = s, cs, keep
        self.open: Places | None = None
        self.kept: Places = np.empty(0, dtype=np.int64)
        self.value, self.retained = 0.0, np.zeros(len(cs))
        self.selections = 0

    def select(self, multipliers: Mapping[int, float], target: float = 1.0) -> _Set:
        """The best k for target · S + sum of mu_j · C_j; among equal ones those with the larger S, then by place."""
        self.selections += self.open is None
        scores = target * self.s
        for place, multiplier in multipliers.items():
            scores += multiplier * self.cs[place]
        chosen, threshold = _top(scores, self.keep - len(self.kept), self.s)
        value = self.value + float(self.s[chosen].sum())
        retained = self.retained + np.array([float(c[chosen].sum()) for c in self.cs])
        places = chosen if self.open is None else np.concatenate([self.kept, self.open[chosen]])
        return _Set(value, retained, places, threshold)

    def decide(self, kept: NDArray[np.bool_], left_out: NDArray[np.bool_]) -> None:
        """Take weights out of the open ones; both masks are over these."""
        stay = np.flatnonzero(~(kept | left_out))
        now = np.arange(len(self.s)) if self.open is None else self.open
        self.kept = np.concatenate([self.kept, now[kept]])
        self.value += float(self.s[kept].sum())
        self.retained = self.retained + np.array([float(c[kept].sum()) for c in self.cs])
        self.open, self.s, self.cs = now[stay], self.s[stay], tuple(c[stay] for c in self.cs)


def _top(scores: Array, keep: int, second: Array) -> tuple[Places, float]:
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


def _bracketed(weights: _Weights, control: int, required: float) -> _Part:
    """One control: between a multiplier that retains too little and one that retains enough.

    The next multiplier is where the cutting planes of both sets meet; if no set is better there, it is the optimum.
    Weights that both ends of the bracket surely agree on are decided, so that all later steps look at few.
    """
    ends = {False: 0.0, True: math.inf}
    sets: dict[bool, _Set] = {}

    def look(mu: float) -> None:
        found = weights.select({control: mu})
        enough = bool(found.retained[control] >= required)
        ends[enough], sets[enough] = mu, found

    guess, width = _estimate(weights, control, required), _WIDTH
    if guess:
        look(guess)
        while len(sets) < 2 and width < 1:
            look(guess * (1 - width) if True in sets else guess / (1 - width))
            width *= 4
    if False not in sets:
        look(0.0)
        if False not in sets:  # the control asks for no more than the target gives
            return _Part(sets[True].value, {}, sets[True].places, {})
    if True not in sets:
        sets[True] = weights.select({control: 1.0}, target=0.0)
    _narrow(weights, control, ends, sets)
    for _ in range(_MOST_CUTS):
        low, high = sets[False], sets[True]
        mu = (low.value - high.value) / (high.retained[control] - low.retained[control])
        found = weights.select({control: mu})
        gain = found.value + mu * found.retained[control] - (low.value + mu * low.retained[control])
        if gain <= _SAME * (abs(low.value) + abs(mu * low.retained[control])) or mu in (ends[False], ends[True]):
            break
        enough = bool(found.retained[control] >= required)
        ends[enough], sets[enough] = mu, found
        _narrow(weights, control, ends, sets)
    share = (required - low.retained[control]) / (high.retained[control] - low.retained[control])
    entering = np.setdiff1d(high.places, low.places, assume_unique=True)
    leaving = np.setdiff1d(low.places, high.places, assume_unique=True)
    fractional = {int(place): share for place in entering} | {int(place): 1 - share for place in leaving}
    fractional = {place: part for place, part in fractional.items() if 0 < part < 1}
    return _Part(low.value + share * (high.value - low.value), {control: mu}, high.places, fractional)


def _estimate(weights: _Weights, control: int, required: float) -> float | None:
    """The multiplier of a problem with a hundred thousand of the weights, evenly spread; None if there are not more."""
    d = len(weights.s)
    if d < 2 * _SAMPLE:
        return None
    spread = np.linspace(0, d - 1, _SAMPLE).astype(np.int64)
    keep = max(1, round(weights.keep * _SAMPLE / d))
    few = _Weights(weights.s[spread], (weights.cs[control][spread],), keep)
    wanted = required * _SAMPLE / d
    if wanted > _most(few.cs[0], keep):
        return None
    return _bracketed(few, 0, wanted).multipliers.get(0)


def _narrow(weights: _Weights, control: int, ends: dict[bool, float], sets: dict[bool, _Set]) -> None:
    """Decide the weights that every multiplier between the ends keeps, and those that every one leaves out.

    With C >= 0 (a constant added to C changes no choice) scores and threshold both rise with the multiplier: what is
    above the last threshold with the first multiplier stays above, what is below the first with the last stays below.
    """
    if not math.isfinite(ends[True]):
        return
    c = weights.cs[control]
    shift = min(float(c.min(initial=math.inf)), 0.0)
    if shift:
        c = c - shift
    first, last = (sets[end].threshold - ends[end] * shift for end in (False, True))
    slack = _SAME * (abs(first) + abs(last))
    kept = weights.s + ends[False] * c > last + slack
    left_out = weights.s + ends[True] * c < first - slack
    if int(kept.sum()) + int(left_out.sum()) > len(c) // 4:
        weights.decide(kept, left_out)


def _most(c: Array, keep: int) -> float:
    """The sum of the `keep` largest."""
    return float(np.partition(c, len(c) - keep)[len(c) - keep :].sum())


def _cut(weights: _Weights, required: dict[int, float]) -> _Part:
    """Several controls: the relaxation's optimum, then whole weights; tightened until these retain what is required."""
    first = weights.select({})
    if all(first.retained[place] >= bound for place, bound in required.items()):
        return _Part(first.value, {}, first.places, {})
    sets = [first, *(weights.select({place: 1.0}, target=0.0) for place in required)]
    part = _mixed(weights, required, sets)
    places, tight = part.places, dict(required)
    for _ in range(_TIGHTENINGS):
        lacking = {p: bound - float(weights.cs[p][places].sum()) for p, bound in required.items()}
        if max(lack / (abs(required[p]) or 1.0) for p, lack in lacking.items()) <= _WHOLE:
            break
        tight = {p: bound + 1.5 * max(0.0, lacking[p]) for p, bound in tight.items()}
        try:
            places = _mixed(weights, tight, sets).places
        except Infeasible:
            break
    return part._replace(places=places)


def _mixed(weights: _Weights, required: dict[int, float], sets: list[_Set]) -> _Part:
    """The optimum by cutting planes of the dual, which are columns of a small linear program (Dantzig, Wolfe, 1960)."""
    asked = list(required)
    for _ in range(_MOST_CUTS):
        shares, multipliers, worth, feasible = _master(sets, required)
        found = weights.select(multipliers, target=1.0 if feasible else 0.0)
        better = sum(multipliers[place] * found.retained[place] for place in asked) + (found.value if feasible else 0.0)
        if better - worth <= _SAME * 10 * (abs(better) + abs(worth)):
            break
        sets.append(found)
    if not feasible:
        text = "; ".join(f"control {place + 1} requires {required[place]:.6g}" for place in asked)
        raise Infeasible(f"no choice of {weights.keep} weights retains all that the controls require: {text}")
    used = [(share, found) for share, found in zip(shares, sets, strict=True) if share > 1e-12]
    amount = np.zeros(len(weights.s))
    for share, found in used:
        amount[found.places] += share
    whole = np.flatnonzero(amount >= 1 - _WHOLE)
    parts = np.flatnonzero((amount > _WHOLE) & (amount < 1 - _WHOLE))
    places = _rounded(weights, required, whole, parts, amount)
    value = sum(share * found.value for share, found in used)
    return _Part(float(value), multipliers, places, {int(place): float(amount[place]) for place in parts})


def _master(sets: Sequence[_Set], required: Mapping[int, float]) -> tuple[Array, dict[int, float], float, bool]:
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
    result = linprog(-values / size, A_ub=-retained, b_ub=-bound, A_eq=one, b_eq=[1.0], method="highs")
    if result.status == 0 and result.x is not None:
        multipliers = {p: max(0.0, -m) * size / scale[p] for p, m in zip(asked, result.ineqlin.marginals, strict=True)}
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
    )
    assert result.x is not None  # mixtures that may lack something exist
    multipliers = {p: max(0.0, -m) / scale[p] for p, m in zip(asked, result.ineqlin.marginals, strict=True)}
    return result.x[: len(sets)], multipliers, -float(result.eqlin.marginals[0]), False


def _rounded(weights: _Weights, required: Mapping[int, float], whole: Places, parts: Places, amount: Array) -> Places:
    """k whole weights: of the fractional ones the best choice that lacks nothing, else the one that lacks least."""
    missing = weights.keep - len(whole)
    if len(parts) > 16:  # many equal scores: the largest parts
        parts = parts[np.argsort(-amount[parts], kind="stable")][:16]
    base = {place: float(weights.cs[place][whole].sum()) for place in required}
    best: tuple[float, float] | None = None
    places = whole
    for choice in combinations(parts.tolist(), missing):
        extra = list(choice)
        lack = sum(
            max(0.0, 1 - (base[place] + float(weights.cs[place][extra].sum())) / bound) if bound else 0.0
            for place, bound in required.items()
        )
        rank = (-lack if lack > 1e-12 else 0.0, float(weights.s[extra].sum()))
        if best is None or rank > best:
            best, places = rank, np.concatenate([whole, np.array(extra, dtype=np.int64)])
    return places
