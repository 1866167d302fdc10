"""Where a method's gain over random pruning is, by what its controls leave of it: rules, over numbers alone.

docs/rules.md, "Controls", has the same rules in words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ipbench.analysis.comparisons import Comparison, Finding
from ipbench.analysis.controls import Making
from ipbench.analysis.flips import Interval
from ipbench.analysis.text import NOTHING, points, with_interval

UNDECIDED = "undecided"


@dataclass(frozen=True)
class Share:
    """What is left of a gain under a control, as a share of it: a ratio of paired means (`flips.ratio_interval`)."""

    ratio: float
    interval: Interval

    @property
    def above_half(self) -> bool:
        """Whether more than half of the gain is left, by the interval."""
        return self.interval.lower > 0.5

    @property
    def below_half(self) -> bool:
        """Whether less than half of it is."""
        return self.interval.upper < 0.5

    @property
    def none(self) -> bool:
        """Whether nothing of it is: what has the control is behind random pruning, by the interval."""
        return self.interval.upper < 0

    def __str__(self) -> str:
        low, high = (_percent(end) for end in (self.interval.lower, self.interval.upper))
        return f"{with_interval(_percent(self.ratio), low, high)} %"


@dataclass(frozen=True)
class Taken:
    """What a control takes of a gain.

    Attributes:
        loss: the method's run less the control, by seed.
        share: of the gain that is left; None where the gain may be zero.
    """

    loss: Finding
    share: Share | None

    @property
    def claimed(self) -> bool:
        """Whether it takes something."""
        return bool(self.loss.claim) and self.loss.comparison.mean > 0

    @property
    def known(self) -> bool:
        """Whether all runs are there that are needed to say something."""
        return self.share is not None and not self.loss.state


@dataclass(frozen=True)
class Evidence:
    """What is known of one cell.

    Attributes:
        gain: over random pruning; None where there is none to set it beside.
        remark: why there is none.
        taken: by control.
        extra: what the additional training gives the dense net; None where it was not run.
        making: how the method's runs come about.
        like_random: whether those of the baseline come about likewise, masks aside.
        trained_apart: whether the baseline is trained from initial values, as `borrowed-ratios` is.
    """

    gain: Finding | None
    remark: str
    taken: Mapping[str, Taken]
    extra: Finding | None
    making: Making
    like_random: bool
    trained_apart: bool


@dataclass(frozen=True)
class Verdict:
    """Where a gain is: in a few words for a table, and in a sentence."""

    short: str
    sentence: str


@dataclass(frozen=True)
class _Part:
    """Of a verdict: a place of the gain, or '' if none follows, and what is said."""

    place: str
    said: str


def verdict(found: Evidence) -> Verdict:
    """In what a gain is: positions, layer ratios, values, training."""
    if found.gain is None:
        return Verdict("no baseline", f"No gain: {found.remark}.")
    if found.gain.state:
        return Verdict(found.gain.state, f"Nothing is said of its gain: {found.gain.mixed or found.gain.state}.")
    if not (found.gain.claim and found.gain.comparison.mean > 0):
        return _no_gain(found.gain)
    rules = (_structure, _ratios, _values, _training, _order, _narrow)
    parts = [part for rule in rules for part in [rule(found)] if part]
    told = "; ".join(part.said for part in parts) or "no control that has ended tells in what"
    changes = (
        " Its masks change, or are soft, while it trains, and those of its controls stay: what these take holds that."
        if found.making.changes else ""
    )  # fmt: skip
    short = ", ".join(dict.fromkeys(part.place for part in parts if part.place)) or UNDECIDED
    return Verdict(short, f"A gain of {told_points(found.gain.comparison)} points: {told}.{changes}")


def _no_gain(gain: Finding) -> Verdict:
    told = told_points(gain.comparison)
    if gain.claim:
        return Verdict("worse than random", f"Worse than random pruning: {told} points.")
    if gain.within:
        return Verdict("no gain", f"No gain over random pruning: {told} points, within ±{gain.margin:g}.")
    if gain.comparison.interval.lower > 0:  # of one of many tests, or of a grid that is not finished
        return Verdict("gain not claimed", f"A gain over random pruning is seen and not claimed: {told} points.")
    return Verdict("no gain shown", f"No gain over random pruning is shown: {told} points.")


def _structure(found: Evidence) -> _Part | None:
    """Positions within layers, or not: by `shuffle`."""
    one = found.taken.get("shuffle")
    if one is None or not one.known or one.share is None:
        return None
    left = f"shuffle within layers leaves {one.share}"
    rest = "the layer ratios" if found.like_random else "what else it differs in from random pruning"
    if one.claimed and one.share.below_half:
        return _Part("positions", f"it is in the positions ({left})")
    if one.share.above_half and (one.loss.within or not one.claimed):
        place = "layer ratios" if found.like_random else "not in positions"
        said = "it is in the layer ratios" if found.like_random else "it is not in the positions"
        return _Part(place, f"{said} ({left})")
    if one.claimed and one.share.interval.lower > 0:
        both = "positions and layer ratios" if found.like_random else "positions in part"
        return _Part(both, f"it is in the positions and in {rest} ({left})")
    if one.claimed:
        return _Part("positions at least in part", f"it is at least in part in the positions ({left})")
    return _Part("", f"whether it is in the positions is undecided ({left})")


def _ratios(found: Evidence) -> _Part | None:
    """Layer ratios, or not: by what random pruning gains from them."""
    one = found.taken.get("borrowed-ratios")
    if one is None or not one.known or one.share is None or not found.trained_apart:
        return None
    left = f"random pruning with its layer ratios has {one.share} of it"
    if one.share.above_half and (one.loss.within or not one.claimed):
        return _Part("layer ratios", f"the layer ratios alone make it ({left})")
    if one.claimed and one.share.below_half:
        return _Part("", f"the layer ratios alone make less than half of it ({left})")
    if one.claimed and one.share.interval.lower > 0:
        structure = _structure(found) if found.like_random else None  # which has said it already, if it says anything
        place = "" if structure and structure.place else "layer ratios in part"
        return _Part(place, f"the layer ratios alone make a part of it ({left})")
    return _Part("", f"what the layer ratios alone make of it is undecided ({left})")


def _values(found: Evidence) -> _Part | None:
    """Values that are inherited, or drawn at the start: by what fresh ones take."""
    names = [name for name in ("scratch-b", "scratch-e", "reinitialise") if _known(found, name)]
    if not names:
        return None
    what = {True: "inherited values", False: "initial values", None: "values"}[found.making.inherits]
    if names == ["reinitialise"] and found.making.inherits is not False:
        what = "values and the training that made them"
    # With the compute or the epochs of the whole run if that was tried: less training is not what is asked about.
    scratch = [name for name in names if name != "reinitialise"] or names
    lefts = "; ".join(f"fresh ones, {name}, leave {found.taken[name].share}" for name in scratch)
    ones = [found.taken[name] for name in scratch]
    shares = [one.share for one in ones if one.share]
    kept = [share.above_half and (one.loss.within or not one.claimed) for one, share in zip(ones, shares, strict=True)]
    if any(kept):
        return _Part("", f"it is not in the {what} ({lefts})")
    if all(one.claimed for one in ones):
        part = "" if all(share.below_half for share in shares) else " in part"
        return _Part(f"{what}{part}", f"it is{part} in the {what} ({lefts})")
    return _Part("", f"whether it is in the {what} is undecided ({lefts})")


def _training(found: Evidence) -> _Part | None:
    """Training that a pruned net has in addition: by what it gives the dense net."""
    if found.extra is None or found.extra.state:
        return None
    told = f"the additional training gives the dense net {told_points(found.extra.comparison)} points"
    if found.extra.claim and found.extra.comparison.mean > 0:
        return _Part("" if found.like_random else "additional training", told)
    if found.extra.within:
        return _Part("", f"{told}: it is not in that")
    return _Part("", f"{told}: whether it is in that is undecided")


def _order(found: Evidence) -> _Part | None:
    """The order of the scores: by what is left if the smallest are kept."""
    one = found.taken.get("invert")
    if one is None or not one.known or one.share is None:
        return None
    left = f"to keep the smallest scores leaves {one.share}"
    if one.share.above_half and (one.loss.within or not one.claimed):
        return _Part("", f"the order of the scores does not make it ({left})")
    return _Part("", left)


def _narrow(found: Evidence) -> _Part | None:
    """Narrower dense nets beside it."""
    said = []
    for name, equal in (("small-dense", "parameters"), ("small-dense-macs", "multiply-accumulates")):
        one = found.taken.get(name)
        if one is None or one.loss.state:
            continue
        mean = one.loss.comparison.mean
        how = ("worse" if mean > 0 else "better") if one.loss.claim else "as good" if one.loss.within else UNDECIDED
        difference = told_points(one.loss.comparison, sign=-1)
        said.append(f"a narrower dense net of equal {equal}: {how} ({difference} points)")
    return _Part("", "; ".join(said)) if said else None


def _known(found: Evidence, name: str) -> bool:
    return name in found.taken and found.taken[name].known


def survives(own: Finding, under: Finding, taken: Finding) -> str:
    """Whether a difference of IP and SP is one under a control, too.

    Args:
        own: IP - SP of the method's own runs.
        under: of its controls.
        taken: the first less the second.

    Returns:
        `survives`, `survives in part`, `does not survive`, `undecided`, `no difference shown`, `not claimed`, or why
        there is none.
    """
    if state := own.state or under.state or taken.state:
        return state
    if not own.claim:
        low, high = own.comparison.interval.lower, own.comparison.interval.upper
        return "not claimed" if low > 0 or high < 0 else "no difference shown"
    sign = math.copysign(1, own.comparison.mean)
    less = bool(taken.claim) and taken.comparison.mean * sign > 0
    there = bool(under.claim) and under.comparison.mean * sign > 0
    if less:
        return "survives in part" if there else "does not survive"
    return "survives" if there else UNDECIDED


def told_points(found: Comparison, sign: int = 1) -> str:
    """A mean difference in points with its interval, or the opposite one."""
    lower, upper = sorted((sign * found.interval.lower, sign * found.interval.upper))
    return with_interval(points(sign * found.mean), points(lower), points(upper))


def _percent(share: float) -> str:
    if math.isnan(share):
        return NOTHING
    text = f"{100 * share:.0f}" if math.isfinite(share) else "unbounded"
    return "0" if text == "-0" else text.replace("-", "−")
