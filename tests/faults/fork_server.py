"""A process that has imported torch and forks one child per `ipbench` command: real processes, without the imports.

Reads lines of JSON on stdin, answers each with a line on stdout: `["start", words, folder, log, limit]` with a process
id, `["wait", id]` with the exit code (negative: the signal that ended it).
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import traceback
from pathlib import Path

import safetensors.torch  # noqa: F401

from ipbench.analysis import collect, figures, tables, terminal  # noqa: F401
from ipbench.cli.main import main
from ipbench.data import sources
from ipbench.runs import state as resume
from tests import fonts


def start(words: list[str], folder: str, log: str, limit: int | None) -> int:
    """Fork a child that executes one command line as a process of its own would; returns its id.

    Args:
        words: behind `ipbench`.
        folder: to work in.
        log: takes stdout; stderr goes beside it, into a file with `.err` behind its name.
        limit: bytes that a file may have.
    """
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        signal.alarm(300)  # no child outlives its test
        os.chdir(folder)
        for number, name in ((1, log), (2, f"{log}.err")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        code = main(words)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def prepare() -> None:
    """What every child would do anew, or for long: read digits, and cut fonts."""
    for split in ("train", "test"):
        sources.load("digits", split, Path("data"))
    fonts.without_layout()


if __name__ == "__main__":
    resume.SECONDS_BETWEEN_STATES = 0.0  # so that there is something to lose
    prepare()
    for line in sys.stdin:
        what, *values = json.loads(line)
        if what == "start":
            answer = start(*values)
        else:
            answer = os.waitstatus_to_exitcode(os.waitpid(values[0], 0)[1])
        print(answer, flush=True)
