"""Published runs trained again: equal, consistent, different, or not comparable and why."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ipbench.analysis import write_runs
from ipbench.analysis.grid import parse
from ipbench.cli.main import main
from ipbench.planning.experiment import Experiment
from ipbench.runs import verify as verifying
from ipbench.runs.environment import Environment
from ipbench.runs.execute import execute
from ipbench.runs.records import record_path
from ipbench.runs.verify import CONSISTENT, DIFFERENT, EQUAL, Candidate, _exact, candidates, judge
from ipbench.spec import canonical_json
from ipbench.store import read_json, write_json
from tests.analysis.synthetic import cell, grid
from tests.analysis.test_checks import column, forged

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
    """Alter every record; a dict is merged into the record's. The hash is that of the new outcome."""
    for run in Experiment.from_config(CONFIG, "tiny").runs:
        path = record_path(results, run)
        record = read_json(path)
        merged = {key: {**record[key], **value} if isinstance(value, dict) else value for key, value in values.items()}
        new = {**record, **merged}
        digest = hashlib.sha256(canonical_json(new["outcome"]).encode()).hexdigest()
        write_json(path, {**new, "outcome_sha256": values.get("outcome_sha256", digest)})
    return results


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "tiny"))


def verify(capsys, *words: Any) -> tuple[int, str]:
    code = main(["verify", *map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_the_same_code_gives_the_same_bits(finished, capsys):
    """A continued run trains what it continues, too."""
    code, said = verify(capsys, finished, "--sample", 5)
    first, *runs, last = said.splitlines()
    assert code == 0 and "2 of 2 runs are compared bit for bit" in first
    assert sorted(runs) == [
        "tiny: digits small-vgg ft ip p=0.9 seed 0: equal", "tiny: digits small-vgg snip ip p=0.9 seed 0: equal",
    ]  # fmt: skip
    assert last == "2 equal, 0 consistent, 0 different, 0 not comparable"


def test_published_results_need_no_records_and_may_be_many(copy, capsys):
    shutil.rmtree(copy / "runs")
    shutil.copytree(copy, copy.parent / "other")
    (copy.parent / "README.md").write_text("beside them")
    code, said = verify(capsys, copy.parent, "--sample", 1)
    assert code == 0 and [line.partition(":")[0] for line in said.splitlines()[1:3]] == ["other", "tiny"]
    assert said.endswith("2 equal, 0 consistent, 0 different, 0 not comparable\n")


def test_a_changed_number_is_found(copy, capsys):
    change(copy, outcome={"train_loss": 0.125})
    code, said = verify(capsys, copy, "--sample", 1)
    assert code == 1 and "not the recorded bits: outcome_sha256, train_loss" in said


def test_a_changed_number_under_the_right_hash_is_found(copy, capsys):
    shutil.rmtree(copy / "runs")
    forged(copy / "runs.parquet", column("train_loss", [0.125, 0.125]))
    code, said = verify(capsys, copy, "--sample", 1)
    assert code == 1 and "not the recorded bits: train_loss\n" in said


def never(*_: Any, **__: Any) -> None:
    raise AssertionError("this is known before anything is trained")


def test_a_hash_that_is_not_of_its_outcome_is_found_before(copy, capsys, monkeypatch):
    monkeypatch.setattr(verifying, "execute", never)
    change(copy, outcome_sha256="0" * 64)
    code, said = verify(capsys, copy)
    assert code == 1 and "0.json: different: its outcome is not the one that outcome_sha256 was computed from" in said


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"cpu": "another one"}, "cpu another one there, "),
        ({"instructions": "another set"}, "instructions another set there, "),
        ({"instructions": None}, "the record does not tell the instructions of its cpu: bits need not agree"),
        ({"torch": "1.0"}, "bits need not agree, and of 1 recorded seeds no spread is known, 3 are needed"),
        ({"processes": 2}, "made by 2 processes"),
        ({"data": "0" * 64}, "the images of digits are not the recorded ones"),
        ({"method": "0" * 64}, "is not the recorded one"),
        ({"numerics": 99}, "made with numerics 99; this version has"),
    ],
)
def test_what_cannot_be_compared_is_said_before_and_is_no_success(copy, capsys, monkeypatch, told, said):
    monkeypatch.setattr(verifying, "execute", never)
    change(copy, provenance=told)
    code, printed = verify(capsys, copy)
    assert code == 3 and printed.count(": not comparable: ") == 2 and said in printed
    assert "2 of 2 runs are not trained again" in printed
    assert printed.endswith("0 equal, 0 consistent, 0 different, 2 not comparable\n")


