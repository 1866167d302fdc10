"""Several scores combined by a linear program, solved without a solver for large linear programs.

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
from typing import Any, NamedTuple

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
#: Relative distance of the dual bound from the optimum, above which a problem counts as not solved.
_CERTAIN = 1e-9
#: What counts as a whole weight in a mixture of sets.
_WHOLE = 1e-9
#: Shares of sets below this are rounding.
_SHARE = 1e-11
#: HiGHS answers to 1e-7 unless told otherwise: too coarse to tell one weight of a million.
_HIGHS: Any = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
_MOST_CUTS = 2000
#: How often a relaxation is solved for the sake of whole weights.
_TRIES = 30


class Infeasible(Exception):
    """No k weights retain what the controls require; the text says what is required and what is possible."""


class Unsolved(Exception):
    """No solution was found whose dual bound shows that it is the best; the text says how far apart they are."""


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
        fractional: the relaxation's entries that are neither 0 nor 1, by place; at most J + 1.
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
        Unsolved: the optimum was not found to 1e-9.
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
    if int(mask.sum()) != keep:
        raise Unsolved(f"the linear program gave {int(mask.sum()):,} whole weights instead of {keep:,}")
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
        self.forced: list[int] = []  # kept whatever comes, while all are open
        self.selections = 0

    def select(self, multipliers: Mapping[int, float], target: float = 1.0) -> _Set:
        """The best k for target · S + sum of mu_j · C_j; among equal ones those with the larger S, then by place."""
        self.selections += self.open is None
        scores = target * self.s
        for place, multiplier in multipliers.items():
            scores += multiplier * self.cs[place]
        scores[self.forced] = np.inf
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
        enough = bool(found.retained[control] >= required * (1 - _SAME))
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
    mu = _close(weights, control, required, ends, sets)
    low, high = sets[False], sets[True]
    share = (required - low.retained[control]) / (high.retained[control] - low.retained[control])
    entering = np.setdiff1d(high.places, low.places, assume_unique=True)
    leaving = np.setdiff1d(low.places, high.places, assume_unique=True)
    fractional = {int(place): share for place in entering} | {int(place): 1 - share for place in leaving}
    fractional = {place: part for place, part in fractional.items() if 0 < part < 1}
    part = _Part(low.value + share * (high.value - low.value), {control: mu}, high.places, fractional)
    if len(fractional) <= 2:
        return part
    # Equal scores: both sets differ in more weights than have to be exchanged.
    amount = np.zeros(len(weights.all_s))
    amount[np.intersect1d(low.places, high.places, assume_unique=True)] = 1
    amount[list(fractional)] = list(fractional.values())
    corner = _corner(weights, {control: required}, amount, part.multipliers)
    enough = weights.all_cs[control][corner.places].sum() >= required
    return corner if enough else corner._replace(places=high.places)


def _close(weights: _Weights, control: int, required: float, ends: dict[bool, float], sets: dict[bool, _Set]) -> float:
    """Bring both ends of the bracket to the optimal multiplier, where their sets are equally good."""
    _narrow(weights, control, ends, sets)
    for _ in range(_MOST_CUTS):
        low, high = sets[False], sets[True]
        mu = float((low.value - high.value) / (high.retained[control] - low.retained[control]))
        found = weights.select({control: mu})
        gain = found.value + mu * found.retained[control] - (low.value + mu * low.retained[control])
        if gain <= _SAME * (abs(low.value) + abs(mu * low.retained[control])) or mu in (ends[False], ends[True]):
            return mu
        enough = bool(found.retained[control] >= required * (1 - _SAME))
        ends[enough], sets[enough] = mu, found
        _narrow(weights, control, ends, sets)
    raise Unsolved(
        f"the linear program did not end: the last multiplier was {mu:.6g}, and a set was better by {gain:.3g}"
    )


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
    try:
        return _bracketed(few, 0, wanted).multipliers.get(0)
    except Unsolved:  # a guess was wanted, no more
        return None


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
    """Several controls: the relaxation's optimum, and whole weights near it that retain what is required."""
    first = weights.select({})
    if all(first.retained[place] >= bound for place, bound in required.items()):
        return _Part(first.value, {}, first.places, {})
    sets = [first, *_extremes(weights, required)]
    for slack in (0.0, _SAME, _CERTAIN):  # asked for all there is, rounding alone can make it impossible
        try:
            part = _mixed(weights, {place: bound * (1 - slack) for place, bound in required.items()}, sets)
        except Infeasible:
            if slack == _CERTAIN:
                raise
        else:
            break
    return part._replace(places=_whole_weights(weights, required, sets, part))


def _extremes(weights: _Weights, required: Mapping[int, float]) -> list[_Set]:
    """What retains most of each control."""
    return [weights.select({place: 1.0}, target=0.0) for place in required]


def _whole_weights(weights: _Weights, required: dict[int, float], sets: list[_Set], part: _Part) -> Places:
    """The mask of an optimum that retains what is required, or of those that were found the one that lacks least.

    Where a mask lacks something, the requirements are tightened by it. Where that is impossible, as when one weight
    holds most of a control, the fractional weight that helps most is kept for good.
    """
    best, least, tight = part.places, math.inf, dict(required)
    for _ in range(_TRIES):
        lacks = {p: max(0.0, 1 - float(weights.all_cs[p][part.places].sum()) / bound) for p, bound in required.items()}
        if max(lacks.values()) < least:
            best, least = part.places, max(lacks.values())
        if least <= _SAME:
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


