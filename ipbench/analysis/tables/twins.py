"""The table of ranks: methods at equal coefficients, and the same methods at equal multiply-accumulates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ipbench.analysis.cells import CellStatistics, all_cells
from ipbench.analysis.collect import Collection
from ipbench.analysis.grid import Cell, Row
from ipbench.analysis.kept import Shares, shares
from ipbench.analysis.labels import Labels, metric_name
from ipbench.analysis.panels import Panel
from ipbench.analysis.render import Table
from ipbench.analysis.settings import Settings
from ipbench.analysis.tables.parts import common_notes, raw_axes, table
from ipbench.analysis.text import NOTHING, percent
from ipbench.analysis.twins import (
    EFFECTIVE,
    MACS,
    PARAMETERS,
    Rank,
    points,
    ranks,
    spaces_of,
    turned,
    twin_nets,
    twin_panels,
)

#: Of each measure: what its columns begin with in the CSV.
_COLUMN = {PARAMETERS: "coefficients", MACS: "macs", EFFECTIVE: "effective"}
_UNKNOWN = Rank(math.nan, math.nan, math.nan, math.nan, math.nan)
_NOTES = (
    "Ranks by mean {metric}: at the planned share p of coefficients, and at one share of MACs (equal MACs). There the"
    " {metric} of a method is interpolated between its operating points on either side, linearly over the logarithm of"
    " the share; in brackets that of these two. Nothing is extrapolated: without a point on each side a method has no"
    " rank, and ranks count the others alone. A method that was run at the level itself looks better than it is: chords"
    " lie below curves that bend downwards.",
    "Equal MACs: the geometric mean of what the methods have kept at that p, moved to the nearest place at which as"
    " many methods as possible have a point on each side. MACs: of sparse layers; IP: in two stages. kept: by the"
    " method's own runs at that p. Ranks say nothing of whether a difference is one: see the intervals.",
)


def twins_table(collection: Collection, names: Labels) -> Table:
    """One row per net, space, sparsity and method."""
    data: list[dict[str, Any]] = []
    printed: list[dict[str, str]] = []
    notes: list[str] = []
    accuracies, kept, settings = all_cells(collection), shares(collection.runs), Settings(collection)
    nets = twin_nets(collection.grid)
    for net in nets:
        found = twin_panels(collection.grid, *net)
        for space in spaces_of(found):
            where = ", ".join([*(net if len(nets) > 1 else ()), space.upper()])
            for sparsity in sorted({text for panel in found for text in panel.sparsities}, key=float):
                cells = _cells(found, space, sparsity)
                if mixed := settings.mixed([cell.id for cell in cells.values()]):
                    notes.append(f"{where}, p = {sparsity}: no ranks, mixed {mixed}.")
                    continue
                told = _ranks(found, space, sparsity, accuracies, kept)
                if told:
                    notes.append(_turns(where, sparsity, told))
                for name, cell in cells.items():
                    own = {measure: ranked[name] for measure, ranked in told.items() if name in ranked}
                    data.append(_raw(cell, accuracies[cell.id], own))
                    printed.append(
                        {"net": ", ".join(net), "space": space.upper(), "p": sparsity, "method": name}
                        | _texts(accuracies[cell.id], own, told)
                    )
    metric = metric_name(collection.grid.cells)
    order = list(printed[0]) if printed else ["net", "space", "p", "method"]
    order = order if len(nets) > 1 else [name for name in order if name != "net"]
    printed = [{name: row[name] for name in order} for row in printed]
    told_notes = (*(note.format(metric=metric) for note in _NOTES), *notes, *common_notes(collection, names))
    title = "ranks at equal coefficients and at equal MACs"
    return table(collection, "twins", title, data, printed, told_notes, order, list(data[0]) if data else ["cell"])


def _cells(found: Sequence[Panel], space: str, sparsity: str) -> dict[str, Cell]:
    """The cells of the methods at one planned sparsity, by the titles of their panels."""
    return {panel.title: cell for panel in found for cell in panel.side(space) if cell.sparsity == sparsity}


def _ranks(
    found: Sequence[Panel], space: str, sparsity: str, accuracies: Mapping[str, CellStatistics], kept: Shares
) -> dict[str, dict[str, Rank]]:
    """By measure and method; by effective coefficients only where all cells tell them."""
    sides = {panel.title: panel.side(space) for panel in found if panel.side(space)}
    means = {cell: one.mean for cell, one in accuracies.items() if one.n}
    ran = [cell.id for side in sides.values() for cell in side if cell.id in means]
    everywhere = EFFECTIVE in kept and all(cell in kept[EFFECTIVE] for cell in ran)
    measures = [PARAMETERS, MACS, *([EFFECTIVE] if everywhere else [])]
    measured = {
        measure: {name: points(side, kept[measure], means) for name, side in sides.items()} for measure in measures
    }
    return ranks(measured, sparsity)


def _turns(where: str, sparsity: str, told: Mapping[str, Mapping[str, Rank]]) -> str:
    other, sure, pairs = turned(told[PARAMETERS], told[MACS])
    return (
        f"{where}, p = {sparsity}: {other} of {pairs} pairs of methods stand in another order by MACs as interpolated,"
        f" {sure} of them wherever between their points both lie."
    )


def _raw(cell: Cell, accuracy: CellStatistics, own: Mapping[str, Rank]) -> dict[str, Any]:
    """The numbers of a row, in per cent."""
    row: dict[str, Any] = {"cell": cell.id, "space": cell.space} | raw_axes(Row(cell, None))
    row |= {"n": accuracy.n, "accuracy_percent": 100 * accuracy.mean}
    for measure, column in _COLUMN.items():
        one = own.get(measure, _UNKNOWN)
        row |= {
            f"{column}_kept_percent": 100 * one.own,
            f"{column}_at_percent": 100 * one.share,
            f"{column}_accuracy_percent": 100 * one.accuracy,
            f"{column}_lower_percent": 100 * one.lower,
            f"{column}_upper_percent": 100 * one.upper,
            f"{column}_rank": one.rank or None,
        }
    return row


def _texts(accuracy: CellStatistics, own: Mapping[str, Rank], told: Mapping[str, Mapping[str, Rank]]) -> dict[str, str]:
    """The same as printed."""
    texts = {"n": str(accuracy.n), "at p": percent(accuracy.mean)}
    for measure in [PARAMETERS, MACS, *([EFFECTIVE] if EFFECTIVE in told else [])]:
        one = own.get(measure, _UNKNOWN)
        if measure != PARAMETERS:
            between = "" if one.lower == one.upper else f" ({percent(one.lower)} to {percent(one.upper)})"
            texts[f"{measure} kept"], texts[f"equal {measure}"] = percent(one.own), percent(one.share)
            texts[f"at equal {measure}"] = percent(one.accuracy) + (between if math.isfinite(one.accuracy) else "")
        texts[f"rank by {measure}"] = str(one.rank or NOTHING)
    return texts
