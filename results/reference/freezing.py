"""Numbers of docs/findings.md on FreezeNet and COPS that stand in no table, from the published records.

python results/reference/freezing.py
"""

from __future__ import annotations

import json
from math import isnan
from pathlib import Path

import pandas as pd

from ipbench.analysis.collect import load
from ipbench.analysis.comparisons import compare, family
from ipbench.analysis.flips import ALPHA
from ipbench.analysis.statistics import mean_interval

HERE = Path(__file__).parent


def main() -> None:
    """Print them: shares of the dense accuracy, differences between methods, what a stored net takes."""
    print("MNIST")
    accuracy = accuracies(load(HERE / "freezenet-mnist").runs)
    shares(accuracy)
    differences(accuracy)
    print("Fashion-MNIST")
    runs = load(HERE / "freezenet-fashion").runs
    runs = runs[runs["status"] == "done"]
    accuracy = accuracies(runs)
    shares(accuracy)
    differences(accuracy)
    storage(runs)
    runs = load(HERE / "freezenet-fashion-init").runs
    ablations(runs[runs["status"] == "done"])


def accuracies(runs: pd.DataFrame) -> pd.DataFrame:
    """Test accuracy by model, method and sparsity, and by seed."""
    done = runs[runs["status"] == "done"]
    return done.pivot_table(index=["model", "method", "sparsity"], columns="seed", values="test_accuracy")


def shares(accuracy: pd.DataFrame) -> None:
    """Test accuracy as a share of the dense net's of the same seed."""
    print("share of the dense accuracy of the same seed, in per cent: mean (95 % interval, Student's t), n")
    for model, group in accuracy.groupby(level="model"):
        dense = group.loc[(model, "dense", "0")]
        for (_, method, sparsity), values in group.drop("dense", level="method").iterrows():
            share = (100 * values / dense).dropna()
            interval = mean_interval(share, least=0)
            ends = "no interval" if isnan(interval.lower) else f"{interval.lower:.2f} to {interval.upper:.2f}"
            print(f"  {model:14} {method:10} {sparsity:6} {share.mean():7.2f} ({ends}), {len(share)}")


def differences(accuracy: pd.DataFrame) -> None:
    """Points between two methods, paired by seed: per rate, and averaged over the rates with a test."""
    others = ["snip", "grasp", "synflow", "cops"]
    pairs = [("freezenet", other) for other in others] + [("cops", other) for other in ("snip", "synflow", "grasp")]
    averages = {}
    rates = accuracy.drop("dense", level="method").index.unique("sparsity")
    print("difference in points, paired by seed: mean (95 % interval), n")
    for model, group in accuracy.groupby(level="model"):
        there = set(group.index.unique("method"))
        for one, other in (pair for pair in pairs if there.issuperset(pair)):
            by_rate = 100 * (accuracy.loc[(model, one)] - accuracy.loc[(model, other)])
            for sparsity, values in by_rate.iterrows():
                if values.notna().any():
                    print(f"  {model:14} {one} - {other:8} {sparsity:6} {said(values.dropna())}")
            whole = by_rate.dropna(axis=1)  # seeds of which all rates are in
            # With too few seeds, or before all rates are in, it is no member of a family.
            if len(whole) == len(rates) and not isnan(compare(whole.mean().to_dict()).interval.lower):
                averages[f"{model:14} {one} - {other:8} all   "] = whole
    tested(averages)


def tested(averages: dict[str, pd.DataFrame]) -> None:
    """Print averages over the rates, one family for all of them.

    Many share one side (FreezeNet): a flip is then no exchange of two methods, and the test assumes symmetry.
    """
    p_values = family([by_rate.mean().to_dict() for by_rate in averages.values()])
    for (name, by_rate), p in zip(averages.items(), p_values, strict=True):
        means = by_rate.mean(axis=1)
        narrow = compare(by_rate.mean().to_dict()).narrow
        more = ", mixed signs" if means.min() < 0 < means.max() else ""
        more += ", within ±0.5" if p > ALPHA and narrow.lower >= -0.5 and narrow.upper <= 0.5 else ""
        print(f"  {name} {said(by_rate.mean())}, adjusted p = {p:.3f} in a family of {len(averages)}{more}")


def said(values: pd.Series) -> str:
    """Mean, interval (inversion of the sign-flip test) and number of paired differences by seed."""
    found = compare(values.to_dict())
    ends = f"{found.interval.lower:+.2f} to {found.interval.upper:+.2f}"
    return f"{found.mean:+7.2f} ({'no interval' if isnan(found.interval.lower) else ends}), {found.n}"


def storage(runs: pd.DataFrame) -> None:
    """How many times fewer numbers, and bytes, a frozen net takes than a dense one in float32."""
    print("FreezeNet stored: parameters, times fewer; bytes with an ideally coded mask, times fewer")
    frozen = runs[runs["method"] == "freezenet"].groupby(["model", "sparsity"]).first()
    for (model, sparsity), row in frozen.iterrows():
        size = row["bytes_values"] + row["bytes_entropy"] + row["bytes_other"]
        print(
            f"  {model:14} {sparsity:6} {row['parameters']:8.0f} {row['parameters_dense'] / row['parameters']:7.1f}"
            f" {size:9.0f} {4 * row['parameters_dense'] / size:7.1f}"
        )


def ablations(runs: pd.DataFrame) -> None:
    """By initialisation and rate: shares of the dense accuracy, and what freezing, and its decay, change."""
    init = runs["recipe"].map(lambda text: json.loads(text)["init"])
    net = runs["method"] + runs["off"].map({"decayed": " decayed"}).fillna("")
    accuracy = 100 * runs.assign(init=init, net=net).pivot_table("test_accuracy", ["init", "net", "sparsity"], "seed")
    print("ablations: test accuracy; share of the dense accuracy of the same seed and initialisation: mean (95 %), n")
    for (start, name, sparsity), values in accuracy.iterrows():
        share = (100 * values / accuracy.loc[(start, "dense", "0")]).to_numpy()
        interval = mean_interval(share, least=0)
        print(
            f"  {start:16} {name:18} {sparsity:6} {values.mean():6.2f}; {share.mean():6.2f}"
            f" ({interval.lower:.2f} to {interval.upper:.2f}), {len(share)}"
        )
    print("ablations: coefficients that SNIP keeps in the first layer: fewest to most, n")
    first = runs["layers"].map(lambda text: json.loads(text)[0]["kept"])
    for (start, sparsity), kept in first[runs["method"] == "snip"].groupby([init, runs["sparsity"]]):
        print(f"  {start:16} {sparsity:6} {kept.min()} to {kept.max()}, {len(kept)}")
    print("ablations: difference in points, paired by seed: mean (95 % interval), n")
    starts = accuracy.index.unique("init")
    pairs = [((start, "freezenet"), (start, "snip")) for start in starts]
    pairs += [((start, "freezenet decayed"), (start, "freezenet")) for start in starts]
    pairs += [((start, "freezenet"), ("xavier_normal", "freezenet")) for start in starts if start != "xavier_normal"]
    averages = {}
    for one, other in pairs:
        by_rate = accuracy.loc[one] - accuracy.loc[other]
        name = f"{', '.join(one)} - {', '.join(other)}"
        for sparsity, values in by_rate.iterrows():
            print(f"  {name:62} {sparsity:6} {said(values)}")
        averages[f"{name:62} all   "] = by_rate
    tested(averages)


if __name__ == "__main__":
    main()
