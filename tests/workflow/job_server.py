"""`ipbench` commands of Snakemake's jobs, forked from one process that has imported torch and all else they need.

A job calls `python -m ipbench ...` in a shell, with the folder of Snakemake's Python first on PATH. The `python` made
here takes the place of that one: it hands the words, the folder, the environment and the three standard files to the
process that stands ready, passes signals on, and ends as the command does. Everything else it leaves to the real one.
"""

from __future__ import annotations

import array
import atexit
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import traceback
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).parents[2]

#: Isolated and without site-packages: it starts in a hundredth of a second.
PYTHON = """#!{real} -IS
import os, sys

if sys.argv[1:3] != ["-m", "ipbench"] or sys.argv[3:4] == ["lease"]:
    os.execv({real!r}, [{real!r}, *sys.argv[1:]])

import array, json, signal, socket

server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
said = json.dumps([sys.argv[3:], os.getcwd(), dict(os.environ)]).encode()
files = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))]
server.sendmsg([len(said).to_bytes(8, "big")], files)
server.sendall(said)
answers = server.makefile()
process = int(answers.readline())
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, frame: os.kill(process, number))
sys.exit(int(answers.readline() or 137))
"""


@cache
def python() -> str:
    """The path of a `python` whose `ipbench` commands are forked; its process ends with this one."""
    folder = Path(tempfile.mkdtemp(prefix="jobs-"))
    path, address = folder / "bin/python", str(folder / "socket")
    path.parent.mkdir()
    path.write_text(PYTHON.format(real=sys.executable, address=address))
    path.chmod(0o755)
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.workflow.job_server", address], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert server.stdout and server.stdout.readline() == "ready\n"
    atexit.register(shutil.rmtree, folder)
    atexit.register(server.communicate, timeout=60)
    return str(path)


def serve(connection: socket.socket) -> NoReturn:
    """Be the command that the other side asks for; its exit code is the last that it is told."""
    code = 1
    try:
        files = array.array("i")
        head, rights, _, _ = connection.recvmsg(8, socket.CMSG_SPACE(3 * files.itemsize))
        files.frombytes(rights[0][2])
        words, folder, environment = json.loads(connection.makefile("rb").read(int.from_bytes(head, "big")))
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.path[0], sys.argv = folder, ["ipbench", *words]  # as `python -m ipbench` has them
        connection.sendall(b"%d\n" % os.getpid())
        code = main(words)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.chdir("/")
        for number in range(3):  # whoever hears of the end may unmount what the command wrote to
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
        connection.sendall(b"%d\n" % code)
        os._exit(code)


if __name__ == "__main__":
    import select

    from tests.faults.fork_server import main, prepare  # with them all that commands import

    prepare()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(sys.argv[1])
        listening.listen()
        print("ready", flush=True)
        while sys.stdin not in select.select([listening, sys.stdin], [], [])[0]:
            connection, _ = listening.accept()
            if not os.fork():
                listening.close()
                serve(connection)
            connection.close()
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
