"""Combinations with one control: a bracket of its multiplier, closed by the cutting planes of its two ends."""

from __future__ import annotations

import math

import numpy as np

from ipbench.methods._combination_rounding import corner
from ipbench.methods._combination_weights import MOST_CUTS, SAME, Part, Set, Unsolved, Weights, most

#: With more weights than twice this, the multiplier is first estimated on so many of them.
_SAMPLE = 100_000
#: How far from the estimate its bracket begins.
_WIDTH = 0.01


def bracketed(weights: Weights, control: int, required: float) -> Part:
    """One control: between a multiplier that retains too little and one that retains enough.

    The next multiplier is where the cutting planes of both sets meet; if no set is better there, it is the optimum.
    Weights that both ends of the bracket surely agree on are decided, so that all later steps look at few.
    """
    ends = {False: 0.0, True: math.inf}
    sets: dict[bool, Set] = {}

    def look(mu: float) -> None:
        found = weights.select({control: mu})
        enough = bool(found.retained[control] >= required * (1 - SAME))
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
            return Part(sets[True].value, {}, sets[True].places, {})
    if True not in sets:
        sets[True] = weights.select({control: 1.0}, target=0.0)
    mu = _close(weights, control, required, ends, sets)
    low, high = sets[False], sets[True]
    share = (required - low.retained[control]) / (high.retained[control] - low.retained[control])
    entering = np.setdiff1d(high.places, low.places, assume_unique=True)
    leaving = np.setdiff1d(low.places, high.places, assume_unique=True)
    fractional = {int(place): share for place in entering} | {int(place): 1 - share for place in leaving}
    fractional = {place: part for place, part in fractional.items() if 0 < part < 1}
    part = Part(low.value + share * (high.value - low.value), {control: mu}, high.places, fractional)
    if len(fractional) <= 2:
        return part
    # Equal scores: both sets differ in more weights than have to be exchanged.
    amount = np.zeros(len(weights.all_s))
    amount[np.intersect1d(low.places, high.places, assume_unique=True)] = 1
    amount[list(fractional)] = list(fractional.values())
    best = corner(weights, {control: required}, amount, part.multipliers)
    enough = weights.all_cs[control][best.places].sum() >= required
    return best if enough else best._replace(places=high.places)


def _close(weights: Weights, control: int, required: float, ends: dict[bool, float], sets: dict[bool, Set]) -> float:
    """Bring both ends of the bracket to the optimal multiplier, where their sets are equally good."""
    _narrow(weights, control, ends, sets)
    for _ in range(MOST_CUTS):
        low, high = sets[False], sets[True]
        mu = float((low.value - high.value) / (high.retained[control] - low.retained[control]))
        found = weights.select({control: mu})
        gain = found.value + mu * found.retained[control] - (low.value + mu * low.retained[control])
        if gain <= SAME * (abs(low.value) + abs(mu * low.retained[control])) or mu in (ends[False], ends[True]):
            return mu
        enough = bool(found.retained[control] >= required * (1 - SAME))
        ends[enough], sets[enough] = mu, found
        _narrow(weights, control, ends, sets)
    raise Unsolved(
        f"the linear program did not end: the last multiplier was {mu:.6g}, and a set was better by {gain:.3g}"
    )


def _estimate(weights: Weights, control: int, required: float) -> float | None:
    """The multiplier of a problem with a hundred thousand of the weights, evenly spread; None if there are not more."""
    d = len(weights.s)
    if d < 2 * _SAMPLE:
        return None
    spread = np.linspace(0, d - 1, _SAMPLE).astype(np.int64)
    keep = max(1, round(weights.keep * _SAMPLE / d))
    few = Weights(weights.s[spread], (weights.cs[control][spread],), keep)
    wanted = required * _SAMPLE / d
    if wanted > most(few.cs[0], keep):
        return None
    try:
        return bracketed(few, 0, wanted).multipliers.get(0)
    except Unsolved:  # a guess was wanted, no more
        return None


def _narrow(weights: Weights, control: int, ends: dict[bool, float], sets: dict[bool, Set]) -> None:
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
    slack = SAME * (abs(first) + abs(last))
    kept = weights.s + ends[False] * c > last + slack
    left_out = weights.s + ends[True] * c < first - slack
    if int(kept.sum()) + int(left_out.sum()) > len(c) // 4:
        weights.decide(kept, left_out)
