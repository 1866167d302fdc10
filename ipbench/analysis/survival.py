"""How much of a method's gain over random pruning is left under each control, and of IP - SP: from records alone.

All numbers are paired by seed, over the seeds that all of the cells behind one have. Three questions are asked, and the
claims of a grid that answer one of them are a family with one level (`flips.max_t`): is there a gain, what does a
control take of it, and what of IP - SP is left. Differences are fractions here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ipbench.analysis.cells import PRIMARY, counts, metric_values
from ipbench.analysis.collect import Collection
from ipbench.analysis.comparisons import IMPOSSIBLE, INCOMPLETE, MIXED, Finding, compare, family
from ipbench.analysis.controls import Beside, alone, beside, making
from ipbench.analysis.flips import ratio_interval
from ipbench.analysis.grid import Cell, Row
from ipbench.analysis.settings import Settings
from ipbench.analysis.verdicts import Evidence, Share, Taken, Verdict, survives, verdict
from ipbench.spec import CONTROLS, NO_CONTROL

#: A sum of cells, each with its sign.
Terms = tuple[tuple[Cell, int], ...]
#: Which numbers of a control are of a dense net that is trained longer.
ORIGIN = "origin"


@dataclass(frozen=True)
class Side:
    """One space of a line.

    Attributes:
        beside: the cell, and what it is compared with.
        gain: over random pruning; None without a baseline.
        over_dense: over the dense net, no member of the family; None without one.
        left: by control, what it gains over random pruning; no members.
        taken: by control, what it takes, and the share that it leaves; of `origin` nothing.
        extra: what the training of `origin` gives the dense net; None without it.
        verdict: in what the gain is.
    """

    beside: Beside
    gain: Finding | None
    over_dense: Finding | None
    left: Mapping[str, Finding]
    taken: Mapping[str, Taken]
    extra: Finding | None
    verdict: Verdict


@dataclass(frozen=True)
class Apart:
    """IP - SP under a control, or of the method's own runs.

    Attributes:
        difference: IP - SP.
        taken: what the control takes of that of the own runs; None of these themselves.
        verdict: of `verdicts.survives`; '' of the own runs.
    """

    difference: Finding
    taken: Finding | None
    verdict: str


@dataclass(frozen=True)
class Line:
    """A method at one sparsity: its own runs with controls, in one space or both; and IP - SP, by control."""

    row: Row
    sides: Mapping[str, Side]
    apart: Mapping[str, Apart]

    @property
    def controls(self) -> tuple[str, ...]:
        """Those that were planned in one of the spaces."""
        there = {name for side in self.sides.values() for name in side.beside.controls}
        return tuple(name for name in CONTROLS if name in there)


@dataclass(frozen=True)
class Survival:
    """All that the controls of a grid tell.

    Attributes:
        lines: in the order of the grid.
        members: sizes of the families of claims: of gains, of what controls take, of IP - SP.
        alone: controls beside which the method's own runs are not planned.
    """

    lines: tuple[Line, ...]
    members: tuple[int, int, int]
    alone: tuple[Cell, ...]

    @property
    def controls(self) -> tuple[str, ...]:
        """Those of any line."""
        return tuple(name for name in CONTROLS if any(name in line.controls for line in self.lines))


def survival(collection: Collection) -> Survival:
    """What the controls of a collection tell.

    The families of claims: of every cell with controls, its gain over random pruning; what each of its controls takes,
    and what the training of `origin` gives the dense net; of every pair of cells IP - SP of the own runs and under each
    control, and what that takes of it. All that is possible is a member, finished or not.

    Args:
        collection: with its controls.
    """
    work = _Work(collection)
    found = beside(collection.grid)
    rows = [row for row in collection.grid.rows() if any(side and side.id in found for side in (row.sp, row.ip))]
    gains = [_less(one.cell, one.baseline) for one in found.values() if one.baseline]
    taken = [terms for one in found.values() for terms in _asked(one)]
    members = [work.judge(asked) for asked in (gains, taken, [t for row in rows for t in _asked_apart(row, found)])]
    sides = {name: work.side(one) for name, one in found.items()}
    lines = [Line(row, {cell.space: sides[cell.id] for cell in (row.sp, row.ip) if cell and cell.id in sides},
                  work.apart(row, found)) for row in rows]  # fmt: skip
    return Survival(tuple(lines), (members[0], members[1], members[2]), tuple(alone(collection.grid, found)))


def _less(first: Cell, second: Cell) -> Terms:
    return (first, 1), (second, -1)


def _asked(one: Beside) -> Iterator[Terms]:
    """The claims that can be made of the controls of a cell."""
    for name, cell in one.controls.items():
        if name != ORIGIN:
            yield _less(one.cell, cell)
        elif one.dense:
            yield _less(cell, one.dense)


def _shared(row: Row, found: Mapping[str, Beside]) -> dict[str, Row]:
    """SP and IP under each control that both have, by its name, the own runs first."""
    if row.sp is None or row.ip is None or row.sp.id not in found or row.ip.id not in found:
        return {}
    sp, ip = found[row.sp.id].controls, found[row.ip.id].controls
    return {NO_CONTROL: row} | {name: Row(sp[name], ip[name]) for name in sp if name in ip}


def _apart(row: Row) -> Terms:
    assert row.sp is not None and row.ip is not None
    return _less(row.ip, row.sp)


def _taken_apart(row: Row, under: Row) -> Terms:
    return (*_apart(row), *((cell, -sign) for cell, sign in _apart(under)))


def _asked_apart(row: Row, found: Mapping[str, Beside]) -> Iterator[Terms]:
    """The claims that can be made of the two spaces."""
    for name, under in _shared(row, found).items():
        yield _apart(under)
        if name != NO_CONTROL:
            yield _taken_apart(row, under)


class _Work:
    """Sums of cells by seed, with what may be said of each."""

    def __init__(self, collection: Collection) -> None:
        self.runs, self.grid = collection.runs, collection.grid
        self.values = metric_values(self.runs)
        self.complete = metric_values(self.runs, PRIMARY, complete_case=True)
        self.settings = Settings(collection)
        self.counts = counts(collection)
        self.judged: dict[Terms, float] = {}
        self._found: dict[tuple[Terms, tuple[Cell, ...]], Finding] = {}

    @cached_property
    def changing(self) -> frozenset[str]:
        """The cells whose records tell of masks that changed in a training."""
        if "activity_mask_updates" not in self.runs:
            return frozenset()
        return frozenset(self.runs.loc[self.runs["activity_mask_updates"].fillna(0) > 0, "cell"])

    def by_seed(self, terms: Terms, among: Iterable[Cell] = (), complete: bool = False) -> dict[int, float]:
        """The sum of every seed that all of its cells, and those `among` which it is compared, have."""
        values = self.complete if complete else self.values
        seeds = set.intersection(*(set(values.get(cell.id, {})) for cell in (*(cell for cell, _ in terms), *among)))
        return {seed: sum(sign * values[cell.id][seed] for cell, sign in terms) for seed in sorted(seeds)}

    def find(self, terms: Terms, among: Iterable[Cell] = ()) -> Finding:
        """A sum with its interval and state; with its adjusted p, if it is a member of the family."""
        key = terms, tuple(among)
        found = self._found.get(key) or self._found.setdefault(key, self._sum(*key))
        return replace(found, p_adjusted=self.judged[terms]) if terms in self.judged and not found.state else found

    def _sum(self, terms: Terms, among: tuple[Cell, ...]) -> Finding:
        cells = [cell for cell, _ in terms]
        mixed = self.settings.mixed([cell.id for cell in (*cells, *among)]) or ""
        by_seed = {} if mixed else self.by_seed(terms, among)
        rest = {} if mixed else self.by_seed(terms, among, complete=True)
        planned = set.intersection(*(set(cell.seeds) for cell in (*cells, *among)))
        state = MIXED if mixed else INCOMPLETE if len(by_seed) < len(planned) or not planned else ""
        if any(self.counts[cell.id].impossible for cell in cells):
            state = IMPOSSIBLE
        told = compare(by_seed)
        without = told if rest == by_seed else compare(rest)
        lost = len(by_seed.keys() - rest.keys())
        return Finding(told, without, len(planned), lost, state, mixed, (), (), (0, 0), self.grid.margin)

    def judge(self, asked: Iterable[Terms]) -> int:
        """Adjust the p of the members of a family, each of which is one however often it is asked for; their number."""
        states = {terms: self.find(terms).state for terms in dict.fromkeys(asked)}
        members = [terms for terms, state in states.items() if state != IMPOSSIBLE]
        complete = [terms for terms in members if not states[terms]]
        adjusted = family([self.by_seed(terms) for terms in complete], missing=len(members) - len(complete))
        self.judged |= dict(zip(complete, adjusted, strict=True))
        return len(members)

    def side(self, one: Beside) -> Side:
        """What the controls of a cell tell."""
        baseline = one.baseline
        gain = self.find(_less(one.cell, baseline)) if baseline else None
        pruned = {name: cell for name, cell in one.controls.items() if name != ORIGIN}
        left = {name: self.find(_less(cell, baseline), (one.cell,)) for name, cell in pruned.items() if baseline}
        taken = {name: Taken(self.find(_less(one.cell, cell)), self.share(one, cell, gain))
                 for name, cell in pruned.items()}  # fmt: skip
        origin = one.controls.get(ORIGIN)
        extra = self.find(_less(origin, one.dense)) if origin and one.dense else None
        over_dense = self.find(_less(one.cell, one.dense)) if one.dense else None
        made = making(one.cell, one.cell.id in self.changing)
        other = making(baseline, baseline.id in self.changing) if baseline else made
        evidence = Evidence(gain, one.remark, taken, extra, made, made.like(other), other.inherits is False)
        return Side(one, gain, over_dense, left, taken, extra, verdict(evidence))

    def share(self, one: Beside, cell: Cell, gain: Finding | None) -> Share | None:
        """What a control leaves of a gain; None where the interval of the gain is not above zero."""
        if gain is None or one.baseline is None or gain.state or not gain.comparison.interval.lower > 0:
            return None
        if self.find(_less(cell, one.baseline), (one.cell,)).state:
            return None
        below = self.by_seed(_less(one.cell, one.baseline), (cell,))
        above = self.by_seed(_less(cell, one.baseline), (one.cell,))
        under, over = ([found[seed] for seed in sorted(below)] for found in (below, above))
        return Share(float(np.mean(over)) / float(np.mean(under)), ratio_interval(over, under))

    def apart(self, row: Row, found: Mapping[str, Beside]) -> dict[str, Apart]:
        """IP - SP of a row, by control."""
        shared = _shared(row, found)
        told = {name: self.find(_apart(under)) for name, under in shared.items()}
        taken = {name: self.find(_taken_apart(row, under)) for name, under in shared.items() if name != NO_CONTROL}
        return {
            name: Apart(one, taken.get(name), survives(told[NO_CONTROL], one, taken[name]) if name in taken else "")
            for name, one in told.items()
        }
