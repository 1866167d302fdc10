"""How far an experiment is, from its files alone."""

from __future__ import annotations

import json
import math
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ipbench.analysis.grid import parse
from ipbench.analysis.standing import standing, told
from ipbench.cli.main import main
from ipbench.planning.experiment import Experiment
from ipbench.runs.environment import Environment
from ipbench.runs.execute import execute
from ipbench.runs.records import record_path
from ipbench.store import write_json

CONFIG = {
    "title": "Tiny",
    "datasets": "digits",
    "models": "lenet-300-100",
    "recipe": {"epochs": 1, "warmup": 0, "train_examples": 100},
    "methods": ["random", "magnitude"],
    "sparsities": [0.5, 0.9],
    "spaces": ["sp"],
    "seeds": 2,
}
#: When all is looked at, in seconds since 1970.
NOW = 1_800_000_000.0


@pytest.fixture
def experiment() -> Experiment:
    return Experiment.from_config(CONFIG, "tiny")


@pytest.fixture
def results(experiment, tmp_path) -> Path:
    """Three runs of `random` are done, 100 s apart, of 10, 20 and 30 s; the last one 50 s ago."""
    write_json(tmp_path / "grid.json", experiment.grid())
    runs = [run for run in experiment.runs if run.method == "random"][:3]
    for number, run in enumerate(runs):
        execute(run, tmp_path, Environment())
        path = record_path(tmp_path, run)
        record = json.loads(path.read_text())
        del record["format"], record["checksum"]
        record["cost"]["wall_seconds"] = 10.0 * (number + 1)
        finished = datetime.fromtimestamp(NOW - 250 + 100 * number, UTC)
        record["provenance"]["finished"] = finished.isoformat()
        write_json(path, record)
    return tmp_path


def log(results: Path, name: str, text: str, age: float) -> None:
    path = results / "logs" / f"{name}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (NOW - age, NOW - age))


def test_time_that_is_left(results):
    """The fourth run of `random` takes as long as the other of its cell, 30 s; those of `magnitude` 20 s, as all do."""
    found = standing(results, now=NOW)
    assert (found.count("done"), len(found.collection.missing)) == (3, 5)
    assert found.left == pytest.approx(30 + 4 * 20)
    assert found.at_pace == pytest.approx(5 * 250 / 3)


def test_jobs_are_told_by_their_logs(results):
    log(results, "digits/running", "one line\n", 40)
    log(results, "digits/stopped", "one line\nipbench: stopped by SIGTERM; what is trained is saved\n", 60)
    log(results, "digits/failed", "one line\nipbench: 1 of 2 runs failed: p=0.5 seed 1\n", 80)
    log(results, "digits/crashed", "Traceback (most recent call last):\n  File\nMemoryError\n", 80)
    log(results, "digits/finished", "one line\n", 90)
    log(results, "tables", "of no training\n", 90)
    write_json(results / "jobs" / "digits" / "finished.json", {})
    assert told(standing(results, now=NOW)) == [
        "tiny: 8 runs: 3 done, 5 missing",
        "begun and not finished: 2 jobs, the last sign of one 40.0 s ago",
        "  digits/running: a line 40.0 s ago",
        "  digits/stopped: stopped 1 min 00 s ago",
        "failed: 2 jobs; the same call of Snakemake tries them again",
        "  digits/crashed: MemoryError",
        "  digits/failed: 1 of 2 runs failed: p=0.5 seed 1",
        "left: 1 min 50 s of training one after the other; at the pace of the last runs done in 6 min 57 s",
    ]


def test_damage_and_diverged_runs_are_told(results, experiment):
    (first, second, _) = (record_path(results, run) for run in experiment.runs[:3])
    first.write_text("{")
    record = json.loads(second.read_text())
    del record["format"], record["checksum"]
    write_json(second, {**record, "status": "diverged", "reason": "the training loss is not finite"})
    first_line, *rest = told(standing(results, now=NOW))
    assert first_line == "tiny: 8 runs: 1 done, 1 diverged, 1 unreadable, 5 missing"
    assert any(line.startswith(f"  runs/{first.parent.name}/{first.name}: ") for line in rest)


def test_nothing_is_there_yet(experiment, tmp_path):
    found = standing(tmp_path, parse(experiment.grid()), NOW)
    assert told(found) == ["tiny: 8 runs: 0 done, 8 missing"] and math.isnan(found.left)


def test_the_command(results, capsys, monkeypatch, tmp_path_factory):
    assert main(["status", str(results)]) == 0
    assert capsys.readouterr().out.startswith("tiny: 8 runs: 3 done, 5 missing\n")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert main(["status"]) == 2 and "name an experiment" in capsys.readouterr().err
    assert main(["status", "nowhere"]) == 2 and "it holds no grid.json" in capsys.readouterr().err
    Path("tiny.yaml").write_text(json.dumps(CONFIG))
    assert main(["status", "tiny.yaml"]) == 0
    assert capsys.readouterr().out == "tiny: 8 runs: 0 done, 8 missing\n"


def test_published_results_have_no_records(results, capsys):
    assert main(["collect", str(results)]) == 0
    (results / "runs").rename(results / "kept")
    capsys.readouterr()
    assert main(["status", str(results)]) == 0
    assert capsys.readouterr().out.startswith("tiny: 8 runs: 3 done, 5 missing\n")
