"""How long Snakemake takes to plan an experiment of thousands of runs, and how that grows.

    python benchmarks/graph.py [--out docs/figures/graph] [--most 100000]

Real calls of `snakemake`, each in a fresh process, with profiles/local as it is: six seeds share a job. Nothing is
trained. `plan`: a dry run of an experiment of which nothing is there. `nothing to do`: a call when all of it is there.
That is faked: an empty file stands for every product, and `snakemake --touch` (without its pauses) takes them for made,
with dates in order and the metadata that Snakemake keeps of finished jobs.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml

from ipbench.analysis.plan import plan, plan_tables
from ipbench.machine.provenance import provenance
from ipbench.models.catalog import MODELS
from ipbench.planning.experiment import Experiment

ROOT = Path(__file__).parent.parent
SIZES = (1_000, 10_000, 30_000, 100_000)
#: What is asked for: seconds at most, by runs; and of memory, in bytes. Growth is that of the time beyond 10,000 runs.
MOST_SECONDS, MOST_MEMORY, MOST_EXPONENT = {10_000: 5, 100_000: 60}, 2e9, 1.1
DATASETS = ("digits", "fashion-mnist", "mnist", "cifar10", "cifar100", "tiny-imagenet")
METHODS = ("dense", "random", "magnitude", "snip", "grasp", "synflow", "gmp", "set", "rigl", "ft")
SPARSITIES = [str(round(1 - 0.7**step, 6)) for step in range(1, 11)]
ALLOCATIONS = ("global", "erk")
KINDS = {"plan": ["--dry-run"], "nothing to do": []}
TOUCH = "import snakemake.executors.touch as t; t.Executor.SLEEPING_TIME = 0; from snakemake.cli import main; main()"


def experiment(runs: int) -> dict[str, object]:
    """An experiment of at least so many runs: the more, the more nets, so that tables and figures grow as well.

    Only the largest needs a second allocation. Our own models alone: to check other names takes torchvision's import.
    """
    for allocations in (1, 2):
        # Six seeds in two spaces, of nine methods at ten sparsities and of the dense net.
        nets = math.ceil(runs / (6 * 2 * ((len(METHODS) - 1) * len(SPARSITIES) * allocations + 1)))
        if nets <= len(DATASETS) * len(MODELS):
            break
    datasets = next(count for count in range(1, len(DATASETS) + 1) if nets / count <= min(2 * count + 3, len(MODELS)))
    return {
        "datasets": list(DATASETS[:datasets]),
        "models": list(MODELS)[: math.ceil(nets / datasets)],
        "methods": list(METHODS),
        "sparsities": SPARSITIES,
        "allocations": list(ALLOCATIONS[:allocations]),
    }


def checkout(folder: Path, runs: int) -> Experiment:
    """The workflow and the experiment, alone in a folder."""
    for name in ("Snakefile", "workflow", "profiles"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, folder / name)
    path = folder / "config/graph.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(experiment(runs)))
    return Experiment.load(path)


def fake(folder: Path, planned: Experiment) -> None:
    """Let Snakemake believe that everything is made."""
    results = folder / "results/graph"
    names = ["grid.json", "runs.parquet", "report.html", *plan_tables(planned.grid())]
    names += [figure.path for figure in plan(planned.grid())] + [job.path for job in planned.jobs()]
    names += [f"runs/{run.cell}/{run.seed}.json" for job in planned.jobs() for run in job.runs]
    for path in [results / name for name in names] + [folder / f"data/{name}.fetched" for name in planned.datasets]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    snakemake(folder, "--touch", "--forceall", start=["-c", TOUCH])


def snakemake(folder: Path, *words: str, start: list[str] | None = None) -> dict[str, float]:
    """Seconds of the clock and of the processor, and the peak memory, of one call."""
    command = [sys.executable, *(start or ["-m", "snakemake"]), "--profile", "profiles/local"]
    command += ["--configfile", "config/graph.yaml", "--quiet", "all", *words]
    with tempfile.TemporaryFile() as said:
        begin = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(said.read().decode())
    return {"seconds": seconds, "cpu_seconds": used.ru_utime + used.ru_stime, "memory": 1024.0 * used.ru_maxrss}


def measure(sizes: list[int]) -> dict[str, object]:
    """All timings; the larger the experiment, the fewer of them."""
    rows = []
    for size in sizes:
        calls = 7 if size <= 10_000 else 3
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            planned = checkout(folder, size)
            for kind, words in KINDS.items():
                if kind == "nothing to do":
                    fake(folder, planned)
                found = [snakemake(folder, *words) for _ in range(calls)]
                row: dict[str, object] = {
                    "kind": kind,
                    "runs": len(planned.cells) * len(planned.axes.seeds),
                    "jobs": len(planned.jobs()),
                    "figures": len(plan(planned.grid())),
                    "n": calls,
                    "load": round(os.getloadavg()[0], 1),
                }
                for key in found[0]:
                    values = [call[key] for call in found]
                    row[key] = float(np.median(values))
                    row[f"{key}_interval"] = [min(values), max(values)]
                if kind == "nothing to do":
                    records = folder.glob("results/graph/runs/*/*")
                    assert not any(path.stat().st_size for path in records), "something was trained"
                rows.append(row)
                low, high = row["seconds_interval"]
                print(
                    f"{row['runs']:>7,} runs, {row['jobs']:>6,} jobs, {row['figures']:>6,} figures; {kind:13}:"
                    f" {row['seconds']:6.2f} s ({low:.2f} to {high:.2f}, n = {calls}), processor"
                    f" {row['cpu_seconds']:6.2f} s, {row['memory'] / 1e6:5.0f} MB; load {row['load']}",
                    flush=True,
                )
    exponents = {kind: exponent(rows, kind) for kind in KINDS} if len(sizes) > 2 else {}
    return {"rows": rows, "exponents": exponents, "provenance": provenance("cpu")}


def exponent(rows: list[dict], kind: str) -> float:
    """Of the growth of processor time with the runs, from the second size on: the first is mostly the start."""
    points = np.log([[row["runs"], row["cpu_seconds"]] for row in rows if row["kind"] == kind][1:])
    return float(np.polyfit(points[:, 0], points[:, 1], 1)[0])


def draw(result: dict[str, object], path: Path) -> None:
    """Time against runs on logarithmic axes, with what is asked for, as SVG."""
    from ipbench.analysis import style

    with style.styled():
        from matplotlib.figure import Figure
        from matplotlib.ticker import NullLocator, StrMethodFormatter

        figure = Figure(figsize=(4.2, 2.8), layout="constrained")
        axes = figure.add_subplot()
        for kind, marker in zip(KINDS, ("o", "s"), strict=True):
            rows = [row for row in result["rows"] if row["kind"] == kind]
            runs, seconds = [row["runs"] for row in rows], np.array([row["seconds"] for row in rows])
            spread = np.abs(np.array([row["seconds_interval"] for row in rows]).T - seconds)
            axes.errorbar(runs, seconds, spread, marker=marker, capsize=2, label=kind)
        axes.plot(*zip(*MOST_SECONDS.items(), strict=True), "_", color="black", markersize=14, label="at most")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.set_yticks([1, 2, 5, 10, 20, 60], ["1", "2", "5", "10", "20", "60"])
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("runs")
        axes.set_ylabel("seconds")
        axes.legend(frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        style.save(figure, path.with_suffix(".svg"))


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write OUT.json and OUT.svg")
    parser.add_argument("--most", type=int, default=SIZES[-1], help="runs of the largest experiment")
    arguments = parser.parse_args()
    result = measure([size for size in SIZES if size <= arguments.most])
    for kind, found in result["exponents"].items():
        print(f"{kind}: processor time ~ runs^{found:.2f} (at most {MOST_EXPONENT})")
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
        draw(result, arguments.out)


if __name__ == "__main__":
    main()
