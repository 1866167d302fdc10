"""The command line as a user types it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ipbench.cli import main

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


def test_fused_seeds_change_no_record(tmp_path, capsys):
    words = ["run", "--method", "random", "--recipe", "epochs=1", "--recipe", "warmup=0"]
    done = tmp_path / "done.json"
    assert main([*words, "--seed", "0", "--seed", "3", "--out", str(tmp_path / "a"), "--done", str(done)]) == 0
    assert main([*words, "--seed", "3", "--out", str(tmp_path / "b")]) == 0
    fused, single = (next((tmp_path / name).glob("runs/*/3.json")) for name in "ab")
    assert json.loads(fused.read_text())["outcome_sha256"] == json.loads(single.read_text())["outcome_sha256"]
    assert [run["seed"] for run in json.loads(done.read_text())["runs"]] == [0, 3]


def test_count_json(capsys):
    assert main(["count", "lenet5-caffe", "--input", "1x28x28", "--json"]) == 0
    counted = json.loads(capsys.readouterr().out)
    assert counted["parameters"] == 431_080 and counted["macs"] == 2_293_000 and len(counted["layers"]) == 4
    assert main(["count", "resnet56-cifar", "--input", "3x32x32", "--json"]) == 0
    assert round(json.loads(capsys.readouterr().out)["macs"] / 1e6, 1) == 125.5


def test_grid_json(capsys):
    assert main(["grid", str(ROOT / "config/quickstart.yaml"), "--json"]) == 0
    grid = json.loads(capsys.readouterr().out)
    assert grid["counts"] == {"cells": 26, "runs": 156, "levels": 0, "jobs": 26, "dense": 2}
    assert len(grid["cells"]) == 26 and len(grid["runs"]) == 156 and len(grid["jobs"]) == 26


def test_an_external_method_shows_up_everywhere(tmp_path, capsys, monkeypatch):
    from ipbench.methods.declare import REGISTRY

    file = tmp_path / "smallest.py"
    file.write_text(EXTERNAL)
    try:
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
    finally:
        REGISTRY.pop("smallest", None)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["run", "--method", "snap"],
            "unknown method 'snap' in --method (did you mean 'snip'?); valid: cops, dense, freezenet",
        ),
        (["run", "--dataset", "digit"], "unknown data set 'digit' in --dataset (did you mean 'digits'?)"),
        (["run", "--space", "xp"], "run: space: input should be 'sp' or 'ip' (got 'xp')"),
        (["run", "--sparsity", "1"], "not including, 1 (got '1')"),
        (["run", "--seed", "x"], "--seed: 'x' is not a whole number"),
        (["run", "--seed", "1", "--seed", "1"], "--seed: the same seed is given twice"),
        (["run", "--recipe", "epochs"], "--recipe: 'epochs' is not of the form NAME=VALUE"),
        (["run", "--recipe", "epochz=1"], "unknown key 'epochz' in --recipe (did you mean 'epochs'?)"),
        (["run", "--option", "x=1"], "unknown option of method snip 'x' in --option; valid: per_class, rounds"),
        (["run", "--basis", "sharing=all", "--space", "ip"], "--basis: sharing: input should be 'layer'"),
        (["run", "--basis", "lr=2"], "the filter basis belongs to space ip"),
        (["run", "--method", "dense", "--sparsity", "0.5"], "method dense does not prune"),
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
    done = subprocess.run([sys.executable, "-m", "ipbench", "run", "--method", "snap"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1


def test_one_failing_run_does_not_lose_the_others(tmp_path, capsys, monkeypatch):
    import ipbench.running as running

    real = running.execute

    def execute(run, *args, **kwargs):
        if run.seed == 1:
            raise RuntimeError("this run breaks")
        return real(run, *args, **kwargs)

    monkeypatch.setattr(running, "execute", execute)
    words = ["run", "--recipe", "epochs=1", "--recipe", "warmup=0", "--seed", "0", "--seed", "1", "--seed", "2"]
    assert main([*words, "--out", str(tmp_path), "--done", str(tmp_path / "done.json")]) == 1
    assert "1 of 3 runs failed: seeds 1" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.glob("runs/*/*.json")) == ["0.json", "2.json"]
    assert not (tmp_path / "done.json").exists()


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
