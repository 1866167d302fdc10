"""Products on disk: written atomically, with a checksum, read back with a check.

JSON products are one object with two keys of their own: `format` (a version) and `checksum` (SHA-256 of the canonical
JSON of the rest). Tensors go into safetensors files with the checksum in their metadata. Nothing is ever unpickled.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipbench import files
from ipbench.errors import BadInput, BadProduct
from ipbench.spec import canonical_json

if TYPE_CHECKING:
    import torch

FORMAT = 1
_AGAIN = "delete it to have it made again"
#: Bytes of a JSON product: the curves of 10,000 epochs have two million. A grid of 100,000 cells has more.
MOST_JSON = 2**26
MOST_GRID = 2**29
#: Bytes of a file of tensors: a state holds a net five times, and the largest of torchvision takes 2.6 GB.
MOST_TENSORS = 2**34


class NotWritten(BadInput):
    """A file cannot be written: a full disk, a missing permission. The message names it; what was there is intact."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` to write into; it takes the place of `path` when the block ends without error.

    A reader sees the old file or the whole new one, whatever happens in between, power failures included. The temporary
    file of a process that is killed is removed when the same `path` is written again.

    Raises:
        NotWritten: the system refuses.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        handle, temporary = _locked_temporary(path)
    except OSError as error:
        raise _not_written(path, error) from None
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except Exception as error:
        refusal = None if isinstance(error, BadInput | BadProduct) else _refusal(error)
        # The refusal may be about another file, one that was read meanwhile.
        if refusal is None or refusal.errno is None or refusal.filename not in (None, str(temporary)):
            raise
        raise _not_written(path, refusal) from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        os.close(handle)  # and with it the lock


def _locked_temporary(path: Path) -> tuple[int, Path]:
    """A new file beside `path`, with a lock on it for as long as the handle is open: this process is at work on it."""
    while True:
        prefix, suffix = _affixes(path)
        handle, name = tempfile.mkstemp(suffix, prefix, path.parent)
        with suppress(OSError):  # a file system without locks: then nothing there is ever taken for abandoned
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, Path(name)
        os.close(handle)  # another process took it for abandoned before the lock was there


def _remove_abandoned(path: Path) -> None:
    """Remove the temporary files for `path` that no process holds a lock on."""
    prefix, suffix = _affixes(path)
    for other in path.parent.iterdir():
        if other.name.startswith(prefix) and other.name.endswith(suffix):
            with suppress(OSError), other.open("rb+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                other.unlink()


def _affixes(path: Path) -> tuple[str, str]:
    return f".{path.name}.", f".tmp{path.suffix}"


def _refusal(error: BaseException | None) -> OSError | None:
    """The system's refusal behind an error: a library that tidies up after it may fail again, in another way."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error


def _not_written(path: Path, error: OSError) -> NotWritten:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "; make room and give the same command again" if full else ""
    return NotWritten(f"{path}: not written: {os.strerror(error.errno) if error.errno else error}{remedy}")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write several files, each atomically: none takes its place before all of them are on the disk.

    Raises:
        NotWritten: the system refuses one; the others are as before.
    """
    with ExitStack() as stack:
        for path, content in contents.items():
            stack.enter_context(atomic(path)).write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON product atomically, with its format and checksum.

    Raises:
        ValueError: `value` holds a non-finite number; those are written as null by whoever makes them.
    """
    write_bytes(path, json_content(value))


def json_content(value: Mapping[str, Any]) -> bytes:
    """What `write_json` writes."""
    body = {name: item for name, item in value.items() if name not in ("format", "checksum")}
    digest = hashlib.sha256(canonical_json(body).encode()).hexdigest()
    text = json.dumps({"format": FORMAT, "checksum": digest, **body}, indent=1, allow_nan=False) + "\n"
    return text.encode()


def read_json(path: Path, most: int = MOST_JSON) -> dict[str, Any]:
    """Read a JSON product and check it; returns it without `format` and `checksum`.

    Args:
        path: the file.
        most: bytes that it may have.

    Raises:
        files.Missing: there is no such file.
        files.NotRead: it is there, and the system does not let it be read.
        BadProduct: the file is truncated, altered or of another format; the message names it.
    """
    content = files.read(path, most)
    try:
        value = json.loads(content.decode())
        if not isinstance(value, dict) or "checksum" not in value:
            raise BadProduct(f"{path}: not a product of ipbench (no checksum); delete it if ipbench is to make it")
        found, digest = value.pop("format", None), value.pop("checksum")
        intact = digest == hashlib.sha256(canonical_json(value).encode()).hexdigest()
    except (ValueError, RecursionError) as error:  # ValueError: no text, no JSON, a number that JSON has not
        raise BadProduct(f"{path}: not readable as JSON ({type(error).__name__}); {_AGAIN}") from None
    if found != FORMAT:
        raise BadProduct(f"{path}: written in another format than {FORMAT}, the only one this version reads; {_AGAIN}")
    if not intact:
        raise BadProduct(f"{path}: checksum does not match, the file was altered; {_AGAIN}")
    return value


def without_nan(value: Any) -> Any:
    """The same with None for numbers that are not finite: JSON has no word for them."""
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def tensors_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes of tensors, in the order of their names."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().to("cpu").contiguous()
        digest.update(f"{name}\x1f{tensor.dtype}\x1f{tuple(tensor.shape)}\x1e".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
    """Write a safetensors product atomically.

    Args:
        path: where.
        tensors: by name; every tensor has memory of its own in the file.
        facts: plain JSON values kept beside the tensors.
    """
    # Not safetensors' `save_file`: it writes a temporary file of its own, which a kill would leave for ever.
    write_bytes(path, tensors_content(tensors, facts))


def tensors_content(tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> bytes:
    """What `write_tensors` writes."""
    from safetensors.torch import save

    plain = {name: tensor.detach().to("cpu").contiguous().clone() for name, tensor in tensors.items()}
    text = canonical_json(dict(facts))
    digest = hashlib.sha256((tensors_digest(plain) + text).encode()).hexdigest()
    content: bytes = save(plain, metadata={"format": str(FORMAT), "checksum": digest, "facts": text})
    return content


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read a safetensors product and check it.

    Raises:
        files.Missing, files.NotRead: as `read_json`.
        BadProduct: the file is truncated, altered or of another format; the message names it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    # Read once, from one opened file: safetensors' own `safe_open` opens a path twice, and finds the header of one file
    # and the tensors of another where a second process writes a new one in between.
    content = files.read(path, MOST_TENSORS)
    try:
        tensors = dict(sorted(load(content).items()))  # the library gives them in another order in every process
        metadata = _metadata(content)
        facts = json.loads(metadata["facts"])
        digest = hashlib.sha256((tensors_digest(tensors) + canonical_json(facts)).encode()).hexdigest()
    except (SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise BadProduct(f"{path}: not readable ({type(error).__name__}); {_AGAIN}") from None
    if metadata.get("format") != str(FORMAT):
        raise BadProduct(f"{path}: written in another format than {FORMAT}, the only one this version reads; {_AGAIN}")
    if digest != metadata.get("checksum"):
        raise BadProduct(f"{path}: checksum does not match, the file was altered; {_AGAIN}")
    return tensors, facts


def _metadata(content: bytes) -> dict[str, str]:
    """The texts in the header of a safetensors file, which `safetensors.torch.load` does not give.

    The header is JSON, behind eight bytes that hold its length (github.com/huggingface/safetensors, "Format").
    """
    length = int.from_bytes(content[:8], "little")
    return dict(json.loads(content[8 : 8 + length]).get("__metadata__", {}))
