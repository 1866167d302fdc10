"""Published results: their tables are those that their runs give, and parquet files tell what single records tell."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from ipbench.analysis import write_runs, write_tables

REFERENCE = Path(__file__).parents[2] / "results" / "reference"
GRIDS = sorted(path.parent for path in REFERENCE.glob("*/grid.json"))


def test_there_are_grids():
    assert len(GRIDS) >= 12


@pytest.mark.parametrize("published", GRIDS, ids=lambda path: path.name)
def test_published_tables_follow_from_published_runs(published, tmp_path):
    for name in ("grid.json", "runs.parquet"):
        shutil.copy(published / name, tmp_path)
    found = {path.name: path.read_text() for path in write_tables(tmp_path)}
    assert found == {path.name: path.read_text() for path in (published / "tables").iterdir()}


@pytest.mark.parametrize("published", [path for path in GRIDS if (path / "runs").is_dir()], ids=lambda path: path.name)
def test_the_runs_of_a_partial_grid_are_its_records(published, tmp_path):
    shutil.copy(published / "grid.json", tmp_path)
    shutil.copytree(published / "runs", tmp_path / "runs")
    write_runs(tmp_path)
    ours, theirs = (pd.read_parquet(folder / "runs.parquet") for folder in (tmp_path, published))
    pd.testing.assert_frame_equal(ours, theirs)
