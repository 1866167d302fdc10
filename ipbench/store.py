"""Products on disk: written atomically, with a checksum, read back with a check (floor 1).

JSON products are one object with two keys of their own: `format` (a version) and `checksum` (SHA-256 of the canonical
JSON of the rest). Tensors go into safetensors files with the checksum in their metadata. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipbench.errors import BadProduct
from ipbench.spec import canonical_json

if TYPE_CHECKING:
    import torch

FORMAT = 1


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` to write into; it takes the place of `path` when the block ends without error.

    A reader sees the old file or the whole new one, whatever happens in between, power failures included.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=f".tmp{path.suffix}", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON product atomically, with its format and checksum.

    Raises:
        ValueError: `value` holds a non-finite number; those are written as null by whoever makes them.
    """
    body = {name: item for name, item in value.items() if name not in ("format", "checksum")}
    digest = hashlib.sha256(canonical_json(body).encode()).hexdigest()
    write_text(path, json.dumps({"format": FORMAT, "checksum": digest, **body}, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON product and check it; returns it without `format` and `checksum`.

    Raises:
        BadProduct: the file is missing, truncated, altered or of another format; the message names it.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadProduct(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise BadProduct(
            f"{path}: not readable as JSON ({type(error).__name__}); delete it to have it made again"
        ) from None
    if not isinstance(value, dict) or "checksum" not in value:
        raise BadProduct(f"{path}: not a product of ipbench (no checksum)")
    if value.pop("format", None) != FORMAT:
        raise BadProduct(f"{path}: written in another format than {FORMAT}, the only one this version reads")
    digest = value.pop("checksum")
    if digest != hashlib.sha256(canonical_json(value).encode()).hexdigest():
        raise BadProduct(f"{path}: checksum does not match, the file was altered; delete it to have it made again")
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
    from safetensors.torch import save_file

    plain = {name: tensor.detach().to("cpu").contiguous().clone() for name, tensor in tensors.items()}
    text = canonical_json(dict(facts))
    digest = hashlib.sha256((tensors_digest(plain) + text).encode()).hexdigest()
    with atomic(path) as temporary:
        save_file(plain, temporary, metadata={"format": str(FORMAT), "checksum": digest, "facts": text})


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read a safetensors product and check it.

    Raises:
        BadProduct: the file is missing, truncated, altered or of another format; the message names it.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        facts = json.loads(metadata["facts"])
    except FileNotFoundError:
        raise BadProduct(f"{path}: no such file") from None
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise BadProduct(f"{path}: not readable ({type(error).__name__}); delete it to have it made again") from None
    if metadata.get("format") != str(FORMAT):
        raise BadProduct(f"{path}: written in another format than {FORMAT}, the only one this version reads")
    digest = hashlib.sha256((tensors_digest(tensors) + canonical_json(facts)).encode()).hexdigest()
    if digest != metadata.get("checksum"):
        raise BadProduct(f"{path}: checksum does not match, the file was altered; delete it to have it made again")
    return tensors, facts
