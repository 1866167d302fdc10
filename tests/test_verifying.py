"""Published runs trained again: equal, different, or not comparable and why."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from ipbench.analysis import write_runs
from ipbench.cli import main
from ipbench.experiment import Experiment
from ipbench.running import Environment, execute, record_path
from ipbench.store import read_json, write_json

CONFIG = {
    "datasets": "digits",
    "recipe": {"epochs": 1, "train_examples": 300},
    "methods": ["snip", "ft"],
    "sparsities": [0.9],
    "spaces": ["ip"],
    "seeds": 1,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    results = tmp_path_factory.mktemp("results") / "tiny"
    experiment = Experiment.from_config(CONFIG, "tiny")
    write_json(results / "grid.json", experiment.grid())
    for run in experiment.runs:
        execute(run, results, Environment())
    write_runs(results)
    return results


def change(results: Path, **values: Any) -> Path:
    """Alter every record; a dict is merged into the record's."""
    for run in Experiment.from_config(CONFIG, "tiny").runs:
        path = record_path(results, run)
        record = read_json(path)
        merged = {key: {**record[key], **value} if isinstance(value, dict) else value for key, value in values.items()}
        write_json(path, {**record, **merged})
    return results


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def test_the_same_code_gives_the_same_bits(finished, capsys):
    """A continued run trains what it continues, too."""
    assert main(["verify", str(finished), "--sample", "5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(lines) == [
        "digits small-vgg ft ip p=0.9 seed 0: equal", "digits small-vgg snip ip p=0.9 seed 0: equal",
    ]  # fmt: skip


def test_published_results_need_no_records(copy, capsys):
    shutil.rmtree(copy / "runs")
    assert main(["verify", str(copy), "--sample", "1"]) == 0
    assert capsys.readouterr().out.endswith(": equal\n")


def test_a_changed_number_is_found(copy, capsys):
    change(copy, outcome_sha256="0" * 64)
    assert main(["verify", str(copy), "--sample", "1"]) == 1
    assert ": different: test accuracy " in capsys.readouterr().out


def test_another_setting_is_named_instead_of_failing(copy, capsys):
    change(copy, outcome_sha256="0" * 64, provenance={"torch": "1.0", "cpu": "another one"})
    assert main(["verify", str(copy), "--sample", "1"]) == 0
    said = capsys.readouterr().out
    assert ": not comparable: torch 1.0 there, " in said and "cpu another one there, " in said


def test_other_numerics_and_empty_results_are_one_line(copy, capsys):
    change(copy, provenance={"numerics": 99})
    assert main(["verify", str(copy)]) == 2
    error = capsys.readouterr().err
    assert "made with numerics 99; this version has" in error and error.count("\n") == 1
    shutil.rmtree(copy / "runs")
    (copy / "runs").mkdir()
    assert main(["verify", str(copy)]) == 2
    assert "no run is finished" in capsys.readouterr().err
