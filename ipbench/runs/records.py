"""Where the record, the state and the end of a run lie, and whether a record that is there still holds."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ipbench import methods
from ipbench.data import digest
from ipbench.errors import BadInput, BadProduct
from ipbench.files import Missing
from ipbench.planning.numerics import numerics
from ipbench.runs.environment import Environment
from ipbench.runs.state import has_end
from ipbench.spec import Run, canonical_json
from ipbench.store import read_json


def record_path(results: Path, run: Run) -> Path:
    """Where the record of a run lies."""
    return results / "runs" / run.cell / f"{run.seed}.json"


def state_path(results: Path, run: Run) -> Path:
    """Where the resume state of a run lies until its record is written."""
    return results / "state" / run.cell / f"{run.seed}.safetensors"


def end_path(results: Path, run: Run) -> Path:
    """Where the end of a run lies that others continue from."""
    return results / "ends" / run.cell / f"{run.seed}.safetensors"


def finished(
    results: Path, run: Run, environment: Environment | None = None, *, keep: bool = False
) -> dict[str, Any] | None:
    """The record of a run if it is there, whole, and of the present numerics, method code and images.

    Args:
        results: the experiment's folder.
        run: which.
        environment: where its images are; left out, they are not compared.
        keep: ask for the end of the run, too, where there is one to keep.

    Raises:
        BadProduct: it is there but cannot be trusted.
    """
    path = record_path(results, run)
    try:
        record = read_json(path)
    except Missing:
        return None
    if not _is_of(record, run):
        raise BadProduct(f"{path}: not the record of run {run.id}; delete it to have it made again")
    if _stale(record["provenance"], run, environment):
        return None
    kept = not keep or record["status"] != "done" or has_end(end_path(results, run), run, record["provenance"])
    return record if kept else None


def _is_of(record: Mapping[str, Any], run: Run) -> bool:
    """Whether a record is that of a run and whole, by what it holds and not by what it is called."""
    try:
        of_run = (record["id"], Run.model_validate(record["run"]).id) == (run.id, run.id)
        outcome = hashlib.sha256(canonical_json(record["outcome"]).encode()).hexdigest()
        known = record["status"] in ("done", "diverged", "impossible") and "numerics" in dict(record["provenance"])
    except (KeyError, TypeError, ValueError, RecursionError):  # a pydantic error is a ValueError
        return False
    return of_run and known and record["outcome_sha256"] == outcome


def _stale(provenance: dict[str, Any], run: Run, environment: Environment | None) -> bool:
    """Whether a record was made of something else than what is there now."""
    code = methods.code(run.method)
    if provenance["numerics"] != numerics(run) or provenance.get("method") != (code.sha256 if code else None):
        return True
    if environment is None or provenance.get("data") is None:  # records of version 0.1 do not tell their images
        return False
    try:
        return bool(provenance["data"] != digest.of(run.dataset, environment.root, environment.loader))
    except BadProduct:
        raise
    except BadInput:  # a finished run needs no images
        return False