def _mixed(weights: _Weights, required: dict[int, float], sets: list[_Set]) -> _Part:
    """The optimum by cutting planes of the dual, which are columns of a small linear program (Dantzig, Wolfe, 1960).

    No set is better than the known ones at the last multipliers by more than `_CERTAIN`: the bound that shows it.
    """
    asked = list(required)
    for _ in range(_MOST_CUTS):
        shares, multipliers, worth, feasible = _master(sets, required)
        found = weights.select(multipliers, target=1.0 if feasible else 0.0)
        better = sum(multipliers[place] * found.retained[place] for place in asked) + (found.value if feasible else 0.0)
        size = abs(better) + abs(worth) + sum(multipliers[place] * required[place] for place in asked)
        if better - worth <= _SAME * 10 * size or any(_same(found, known) for known in sets):
            break
        sets.append(found)
    if better - worth > _CERTAIN * size:
        raise Unsolved(
            f"the linear program of {len(weights.s):,} weights is solved to {(better - worth) / size:.2g} only"
            f" (relatively, {len(sets)} cuts)"
        )
    if not feasible:
        text = "; ".join(f"control {place + 1} requires {required[place]:.6g}" for place in asked)
        raise Infeasible(f"no choice of {weights.keep} weights retains all that the controls require: {text}")
    used = [(share, found) for share, found in zip(shares, sets, strict=True) if share > _SHARE]
    total = sum(share for share, _ in used)
    amount = np.zeros(len(weights.all_s))
    for share, found in used:
        amount[found.places] += share / total
    return _corner(weights, required, amount, multipliers)


def _same(one: _Set, other: _Set) -> bool:
    """Whether two sets are the same cutting plane."""
    return one.value == other.value and np.array_equal(one.retained, other.retained)


def _corner(weights: _Weights, required: Mapping[int, float], amount: Array, multipliers: dict[int, float]) -> _Part:
    """The best corner among the mixtures of the same weights, which has at most J + 1 fractional ones, and its mask.

    Args:
        weights: all of them.
        required: what the controls require.
        amount: an optimum of the relaxation, of shape (d,); where scores tie, many of its entries may be fractional.
        multipliers: of the controls.

    Raises:
        Unsolved: HiGHS finds no corner.
    """
    whole = np.flatnonzero(amount >= 1 - _SHARE)
    parts = np.flatnonzero((amount > _SHARE) & (amount < 1 - _SHARE))
    shares = amount[parts]
    if len(parts) > len(required) + 1:
        shares = _corner_shares(weights, required, whole, parts, shares)
        whole = np.sort(np.concatenate([whole, parts[shares >= 1 - _WHOLE]]))
        inside = (shares > _WHOLE) & (shares < 1 - _WHOLE)
        parts, shares = parts[inside], shares[inside]
    value = float(weights.all_s[whole].sum()) + float(shares @ weights.all_s[parts])
    places = _rounded(weights, required, whole, parts)
    fractional = {int(place): float(share) for place, share in zip(parts, shares, strict=True)}
    return _Part(value, multipliers, places, fractional)


def _corner_shares(
    weights: _Weights, required: Mapping[int, float], whole: Places, parts: Places, shares: Array
) -> Array:
    """How much of each of `parts` a corner takes that is as good as `shares`, by HiGHS."""
    from scipy.optimize import linprog  # here: scipy.optimize takes half a second to import

    s = weights.all_s[parts]
    rows, bounds = [], []
    for place, bound in required.items():
        c = weights.all_cs[place][parts]
        scale = float(np.abs(c).max()) or 1.0
        rows.append(-c / scale)
        # No more than `shares` retain, so that rounding makes nothing impossible.
        bounds.append(-min(bound - float(weights.all_cs[place][whole].sum()), float(c @ shares)) / scale)
    result = linprog(
        -s / (float(np.abs(s).max()) or 1.0), A_ub=np.array(rows), b_ub=bounds, A_eq=np.ones((1, len(parts))),
        b_eq=[weights.keep - len(whole)], bounds=(0, 1), method="highs-ds", options=_HIGHS,
    )  # fmt: skip
    if result.x is None:
        raise Unsolved(f"no corner of the optimum was found among {len(parts):,} weights: {result.message}")
    corner: Array = result.x
    return corner


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
    result = linprog(-values / size, A_ub=-retained, b_ub=-bound, A_eq=one, b_eq=[1.0], method="highs", options=_HIGHS)
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
        options=_HIGHS,
    )
    if result.x is None:  # mixtures that may lack something exist
        raise Unsolved(f"the linear program of {len(sets)} cuts is not solved: {result.message}")
    multipliers = {p: max(0.0, -float(m)) / scale[p] for p, m in zip(asked, result.ineqlin.marginals, strict=True)}
    return result.x[: len(sets)], multipliers, -float(result.eqlin.marginals[0]), False


def _rounded(weights: _Weights, required: Mapping[int, float], whole: Places, parts: Places) -> Places:
    """k whole weights: of the fractional ones the best choice that lacks nothing, else the one that lacks least."""
    base = {place: float(weights.all_cs[place][whole].sum()) for place in required}
    best: tuple[float, float] | None = None
    places = whole
    for choice in combinations(parts.tolist(), weights.keep - len(whole)):
        extra = list(choice)
        lack = sum(
            max(0.0, 1 - (base[place] + float(weights.all_cs[place][extra].sum())) / bound) if bound else 0.0
            for place, bound in required.items()
        )
        rank = (-lack if lack > 1e-12 else 0.0, float(weights.all_s[extra].sum()))
        if best is None or rank > best:
            best, places = rank, np.concatenate([whole, np.array(extra, dtype=np.int64)])
    return places
