"""Leases of pretend GPUs by real processes: never two jobs in one place, and free again however a job ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ipbench.cli.main import main
from ipbench.errors import BadInput
from ipbench.machine import lease

#: Writes the GPUs that it sees and when, and holds them for a moment.
STAMP = """
import os, sys, time
begin = time.monotonic()
time.sleep(0.3)
open(sys.argv[1], "w").write(f"{os.environ['CUDA_VISIBLE_DEVICES']} {begin} {time.monotonic()}")
"""
#: Says that it is there, and stays.
STAY = "import time; print('here', flush=True); time.sleep(300)"
#: The same, by a child in a session of its own that inherits nothing but the standard streams.
CHILD = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {STAY!r}], start_new_session=True)
print(child.pid, flush=True)
time.sleep(300)
"""

GPU = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"
MIG = GPU.replace("GPU", "MIG")

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `ipbench lease WORDS -- python -c PROGRAM ARGUMENTS`; all of them end with the test."""
    started: list[subprocess.Popen[str]] = []

    def begin(words: str, *program: str) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "ipbench", "lease", *words.split(), "--", sys.executable, *program],
                env={**os.environ, lease.FOLDER: str(tmp_path / "locks")},
                preexec_fn=lambda: signal.alarm(200),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate(timeout=60)


def line(process: subprocess.Popen[str]) -> str:
    """The next line that a process prints."""
    assert process.stdout
    return process.stdout.readline().strip()


def waits(process: subprocess.Popen[str]) -> None:
    """Assert that a process says that it waits, and goes on waiting for longer than it takes to look again."""
    assert process.stderr
    assert "waiting for" in process.stderr.readline()
    time.sleep(4 * lease.SECONDS)
    assert process.poll() is None


def stamps(folder: Path) -> list[tuple[list[str], float, float]]:
    """GPUs, begin and end of every job that wrote them."""
    words = [path.read_text().split() for path in folder.glob("*.stamp")]
    return [(gpus.split(","), float(begin), float(end)) for gpus, begin, end in words]


def most_at_a_time(jobs: list[tuple[list[str], float, float]], gpu: str) -> int:
    """How many jobs had a GPU at the same moment."""
    own = [(begin, end) for gpus, begin, end in jobs if gpu in gpus]
    return max((sum(b <= begin < e for b, e in own) for begin, _ in own), default=0)


@pytest.mark.parametrize(
    ("words", "jobs", "count", "most"),
    [("--gpus 0,1", 6, 1, 1), ("--gpus 0,1 --per-gpu 2", 8, 1, 2), ("--gpus 0,1,2 --count 2", 4, 2, 1)],
)
def test_jobs_never_overlap_in_one_place(tmp_path, start, words, jobs, count, most):
    processes = [start(words, "-c", STAMP, str(tmp_path / f"{number}.stamp")) for number in range(jobs)]
    assert [process.wait(timeout=60) for process in processes] == [0] * jobs
    found = stamps(tmp_path)
    assert len(found) == jobs and all(len(set(gpus)) == count for gpus, _, _ in found)
    for gpu in "012":
        assert most_at_a_time(found, gpu) <= most


def test_jobs_of_one_and_of_two_gpus_wait_for_each_other(tmp_path, start):
    """Taking one of two, and waiting for the other one that somebody else has taken, would never end."""
    processes = [
        start(f"--gpus 0,1 --count {1 + number % 2}", "-c", STAMP, str(tmp_path / f"{number}.stamp"))
        for number in range(6)
    ]
    assert [process.wait(timeout=60) for process in processes] == [0] * 6
    assert all(most_at_a_time(stamps(tmp_path), gpu) == 1 for gpu in "01")


def test_the_least_used_gpu_is_taken(tmp_path, start):
    stay = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ['CUDA_DEVICE_ORDER'], flush=True);" + STAY
    found = [line(start("--gpus 0,1 --per-gpu 2", "-c", stay)) for _ in range(4)]
    assert found == [f"{gpu} PCI_BUS_ID" for gpu in ("0", "1", "0", "1")]


def test_a_killed_job_gives_its_gpu_back(start):
    first = start("--gpus 0", "-c", STAY)
    assert line(first) == "here"
    second = start("--gpus 0", "-c", STAY)
    waits(second)
    first.send_signal(signal.SIGKILL)
    assert line(second) == "here"


def test_a_child_that_survives_keeps_the_gpu(start):
    first = start("--gpus 0", "-c", CHILD)
    child = int(line(first))
    assert line(first) == "here"
    first.send_signal(signal.SIGKILL)
    first.wait(timeout=60)
    try:
        second = start("--gpus 0", "-c", STAY)
        waits(second)
    finally:
        os.kill(child, signal.SIGKILL)
    assert line(second) == "here"


def test_torchruns_workers_keep_their_gpus_when_it_is_killed(tmp_path, start):
    script = tmp_path / "worker.py"
    script.write_text("import os, time; print(os.getpid(), flush=True); time.sleep(300)")
    run = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script))
    first = start("--gpus 0,1 --count 2", *run)
    workers = [int(line(first)), int(line(first))]
    first.send_signal(signal.SIGKILL)
    first.wait(timeout=60)
    try:
        second = start("--gpus 0,1", "-c", STAY)
        waits(second)
        os.kill(workers.pop(), signal.SIGKILL)
        time.sleep(4 * lease.SECONDS)
        assert second.poll() is None  # the GPUs of a job are given back together
    finally:
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
    assert line(second) == "here"


def test_signals_and_the_exit_status_are_those_of_the_command(start):
    process = start("--gpus 0", "-c", "import sys; print(sys.stdin.read() == '', flush=True); sys.exit(75)")
    assert line(process) == "True" and process.wait(timeout=60) == 75
    process = start("--gpus 0", "-c", STAY)
    assert line(process) == "here"
    process.terminate()
    assert process.wait(timeout=60) == -signal.SIGTERM


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--gpus 0,,1", "--gpus: '' is no GPU: give indices or UUIDs with commas between them, e.g. 0,1"),
        ("--gpus 0,x", "--gpus: 'x' is no GPU"),
        ("--gpus 00", "--gpus: '00' is no GPU"),
        ("--gpus -1", "--gpus: '-1' is no GPU"),
        ("--gpus $(id)", "--gpus: '$(id)' is no GPU"),
        ("--gpus 0,1,0", "--gpus: GPU 0 is given twice"),
        (f"--gpus 0,{GPU}", "--gpus: indices and UUIDs are mixed, of which CUDA sees the first kind alone"),
        (f"--gpus {MIG},{MIG[:-1]}0 --count 2", "2 GPUs for one job, but a process sees one instance of MIG alone"),
        (f"--gpus {GPU},{MIG} --count 2", "2 GPUs for one job, but a process sees one instance of MIG alone"),
        ("--gpus 0 --per-gpu 0", "'--per-gpu': 0 is not"),
        ("--gpus 0 --per-gpu 65", "65 jobs per GPU: from 1 to 64"),
        ("--gpus 0,1 --count 3", "3 GPUs for one job, each for one of its processes: from 1 to 2 here"),
        ("--gpus 0 --count 0", "'--count': 0 is not"),
        ("--gpus 0 -- no-such-program", "no-such-program: cannot be started: No such file or directory"),
        ("--gpus 0", "Missing argument"),
    ],
)
def test_bad_input_is_one_line(words, message, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv(lease.FOLDER, str(tmp_path / "locks"))
    own_input = os.dup(0)  # the command that cannot be started leaves its standard input behind
    try:
        assert (
            main(["lease", *words.split(), *([] if "-- " in words or message.startswith("Missing") else ["true"])]) == 2
        )
    finally:
        os.dup2(own_input, 0)
        os.close(own_input)
    error = capfd.readouterr().err
    assert error.startswith("ipbench: ") and error.count("\n") == 1 and message in error


def test_uuids_are_ids(start):
    assert lease.parse_gpus(f"{GPU}, {MIG}") == [GPU, MIG]
    lease.check([GPU, MIG], 1, 1)
    lease.check([GPU, GPU[:-1] + "0"], 1, 2)
    assert line(start(f"--gpus {GPU}", "-c", "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])")) == GPU


def test_the_command_knows_how_many_jobs_share_a_gpu(start):
    assert line(start("--gpus 0 --per-gpu 3", "-c", f"import os; print(os.environ[{lease.JOBS_PER_GPU!r}])")) == "3"


def test_every_user_has_a_folder_of_their_own(tmp_path, monkeypatch):
    monkeypatch.delenv(lease.FOLDER, raising=False)
    mine = lease._folder()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert lease._folder() != mine and "12345" in lease._folder().name
    mine = tmp_path / "mine"
    mine.mkdir()
    with pytest.raises(BadInput, match="not a folder that only you can write to") as error:
        lease._open(mine)  # it belongs to who runs this test
    assert "\n" not in str(error.value)


def test_a_folder_that_others_could_change_is_refused(tmp_path):
    shared, link, file = tmp_path / "shared", tmp_path / "link", tmp_path / "file"
    shared.mkdir()
    shared.chmod(0o777)
    (tmp_path / "own").mkdir(mode=0o700)
    link.symlink_to(tmp_path / "own")
    file.touch()
    for place in (shared, link, file, tmp_path / "no" / "such"):
        with pytest.raises(BadInput, match=lease.FOLDER) as error:
            lease._open(place)
        assert str(place) in str(error.value) and "\n" not in str(error.value)
