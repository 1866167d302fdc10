"""Published numbers checked by training again: the same run, the same bits (above floor 5)."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from ipbench import NUMERICS
from ipbench.analysis.collect import RUNS, collect, read_parquet
from ipbench.analysis.grid import Cell
from ipbench.errors import BadInput
from ipbench.provenance import provenance
from ipbench.running import Environment, execute
from ipbench.spec import Run, build

#: What two runs must have in common before their bits can be expected to agree: column, and how to say it.
_SETTING = ("torch", "numpy", "cpu", "device", "processes")

EQUAL, DIFFERENT, NOT_COMPARABLE = "equal", "different", "not comparable"


@dataclass(frozen=True)
class Verdict:
    """What became of one run.

    Attributes:
        run: that was trained again.
        kind: `EQUAL` (the hash of its outcome is the recorded one), `DIFFERENT`, or `NOT_COMPARABLE` (it differs, and
            so does something that is known to change bits).
        reason: what differs; empty if equal.
    """

    run: Run
    kind: str
    reason: str


def verify(
    results: Path, sample: int, environment: Environment, *, begin: Callable[[Run], None] = lambda run: None
) -> Iterator[Verdict]:
    """Train finished runs again, each in a folder of its own, and compare the hashes of their outcomes.

    Args:
        results: an experiment's folder, with its records or with `runs.parquet` alone.
        sample: how many runs, chosen by a hash of their ids: the same ones everywhere.
        environment: where to compute; the number of threads is the recorded one.
        begin: called with each run before it is trained.

    Raises:
        BadInput: nothing is finished, or the results are of another version of the numerics.
    """
    collection = collect(results) if (results / "runs").is_dir() else read_parquet(results / RUNS)
    cells = {cell.id: cell for cell in collection.grid.cells}
    rows = [row for row in collection.runs.to_dict("records") if row["status"] == "done"]
    if not rows:
        raise BadInput(f"{results}: no run is finished: there is nothing to verify")
    rows.sort(key=lambda row: hashlib.sha256(f"verify {row['id']}".encode()).digest())
    for row in rows[:sample]:
        numerics = str(row["provenance_numerics"])
        if numerics != str(NUMERICS):
            raise BadInput(
                f"{results}: made with numerics {numerics}; this version has {NUMERICS}: take the recorded commit"
            )
        run = _run(cells[str(row["cell"])], int(row["seed"]), str(results))
        begin(run)
        threads = int(row["provenance_threads"])
        with tempfile.TemporaryDirectory() as folder:
            record = execute(run, Path(folder), replace(environment, threads=threads))
        yield _verdict(run, {str(key): value for key, value in row.items()}, record, environment)


def _run(cell: Cell, seed: int, where: str) -> Run:
    """The run of a cell of the grid and a seed."""
    values: dict[str, Any] = {
        name: getattr(cell, name)
        for name in ("dataset", "model", "method", "space", "off", "sparsity", "allocation", "mode")
    }
    values |= {name: json.loads(getattr(cell, name)) for name in ("basis", "options", "recipe")}
    run = build(Run, {**values, "seed": seed}, where)
    if run.cell != cell.id:
        raise BadInput(f"{where}: cell {cell.id} is named {run.cell} by this version: take the recorded commit")
    return run


def _verdict(run: Run, row: dict[str, Any], record: dict[str, Any], environment: Environment) -> Verdict:
    if record["outcome_sha256"] == row["outcome_sha256"]:
        return Verdict(run, EQUAL, "")
    here = {**provenance(environment.device), "processes": record["provenance"]["processes"]}
    differences = [
        f"{name} {there} there, {here[name]} here"
        for name in _SETTING
        if (there := row.get(f"provenance_{name}")) is not None and not pd.isna(there) and str(there) != str(here[name])
    ]
    if run.mode == "fast":
        differences.insert(0, "mode fast promises no equal bits")
    now = record["outcome"].get("test_accuracy")
    accuracy = f"test accuracy {row['test_accuracy']:.4f} there, {'none' if now is None else f'{now:.4f}'} here"
    kind = NOT_COMPARABLE if differences else DIFFERENT
    return Verdict(run, kind, "; ".join([*differences, accuracy]))
