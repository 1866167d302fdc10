"""Recorded numbers checked by training again: what can be compared is said before, and how after."""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from ipbench import methods
from ipbench.analysis.collect import RUNS, Collection, collect, read_parquet
from ipbench.analysis.grid import Cell
from ipbench.analysis.records import is_outcome
from ipbench.analysis.records import row as row_of
from ipbench.data import digest
from ipbench.data.catalog import dataset
from ipbench.errors import BadInput
from ipbench.machine.provenance import provenance
from ipbench.planning.numerics import numerics
from ipbench.runs.environment import Environment
from ipbench.runs.execute import execute
from ipbench.runs.given import Given
from ipbench.spec import UNIT_PATTERNS, Run, canonical_json

#: What two runs must have in common before their bits can be expected to agree.
_SETTING = ("torch", "numpy", "cpu", "instructions", "device")
#: What no rounding changes: it has to agree wherever a run is computed.
_EXACT = ("prunable", "basis_entries", "coefficients_kept", "parameters", "parameters_dense", "macs_dense")
#: The same of runs that prune units, which differ in size: another one that stays changes the counts.
_EXACT_OF_UNITS = ("prunable", "basis_entries", "parameters_dense", "macs_dense")
#: Seeds that a cell must have for its spread to be known.
_SEEDS = 3
#: How often a sound set of runs may be called different at all.
_LEVEL = 0.05

#: How reasons begin that say nothing of a number: the record is of something else, or was not read.
_NOTHING_SAID = ("stale: ", "cannot be read: ", "not a file, but ")

#: Of users' models and data sets.
NOTHING = Given()

KINDS = EQUAL, CONSISTENT, DIFFERENT, NOT_COMPARABLE = "equal", "consistent", "different", "not comparable"


@dataclass(frozen=True)
class Candidate:
    """One recorded run, before it is trained again.

    Attributes:
        label: how to call it.
        run: what is trained; None of a record that cannot be used.
        row: what is recorded.
        cell: of the run.
        others: test accuracies of the other recorded seeds of its cell.
        differences: what is known to change bits, and is different here.
        verdict: where none is needed from a training.
    """

    label: str
    run: Run | None
    row: Mapping[str, Any]
    cell: Cell | None = None
    others: tuple[float, ...] = ()
    differences: tuple[str, ...] = ()
    verdict: Verdict | None = None


@dataclass(frozen=True)
class Verdict:
    """What became of one run.

    Attributes:
        kind: `EQUAL` (every value of its outcome is the recorded one, to the bit), `CONSISTENT` (something that changes
            bits is different here, and the accuracy is as near as that of two runs of a cell), `DIFFERENT`, or
            `NOT_COMPARABLE`.
        reason: what differs, or why; empty if equal.
    """

    kind: str
    reason: str


def candidates(results: Path, sample: int, environment: Environment, given: Given = NOTHING) -> list[Candidate]:
    """What would be trained again, with what is known before: nothing is trained here.

    Args:
        results: an experiment's folder, with its records or with `runs.parquet` alone; or a folder of such folders.
        sample: how many runs of each experiment, chosen by a hash of their ids: the same ones everywhere. Records that
            cannot be used are listed besides.
        environment: where to compute.
        given: users' models and data sets.

    Raises:
        BadInput: there is no experiment, one cannot be read, or no run of any is finished.
    """
    found: list[Candidate] = []
    for folder in _experiments(results):
        collection = collect(folder) if (folder / "runs").is_dir() else read_parquet(folder / RUNS)
        found += _unusable(folder, collection)
        rows = [row for row in collection.runs.to_dict("records") if row["status"] == "done"]
        rows.sort(key=lambda row: hashlib.sha256(f"verify {row['id']}".encode()).digest())
        for row in rows[:sample]:
            found.append(
                _candidate(folder, collection, {str(key): value for key, value in row.items()}, environment, given)
            )
    if not found:
        raise BadInput(f"{results}: no run is finished: there is nothing to verify")
    return found


