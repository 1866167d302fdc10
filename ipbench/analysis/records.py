"""From a record's nested JSON to one flat row with checked types."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from ipbench.analysis.checks import check_values
from ipbench.analysis.grid import AXES, LATER, Cell
from ipbench.errors import BadInput
from ipbench.planning.numerics import numerics
from ipbench.spec import NAME, Run, build, canonical_json

_TEXT, _INT, _FLOAT, _LIST = pa.string(), pa.int64(), pa.float64(), pa.list_(pa.float64())

_IDENTITY = {
    "id": _TEXT, "cell": _TEXT, "pair": _TEXT, "dataset": _TEXT, "model": _TEXT, "method": _TEXT, "family": _TEXT,
    "space": _TEXT, "off": _TEXT, "sparsity": _TEXT, "allocation": _TEXT, "basis": _TEXT, "options": _TEXT,
    "recipe": _TEXT, "mode": _TEXT, "seed": _INT, "status": _TEXT, "reason": _TEXT,
}  # fmt: skip
_FLOATS = (
    "test_accuracy", "test_accuracy_selected", "test_loss", "validation_accuracy", "train_accuracy", "train_loss",
    "achieved_sparsity", "spatial_zeros_start", "spatial_zeros_end", "gradient_norm_start", "training_flops",
    "bytes_entropy",
)  # fmt: skip
_INTEGERS = (
    "selected_epoch", "coefficients_kept", "basis_entries", "prunable", "parameters", "parameters_dense", "macs_dense",
    "macs_sparse", "macs_sparse_two_stage", "bytes_values", "bytes_bitmask", "bytes_other",
)  # fmt: skip
_TEXTS = ("layers", "collapsed_layers", "basis_drift", "basis_condition", "masks_sha256", "weights_sha256")
_CURVES = ("train_loss", "validation_loss", "validation_accuracy", "gradient_norm")
_PROVENANCE = (
    "numerics", "data", "method", "commit", "ipbench", "python", "torch", "torchvision", "numpy", "platform", "cpu",
    "device", "threads", "processes", "mode", "loader", "finished",
)  # fmt: skip

#: The columns every collection has, in order, with their types; fields of newer records follow, sorted by name.
COLUMNS: dict[str, pa.DataType] = {
    **_IDENTITY,
    **dict.fromkeys(_FLOATS, _FLOAT),
    **dict.fromkeys(_INTEGERS, _INT),
    **dict.fromkeys(_TEXTS, _TEXT),
    **{f"curves_{name}": _LIST for name in _CURVES},
    "outcome_sha256": _TEXT,
    "cost_wall_seconds": _FLOAT,
    "cost_peak_memory_bytes": _FLOAT,
    **{f"provenance_{name}": _TEXT for name in _PROVENANCE},
}


def row(record: Mapping[str, Any], cell: Cell, seed: int) -> dict[str, Any]:
    """One flat row of a record, after everything in it that follows from something else was computed again.

    Structured values that are no curves become canonical JSON texts; provenance becomes text throughout.

    Args:
        record: as `store.read_json` returns it.
        cell: the planned cell it was found under; `pair` and `family` come from there.
        seed: the planned seed it was found under.

    Raises:
        ValueError: a key is missing, a value is of the wrong kind or cannot be right, or the record is of another run,
            of other numerics, or of other code.
    """
    try:
        _check_identity(record, cell, seed)
        _check_stale(record["provenance"], cell)
        return _flat(record, cell, seed)
    except KeyError as error:
        raise ValueError(f"key {error} is missing") from None
    except (TypeError, AttributeError, RecursionError, OverflowError):
        raise ValueError("not a record") from None


def _check_identity(record: Mapping[str, Any], cell: Cell, seed: int) -> None:
    """Whether the record is that of the planned run, by what its run is and not by what it is called."""
    try:
        run = build(Run, record["run"], "run")
    except BadInput as error:
        raise ValueError(str(error)) from None
    if run.cell != cell.id or run.seed != seed:
        raise ValueError(f"holds the run {run.cell}/{run.seed}")
    if (record["cell"], record["id"]) != (run.cell, run.id):
        raise ValueError(f"says that it is the run {record['cell']!r:.20}, {record['id']!r:.20}, and holds {run.id}")
    if record["outcome_sha256"] != hashlib.sha256(canonical_json(record["outcome"]).encode()).hexdigest():
        raise ValueError("its outcome is not the one that outcome_sha256 was computed from, it was altered")


def _check_stale(provenance: Mapping[str, Any], cell: Cell) -> None:
    """Whether the record was computed by what is here now."""
    if provenance["numerics"] != (now := numerics(cell.run(cell.seeds[0]))):
        raise ValueError(f"stale: made with numerics {provenance['numerics']!r:.20}; this version has {now}")
    if cell.code is not None and provenance.get("method") != cell.code:
        raise ValueError(
            f"stale: made by other code of method {cell.method} than the one that the grid was planned with"
        )
    if provenance.get("mode", cell.mode) != cell.mode:
        raise ValueError(f"made in mode {provenance['mode']!r:.20}, its run is of mode {cell.mode}")


def _flat(record: Mapping[str, Any], cell: Cell, seed: int) -> dict[str, Any]:
    flat: dict[str, Any] = {name: getattr(cell, name) for name in AXES if getattr(cell, name) != LATER.get(name)}
    flat |= {"id": record["id"], "cell": cell.id, "seed": seed, "status": record["status"], "reason": record["reason"]}
    flat["outcome_sha256"] = record["outcome_sha256"]
    outcome = dict(record["outcome"])
    parts = {
        "curves_": outcome.pop("curves", {}),
        "activity_": record.get("activity", {}),
        "effective_": record.get("effective", {}),
        "cost_": record["cost"],
        "provenance_": record["provenance"],
    }
    for name, value in outcome.items():
        if name in flat or name.startswith(tuple(parts)):
            raise ValueError(f"its outcome has the key {name!r:.40}, which is not one of an outcome")
        flat[name] = value
    for prefix, values in parts.items():
        as_text = _as_text if prefix == "provenance_" else (lambda value: value)
        flat |= {f"{prefix}{name}": as_text(value) for name, value in values.items()}
    if odd := [name for name in flat if not NAME.fullmatch(name)]:
        raise ValueError(f"{odd[0]!r:.40} is not the name of a value")
    checked = {name: _checked(name, value) for name, value in flat.items()}
    check_values(checked)
    return checked


def is_outcome(name: str) -> bool:
    """Whether a column is of what a training computes: neither of the run's name, nor of where and when.

    What follows from the masks, which are compared, and is not in every record is not among them either.
    """
    return name not in _NAMES and not name.startswith(("cost_", "effective_", "provenance_"))


_NAMES = {*_IDENTITY, *LATER} - {"status", "reason"}


def column_type(name: str, values: list[Any]) -> pa.DataType:
    """The type of a column: the declared one, or for a field this version does not know, what its values suggest."""
    if name in COLUMNS:
        return COLUMNS[name]
    kinds = {type(value) for value in values if value is not None}
    if kinds == {list}:
        return _LIST
    return _FLOAT if kinds and kinds <= {int, float, bool} else _TEXT


def _checked(name: str, value: Any) -> Any:
    """`value` as the type of its column wants it."""
    kind = COLUMNS.get(name)
    if value is None:
        return None
    if name.startswith("curves_"):
        if not isinstance(value, list) or not all(item is None or _number(item) for item in value):
            raise ValueError(f"{name} is not a list of numbers")
        return [None if item is None else float(item) for item in value]
    if kind == _TEXT or (kind is None and not _number(value)):
        return _as_text(value)
    if not _number(value) or (kind == _INT and (value != int(value) or abs(value) >= 2**63)):
        raise ValueError(f"{name} is not {'a whole' if kind == _INT else 'a'} number (got {value!r:.40})")
    return int(value) if kind == _INT else float(value)


def _number(value: object) -> bool:
    """Whether a value is a number that is finite as a float."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**1000


def _as_text(value: Any) -> str | None:
    text = value if value is None or isinstance(value, str) else canonical_json(value)
    if text is not None and not text.isascii():
        text.encode()  # a text that is none, half of a character say
    return text
