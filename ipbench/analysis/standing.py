"""How far an experiment is, from its files alone: on this machine, on a cluster, while it runs or afterwards."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd

from ipbench import files
from ipbench.analysis.collect import RUNS, Collection, collect, read_parquet
from ipbench.analysis.grid import Cell, Grid
from ipbench.analysis.text import seconds
from ipbench.errors import BadInput

#: How many of the last finished runs tell the pace.
_LAST = 20
#: Of a log, what its last lines are looked for in.
_TAIL = 4096
#: How lines of errors begin, and what is none: a training that was asked to stop goes on at the next call.
_ERROR, _STOPPED = "ipbench: ", "ipbench: stopped by"
#: The last line of a traceback.
_RAISED = re.compile(r"[A-Za-z_.]+(Error|Exception|Interrupt|Exit)\b")


@dataclass(frozen=True)
class Job:
    """A job that has begun, and has no product.

    Attributes:
        name: of its log, without its end.
        age: seconds since its log was written last.
        error: its last line, if that is an error; else empty.
        stopped: whether a signal stopped it; the next call goes on there.
    """

    name: str
    age: float
    error: str
    stopped: bool = False


@dataclass(frozen=True)
class Standing:
    """How far an experiment is.

    Attributes:
        collection: its records.
        jobs: that have begun and are not finished, by name.
        saved: by cell and seed of a run without a record, seconds since its state was saved.
        now: when this was seen, in seconds since 1970.
    """

    collection: Collection
    jobs: tuple[Job, ...]
    saved: Mapping[tuple[str, int], float]
    now: float

    def count(self, status: str) -> int:
        """Runs with a record of this status."""
        return int((self.collection.runs["status"] == status).sum())

    @property
    def left(self) -> float:
        """Seconds of training that are left: of each missing run as long as the finished ones of its cell, else of its
        method, else of all take on average. NaN if none is finished.
        """
        runs = self.collection.runs
        cells = {cell.id: cell for cell in self.collection.grid.cells}
        known = runs.assign(name=[_net(cells[cell]) for cell in runs["cell"]])
        by_cell, by_method = (known.groupby(name)["cost_wall_seconds"].mean() for name in ("cell", "name"))
        usual = float(known["cost_wall_seconds"].mean())
        return sum(
            by_cell.get(cell, by_method.get(_net(cells[cell]), usual)) for cell, _ in self.collection.missing
        )  # fmt: skip

    @property
    def at_pace(self) -> float:
        """Seconds until all is done, if as many runs are finished per second as of late; NaN of less than two."""
        finished = sorted(map(_seconds, self.collection.runs["provenance_finished"].dropna()))[-_LAST:]
        if len(finished) < 2:
            return float("nan")
        return len(self.collection.missing) * (self.now - finished[0]) / len(finished)


def standing(results: Path, grid: Grid | None = None, now: float | None = None) -> Standing:
    """Look at an experiment's folder: at records, logs, states and products of jobs, as far as there are any.

    Args:
        results: the folder.
        grid: what is planned; that of `grid.json` there if left out.
        now: seconds since 1970; the clock's if left out.

    Raises:
        BadInput: `grid.json`, or `runs.parquet` where there are no records, is not usable.
    """
    now = time.time() if now is None else now
    if grid is None and not (results / "runs").is_dir() and (results / RUNS).is_file():
        collection = read_parquet(results / RUNS)  # published results come without records
    else:
        collection = collect(results, grid)
    states = {run: results / "state" / run[0] / f"{run[1]}.safetensors" for run in collection.missing}
    saved = {run: now - file.stat().st_mtime for run, file in states.items() if file.is_file()}
    return Standing(collection, tuple(_unfinished(results, now)), saved, now)


def told(found: Standing) -> list[str]:
    """What `ipbench status` prints, in lines."""
    grid, missing = found.collection.grid, len(found.collection.missing)
    counted = {
        "done": found.count("done"), "diverged": found.count("diverged"), "impossible": found.count("impossible"),
        "unreadable": len(found.collection.unreadable), "missing": missing - len(found.collection.unreadable),
    }  # fmt: skip
    parts = [f"{number:,} {name}" for name, number in counted.items() if number or name in ("done", "missing")]
    lines = [f"{grid.name}: {grid.planned:,} runs: {', '.join(parts)}"]
    begun = [job for job in found.jobs if not job.error]
    failed = [job for job in found.jobs if job.error]
    if begun and missing:
        last = min([job.age for job in begun] + list(found.saved.values()))
        lines.append(f"begun and not finished: {len(begun)} jobs, the last sign of one {seconds(last)} ago")
        lines += [f"  {job.name}: {'stopped' if job.stopped else 'a line'} {seconds(job.age)} ago" for job in begun]
    if failed and missing:
        lines.append(f"failed: {len(failed)} jobs; the same call of Snakemake tries them again")
        lines += [f"  {job.name}: {job.error}" for job in failed]
    lines += [f"  {record.message}" for record in found.collection.unreadable]
    if missing and len(found.collection.runs):
        known = begun and not pd.isna(found.at_pace)
        pace = f"; at the pace of the last runs done in {seconds(found.at_pace)}" if known else ""
        lines.append(f"left: {seconds(found.left)} of training one after the other{pace}")
    return lines


def _net(cell: Cell) -> str:
    return " ".join((cell.dataset, cell.model, cell.method, cell.control))


def _unfinished(results: Path, now: float) -> Iterable[Job]:
    """Jobs of `run` with a log and without a product. Its tail tells whether one failed: a new try begins it anew."""
    folder = results / "logs"
    for log in sorted(folder.rglob("*.log")):
        name = log.relative_to(folder).with_suffix("").as_posix()
        if "/" not in name or (results / "jobs" / f"{name}.json").exists():
            continue
        tail = _tail(log)
        last = (tail.splitlines() or [""])[-1]
        stopped = last.startswith(_STOPPED)
        error = "" if stopped else _error(tail)
        yield Job(name, now - log.stat().st_mtime, error, stopped)


def _error(tail: str) -> str:
    """The last line of a log if it tells of an error, and what the last exception before it says; else empty."""
    lines = tail.splitlines()
    if not lines or not ("Traceback" in tail or lines[-1].startswith(_ERROR)):
        return ""
    raised = [line for line in lines if _RAISED.match(line)]
    return "; ".join(dict.fromkeys([lines[-1].removeprefix(_ERROR), *raised[-1:]]))


def _tail(file: Path) -> str:
    """The end of a log, as far as it is text."""
    try:
        with files.opened(file) as stream:
            stream.seek(max(0, file.stat().st_size - _TAIL))
            return stream.read().decode(errors="replace").rstrip()
    except BadInput:
        return ""


def _seconds(finished: str) -> float:
    """Of a time as records write it."""
    return datetime.fromisoformat(finished).timestamp()
