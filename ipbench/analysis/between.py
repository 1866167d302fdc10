"""Two experiments, commits or machines beside each other: cells that both have, paired by seed."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import pandas as pd

from ipbench.analysis.cells import Counts, cell_statistics, counts, metric_values
from ipbench.analysis.collect import Collection
from ipbench.analysis.comparisons import Comparison, compare, family
from ipbench.analysis.flips import CLAIM_SEEDS
from ipbench.analysis.grid import Cell
from ipbench.analysis.labels import Labels, labels, metric_name
from ipbench.analysis.statistics import UNDECIDED
from ipbench.analysis.text import NOTHING, percent, points, probability, with_interval
from ipbench.errors import BadInput

WIDTH = 100
#: Values that are listed of what differs.
_MOST = 3
#: Axes of a cell, and of them those in which two experiments may differ as a whole, so that their cells still match.
_AXES = ("dataset", "model", "method", "space", "off", "sparsity", "allocation", "pattern", "budget", "basis",
         "options", "recipe", "mode")  # fmt: skip
_MAY_DIFFER = ("mode", "recipe", "basis", "options", "model", "dataset", "allocation", "off")
#: What two runs of one cell may differ in, with what it is called. Of the first ones, numbers change.
_WEIGHTY = {"provenance_numerics": "numerics", "provenance_mode": "mode", "provenance_data": "images",
            "provenance_method": "code of the method"}  # fmt: skip
_TOLD = {"provenance_ipbench": "ipbench", "provenance_commit": "commit", "provenance_torch": "torch",
         "provenance_cpu": "processor", "provenance_device": "device", "provenance_threads": "threads"}  # fmt: skip


@dataclass(frozen=True)
class Match:
    """A cell of the first experiment and one of the second.

    Attributes:
        first, second: the cells.
        sides: mean and interval of each, as text.
        differences: second - first, by seed; fractions.
        equal: seeds whose outcomes are the same to the bit.
        state: why no claim is made; '' if one can be.
        p_adjusted: over all matches of which claims are made.
    """

    first: Cell
    second: Cell
    sides: tuple[str, str]
    differences: Mapping[int, float]
    equal: int
    state: str
    p_adjusted: float = float("nan")

    @property
    def comparison(self) -> Comparison:
        """Mean, interval and test of the differences."""
        return compare(self.differences)


def between(first: Collection, second: Collection) -> str:
    """The comparison of two experiments as plain text.

    Raises:
        BadInput: no cell of one is a cell of the other.
    """
    pairs, differing = _matching(first.grid.cells, second.grid.cells)
    matches = _judged([*_matches(first, second, pairs)])
    names, metric = labels(first.grid), metric_name(first.grid.cells)
    title = f"B − A of test {metric} in percentage points, A: {first.grid.name}, B: {second.grid.name}"
    lines = [*textwrap.wrap(title, WIDTH), ""]
    lines += [line for note in _warnings(first, second, pairs, differing) for line in textwrap.wrap(note, WIDTH)]
    header = ("method", names.share, "space", "A", "B", "B − A [95 %]", "p", "equal")
    rows = [_row(names, match) for match in matches]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    table = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
             for row in (header, *rows)]  # fmt: skip
    lines += ["", table[0], "─" * max(map(len, table)), *table[1:], ""]
    alone = [len(grid.cells) - len(pairs) for grid in (first.grid, second.grid)]
    if any(alone):
        lines.append(f"Cells without a partner: {alone[0]} of A, {alone[1]} of B.")
    lines += textwrap.wrap(
        f"Paired by seed; p (max-T) over all {len(matches)} cells, n below {CLAIM_SEEDS} is never a claim. equal: seeds"
        " whose outcomes agree to the bit.", WIDTH,
    )  # fmt: skip
    return "\n".join([*lines, ""])


def _matching(first: Iterable[Cell], second: Iterable[Cell]) -> tuple[list[tuple[Cell, Cell]], tuple[str, ...]]:
    """Cells that differ in nothing, else in as few axes as pair them one to one; and these axes."""
    for number in range(len(_MAY_DIFFER) + 1):
        for differing in combinations(_MAY_DIFFER, number):
            axes = [axis for axis in _AXES if axis not in differing]
            ours, theirs = _by(axes, first), _by(axes, second)
            if ours and theirs and (shared := ours.keys() & theirs.keys()):
                return [(cell, theirs[key]) for key, cell in ours.items() if key in shared], differing
    raise BadInput("the two experiments have no cell in common, even if recipe, mode, net, data and options may differ")


def _by(axes: Iterable[str], cells: Iterable[Cell]) -> dict[tuple[str, ...], Cell] | None:
    """Cells by some of their axes; None if two of them agree in all of these."""
    found: dict[tuple[str, ...], Cell] = {}
    for cell in cells:
        if found.setdefault(tuple(getattr(cell, axis) for axis in axes), cell) is not cell:
            return None
    return found


def _matches(first: Collection, second: Collection, pairs: Iterable[tuple[Cell, Cell]]) -> Iterable[Match]:
    values = [metric_values(side.runs) for side in (first, second)]
    hashes = [_hashes(side.runs) for side in (first, second)]
    ended = [counts(side) for side in (first, second)]
    for a, b in pairs:
        found = values[0].get(a.id, {}), values[1].get(b.id, {})
        by_seed = {seed: found[1][seed] - found[0][seed] for seed in sorted(found[0].keys() & found[1].keys())}
        equal = sum(hashes[0].get((a.id, seed)) == hashes[1].get((b.id, seed)) for seed in by_seed)
        state = _state((ended[0][a.id], ended[1][b.id]), len(by_seed))
        yield Match(a, b, (_side(found[0]), _side(found[1])), by_seed, equal, state)


def _state(ended: tuple[Counts, Counts], paired: int) -> str:
    if any(side.impossible for side in ended):
        return "impossible"
    return "no seed in common" if not paired else "incomplete" if any(side.missing for side in ended) else ""


def _judged(matches: list[Match]) -> list[Match]:
    """With p over the family of all matches."""
    complete = [match.differences for match in matches if not match.state]
    found = iter(family(complete, missing=len(matches) - len(complete)))
    return [match if match.state else replace(match, p_adjusted=next(found)) for match in matches]


def _hashes(runs: pd.DataFrame) -> dict[tuple[str, int], str]:
    return {
        (cell, int(seed)): found
        for cell, seed, found in zip(runs["cell"], runs["seed"], runs["outcome_sha256"], strict=True)
    }


def _warnings(
    first: Collection, second: Collection, pairs: list[tuple[Cell, Cell]], differing: tuple[str, ...]
) -> Iterable[str]:
    """What differs besides what is compared: of the planned cells, and of what the runs were made with."""
    for axis in differing:
        yield from _of_axis(axis, *({str(getattr(pair[side], axis)) for pair in pairs} for side in (0, 1)))
    runs = [
        side.runs[side.runs["cell"].isin({pair[place].id for pair in pairs})]
        for place, side in enumerate((first, second))
    ]
    for column, name in {**_WEIGHTY, **_TOLD}.items():
        found = [set(frame[column].dropna()) if column in frame else set() for frame in runs]
        if found[0] != found[1] and not all(frame.empty for frame in runs):
            begin = "Warning, differs" if column in _WEIGHTY else "Differs"
            yield f"{begin}: {name}: {_listed(found[0])} in A, {_listed(found[1])} in B."


def _of_axis(axis: str, first: set[str], second: set[str]) -> Iterable[str]:
    """What differs in an axis of the plans; of one that is an object, the keys that do."""
    if first == second:
        return
    if not all(text.startswith("{") for text in first | second):
        yield f"Warning, differs: {axis}: {_listed(first)} in A, {_listed(second)} in B."
        return
    sides = [[json.loads(text) for text in sorted(side)] for side in (first, second)]
    for key in sorted(set().union(*(value.keys() for side in sides for value in side))):
        told = [{json.dumps(value[key]) if key in value else "default" for value in side} for side in sides]
        if told[0] != told[1]:
            yield f"Warning, differs: {axis}: {key} {_listed(told[0])} in A, {_listed(told[1])} in B."


def _listed(values: set[str]) -> str:
    """A few values, digests and commits cut short."""
    short = sorted({value[:12] if len(value) > 30 and " " not in value else value for value in values})
    more = f" and {len(short) - _MOST} more" if len(short) > _MOST else ""
    return (", ".join(short[:_MOST]) or "not told") + more


def _side(found: Mapping[int, float]) -> str:
    told = cell_statistics(found, 0.0, 1.0)
    if not told.n:
        return NOTHING
    return with_interval(percent(told.mean), percent(told.lower), percent(told.upper))


def _row(names: Labels, match: Match) -> tuple[str, ...]:
    cell, found = match.first, match.comparison
    variant = names.variant(cell)
    method = f"{cell.method}, {variant}" if variant else cell.method
    difference = with_interval(points(found.mean), points(found.interval.lower), points(found.interval.upper))
    judged = match.state or (probability(match.p_adjusted) if found.n >= CLAIM_SEEDS else UNDECIDED)
    return (method, names.text(cell, "sparsity"), cell.space.upper(), *match.sides, difference, judged,
            f"{match.equal} of {found.n}")  # fmt: skip