def test_what_cannot_be_verified_at_all_is_one_line(copy, capsys):
    shutil.rmtree(copy / "runs")
    (copy / "runs").mkdir()
    for folder, said in ((copy, "no run is finished"), (copy / "runs", "nor one of such folders")):
        code, printed = verify(capsys, folder)
        assert code == 2 and said in printed and printed.count("\n") == 1


# How a run is judged whose bits need not agree ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(finished) -> tuple[Candidate, dict[str, Any]]:
    """A candidate from another processor, with seeds whose accuracies have a standard deviation of 0.01; its record."""
    found = candidates(finished, 1, Environment())[0]
    assert found.run is not None
    elsewhere = replace(found, others=(0.5, 0.51, 0.52), differences=("cpu A there, B here",))
    return elsewhere, read_json(record_path(finished, found.run))


def judged(trained: tuple[Candidate, dict[str, Any]], **values: Any) -> verifying.Verdict:
    """Of a record as older versions wrote it: without what is effective."""
    candidate, record = trained
    assert record["effective"]
    record = {name: value for name, value in record.items() if name != "effective"}
    outcome = {**record["outcome"], **values}
    digest = hashlib.sha256(canonical_json(outcome).encode()).hexdigest()
    return judge(candidate, {**record, "outcome": outcome, "outcome_sha256": digest}, 0.05)


def test_an_unchanged_run_is_equal_wherever_it_is(trained):
    assert judged(trained).kind == EQUAL


@pytest.mark.parametrize(
    ("shift", "kind"), [(0.06, CONSISTENT), (-0.06, CONSISTENT), (0.062, DIFFERENT), (-0.5, DIFFERENT)]
)
def test_the_accuracy_lies_within_the_spread_of_the_seeds(trained, shift, kind):
    """t of 2 degrees of freedom at 95 %: 4.3027; times 0.01 times the root of 2: 0.06085."""
    candidate, record = trained
    at = replace(candidate, row={**candidate.row, "test_accuracy": 0.6})
    verdict = judged((at, record), test_accuracy=0.6 + shift, weights_sha256="1" * 64)
    assert verdict.kind == kind and "0.0608" in verdict.reason and "cpu A there, B here" in verdict.reason


def test_what_no_rounding_changes_is_different(trained):
    """One coefficient more, at the same accuracy."""
    record = trained[1]["outcome"]
    first, *others = record["layers"]
    dense = record["parameters_dense"] - record["prunable"]
    kept = record["coefficients_kept"] + 1
    verdict = judged(
        trained, coefficients_kept=kept, layers=[{**first, "kept": first["kept"] + 1}, *others],
        achieved_sparsity=1 - (kept + record["basis_entries"]) / record["prunable"],
        parameters=kept + record["basis_entries"] + dense,
    )  # fmt: skip
    assert verdict.kind == DIFFERENT and "no rounding changes coefficients_kept, parameters" in verdict.reason


def test_a_run_that_diverges_here_is_different(trained):
    candidate, record = trained
    verdict = judge(candidate, {**record, "status": "diverged", "reason": "nan"}, 0.05)
    assert verdict.kind == DIFFERENT and "diverged here" in verdict.reason


def test_a_spread_below_one_image_is_one_image(trained):
    candidate, _ = trained
    same = replace(candidate, others=(0.5, 0.5, 0.5))
    assert verifying._margin(same, 0.05) == pytest.approx(4.3027 * 2**0.5 / 297, rel=1e-4)


def test_sound_runs_are_called_different_as_rarely_as_stated(trained):
    """The largest variance that a repeated seed can have: that of the seeds."""
    candidate, _ = trained
    draw = np.random.default_rng(0)
    beyond = 0
    for _ in range(1000):
        *others, there, here = draw.normal(0.5, 0.1, 7)
        beyond += abs(here - there) > verifying._margin(replace(candidate, others=tuple(others)), 0.05)
    assert 30 <= beyond <= 70


def test_counts_of_units_are_not_held_against_other_machines():
    """Which filter stays may hang on a rounding, and another one takes other coefficients along; N:M is counted."""
    names = {pattern: _exact(parse(grid() | {"cells": [cell("snip", "sp", "0.5", pattern=pattern)]}).cells[0])
             for pattern in ("coefficients", "2:4", "filters", "columns", "channels")}  # fmt: skip
    assert "coefficients_kept" in names["coefficients"] and names["2:4"] == names["coefficients"]
    assert names["filters"] == names["columns"] == names["channels"]
    assert set(names["filters"]) == {"prunable", "basis_entries", "parameters_dense", "macs_dense"}
