"""The file of a packed net: its header, and what that may claim.

docs/packed-format.md describes the file. Nothing is built and little is read before the claims are checked.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from ipbench.data import catalog as datasets
from ipbench.errors import BadInput, BadProduct
from ipbench.models import catalog as models
from ipbench.models.build import outline as outline_model
from ipbench.packing import mask_code as sparse_code
from ipbench.sparse import measure
from ipbench.sparse.layers import prunable_weights
from ipbench.sparse.spaces import basis_labels
from ipbench.spec import Recipe, Run, Value, build

MAGIC = b"IPBPACK\0"
VERSION = 1
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


@dataclass(frozen=True)
class _Outline:
    """What the file of a net must hold.

    Attributes:
        sizes: entries by layer.
        basis_entries: of all trained FBs.
        others: bytes of biases, norms and buffers.
        parameters: of the dense standard net.
    """

    sizes: dict[str, int]
    basis_entries: int
    others: int
    parameters: int


def _outline(run: Run) -> _Outline:
    """What a run's net consists of, without its values."""
    facts = datasets.dataset(run.dataset)
    net = outline_model(run.model, facts.shape, facts.classes)
    layers = prunable_weights(net)
    kernels: dict[str, int] = {}
    if run.space == "ip" and run.basis.train:
        staged = run.basis.sharing == "stage"
        stages = measure.count(net, facts.shape).stages if staged else None
        labels = basis_labels(layers, run.basis, stages)
        kernels = {label: math.prod(layers[name].kernel) for name, label in labels.items()}
    pruned = {id(layer.weight) for layer in layers.values()}
    named = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    return _Outline(
        {name: layer.weight.numel() for name, layer in layers.items()},
        sum(entries**2 for entries in kernels.values()),
        sum(_size(tensor) for tensor in named.values() if id(tensor) not in pruned),
        sum(parameter.numel() for parameter in net.parameters()),
    )


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
    header, length = _header(path, file, size)
    try:
        run = run_of(header)
        outline = _outline(run)
    except BadInput as error:
        raise BadProduct(f"{path}: its net cannot be built here: {error}") from None
    if header.values not in VALUES:
        raise BadProduct(f"{path}: its values are of type {header.values!r:.40}; valid: {', '.join(VALUES)}")
    if len(header.layers) != len(outline.sizes):
        raise BadProduct(
            f"{path}: {len(header.layers)} layers: it does not fit a {header.model}, which has {len(outline.sizes)}"
        )
    for (name, entries), (count, bits, coded) in zip(outline.sizes.items(), header.layers, strict=True):
        if not sparse_code.valid(bits, entries, count, coded):
            raise BadProduct(
                f"{path}: layer {name}: {coded} bytes with {bits} remainder bits are not a Rice code "
                f"of {count} in {entries}"
            )
    sizes = _sizes(header, length, outline)
    if wrong := sizes.total - size:
        raise BadProduct(
            f"{path}: does not hold a {header.model}: it {'ends too early' if wrong > 0 else 'is too long'}"
        )
    if not plausible(outline.parameters, size):
        raise BadProduct(too_large(path, header.model, outline.parameters, size))
    return header, sizes


def _header(path: Path, file: IO[bytes], size: int) -> tuple[Header, int]:
    """The header of a file whose checksum is right, and its length."""
    fixed = file.read(FIXED)
    if not fixed.startswith(MAGIC):
        raise BadProduct(f"{path}: not a packed net (`ipbench pack` writes them)")
    version = int.from_bytes(fixed[len(MAGIC) : len(MAGIC) + 2], "little")
    if len(fixed) == FIXED and version != VERSION:
        raise BadProduct(f"{path}: packed in format {version}; this version of ipbench reads format {VERSION}")
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
        return build(Header, json.loads(file.read(length)), f"{path}: header"), length
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


def _sizes(header: Header, length: int, outline: _Outline) -> Sizes:
    """The bytes by part that a header of this length claims."""
    kept = sum(count for count, _, _ in header.layers)
    parts = {
        "header": FIXED + length,
        "masks": sum(coded for _, _, coded in header.layers),
        "values": kept * VALUES[header.values].itemsize,
        "filter bases": 4 * outline.basis_entries,
        "biases, norms, buffers": outline.others,
        "checksum": CHECKSUM,
    }
    stored = kept + outline.basis_entries + outline.parameters - sum(outline.sizes.values())
    return Sizes(parts, 4 * outline.parameters, outline.parameters, stored)


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
