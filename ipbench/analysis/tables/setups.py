"""The table of setups: methods side by side, what they have in common, and their ranking where that allows one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ipbench.analysis import setups
from ipbench.analysis.collect import Collection
from ipbench.analysis.flips import CLAIM_SEEDS
from ipbench.analysis.grid import Cell, Grid, Row
from ipbench.analysis.labels import AXES, Labels, metric_name
from ipbench.analysis.rankings import ALIKE, BETTER, Ranking, same_winner
from ipbench.analysis.render import Table
from ipbench.analysis.tables.parts import common_notes, raw_axes, table
from ipbench.analysis.text import NOTHING

#: Axes in which the methods of a place differ.
_WITHIN = ("method", "allocation", "options")
_COLUMNS = ("space", "cells", "methods", "all_methods", "setup", "same_epochs", "same_flops", "ranked", "differences",
            "ranking", "winner", "same_winner")  # fmt: skip


def setups_table(collection: Collection, names: Labels, found: Sequence[Ranking]) -> Table:
    """One row per place with several methods; where they are not ranked together, one for those that can be, too."""
    recipes = recipes_of(collection.grid)
    last = f"same winner under {'both' if recipes == 2 else 'all'} recipes?"
    data: list[dict[str, Any]] = []
    printed: list[dict[str, str]] = []
    for one, same in zip(found, same_winner(found), strict=True):
        data.append(_raw(one) | {"same_winner": same})
        texts = place_of(names, one.cells[0]) | {"methods": _methods(one), "setup": one.setup.text}
        texts |= {"what differs": one.setup.sentence, "ranking": one.told or one.why_not, last: same or NOTHING}
        printed.append(texts)
    columns = [*(place_of(names, found[0].cells[0]) if found else ()), "methods", "setup", "what differs", "ranking"]
    columns += [last] if recipes > 1 else []
    raw = [*(axis for axis in AXES if axis not in _WITHIN), *_COLUMNS]
    title = "methods side by side"
    return table(collection, "setups", title, data, printed, _notes(collection, names, recipes), columns, raw)


def recipes_of(grid: Grid) -> int:
    """Under how many recipes the nets of a grid are trained, at most."""
    found: dict[tuple[str, str], set[str]] = {}
    for cell in grid.cells:
        found.setdefault((cell.dataset, cell.model), set()).add(cell.recipe)
    return max(map(len, found.values()))


def place_of(names: Labels, cell: Cell) -> dict[str, str]:
    """The axes of a place that vary, by the heading of their column."""
    row = Row(cell, None) if cell.space == "sp" else Row(None, cell)
    axes = [axis for axis in names.varying if axis not in _WITHIN]
    told = {names.heading(axis): names.row(row, axis) for axis in axes}
    share = told.pop(names.heading("sparsity"))
    if cell.knob:  # what is reached may differ from method to method
        share = f"{cell.knob}={cell.setting}"
    return told | {"space": cell.space.upper(), names.heading("sparsity"): share}


def _methods(one: Ranking) -> str:
    return f"all {len(one.cells)}" if one.whole else ", ".join(one.names)


def _raw(one: Ranking) -> dict[str, Any]:
    cell = one.cells[0]
    axes = raw_axes(Row(cell, None) if cell.space == "sp" else Row(None, cell))
    place = {name: value for name, value in axes.items() if name not in (*_WITHIN, "family", "knob")}
    return place | {
        "space": cell.space,
        "cells": " ".join(member.id for member in one.cells),
        "methods": "; ".join(one.names),
        "all_methods": one.whole,
        "setup": one.setup.label,
        "same_epochs": "SX-A" in one.setup.totals,
        "same_flops": "SX-B" in one.setup.totals,
        "ranked": bool(one.order),
        "differences": one.setup.sentence,
        "ranking": one.told or one.why_not,
        "winner": one.winner,
    }


def _notes(collection: Collection, names: Labels, recipes: int) -> tuple[str, ...]:
    asked, more = ("; ".join(f"{name} {text}" for name, text in of.items()) for of in (setups.SETUPS, setups.TOTALS))
    per_cent = f"{100 * setups.NEAR:g} %"
    winner = (
        "same winner: whether the method with the best mean is the same under every recipe (Wang et al., section 6).",
    )
    return (
        f"setup: the strictest that holds ({setups.SOURCE}): {asked}. Each asks for what those"
        f" before it ask for. Beside them, over all trainings, that of the dense net included: {more}. Shares that are"
        f" left, and FLOPs, are the same within {per_cent}.",
        f"ranking: by the mean test {metric_name(collection.grid.cells)} in per cent, only where the setup is"
        f" {setups.RANKED[0]} or stricter and all runs are in; where all methods cannot be ranked, those that start and"
        " are retrained alike have a row of their own.",
        f"{BETTER}: the interval of 95 % of the paired difference of two neighbours leaves out zero (not corrected for"
        f" the number of neighbours); {ALIKE}: it does not, or there are fewer than {CLAIM_SEEDS} seeds.",
        "IP against SP of one method differs in the space alone: such comparisons need no setup, and are in the other"
        " tables.",
        *(winner if recipes > 1 else ()),
        *common_notes(collection, names),
    )
