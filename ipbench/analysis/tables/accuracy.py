"""The table of test accuracies: SP and IP side by side, with the dense references."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from ipbench.analysis import comparisons as stats
from ipbench.analysis.collect import Collection
from ipbench.analysis.grid import Cell
from ipbench.analysis.labels import Labels
from ipbench.analysis.published import find
from ipbench.analysis.render import Table
from ipbench.analysis.tables.parts import INTERVALS, axes, column_names, common_notes, raw_axes, table
from ipbench.analysis.text import NOTHING, percent, with_interval

_SIDES = (("sp", "SP"), ("ip", "IP"))


def accuracy_table(collection: Collection, names: Labels, pairs: pd.DataFrame) -> Table:
    """One row per SP/IP pair or lone cell; `pairs` is what `comparisons.paired` returns."""
    primary, selected = stats.all_cells(collection), stats.all_cells(collection, stats.SELECTED)
    ended = stats.counts(collection)
    data: list[dict[str, Any]] = []
    printed: list[dict[str, str]] = []
    sources: list[str] = []
    for row in collection.grid.rows():
        numbers, texts = raw_axes(row), axes(names, row)
        for space, heading in _SIDES:
            cell = row.sp if space == "sp" else row.ip
            numbers |= _numbers(space, cell, primary, selected, ended)
            texts |= _texts(heading, cell, primary, selected, ended)
            known = find(cell)
            numbers[f"{space}_published_percent"] = 100 * known.accuracy if known else math.nan
            numbers[f"{space}_published_source"] = known.source if known else None
            texts[f"{heading} published"] = percent(known.accuracy) if known else NOTHING
            sources += [known.source] if known else []
        data.append(numbers)
        printed.append(texts)
    notes = (
        "Test accuracy in per cent: after the last epoch, and (selected) at the epoch of the best validation accuracy.",
        INTERVALS,
        "n: finished runs, one per seed; diverged runs are counted and left out of the means.",
        *common_notes(collection, names),
        stats.seeds_note(pairs),
        *(f"Published: {source}." for source in dict.fromkeys(sources)),
    )
    headings = ["", " n", " selected", *([" published"] if sources else [])]
    order = [f"{heading}{what}" for what in headings for _, heading in _SIDES]
    return table(collection, "accuracy", "test accuracy", data, printed, notes, [*column_names(names), *order])


def _numbers(
    space: str,
    cell: Cell | None,
    primary: dict[str, stats.CellStatistics],
    selected: dict[str, stats.CellStatistics],
    ended: dict[str, stats.Counts],
) -> dict[str, Any]:
    numbers: dict[str, Any] = {f"{space}_cell": cell.id if cell else None}
    for prefix, source in (("", primary), ("selected_", selected)):
        found = source[cell.id] if cell else None
        for field in ("mean", "std", "lower", "upper"):
            numbers[f"{space}_{prefix}{field}_percent"] = 100 * getattr(found, field) if found else math.nan
    count = ended[cell.id] if cell else None
    numbers[f"{space}_interval"] = primary[cell.id].interval if cell else None
    for field in ("planned", "done", "diverged", "impossible", "missing"):
        numbers[f"{space}_{field}"] = getattr(count, field) if count else 0
    return numbers


def _texts(
    heading: str,
    cell: Cell | None,
    primary: dict[str, stats.CellStatistics],
    selected: dict[str, stats.CellStatistics],
    ended: dict[str, stats.Counts],
) -> dict[str, str]:
    if cell is None:
        return {heading: NOTHING, f"{heading} n": NOTHING, f"{heading} selected": NOTHING}
    count = ended[cell.id]
    if count.impossible:
        return {heading: "impossible", f"{heading} n": NOTHING, f"{heading} selected": "impossible"}
    number = f"{count.done}" if count.done == count.planned else f"{count.done} of {count.planned}"
    number += f" ({count.diverged} diverged)" if count.diverged else ""
    texts = {f"{heading} n": number}
    for suffix, source in (("", primary), (" selected", selected)):
        found = source[cell.id]
        texts[heading + suffix] = with_interval(percent(found.mean), percent(found.lower), percent(found.upper))
    return texts
