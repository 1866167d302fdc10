"""Numeric options of methods that an experiment varies, such as the share that COPS gives its controls (no pandas)."""

from __future__ import annotations

import json
from dataclasses import dataclass

from ipbench import methods
from ipbench.analysis.grid import LATER, Cell, Grid

#: A curve needs so many values of an option.
_VALUES = 3


@dataclass(frozen=True)
class Tradeoff:
    """One option of a method at one sparsity on one net, all other axes fixed.

    Attributes:
        method: its name.
        option: the option that varies.
        title: method, what else tells it from others, and the sparsity.
        sparsity: as written; "0" where a knob says how much is pruned.
        curves: by space, the cells by growing value of the option.
        named: texts of other options that are names of methods: those that are compared with it.
    """

    method: str
    option: str
    title: str
    sparsity: str
    curves: dict[str, list[tuple[float, Cell]]]
    named: tuple[str, ...]


def tradeoffs(grid: Grid, dataset: str, model: str) -> list[Tradeoff]:
    """The trade-offs of one net, in the order of the grid; none where fewer than three values were planned."""
    groups: dict[tuple[str, ...], dict[str, list[tuple[float, Cell]]]] = {}
    cells = [cell for cell in grid.cells if (cell.dataset, cell.model) == (dataset, model) and not cell.dense]
    for cell in cells:
        options = _options(cell)
        for option, value in options.items():
            number = _number(value)
            if number is None or option == cell.knob:  # the knob is an axis already
                continue
            others = json.dumps({name: other for name, other in options.items() if name != option})
            axes = (cell.recipe, cell.off, cell.allocation, *cell.structure, cell.mode)
            # A filter basis belongs to one space. Curves of several bases could not be told apart: the first is shown.
            key = (cell.method, option, others, cell.sparsity, *axes)
            curve = groups.setdefault(key, {}).setdefault(cell.space, [])
            if number not in [known for known, _ in curve]:
                curve.append((number, cell))
    found = []
    for (method, option, others, sparsity, *_), curves in groups.items():
        if max(map(len, curves.values())) < _VALUES:
            continue
        some = next(cell for curve in curves.values() for _, cell in curve)
        options = {name: value for name, value in json.loads(others).items() if name != some.knob}
        texts = [value for value in options.values() if isinstance(value, str) and _number(value) is None]
        named = tuple(word.strip() for text in texts for word in text.split(","))
        words = [getattr(some, axis) for axis, usual in LATER.items() if getattr(some, axis) != usual]
        level = f"{some.knob} = {some.setting}" if some.knob else f"p = {sparsity}"
        title = ", ".join([f"{method} {' / '.join(texts)}".strip(), *words, level])
        ordered = {space: sorted(curve, key=lambda point: point[0]) for space, curve in curves.items()}
        found.append(Tradeoff(method, option, title, sparsity, ordered, named))
    return found


def _options(cell: Cell) -> dict[str, object]:
    """The options of a cell; a grid leaves out those at their defaults, which a method that is known here tells."""
    known = methods.methods()
    return {**(known[cell.method].options if cell.method in known else {}), **json.loads(cell.options)}


def _number(value: object) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