def announce(found: list[Candidate]) -> Iterator[str]:
    """What can be compared, in lines: said before anything is trained."""
    trained = [candidate for candidate in found if candidate.verdict is None]
    bits = sum(not candidate.differences for candidate in trained)
    if bits:
        yield f"{bits} of {len(found)} runs are compared bit for bit: all that changes bits is here as it was there"
    reasons: dict[str, int] = {}
    for candidate in trained:
        if candidate.differences:
            reasons["; ".join(candidate.differences)] = reasons.get("; ".join(candidate.differences), 0) + 1
    for reason, number in reasons.items():
        yield (
            f"{number} of {len(found)} runs need not agree to the bit ({reason}): their test accuracy must be as near"
            f" the recorded one as runs of several seeds are, {1 - _LEVEL:.0%} for all runs together"
        )
    if len(trained) < len(found):
        yield f"{len(found) - len(trained)} of {len(found)} runs are not trained again"


def verify(
    found: list[Candidate], environment: Environment, given: Given = NOTHING
) -> Iterator[tuple[Candidate, Verdict]]:
    """Train candidates again, each in a folder of its own, and judge what comes out.

    Args:
        found: what `candidates` returned.
        environment: where to compute; the number of threads is the recorded one.
        given: as of `candidates`.
    """
    intervals = sum(candidate.verdict is None and bool(candidate.differences) for candidate in found)
    for candidate in found:
        yield candidate, candidate.verdict or _train(candidate, environment, given, _LEVEL / max(1, intervals))


def _experiments(results: Path) -> list[Path]:
    if (results / "grid.json").is_file():
        return [results]
    found = sorted(path.parent for path in results.glob("*/grid.json") if path.is_file())
    if not found:
        raise BadInput(
            f"{results}: not an experiment's folder, it holds no grid.json (run the experiment first), nor one of such"
            " folders"
        )
    return found


def _unusable(folder: Path, collection: Collection) -> list[Candidate]:
    """Records that are there, and are not what they should be: no training can change that."""
    found = []
    for record in collection.unreadable:
        place, _, reason = record.message.partition(": ")
        kind = NOT_COMPARABLE if reason.startswith(_NOTHING_SAID) else DIFFERENT
        found.append(Candidate(f"{folder / place}", None, {}, verdict=Verdict(kind, reason)))
    return found


def _candidate(
    folder: Path, collection: Collection, row: dict[str, Any], environment: Environment, given: Given
) -> Candidate:
    cell = next(cell for cell in collection.grid.cells if cell.id == row["cell"])
    run = cell.run(int(row["seed"]))
    label = f"{folder.name}: {methods.called(run)} seed {run.seed}"
    runs = collection.runs
    others = runs[(runs["cell"] == cell.id) & (runs["seed"] != run.seed) & (runs["status"] == "done")]["test_accuracy"]
    accuracies = tuple(map(float, others.dropna()))
    candidate = Candidate(label, run, row, cell, accuracies, tuple(_differences(row, run, environment)))
    if refusal := _refusal(candidate, run, environment, given):
        return replace(candidate, verdict=Verdict(NOT_COMPARABLE, refusal))
    return candidate


def _told(row: Mapping[str, Any], name: str) -> str | None:
    """What a record says of its provenance; None where it does not."""
    value = row.get(f"provenance_{name}")
    return None if value is None or pd.isna(value) else str(value)


def _differences(row: Mapping[str, Any], run: Run, environment: Environment) -> Iterator[str]:
    """What is known to change bits and is not here as it was there."""
    if run.mode == "fast":
        yield "mode fast promises no equal bits"
    here = provenance(environment.device)
    for name in _SETTING:
        if (there := _told(row, name)) is not None and there != str(here[name]):
            yield f"{name} {there} there, {here[name]} here"
    if _told(row, "instructions") is None:  # of older records
        yield "the record does not tell the instructions of its cpu"


def _refusal(candidate: Candidate, run: Run, environment: Environment, given: Given) -> str:
    """Why a run is not worth training again; empty if it is."""
    row = candidate.row
    if (made_with := _told(row, "numerics")) != str(numerics(run)):
        return f"made with numerics {made_with}; this version has {numerics(run)}: take the recorded commit"
    if (processes := _told(row, "processes")) not in ("1", None):
        return f"made by {processes} processes, which changes what norms see; one trains here"
    try:
        given.know(run, environment.root)
        code = methods.code(run.method)
        images = digest.of(run.dataset, environment.root, environment.loader)
    except BadInput as error:
        return str(error)
    if _told(row, "method") != (code.sha256 if code else None):
        return f"the code of method {run.method} is not the recorded one"
    if _told(row, "data") not in (images, None):
        return f"the images of {run.dataset} are not the recorded ones"
    if any(isinstance(stage, methods.External) for stage in methods.get(run.method).stages(run.options)):
        return f"method {run.method} is a rule, whose scores Snakemake makes: run its experiment in another folder"
    if candidate.differences and len(candidate.others) + 1 < _SEEDS:
        return (
            f"{'; '.join(candidate.differences)}: bits need not agree, and of {len(candidate.others) + 1} recorded"
            f" seeds no spread is known, {_SEEDS} are needed"
        )
    return ""


