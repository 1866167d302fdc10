"""A lease of local GPUs: a process takes free ones, the kernel takes them back when its last child is gone.

Every GPU has some slots, each a byte of one file of the user on this machine. A slot is taken by a lock on its byte
that belongs to the open file (an "open file description lock"), not to a process: whoever inherits the open file holds
it, and it ends with the last of them, however that one dies. The command gets the file as its standard input, because
children inherit that whatever else is closed for them: torchrun's workers keep their GPUs though torchrun is killed.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ipbench.errors import BadInput

#: An index as nvidia-smi counts, or a UUID as it prints them; no second spelling of the same one.
_GPU = re.compile(r"0|[1-9][0-9]{0,3}|(GPU|MIG)-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
MOST_PER_GPU = 64
#: How many jobs share a GPU, for the command: its records tell.
JOBS_PER_GPU = "IPBENCH_JOBS_PER_GPU"
#: Where another folder is wanted for the lock file.
FOLDER = "IPBENCH_LEASES"
#: The byte that is locked while free slots are looked for, so that two processes never take a part of them each.
_GATE = 0
#: Between two looks for free slots.
SECONDS = 0.25


def parse_gpus(text: str) -> list[str]:
    """GPU ids from a text such as "0,1" or "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6".

    Raises:
        BadInput: none, one that is not an id, one that is given twice, or indices beside UUIDs: CUDA takes either.
    """
    gpus = [word.strip() for word in text.split(",")]
    for gpu in gpus:
        if not _GPU.fullmatch(gpu):
            raise BadInput(f"{gpu!r:.60} is no GPU: give indices or UUIDs with commas between them, e.g. 0,1")
        if gpus.count(gpu) > 1:
            raise BadInput(f"GPU {gpu} is given twice")
    if len({gpu.isdecimal() for gpu in gpus}) > 1:
        raise BadInput("indices and UUIDs are mixed, of which CUDA sees the first kind alone: give all as one of them")
    return gpus


def check(gpus: Sequence[str], per_gpu: int, count: int) -> None:
    """Whether such a lease can ever be had.

    Raises:
        BadInput: it asks for more GPUs than are named, for several instances of MIG, or for a number of slots out of
            range.
    """
    if not 1 <= per_gpu <= MOST_PER_GPU:
        raise BadInput(f"{per_gpu} jobs per GPU: from 1 to {MOST_PER_GPU}")
    if not 1 <= count <= len(gpus):
        raise BadInput(f"{count} GPUs for one job, each for one of its processes: from 1 to {len(gpus)} here")
    if count > 1 and any(gpu.startswith("MIG") for gpu in gpus):
        raise BadInput(
            f"{count} GPUs for one job, but a process sees one instance of MIG alone: name whole GPUs, or take 1"
        )


def run_with_gpus(
    gpus: Sequence[str], per_gpu: int, count: int, command: Sequence[str], say: Callable[[str], None]
) -> None:
    """Take GPUs, waiting for them if need be, and become `command`, which sees these alone. Returns only by an error.

    Args:
        gpus: ids to take from.
        per_gpu: how many jobs share a GPU.
        count: how many GPUs; all at once or none.
        command: a program, looked up in PATH, and its arguments.
        say: is told, once, that all GPUs are taken.

    Raises:
        BadInput: the program cannot be started, or the lock file is not this user's.
    """
    check(gpus, per_gpu, count)
    file = _open(_folder())
    waits = False
    while not (taken := _take(file, gpus, per_gpu, count)):
        if not waits:
            jobs = "one job" if per_gpu == 1 else f"{per_gpu} jobs"
            say(f"waiting for {count} of the GPUs {', '.join(gpus)} ({jobs} each): too few are free")
        waits = True
        time.sleep(SECONDS)
    os.dup2(file, 0)  # standard input: inheritable, and at its end at once
    os.set_inheritable(file, True)  # a second one, for children that get another standard input
    try:
        os.execvpe(command[0], list(command), _environment(taken, per_gpu))
    except OSError as error:
        raise BadInput(f"{command[0]}: cannot be started: {os.strerror(error.errno or 0)}") from None


def _environment(gpus: Sequence[str], per_gpu: int) -> Mapping[str, str]:
    """What the command finds: CUDA shows it these GPUs alone, indices counted as nvidia-smi does."""
    shown = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(gpus)}
    return {**os.environ, **shown, JOBS_PER_GPU: str(per_gpu)}


def _take(file: int, gpus: Sequence[str], per_gpu: int, count: int) -> list[str]:
    """Lock one free slot each of `count` GPUs, the least used first; if there are fewer, lock nothing."""
    _lock(file, _GATE, wait=True)
    taken: dict[str, int] = {}
    try:
        for slot in range(per_gpu):
            for gpu in gpus:
                if len(taken) < count and gpu not in taken and _lock(file, place := _byte(gpu, slot)):
                    taken[gpu] = place
    finally:
        if len(taken) < count:
            for place in taken.values():
                _set(file, fcntl.F_UNLCK, place)
            taken = {}
        _set(file, fcntl.F_UNLCK, _GATE)
    return [gpu for gpu in gpus if gpu in taken]


def _byte(gpu: str, slot: int) -> int:
    """The place of a slot in the file, the same for all processes; locks may lie behind its end."""
    number = int.from_bytes(hashlib.sha256(gpu.encode()).digest()[:6]) if "-" in gpu else int(gpu)
    return 1 + number * MOST_PER_GPU + slot


def _lock(file: int, place: int, *, wait: bool = False) -> bool:
    """Lock one byte; False if another open file has it."""
    try:
        _set(file, fcntl.F_WRLCK, place, fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def _set(file: int, kind: int, place: int, command: int = fcntl.F_OFD_SETLK) -> None:
    """One lock operation on one byte: a `struct flock` of Linux on 64 bits."""
    fcntl.fcntl(file, command, struct.pack("hhqqi4x", kind, os.SEEK_SET, place, 1, 0))


def _folder() -> Path:
    """A folder of this user on this machine; it does not depend on the session, for all sessions share the GPUs."""
    return Path(os.environ.get(FOLDER) or f"/tmp/ipbench-{os.getuid()}")


def _open(folder: Path) -> int:
    """Open the file with the slots.

    Raises:
        BadInput: it lies where others could replace it, or cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not folder.is_dir() or folder.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise BadInput(f"{folder}: not a folder that only you can write to; remove it, or name another in {FOLDER}")
        file = os.open(folder / "gpus.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        os.utime(file)  # in use: what clears temporary folders goes by dates
        return file
    except OSError as error:
        raise BadInput(
            f"{folder}: the lock of the GPUs cannot be made there ({os.strerror(error.errno or 0)});"
            f" name another folder in {FOLDER}"
        ) from None
