"""Runs that were trained by hand, `ipbench run`, as an experiment: its plan is what is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ipbench import methods
from ipbench.errors import BadInput
from ipbench.planning.cells import cell_of
from ipbench.spec import Run, build
from ipbench.store import read_json


def grid_of(results: Path) -> dict[str, Any]:
    """The plain value of a grid of all runs that have a record under `results/runs`; see `grid.parse`.

    A record that cannot be used is planned, too, so that whoever collects the runs names it.

    Raises:
        BadInput: there is none, or of some cell none that can be used; the message names it.
    """
    found: dict[str, dict[str, Any]] = {}
    unusable: dict[Path, str] = {}
    known = methods.methods()
    for path in sorted((results / "runs").glob("*/*.json")):
        try:
            record = read_json(path)
            run = build(Run, record["run"], str(path))
            code = record["provenance"].get("method")
        except (BadInput, KeyError, TypeError, AttributeError) as error:
            unusable[path] = str(error) if isinstance(error, BadInput) else f"{path}: not the record of a run"
            continue
        if (path.parent.name, path.stem) != (run.cell, str(run.seed)):
            unusable[path] = f"{path}: holds the record of {run.cell}/{run.seed}.json"
            continue
        found.setdefault(run.cell, cell_of(run.cell, run, known.get(run.method), (), code))["seeds"].append(run.seed)
    for path, message in unusable.items():
        if path.parent.name not in found or not path.stem.isdecimal():
            raise BadInput(message)
        found[path.parent.name]["seeds"].append(int(path.stem))
    for cell in found.values():
        cell["seeds"].sort()
    if not found:
        raise BadInput(f"{results}: no experiment's folder (no grid.json), and no record of a run in runs/")
    return {"name": results.resolve().name, "title": f"Runs by hand in {results}", "cells": list(found.values())}
