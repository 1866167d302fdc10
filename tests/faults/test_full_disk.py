"""No room for a file: one line that names it, what was there stays, and with room again the same command finishes.

Two ways: a small file system of its own that is full (mounting needs root), and a limit on the size of files (anyone).
"""

from __future__ import annotations

import errno
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ipbench.cli.main import main
from ipbench.data import beton, sources
from ipbench.store import read_tensors, write_bytes
from tests.faults.commands import Experiment, Server, contents, outcomes, temporaries


class TooSmall:
    """Files may not grow beyond a limit of one byte less than a product needs."""

    message = os.strerror(errno.EFBIG)

    def __init__(self, root: Path) -> None:
        self.root = root
        self.limit: int | None = None

    @contextmanager
    def without_room(self, size: int, room: int = 0) -> Iterator[None]:
        """For a file of `size` bytes, in this block."""
        self.limit = size - 1
        yield
        self.limit = None


class Full(TooSmall):
    """A file system in memory with no byte left."""

    message = os.strerror(errno.ENOSPC) + "; make room and give the same command again"

    @contextmanager
    def without_room(self, size: int, room: int = 0) -> Iterator[None]:
        """Fill it up to `room` bytes, in this block."""
        filler = self.root / "filler"
        with filler.open("wb", buffering=0) as file:
            with pytest.raises(OSError, match="No space left"):
                while True:
                    file.write(bytes(4096))
            file.truncate(file.tell() - room)
        yield
        filler.unlink()


@pytest.fixture(params=[Full, TooSmall], ids=["full", "limit"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TooSmall]:
    root = tmp_path / "disk"
    root.mkdir()
    if request.param is TooSmall:
        yield TooSmall(root)
        return
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", root],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=300,
    )
    if mount.returncode:
        pytest.skip(f"no file system of its own: {mount.stderr.strip()}")
    try:
        yield Full(root)
    finally:
        subprocess.run(["umount", root], check=True, timeout=300)


@dataclass(frozen=True)
class Case:
    """One writer.

    Attributes:
        words: the command that writes.
        product: the file that finds no room; the first that matches below the folder.
        size: bytes that the file has at the least.
        before: brings the finished experiment to where this write comes next.
    """

    words: Callable[[Experiment], list[str]]
    product: str
    size: int = 100
    before: Callable[[Experiment], None] = lambda experiment: None


def job(method: str, space: str) -> Callable[[Experiment], list[str]]:
    """The words of the `ipbench run` of a method in a space."""

    def find(experiment: Experiment) -> list[str]:
        return next(words for words in experiment.jobs() if {f"{method}", space} <= set(words))

    return find


def lost(*patterns: str) -> Callable[[Experiment], None]:
    """These files are not there yet."""

    def before(experiment: Experiment) -> None:
        for pattern in patterns:
            for path in [*experiment.folder.glob(pattern)]:
                path.unlink()

    return before


def interrupted(method: str, space: str, folder: str) -> Callable[[Experiment], None]:
    """That job could not write below `folder`, where a link led nowhere: all before it is done."""

    def before(experiment: Experiment) -> None:
        (done,) = experiment.results.glob(f"jobs/*/*/{method}/{space}-*/*/*.json")
        cell = done.name.partition(".")[0]
        for path in (*experiment.results.glob(f"runs/{cell}/*"), *experiment.results.glob(f"ends/{cell}/*")):
            path.unlink()
        place = experiment.results / folder / cell
        place.rmdir()
        place.symlink_to("nowhere")
        experiment.run(*job(method, space)(experiment)).one_line(f"results/tiny/{folder}/{cell}/0", "not written")
        place.unlink()
        assert (experiment.results / f"state/{cell}/0.safetensors").exists()

    return before


def analysis(name: str) -> Callable[[Experiment], list[str]]:
    """A command on the results."""
    return lambda experiment: [*name.split(), "results/tiny"]


def packed(experiment: Experiment) -> list[str]:
    """Pack the first dense net."""
    record = next(iter((experiment.results / "ends").glob("*/0.*")))
    return ["pack", f"results/tiny/runs/{record.parent.name}/0.json", "--out", "net.ipb"]


def unpackable(experiment: Experiment) -> None:
    experiment.run(*packed(experiment)).ok()


