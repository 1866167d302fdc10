"""How cells are named to a reader: which axes vary over an experiment, and the short text each value gets."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ipbench.analysis.grid import LATER, Cell, Grid, Row
from ipbench.analysis.shares import share_heading
from ipbench.data import catalog
from ipbench.spec import Basis

#: Axes that can tell two rows of a table apart, in the order of its columns; space is a column group of its own.
AXES = (
    "dataset", "model", "method", "recipe", "off", "allocation", "pattern", "budget", "options", "basis", "mode",
    "sparsity",
)  # fmt: skip
#: Axes that tell apart two panels of one method.
VARIANTS = ("recipe", "off", "allocation", "pattern", "budget", "options", "basis", "mode")
#: Axes that say nothing about a dense net.
_MASKED = ("off", "allocation", "pattern", "budget", "options")
#: Their usual values, which no panel of a method has to name unless the method comes with others too.
_DEFAULTS = {"off": "zero", "allocation": "global", **LATER}
_STRUCTURED = ("recipe", "basis")
#: What a caption says of a recipe that is the same everywhere; a report has the rest.
_HEADLINE = ("epochs", "batch_size", "lr", "schedule")
#: And what of it a reader has to know where it is not this: on how much was trained, and in what precision.
_UNUSUAL = {"train_examples": None, "precision": "float32"}
_USUAL = Basis().model_dump(mode="json")
HEADINGS = {"dataset": "data set", "basis": "filter basis"}


@dataclass(frozen=True)
class Labels:
    """Names for the cells of one grid.

    Attributes:
        varying: the axes with more than one value; `sparsity` and `method` always, so that a row is never nameless.
        constant: the text of every other axis that says something, for a caption.
        keys: of a recipe and a filter basis, the keys that vary.
        options: of every method, the keys of its options that vary within it.
        fixed: by method, the text of its options that do not vary, for a caption; methods without one are missing.
        within: of every method, the axes of `_DEFAULTS` with more than one value.
        share: heading of the column of sparsities.
        both: methods that come with a value of their knob, and without one.
        reached: by cell whose share is a result, what it has reached, where that is known.
    """

    varying: tuple[str, ...]
    constant: Mapping[str, str]
    keys: Mapping[str, frozenset[str]]
    options: Mapping[str, frozenset[str]]
    fixed: Mapping[str, str]
    within: Mapping[str, frozenset[str]]
    share: str
    both: frozenset[str]
    reached: Mapping[str, float] = field(default_factory=dict)

    def heading(self, axis: str) -> str:
        """The heading of the column of an axis."""
        return self.share if axis == "sparsity" else HEADINGS.get(axis, axis)

    def text(self, cell: Cell, axis: str) -> str:
        """The text of one axis of a cell; '–' where the axis has no meaning for it."""
        if (cell.dense and axis in _MASKED) or (cell.space == "sp" and axis == "basis"):
            return "–"
        if axis == "sparsity" and cell.knob:
            return " ".join(filter(None, (knob_text(cell), self._reached(cell))))
        if axis == "options":
            return self._options(cell)
        if axis not in _STRUCTURED:
            return str(getattr(cell, axis))
        values = _flat(getattr(cell, axis))
        if axis == "basis":
            return self._basis(values)
        return _pairs(values, self.keys[axis]) or "default"

    def _options(self, cell: Cell) -> str:
        """The options that tell a cell from others of its method; '–' of a method with the same options everywhere."""
        keys, values = self.options.get(cell.method, frozenset()), _flat(cell.others)
        return (_pairs(values, keys) or "default") if keys else "–"

    def _reached(self, cell: Cell) -> str:
        """What a cell with a knob has reached, in brackets."""
        return f"({share_text(self.reached[cell.id])})" if cell.id in self.reached else ""

    def _basis(self, values: Mapping[str, Any]) -> str:
        """What is unusual about a filter basis, of the keys that vary; the default is named so.

        Ablations change one key at a time: with all keys that vary, every name would be long and say little.
        """
        unusual = {key for key, value in values.items() if value != _USUAL.get(key)}
        keys = (unusual & self.keys["basis"]) or (self.keys["basis"] & values.keys() if unusual else set())
        return ", ".join(f"{key}={_short(values[key])}" for key in sorted(keys)) or "default FB"

    def row(self, row: Row, axis: str) -> str:
        """The text of one axis of a row; the filter basis is that of its IP side, what is reached that of both."""
        sides = [cell for cell in (row.sp, row.ip) if cell]
        if axis == "sparsity" and row.any.knob and len({self._reached(cell) for cell in sides}) > 1:
            told = ", ".join(f"{cell.space.upper()} {share_text(self.reached[cell.id])}" for cell in sides
                             if cell.id in self.reached)  # fmt: skip
            return f"{knob_text(row.any)} ({told})"
        return self.text(row.ip if axis == "basis" and row.ip else row.any, axis)

    def variant(self, cell: Cell, axes: Iterable[str] = VARIANTS) -> str:
        """What tells this cell from others of its method, or is unusual: 'frozen, erk'; '' if nothing does."""
        usual = {axis for axis, value in _DEFAULTS.items() if getattr(cell, axis) == value}
        dropped = usual - self.within.get(cell.method, frozenset())
        shown = [self.text(cell, axis) for axis in axes if axis in self.varying and axis not in dropped]
        shown += [f"by {cell.knob}"] if cell.knob and cell.method in self.both else []
        return ", ".join(text for text in shown if text not in ("–", "default"))

    def axes_within(self, method: str) -> tuple[str, ...]:
        """Axes that tell apart two panels of this very method."""
        return tuple(axis for axis in VARIANTS if axis not in _DEFAULTS or axis in self.within.get(method, ()))


def differences(cells: Iterable[Cell]) -> str:
    """What tells methods from each other that are the same in all of their own cells.

    Returns:
        By axis the most frequent value, and the methods that have others, "pattern filters (epruner: channels)"; empty
        where all methods have the same.
    """
    cells = [cell for cell in cells if not cell.dense]
    within = _within(cells)
    texts = []
    for axis in _DEFAULTS:
        methods: dict[str, list[str]] = {}
        for method, cell in {cell.method: cell for cell in cells if axis not in within[cell.method]}.items():
            methods.setdefault(getattr(cell, axis), []).append(method)
        usual, *others = sorted(methods, key=lambda value: -len(methods[value])) or [""]
        if others:
            told = "; ".join(f"{', '.join(methods[value])}: {value}" for value in others)
            texts.append(f"{axis} {usual} ({told})")
    return ", ".join(texts)


def labels(grid: Grid) -> Labels:
    """Find which axes vary over `grid` and name its cells accordingly; dense cells do not count for mask axes."""
    keys = {axis: _varying_keys(grid.cells, axis) for axis in _STRUCTURED}
    given = _options_by_method(grid.cells)
    options = {method: _varying(values) for method, values in given.items()}
    fixed = {method: _pairs(values[0], values[0].keys() - options[method]) for method, values in given.items()}
    varying, constant = [], {}
    for axis in AXES:
        if axis == "options":
            varying += [axis] if any(options.values()) else []
        elif axis in _STRUCTURED:
            if keys[axis]:
                varying.append(axis)
            elif shown := _constant(grid.cells, axis):
                constant[axis] = shown
        else:
            cells = [cell for cell in grid.cells if not (cell.dense and axis in _MASKED)]
            texts = list(dict.fromkeys(getattr(cell, axis) for cell in cells))
            if len(texts) > 1 or axis in ("method", "sparsity"):
                varying.append(axis)
            elif texts and texts[0] != LATER.get(axis):
                constant[axis] = texts[0]
    return Labels(
        tuple(varying), constant, keys, options, {method: text for method, text in fixed.items() if text},
        _within(grid.cells), share_heading(grid.cells), _both(grid.cells),
    )  # fmt: skip


def _within(cells: Iterable[Cell]) -> dict[str, frozenset[str]]:
    """Of every method, the axes of `_DEFAULTS` with more than one value."""
    values: dict[str, dict[str, set[str]]] = {}
    for cell in cells:
        for axis in _DEFAULTS:
            values.setdefault(cell.method, {}).setdefault(axis, set()).add(getattr(cell, axis))
    return {method: frozenset(axis for axis in of if len(of[axis]) > 1) for method, of in values.items()}


def _both(cells: Iterable[Cell]) -> frozenset[str]:
    """Methods that come with a value of their knob, and without one."""
    knobs: dict[str, set[bool]] = {}
    for cell in cells:
        knobs.setdefault(cell.method, set()).add(bool(cell.knob))
    return frozenset(method for method, found in knobs.items() if len(found) > 1)


def metric_name(cells: Iterable[Cell]) -> str:
    """What `test_accuracy` is for these cells: "accuracy", for detection "mAP"."""
    tasks = {facts.task for cell in cells if (facts := catalog.known(cell.dataset))}
    names = [name for task, name in _METRICS.items() if task in tasks]
    return " or ".join(names) or "accuracy"


def guess_text(cells: Iterable[Cell]) -> str:
    """What a diverged run counts as."""
    name = metric_name(cells)
    return {"mAP": "an mAP of 0", "accuracy": "a guess, 1 / classes"}.get(name, "a guess, 1 / classes (an mAP of 0)")


#: By task, what its primary metric is called.
_METRICS = {"classification": "accuracy", "detection": "mAP"}


def knob_text(cell: Cell) -> str:
    """What says how much is pruned, in place of a sparsity: 'rate=0.4'."""
    return f"{cell.knob}={cell.setting}"


def share_text(share: float) -> str:
    """A share that is a result: '0.412'."""
    return f"{share:.3f}"


def _varying_keys(cells: Iterable[Cell], axis: str) -> frozenset[str]:
    """Keys of a recipe or a filter basis whose values differ between cells for which the axis has a meaning."""
    return _varying([_flat(getattr(cell, axis)) for cell in cells if axis != "basis" or cell.space != "sp"])


def _options_by_method(cells: Iterable[Cell]) -> dict[str, list[dict[str, Any]]]:
    """The options of all cells of every method: two methods with different options do not make an axis of them."""
    found: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        if not cell.dense:
            found.setdefault(cell.method, []).append(_flat(cell.others))
    return found


def _varying(values: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """Keys whose values differ, or that some have and others have not."""
    keys = set[str]().union(*values)
    return frozenset(key for key in keys if len({json.dumps(value.get(key)) for value in values}) > 1)


def _constant(cells: Iterable[Cell], axis: str) -> str:
    """The text of a structured axis that does not vary: the main keys of a recipe, what is unusual about a basis."""
    values = next((_flat(getattr(cell, axis)) for cell in cells if axis != "basis" or cell.space == "ip"), {})
    keys = [key for key in values if (_tells(key, values[key]) if axis == "recipe" else values[key] != _USUAL.get(key))]
    return " ".join(f"{key}={_short(values[key])}" for key in sorted(keys))


def _tells(key: str, value: Any) -> bool:
    """Whether a caption names this of a recipe."""
    return key in _HEADLINE or (key in _UNUSUAL and value != _UNUSUAL[key])


def _pairs(values: Mapping[str, Any], keys: Collection[str]) -> str:
    """Some of the values, with their keys."""
    return ", ".join(f"{key}={_short(values[key])}" for key in sorted(values) if key in keys)


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
