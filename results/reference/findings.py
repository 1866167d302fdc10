"""Every number of docs/findings.md that stands in no table, from the published records.

python results/reference/findings.py
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ipbench.analysis.collect import load
from ipbench.analysis.comparisons import GAP, PRIMARY, by_method, overall

HERE = Path(__file__).parent


def main() -> None:
    """Print them: differences IP - SP in points with 95 % intervals over seeds, then shares, bases and ratios."""
    collection = load(HERE / "ip-fashion")
    runs = collection.runs
    for metric in (PRIMARY, "train_accuracy", GAP):
        found = overall(collection, metric).comparison
        print(
            f"{metric}: {100 * found.mean:+.2f} ({100 * found.lower:+.2f} to {100 * found.upper:+.2f}), n = {found.n}"
        )
        for row in by_method(collection, metric).to_dict("records"):
            interval = f"({100 * row['lower']:+.2f} to {100 * row['upper']:+.2f})"
            print(f"    {row['method']:10} {100 * row['mean']:+.2f} {interval}")
    ip = runs[runs["space"] == "ip"].copy()
    ip["drift"] = ip["basis_drift"].map(lambda text: np.mean(list(json.loads(text).values())))
    ip["condition"] = ip["basis_condition"].map(lambda text: np.exp(np.mean(np.log(list(json.loads(text).values())))))
    ip["largest"] = ip["basis_condition"].map(lambda text: max(json.loads(text).values()))
    columns = {"spatial_zeros_end": "mean", "drift": "mean", "condition": "mean", "largest": "max"}
    print(ip.groupby(["method", "sparsity"]).agg(columns).round(3).to_string())
    sides = runs.pivot_table(
        index=["method", "sparsity", "seed"],
        columns="space",
        values=["cost_cpu_seconds", "macs_sparse", "macs_sparse_two_stage"],
    )
    time = np.log(sides["cost_cpu_seconds"]["ip"] / sides["cost_cpu_seconds"]["sp"])
    by_seed = time.groupby(level="seed").mean()
    print(
        f"time IP / SP: {np.exp(by_seed.mean()):.3f}, seeds {np.exp(by_seed.min()):.3f} to {np.exp(by_seed.max()):.3f}"
    )
    macs = sides["macs_sparse_two_stage"]["ip"] / sides["macs_sparse"]["sp"]
    print(macs.groupby(level=["sparsity", "method"]).mean().round(2).to_string())


if __name__ == "__main__":
    main()
