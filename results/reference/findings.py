"""Every number of docs/findings.md that stands in no table, from the published records.

python results/reference/findings.py
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from ipbench.analysis.cells import GAP, PRIMARY, metric_values
from ipbench.analysis.collect import Collection, load
from ipbench.analysis.comparisons import Finding, analyse, compare, differences, family

HERE = Path(__file__).parent


def main() -> None:
    """Print them: differences IP - SP in points with 95 % intervals over seeds, then shares, bases and ratios."""
    collection = load(HERE / "ip-fashion")
    for metric in (PRIMARY, "train_accuracy", GAP):
        averages(collection, metric)
    trends(collection)
    bases(collection.runs)
    ratios(collection.runs)


def averages(collection: Collection, metric: str) -> None:
    """Over the grid and by method: one family for each metric, single comparisons included."""
    found = analyse(collection, metric)
    print(f"{metric}: mean (95 % interval), adjusted p in a family of {found.members}")
    assert found.overall
    for name, one in [("all", found.overall), *((key[2], one) for key, one in found.methods.items())]:
        print(f"    {name:10} {text(one)}")


def text(found: Finding) -> str:
    """An average in points."""
    shown = found.comparison
    ends = f"({100 * shown.interval.lower:+.2f} to {100 * shown.interval.upper:+.2f})"
    signs = ", mixed signs" if found.several_signs else ""
    return f"{100 * shown.mean:+.2f} {ends}, p = {found.p_adjusted:.3f}, {found.verdict}{signs}"


def trends(collection: Collection) -> None:
    """What IP - SP gains from the lowest to the highest sparsity, method by method: a family of its own."""
    values = metric_values(collection.runs)
    rows: dict[str, dict[float, dict[int, float]]] = {}
    for row in collection.grid.rows():
        if row.compared:
            rows.setdefault(row.any.method, {})[float(row.any.sparsity)] = differences(row, values)
    gains: dict[str, Mapping[int, float]] = {}
    for method, by_rate in rows.items():
        low, high = by_rate[min(by_rate)], by_rate[max(by_rate)]
        gains[method] = {seed: high[seed] - low[seed] for seed in low.keys() & high.keys()}
    print(f"gain from the lowest to the highest sparsity: adjusted p in a family of {len(gains)}")
    for (method, by_seed), p in zip(gains.items(), family(gains.values()), strict=True):
        shown = compare(by_seed)
        ends = f"({100 * shown.interval.lower:+.2f} to {100 * shown.interval.upper:+.2f})"
        print(f"    {method:10} {100 * shown.mean:+.2f} {ends}, p = {p:.3f}")


def bases(runs: pd.DataFrame) -> None:
    """What is left of zeros, and what became of the filter bases."""
    ip = runs[runs["space"] == "ip"].copy()
    ip["drift"] = ip["basis_drift"].map(lambda text: np.mean(list(json.loads(text).values())))
    ip["condition"] = ip["basis_condition"].map(lambda text: np.exp(np.mean(np.log(list(json.loads(text).values())))))
    ip["largest"] = ip["basis_condition"].map(lambda text: max(json.loads(text).values()))
    columns = {"spatial_zeros_end": "mean", "drift": "mean", "condition": "mean", "largest": "max"}
    print(ip.groupby(["method", "sparsity"]).agg(columns).round(3).to_string())


def ratios(runs: pd.DataFrame) -> None:
    """Processor time and multiply-accumulates of IP over those of SP."""
    sides = runs.pivot_table(
        index=["method", "sparsity", "seed"],
        columns="space",
        values=["cost_cpu_seconds", "macs_sparse", "macs_sparse_two_stage"],
    )
    time = np.log(sides["cost_cpu_seconds"]["ip"] / sides["cost_cpu_seconds"]["sp"])
    shown = compare(time.groupby(level="seed").mean().to_dict())
    low, high = math.exp(shown.interval.lower), math.exp(shown.interval.upper)
    print(f"time IP / SP: {math.exp(shown.mean):.3f} ({low:.3f} to {high:.3f}), p = {shown.p:.3f}, no family")
    macs = sides["macs_sparse_two_stage"]["ip"] / sides["macs_sparse"]["sp"]
    print(macs.groupby(level=["sparsity", "method"]).mean().round(2).to_string())


if __name__ == "__main__":
    main()
