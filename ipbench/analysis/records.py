"""From a record's nested JSON to one flat row with checked types."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from ipbench.analysis.grid import Cell
from ipbench.spec import canonical_json

STATUSES = ("done", "diverged", "impossible")

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
    "numerics", "commit", "ipbench", "python", "torch", "torchvision", "numpy", "platform", "cpu", "device", "threads",
    "processes", "mode", "loader", "finished",
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
    """One flat row of a record.

    Structured values that are no curves become canonical JSON texts; provenance becomes text throughout.

    Args:
        record: as `store.read_json` returns it.
        cell: the planned cell it was found under; `pair` and `family` come from there.
        seed: the planned seed it was found under.

    Raises:
        ValueError: a key is missing, a value is of the wrong kind, or the record is of another run.
    """
    try:
        run, status = record["run"], record["status"]
        if record["cell"] != cell.id or run["seed"] != seed:
            raise ValueError(f"holds the run {record['cell']}/{run['seed']}")
        if status not in STATUSES:
            raise ValueError(f"status {status!r:.40} is none of {', '.join(STATUSES)}")
        flat: dict[str, Any] = {"id": record["id"], "cell": cell.id, "pair": cell.pair, "family": cell.family}
        flat |= {name: run[name] for name in ("dataset", "model", "method", "space", "off", "sparsity", "allocation")}
        flat |= {name: canonical_json(run[name]) for name in ("basis", "options", "recipe")}
        flat |= {"mode": run["mode"], "seed": seed, "status": status, "reason": record["reason"]}
        outcome = dict(record["outcome"] or {})
        flat |= {f"curves_{name}": curve for name, curve in outcome.pop("curves", {}).items()}
        flat |= outcome
        flat["outcome_sha256"] = record["outcome_sha256"]
        flat |= {f"activity_{name}": value for name, value in record.get("activity", {}).items()}
        flat |= {f"cost_{name}": value for name, value in (record["cost"] or {}).items()}
        flat |= {f"provenance_{name}": _as_text(value) for name, value in (record["provenance"] or {}).items()}
    except KeyError as error:
        raise ValueError(f"key {error} is missing") from None
    except (TypeError, AttributeError):
        raise ValueError("not a record") from None
    if status == "done" and not isinstance(flat.get("test_accuracy"), int | float):
        raise ValueError("done, but test_accuracy is not a number")
    return {name: _checked(name, value) for name, value in flat.items()}


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
    if not _number(value) or not math.isfinite(value) or (kind == _INT and value != int(value)):
        raise ValueError(f"{name} is not {'a whole' if kind == _INT else 'a'} number (got {value!r:.40})")
    return int(value) if kind == _INT else float(value)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _as_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else canonical_json(value)
