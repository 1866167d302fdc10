"""The result of an experiment as plain text for a terminal, at most 100 columns wide."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import Any

from ipbench.analysis import comparisons as stats
from ipbench.analysis.collect import Collection, load
from ipbench.analysis.grid import Cell, Row
from ipbench.analysis.labels import Labels, labels
from ipbench.analysis.tables.paired import claim_text
from ipbench.analysis.text import NOTHING, percent, points, probability, with_interval

WIDTH = 100
#: Columns of the table: all but the first have one width, whatever the numbers.
_SPARSITY, _ACCURACY, _DIFFERENCE, _CLAIM = 6, 13, 23, 10
_METHOD = WIDTH - _SPARSITY - 2 * _ACCURACY - _DIFFERENCE - _CLAIM - 10


def summary(results: Path) -> str:
    """The result table of `results/runs.parquet`: SP and IP as mean ± half the width of the interval, and IP − SP.

    Raises:
        BadInput: `runs.parquet` is missing, damaged or of another grid, or a test would mix modes.
    """
    return summarise(load(results))


def summarise(collection: Collection) -> str:
    """As `summary`, of a collection."""
    grid, names = collection.grid, labels(collection.grid)
    cells, ended, pairs = stats.all_cells(collection), stats.counts(collection), stats.paired(collection)
    found = stats.by_pair(pairs)
    lines = [*textwrap.wrap(f"{grid.title}: test accuracy in per cent, IP − SP in percentage points", WIDTH)]
    for dataset, model in grid.nets:
        rows = [row for row in grid.rows() if (row.any.dataset, row.any.model) == (dataset, model)]
        methods = [_method(names, row) for row in rows]
        width = min(_METHOD, max(len(text) for text in ["method", *methods]))
        lines += ["", f"{dataset}, {model}", _line(width, "method", "p", "SP", "IP", "IP − SP [95 %]", "claim")]
        lines.append("─" * len(lines[-1].rstrip()))
        last = ""
        for method, row in zip(methods, rows, strict=True):
            record: Any = found.get(stats.pair_name(row))
            difference, claim = NOTHING, NOTHING
            if record:
                difference = with_interval(*(points(record[of]) for of in ("mean", "lower", "upper")))
                claim = claim_text(record)
            sp, ip = (_side(cell, cells, ended) for cell in (row.sp, row.ip))
            # A method is named once, on a line of its own if its name is long.
            name = "" if method == last else method
            last = method
            if len(name) > width:
                lines += textwrap.wrap(name, WIDTH)
                name = ""
            lines.append(_line(width, name, row.any.sparsity, sp, ip, difference, claim))
    whole = stats.overall(collection)
    done = sum(count.done for count in ended.values())
    notes = [
        f"{done} of {grid.planned} runs finished; ± is half the width of the 95 % BCa interval.",
        stats.seeds_note(pairs),
    ]
    if whole.included and whole.comparison.n:
        c = whole.comparison
        text = with_interval(points(c.mean), points(c.lower), points(c.upper))
        number = f"{len(whole.included)} complete comparison{'' if len(whole.included) == 1 else 's'}"
        notes.append(f"Over {number}: IP − SP = {text}, n = {c.n}, p = {probability(c.p)}.")
    if collection.unreadable:
        notes.append(f"Unreadable records: {len(collection.unreadable)}; see tables/missing.md.")
    return "\n".join([*lines, "", *(line for note in notes for line in textwrap.wrap(note, WIDTH)), ""])


def _line(width: int, method: str, sparsity: str, sp: str, ip: str, difference: str, claim: str) -> str:
    cells = ((method, width), (sparsity, _SPARSITY), (sp, _ACCURACY), (ip, _ACCURACY), (difference, _DIFFERENCE))
    return "  ".join([*(f"{text:<{room}}" for text, room in cells), claim]).rstrip()


def _method(names: Labels, row: Row) -> str:
    variant = names.variant(row.ip or row.any)
    return f"{row.any.method}, {variant}" if variant else row.any.method


def _side(cell: Cell | None, cells: dict[str, stats.CellStatistics], ended: dict[str, stats.Counts]) -> str:
    if cell is None:
        return NOTHING
    if ended[cell.id].impossible:
        return "impossible"
    found = cells[cell.id]
    if found.n == 0 and ended[cell.id].diverged:
        return "diverged"
    half = (found.upper - found.lower) / 2
    return percent(found.mean) if math.isnan(half) else f"{percent(found.mean)} ± {percent(half)}"