CASES = {
    "end": Case(job("dense", "sp"), "results/tiny/ends/*/0.safetensors", 10**6, interrupted("dense", "sp", "ends")),
    "record": Case(job("ft", "sp"), "results/tiny/runs/*/0.json", 3000, interrupted("ft", "sp", "runs")),
    "job": Case(job("ft", "ip"), "results/tiny/jobs/*/*/ft/ip*/*/*.json", 400),
    "grid": Case(lambda e: ["grid", "config/tiny.yaml", "--out", "results/tiny/grid.json"], "results/tiny/grid.json"),
    "parquet": Case(analysis("collect"), "results/tiny/runs.parquet", 1000, lost("results/tiny/runs/*/1.json")),
    "tables": Case(analysis("tables"), "results/tiny/tables/*"),
    "figures": Case(analysis("figures --overview"), "results/tiny/figures/*"),
    "packed": Case(packed, "net.ipb"),
    "unpacked": Case(lambda e: ["unpack", "net.ipb", "--out", "net.safetensors"], "net.safetensors", 100, unpackable),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_writer_without_room(trained: Experiment, disk: TooSmall, case: Case) -> None:
    """The message names the file; nothing else changes; with room again, everything is as it would have been."""
    experiment = trained.copy(disk.root)
    words = case.words(experiment)
    case.before(experiment)
    before = contents(experiment.folder)
    with disk.without_room(case.size):
        ended = experiment.run(*words, limit=disk.limit)
        ended.one_line(f": not written: {disk.message}")
        named = ended.err.split(": not written")[0].removeprefix("ipbench: ")
        assert Path(named).match(case.product), named
        now = contents(experiment.folder)
        now.pop("filler", None)
        assert now == before
    experiment.run(*words).ok()
    undisturbed = outcomes(trained.results)
    assert all(undisturbed[name] == value for name, value in outcomes(experiment.results).items())
    assert list(experiment.folder.glob(case.product)) and not temporaries(experiment.folder)


def test_a_grid_on_a_full_disk(server: Server, disk: TooSmall, trained: Experiment) -> None:
    """Room for the first states of a run but not for the next, which is larger: the old one stays, and is continued."""
    experiment = Experiment(server, disk.root)
    experiment.write()
    experiment.run(*job("dense", "sp")(experiment)).ok()
    with disk.without_room(2 * 10**6, room=4 * 10**6):
        ended = experiment.run(*job("ft", "sp")(experiment), limit=disk.limit)
        ended.one_line("results/tiny/state/", f"not written: {disk.message}")
        assert not temporaries(experiment.folder)
    (state,) = experiment.results.glob("state/*/*")
    facts = read_tensors(state)[1]
    assert facts["stage"] == 2 and not facts["inside"]  # the dense net is read and pruned, nothing is trained
    experiment.train()
    assert outcomes(experiment.results) == outcomes(trained.results)
    assert not list(experiment.results.glob("state/*/*"))


@pytest.mark.ffcv
def test_a_beton_file_without_room(disk: TooSmall, capsys: pytest.CaptureFixture[str]) -> None:
    """In this process: a new one would import FFCV, which takes seconds."""
    if reason := beton.available():
        pytest.skip(reason)
    data, before = disk.root / "data", resource.getrlimit(resource.RLIMIT_FSIZE)
    with disk.without_room(2 * 2**20):  # less than a page, which FFCV writes at once
        resource.setrlimit(resource.RLIMIT_FSIZE, (disk.limit or before[0], before[1]))
        try:
            assert main(["data", "beton", "digits", "--data", str(data)]) == 2
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert f"{data}/beton/digits-train.beton: not written: {disk.message}\n" in capsys.readouterr().err
        assert not list(data.glob("beton/*"))
    assert main(["data", "beton", "digits", "--data", str(data)]) == 0
    for split in sources.SPLITS:
        beton.check("digits", split, beton.beton_path("digits", split, data))


def test_a_file_without_permission_is_named(tmp_path: Path) -> None:
    """Any refusal of the system is told in the same way."""
    from ipbench.errors import BadInput

    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"file/a.json: not written: "):
        write_bytes(tmp_path / "file/a.json", b"")
