"""What the tables share: notes on intervals, claims and the setting, the columns of the axes, the assembly."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from ipbench.analysis.cells import Counts
from ipbench.analysis.collect import Collection
from ipbench.analysis.comparisons import REFERENCE, SPREAD_SEEDS, Analysis
from ipbench.analysis.flips import CLAIM_SEEDS
from ipbench.analysis.grid import LATER, Cell, Grid, Row
from ipbench.analysis.labels import AXES, Labels
from ipbench.analysis.lost import CHANCE_MAP, chance_bound
from ipbench.analysis.render import Table
from ipbench.analysis.setting import hardware, software
from ipbench.analysis.statistics import INTERVAL_SEEDS, POWER, rate_bound, seeds_for
from ipbench.analysis.text import percent
from ipbench.data.catalog import DETECTION, known

#: What an interval is about, whatever its kind.
_SCOPE = "It covers the draw of seeds, not that of test images, and no collapse that no seed has shown."
#: How intervals are made, for the notes: of single means, of paired differences.
MEANS = f"Interval of a mean: 95 %, Student's t over seeds, from 0 to 100; none below {INTERVAL_SEEDS} seeds. {_SCOPE}"
DIFFERENCES = (
    "Interval of a difference: 95 %, all values that the sign-flip test over paired seeds does not reject; none below"
    f" {CLAIM_SEEDS} seeds. {_SCOPE}"
)

#: What stands in place of a sparsity, and that a comparison at one value of a knob need not be one at one share.
KNOBS = (
    "Where an option stands in place of the share, as in rate=0.4 (0.412), it says how much is pruned, and in brackets"
    " is the removed share that was reached: a result, the mean over finished runs. SP and IP are compared at equal"
    " values of the option; where they reached different shares, both are told."
)


def seeds_note(collection: Collection, analysis: Analysis) -> str:
    """How many seeds find a difference as large as the margin, and how many are planned."""
    pairs = [found for found in analysis.pairs.values() if found.state != REFERENCE]
    if not analysis.members:
        return "No SP/IP comparison is planned and possible."
    planned = sorted({found.planned for found in pairs})
    have = str(planned[0]) if len(planned) == 1 else f"{planned[0]} to {planned[-1]}"
    if math.isnan(analysis.spread):
        return f"Seeds planned: {have}; complete comparisons of {SPREAD_SEEDS} seeds or more show how many are needed."
    margin, members = collection.grid.margin, analysis.members
    alone, together = (seeds_for(margin / 100, analysis.spread, number) for number in (1, members))
    return (
        f"At the median spread of single comparisons here (standard deviation {100 * analysis.spread:.2f} points), a"
        f" difference of {margin:g} points is found with a probability of {100 * POWER:.0f} % by {alone} seeds if it is"
        f" the only comparison, by {together} as one of {members}; planned: {have}."
    )


def lost_text(cells: Iterable[Cell]) -> str:
    """What it means that a run collapsed, or is at chance level, for the data sets of these cells."""
    facts = [found for found in map(known, dict.fromkeys(cell.dataset for cell in cells)) if found]
    bounds = [f"{percent(chance_bound(one))} % on {one.name}" for one in facts if one.task != DETECTION]
    least = [f"an accuracy that a net which guesses reaches (at most {', '.join(bounds)})"] if bounds else []
    least += [f"an mAP of at most {CHANCE_MAP:g}"] if len(bounds) < len(facts) else []
    chance = f"; at chance: a test metric of no more than chance, {' or '.join(least)}" if least else ""
    return f"collapsed: nothing is left of a layer{chance}. They count in every mean like all others."


def lost_notes(cells: Iterable[Cell], ended: Mapping[str, Counts]) -> list[str]:
    """`lost_text`, and what can be said of the rate where no run was lost."""
    finished = {cell: count.done + count.diverged for cell, count in ended.items()}
    none = sorted({n for cell, n in finished.items() if n and not ended[cell].lost})
    notes = [lost_text(cells)]
    if none:
        bounds = ", ".join(f"{100 * rate_bound(n):.0f} % (n = {n})" for n in none)
        notes.append(
            f"Where none of n runs collapsed, is at chance or diverged, the rate of these is below {bounds}, at a"
            " confidence of 95 %."
        )
    return notes


def setting_notes(collection: Collection) -> tuple[str, ...]:
    """What every number of a collection depends on: hardware, mode, versions, commit."""
    return hardware(collection), software(collection)


def table(
    collection: Collection,
    name: str,
    title: str,
    data: list[dict[str, Any]],
    printed: list[dict[str, str]],
    notes: tuple[str, ...],
    columns: list[str] | None = None,
    raw_columns: list[str] | None = None,
) -> Table:
    """Assemble a table.

    Args:
        collection: for the title of the experiment.
        name: of its files.
        title: what it shows.
        data: rows of raw numbers.
        printed: the same rows as text.
        notes: sentences below it.
        columns: the order of the printed columns.
        raw_columns: the columns of the raw numbers, needed where there may be no row to tell them.
    """
    raw = pd.DataFrame(data) if data else pd.DataFrame(columns=raw_columns)
    unsaid = {
        axis for axis, usual in LATER.items() if all(getattr(cell, axis) == usual for cell in collection.grid.cells)
    }
    unsaid |= set() if has_knobs(collection.grid) else {"knob"}
    raw = raw.drop(columns=[name for name in raw.columns if name in unsaid])
    return Table(name, f"{collection.grid.title}: {title}", raw, pd.DataFrame(printed, columns=columns), notes)


def has_knobs(grid: Grid) -> bool:
    """Whether cells have a knob in place of a sparsity."""
    return any(cell.knob for cell in grid.cells)


def raw_reached(names: Labels, grid: Grid, row: Row) -> dict[str, Any]:
    """What both sides of a row have reached, as columns; none where no cell of the grid has a knob."""
    if not has_knobs(grid):
        return {}
    sides = (("sp", row.sp), ("ip", row.ip))
    return {f"{space}_reached": names.reached.get(cell.id, math.nan) if cell else math.nan for space, cell in sides}


def describe(names: Labels, cell: Cell) -> str:
    """A cell in words, by the axes that vary: 'digits lenet snip 0.9'."""
    return " ".join(names.text(cell, axis) for axis in names.varying if names.text(cell, axis) not in ("–", "default"))


def raw_axes(row: Row) -> dict[str, Any]:
    """Every axis of a row but the space, as the grid writes it; `table` drops the columns that say nothing."""
    texts = {axis: getattr(row.any, axis) for axis in AXES} | {"family": row.any.family, "knob": row.any.knob}
    return texts | ({"basis": row.ip.basis} if row.ip else {})


def axes(names: Labels, row: Row) -> dict[str, str]:
    """The axes of a row that vary, by the heading of their column."""
    return {names.heading(axis): names.row(row, axis) for axis in names.varying}


def column_names(names: Labels) -> list[str]:
    """The headings of the axes that vary."""
    return [names.heading(axis) for axis in names.varying]


def common_notes(collection: Collection, names: Labels) -> tuple[str, ...]:
    """The notes that most tables share: which axes were dropped as constant, and the setting."""
    constant = ", ".join(f"{names.heading(axis)} {text}" for axis, text in names.constant.items())
    fixed = "; ".join(f"{method}: {text}" for method, text in names.fixed.items())
    return (
        *((f"All rows: {constant}.",) if constant else ()),
        *((f"Options of all rows of a method: {fixed}.",) if fixed else ()),
        *((KNOBS,) if has_knobs(collection.grid) else ()),
        *setting_notes(collection),
    )
