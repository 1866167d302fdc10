"""A training killed at any moment and called again ends as the undisturbed one, bit for bit."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from ipbench.store import read_json, read_tensors, tensors_digest
from tests.faults.commands import Command, Server, outcomes, temporaries

#: A net, two levels upon it, two seeds: six runs that write states after every epoch, ends, records and a job's file.
WORDS = [
    "run", "--method", "lt", "--option", "rate=0.5", "--option", "rewind=0.5", "--sparsity", "0.75", "--space", "ip",
    "--recipe", "epochs=2", "--recipe", "train_examples=120", "--recipe", "batch_size=50", "--recipe", "warmup=0",
    "--seed", "0", "--seed", "1", "--keep", "--out", "results", "--done", "job.json",
]  # fmt: skip

#: How often the process is killed: while it starts, while it trains, and while it writes a file.
MOMENTS = ["start"] * 4 + ["training"] * 6 + ["write"] * 10


def ends(folder: Path) -> dict[str, str]:
    """The tensors of every end, as hashes."""
    paths = sorted((folder / "results/ends").glob("*/*"))
    return {path.relative_to(folder).as_posix(): tensors_digest(read_tensors(path)[0]) for path in paths}


@pytest.fixture(scope="module")
def undisturbed(server: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The finished job, and how many seconds it takes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    start = time.monotonic()
    server.run(WORDS, folder).ok()
    return folder, time.monotonic() - start


def killed_at(command: Command, moment: str, folder: Path, seconds: float, chance: random.Random) -> bool:
    """Kill a command at such a moment; False if it ended before."""
    if moment != "write":
        deadline = time.monotonic() + chance.uniform(0, 0.1 if moment == "start" else seconds / 3)
        if not command.wait_for(lambda: time.monotonic() > deadline):
            return False
        command.kill()
        return True
    for _ in range(chance.randint(1, 4)):
        known = set(temporaries(folder))
        if not command.wait_for(lambda known=known: bool(set(temporaries(folder)) - known)):
            return False
    known = set() if not temporaries(folder) else set(temporaries(folder)) & known
    while True:  # stopped first: so the file is certainly half-written when the process dies
        command.kill(signal.SIGSTOP)
        if set(temporaries(folder)) - known:
            command.kill()
            return True
        command.kill(signal.SIGCONT)
        if not command.wait_for(lambda: bool(set(temporaries(folder)) - known)):
            return False


def check(folder: Path, undisturbed: Path) -> None:
    """The folder holds what the undisturbed one does, and nothing besides."""
    assert outcomes(folder / "results") == outcomes(undisturbed / "results")
    assert ends(folder) == ends(undisturbed)
    assert read_json(folder / "job.json") == read_json(undisturbed / "job.json")
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {path.relative_to(undisturbed).as_posix() for path in undisturbed.rglob("*") if path.is_file()}


@pytest.mark.long
def test_killed_at_twenty_moments(server: Server, undisturbed: tuple[Path, float], tmp_path: Path) -> None:
    chance = random.Random(0)
    moments = MOMENTS.copy()
    chance.shuffle(moments)
    finished = 0
    while moments:
        folder = tmp_path / str(finished)
        folder.mkdir()
        code = None
        while code != 0:
            command = server.start(WORDS, folder)
            hit = killed_at(command, moments[-1], folder, undisturbed[1], chance) if moments else False
            ended = command.wait()
            code = ended.code
            assert code == (-signal.SIGKILL if hit else 0), ended.err
            if hit:
                moments.pop()
        check(folder, undisturbed[0])
        finished += 1
    assert finished < 10  # or the kills would hardly have disturbed anything


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_by_a_signal(server: Server, undisturbed: tuple[Path, float], tmp_path: Path, number: int) -> None:
    for _ in range(3):
        command = server.start(WORDS, tmp_path)
        states = set(tmp_path.rglob("*.safetensors"))
        command.wait_for(lambda states=states: set(tmp_path.rglob("*.safetensors")) != states)
        command.kill(number)
        ended = command.wait()
        assert ended.code == 75 and "Traceback" not in ended.err, f"{ended.code}\n{ended.err}"
        assert not temporaries(tmp_path)
    server.run(WORDS, tmp_path).ok()
    check(tmp_path, undisturbed[0])


def test_two_processes_at_the_same_runs(server: Server, undisturbed: tuple[Path, float], tmp_path: Path) -> None:
    """They read and write the same files, at the same time or a little apart; the third is killed meanwhile."""
    for number, apart in enumerate((0.0, 0.3)):
        folder = tmp_path / str(number)
        folder.mkdir()
        commands = []
        for _ in range(3):
            commands.append(server.start(WORDS, folder))
            time.sleep(apart)
        commands.pop(1).kill()
        for command in commands:
            command.wait().ok()
        server.run(WORDS, folder).ok()  # the killed one may have saved the state of a run that another had finished
        for left in folder.rglob(".*.tmp.*"):  # of the killed one; the next write of that file would remove it
            left.unlink()
        check(folder, undisturbed[0])


def test_a_write_spares_the_temporary_file_of_a_process_at_work(tmp_path: Path) -> None:
    """Only what nobody writes any more is removed."""
    from ipbench.store import atomic, write_text

    path = tmp_path / "a.json"
    abandoned = tmp_path / ".a.json.k1ll3d00.tmp.json"
    abandoned.write_text("half")
    with atomic(path) as temporary:
        temporary.write_text("slow")
        write_text(path, "quick")
        assert path.read_text() == "quick" and temporary.exists() and not abandoned.exists()
    assert path.read_text() == "slow" and [*tmp_path.iterdir()] == [path]
