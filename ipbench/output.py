"""What commands print. Nobody may read it: a closed, full or narrow stream never ends a training.

All that is printed comes through here: characters that a terminal obeys, which foreign files may hold, are written out,
and so are those that the stream's encoding does not have.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, TextIO, cast

#: What stands for our own characters where an encoding has not got them; others are written out, as in "\\u6f22".
_PLAIN = {"−": "-", "–": "-", "—": "-", "─": "-", "±": "+-", "×": "x", "…": "...", "≤": "<=", "≥": ">=", "≈": "~"}
_PLAINLY = "ipbench-plainly"

_lost: OSError | None = None


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """An error handler of codecs."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lacking), error.end


codecs.register_error(_PLAINLY, _plainly)


def printable(text: str) -> str:
    r"""The text with control characters and the like written out, as in "\x1b[31m"; line breaks stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def say(text: object) -> None:
    """Print a result on standard output. That it is lost is told at the end, by `lost`."""
    global _lost
    _lost = _write(sys.stdout, f"{text}\n") or _lost


def progress(text: object) -> None:
    """Print on standard output what can do without a reader, because it stands in files, too."""
    _write(sys.stdout, f"{text}\n")


def complain(text: object) -> None:
    """Print on standard error."""
    _write(sys.stderr, f"{text}\n")


def lost() -> str:
    """Why results did not reach standard output; empty if they did, or if a reader had enough of them (`| head`)."""
    return os.strerror(_lost.errno or errno.EIO) if _lost and _lost.errno != errno.EPIPE else ""


def begin() -> None:
    """Before a command: nothing is lost, and no file that it opens is taken for one of the three standard streams."""
    global _lost
    _lost = None
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # takes the lowest free number


def _write(stream: IO[str] | None, text: str) -> OSError | None:
    """Write and flush; returns what went wrong. From then on the stream leads nowhere."""
    if stream is None:  # closed when Python started
        return OSError(errno.EBADF, os.strerror(errno.EBADF))
    encoding = getattr(stream, "encoding", None) or "utf-8"
    text = printable(text).encode(encoding, _PLAINLY).decode(encoding)
    try:
        stream.write(text)
        stream.flush()
    except OSError as error:
        abandon(stream)
        return error
    except ValueError:  # closed by somebody in this process
        return OSError(errno.EBADF, os.strerror(errno.EBADF))
    return None


def abandon(stream: IO[str] | None) -> None:
    """Lead a stream that cannot be written to nowhere: Python flushes it once more at its end, and would fail."""
    with suppress(OSError, ValueError, AttributeError):
        handle = stream.fileno()  # type: ignore[union-attr]
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, handle)
        os.close(nowhere)


@contextmanager
def lenient() -> Iterator[None]:
    """Inside, what others print, a method's file say, ends nothing either."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (stream and cast(TextIO, Lenient(stream)) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


class Lenient(io.TextIOBase):
    """A text stream for others to draw on, such as a progress bar: what cannot be written is dropped."""

    def __init__(self, stream: IO[str] | None) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of the stream."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write what can be written."""
        self._try(lambda stream: stream.write(text.encode(self.encoding, _PLAINLY).decode(self.encoding)))
        return len(text)

    def flush(self) -> None:
        """As of a stream."""
        self._try(lambda stream: stream.flush())

    def _try(self, what: Callable[[IO[str]], object]) -> None:
        if self._stream is not None:
            try:
                what(self._stream)
            except OSError:
                abandon(self._stream)
            except ValueError:  # closed by somebody in this process
                pass

    def isatty(self) -> bool:
        """Whether a person watches."""
        with suppress(OSError, ValueError):
            return self._stream is not None and self._stream.isatty()
        return False

    def fileno(self) -> int:
        """Of the stream.

        Raises:
            OSError: there is none.
        """
        if self._stream is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._stream.fileno()
