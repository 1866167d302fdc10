"""Detectors end to end: trained, pruned, cut, evaluated, packed and tabulated, from the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ipbench.cli.main import main
from ipbench.data import catalog, scenes, sources
from ipbench.packing import dense

#: Minutes of detectors; what a run of one consists of is tested in test_detection.py and test_detectors.py.
pytestmark = pytest.mark.long
SMALL = ["--recipe", "epochs=2", "--recipe", "batch_size=8", "--recipe", "validation=0.25", "--recipe", "warmup=0"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder with 32 and 8 scenes."""
    if not sources.DEBIAN_FASHION_MNIST.is_dir():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    with pytest.MonkeyPatch.context() as patch:
        facts = replace(catalog.DATASETS["fashion-scenes"], train=32, test=8, published={})
        patch.setitem(catalog.DATASETS, "fashion-scenes", facts)
        folder = tmp_path_factory.mktemp("data")
        scenes.make(folder)
        yield folder


def run(root: Path, out: Path, *words: str) -> dict[str, Any]:
    """The newest record of `ipbench run`."""
    before = set(out.glob("runs/*/*.json"))
    assert main(["run", "--dataset", "fashion-scenes", "--data", str(root), "--out", str(out), *SMALL, *words]) == 0
    new = set(out.glob("runs/*/*.json")) - before
    return json.loads(max(new, key=lambda path: path.stat().st_mtime_ns).read_text())


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all: runs that continue the dense one share it."""
    return tmp_path_factory.mktemp("results")


def check(record: dict[str, Any]) -> dict[str, Any]:
    """What every finished record of a detector has; its outcome."""
    outcome = record["outcome"]
    assert record["status"] == "done" and outcome["metric"] == "map"
    for name in ("test_accuracy", "test_accuracy_selected", "validation_accuracy", "train_accuracy", "test_map_50"):
        assert 0 <= outcome[name] <= 1
    assert {"test_map_75", "test_map_small", "test_map_medium", "test_map_large"} <= set(outcome)
    return outcome


@pytest.mark.parametrize("model", ["retinanet-small", "fasterrcnn-small"])
@pytest.mark.parametrize("space", ["sp", "ip"])
def test_channels_of_a_detector_go_before_its_training(root, out, model, space):
    words = ["--model", model, "--space", space, "--pattern", "channels", "--budget", "macs", "--sparsity", "0.5"]
    outcome = check(run(root, out, "--method", "magnitude", *words))
    assert outcome["reached"] > 0.49 and outcome["macs_now"] <= outcome["macs_dense"] / 2
    assert outcome["macs_now"] > 0.48 * outcome["macs_dense"]
    cut = {layer["name"] for layer in outcome["sliced"]}
    assert not any(name.endswith(("cls_logits", "bbox_reg", "bbox_pred", "cls_score")) for name in cut)
    assert len(cut) > 3 and any(name.startswith(("head.", "rpn.", "roi_heads.")) for name in cut)


@pytest.mark.parametrize("words", [["l1-filters"], ["group-fisher", "--option", "every=1", "--option", "channels=40"]])
def test_a_trained_detector_is_pruned_and_tuned(root, out, words):
    model = ["--model", "fasterrcnn-small"] if words[0] == "group-fisher" else []
    outcome = check(run(root, out, "--method", *words, *model, "--sparsity", "0.5"))
    assert outcome["macs_now"] <= outcome["macs_dense"] / 2 and outcome["sliced"]


def test_the_same_run_again_is_the_same_to_the_bit(root, tmp_path):
    words = ["--method", "snip", "--sparsity", "0.8", "--model", "fasterrcnn-small", "--recipe", "train_examples=16"]
    one, two = (run(root, tmp_path / name, *words) for name in ("one", "two"))
    check(one)
    assert one["outcome_sha256"] == two["outcome_sha256"]


def test_a_detector_is_packed_and_cut_to_files(root, tmp_path, capsys):
    words = ["--method", "random", "--pattern", "channels", "--budget", "macs", "--sparsity", "0.5", "--keep"]
    record = run(root, tmp_path, *words, "--recipe", "train_examples=16")
    (path,) = tmp_path.glob("runs/*/*.json")
    assert main(["pack", str(path), "--out", str(tmp_path / "net.ipb")]) == 0
    assert main(["unpack", str(tmp_path / "net.ipb"), "--out", str(tmp_path / "net.safetensors")]) == 0
    assert main(["slice", str(path), "--to", str(tmp_path / "small")]) == 0
    small = dense.load(tmp_path / "small")
    assert sum(part.numel() for part in small.parameters()) == record["outcome"]["parameters_now"]
    with torch.no_grad():
        logits, offsets = small(torch.zeros(2, 1, 96, 96))
    assert logits.shape == (2, 9 * 189, 11) and offsets.shape == (2, 9 * 189, 4)
    capsys.readouterr()
    assert main(["slice", str(path), "--to", str(tmp_path / "other"), "--onnx", str(tmp_path / "net.onnx")]) == 2
    told = capsys.readouterr().err.strip()
    assert "it is a detector" in told and "\n" not in told
    assert not list(tmp_path.glob("other*")) and not (tmp_path / "net.onnx").exists()


def test_tables_and_the_summary_say_map(root, tmp_path, capsys):
    config = tmp_path / "scenes.yaml"
    config.write_text(
        "datasets: fashion-scenes\nmethods: [dense, {name: random, pattern: channels, budget: macs}]\n"
        "sparsities: 0.5\nspaces: [sp]\nseeds: 1\n"
        "recipe: {epochs: 1, batch_size: 8, train_examples: 16, validation: 0.25, warmup: 0}\n"
    )
    results = tmp_path / "results"
    assert main(["grid", str(config), "--json"]) == 0
    capsys.readouterr()
    from ipbench.planning.experiment import Experiment
    from ipbench.store import write_json

    experiment = Experiment.load(config)
    write_json(results / "grid.json", experiment.grid())
    for item in experiment.runs:
        own = {"epochs": 1, "batch_size": 8, "train_examples": 16, "validation": 0.25, "warmup": 0}
        recipe = [word for key, value in own.items() for word in ("--recipe", f"{key}={value}")]
        words = ["--method", item.method, *recipe]
        words += [] if item.method == "dense" else ["--pattern", "channels", "--budget", "macs", "--sparsity", "0.5"]
        assert main(["run", "--dataset", "fashion-scenes", "--data", str(root), "--out", str(results), *words]) == 0
        assert "test mAP" in "".join(capsys.readouterr())
    assert main(["collect", str(results)]) == 0
    assert main(["tables", str(results)]) == 0
    assert main(["summary", str(results)]) == 0
    assert "test mAP in per cent" in capsys.readouterr().out
    table = (results / "tables" / "accuracy.md").read_text()
    assert "Test mAP in per cent" in table and "test accuracy" not in table
    assert "mAP: on the test set" in (results / "tables" / "structured.md").read_text()
