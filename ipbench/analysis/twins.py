"""The same runs ranked twice: at equal numbers of coefficients, and at equal multiply-accumulates.

Methods that keep as many coefficients keep them in different layers, and so cost unlike numbers of MACs: ERK keeps
more of the first layers, with their large images, than one ranking over all layers does. At one sparsity methods have
equal coefficients, as planned. At one share of MACs none of them has been run: there its accuracy is interpolated
between the two operating points of the method on either side, linearly over the logarithm of the share. Nothing is
extrapolated: a method without a point on each side has no rank.

Where curves bend downwards, a chord lies below them, and a method that was run at the level itself looks better than it
is beside the others. So the accuracies of the two points are told too: between them lies what is interpolated, if
accuracy falls as less is kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from ipbench.analysis.grid import Cell, Grid
from ipbench.analysis.panels import Panel, panels
from ipbench.spec import SPACES

#: What shares are of, in the order of panels and columns.
PARAMETERS, MACS, EFFECTIVE = "coefficients", "MACs", "effective coefficients"
#: Relative distance up to which a share is one that was run.
_SAME = 1e-9


@dataclass(frozen=True)
class Point:
    """A cell as an operating point of its method.

    Attributes:
        cell: its id.
        sparsity: as planned.
        share: what is kept, of a measure.
        accuracy: the mean, a fraction.
    """

    cell: str
    sparsity: str
    share: float
    accuracy: float


@dataclass(frozen=True)
class Rank:
    """A method at a level, by one measure.

    Attributes:
        share: at which all methods of the level are ranked.
        own: the share of the method's own operating point at the level.
        accuracy: at `share`; interpolated unless the two are equal.
        lower, upper: between what it lies if accuracy falls with the share; equal where nothing is interpolated.
        rank: 1 is the best of those that have an accuracy by every measure; equal accuracies share the better rank. 0
            of the others.
    """

    share: float
    own: float
    accuracy: float
    lower: float
    upper: float
    rank: int = 0


def twin_panels(grid: Grid, dataset: str, model: str) -> list[Panel]:
    """The methods of a net that can be set against each other so: two or more sparsities of coefficients each.

    Where masked coefficients keep a value they are multiplied all the same: such methods have one number of MACs.
    """
    found = [
        panel
        for panel in panels(grid, dataset, model)
        if len(set(panel.sparsities)) > 1
        and all(row.any.budget == "parameters" and row.any.off == "zero" and not row.any.dense for row in panel.rows)
    ]
    return found if len(found) > 1 else []


def twin_nets(grid: Grid) -> list[tuple[str, str]]:
    """The nets, by data set and model, with methods that can be set against each other."""
    nets = dict.fromkeys((cell.dataset, cell.model) for cell in grid.cells)
    return [net for net in nets if twin_panels(grid, *net)]


def points(cells: Sequence[Cell], share: Mapping[str, float], accuracy: Mapping[str, float]) -> list[Point]:
    """The operating points of a method in one space, by growing share; without those that are not known."""
    found = [
        Point(cell.id, cell.sparsity, share[cell.id], accuracy[cell.id])
        for cell in cells
        if share.get(cell.id, 0) > 0 and math.isfinite(accuracy.get(cell.id, math.nan))
    ]
    return sorted(found, key=lambda point: point.share)


def at(found: Sequence[Point], share: float) -> tuple[float, float, float]:
    """The accuracy of a method at a share, between its points on either side, and theirs, the lower one first.

    Args:
        found: by growing share.
        share: above zero.

    Returns:
        Three times NaN beyond the points.
    """
    for point in found:
        if math.isclose(point.share, share, rel_tol=_SAME):
            return point.accuracy, point.accuracy, point.accuracy
    below = [point for point in found if point.share < share]
    above = [point for point in found if point.share > share]
    if not below or not above:
        return math.nan, math.nan, math.nan
    low, high = below[-1], above[0]
    weight = math.log(share / low.share) / math.log(high.share / low.share)
    ends = sorted([low.accuracy, high.accuracy])
    return low.accuracy + weight * (high.accuracy - low.accuracy), ends[0], ends[1]


def level(methods: Mapping[str, Sequence[Point]], sparsity: str) -> float:
    """The share at which methods are set against each other for a planned sparsity.

    The geometric mean of what they have kept at that sparsity; moved to the nearest place at which as many methods as
    possible have a point on each side.

    Args:
        methods: by name, their points by growing share.
        sparsity: as planned; one method at least has a point there.
    """
    logs = [math.log(p.share) for found in methods.values() for p in found if p.sparsity == sparsity]
    middle = sum(logs) / len(logs)
    spans = [(math.log(found[0].share), math.log(found[-1].share)) for found in methods.values() if found]

    def worth(place: float) -> tuple[int, float]:
        return sum(low - _SAME <= place <= high + _SAME for low, high in spans), -abs(place - middle)

    return math.exp(max([middle, *(end for span in spans for end in span)], key=worth))


def ranks(measured: Mapping[str, Mapping[str, Sequence[Point]]], sparsity: str) -> dict[str, dict[str, Rank]]:
    """The ranks of methods at a level, by measure and method.

    Ranks are among the methods that have an accuracy by every measure, so that those of two measures are of the same
    methods.

    Args:
        measured: by measure, the points of the methods by name.
        sparsity: as planned.
    """
    told: dict[str, dict[str, Rank]] = {}
    for measure, methods in measured.items():
        own = {name: [p for p in found if p.sparsity == sparsity] for name, found in methods.items()}
        here = {name: found[0] for name, found in own.items() if found}
        if not here:
            return {}
        share = level(methods, sparsity)
        told[measure] = {}
        for name, point in here.items():
            # Coefficients are equal as planned, to a coefficient: nothing is to be interpolated.
            place = point.share if measure == PARAMETERS else share
            told[measure][name] = Rank(place, point.share, *at(methods[name], place))
    common = [
        name
        for name in next(iter(told.values()))
        if all(name in found and math.isfinite(found[name].accuracy) for found in told.values())
    ]
    return {measure: _ranked(found, common) for measure, found in told.items()}


def _ranked(found: Mapping[str, Rank], common: Sequence[str]) -> dict[str, Rank]:
    better = {name: 1 + sum(found[other].accuracy > found[name].accuracy for other in common) for name in common}
    return {name: replace(one, rank=better.get(name, 0)) for name, one in found.items()}


def turned(first: Mapping[str, Rank], second: Mapping[str, Rank]) -> tuple[int, int, int]:
    """Pairs of methods that stand in another order by a second measure.

    Returns:
        How many do, as interpolated; how many of them wherever between their points the accuracies lie; of how many.
    """
    names = [name for name, one in first.items() if one.rank]
    other = sure = 0
    for one, two in combinations(names, 2):
        best, least = (one, two) if first[one].rank < first[two].rank else (two, one)
        apart = first[one].rank != first[two].rank
        other += apart and second[least].accuracy > second[best].accuracy
        sure += apart and second[least].lower > second[best].upper
    return other, sure, len(names) * (len(names) - 1) // 2


def spaces_of(found: Sequence[Panel]) -> list[str]:
    """The spaces in which two methods or more have cells."""
    return [space for space in SPACES if sum(bool(panel.side(space)) for panel in found) > 1]
