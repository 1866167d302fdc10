"""The result of an experiment as plain text for a terminal, at most 100 columns wide."""

from __future__ import annotations

import math
import textwrap
from dataclasses import replace
from pathlib import Path

from ipbench.analysis.cells import CellStatistics, Counts, all_cells, counts
from ipbench.analysis.collect import Collection, load_both
from ipbench.analysis.comparisons import Comparison, analyse, pair_name
from ipbench.analysis.grid import Cell, Grid, Row
from ipbench.analysis.labels import Labels, guess_text, knob_text, labels, metric_name, share_text
from ipbench.analysis.rankings import ALIKE, BETTER, Ranking, in_short, rankings
from ipbench.analysis.reached import reached_by_knob
from ipbench.analysis.tables.parts import lost_text, seeds_note
from ipbench.analysis.tables.setups import place_of
from ipbench.analysis.text import NOTHING, percent, points, probability, with_interval

WIDTH = 100
#: Behind a mean of which a run lost its net.
CROSS = "×"
#: Columns of the table: all but the first have one width, whatever the numbers.
_SPARSITY, _ACCURACY, _DIFFERENCE, _VERDICT = 6, 15, 23, 12
#: The most that the value of a knob takes, with what was reached.
_LEVEL = 18
#: Rankings of methods that are printed; a large grid has hundreds of them.
_MOST_RANKINGS = 12
_METHOD = WIDTH - _SPARSITY - 2 * _ACCURACY - _DIFFERENCE - _VERDICT - 10


def summary(results: Path) -> str:
    """The result table of `results/runs.parquet`: SP and IP as mean ± half the width of the interval, and IP − SP.

    Raises:
        BadInput: `runs.parquet` is missing, damaged or of another grid.
    """
    whole, own = load_both(results)
    controls = len(whole.grid.cells) - len(own.grid.cells)
    more = f"\n{controls:,} cells of controls are not in it; `ipbench survive {results}` tells of them."
    return summarise(own) + (more if controls else "")


def summarise(collection: Collection) -> str:
    """As `summary`, of a collection."""
    grid, names = collection.grid, replace(labels(collection.grid), reached=reached_by_knob(collection))
    cells, ended, analysis = all_cells(collection), counts(collection), analyse(collection)
    metric = metric_name(grid.cells)
    lines = [*textwrap.wrap(f"{grid.title}: test {metric} in per cent, IP − SP in percentage points", WIDTH)]
    for dataset, model in grid.nets:
        rows = [row for row in grid.rows() if (row.any.dataset, row.any.model) == (dataset, model)]
        methods = [_method(names, row) for row in rows]
        levels = [_level(names, row) for row in rows]
        share = max(_SPARSITY, *map(len, levels))
        width = min(_METHOD + _SPARSITY - share, max(len(text) for text in ["method", *methods]))
        lines += [
            "",
            f"{dataset}, {model}",
            _line((width, share), "method", "p", "SP", "IP", "IP − SP [95 %]", "verdict"),
        ]
        lines.append("─" * len(lines[-1].rstrip()))
        last = ""
        for method, level, row in zip(methods, levels, rows, strict=True):
            found = analysis.pairs.get(pair_name(row))
            difference = _difference(found.comparison) if found else NOTHING
            verdict = found.verdict if found else NOTHING
            sp, ip = (_side(cell, cells, ended) for cell in (row.sp, row.ip))
            # A method is named once, on a line of its own if its name is long.
            name = "" if method == last else method
            last = method
            if len(name) > width:
                lines += textwrap.wrap(name, WIDTH)
                name = ""
            lines.append(_line((width, share), name, level, sp, ip, difference, verdict))
    done = sum(count.done for count in ended.values())
    notes = [
        f"{done} of {grid.planned} runs finished.",
        *_lost(grid, ended),
        *_legend(analysis.members, grid.margin),
        seeds_note(collection, analysis),
    ]
    whole = analysis.overall
    if whole and whole.included and whole.comparison.n:
        number = f"{len(whole.included)} complete comparison{'' if len(whole.included) == 1 else 's'}"
        signs = f", mixed signs ({whole.signs[0]} +, {whole.signs[1]} −)" if whole.several_signs else ""
        notes.append(
            f"Over {number}{signs}: IP − SP = {_difference(whole.comparison)}, n = {whole.comparison.n},"
            f" p (max-T) = {probability(whole.p_adjusted)}: {whole.verdict}."
        )
    guess = "each counts with the accuracy of a guess"
    if metric != "accuracy":
        guess = f"each counts as {guess_text(grid.cells)}"
    if diverged := sum(counts_of.diverged for counts_of in ended.values()):
        notes.append(f"{diverged} of {collection.grid.planned} runs diverged; {guess}.")
    if collection.unreadable:
        notes.append(f"Unreadable records: {len(collection.unreadable)}; see tables/missing.md.")
    notes += _side_by_side(names, rankings(collection))
    return "\n".join([*lines, "", *(line for note in notes for line in textwrap.wrap(note, WIDTH)), ""])


