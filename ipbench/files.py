"""Files that others wrote, opened: regular files alone, no more of one than can be right.

What the system refuses, a missing permission say, is never taken for damage: nobody is told to delete a whole file.
"""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

from ipbench.errors import BadProduct

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class Missing(BadProduct):
    """There is no such file."""


class NotRead(BadProduct):
    """Something is there that cannot be read, which says nothing of its content: a permission, no regular file."""


def refusal(error: OSError) -> str:
    """What the system refuses, in one line: "results/x: Permission denied"."""
    said = os.strerror(error.errno) if error.errno else str(error)
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes | Path)]
    return ": ".join([*names, said])


def not_read(path: Path, error: OSError) -> NotRead:
    """The refusal to read `path`, and what to do about it."""
    remedy = ""
    if error.errno in (errno.EACCES, errno.EPERM):
        remedy = "; nothing is known of its content: get the permission to read it, or let its owner give this command"
    return NotRead(f"{path}: cannot be read: {os.strerror(error.errno) if error.errno else error}{remedy}")


def opened(path: Path) -> BufferedReader:
    """Open a regular file to read its bytes; never waits for one who writes into a pipe.

    Raises:
        Missing: there is no such file.
        NotRead: the system refuses, or it is a folder, a pipe, a device.
    """
    try:
        _require_regular(path, path.stat().st_mode)
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise Missing(f"{path}: no such file") from None
    except OSError as error:
        raise not_read(path, error) from None
    file = os.fdopen(handle, "rb")
    try:
        _require_regular(path, os.fstat(handle).st_mode)  # it may have been exchanged meanwhile
    except NotRead:
        file.close()
        raise
    return file


def _require_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "something else")
        raise NotRead(f"{path}: not a file, but {kind}")


def read(path: Path, most: int) -> bytes:
    """All bytes of a regular file.

    Args:
        path: the file.
        most: bytes that it may have.

    Raises:
        Missing, NotRead: as `opened`.
        BadProduct: it is larger.
    """
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise BadProduct(f"{path}: {size:,} bytes, where at most {most:,} can be right; it is no such file")
        try:
            return file.read()
        except OSError as error:
            raise not_read(path, error) from None
