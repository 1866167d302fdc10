"""The shares of a dense net that runs have kept: of its coefficients, of its MACs, of what is connected."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from ipbench.analysis.twins import EFFECTIVE, MACS, PARAMETERS

#: By measure, then by cell: the mean share that is kept, over all finished runs.
Shares = Mapping[str, Mapping[str, float]]


def shares(runs: pd.DataFrame) -> Shares:
    """What the finished runs of every cell have kept of the dense net's numbers.

    Coefficients with the entries of trained FBs, of all prunable weights. MACs of sparse layers; in `ip` those of two
    stages, the filter basis first. Effective coefficients, with the FBs, where every finished run of the cell tells
    them.
    """
    done = runs[runs["status"] == "done"]
    numbers = {
        name: pd.to_numeric(done[name]).astype("Float64").to_numpy(float, na_value=math.nan)
        for name in ("achieved_sparsity", "macs_dense", "macs_sparse", "macs_sparse_two_stage", "effective_sparsity")
        if name in done
    }
    in_ip = (done["space"] == "ip").to_numpy(bool)
    macs = np.where(in_ip, numbers["macs_sparse_two_stage"], numbers["macs_sparse"])
    found = {PARAMETERS: 1 - numbers["achieved_sparsity"], MACS: macs / numbers["macs_dense"]}
    if "effective_sparsity" in numbers:
        found[EFFECTIVE] = 1 - numbers["effective_sparsity"]
    return {
        measure: {
            str(cell): mean
            for cell, mean in pd.Series(values, done.index).groupby(done["cell"]).agg(_mean_of_all).items()
            if math.isfinite(mean)
        }
        for measure, values in found.items()
    }


def _mean_of_all(values: pd.Series[float]) -> float:
    """The mean; NaN where one is missing."""
    return float(values.mean(skipna=False))
