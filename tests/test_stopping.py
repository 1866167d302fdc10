"""A signal stops a training after its current step; called again, it goes on there and ends with the same bits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

from ipbench.machine import stopping
from ipbench.runs import building
from ipbench.runs.environment import Environment
from ipbench.runs.execute import execute
from ipbench.runs.records import record_path, state_path
from ipbench.spec import Augmentation, Recipe, Run
from ipbench.store import read_json, read_tensors

HERE = Environment()


def tiny_run(**values: Any) -> Run:
    """Two epochs of four steps."""
    recipe = Recipe(
        epochs=2, batch_size=100, train_examples=450, augmentation=Augmentation(translate=1), validation=0.1
    )
    return Run(
        **{"dataset": "digits", "model": "small-vgg", "method": "snip", "recipe": recipe, "sparsity": "0.9", **values}
    )


def stop_at(monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """From the call-th question on, counted from 1, a signal has arrived: stands in for the signal at an exact step."""
    calls = iter(range(1, 10_000))
    monkeypatch.setattr(stopping, "asked", lambda: next(calls) >= call)


@pytest.mark.parametrize(
    "values",
    [
        {"space": "ip"},
        {"method": "freezenet", "off": "decayed"},
        {"method": "rigl", "options": {"every": 3}, "space": "ip"},
        {"method": "gmp", "options": {"every": 3}},
        {"model": "lenet-300-100", "space": "ip"},
    ],
    ids=["ip", "decayed", "rigl", "gmp", "dropout"],
)
def test_stopped_at_every_third_step_equals_undisturbed(tmp_path, monkeypatch, request, values):
    run = tiny_run(**values)
    if "dropout" in request.node.callspec.id:  # our own nets have none
        plain = building.build_model
        monkeypatch.setattr(building, "build_model", lambda *given: nn.Sequential(plain(*given), nn.Dropout(0.2)))
    whole = execute(run, tmp_path / "whole", HERE)
    stops = 0
    while not record_path(tmp_path / "cut", run).exists():
        torch.manual_seed(0)  # a new process knows nothing of the generators of the old one
        with monkeypatch.context() as patch:
            stop_at(patch, 4)  # three steps are trained
            try:
                execute(run, tmp_path / "cut", HERE)
            except stopping.Stopped:
                stops += 1
                _, facts = read_tensors(state_path(tmp_path / "cut", run))
                assert facts["progress"]["epoch"] * 4 + facts["begun"]["steps"] == 3 * stops
    assert stops == 2
    cut = read_json(record_path(tmp_path / "cut", run))
    assert cut["outcome"] == read_json(record_path(tmp_path / "whole", run))["outcome"]
    assert cut["outcome_sha256"] == whole["outcome_sha256"]


def test_stopped_before_a_step_keeps_what_went_before(tmp_path, monkeypatch):
    run = tiny_run()
    stop_at(monkeypatch, 1)
    with pytest.raises(stopping.Stopped):
        execute(run, tmp_path, HERE)
    _, facts = read_tensors(state_path(tmp_path, run))
    assert facts["stage"] == 1 and facts["inside"] and facts["begun"]["steps"] == 0  # pruned, nothing trained


def test_the_second_interrupt_ends_at_once():
    before = signal.getsignal(signal.SIGINT)  # ignored, where a shell has started these tests in the background
    with stopping.on_signals():
        assert not stopping.asked()
        signal.raise_signal(signal.SIGINT)
        assert stopping.asked() and stopping.reason() == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with stopping.on_signals():
        assert not stopping.asked()
    assert signal.getsignal(signal.SIGINT) is before


def wait_for(found: Any, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not found():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that does not outlive the block."""
    with process:
        try:
            yield process
        finally:
            process.kill()


#: Gradual magnitude pruning that leaves a line at every step and waits a little.
SLOW = """
import time

from ipbench.methods import Gradual, Train, method


def waiting(net, batch):
    time.sleep(0.02)
    with open("steps.txt", "a") as file:
        file.write("step\\n")
    return net.magnitudes()


@method(family="during training", paper="none: a method for tests")
def slow():
    return [Train(Gradual(waiting, 1, 0.0, 1.0))]
"""


@pytest.mark.parametrize("world", [1, 2])
def test_a_real_signal(tmp_path, processes, world):
    """SIGTERM in the middle of an epoch that takes seconds: one line, exit status 75, and the same end."""
    (tmp_path / "slow.py").write_text(SLOW)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if world == 2 else []
    words = ["run", "--model", "lenet-300-100", "--space", "ip", "--device", "cpu", "--threads", "1", "--seed", "0"]
    words += ["--method-file", "slow.py", "--method", "slow"]
    words += ["--recipe", "epochs=2", "--recipe", "batch_size=2", "--recipe", "train_examples=120"]
    command = [sys.executable, *launch, "-m", "ipbench", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    steps = tmp_path / "steps.txt"
    cut = subprocess.Popen(
        [*command, "--out", "cut"], cwd=tmp_path, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with ended(cut) as process:
        wait_for(lambda: steps.exists() and len(steps.read_text().splitlines()) > 10, process)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=100)
    assert process.returncode == (stopping.EXIT_STATUS if world == 1 else 1), said
    message = "ipbench: stopped by SIGTERM; what is trained is saved: the same call goes on there"
    assert message in said.splitlines(), said
    assert "Traceback" not in said or world == 2  # torchrun adds its own
    (path,) = tmp_path.glob("cut/state/*/0.safetensors")
    begun = read_tensors(path)[1]["begun"]
    assert begun["steps"] > 0 and len(begun["losses"]) == world
    for out in ("cut", "whole"):
        assert processes.run(world, [*words, "--out", out], tmp_path).codes == [0] * world
    (one,), (whole,) = (list(tmp_path.glob(f"{out}/runs/*/0.json")) for out in ("cut", "whole"))
    assert read_json(one)["outcome"] == read_json(whole)["outcome"]
