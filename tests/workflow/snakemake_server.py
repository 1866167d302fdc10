"""A process that has imported Snakemake and forks one child per call of it: real calls, without the second of imports.

Reads lines of JSON on stdin, `[words, folder, environment, log, python]`; answers each with the exit code when the call
has ended. A call whose environment changes how Python starts (PYTHONPATH) wants a process of its own instead.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import traceback
from functools import cache
from pathlib import Path

from tests.workflow import job_server

ROOT = Path(__file__).parents[2]


@cache
def _server() -> subprocess.Popen[str]:
    """The process, one for all tests of this one; it ends when its stdin is closed."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.workflow.snakemake_server"], cwd=ROOT, text=True, bufsize=1,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    atexit.register(server.communicate, timeout=60)
    return server


def call(words: list[str], folder: Path, environment: dict[str, str], log: Path) -> int:
    """`snakemake WORDS` in a folder.

    Args:
        words: behind `snakemake`.
        folder: to work in.
        environment: all of it.
        log: takes stdout and stderr together.

    Returns:
        The exit code; negative: the signal that ended it (SIGALRM after ten minutes).
    """
    server = _server()
    assert server.stdin and server.stdout
    server.stdin.write(json.dumps([words, str(folder), environment, str(log), job_server.python()]) + "\n")
    answer = server.stdout.readline()
    assert answer, "the process that forks calls of Snakemake has ended; its error is above"
    return int(answer)


def serve(words: list[str], folder: str, environment: dict[str, str], log: str, python: str) -> int:
    """Fork a child that is such a call, and wait for it; its jobs find that `python`."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        signal.alarm(600)
        os.chdir(folder)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number, file in ((0, os.open(os.devnull, os.O_RDONLY)), (1, output), (2, output)):
            os.dup2(file, number)
        os.environ.clear()
        os.environ.update(environment)
        sys.path[0], sys.argv = folder, ["snakemake", *words]  # as `python -m snakemake` has them
        sys.executable = python
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    # Everything that a call imports: Snakemake some of it late, and the Snakefile ours.
    import smart_open  # noqa: F401
    import yte  # noqa: F401
    from snakemake.cli import main
    from snakemake.report import html_reporter  # noqa: F401

    from ipbench import methods
    from ipbench.analysis import plan  # noqa: F401
    from ipbench.machine import lease  # noqa: F401
    from ipbench.planning import experiment, numerics  # noqa: F401

    methods.methods()  # of the package, found by scanning
    for line in sys.stdin:
        print(serve(*json.loads(line)), flush=True)
