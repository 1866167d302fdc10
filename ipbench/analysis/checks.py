"""Whether the values of a row can be right: ranges, and what follows from something else in the row."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ipbench import methods
from ipbench.methods import Train
from ipbench.spec import NO_CONTROL

STATUSES = ("done", "diverged", "impossible")

#: A run that is done has all of these.
_NEEDED = ("test_accuracy", "test_accuracy_selected", "test_loss", "train_accuracy", "train_loss", "achieved_sparsity",
           "coefficients_kept", "basis_entries", "prunable", "parameters", "parameters_dense", "layers")  # fmt: skip
_SHARES = ("test_accuracy", "test_accuracy_selected", "validation_accuracy", "train_accuracy", "spatial_zeros_start",
           "spatial_zeros_end", "asked")  # fmt: skip
#: None of these is below zero.
_AMOUNTS = ("test_loss", "train_loss", "gradient_norm_start", "training_flops", "selected_epoch", "coefficients_kept",
            "basis_entries", "prunable", "parameters", "parameters_dense", "macs_dense", "macs_sparse",
            "macs_sparse_two_stage", "macs_sliced", "macs_sliced_two_stage", "parameters_sliced",
            "macs_now", "parameters_now",
            "bytes_values", "bytes_bitmask", "bytes_entropy", "bytes_other",
            "cost_wall_seconds", "cost_cpu_seconds", "cost_peak_memory_bytes")  # fmt: skip


def check_values(row: Mapping[str, Any]) -> None:
    """Check a flat row, whose types are those of `records.COLUMNS`.

    Raises:
        ValueError: a value is missing or out of its range, or two of them contradict each other.
    """
    status = row["status"]
    if status not in STATUSES:
        raise ValueError(f"status {status!r:.40} is none of {', '.join(STATUSES)}")
    if status == "impossible":
        if row.get("test_accuracy") is not None or row.get("layers") is not None:
            raise ValueError("impossible, and yet it has an outcome")
        return
    if status == "done" and (lacking := [name for name in _NEEDED if row.get(name) is None]):
        raise ValueError(f"done, but {lacking[0]} is not there")
    for name in _SHARES:
        _check_range(name, [row.get(name)], 1.0)
    for name in _AMOUNTS:
        _check_range(name, [row.get(name)])
    _check_layers(row)
    _check_effective(row)
    _check_sliced(row)
    _check_latency(row)
    _check_curves(row)


def _check_range(name: str, values: Sequence[float | None], most: float = math.inf) -> None:
    for value in values:
        if value is not None and not 0 <= value <= most:
            raise ValueError(f"{name} is {value:g}, which is not {'0 or more' if most == math.inf else 'from 0 to 1'}")


def _check_layers(row: Mapping[str, Any]) -> None:
    """The counts of a net are sums over its layers, and its sparsity follows from them."""
    if row.get("layers") is None:
        return
    layers = json.loads(row["layers"])
    try:
        sizes = {layer["name"]: (layer["shape"], layer["size"], layer["kept"]) for layer in layers}
        whole = all(
            type(number) is int and number >= 0 for shape, *counts in sizes.values() for number in (*shape, *counts)
        )
        fit = whole and all(math.prod(shape) == size and kept <= size for shape, size, kept in sizes.values())
        empty = [name for name, (_, _, kept) in sizes.items() if kept == 0]
    except (TypeError, KeyError, ValueError):
        raise ValueError("layers is not a list of layers") from None
    if not fit or len(sizes) < len(layers):
        raise ValueError("layers: a size is not that of its shape, more is kept than there is, or a name comes twice")
    kept, basis, prunable = row["coefficients_kept"], row["basis_entries"], row["prunable"]
    if sum(kept for _, _, kept in sizes.values()) != kept:
        raise ValueError(f"coefficients_kept is {kept}, which is not the sum over its layers")
    if row.get("collapsed_layers") is not None and json.loads(row["collapsed_layers"]) != empty:
        raise ValueError("collapsed_layers does not name the layers of which nothing is kept")
    if not prunable or not math.isclose(row["achieved_sparsity"], 1 - (kept + basis) / prunable, abs_tol=1e-9):
        raise ValueError(f"achieved_sparsity is {row['achieved_sparsity']!r}, which does not follow from what is kept")
    if row["parameters"] - kept - basis != row["parameters_dense"] - prunable:
        raise ValueError("parameters does not follow from what is kept")


def _check_effective(row: Mapping[str, Any]) -> None:
    """Effective coefficients are kept ones, as many as their layers have; their sparsity follows from them."""
    if row.get("effective_coefficients") is None:
        return
    total, kept = row["effective_coefficients"], {entry["name"]: entry["kept"] for entry in json.loads(row["layers"])}
    try:
        fewer = dict(json.loads(row["effective_layers"]))
        fit = all(type(number) is int and 0 <= number < kept[name] for name, number in fewer.items())
    except (TypeError, KeyError, ValueError):
        raise ValueError("effective_layers is not a count by layer") from None
    if not fit or sum({**kept, **fewer}.values()) != total:
        raise ValueError("effective_layers: more is effective than is kept, or it is not the total that is told")
    sparsity, wanted = row.get("effective_sparsity"), 1 - (total + row["basis_entries"]) / row["prunable"]
    if sparsity is None or not math.isclose(sparsity, wanted, abs_tol=1e-9):
        raise ValueError(f"effective_sparsity is {sparsity!r}, which does not follow from what is effective")
    for name, kept_macs in (("effective_macs", "macs_sparse"), ("effective_macs_two_stage", "macs_sparse_two_stage")):
        number, most = row.get(name), row.get(kept_macs)
        if number is not None and most is not None and not 0 <= number <= most:
            raise ValueError(f"{name} is {number:g}, and {most:g} those of all that is kept")


def _check_sliced(row: Mapping[str, Any]) -> None:
    """Layers whose channels were cut are layers of the net, and some of their channels are left."""
    if row.get("sliced") is None:
        return
    try:
        names = {layer["name"] for layer in json.loads(row["layers"])}
        cut = [(layer["name"], layer["channels"], layer["kept"]) for layer in json.loads(row["sliced"])]
        fit = all(
            name in names and type(number) is type(kept) is int and 0 < kept < number for name, number, kept in cut
        )
    except (TypeError, KeyError, ValueError):
        raise ValueError("sliced is not a list of layers") from None
    if not fit or len({name for name, _, _ in cut}) < len(cut):
        raise ValueError("sliced: a layer is none of the net, comes twice, or keeps all of its channels, or none")


def _check_latency(row: Mapping[str, Any]) -> None:
    """Seconds of two nets that can be divided, and what they were measured on."""
    if row.get("cost_latency") is None:
        return
    try:
        told = json.loads(row["cost_latency"])
        times = [told[net]["seconds"] for net in ("dense", "sliced")]
        fit = all(0 < seconds < math.inf for seconds in times) and isinstance(told["device"], str)
        fit = fit and type(told["threads"]) is type(told["batch"]) is int
    except (TypeError, KeyError, ValueError):
        raise ValueError("cost_latency is not the time of two nets") from None
    if not fit:
        raise ValueError("cost_latency: seconds above zero, and the device, threads and batch of them, are needed")


def _check_curves(row: Mapping[str, Any]) -> None:
    """Curves have one number per epoch of the last training."""
    curves = {name.removeprefix("curves_"): row[name] for name in row if name.startswith("curves_")}
    curves = {name: curve for name, curve in curves.items() if curve is not None}
    if len({len(curve) for curve in curves.values()}) > 1:
        raise ValueError("curves differ in their numbers of epochs")
    for name, curve in curves.items():
        _check_range(f"curve {name}", curve, 1.0 if name.endswith("accuracy") else math.inf)
    if row["status"] != "done" or not curves.get("train_loss"):
        return
    if None in curves["train_loss"]:
        raise ValueError("done, but a training loss is not a number")
    total, trained = _epochs(row), len(curves["train_loss"])
    last = curves["epoch"][-1] if "epoch" in curves else trained
    if total is not None and last != total:
        raise ValueError(f"curves end at epoch {last:g}, its training at epoch {total}")


def _epochs(row: Mapping[str, Any]) -> int | None:
    """Of the last training of a run; None where that is not known here."""
    known = methods.methods().get(row["method"])
    if known is None:
        return None
    try:
        stages = methods.controlled(known.stages(json.loads(row["options"])), row.get("control") or NO_CONTROL)
    except Exception as error:  # whatever a method says to options that it does not have
        raise ValueError(f"options: {' '.join(str(error).split()):.100}") from None
    trainings = [stage for stage in stages if isinstance(stage, Train)]
    if not trainings:
        return None
    last = trainings[-1]
    if last.length:  # that of the method's run, which the run has written down
        return _of_the_methods_run(row)
    if last.until == "done" or last.steps:  # nothing is known here of how long that is
        return None
    return last.epochs or int(last.recipe.get("epochs") or json.loads(row["recipe"])["epochs"])


def _of_the_methods_run(row: Mapping[str, Any]) -> int:
    """The epochs of a control that trains for as long as the method's run, or with as much compute."""
    try:
        epochs = json.loads(row["taken"])["epochs"]
    except (KeyError, TypeError, ValueError):
        epochs = None
    if type(epochs) is not int or epochs < 1:
        raise ValueError(f"control {row['control']}: taken does not tell how many epochs it was trained for")
    return epochs
