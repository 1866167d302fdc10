"""The file of a packed net: its header, and what that may claim.

docs/packed-format.md describes the file. Nothing is built and little is read before the claims are checked.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Annotated, Any, TypeVar

import numpy as np
import torch
from pydantic import Field

from ipbench.data import catalog as datasets
from ipbench.errors import BadInput, BadProduct
from ipbench.models import catalog as models
from ipbench.packing import mask_code as sparse_code
from ipbench.packing.outline import Outline, outline_of
from ipbench.spec import Recipe, Run, Value, build

MAGIC = b"IPBPACK\0"
#: The formats of runs' nets. The second one has a structure; a net of which no channel is cut is written in the first.
VERSIONS = 1, 2
#: The format of nets of a user's own (`packing/own.py`).
OWN = 3
#: How kept coefficients are stored.
VALUES: dict[str, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
#: A net of more parameters is built only if its file has at least a byte for every hundred of them.
MOST_PARAMETERS, _PARAMETERS_PER_BYTE = 200_000_000, 100
#: Bytes; the largest nets of torchvision take 2.6 GB, the header of the deepest some 10 kB.
LARGEST_FILE, LARGEST_HEADER = 2**32, 2**20
FIXED, CHECKSUM = len(MAGIC) + 2 + 4, 32


@dataclass(frozen=True)
class Sizes:
    """Bytes of a packed net by part, and what it stands for.

    Attributes:
        parts: bytes of "header", "masks", "values", "filter bases", "biases, norms, buffers", "checksum".
        dense_bytes: of all parameters of the dense standard net in fp32.
        parameters_dense: their number.
        parameters: trained ones that are stored: kept coefficients, FBs, biases and norms.
        zeroed: kept coefficients that are zero in the file's type of values alone; only told when packing.
    """

    parts: dict[str, int]
    dense_bytes: int
    parameters_dense: int
    parameters: int
    zeroed: int = field(default=0, compare=False)

    @property
    def total(self) -> int:
        """Bytes of the file."""
        return sum(self.parts.values())


Whole = Annotated[int, Field(ge=0, strict=True)]
Side = Annotated[int, Field(ge=1, strict=True)]


class Header(Value):
    """What stands before the masks; `layers`: kept coefficients, remainder bits, bytes of the mask."""

    dataset: str
    model: str
    run: str
    seed: int
    init: str
    space: str
    values: str
    layers: tuple[tuple[Whole, Whole, Whole], ...]
    basis: dict[str, Any] = Field(default_factory=dict)
    off: str = "zero"
    faded: float = 1.0
    start: str = ""


class SlicedHeader(Header):
    """That of a net whose channels were cut.

    Attributes:
        structure: of every channel group that is cut the number of its units, and which of them stay: a bit for each,
            the first one the highest of the first byte, in hexadecimal digits.
        shapes: of the tensors that are smaller than in the dense net, by name.
    """

    structure: dict[str, tuple[Side, str]]
    shapes: dict[str, tuple[Side, ...]]


def units_kept(structure: Mapping[str, tuple[int, str]]) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Of every channel group that is cut, how many units it has in the dense net, and those that stay.

    Raises:
        ValueError: the digits are not those of so many units, a part of which stays.
    """
    result = {}
    for name, (units, digits) in structure.items():
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(digits), dtype=np.uint8))
        kept = tuple(np.flatnonzero(bits).tolist())
        whole = len(bits) == 4 * len(digits) == -(-units // 8) * 8  # fromhex lets white space pass
        if not whole or not kept or kept[-1] >= units or len(kept) == units:
            raise ValueError(f"channel group {name:.80}: {digits!r:.80} is not a part of {units} units")
        result[name] = units, kept
    return result


def coded_units(units: int, kept: Sequence[int]) -> tuple[int, str]:
    """What a header holds of a channel group; `units_kept` reads it."""
    bits = np.zeros(units, dtype=bool)
    bits[list(kept)] = True
    return units, np.packbits(bits).tobytes().hex()


#: A kind of header.
H = TypeVar("H", bound=Value)


@contextmanager
def opened(path: Path) -> Iterator[tuple[IO[bytes], int]]:
    """A regular file to read from, and its size."""
    try:
        # Not blocking: a named pipe would wait for a writer.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                what = (
                    "Is a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file, but a pipe or a device"
                )
                raise BadProduct(f"{path}: {what}")
            with open(handle, "rb", closefd=False) as file:
                yield file, status.st_size
        finally:
            os.close(handle)
    except OSError as error:
        raise BadProduct(f"{path}: {error.strerror or error}") from None


def read(path: Path) -> tuple[Header, bytes]:
    """The header and the bytes behind it, as many as that header's net takes."""
    with opened(path) as (file, size):
        header, sizes = claims(path, file, size)
        file.seek(sizes.parts["header"])
        return header, file.read(size - sizes.parts["header"] - CHECKSUM)


def claims(path: Path, file: IO[bytes], size: int) -> tuple[Header, Sizes]:
    """The header and the bytes by part of a file that is whole and can be what it claims; nothing large is built.

    Args:
        path: for messages.
        file: of this path.
        size: in bytes.

    Raises:
        BadProduct: it is truncated, altered, of another version, or claims what cannot be.
    """
    kinds: dict[int, type[Header]] = {1: Header, 2: SlicedHeader}
    header, length = header_of(path, file, size, kinds)
    outline = _claimed(path, header)
    _check_layers(path, header, outline.sizes)
    sizes = _sizes(header, length, outline)
    if wrong := sizes.total - size:
        raise BadProduct(
            f"{path}: does not hold a {header.model}: it {'ends too early' if wrong > 0 else 'is too long'}"
        )
    if not plausible(outline.parameters, size):
        raise BadProduct(too_large(path, header.model, outline.parameters, size))
    return header, sizes


