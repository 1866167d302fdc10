"""Snakemake interrupted, started twice, with clocks that disagree, on a full disk: the finished grid is the same."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.commands import TINY, Experiment, outcomes, temporaries
from tests.workflow.conftest import Checkout, check_out

pytestmark = pytest.mark.workflow

#: One job of two runs, long enough to be hit.
LONGER = {**TINY, "recipe": {**TINY["recipe"], "epochs": 25}, "methods": ["random"], "spaces": ["sp"]}
TARGET = "results/tiny/runs.parquet"
DAY = 86_400


@pytest.fixture(scope="module")
def expected(trained: Experiment, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The outcomes of `LONGER`, undisturbed."""
    experiment = Experiment(trained.server, tmp_path_factory.mktemp("expected"))
    experiment.write(**LONGER)
    experiment.train()
    return outcomes(experiment.results)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """Nothing has run yet."""
    checkout = check_out(tmp_path)
    checkout.write(**LONGER)
    return checkout


@contextmanager
def at_work(checkout: Checkout) -> Iterator[subprocess.Popen[str]]:
    """Snakemake in a session of its own; in the block, a run has begun to save its state."""
    with subprocess.Popen(
        checkout.command("--", TARGET), cwd=checkout.folder, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        wait_for(lambda: bool(list(checkout.results.glob("state/*/*.safetensors"))), process)
        yield process


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process is None or process.poll() is None, process.stdout.read() if process.stdout else ""
        assert time.monotonic() < deadline
        time.sleep(0.01)


def trainings(checkout: Checkout) -> set[str]:
    """The ids of processes that train a run of this checkout."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
            here = (path.parent / "cwd").readlink() == checkout.folder
        except OSError:
            continue
        if b"ipbench" in words and b"run" in words and here:
            found.add(path.parent.name)
    return found


def check(checkout: Checkout, expected: dict[str, str]) -> None:
    """All records are there and equal, and nothing is half-written."""
    assert outcomes(checkout.results) == expected
    assert not temporaries(checkout.results) and not list(checkout.results.glob("state/*/*"))


@pytest.mark.long
def test_interrupted_and_called_again(checkout: Checkout, expected: dict[str, str]) -> None:
    """No lock is left, and each call goes on where the last one was."""
    with at_work(checkout) as process:
        os.killpg(process.pid, signal.SIGINT)  # Ctrl+C: to Snakemake and its jobs
        out, _ = process.communicate(timeout=120)
        assert process.returncode != 0, out
    assert not (checkout.results / "runs.parquet").exists()
    with at_work(checkout) as process:
        process.terminate()  # SIGTERM to Snakemake alone: its job ends, nothing more is started
        out, _ = process.communicate(timeout=120)
        assert process.returncode != 0, out
    assert not (checkout.results / "runs.parquet").exists()
    checkout.done("--", TARGET)
    check(checkout, expected)


def test_a_second_call_is_refused_and_a_killed_one_leaves_its_job(checkout: Checkout, expected: dict[str, str]) -> None:
    """SIGKILL to Snakemake but not to its job: the next Snakemake trains the same runs beside it."""
    with at_work(checkout) as process:
        held = trainings(checkout)
        for training in held:  # on a busy machine it would be finished before the second call looks
            os.kill(int(training), signal.SIGSTOP)
        second = checkout.snakemake("--", TARGET)
        assert second.returncode != 0
        assert "Directory cannot be locked" in second.stdout and "Traceback" not in second.stdout
        assert process.poll() is None  # the first goes on
        process.kill()
        for training in held:
            os.kill(int(training), signal.SIGCONT)
        process.communicate(timeout=120)
    checkout.done("--unlock")
    checkout.done("--", TARGET)
    wait_for(lambda: not trainings(checkout))
    check(checkout, expected)


def test_clocks_that_disagree(checkout: Checkout, trained: Experiment) -> None:
    """Dates two days off, between jobs and afterwards: nothing is trained twice, and what is finished stays so.

    Snakemake refuses the file of a job that is older than that of the job before it, and says why; the records stay.
    """
    checkout.write(**TINY)
    chance = random.Random(0)

    def shift(files: Iterable[Path]) -> None:
        for path in files:
            if path.is_file():
                place = time.time() + chance.choice([-2, 2]) * DAY
                os.utime(path, (place, place))

    dense = [words[-1] for words in trained.jobs() if words[words.index("--method") + 1] == "dense"]
    checkout.done("--", *dense)
    trained_first = checkout.files("runs/*/*")
    for days in (2, 0):
        for path in map(checkout.folder.joinpath, dense):
            os.utime(path, (time.time() + days * DAY,) * 2)
        call = checkout.snakemake("--", TARGET)
        assert (call.returncode != 0) == ("could indicate a clock skew problem" in call.stdout) == bool(days), (
            call.stdout
        )
        assert outcomes(checkout.results) == outcomes(trained.results)
        if days:
            records = checkout.files("runs/*/*")
            assert records.items() > trained_first.items()
        assert checkout.files("runs/*/*") == records
    for _ in range(2):
        shift([*checkout.folder.glob("data/**/*"), *checkout.folder.glob("config/*")])
        shift(path for path in checkout.results.rglob("*") if path.parent.parent.name != "runs")
        assert checkout.planned("--", TARGET) == {}
    assert "Nothing to be done" in checkout.done("--", TARGET)
    assert checkout.files("runs/*/*") == records


def test_a_full_disk(checkout: Checkout, expected: dict[str, str]) -> None:
    """The log is on the full disk, too; with room, the same call finishes."""
    checkout.results.parent.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", checkout.results.parent]
    refused = subprocess.run(mount, stderr=subprocess.PIPE, text=True, check=False, timeout=300)
    if refused.returncode:
        pytest.skip(f"no file system of its own: {refused.stderr.strip()}")
    try:
        failed = checkout.snakemake("--", TARGET)
        assert failed.returncode == 1 and "No space left on device; make room" in failed.stdout, failed.stdout
        assert "Traceback" not in failed.stdout and not temporaries(checkout.results)
        subprocess.run(["mount", "-o", "remount,size=64m", checkout.results.parent], check=True, timeout=300)
        checkout.done("--", TARGET)
        check(checkout, expected)
    finally:
        subprocess.run(["umount", checkout.results.parent], check=True, timeout=300)