def _train(candidate: Candidate, environment: Environment, given: Given, level: float) -> Verdict:
    run, row = candidate.run, candidate.row
    assert run is not None
    given.know(run, environment.root)  # another experiment may have a data set of that name
    threads = int(_told(row, "threads") or 1)
    with tempfile.TemporaryDirectory() as folder:
        record = execute(run, Path(folder), replace(environment, threads=threads))
    return judge(candidate, record, level)


def judge(candidate: Candidate, record: Mapping[str, Any], level: float) -> Verdict:
    """Compare a run that was trained again with what is recorded of it.

    Args:
        candidate: with what is recorded.
        record: of the same run, made here.
        level: of the interval: how often a sound run may lie outside.
    """
    row = candidate.row
    changed = _changed(candidate, record)
    if not changed:
        return Verdict(EQUAL, "")
    now = record["outcome"].get("test_accuracy")
    said = f"test accuracy {row['test_accuracy']:.4f} there, {'none' if now is None else f'{now:.4f}'} here"
    others = "; ".join(candidate.differences)
    if not others:
        return Verdict(DIFFERENT, f"{said}; not the recorded bits: {', '.join(changed[:5])}")
    exact = [name for name in _exact(candidate.cell) if name in changed]
    if record["status"] != "done" or now is None or exact:
        what = f"{record['status']} here" if record["status"] != "done" else f"no rounding changes {', '.join(exact)}"
        return Verdict(DIFFERENT, f"{said}; {what}; {others}")
    margin = _margin(candidate, level)
    kind = CONSISTENT if abs(now - row["test_accuracy"]) <= margin else DIFFERENT
    return Verdict(kind, f"{said}, {'within' if kind == CONSISTENT else 'beyond'} {margin:.4f}; {others}")


def _exact(cell: Cell | None) -> tuple[str, ...]:
    """Names of the counts of a cell's runs that no rounding changes."""
    return _EXACT_OF_UNITS if cell is not None and cell.pattern in UNIT_PATTERNS else _EXACT


def _changed(candidate: Candidate, record: Mapping[str, Any]) -> list[str]:
    """Names of the values of an outcome that are not the recorded ones: all are compared, not their hash alone."""
    assert candidate.cell is not None
    here = {
        name: value for name, value in row_of(record, candidate.cell, record["run"]["seed"]).items() if is_outcome(name)
    }
    there = {name: value for name, value in candidate.row.items() if is_outcome(name)}
    return [name for name in sorted({*here, *there}) if not _same(there.get(name), here.get(name))]


def _same(there: Any, here: Any) -> bool:
    """Whether a value of a collection is that of a row: pandas writes others for what is missing."""
    if isinstance(there, list) or isinstance(here, list):
        return bool(there == here)
    if there is None or pd.isna(there):
        return here is None
    return bool(there == here) or (isinstance(there, str) and there == canonical_json(here))


def _margin(candidate: Candidate, level: float) -> float:
    """How far the accuracies of two runs of a cell may be apart: t * s * sqrt(2).

    s is the standard deviation over the *other* recorded seeds, which the recorded value has no part in; t is Student's
    for them, two-sided, at `level`. A run that is repeated with its seed varies no more than runs of several seeds do,
    so that a sound one lies beyond at most that often. A spread below one test image cannot be seen.
    """
    from scipy.stats import t

    others = pd.Series(candidate.others)
    images = dataset(candidate.run.dataset).test if candidate.run else None
    spread = max(float(others.std(ddof=1)), 1 / images if images else 0.0)
    return float(t.ppf(1 - level / 2, len(others) - 1)) * spread * math.sqrt(2)
