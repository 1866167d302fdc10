"""A trained sparse net as one small file: what training changed, and the seed for all the rest (floor 5).

docs/packed-format.md describes the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from ipbench import sparse_code
from ipbench.data import catalog as datasets
from ipbench.errors import BadInput, BadProduct, valid_choice
from ipbench.models import catalog as models
from ipbench.models.build import build as build_model
from ipbench.resume import End
from ipbench.sparse_net import SparseNet
from ipbench.spec import Recipe, Run, Value, build, canonical_json
from ipbench.store import tensors_digest, write_bytes

MAGIC = b"IPBPACK\0"
VERSION = 1
#: How kept coefficients are stored.
VALUES: dict[str, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_FIXED, _CHECKSUM = len(MAGIC) + 2 + 4, 32


@dataclass(frozen=True)
class Sizes:
    """Bytes of a packed net by part, and what it stands for.

    Attributes:
        parts: bytes of "header", "masks", "values", "filter bases", "biases, norms, buffers", "checksum".
        dense_bytes: of all parameters of the dense standard net in fp32.
        parameters_dense: their number.
        parameters: trained ones that are stored: kept coefficients, FBs, biases and norms.
    """

    parts: dict[str, int]
    dense_bytes: int
    parameters_dense: int
    parameters: int

    @property
    def total(self) -> int:
        """Bytes of the file."""
        return sum(self.parts.values())


def pack(path: Path, run: Run, end: End, values: str = "fp32") -> Sizes:
    """Write a packed net atomically.

    Args:
        path: of the file.
        run: that was trained.
        end: of that run.
        values: how kept coefficients are stored, one of `VALUES`; everything else stays as it is.

    Raises:
        BadInput: an unknown type of values.
        BadProduct: the end is not of this run.
    """
    kind = VALUES[valid_choice(values, VALUES, "type of values", "--values")]
    net = _fresh(run)
    start_digest = tensors_digest(net.start)
    try:
        net.load_tensors(end.net)
        masks = {name: end.masks[name].flatten() for name in net.masks}
    except (KeyError, RuntimeError):
        raise BadProduct(f"{path}: the tensors to pack are not those of a {run.model} in space {run.space}") from None
    codes = {name: sparse_code.encode(mask.numpy()) for name, mask in masks.items()}
    header = {
        "dataset": run.dataset,
        "model": run.model,
        "run": run.id,
        "seed": run.seed,
        "init": run.recipe.init,
        "space": run.space,
        "values": values,
        "layers": [[int(masks[name].sum()), bits, len(code)] for name, (bits, code) in codes.items()],
    }
    if basis := run.basis.differences():
        header["basis"] = basis
    if run.off != "zero":
        # The start is drawn anew when the file is read: this tells whether that machine draws the same.
        header |= {"off": "frozen", "faded": _faded(net, masks), "start": start_digest[:32]}
    kept = [c.detach().flatten()[masks[name]].to(kind) for name, c in net.coefficients.items()]
    text = canonical_json(header).encode()
    parts = {
        "header": MAGIC + VERSION.to_bytes(2, "little") + len(text).to_bytes(4, "little") + text,
        "masks": b"".join(code for _, code in codes.values()),
        "values": b"".join(map(_bytes, kept)),
        "filter bases": b"".join(map(_bytes, _bases(net).values())),
        "biases, norms, buffers": b"".join(map(_bytes, _others(net).values())),
    }
    content = b"".join(parts.values())
    write_bytes(path, content + hashlib.sha256(content).digest())
    return _sizes({name: len(part) for name, part in parts.items()} | {"checksum": _CHECKSUM}, net, kept)


def unpack(path: Path) -> SparseNet:
    """The net of a packed file, on the CPU: the same outputs, bit for bit, as the net that was packed with fp32 values.

    Raises:
        BadProduct: the file is missing, truncated, altered, of another version, or its net cannot be built here.
    """
    return _read(path)[0]


def inspect(path: Path) -> tuple[dict[str, Any], Sizes]:
    """The header of a packed file, and its bytes by part.

    Raises:
        BadProduct: as `unpack`.
    """
    _, header, sizes = _read(path)
    return header, sizes


def plain_state(net: SparseNet) -> dict[str, Tensor]:
    """The state of the plain torch module, spatial weights in place of coefficients and FBs: for anyone's use."""
    layers = {f"{name}.weight": layer for name, layer in net.layers.items()}
    state = {}
    for key, value in net.net.state_dict().items():
        if ".parametrizations." not in key:
            state[key] = value.detach()
    for key, layer in layers.items():
        weight = layer.weight
        assert isinstance(weight, Tensor)
        state[key] = weight.detach()
    return state


class _Header(Value):
    dataset: str
    model: str
    run: str
    seed: int
    init: str
    space: str
    values: str
    layers: tuple[tuple[int, int, int], ...]
    basis: dict[str, Any] = Field(default_factory=dict)
    off: str = "zero"
    faded: float = 1.0
    start: str = ""


