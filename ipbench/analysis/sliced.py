"""What is left of nets whose channels were cut, as records tell it: multiply-accumulates, parameters, time, channels.

All are of finished runs of cells that are `Cell.cut`. A record of a run in which no channel was dead tells nothing of a
small net: it is the dense one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ipbench.analysis.cells import CellStatistics, cell_statistics

#: The columns of the runs that are read here; one of newer records may be absent.
COLUMNS = (
    "layers", "macs_dense", "macs_now", "macs_sliced", "parameters_dense", "parameters_now", "sliced", "cost_latency",
    "provenance_device", "provenance_cpu",
)  # fmt: skip


@dataclass(frozen=True)
class Latency:
    """The time of the small net against that of the dense one: both computed one batch, in turns, in one run.

    Attributes:
        where: what they ran on: device, threads, images of the batch; times of different ones never meet.
        ratio: seconds of the small net over seconds of the dense one.
    """

    where: str
    ratio: float


def macs_left(run: Mapping[str, Any]) -> float:
    """The share of the dense net's multiply-accumulates of one image; NaN where the record does not tell."""
    left = _first(run, "macs_now", "macs_sliced")
    return left / run["macs_dense"] if _known(run.get("macs_dense")) and run["macs_dense"] else math.nan


def parameters_left(run: Mapping[str, Any]) -> float:
    """The parameters of the small net, its FBs counted, masks inside it not; NaN where the record does not tell."""
    if _known(run.get("parameters_now")):
        return float(run["parameters_now"])
    whole = macs_left(run) == 1 and _known(run.get("parameters_dense"))
    return float(run["parameters_dense"]) if whole else math.nan


def latency(run: Mapping[str, Any]) -> Latency | None:
    """The time of a run's small net; None where nothing was cut, or measured."""
    if not isinstance(run.get("cost_latency"), str):
        return None
    told = json.loads(run["cost_latency"])
    names = [run.get("provenance_device"), run.get("provenance_cpu") if told["device"] == "cpu" else None]
    device = ", ".join(str(name) for name in names if isinstance(name, str)) or told["device"]
    threads = f"{told['threads']} thread{'' if told['threads'] == 1 else 's'}"
    where = f"{device}; {threads}; batches of {told['batch']}"
    return Latency(where, told["sliced"]["seconds"] / told["dense"]["seconds"])


def channels_left(run: Mapping[str, Any]) -> dict[str, float]:
    """The share of channels that is left of every layer, in the order of the net; empty if there are no layers."""
    names = [layer["name"] for layer in json.loads(run["layers"])] if isinstance(run.get("layers"), str) else []
    cut = json.loads(run["sliced"]) if isinstance(run.get("sliced"), str) else []
    shares = {layer["name"]: layer["kept"] / layer["channels"] for layer in cut}
    return {name: shares.get(name, 1.0) for name in names}


def share_statistics(values: Mapping[int, float]) -> CellStatistics:
    """Mean and interval of shares by seed."""
    return cell_statistics({seed: value for seed, value in values.items() if math.isfinite(value)}, 0.0, 1.0)


def ratio_statistics(values: Mapping[int, float]) -> CellStatistics:
    """Geometric mean of ratios by seed, with the interval of the mean logarithm."""
    found = cell_statistics({seed: math.log(value) for seed, value in values.items()})
    mean, lower, upper = (math.exp(value) for value in (found.mean, found.lower, found.upper))
    return CellStatistics(found.n, mean, math.nan, lower, upper, found.interval)


def _first(run: Mapping[str, Any], *names: str) -> float:
    return next((float(run[name]) for name in names if _known(run.get(name))), math.nan)


def _known(value: Any) -> bool:
    return not pd.isna(value)
