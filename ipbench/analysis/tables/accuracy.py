"""The table of test accuracies: SP and IP side by side, with the dense references."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ipbench.analysis.cells import SELECTED, CellStatistics, Counts, all_cells, counts
from ipbench.analysis.collect import Collection
from ipbench.analysis.comparisons import Analysis
from ipbench.analysis.grid import Cell
from ipbench.analysis.labels import Labels, guess_text, metric_name
from ipbench.analysis.published import find
from ipbench.analysis.render import Table
from ipbench.analysis.tables.parts import (
    MEANS,
    axes,
    column_names,
    common_notes,
    lost_notes,
    raw_axes,
    raw_reached,
    seeds_note,
    table,
)
from ipbench.analysis.text import NOTHING, percent, with_interval

_SIDES = (("sp", "SP"), ("ip", "IP"))
#: The means of a cell: prefix in the CSV, heading behind the space.
_MEANS = (("", ""), ("selected_", " selected"), ("complete_", " without diverged"))
#: How many runs lost their net: heading behind the space, field of `Counts`.
_LOST = {" collapsed": "collapsed", " at chance": "chance"}


@dataclass(frozen=True)
class _Numbers:
    """What is known of all cells: their means, by prefix, and how their runs ended."""

    means: dict[str, dict[str, CellStatistics]]
    ended: dict[str, Counts]


def accuracy_table(collection: Collection, names: Labels, analysis: Analysis) -> Table:
    """One row per SP/IP pair or lone cell."""
    means = {"": all_cells(collection), "selected_": all_cells(collection, SELECTED)}
    means["complete_"] = all_cells(collection, complete_case=True)
    numbers = _Numbers(means, counts(collection))
    data: list[dict[str, Any]] = []
    printed: list[dict[str, str]] = []
    sources: list[str] = []
    for row in collection.grid.rows():
        raw, texts = raw_axes(row) | raw_reached(names, collection.grid, row), axes(names, row)
        for space, heading in _SIDES:
            cell = row.sp if space == "sp" else row.ip
            raw |= _raw(space, cell, numbers)
            texts |= _texts(heading, cell, numbers)
            known = find(cell)
            raw[f"{space}_published_percent"] = 100 * known.accuracy if known else math.nan
            raw[f"{space}_published_source"] = known.source if known else None
            texts[f"{heading} published"] = percent(known.accuracy) if known else NOTHING
            sources += [known.source] if known else []
        data.append(raw)
        printed.append(texts)
    ended = numbers.ended.values()
    headings = ["", " n", *_lost_headings(numbers), " selected"]
    headings += [" without diverged"] if any(count.diverged for count in ended) else []
    headings += [" published"] if sources else []
    order = [f"{heading}{what}" for what in headings for _, heading in _SIDES]
    metric = metric_name(collection.grid.cells)
    notes = (
        f"Test {metric} in per cent: after the last epoch, and (selected) at the epoch of the best validation"
        f" {metric}.",
        MEANS,
        f"n: runs behind a mean, one per seed. A diverged run counts as {guess_text(collection.grid.cells)}"
        + ("; the mean without diverged runs stands beside it." if " without diverged" in headings else "."),
        *lost_notes(collection.grid.cells, numbers.ended),
        *common_notes(collection, names),
        seeds_note(collection, analysis),
        *(f"Published: {source}." for source in dict.fromkeys(sources)),
    )
    return table(collection, "accuracy", f"test {metric}", data, printed, notes, [*column_names(names), *order])


def _lost_headings(numbers: _Numbers) -> list[str]:
    """The columns of lost runs, of which there are any."""
    return [what for what, field in _LOST.items() if any(getattr(count, field) for count in numbers.ended.values())]


def _raw(space: str, cell: Cell | None, numbers: _Numbers) -> dict[str, Any]:
    raw: dict[str, Any] = {f"{space}_cell": cell.id if cell else None}
    for prefix, _ in _MEANS:
        found = numbers.means[prefix][cell.id] if cell else None
        for field in ("mean", "std", "lower", "upper"):
            raw[f"{space}_{prefix}{field}_percent"] = 100 * getattr(found, field) if found else math.nan
    raw[f"{space}_interval"] = numbers.means[""][cell.id].interval if cell else None
    raw[f"{space}_mixed"] = numbers.means[""][cell.id].mixed if cell else None
    count = numbers.ended[cell.id] if cell else None
    for field in ("planned", "done", "diverged", "collapsed", "chance", "impossible", "missing"):
        raw[f"{space}_{field}"] = getattr(count, field) if count else 0
    return raw


def _texts(heading: str, cell: Cell | None, numbers: _Numbers) -> dict[str, str]:
    if cell is None:
        return dict.fromkeys([f"{heading}{what}" for what in (" n", *_LOST, *dict(_MEANS).values())], NOTHING)
    count = numbers.ended[cell.id]
    if count.impossible:
        texts = dict.fromkeys([f"{heading}{what}" for what in dict(_MEANS).values()], "impossible")
        return texts | {f"{heading}{what}": NOTHING for what in (" n", *_LOST)}
    finished = count.done + count.diverged
    number = f"{finished}" if finished == count.planned else f"{finished} of {count.planned}"
    number += f" ({count.diverged} diverged)" if count.diverged else ""
    texts = {f"{heading} n": number}
    texts |= {f"{heading}{what}": f"{getattr(count, field)} of {finished}" for what, field in _LOST.items()}
    for prefix, suffix in _MEANS:
        found = numbers.means[prefix][cell.id]
        mean = with_interval(percent(found.mean), percent(found.lower), percent(found.upper))
        texts[heading + suffix] = f"not formed: {found.mixed}" if found.mixed else mean
    return texts
