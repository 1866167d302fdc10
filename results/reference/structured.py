"""Numbers of docs/findings-structured.md that stand in no table, from the published records.

python results/reference/structured.py [RESULTS]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from ipbench.analysis.cells import metric_values
from ipbench.analysis.collect import Collection, load
from ipbench.analysis.comparisons import Comparison, compare, differences, family
from ipbench.analysis.grid import Cell
from ipbench.analysis.labels import Labels, labels

HERE = Path(__file__).parent
#: What methods are compared with, and the fewest paired seeds of a comparison.
BASELINE, LEAST = "random-filters", 6


def main() -> None:
    """Print them: IP - SP, methods against random filters, times of cut nets, FLOPs of trainings, filters zeroed."""
    collection = load(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "structured-fashion")
    spaces(collection)
    gains = over_random(collection)
    by_method(gains)
    runs = collection.runs[collection.runs["status"] == "done"]
    times(runs)
    flops(runs)
    zeroed(runs)


def spaces(collection: Collection) -> None:
    """IP - SP: pairs of runs in which IP is ahead, and the average over all complete comparisons."""
    values = metric_values(collection.runs)
    by_row = {row: differences(row, values) for row in collection.grid.rows() if row.compared}
    pairs = [value for by_seed in by_row.values() for value in by_seed.values()]
    ahead = sum(value > 0 for value in pairs)
    print(f"IP - SP: ahead in {ahead} of {len(pairs)} pairs of runs, {100 * np.mean(pairs):+.2f} points on average")
    whole = [by_seed for row, by_seed in by_row.items() if len(by_seed) == len(row.any.seeds)]
    if whole:
        shown = compare({seed: float(np.mean([by_seed[seed] for by_seed in whole])) for seed in whole[0]})
        print(f"  over {len(whole)} complete comparisons: {told(shown)}, p = {shown.p:.3f}")
    by_share: dict[str, list[Mapping[int, float]]] = {}
    for row, by_seed in by_row.items():
        if by_seed in whole:
            by_share.setdefault(row.any.sparsity, []).append(by_seed)
    for share, several in sorted(by_share.items()):
        shown = compare({seed: float(np.mean([by_seed[seed] for by_seed in several])) for seed in several[0]})
        print(f"  removed {share}: {told(shown)}, {len(several)} comparisons")


def told(shown: Comparison) -> str:
    """A mean in points with its interval of 95 %."""
    return f"{100 * shown.mean:+.2f} ({100 * shown.interval.lower:+.2f} to {100 * shown.interval.upper:+.2f})"


def name_of(cell: Cell, names: Labels) -> str:
    """A method with what tells its variant from others."""
    return ", ".join(filter(None, (cell.method, names.variant(cell))))


def over_random(collection: Collection) -> dict[tuple[str, str, str], dict[int, float]]:
    """Every method less random filters at the same share and in the same space, as one family of tests."""
    values, names = metric_values(collection.runs), labels(collection.grid)
    of = {(c.space, c.sparsity): c for c in collection.grid.cells if c.method == BASELINE}
    gains = {}
    for cell in collection.grid.cells:
        beside = of.get((cell.space, cell.sparsity))
        if beside is None or cell.method == BASELINE:
            continue
        by_seed = {
            seed: values[cell.id][seed] - values[beside.id][seed]
            for seed in cell.seeds
            if seed in values.get(cell.id, {}) and seed in values.get(beside.id, {})
        }
        if len(by_seed) >= LEAST:
            gains[name_of(cell, names), cell.space, cell.sparsity] = by_seed
    print(f"over {BASELINE}, in points: adjusted p in a family of {len(gains)}")
    for (key, by_seed), p in zip(gains.items(), family(gains.values()), strict=True):
        print(f"  {' '.join(key):44} {told(compare(by_seed))}, p = {p:.3f}")
    return gains


def by_method(gains: Mapping[tuple[str, str, str], Mapping[int, float]]) -> None:
    """The same, averaged over shares: one family of methods and spaces."""
    several: dict[tuple[str, str], list[Mapping[int, float]]] = {}
    for (method, space, _), by_seed in gains.items():
        several.setdefault((method, space), []).append(by_seed)
    means = {
        key: {seed: float(np.mean([one[seed] for one in found])) for seed in found[0]} for key, found in several.items()
    }
    print(f"averaged over shares: adjusted p in a family of {len(means)}")
    for (key, by_seed), p in zip(means.items(), family(means.values()), strict=True):
        print(f"  {' '.join(key):44} {told(compare(by_seed))}, p = {p:.3f}, {len(several[key])} shares")


def times(runs: pd.DataFrame) -> None:
    """Seconds of a batch, cut net over dense net, by share: the median over runs, and half of them."""
    timed = runs[runs["cost_latency"].notna()].copy()
    found = timed["cost_latency"].map(json.loads)
    timed["ratio"] = found.map(lambda one: one["sliced"]["seconds"] / one["dense"]["seconds"])
    print("time of the cut net / time of the dense net")
    for (share, space), some in timed.groupby(["sparsity", "space"]):
        low, middle, high = some["ratio"].quantile([0.25, 0.5, 0.75])
        print(f"  removed {share} {space}: median {middle:.2f}, half of them {low:.2f} to {high:.2f}, n = {len(some)}")


def flops(runs: pd.DataFrame) -> None:
    """FLOPs of all trainings of a run over those of the dense net's."""
    dense = runs[runs["method"] == "dense"].groupby("space")["training_flops"].mean()
    several = runs[runs["method"] != "dense"].copy()
    several["ratio"] = several["training_flops"] / several["space"].map(dense)
    table = several.groupby(["method", "options", "sparsity"])["ratio"].mean().unstack()
    print("FLOPs of all trainings / those of the dense net")
    for (method, options), row in table.iterrows():
        print(f"  {method:16} {options:70.70} {'  '.join(f'{share} {ratio:.2f}' for share, ratio in row.items())}")


def zeroed(runs: pd.DataFrame) -> None:
    """What the records of soft pruning say of filters that were zeroed."""
    noted = runs[runs["notes"].notna()].copy()
    noted["never"] = noted["notes"].map(lambda text: json.loads(text).get("filters_never_back"))
    print("filters that were zeroed before the first epoch and never came back: mean, least and most of runs")
    for (method, options, share), some in noted[noted["never"].notna()].groupby(["method", "options", "sparsity"]):
        never = some["never"].astype(float)
        print(
            f"  {method} {options} {share}: {never.mean():.1f}, {never.min():.0f} to {never.max():.0f}, n = {len(some)}"
        )


if __name__ == "__main__":
    main()
