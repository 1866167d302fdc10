"""Nobody reads what is printed, or not all of it can be: trainings go on, and the exit code tells their end."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ipbench import output
from ipbench.cli.main import main
from ipbench.cli.progress import epochs_bar
from ipbench.store import read_json

SMALL = "--model lenet-300-100 --recipe epochs=1 --recipe warmup=0 --recipe train_examples=40 --recipe batch_size=20"
RUN = ["run", *SMALL.split(), "--seed", "0", "--seed", "1", "--out", "r", "--done", "done.json"]


@contextmanager
def full() -> Iterator[io.TextIOWrapper]:
    """A stream that takes nothing more."""
    with Path("/dev/full").open("w", encoding="utf-8") as stream:
        yield stream
        output.abandon(stream)  # its buffer is flushed when it is closed


@contextmanager
def unread() -> Iterator[io.TextIOWrapper]:
    """A pipe whose reader is gone."""
    there, here = os.pipe()
    os.close(there)
    with os.fdopen(here, "w", encoding="utf-8") as stream:
        yield stream
        output.abandon(stream)


@contextmanager
def narrow() -> Iterator[io.TextIOWrapper]:
    """A stream of ASCII, as with LC_ALL=C."""
    with io.TextIOWrapper(io.BytesIO(), encoding="ascii") as stream:
        yield stream


@contextmanager
def closed() -> Iterator[None]:
    """What Python makes of a stream that is closed when it starts."""
    yield None


STREAMS = {"full": full, "unread": unread, "narrow": narrow, "closed": closed}


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_all_runs_are_trained(stream, name, tmp_path, monkeypatch):
    """One of them fails, so that there is something to say on stderr; it is still said in the exit code."""
    monkeypatch.chdir(tmp_path)
    with stream() as taken:
        monkeypatch.setattr(sys, name, taken)
        assert main(RUN) == 0
        assert len(read_json(Path("done.json"))["runs"]) == 2
        next(Path("r").glob("runs/*/0.json")).write_text("damaged")
        Path("done.json").unlink()
        assert main(RUN) == 1
        assert not Path("done.json").exists()


PRINTS = """
import sys
from ipbench.methods import before_training, method

@method(when=before_training, paper="x")
def talks(net, batch):
    print("a score − printed", flush=True)
    print("a warning − printed", file=sys.stderr, flush=True)
    return net.magnitudes()
"""


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_a_method_may_print(stream, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("m.py").write_text(PRINTS)
    with stream() as out, stream() as err:
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        assert main([*RUN, "--method-file", "m.py", "--method", "talks"]) == 0
    assert len(read_json(Path("done.json"))["runs"]) == 2


def test_no_file_takes_the_number_of_a_closed_stream(tmp_path):
    """What a library prints on stderr would land in a record."""
    code = "import sys, os; from ipbench.cli.main import main; main(['--version']);"
    code += " f = open('x', 'w'); assert f.fileno() > 2"
    command = [sys.executable, "-c", f"{code}; os.write(2, b'a warning')"]
    done = subprocess.run(["sh", "-c", 'exec "$@" >&- 2>&- <&-', "sh", *command], cwd=tmp_path, timeout=120)
    assert done.returncode == 0 and (tmp_path / "x").read_bytes() == b""


@pytest.mark.parametrize(
    ("stream", "code", "said"),
    [
        ("full", 2, f"standard output: {os.strerror(errno.ENOSPC)}"),
        ("closed", 2, f"standard output: {os.strerror(errno.EBADF)}"),
        ("unread", 0, ""),
        ("narrow", 0, ""),
    ],
)
def test_a_result_that_is_lost_is_told(stream, code, said, monkeypatch, capsys):
    """A reader that had enough of it, as `head`, is no failure."""
    with STREAMS[stream]() as taken:
        monkeypatch.setattr(sys, "stdout", taken)
        assert main(["methods", "--json"]) == code
    err = capsys.readouterr().err
    assert err == (f"ipbench: {said}\n" if said else "")


def test_what_an_encoding_has_not_is_written_out(monkeypatch):
    with narrow() as taken:
        monkeypatch.setattr(sys, "stdout", taken)
        output.say("IP − SP ± 0.1 漢")
        assert taken.buffer.getvalue() == rb"IP - SP +- 0.1 \u6f22" + b"\n"


def test_a_terminal_obeys_nothing_that_is_printed():
    assert output.printable("a\x1b[31mb\r\x9bc\u202ed\udcffe\tf\ng ä − 漢") == (
        "a\\x1b[31mb\\r\\x9bc\\u202ed\\udcffe\\tf\ng ä − 漢"
    )


def test_a_terminal_that_is_gone_ends_no_training(monkeypatch):
    """The bar of epochs is drawn on it, in a thread and at its end."""
    there, here = os.openpty()
    with os.fdopen(here, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with epochs_bar("a run") as bar:
            bar(1, 3)
            os.close(there)
            bar(2, 3)
        output.complain("the end")
        with suppress(OSError):
            terminal.flush()
        output.abandon(terminal)
