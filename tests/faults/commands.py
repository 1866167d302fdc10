"""`ipbench` commands as processes that a test may kill, and what they leave behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ipbench.planning import experiment
from ipbench.store import read_json

ROOT = Path(__file__).parents[2]

#: Dense nets and what continues them, in both spaces; each of the eight runs is trained in a fraction of a second.
TINY: dict[str, Any] = {
    "datasets": "digits",
    "recipe": {"epochs": 2, "train_examples": 120, "batch_size": 50, "warmup": 0},
    "methods": ["dense", "ft"],
    "sparsities": [0.5],
    "seeds": 2,
}


class Server:
    """Starts `ipbench` commands as processes that have torch imported already."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.fork_server"], cwd=ROOT, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, bufsize=1,
            env={**os.environ, "OMP_NUM_THREADS": "1", "GIT_OPTIONAL_LOCKS": "0"},
        )  # fmt: skip
        self._logs = tempfile.TemporaryDirectory()
        self.run(["--version"], ROOT).ok()  # its imports are done

    def ask(self, *words: Any) -> int:
        """One line to the process, one number back."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(words) + "\n")
        return int(self._process.stdout.readline())

    def start(self, words: Sequence[object], folder: Path, limit: int | None = None) -> Command:
        """Start `ipbench WORDS` in a folder; no file may grow beyond `limit` bytes."""
        handle, log = tempfile.mkstemp(dir=self._logs.name)
        os.close(handle)
        return Command(self, self.ask("start", [*map(str, words)], str(folder), log, limit), Path(log))

    def run(self, words: Sequence[object], folder: Path, limit: int | None = None) -> Ended:
        """Run `ipbench WORDS` to its end."""
        return self.start(words, folder, limit).wait()

    def close(self) -> None:
        """End the process; its children are those of the tests."""
        self._process.communicate(timeout=60)
        self._logs.cleanup()


@dataclass(frozen=True)
class Ended:
    """Exit code (negative: the signal that ended it), stdout and stderr."""

    code: int
    out: str
    err: str

    def ok(self) -> None:
        """The command succeeded."""
        assert self.code == 0, self.err

    def one_line(self, *words: object, code: int = 2) -> None:
        """The command ended with one line on stderr that has these words."""
        lines = self.err.splitlines()
        assert self.code == code and len(lines) == 1 and lines[0].startswith("ipbench: "), f"{self.code}\n{self.err}"
        assert all(str(word) in lines[0] for word in words), (lines[0], words)


@dataclass(frozen=True)
class Command:
    """A command at work."""

    server: Server
    pid: int
    log: Path

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal; the process is not reaped yet, so its id is its own."""
        os.kill(self.pid, number)

    def running(self) -> bool:
        """Whether it has not ended yet."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"

    def wait_for(self, condition: Callable[[], bool], seconds: float = 60) -> bool:
        """Look again and again until the condition holds; False if the process ended before."""
        deadline = time.monotonic() + seconds
        while not condition():
            if not self.running():
                return False
            assert time.monotonic() < deadline, "waited in vain"
        return True

    def wait(self) -> Ended:
        """Wait for its end."""
        code = self.server.ask("wait", self.pid)
        paths = self.log, Path(f"{self.log}.err")
        out, err = (path.read_text() if path.exists() else "" for path in paths)  # killed before it printed
        for path in paths:
            path.unlink(missing_ok=True)
        return Ended(code, out, err)


@dataclass(frozen=True)
class Experiment:
    """A small experiment in a folder: config/tiny.yaml and results/tiny/, made without Snakemake."""

    server: Server
    folder: Path

    @property
    def results(self) -> Path:
        return self.folder / "results/tiny"

    def write(self, **changes: Any) -> None:
        """Write config/tiny.yaml and its grid."""
        path = self.folder / "config/tiny.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump({**TINY, **changes}))
        self.run("grid", "config/tiny.yaml", "--out", "results/tiny/grid.json").ok()

    def run(self, *words: object, limit: int | None = None) -> Ended:
        """Run `ipbench WORDS` in the folder."""
        return self.server.run(words, self.folder, limit)

    def jobs(self) -> list[list[str]]:
        """The words of every job's `ipbench run`, parents first."""
        jobs = experiment.Experiment.load(self.folder / "config/tiny.yaml").jobs()
        out = ["--out", "results/tiny"]
        return [
            ["run", *job.arguments, *out, "--done", f"results/tiny/{job.path}"]
            for job in sorted(jobs, key=lambda job: job.runs[0].method != "dense")
        ]

    def train(self) -> None:
        """Run every job."""
        for words in self.jobs():
            self.run(*words).ok()

    def copy(self, folder: Path) -> Experiment:
        """The same in another folder."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        return Experiment(self.server, folder)


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def outcomes(results: Path) -> dict[str, str]:
    """The hash of every record's outcome, by the record's place; reading checks each file."""
    paths = sorted((results / "runs").glob("*/*.json"))
    return {path.relative_to(results).as_posix(): read_json(path)["outcome_sha256"] for path in paths}


def temporaries(folder: Path) -> list[Path]:
    """Files that were being written."""
    return [path for path in folder.rglob(".*") if ".tmp" in path.name]
