"""Several processes that train together, forked from one that has imported torch; a test slows or breaks any of them.

Reads a line of JSON on stdin for every command, `[world, words, folder, faults, seconds]`, and answers with one: exit
codes and what was written to stderr, by rank; the code of a process that did not end in time is null. There is no
torchrun that ends the others when one fails: they have to notice by themselves.

A fault is `[rank, "module:place", action, call]`: before that call of the place (counted from 1; 0: before every one)
the process of that rank sleeps (`["sleep", seconds]`), fails (`["raise", kind, message]`), dies (`["exit", code]`), or
finds that a signal has come (`["stop"]`).
"""

from __future__ import annotations

import builtins
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]


class Ended(NamedTuple):
    """How the processes of a command ended, by rank."""

    codes: list[int | None]
    errors: list[str]

    @property
    def lines(self) -> list[str]:
        """What they all said, empty lines left out."""
        return [line for text in self.errors for line in text.splitlines() if line.strip()]


class Several:
    """The other process, from a test's side."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.several"], cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", "GIT_OPTIONAL_LOCKS": "0"},
        )  # fmt: skip

    def run(
        self, world: int, words: Sequence[str], folder: Path, *faults: Sequence[Any], seconds: float = 200
    ) -> Ended:
        """`ipbench WORDS` in so many processes."""
        folder.mkdir(exist_ok=True)
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps([world, words, str(folder), faults, seconds]) + "\n")
        self._process.stdin.flush()
        return Ended(*json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        self._process.communicate(timeout=60)


@contextmanager
def several() -> Iterator[Several]:
    """For a fixture."""
    process = Several()
    try:
        yield process
    finally:
        process.close()


def disturb(place: str, action: Sequence[Any], call: int) -> None:
    """Replace a function, or a method of a class, by one that does this before."""
    name, _, path = place.partition(":")
    *outer, last = path.split(".")
    owner: Any = importlib.import_module(name)
    for part in outer:
        owner = getattr(owner, part)
    former, calls = getattr(owner, last), iter(range(1, 1_000_000))

    def instead(*given: Any, **named: Any) -> Any:
        number = next(calls)
        if call in (0, number):
            if action[0] == "sleep":
                time.sleep(action[1])
            elif action[0] == "exit":
                os._exit(action[1])
            elif action[0] == "stop":
                signal.raise_signal(signal.SIGTERM)
            else:
                module, _, kind = action[1].rpartition(".")
                raise getattr(importlib.import_module(module) if module else builtins, kind)(action[2])
        return former(*given, **named)

    setattr(owner, last, instead)


def child(rank: int, world: int, port: int, words: list[str], folder: str, faults: list[Any]) -> None:
    """Be one of the processes; does not return."""
    code = 1
    try:
        os.chdir(folder)
        for number in (1, 2):
            os.dup2(os.open(f"{number}.{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        from ipbench.cli.main import main
        from ipbench.runs import state as resume

        resume.SECONDS_BETWEEN_STATES = 0.0
        for of, place, action, call in faults:
            if of == rank:
                disturb(place, action, call)
        code = main(words)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve(world: int, words: list[str], folder: str, faults: list[Any], seconds: float) -> Ended:
    """Fork the processes and wait for them, no longer than this."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(world):
        children.append(os.fork())
        if not children[-1]:
            child(rank, world, port, words, folder, faults)
    codes: list[int | None] = [None] * world
    deadline = time.monotonic() + seconds
    while None in codes and time.monotonic() < deadline:
        for rank, pid in enumerate(children):
            if codes[rank] is None and (found := os.waitpid(pid, os.WNOHANG))[0]:
                codes[rank] = os.waitstatus_to_exitcode(found[1])
        time.sleep(0.02)
    for rank, pid in enumerate(children):
        if codes[rank] is None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return Ended(codes, [Path(folder, f"2.{rank}").read_text() for rank in range(world)])


if __name__ == "__main__":
    import torch._dynamo  # noqa: F401 (what DistributedDataParallel imports when it is first used: it takes seconds)

    from ipbench.runs import execute as running  # noqa: F401 (with it all else that a training imports)

    for line in sys.stdin:
        print(json.dumps(serve(*json.loads(line))), flush=True)