def _side_by_side(names: Labels, found: list[Ranking]) -> list[str]:
    """The setup of methods side by side, and their rankings where it allows them; tables/setups.md has all of it."""
    ranked = [one for one in found if one.order]
    told = []
    for one in ranked[:_MOST_RANKINGS]:
        place = ", ".join(f"{name} {text}" for name, text in place_of(names, one.cells[0]).items() if text != NOTHING)
        some = "" if one.whole else f"; {one.setup.text}, {len(one.cells)} methods"
        told.append(f"Ranked ({place}{some}): {one.told}.")
    if told:
        told.append(f"{BETTER}: paired seeds tell the two apart, {ALIKE}: they do not.")
    if len(ranked) > _MOST_RANKINGS:
        told.append(f"{len(ranked) - _MOST_RANKINGS} other rankings: tables/setups.md.")
    return [*in_short(found), *told]


def _legend(members: int, margin: float) -> tuple[str, ...]:
    """What a reader has to know: the spaces, the intervals, and what a claim is."""
    return (
        "SP prunes weights; IP prunes coefficients of filters over small bases, which are trained, too.",
        "± half of the 95 % interval of a mean over seeds, [ ] that of the difference of paired seeds.",
        f"Claims: IP better, SP better (5 % error over all {members} tests); within ±{margin:g} is tested by itself.",
    )[: 3 if members else 2]


def _difference(found: Comparison) -> str:
    return with_interval(points(found.mean), points(found.interval.lower), points(found.interval.upper))


def _line(widths: tuple[int, int], method: str, level: str, sp: str, ip: str, difference: str, verdict: str) -> str:
    cells = ((method, widths[0]), (level, widths[1]), (sp, _ACCURACY), (ip, _ACCURACY), (difference, _DIFFERENCE))
    return "  ".join([*(f"{text:<{room}}" for text, room in cells), verdict]).rstrip()


def _level(names: Labels, row: Row) -> str:
    """The sparsity, or the value of a knob and what was reached; of these what fits."""
    whole = names.row(row, "sparsity")
    if not row.any.knob:
        return whole
    value = knob_text(row.any)
    shares = [names.reached[side.id] for side in (row.sp, row.ip) if side and side.id in names.reached]
    told = "–".join(dict.fromkeys(map(share_text, sorted(shares))))
    found = next((text for text in (whole, value) if len(text) <= _LEVEL), f"({told})" if told else value)
    return found if len(found) <= _LEVEL else f"{found[: _LEVEL - 1]}…"


def _method(names: Labels, row: Row) -> str:
    variant = names.variant(row.ip or row.any)
    return f"{row.any.method}, {variant}" if variant else row.any.method


def _side(cell: Cell | None, cells: dict[str, CellStatistics], ended: dict[str, Counts]) -> str:
    if cell is None:
        return NOTHING
    if ended[cell.id].impossible:
        return "impossible"
    found = cells[cell.id]
    if found.mixed:
        return "mixed"
    half = (found.upper - found.lower) / 2
    text = percent(found.mean) if math.isnan(half) else f"{percent(found.mean)} ± {percent(half)}"
    return f"{text} {CROSS}" if ended[cell.id].lost else text


def _lost(grid: Grid, ended: dict[str, Counts]) -> list[str]:
    """What the cross behind a mean says; nothing where there is none."""
    kinds = {"collapsed": "collapsed", "chance": "at chance", "diverged": "diverged"}
    numbers = {what: sum(getattr(count, field) for count in ended.values()) for field, what in kinds.items()}
    if not any(numbers.values()):
        return []
    told = ", ".join(f"{number} {what}" for what, number in numbers.items() if number)
    lost = sum(count.lost for count in ended.values())
    return [f"{CROSS}: a mean with lost runs, {lost} in all ({told}). {lost_text(grid.cells)}"]
