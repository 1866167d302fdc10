"""The methods that stand side by side in an experiment: their setup, and their ranking where it allows one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from ipbench.analysis.cells import PRIMARY, Counts, Values, counts, metric_values
from ipbench.analysis.collect import Collection
from ipbench.analysis.flips import flip_interval
from ipbench.analysis.grid import Cell
from ipbench.analysis.labels import labels
from ipbench.analysis.places import place_of, places
from ipbench.analysis.reached import share_column
from ipbench.analysis.settings import Settings
from ipbench.analysis.setups import NEAR, RANKED, SOURCE, Facts, Setup, kin, setup_of
from ipbench.analysis.text import percent, ranges
from ipbench.planning.numerics import numerics
from ipbench.planning.trainings import Trainings, trainings_of

#: Between two methods of a ranking: whether paired seeds tell them apart.
BETTER, ALIKE = ">", "≈"
#: Columns of the runs that say what a record knows of its images and of its dense net.
_IMAGES, _NET = "provenance_data", ("parameters_dense", "macs_dense")


@dataclass(frozen=True)
class Ranking:
    """Some methods at one place of a grid.

    Attributes:
        cells: those that can be compared, in the order of the grid.
        names: theirs.
        setup: what they have in common.
        whole: whether these are all methods of the place; else some that start, and are retrained, alike.
        why_not: why they are not ranked; '' where they are.
        order: their numbers, the best first; () where they are not ranked.
        told: the ranking as text: 'snip 95.12 > grasp 95.00 ≈ random 94.98'; '' where there is none.
    """

    cells: tuple[Cell, ...]
    names: tuple[str, ...]
    setup: Setup
    whole: bool
    why_not: str = ""
    order: tuple[int, ...] = ()
    told: str = ""

    @property
    def winner(self) -> str:
        """The name of the method with the best mean; '' where they are not ranked."""
        return self.names[self.order[0]] if self.order else ""


def rankings(collection: Collection) -> list[Ranking]:
    """Of every place all its methods, and where these are not ranked, those that start and are retrained alike."""
    work = _Work(collection)
    found: list[Ranking] = []
    for cells in places(collection.grid):
        possible = [cell for cell in cells if not work.counts[cell.id].impossible]
        begun = [cell for cell in possible if work.counts[cell.id].done or work.counts[cell.id].diverged]
        if len(begun) < 2:
            continue
        facts = work.all_facts(begun)
        whole = work.ranking(begun, facts, len(begun) == len(possible))
        found.append(whole)
        if not whole.setup.ranks:
            some = [work.ranking(cells, facts, True, whole=False) for cells in work.alike(begun, facts)]
            found += [one for one in some if one.setup.ranks]
    return found


def same_winner(found: Sequence[Ranking]) -> list[str]:
    """Of every ranking, whether its methods have the same winner under every recipe: 'yes: snip', 'no: snip, grasp'.

    '' where they are not ranked under two recipes at least, or not under one of them.
    """
    by_methods: dict[tuple[object, ...], list[Ranking]] = {}
    for one in found:
        by_methods.setdefault(_but_recipe(one), []).append(one)
    told = []
    for one in found:
        winners = [other.winner for other in by_methods[_but_recipe(one)]]
        if len(winners) < 2 or not all(winners):
            told.append("")
        else:
            told.append(f"{'yes' if len(set(winners)) == 1 else 'no'}: {', '.join(dict.fromkeys(winners))}")
    return told


def in_short(found: Sequence[Ranking]) -> list[str]:
    """A line or two below a table in which methods stand side by side: under which setups, and what differs."""
    whole = [one for one in found if one.whole]
    if not whole:
        return []
    number = Counter(one.setup.text for one in whole)
    texts = [text if len(number) == 1 else f"{text} at {n} of {len(whole)} places" for text, n in number.items()]
    lines = [f"Methods side by side: setup {'; '.join(texts)} ({SOURCE})."]
    withheld = [one for one in whole if not one.setup.ranks]
    if withheld:
        several = len({one.setup.differences for one in withheld}) > 1
        lines.append(
            "No ranking of all methods"
            + (" there" if len(withheld) < len(whole) else "")
            + f", for which {RANKED[0]} is the least; {'at the first place n' if several else 'n'}"
            f"{withheld[0].setup.sentence[1:]}"
        )
    return lines


def _but_recipe(one: Ranking) -> tuple[object, ...]:
    """What rankings of the same methods at one place have in common under every recipe."""
    methods = frozenset((cell.method, cell.allocation, cell.options) for cell in one.cells)
    return (*place_of(one.cells[0], "recipe"), methods)


class _Work:
    """What all rankings of a collection need."""

    def __init__(self, collection: Collection) -> None:
        self.counts: dict[str, Counts] = counts(collection)
        self.values: Values = metric_values(collection.runs, PRIMARY)
        self.settings = Settings(collection)
        self.labels = labels(collection.grid)
        runs = collection.runs[collection.runs["status"] == "done"]
        self.flops = metric_values(runs, "training_flops")
        self.shares = {name: metric_values(runs, name) for name in ("achieved_sparsity", "reached") if name in runs}
        self.images = _texts(runs, _IMAGES)
        self.nets = {name: _texts(runs, name) for name in _NET}
        self.weights = _by_seed(runs, "weights_sha256")

    def ranking(self, cells: Sequence[Cell], facts: Mapping[str, Facts], begun: bool, whole: bool = True) -> Ranking:
        """The setup of some cells of one place, and their ranking where that allows one and all runs are in.

        Args:
            cells: which.
            facts: of each of them, by its id.
            begun: whether there is a run of every cell that they are all of.
            whole: whether they are all of a place.
        """
        setup = setup_of([facts[cell.id] for cell in cells])
        names = tuple(facts[cell.id].name for cell in cells)
        why = self._why_not(cells, setup, begun)
        if why:
            return Ranking(tuple(cells), names, setup, whole, why)
        means = [_mean(self.values[cell.id]) for cell in cells]
        order = sorted(range(len(cells)), key=lambda place: -means[place])
        told = f"{names[order[0]]} {percent(means[order[0]])}"
        for before, place in pairwise(order):
            sign = self._sign(cells[before], cells[place])
            told += f" {sign} {names[place]} {percent(means[place])}"
        return Ranking(tuple(cells), names, setup, whole, "", tuple(order), told)

    def alike(self, cells: Sequence[Cell], facts: Mapping[str, Facts]) -> list[list[Cell]]:
        """Cells put together that start and are retrained alike, and of which as much is left; two at least."""
        groups: list[list[Facts]] = []
        for some in kin([facts[cell.id] for cell in cells]):
            run: list[Facts] = []
            for one in sorted(some, key=lambda one: one.left):
                if run and not one.left <= (1 + NEAR) * run[0].left:
                    groups.append(run)
                    run = []
                run.append(one)
            groups.append(run)
        members = [{one.cell for one in group} for group in groups]
        return [[cell for cell in cells if cell.id in some] for some in members if len(some) > 1]

    def all_facts(self, cells: Sequence[Cell]) -> dict[str, Facts]:
        """The facts of cells of one place, by id; a method that is there once needs no more than its name."""
        number = Counter(cell.method for cell in cells)
        variants = {cell.id: self.labels.variant(cell, ("allocation", "options")) for cell in cells}
        return {
            cell.id: self.facts(
                cell, f"{cell.method} ({variants[cell.id] or 'default'})" if number[cell.method] > 1 else cell.method
            )
            for cell in cells
        }

    def facts(self, cell: Cell, name: str) -> Facts:
        """What is known of the runs of a cell."""
        trainings = trainings_of(cell.run(cell.seeds[0]))
        start, started = self._start(cell, trainings)
        known = {name: " and ".join(sorted(found.get(cell.id, ()))) for name, found in self.nets.items()}
        net = ", ".join(f"{text} {name.removesuffix('_dense')}" for name, text in known.items() if text)
        share = _mean(self.shares.get(share_column(cell), {}).get(cell.id, {}))
        left = 1 - (float(cell.sparsity) if math.isnan(share) and not cell.knob else share)
        images, flops = frozenset(self.images.get(cell.id, ())), _mean(self.flops.get(cell.id, {}))
        return Facts(cell.id, name, images, net, left, start, started, trainings, flops)

    def _start(self, cell: Cell, trainings: Trainings | None) -> tuple[str, str]:
        """What a cell starts from, to compare and in words: weights by their digest, where the runs are there."""
        seeds = f"seeds {ranges(cell.seeds)}"
        if trainings is None or trainings.start is None:
            return f"{seeds}, initial values", "the initial values"
        run = trainings.start
        words = "the trained dense net" if run.method == "dense" else f"the trained net of {run.method}"
        hashes = self.weights.get(run.cell, {})
        if all(seed in hashes for seed in cell.seeds):
            return " ".join(hashes[seed] for seed in sorted(cell.seeds)), words
        return f"{seeds}, {run.cell}, numerics {numerics(run)}", words

    def _why_not(self, cells: Sequence[Cell], setup: Setup, begun: bool) -> str:
        if not setup.ranks:
            return f"withheld: setup {setup.label}"
        if not begun or any(self.counts[cell.id].missing or not self.values.get(cell.id) for cell in cells):
            return "not yet: runs are missing"
        mixed = self.settings.mixed([cell.id for cell in cells])
        return f"not formed: {mixed}" if mixed else ""

    def _sign(self, better: Cell, worse: Cell) -> str:
        """Whether paired seeds tell two cells apart: the interval of their difference leaves out zero."""
        first, second = self.values[better.id], self.values[worse.id]
        interval = flip_interval([first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())])
        return BETTER if interval.lower > 0 else ALIKE


def _mean(values: Mapping[int, float]) -> float:
    """As the other tables form it: the last bit decides how 81.455 is rounded."""
    return float(np.mean([values[seed] for seed in sorted(values)])) if values else math.nan


def _texts(runs: pd.DataFrame, column: str) -> dict[str, set[str]]:
    """The values of a column by cell, as texts; those that are missing left out."""
    found: dict[str, set[str]] = {}
    for cell, value in zip(runs["cell"], _column(runs, column), strict=True):
        if not pd.isna(value):
            found.setdefault(cell, set()).add(str(value))
    return found


def _by_seed(runs: pd.DataFrame, column: str) -> dict[str, dict[int, str]]:
    found: dict[str, dict[int, str]] = {}
    for cell, seed, value in zip(runs["cell"], runs["seed"], _column(runs, column), strict=True):
        if not pd.isna(value):
            found.setdefault(cell, {})[int(seed)] = str(value)
    return found


def _column(runs: pd.DataFrame, column: str) -> Iterable[Any]:
    return runs[column] if column in runs else [None] * len(runs)
