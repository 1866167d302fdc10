"""The command line as a user types it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from ipbench import methods
from ipbench.cli.main import main
from ipbench.machine.stopping import EXIT_STATUS, Stopped
from ipbench.planning.experiment import Experiment
from ipbench.runs import execute as running
from ipbench.spec import Recipe, Run
from ipbench.store import read_json

ROOT = Path(__file__).parent.parent
EXTERNAL = '''
from ipbench.methods import before_training, method


@method(when=before_training, paper="Nobody: Smallest first, 2026")
def smallest(net, batch, *, power: float = 1.0):
    """-|c|^power: keep what starts smallest."""
    return {name: -c.abs() ** power for name, c in net.coefficients.items()}
'''


def test_methods_json(capsys):
    assert main(["methods", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert {entry["name"] for entry in entries} >= {"dense", "random", "magnitude", "snip", "grasp", "synflow"}
    synflow = next(entry for entry in entries if entry["name"] == "synflow")
    assert set(synflow) >= {"name", "family", "paper", "options", "stages"}
    assert synflow["options"]["rounds"] == {"type": "int", "default": 100}
    assert synflow["stages"] == ["prune by synflow in 100 rounds", "train"]


def test_a_run_with_the_defaults_of_the_data_set(tmp_path, capsys):
    words = ["run", "--method", "snip", "--space", "ip", "--sparsity", "0.95", "--dataset", "digits"]
    assert main([*words, "--recipe", "epochs=1", "--recipe", "warmup=0", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("digits small-vgg snip ip p=0.95 seed 0: test accuracy")
    (record,) = tmp_path.glob("runs/*/0.json")
    assert json.loads(record.read_text())["run"]["recipe"]["batch_size"] == 64


def test_status_without_an_experiment_says_what_there_is(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["status"]) == 2
    assert capsys.readouterr().err.endswith("with a grid.json; name an experiment\n")
    (tmp_path / "results" / "single" / "runs").mkdir(parents=True)
    assert main(["status"]) == 2
    assert "results/single has runs by hand, see ipbench summary results/single" in capsys.readouterr().err


def test_fused_seeds_change_no_record(tmp_path, capsys):
    words = ["run", "--method", "random", "--recipe", "epochs=1", "--recipe", "warmup=0"]
    done = tmp_path / "done.json"
    assert main([*words, "--seed", "0", "--seed", "3", "--out", str(tmp_path / "a"), "--done", str(done)]) == 0
    assert main([*words, "--seed", "3", "--out", str(tmp_path / "b")]) == 0
    fused, single = (next((tmp_path / name).glob("runs/*/3.json")) for name in "ab")
    assert json.loads(fused.read_text())["outcome_sha256"] == json.loads(single.read_text())["outcome_sha256"]
    assert [run["seed"] for run in json.loads(done.read_text())["runs"]] == [0, 3]


@pytest.mark.processes
def test_the_shape_of_a_job_changes_no_record(tmp_path):
    """Lottery tickets whose levels continue each other, and random masks, in blocks of several shapes."""
    experiment = Experiment.from_config(
        {
            "datasets": "digits",
            "methods": [{"name": "lt", "rate": 0.5}, "random"],
            "recipe": {"epochs": 1, "warmup": 0, "train_examples": 200},
            "sparsities": [0.5, 0.8],
            "spaces": "sp",
            "seeds": 2,
        },
        "shapes",
    )
    found: dict[tuple[int, int], dict[str, str]] = {}
    for shape in [(1, 1), (2, 1), (1, 2), (2, 50)]:
        jobs = {job.path: job for job in experiment.jobs(*shape)}
        out = tmp_path / "x".join(map(str, shape))
        for path in TopologicalSorter({path: set(job.parents) for path, job in jobs.items()}).static_order():
            dates = {file: file.stat().st_mtime_ns for file in out.glob("runs/*/*.json")}
            assert main(["run", *jobs[path].arguments, "--out", str(out), "--done", str(out / path)]) == 0
            assert all(file.stat().st_mtime_ns == date for file, date in dates.items())  # nothing is trained twice
            assert [run["id"] for run in json.loads((out / path).read_text())["runs"]] == [
                run.id for run in jobs[path].runs
            ]
        records = map(read_json, out.glob("runs/*/*.json"))
        found[shape] = {record["id"]: record["outcome_sha256"] for record in records}
    assert len(found[1, 1]) == 2 * len(experiment.trained) == 2 * (1 + 3 + 2)
    assert all(records == found[1, 1] for records in found.values())


def test_count_json(capsys):
    assert main(["count", "lenet5-caffe", "--input", "1x28x28", "--json"]) == 0
    counted = json.loads(capsys.readouterr().out)
    assert counted["parameters"] == 431_080 and counted["macs"] == 2_293_000 and len(counted["layers"]) == 4
    assert main(["count", "resnet56-cifar", "--input", "3x32x32", "--json"]) == 0
    assert round(json.loads(capsys.readouterr().out)["macs"] / 1e6, 1) == 125.5


def test_count_tells_what_is_never_pruned(capsys):
    assert main(["count", "convnext_tiny", "--input", "3x32x32", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["not_prunable"]) == 18 and sum(told["not_prunable"].values()) == 6_624  # the scales of its blocks
    assert told["prunable"] == 28_524_000 and told["unused_layers"] == []
    assert main(["count", "convnext_tiny", "--input", "3x32x32"]) == 0
    assert "not prunable: features.1.0.layer_scale " in capsys.readouterr().out


def test_grid_json(capsys):
    assert main(["grid", str(ROOT / "config/quickstart.yaml"), "--json"]) == 0
    grid = json.loads(capsys.readouterr().out)
    assert grid["counts"] == {"cells": 8, "runs": 48, "levels": 0, "jobs": 8, "dense": 2}
    assert len(grid["cells"]) == 8 and len(grid["runs"]) == 48 and len(grid["jobs"]) == 8


def test_an_external_method_shows_up_everywhere(tmp_path, capsys, monkeypatch):
    file = tmp_path / "smallest.py"
    file.write_text(EXTERNAL)
    assert main(["methods", "--json", "--method-file", str(file)]) == 0
    assert "smallest" in {entry["name"] for entry in json.loads(capsys.readouterr().out)}
    config = tmp_path / "mine.yaml"
    config.write_text(f"datasets: digits\nmethods: [{file}]\nsparsities: 0.5\nseeds: 1\n")
    assert main(["grid", str(config), "--json"]) == 0
    assert {cell["method"] for cell in json.loads(capsys.readouterr().out)["cells"]} == {"smallest"}
    words = ["run", "--method", "smallest", "--method-file", str(file), "--option", "power=2"]
    assert main([*words, "--recipe", "epochs=1", "--recipe", "warmup=0", "--out", str(tmp_path)]) == 0
    (record,) = tmp_path.glob("runs/*/0.json")
    assert json.loads(record.read_text())["run"]["options"] == {"power": 2.0}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["run", "--method", "snap"],
            "unknown method 'snap' in --method (did you mean 'snip'?); valid: asfp, asrfp, cops, dense",
        ),
        (["run", "--dataset", "digit"], "unknown data set 'digit' in --dataset (did you mean 'digits'?)"),
        (["run", "--space", "xp"], "run: space: input should be 'sp' or 'ip' (got 'xp')"),
        (["run", "--sparsity", "1"], "not including, 1 (got '1')"),
        (["run", "--seed", "x"], "--seed: 'x' is not a whole number"),
        (["run", "--seed", "1", "--seed", "1"], "--seed: the same seed is given twice"),
        (["run", "--sparsity", "0.5", "--sparsity", "0.50"], "--sparsity: the same sparsity is given twice"),
        (["run", "--sparsity", "0.5", "--sparsity", "2"], "not including, 1 (got '2')"),
        (["run", "--recipe", "epochs"], "--recipe: 'epochs' is not of the form NAME=VALUE"),
        (["run", "--recipe", "epochs=1,lr=0.1"], "one NAME=VALUE each; give lr with another --recipe"),
        (["run", "--recipe", "epochz=1"], "unknown key 'epochz' in --recipe (did you mean 'epochs'?)"),
        (["run", "--option", "x=1"], "unknown option of method snip 'x' in --option; valid: per_class, rounds"),
        (["run", "--basis", "sharing=all", "--space", "ip"], "--basis: sharing: input should be 'layer'"),
        (["run", "--basis", "lr=2"], "the filter basis belongs to space ip"),
        (["run", "--method", "dense", "--sparsity", "0.5"], "method dense does not prune"),
        (["run", "--method", "dense", "--sparsity", "0", "--sparsity", "0.5"], "method dense does not prune"),
        (["run", "--device", "tpu"], "unknown device 'tpu'; valid: auto, cpu, cuda"),
        (["run", "--loader", "magic"], "unknown loader 'magic' in --loader; valid: ffcv, memory"),
        (["run", "--model", "lenet5-caffe"], "lenet5-caffe"),
        (["run", "--dataset", "cifar10"], "ipbench data fetch cifar10"),
        (["run", "--nonsense"], "No such option: --nonsense"),
        (["nonsense"], "No such command 'nonsense'"),
        (["grid", "none.yaml"], "none.yaml: no such file"),
        (["count", "vgg17", "--input", "3x32x32"], "unknown model 'vgg17' in MODEL (did you mean 'vgg1"),
        (["count", "vgg16", "--input", "3x32"], "--input: '3x32' is not of the form CxHxW"),
        (["count", "vgg16", "--input", "0x32x32"], "is not of the form CxHxW"),
        (["tables", "nowhere"], "nowhere: not an experiment's folder"),
        (["methods", "--method-file", "gone.py"], "gone.py: no such file"),
    ],
)
def test_bad_input_is_one_line_and_two(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.startswith("ipbench: ") and captured.err.count("\n") == 1
    assert captured.out == "" and list(tmp_path.iterdir()) == []


def test_the_exit_code_reaches_the_shell(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "ipbench", "run", "--method", "snap"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1


#: Runs of less than a second each.
SHORT = ["--recipe", "epochs=1", "--recipe", "warmup=0", "--recipe", "train_examples=200"]


def broken(monkeypatch: pytest.MonkeyPatch, breaks: Callable[[Run], bool]) -> list[Run]:
    """Makes some runs raise; returns the list of all that are tried, those that others continue included."""
    real, tried = running.execute, []

    def execute(run, *args, **kwargs):
        tried.append(run)
        if breaks(run):
            raise RuntimeError("this run breaks")
        return real(run, *args, **kwargs)

    monkeypatch.setattr(running, "execute", execute)
    return tried


def test_failing_runs_do_not_lose_the_others(tmp_path, capsys, monkeypatch):
    broken(monkeypatch, lambda run: (run.sparsity, run.seed) in {("0.5", 1), ("0.9", 0)})
    words = ["run", *SHORT, "--sparsity", "0.9", "--sparsity", "0.5", "--seed", "0", "--seed", "1", "--seed", "2"]
    assert main([*words, "--out", str(tmp_path), "--done", str(tmp_path / "done.json")]) == 1
    error = capsys.readouterr().err
    assert error.splitlines()[-1] == "ipbench: 2 of 6 runs failed: p=0.5 seed 1, p=0.9 seed 0"
    assert error.count("RuntimeError: this run breaks") == 2  # a defect of a method is shown where it is
    assert len(list(tmp_path.glob("runs/*/*.json"))) == 4 and not (tmp_path / "done.json").exists()
    monkeypatch.undo()
    dates = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/*.json")}
    assert main([*words, "--out", str(tmp_path), "--done", str(tmp_path / "done.json")]) == 0
    assert len(json.loads((tmp_path / "done.json").read_text())["runs"]) == 6
    assert all(path.stat().st_mtime_ns == date for path, date in dates.items())  # only those that failed


def test_what_continues_a_failed_run_is_not_tried(tmp_path, capsys, monkeypatch):
    tried = broken(monkeypatch, lambda run: (run.sparsity, run.seed) == ("0.5", 1))
    words = ["run", *SHORT, "--method", "lt", "--option", "rate=0.5", "--seed", "0", "--seed", "1"]
    levels = ["0.5", "0.75", "0.875"]
    assert main([*words, *(word for p in levels for word in ("--sparsity", p)), "--out", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.splitlines()[-1] == "ipbench: 3 of 6 runs failed: p=0.5 seed 1, p=0.75 seed 1, p=0.875 seed 1"
    assert error.count("RuntimeError: this run breaks") == 1
    assert error.count("p=0.75 seed 1: not trained, for a run that it needs has failed") == 1
    assert [run.seed for run in tried if run.sparsity != "0"].count(1) == 1
    finished = {json.loads(path.read_text())["run"]["sparsity"] for path in tmp_path.glob("runs/*/0.json")}
    assert finished == {"0", *levels}


@pytest.mark.parametrize("kind", ["record", "state"])
def test_a_damaged_file_of_one_run_does_not_lose_the_others(tmp_path, capsys, kind):
    words = ["run", *SHORT, "--method", "random"]
    assert main([*words, "--seed", "0", "--out", str(tmp_path)]) == 0
    (record,) = tmp_path.glob("runs/*/0.json")
    damaged = record if kind == "record" else tmp_path / "state" / record.parent.name / "0.safetensors"
    record.unlink()
    damaged.parent.mkdir(exist_ok=True)
    damaged.write_bytes(b"{")
    capsys.readouterr()
    assert main([*words, "--seed", "0", "--seed", "1", "--out", str(tmp_path)]) == 1
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith(f"ipbench: digits small-vgg random sp p=0.9 seed 0: {damaged}: not readable")
    assert "delete it to have it made again" in first
    assert last == "ipbench: 1 of 2 runs failed: p=0.9 seed 0"
    assert record.with_name("1.json").is_file() and damaged.read_bytes() == b"{"
    assert main([*words, "--seed", "0", "--out", str(tmp_path)]) == 2  # alone, it is all there is to say
    assert capsys.readouterr().err.count("\n") == 1
    damaged.unlink()
    assert main([*words, "--seed", "0", "--seed", "1", "--out", str(tmp_path)]) == 0


def test_a_stop_is_no_failure_and_ends_the_job(tmp_path, capsys, monkeypatch):
    tried = []

    def stop(run: Run, *_: object, **__: object) -> None:
        tried.append(run.seed)
        signal.raise_signal(signal.SIGTERM)
        raise Stopped

    monkeypatch.setattr(running, "execute", stop)
    assert main(["run", "--seed", "0", "--seed", "1", "--out", str(tmp_path)]) == EXIT_STATUS
    assert "failed" not in capsys.readouterr().err and tried == [0]


def test_published_results_without_records_are_tabulated_not_destroyed(tmp_path, capsys):
    """A folder with grid.json and runs.parquet alone is what results/reference/ holds."""
    config = tmp_path / "mine.yaml"
    config.write_text("datasets: digits\nmethods: random\nsparsities: 0.5\nspaces: sp\nseeds: 1\n")
    results = tmp_path / "results"
    assert main(["grid", str(config), "--out", str(results / "grid.json")]) == 0
    words = ["run", "--method", "random", "--sparsity", "0.5", "--out", str(results)]
    assert main(words) == 0 and main(["tables", str(results)]) == 0
    table, parquet = results / "tables/accuracy.csv", results / "runs.parquet"
    before = table.read_bytes(), parquet.read_bytes()
    shutil.rmtree(results / "runs")
    table.unlink()
    assert main(["tables", str(results)]) == 0
    assert (table.read_bytes(), parquet.read_bytes()) == before
    assert b",1,1,0,0,0," in before[0]  # planned, done, diverged, impossible, missing: it does hold the run


def test_runs_are_called_by_what_tells_them_apart():
    usual = Run(dataset="digits", model="small-vgg", method="snip", recipe=Recipe(), sparsity="0.5")
    other = usual.model_copy(update={"pattern": "filters", "budget": "macs", "control": "shuffle"})
    assert methods.called(usual) == "digits small-vgg snip sp p=0.5"
    assert methods.called(usual, "0.5-0.9") == "digits small-vgg snip sp p=0.5-0.9"
    assert methods.called(other) == "digits small-vgg snip shuffle sp filters macs p=0.5"
    foreign = usual.model_copy(update={"method": "nobody", "options": {"ratios": "0=0.5"}})
    assert methods.called(foreign) == "digits small-vgg nobody sp p=0.5"
    known = foreign.model_copy(update={"method": "l1-filters", "sparsity": "0"})
    assert methods.called(known) == "digits small-vgg l1-filters sp ratios=0=0.5"


def test_bare_commands_print_their_help_in_lines(capsys):
    for words, command in (([], "verify"), (["data"], "fetch")):
        assert main(words) == 0
        captured = capsys.readouterr()
        assert captured.out.startswith("Usage: ipbench") and f"\n  {command} " in captured.out and not captured.err


def test_help_names_what_is_valid(capsys):
    assert main(["run", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "fashion-mnist, mnist" in said and "lenet5-caffe" in said and "greg-1, greg-2" in said


def test_several_runs_by_commas_and_what_is_done_is_said(tmp_path, capsys):
    words = ["run", "--method", "random", "--out", str(tmp_path)]
    words += [word for setting in ("epochs=1", "warmup=0", "train_examples=100") for word in ("--recipe", setting)]
    assert main([*words, "--sparsity", "0.8,0.9", "--seed", "0,1"]) == 0
    assert len(list(tmp_path.glob("runs/*/*.json"))) == 4
    assert "already done" not in capsys.readouterr().out
    assert main([*words, "--sparsity", "0.9", "--sparsity", "0.5", "--seed", "1"]) == 0
    new, old = capsys.readouterr().out.splitlines()
    assert "p=0.5 seed 1: " in new and "already done" not in new
    assert "p=0.9 seed 1: already done: " in old and all("test accuracy" in line for line in (new, old))


def test_commas_that_separate_nothing(tmp_path, capsys):
    assert main(["run", "--seed", "0,,1", "--out", str(tmp_path)]) == 2
    assert "--seed: '0,,1' names nothing between two commas" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_completion_is_offered():
    """For the shell that is named: else typer looks for the one that it was started from, and there may be none."""
    named = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(
        [Path(sys.executable).parent / "ipbench", "--show-completion", "bash"],
        capture_output=True, text=True, timeout=60, env=os.environ | named,
    )  # fmt: skip
    assert done.returncode == 0 and "_ipbench_completion" in done.stdout


def test_the_line_of_a_run_says_that_its_net_is_lost():
    from ipbench.cli.run import _result

    outcome = {"test_accuracy": 0.1, "achieved_sparsity": 0.999, "collapsed_layers": ["fc1", "fc2", "a", "b"]}
    record = {
        "status": "done",
        "outcome": outcome,
        "run": {"off": "zero", "dataset": "digits"},
        "cost": {"wall_seconds": 1},
    }
    lost = "collapsed, nothing is left of fc1, fc2, a, ...; at chance level; test accuracy 10.00 %"
    assert _result(record).startswith(lost)
    record["run"]["off"] = "frozen"
    assert _result(record).startswith("at chance level; test accuracy")
    outcome |= {"test_accuracy": 0.9, "collapsed_layers": []}
    assert _result(record).startswith("test accuracy 90.00 %")
