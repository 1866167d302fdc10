"""Real processes, joined by gloo, that train one net together: started by torchrun, or forked as it starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ipbench.store import read_json
from tests.data.conftest import write_imagenet
from tests.several import Several

#: Without batch norm, so that only the order of sums differs from a single process.
WORDS = ["--model", "lenet-300-100", "--sparsity", "0.9", "--space", "ip", "--recipe", "epochs=2"]


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "ipbench"]


def train(folder: Path, processes: int, *words: str, forked: Several | None = None) -> dict[str, Any]:
    """Run `ipbench run`, by torchrun or forked in so many processes; returns its record, after a look at all files."""
    words = "run", "--device", "cpu", "--out", "out", *words
    if forked is None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.run(
            [*TORCHRUN, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
        )
        assert process.returncode == 0, process.stderr
        said = process.stdout
    else:
        ended = forked.run(processes, words, folder, seconds=300)
        assert ended.codes == [0] * processes, ended.lines
        said = "".join((folder / f"1.{rank}").read_text() for rank in range(processes))
    assert said.count("test accuracy") == 1, said  # one of them speaks
    paths = list((folder / "out" / "runs").rglob("*.json"))
    assert not list((folder / "out" / "state").rglob("*.safetensors"))
    (record,) = [record for record in map(read_json, paths) if record["run"]["method"] in words]
    assert record["status"] == "done" and record["provenance"]["processes"] == processes
    return record["outcome"]


@pytest.mark.parametrize("words", [["--method", "rigl", "--option", "every=4"], ["--method", "ft"]], ids=["rigl", "ft"])
def test_two_processes_train_what_one_does(tmp_path, processes, words):
    """The same batches, the same masks at every exchange, gradients averaged: what differs is the rounding of sums."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one = train(tmp_path / "one", 1, *WORDS, *words, forked=processes)
    two = train(tmp_path / "two", 2, *WORDS, *words, forked=None if "rigl" in words else processes)
    assert two["coefficients_kept"] == one["coefficients_kept"]
    assert two["curves"]["train_loss"] == pytest.approx(one["curves"]["train_loss"], rel=1e-3)
    assert two["test_loss"] == pytest.approx(one["test_loss"], rel=1e-2)
    assert two["curves"]["gradient_norm"][0] == pytest.approx(one["curves"]["gradient_norm"][0], rel=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("loader", ["memory", "ffcv"])
def test_imagenet_end_to_end(tmp_path, processes, loader):
    """A tiny folder of JPEGs in ImageNet's layout, its whole preparation, ResNet-18, two processes."""
    if loader == "ffcv":
        pytest.importorskip("ffcv", reason="FFCV is not installed (its headers are missing)")
    write_imagenet(tmp_path / "data", train=6, test=2, classes=2)
    if loader == "ffcv":
        made = processes.run(1, ["data", "beton", "imagenet"], tmp_path)
        assert made.codes == [0], made.lines
    words = ["--dataset", "imagenet", "--model", "resnet18", "--method", "snip", "--space", "ip", "--sparsity", "0.8"]
    recipe = ["epochs=1", "batch_size=4", "precision=bf16", "validation=0.2"]
    words += [word for value in recipe for word in ("--recipe", value)]
    outcome = train(tmp_path, 2, *words, "--loader", loader, forked=processes)
    assert outcome["prunable"] == 11_678_912  # ResNet-18 on ImageNet, classifier included
    assert outcome["coefficients_kept"] + outcome["basis_entries"] == int(0.2 * 11_678_912)
    assert outcome["basis_entries"] == 16 * 81 + 49 * 49 and 0 <= outcome["test_accuracy"] <= 1
    assert len(outcome["curves"]["train_loss"]) == 1 and outcome["curves"]["train_loss"][0] > 0


def test_a_batch_that_cannot_be_shared_is_one_line(tmp_path, processes):
    words = ["run", "--recipe", "batch_size=63", "--device", "cpu", "--out", str(tmp_path / "out")]
    ended = processes.run(2, words, tmp_path)
    assert ended.codes == [2, 2] and not list(tmp_path.rglob("*.json"))
    (line,) = ended.lines
    assert line.startswith("ipbench: digits: batch_size is 63, which 2 processes cannot share equally")