def _claimed(path: Path, header: Header) -> Outline:
    """What the net of a header consists of, cut as it claims.

    Whether these shapes are those that the structure leaves is seen when the net is built; here, that they are none
    that a cut could not leave, so that the bytes of the file can be counted.
    """
    try:
        outline = outline_of(run_of(header))
    except BadInput as error:
        raise BadProduct(f"{path}: its net cannot be built here: {error}") from None
    if not isinstance(header, SlicedHeader):
        return outline
    try:
        units_kept(header.structure)
        return outline.cut(header.shapes)
    except ValueError as error:
        raise BadProduct(f"{path}: does not hold a {header.model}: {error}") from None


def _check_layers(path: Path, header: Header, layers: Mapping[str, int]) -> None:
    """Whether values and masks can be those of a net with so many entries in each layer."""
    if header.values not in VALUES:
        raise BadProduct(f"{path}: its values are of type {header.values!r:.40}; valid: {', '.join(VALUES)}")
    if len(header.layers) != len(layers):
        raise BadProduct(
            f"{path}: {len(header.layers)} layers: it does not fit a {header.model}, which has {len(layers)}"
        )
    for (name, entries), (count, bits, coded) in zip(layers.items(), header.layers, strict=True):
        if not sparse_code.valid(bits, entries, count, coded, isinstance(header, SlicedHeader)):
            raise BadProduct(
                f"{path}: layer {name}: {coded} bytes with {bits} remainder bits are not a Rice code "
                f"of {count} in {entries}"
            )


def header_of(path: Path, file: IO[bytes], size: int, kinds: Mapping[int, type[H]]) -> tuple[H, int]:
    """The header of a file whose checksum is right, and its length.

    Args:
        path: for messages.
        file: of this path.
        size: in bytes.
        kinds: of headers, by the formats that are read.

    Raises:
        BadProduct: it is truncated, altered, or of another format.
    """
    fixed = file.read(FIXED)
    if not fixed.startswith(MAGIC):
        raise BadProduct(f"{path}: not a packed net (`ipbench pack` writes them)")
    version = int.from_bytes(fixed[len(MAGIC) : len(MAGIC) + 2], "little")
    if len(fixed) == FIXED and version not in kinds:
        if version == OWN:
            raise BadProduct(f"{path}: holds a net of its user's own: in Python, `ipbench.load(path, model)` reads it")
        if version in VERSIONS:
            raise BadProduct(f"{path}: holds the net of a run: `ipbench unpack` reads it")
        known = " and ".join(map(str, VERSIONS))
        raise BadProduct(f"{path}: packed in format {version}; this version of ipbench reads formats {known}")
    if size > LARGEST_FILE:
        raise BadProduct(f"{path}: {size:,} bytes; no packed net has more than {LARGEST_FILE:,}")
    if size < FIXED + CHECKSUM or not _intact(file, size):
        raise BadProduct(
            f"{path}: checksum does not match, the file was cut off or altered; `ipbench pack` writes it anew"
        )
    length = int.from_bytes(fixed[FIXED - 4 :], "little")
    file.seek(FIXED)
    try:
        if length > min(LARGEST_HEADER, size - FIXED - CHECKSUM):
            raise ValueError
        return build(kinds[version], json.loads(file.read(length)), f"{path}: header"), length
    except (ValueError, RecursionError):
        raise BadProduct(f"{path}: its header is not readable") from None
    except BadInput as error:
        raise BadProduct(str(error)) from None


def _intact(file: IO[bytes], size: int) -> bool:
    """Whether the checksum at the end is that of all before it."""
    digest, left = hashlib.sha256(), size - CHECKSUM
    file.seek(0)
    while left and (piece := file.read(min(left, 2**20))):
        digest.update(piece)
        left -= len(piece)
    return file.read(CHECKSUM) == digest.digest()


def plausible(parameters: int, size: int) -> bool:
    """Whether a file of so many bytes may hold a net of so many parameters."""
    return parameters <= max(MOST_PARAMETERS, _PARAMETERS_PER_BYTE * size)


def too_large(path: Path, model: str, parameters: int, size: int) -> str:
    """The line that refuses such a net."""
    return (
        f"{path}: a {model} of {parameters:,} parameters in {size:,} bytes; above {MOST_PARAMETERS:,} parameters a "
        f"file has at least a byte for every {_PARAMETERS_PER_BYTE} of them"
    )


def run_of(header: Header) -> Run:
    """A run with all that decides which net is built, and nothing else of the one that was packed."""
    datasets.dataset(header.dataset)
    models.check(header.model)
    recipe = build(Recipe, {"init": header.init}, "recipe")
    names = ("dataset", "model", "seed", "space", "off")
    return build(
        Run,
        {**{name: getattr(header, name) for name in names}, "method": "dense", "recipe": recipe, "basis": header.basis},
        "run",
    )


def _sizes(header: Header, length: int, outline: Outline) -> Sizes:
    """The bytes by part that a header of this length claims."""
    kept = sum(count for count, _, _ in header.layers)
    parts = {
        "header": FIXED + length,
        "masks": sum(coded for _, _, coded in header.layers),
        "values": kept * VALUES[header.values].itemsize,
        "filter bases": 4 * outline.basis_entries,
        "biases, norms, buffers": sum(tensor.entries * tensor.bytes for tensor in outline.others.values()),
        "checksum": CHECKSUM,
    }
    stored = kept + outline.basis_entries + sum(t.entries for t in outline.others.values() if t.trained)
    return Sizes(parts, 4 * outline.parameters, outline.parameters, stored)