def _read(path: Path) -> tuple[SparseNet, dict[str, Any], Sizes]:
    header, body = _content(path)
    try:
        net = _fresh(_run(header))
    except BadInput as error:
        raise BadProduct(f"{path}: its net cannot be built here: {error}") from None
    if header.values not in VALUES:
        raise BadProduct(f"{path}: its values are of type {header.values!r:.40}; valid: {', '.join(VALUES)}")
    if len(header.layers) != len(net.masks):
        raise BadProduct(
            f"{path}: {len(header.layers)} layers: it does not fit a {header.model}, which has {len(net.masks)}"
        )
    if header.off != "zero" and tensors_digest(net.start)[:32] != header.start:
        raise BadProduct(
            f"{path}: the initial values drawn here are not those of the machine that packed it; try its torch version"
        )
    place = 0

    def take(size: int) -> bytes:
        nonlocal place
        piece = body[place : place + size]
        if len(piece) != size:
            raise ValueError("it ends too early")
        place += size
        return piece

    kind = VALUES[header.values]
    try:
        masks = {}
        for (name, mask), (count, bits, size) in zip(net.masks.items(), header.layers, strict=True):
            coded = sparse_code.decode(take(size), bits, mask.numel(), count)
            masks[name] = torch.from_numpy(coded).view(mask.shape)
        net.masks = masks
        net.fade(header.faded)  # what is left out takes its off-value
        kept = []
        with torch.no_grad():
            for (name, c), (count, _, _) in zip(net.coefficients.items(), header.layers, strict=True):
                kept.append(_tensor(take(count * kind.itemsize), kind, (count,)))
                c[masks[name]] = kept[-1].to(c.dtype)
            for tensor in (*_bases(net).values(), *_others(net).values()):
                tensor.copy_(_tensor(take(tensor.numel() * tensor.element_size()), tensor.dtype, tensor.shape))
        if place != len(body):
            raise ValueError("it is too long")
    except ValueError as error:
        raise BadProduct(f"{path}: does not hold a {header.model}: {error}") from None
    parts = {
        "header": path.stat().st_size - len(body) - _CHECKSUM,
        "masks": sum(size for _, _, size in header.layers),
        "values": sum(count for count, _, _ in header.layers) * kind.itemsize,
        "filter bases": sum(map(_size, _bases(net).values())),
        "biases, norms, buffers": sum(map(_size, _others(net).values())),
        "checksum": _CHECKSUM,
    }
    return net.eval(), header.model_dump(), _sizes(parts, net, kept)


def _content(path: Path) -> tuple[_Header, bytes]:
    """Header and body of a file whose checksum is right."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadProduct(f"{path}: {error.strerror or error}") from None
    if not content.startswith(MAGIC):
        raise BadProduct(f"{path}: not a packed net (`ipbench pack` writes them)")
    version = int.from_bytes(content[len(MAGIC) : len(MAGIC) + 2], "little")
    if len(content) >= _FIXED and version != VERSION:
        raise BadProduct(f"{path}: packed in format {version}; this version of ipbench reads format {VERSION}")
    if len(content) < _FIXED + _CHECKSUM or hashlib.sha256(content[:-_CHECKSUM]).digest() != content[-_CHECKSUM:]:
        raise BadProduct(
            f"{path}: checksum does not match, the file was cut off or altered; `ipbench pack` writes it anew"
        )
    length = int.from_bytes(content[_FIXED - 4 : _FIXED], "little")
    try:
        header = build(_Header, json.loads(content[_FIXED : _FIXED + length]), f"{path}: header")
    except (ValueError, RecursionError):
        raise BadProduct(f"{path}: its header is not readable") from None
    except BadInput as error:
        raise BadProduct(str(error)) from None
    return header, content[_FIXED + length : -_CHECKSUM]


def _run(header: _Header) -> Run:
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


def _fresh(run: Run) -> SparseNet:
    facts = datasets.dataset(run.dataset)
    net = build_model(run.model, facts.shape, facts.classes, run.seed, run.recipe.init)
    return SparseNet(net, run, facts.shape)


def _faded(net: SparseNet, masks: Mapping[str, Tensor]) -> float:
    """What is left of the initial values outside the masks, the factor that gives them bit for bit."""
    for name, c in net.coefficients.items():
        off = ~masks[name]
        start, now = net.start[name].flatten()[off], c.detach().flatten()[off]
        if bool((start != 0).any()):
            largest = int(start.abs().argmax())
            return float(now[largest].double() / start[largest].double())
    return 1.0


def _bases(net: SparseNet) -> dict[str, Tensor]:
    """The filter bases that were trained; the others come from the seed."""
    return {name: basis.matrix.detach() for name, basis in net.bases.items() if isinstance(basis.matrix, nn.Parameter)}


def _others(net: SparseNet) -> dict[str, Tensor]:
    """Biases, norms and buffers."""
    known = {id(c) for c in net.coefficients.values()} | {id(basis.matrix) for basis in net.bases.values()}
    named = {**dict(net.net.named_parameters()), **dict(net.net.named_buffers())}
    return {name: tensor.detach() for name, tensor in named.items() if id(tensor) not in known}


def _sizes(parts: dict[str, int], net: SparseNet, kept: list[Tensor]) -> Sizes:
    dense, coefficients = net.counted.parameters, sum(map(len, kept))
    stored = coefficients + net.basis_entries + dense - net.prunable
    return Sizes(parts, 4 * dense, dense, stored)


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _bytes(tensor: Tensor) -> bytes:
    data: bytes = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    return data


def _tensor(data: bytes, kind: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(np.frombuffer(data, dtype=np.uint8).copy()).view(kind).view(shape)
