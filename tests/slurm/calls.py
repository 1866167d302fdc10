"""A call of Snakemake with the profile `slurm`, the grids it is given, and what it leaves."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.slurm.cluster import jobs, until
from tests.workflow.conftest import Checkout

#: What differs from the profile: questions come sooner, for the jobs are short.
SOONER = ("--slurm-init-seconds-before-status-checks", "2", "--seconds-between-status-checks", "2")

#: Magnitude pruning that takes its time: every step waits, and leaves a line that tells of it.
SLOW = '''
import os
import time

from ipbench.methods import Gradual, Train, method
from ipbench.sparse.view import sparse_net


def waiting(net, batch):
    time.sleep(float(os.environ.get("IPBENCH_TEST_PAUSE", "0")))
    with open("steps.txt", "a") as file:
        run = sparse_net(net).run
        print(os.environ.get("SLURM_JOB_ID", "-"), run.space, run.seed, file=file)
    return net.magnitudes()


@method(family="during training", paper="none: a method for tests")
def slow(*, every: int = 1):
    """Gradual magnitude pruning that sleeps in every step."""
    return [Train(Gradual(waiting, every, 0.0, 1.0))]
'''
SLOW_GRID = {
    "methods": ["slow.py"],
    "recipe": {"epochs": 3, "train_examples": 500, "batch_size": 50},
    "seeds": 2,
}


@dataclass
class Call:
    """A call of Snakemake with the profile `slurm`.

    Attributes:
        checkout: where.
        process: of Snakemake, if it is not a call that has ended.
        lines: what it has printed so far.
    """

    checkout: Checkout
    process: subprocess.Popen[str] | None = None
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        output = self.process.stdout if self.process else None
        self.reader = threading.Thread(target=lambda: self.lines.extend(output or ()), daemon=True)
        self.reader.start()

    @property
    def text(self) -> str:
        return "".join(self.lines)

    @property
    def name(self) -> str:
        """Of its jobs in SLURM; empty until it has given them one."""
        found = re.search(r"SLURM run ID: (\S+)", self.text)
        return found[1] if found else ""

    @property
    def jobs(self) -> dict[str, dict[str, str]]:
        """Its jobs in SLURM by id."""
        return jobs(self.name) if self.name else {}

    def until(self, condition: Callable[[], Any], what: str, seconds: float = 300) -> None:
        """Wait for a condition, as long as Snakemake runs."""

        def met() -> bool:
            assert self.process and self.process.poll() is None, f"Snakemake ended before {what}:\n{self.text}"
            return bool(condition())

        try:
            until(met, seconds, f"no {what}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.jobs}\n{self.text}") from None

    def finish(self, code: int = 0, seconds: float = 600) -> None:
        """Wait for its end, with this exit code."""
        assert self.process
        try:
            ended = self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"Snakemake did not end:\n{self.jobs}\n{self.text}") from None
        self.reader.join()
        assert ended == code, self.text

    def steps(self) -> list[str]:
        """A line of each training step: the SLURM job that did it, the space and the seed."""
        path = self.checkout.folder / "steps.txt"
        return path.read_text().splitlines() if path.exists() else []

    def steps_of_runs(self) -> Counter[str]:
        """How many training steps each run took, over all jobs that had a part in it."""
        return Counter(line.partition(" ")[2] for line in self.steps())


#: Lays a fresh checkout under a name; with slow=True the grid whose steps take their time.
Laid = Callable[..., Checkout]
#: Starts Snakemake in a checkout with some arguments; keywords become environment variables.
Submit = Callable[..., Call]


def outcomes(checkout: Checkout) -> dict[str, str]:
    """The hash of every record's deterministic part."""
    return {
        str(path.relative_to(checkout.results)): json.loads(path.read_text())["outcome_sha256"]
        for path in checkout.results.glob("runs/*/*.json")
    }


def left_over(checkout: Checkout) -> list[Path]:
    """What a finished grid must not have: resume states and temporary files."""
    return [*checkout.results.glob("state/**/*.safetensors"), *checkout.results.glob("**/.*.tmp*")]


def same_as_undisturbed(call: Call, undisturbed: Call, cells: int = 2) -> None:
    """The slow grid is whole, its records are equal, and nothing is half-written."""
    expected, found = outcomes(undisturbed.checkout), outcomes(call.checkout)
    assert len(found) == cells * SLOW_GRID["seeds"]
    assert found.items() <= expected.items()
    assert len(call.checkout.files("jobs/**/*.json")) == cells
    assert not left_over(call.checkout)


def refused(call: Call, *words: str) -> None:
    """One line that names the profile and says these words; exit code 2."""
    call.finish(code=2, seconds=60)
    lines = [line for line in call.text.splitlines() if not line.startswith("Using profile")]
    assert len(lines) == 1, call.text
    assert all(word in lines[0] for word in ("slurm/profile.yaml", *words)), lines[0]
