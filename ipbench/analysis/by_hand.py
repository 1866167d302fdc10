"""Runs that were trained by hand, `ipbench run`, as an experiment: its plan is what is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ipbench import methods
from ipbench.errors import BadInput
from ipbench.spec import Run, build, pair_of
from ipbench.store import read_json


def grid_of(results: Path) -> dict[str, Any]:
    """The plain value of a grid of all runs that have a readable record under `results/runs`; see `grid.parse`.

    Raises:
        BadInput: there is none.
    """
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((results / "runs").glob("*/*.json")):
        try:
            record = read_json(path)
            run = build(Run, record["run"], str(path))
        except (BadInput, KeyError, TypeError):  # `ipbench status` and another try of the run tell of it
            continue
        if (path.parent.name, path.stem) == (run.cell, str(run.seed)):
            code = record.get("provenance", {}).get("method")
            found.setdefault(run.cell, _cell(run, code))["seeds"].append(run.seed)
    for cell in found.values():
        cell["seeds"].sort()
    if not found:
        raise BadInput(f"{results}: no experiment's folder (no grid.json), and no record of a run in runs/")
    return {"name": results.resolve().name, "title": f"Runs by hand in {results}", "cells": list(found.values())}


def _cell(run: Run, code: str | None) -> dict[str, Any]:
    """A cell as a plan tells it; the family of a method that is not known here is its own."""
    known = methods.methods().get(run.method)
    return {
        "id": run.cell,
        **run.model_dump(mode="json", exclude={"seed"}),
        "family": known.family if known else "of a user",
        "pair": pair_of(run),
        "seeds": [],
        **({"code": code} if code else {}),
        **({"knob": known.knob} if known and known.by_knob(run.options) else {}),
    }
