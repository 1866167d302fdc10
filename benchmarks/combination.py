"""How long the linear program of COPS takes: against torch.topk, against HiGHS, and how it grows.

    python benchmarks/combination.py [--out docs/figures/combination]

Processor time of this process with one thread, the median of several calls; every ratio is of one run of this file.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import linprog

from ipbench.machine.provenance import provenance
from ipbench.methods._combination import combine

SIZES = (10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 15_000_000)
#: What the issue of this benchmark asks for.
MOST_TOPK, MOST_EXPONENT, LEAST_HIGHS = 5, 1.1, 300


def median_time(function: Callable[[], object], calls: int) -> float:
    """Seconds of processor time of one call."""
    times = []
    for _ in range(calls):
        begin = time.process_time()
        function()
        times.append(time.process_time() - begin)
    return float(np.median(times))


def scores(d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A target and a control that agree in part, with the long tails of saliencies."""
    rng = np.random.default_rng(seed)
    target = rng.exponential(size=d) ** 2
    return target, rng.exponential(size=d) * (0.5 + target) ** 0.3


def highs(target: np.ndarray, control: np.ndarray, keep: int, beta: float) -> float:
    """The optimum by scipy's HiGHS, on the whole program."""
    bound = beta * np.sort(control)[-keep:].sum()
    ones = np.ones((1, len(target)))
    result = linprog(-target, A_ub=-control[None], b_ub=[-bound], A_eq=ones, b_eq=[keep], bounds=(0, 1), method="highs")
    return float(-result.fun)


def measure() -> dict[str, object]:
    """All timings, a twentieth of the weights kept, beta 0.9."""
    torch.set_num_threads(1)
    rows = []
    for d in SIZES:
        target, control = scores(d)
        keep, calls = d // 20, 5 if d >= 1_000_000 else 25
        found = combine(target, [control], keep, [0.9])
        assert found.active == (True,) and found.retained[0] >= found.required[0]
        tensor, short = torch.from_numpy(target), torch.from_numpy(target).float()
        row = {
            "d": d,
            "seconds": median_time(lambda s=target, c=control, k=keep: combine(s, [c], k, [0.9]), calls),
            "topk": median_time(lambda t=tensor, k=keep: torch.topk(t, k), calls),
            "topk_float32": median_time(lambda t=short, k=keep: torch.topk(t, k), calls),
            "selections": found.selections,
            "calls": calls,
        }
        if d <= 100_000:
            begin = time.process_time()
            optimum = highs(target, control, keep, 0.9)
            row["highs"] = time.process_time() - begin
            row["difference"] = abs(optimum - found.lp_value) / optimum
        rows.append(row)
        print({name: f"{value:.3g}" for name, value in row.items()}, flush=True)
    logs = np.log([[row["d"], row["seconds"]] for row in rows])
    exponent = float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])
    return {"rows": rows, "exponent": exponent, "provenance": provenance("cpu")}


def draw(result: dict[str, object], path: Path) -> None:
    """Time against size on logarithmic axes, as SVG."""
    from ipbench.analysis import style

    with style.styled():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(4.2, 2.8), layout="constrained")
        axes = figure.add_subplot()
        rows = result["rows"]
        for name, label, marker in (("seconds", "combine", "o"), ("topk", "torch.topk", "s"), ("highs", "HiGHS", "^")):
            points = [(row["d"], row[name]) for row in rows if name in row]
            axes.loglog(*zip(*points, strict=True), marker=marker, label=label)
        axes.set_xlabel("weights")
        axes.set_ylabel("seconds of one core")
        axes.legend(frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        style.save(figure, path.with_suffix(".svg"))


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write OUT.json and OUT.svg")
    arguments = parser.parse_args()
    result = measure()
    last, middle = result["rows"][-1], next(row for row in result["rows"] if row["d"] == 100_000)
    print(f"{last['d']:,} weights: {last['seconds'] / last['topk']:.1f} times torch.topk (at most {MOST_TOPK})")
    print(f"100,000 weights: {middle['highs'] / middle['seconds']:.0f} times as fast as HiGHS (at least {LEAST_HIGHS})")
    print(f"growth: time ~ d^{result['exponent']:.2f} (at most {MOST_EXPONENT})")
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
        draw(result, arguments.out)


if __name__ == "__main__":
    main()
