"""How cells are named to a reader: which axes vary over an experiment, and the short text each value gets."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ipbench.analysis.grid import Cell, Grid, Row
from ipbench.spec import Basis

#: Axes that can tell two rows of a table apart, in the order of its columns; space is a column group of its own.
AXES = ("dataset", "model", "method", "recipe", "off", "allocation", "options", "basis", "mode", "sparsity")
#: Axes that tell apart two panels of one method.
VARIANTS = ("recipe", "off", "allocation", "options", "basis", "mode")
#: Axes that say nothing about a dense net.
_MASKED = ("off", "allocation", "options")
_STRUCTURED = ("recipe", "options", "basis")
#: What a caption says of a recipe that is the same everywhere; a report has the rest.
_HEADLINE = ("epochs", "batch_size", "lr", "schedule")
HEADINGS = {"dataset": "data set", "basis": "filter basis", "sparsity": "sparsity p"}


@dataclass(frozen=True)
class Labels:
    """Names for the cells of one grid.

    Attributes:
        varying: the axes with more than one value; `sparsity` and `method` always, so that a row is never nameless.
        constant: the text of every other axis that says something, for a caption.
        keys: of the structured axes, the keys that vary (`options`: within a method).
    """

    varying: tuple[str, ...]
    constant: Mapping[str, str]
    keys: Mapping[str, frozenset[str]]

    def text(self, cell: Cell, axis: str) -> str:
        """The text of one axis of a cell; '–' where the axis has no meaning for it."""
        if (cell.dense and axis in _MASKED) or (cell.space == "sp" and axis == "basis"):
            return "–"
        if axis not in _STRUCTURED:
            return str(getattr(cell, axis))
        values = _flat(getattr(cell, axis))
        shown = [f"{key}={_short(values[key])}" for key in sorted(values) if key in self.keys[axis]]
        return ", ".join(shown) or "default"

    def row(self, row: Row, axis: str) -> str:
        """The text of one axis of a row; the filter basis is that of its IP side."""
        return self.text(row.ip if axis == "basis" and row.ip else row.any, axis)

    def variant(self, cell: Cell, axes: Iterable[str] = VARIANTS) -> str:
        """What tells this cell from others of its method: 'frozen, erk'; '' if nothing does."""
        shown = [self.text(cell, axis) for axis in axes if axis in self.varying]
        return ", ".join(text for text in shown if text not in ("–", "default"))


def labels(grid: Grid) -> Labels:
    """Find which axes vary over `grid` and name its cells accordingly; dense cells do not count for mask axes."""
    keys = {axis: _varying_keys(grid.cells, axis) for axis in _STRUCTURED}
    varying, constant = [], {}
    for axis in AXES:
        if axis in _STRUCTURED:
            if keys[axis]:
                varying.append(axis)
            elif shown := _constant(grid.cells, axis):
                constant[axis] = shown
            continue
        cells = [cell for cell in grid.cells if not (cell.dense and axis in _MASKED)]
        texts = list(dict.fromkeys(getattr(cell, axis) for cell in cells))
        if len(texts) > 1 or axis in ("method", "sparsity"):
            varying.append(axis)
        elif texts:
            constant[axis] = texts[0]
    return Labels(tuple(varying), constant, keys)


def _varying_keys(cells: Iterable[Cell], axis: str) -> frozenset[str]:
    """Keys of a structured axis whose values differ between cells for which the axis has a meaning."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        if (axis == "basis" and cell.space == "sp") or (axis == "options" and cell.dense):
            continue
        # Options belong to a method: two methods with different options do not make an axis of them.
        groups.setdefault(cell.method if axis == "options" else "", []).append(_flat(getattr(cell, axis)))
    varying = set()
    for values in groups.values():
        for key in set().union(*values):
            if len({json.dumps(value.get(key)) for value in values}) > 1:
                varying.add(key)
    return frozenset(varying)


def _constant(cells: Iterable[Cell], axis: str) -> str:
    """The text of a structured axis that does not vary: the main keys of a recipe, what is unusual about a basis.

    '' for the options, which belong to single methods.
    """
    if axis == "options":
        return ""
    values = next((_flat(getattr(cell, axis)) for cell in cells if axis != "basis" or cell.space == "ip"), {})
    usual = Basis().model_dump(mode="json")
    keys = [key for key in values if (key in _HEADLINE if axis == "recipe" else values[key] != usual.get(key))]
    return " ".join(f"{key}={_short(values[key])}" for key in sorted(keys))


def _flat(text: str) -> dict[str, Any]:
    """A JSON object as one level of keys: {"augmentation": {"flip": true}} -> {"augmentation.flip": True}."""
    flat: dict[str, Any] = {}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, dict) and value:
            for key, item in value.items():
                walk(item, f"{path}.{key}" if path else str(key))
        elif path:
            flat[path] = value

    walk(json.loads(text), "")
    return flat


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
