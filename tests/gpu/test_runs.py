"""Whole runs on a GPU: every method, patterns and budgets, signals, several processes, the lease."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from ipbench import methods
from ipbench.machine import stopping
from ipbench.runs.environment import Environment
from ipbench.runs.execute import execute
from ipbench.runs.records import end_path, record_path
from ipbench.runs.state import read_end
from ipbench.spec import Augmentation, Recipe, Run
from ipbench.store import read_json
from tests.gpu.conftest import GPU
from tests.test_stopping import stop_at
from tests.tiny import few_steps

SECONDS = 240
#: Two epochs of four steps.
RECIPE = Recipe(epochs=2, batch_size=100, train_examples=450, augmentation=Augmentation(translate=1), validation=0.1)
METHODS = [name for name, method in methods.methods().items() if method.prunes]


def a_run(**values: Any) -> Run:
    return Run(
        **{"dataset": "digits", "model": "small-vgg", "method": "snip", "sparsity": "0.8", "recipe": RECIPE, **values}
    )


@pytest.mark.parametrize("space", ["sp", "ip"])
@pytest.mark.parametrize("method", METHODS)
def test_a_strict_run_of_every_method_repeats_bit_for_bit(tmp_path, method, space):
    entry = methods.get(method)
    own = {"pattern": entry.pattern, "allocation": entry.allocation, "budget": entry.budget_for(entry.pattern)}
    run = a_run(method=method, space=space, options=few_steps(entry), **own)
    one, two = (execute(run, tmp_path / name, GPU) for name in ("one", "two"))
    assert one["status"] == "done" and one["outcome_sha256"] == two["outcome_sha256"]
    assert one["cost"]["peak_memory_bytes"] > 0
    told = one["provenance"]
    assert told["device"] == torch.cuda.get_device_name() and told["cuda"] == torch.version.cuda
    assert told["capability"].count(".") == 1 and told["cudnn"].isdecimal()


@pytest.mark.parametrize("space", ["sp", "ip"])
@pytest.mark.parametrize("method", ["random", "magnitude", "snip", "grasp", "synflow"])
def test_masks_are_those_of_the_cpu(tmp_path, method, space):
    """But for scores that differ in their last bits at the threshold: 1 of 100 kept coefficients at most."""
    run = a_run(method=method, space=space, mode="strict")
    masks = []
    for name, environment in (("cpu", Environment()), ("gpu", GPU)):
        execute(run, tmp_path / name, environment, keep=True)
        masks.append(read_end(end_path(tmp_path / name, run), run).masks)
    kept = sum(int(mask.sum()) for mask in masks[0].values())
    other = sum(int((masks[0][name] & ~masks[1][name].cpu()).sum()) for name in masks[0])
    assert other <= (0 if method in ("random", "magnitude") else kept // 100)


@pytest.mark.parametrize("space", ["sp", "ip"])
@pytest.mark.parametrize(
    ("pattern", "budget"), [("filters", "macs"), ("channels", "macs"), ("columns", "parameters"), ("2:4", "parameters")]
)
def test_patterns_and_budgets(tmp_path, pattern, budget, space):
    run = a_run(pattern=pattern, budget=budget, space=space, sparsity="0.5", model="resnet20-cifar")
    one, two = (execute(run, tmp_path / name, GPU) for name in ("one", "two"))
    assert one["status"] == "done" and one["outcome_sha256"] == two["outcome_sha256"]
    if pattern == "channels":
        assert one["outcome"]["macs_now"] < one["outcome"]["macs_dense"] and one["cost"]["latency"]


@pytest.mark.parametrize(
    "values",
    [
        {"space": "ip"},
        {"method": "freezenet", "off": "decayed"},
        {"method": "rigl", "options": {"every": 3}, "space": "ip"},
        {"method": "gmp", "options": {"every": 3}},
        {"model": "resnet20-cifar", "space": "ip"},
    ],
    ids=["ip", "decayed", "rigl", "gmp", "resnet"],
)
def test_stopped_at_every_third_step_equals_undisturbed(tmp_path, monkeypatch, values):
    run = a_run(**values)
    whole = execute(run, tmp_path / "whole", GPU)
    stops = 0
    while not record_path(tmp_path / "cut", run).exists():
        torch.manual_seed(0)  # a new process knows nothing of the generators of the old one
        with monkeypatch.context() as patch:
            stop_at(patch, 4)  # three steps are trained
            try:
                execute(run, tmp_path / "cut", GPU)
            except stopping.Stopped:
                stops += 1
    assert stops == 2
    assert read_json(record_path(tmp_path / "cut", run))["outcome_sha256"] == whole["outcome_sha256"]


def command(folder: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "ipbench", "run", "--out", str(folder), *words]


@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:0"])
def test_every_way_to_name_the_gpu(tmp_path, device):
    done = subprocess.run(
        command(tmp_path, "--device", device, "--recipe", "epochs=1"), capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done.stderr
    (record,) = (tmp_path / "runs").rglob("*.json")
    assert read_json(record)["provenance"]["device"] == torch.cuda.get_device_name()


def test_a_gpu_that_is_not_here_is_refused(tmp_path):
    done = subprocess.run(command(tmp_path, "--device", "cuda:77"), capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 2 and "is not here" in done.stderr and not list(tmp_path.iterdir())


def test_a_signal_and_a_second_call_give_the_same_bits(tmp_path):
    words = ("--device", "cuda", "--model", "resnet20-cifar", "--space", "ip", "--sparsity", "0.9", "--mode", "strict",
             "--recipe", "epochs=40")  # fmt: skip
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    undisturbed = subprocess.Popen(command(whole, *words))
    process = subprocess.Popen(command(cut, *words))
    until = time.monotonic() + SECONDS
    while not list(cut.rglob("*.safetensors")):  # saved when the net is pruned and the training begins
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    time.sleep(2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(SECONDS) == stopping.EXIT_STATUS and not list((cut / "runs").rglob("*.json"))
    assert subprocess.run(command(cut, *words), timeout=SECONDS).returncode == 0
    assert undisturbed.wait(SECONDS) == 0
    one, two = (next((folder / "runs").rglob("*.json")) for folder in (cut, whole))
    assert one.relative_to(cut) == two.relative_to(whole)
    assert read_json(one)["outcome_sha256"] == read_json(two)["outcome_sha256"]


#: NCCL refuses two processes on one GPU: gloo stands in for it.
ON_ONE_GPU = """
import torch.distributed as dist
plain = dist.init_process_group
dist.init_process_group = lambda backend=None, **given: plain("gloo", **given)
from ipbench.cli.main import main
main()
"""


@pytest.mark.parametrize(("method", "option"), [("rigl", "every=4"), ("gmp", "every=3"), ("snip", None)])
def test_two_processes_train_together(tmp_path, method, option):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    words = ["run", "--device", "cuda", "--space", "ip", "--sparsity", "0.8", "--mode", "fast", "--method", method,
             "--recipe", "epochs=2", "--out", str(tmp_path), *(["--option", option] if option else [])]  # fmt: skip
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", ON_ONE_GPU, *words],
            env={**os.environ, **common, "MASTER_PORT": port, "RANK": str(rank)},
        )
        for rank in range(2)
    ]
    assert [process.wait(SECONDS) for process in started] == [0, 0]
    (record,) = (tmp_path / "runs").rglob("*.json")
    told = read_json(record)
    assert told["status"] == "done" and told["provenance"]["processes"] == 2


def test_jobs_share_a_gpu_by_a_lease(tmp_path):
    lease = [sys.executable, "-m", "ipbench", "lease", "--gpus", "0", "--per-gpu", "2"]
    words = ("--device", "cuda", "--recipe", "epochs=1")
    started = [subprocess.Popen([*lease, "--", *command(tmp_path / str(seed), *words, "--seed", str(seed))])
               for seed in range(3)]  # fmt: skip
    assert [process.wait(SECONDS) for process in started] == [0, 0, 0]
    records = [read_json(path) for path in tmp_path.rglob("runs/**/*.json")]
    assert [record["provenance"]["jobs_per_gpu"] for record in records] == ["2"] * 3
