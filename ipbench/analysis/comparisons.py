"""IP against SP: every comparison of a grid, averaged by method and over the grid, and what may be claimed of each.

All of them are members of one family with one level (`flips.max_t`). Differences are fractions here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ipbench.analysis.cells import PRIMARY, Counts, Values, counts, metric_values
from ipbench.analysis.collect import Collection
from ipbench.analysis.flips import Interval, flip_interval, max_t, sign_flip
from ipbench.analysis.grid import Cell, Row, options_vary
from ipbench.analysis.settings import Settings
from ipbench.analysis.statistics import UNDECIDED, better

#: States of a comparison, or of an average, that make no claim; '' is one that can.
REFERENCE, IMPOSSIBLE, INCOMPLETE, MIXED = "reference", "impossible", "incomplete", "mixed"

#: A standard deviation of fewer values says next to nothing of how many seeds to plan.
SPREAD_SEEDS = 3

#: (data set, model, method, pattern, budget)
Method = tuple[str, str, str, str, str]


@dataclass(frozen=True)
class Comparison:
    """IP - SP of one metric, paired by seed (see `compare`). `narrow` is the interval of 90 %."""

    n: int
    mean: float
    std: float
    interval: Interval
    narrow: Interval
    p: float
    p_kind: str


@dataclass(frozen=True)
class Finding:
    """A comparison of two cells, or the average of several, with what may be said of it.

    Attributes:
        comparison: diverged runs count as chance.
        complete_case: the same without the seeds in which a side diverged.
        planned: number of seeds planned on both sides.
        diverged: seeds in which a side diverged.
        state: why there is no claim, whatever the numbers; see `REFERENCE` and its like.
        mixed: what differs between runs that no comparison may hold together; there are no numbers then.
        included: names of the comparisons behind it (`pair_name`).
        excluded: names of those that are not complete, or impossible.
        signs: of the means of the included comparisons: how many above zero, and how many below.
        margin: in percentage points, as the experiment declares it.
        p_adjusted: over the family; NaN where there is no claim to be made.
    """

    comparison: Comparison
    complete_case: Comparison
    planned: int
    diverged: int
    state: str
    mixed: str
    included: tuple[str, ...]
    excluded: tuple[str, ...]
    signs: tuple[int, int]
    margin: float
    p_adjusted: float = math.nan

    @property
    def claim(self) -> str:
        """`IP better`, `SP better` or ''."""
        return better(self.comparison.mean, self.p_adjusted)

    @property
    def within(self) -> bool:
        """Whether the interval of 90 % lies inside the margin; no claim of the family, but a test of its own."""
        narrow = self.comparison.narrow
        return not self.state and -self.margin / 100 <= narrow.lower and narrow.upper <= self.margin / 100

    @property
    def verdict(self) -> str:
        """`IP better`, `SP better`, `within ±MARGIN`, `undecided`, or the state."""
        return self.state or self.claim or (f"within ±{self.margin:g}" if self.within else UNDECIDED)

    @property
    def several_signs(self) -> bool:
        """Whether an average hides comparisons whose means point in different directions."""
        return min(self.signs) > 0


@dataclass(frozen=True)
class Analysis:
    """All that is compared in one grid, for one metric.

    Attributes:
        pairs: by `pair_name`, in the order of the grid, dense references included.
        methods: averages over the comparisons of a method with one pattern and budget.
        overall: the average over all comparisons; None where they are of several patterns or budgets.
        not_averaged: methods whose comparisons differ in options or filter bases: no average of these is formed.
        members: size of the family of claims.
        shared: whether several comparisons have one SP side.
        spread: the median of the standard deviations of single comparisons of `SPREAD_SEEDS` or more; NaN without any.
    """

    pairs: dict[str, Finding]
    methods: dict[Method, Finding]
    overall: Finding | None
    not_averaged: tuple[Method, ...]
    members: int
    shared: bool
    spread: float


def analyse(collection: Collection, metric: str = PRIMARY) -> Analysis:
    """Compare IP with SP: cell by cell, method by method, over the grid.

    The family of claims is the global average, those of the methods, and every comparison that is possible and no dense
    reference, finished or not. No member makes a claim before all of its planned runs are in, done or diverged.
    """
    work = _Work(collection, metric)
    rows = [row for row in collection.grid.rows() if row.sp and row.ip]
    pairs = {pair_name(row): work.pair(row) for row in rows}
    groups: dict[Method, list[Row]] = {}
    for row in rows:
        if row.compared:
            groups.setdefault(method_of(row), []).append(row)
    options = tuple(key for key, same in groups.items() if options_vary(same))
    methods = {key: work.average(key, same, pairs) for key, same in groups.items() if key not in options}
    compared = [row for same in groups.values() for row in same]
    alike = not options and len({row.any.structure for row in compared}) == 1
    overall = work.average(None, compared, pairs) if alike else None
    nodes: list[tuple[object, Finding]] = [(key, pairs[key]) for key in map(pair_name, compared)]
    nodes += [*methods.items(), *([(None, overall)] if overall else [])]
    members = {key: found for key, found in nodes if found.state != IMPOSSIBLE}
    judged = work.judge(members)
    single = [pairs[key].comparison for key in map(pair_name, compared) if pairs[key].state == ""]
    spreads = [one.std for one in single if one.n >= SPREAD_SEEDS]
    return Analysis(
        pairs={key: judged.get(key, found) for key, found in pairs.items()},
        methods={key: judged.get(key, found) for key, found in methods.items()},
        overall=judged.get(None, overall),
        not_averaged=options,
        members=len(members),
        shared=len({row.sp.id for row in compared if row.sp}) < len(compared),
        spread=float(np.median(spreads)) if spreads else math.nan,
    )


def differences(row: Row, values: Values) -> dict[int, float]:
    """IP - SP by seed, of the seeds that both sides have."""
    if row.sp is None or row.ip is None:
        return {}
    sp, ip = values.get(row.sp.id, {}), values.get(row.ip.id, {})
    return {seed: ip[seed] - sp[seed] for seed in sorted(sp.keys() & ip.keys())}


def compare(by_seed: Mapping[int, float]) -> Comparison:
    """Mean, intervals and p of paired differences, or of logarithms of paired ratios, all by the sign-flip test."""
    x = np.array([by_seed[seed] for seed in sorted(by_seed)])
    mean = float(x.mean()) if x.size else math.nan
    std = float(x.std(ddof=1)) if x.size > 1 else math.nan
    test = sign_flip(x)
    return Comparison(x.size, mean, std, flip_interval(x), flip_interval(x, 0.1), test.p, test.kind)


def pair_name(row: Row) -> str:
    """Names a comparison by its two cells."""
    return f"{row.sp.id if row.sp else ''}/{row.ip.id if row.ip else ''}"


def method_of(row: Row) -> Method:
    """The average that a comparison belongs to."""
    cell = row.any
    return cell.dataset, cell.model, cell.method, cell.pattern, cell.budget


class _Work:
    """What every comparison of one metric needs."""

    def __init__(self, collection: Collection, metric: str) -> None:
        self.values = metric_values(collection.runs, metric)
        self.complete = metric_values(collection.runs, metric, complete_case=True)
        self.settings = Settings(collection)
        self.counts = counts(collection)
        self.margin = collection.grid.margin
        self.by_seed: dict[object, dict[int, float]] = {}  # differences of every member of the family

    def pair(self, row: Row) -> Finding:
        """One comparison."""
        sides = [side for side in (row.sp, row.ip) if side]
        planned = set.intersection(*(set(side.seeds) for side in sides))
        mixed = self.settings.mixed([side.id for side in sides]) or ""
        by_seed = {} if mixed else differences(row, self.values)
        rest = {} if mixed else differences(row, self.complete)
        self.by_seed[pair_name(row)] = by_seed
        found = compare(by_seed)
        state = _state([self.counts[side.id] for side in sides], row.any, mixed, found.n < len(planned))
        signs = (int(found.mean > 0), int(found.mean < 0))
        lost = len(by_seed.keys() - rest.keys())
        name = (pair_name(row),)
        return Finding(found, compare(rest), len(planned), lost, state, mixed, name, (), signs, self.margin)

    def average(self, key: Method | None, rows: Sequence[Row], pairs: Mapping[str, Finding]) -> Finding:
        """Per seed the mean difference over those comparisons that are complete; `key` names it in the family."""
        names = [pair_name(row) for row in rows]
        possible = [name for name in names if pairs[name].state != IMPOSSIBLE]
        included = tuple(name for name in possible if pairs[name].state == "")
        excluded = tuple(name for name in names if name not in included)
        cells = {side.id for row in rows if pair_name(row) in possible for side in (row.sp, row.ip) if side}
        mixed = self.settings.mixed(sorted(cells)) or ""
        behind = [] if mixed else [row for row in rows if pair_name(row) in included]
        by_seed = _mean([self.by_seed[pair_name(row)] for row in behind])
        rest = _mean([differences(row, self.complete) for row in behind])
        self.by_seed[key] = by_seed
        state = INCOMPLETE if len(included) < len(possible) or not by_seed else ""
        state = MIXED if mixed else state if possible else IMPOSSIBLE
        signs = (sum(pairs[name].signs[0] for name in included), sum(pairs[name].signs[1] for name in included))
        planned = max((pairs[name].planned for name in names), default=0)
        lost = len(by_seed.keys() - rest.keys())
        numbers = compare(by_seed), compare(rest), planned, lost
        return Finding(*numbers, state, mixed, included, excluded, signs, self.margin)

    def judge(self, members: Mapping[object, Finding]) -> dict[object, Finding]:
        """The members of the family with their adjusted p and their verdicts."""
        complete = [key for key, found in members.items() if found.state == ""]
        adjusted = family([self.by_seed[key] for key in complete], missing=len(members) - len(complete))
        judged = dict(members)
        for key, p in zip(complete, adjusted, strict=True):
            judged[key] = replace(members[key], p_adjusted=p)
        return judged


def family(members: Iterable[Mapping[int, float]], missing: int = 0) -> list[float]:
    """`flips.max_t` over differences by seed; flips are joint over the seeds of all members."""
    known = list(members)
    seeds = sorted(set().union(*known))
    return max_t(np.array([[by_seed.get(seed, 0.0) for seed in seeds] for by_seed in known]), missing) if seeds else []


def _state(ended: Sequence[Counts], cell: Cell, mixed: str, unfinished: bool) -> str:
    """Why a comparison makes no claim; '' if it can."""
    if any(count.impossible for count in ended):
        return IMPOSSIBLE
    if cell.dense:
        return REFERENCE
    return MIXED if mixed else INCOMPLETE if unfinished else ""


def _mean(differences_by_seed: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """The mean per seed, of the seeds that all have."""
    seeds = set.intersection(*map(set, differences_by_seed)) if differences_by_seed else set()
    return {seed: math.fsum(one[seed] for one in differences_by_seed) / len(differences_by_seed) for seed in seeds}
