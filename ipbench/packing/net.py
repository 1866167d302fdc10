"""A trained sparse net as one small file: what training changed, and the seed for all the rest.

docs/packed-format.md describes the file.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ipbench.data import catalog as datasets
from ipbench.errors import BadInput, BadProduct, valid_choice
from ipbench.models.build import build as build_model
from ipbench.packing import mask_code as sparse_code
from ipbench.packing.file import (
    CHECKSUM,
    MAGIC,
    VALUES,
    VERSION,
    Sizes,
    claims,
    opened,
    plausible,
    read,
    run_of,
    too_large,
)
from ipbench.runs.state import End
from ipbench.sparse.net import SparseNet
from ipbench.spec import Run, canonical_json
from ipbench.store import tensors_digest, write_bytes


def pack(path: Path, run: Run, end: End, values: str = "fp32") -> Sizes:
    """Write a packed net atomically.

    Args:
        path: of the file.
        run: that was trained.
        end: of that run.
        values: how kept coefficients are stored, one of `VALUES`; everything else stays as it is.

    Raises:
        BadInput: an unknown type of values; a value that is not finite, or not in that type; a net that is too large.
        BadProduct: the end is not of this run.
    """
    kind = VALUES[valid_choice(values, VALUES, "type of values", "--values")]
    net = _fresh(run)
    start_digest = tensors_digest(net.start)
    try:
        net.load_tensors(end.net)
        net.masks = {name: end.masks[name] for name in net.masks}
        faded = _faded(net, end)
    except (KeyError, IndexError, RuntimeError):
        raise BadProduct(f"{path}: the tensors to pack are not those of a {run.model} in space {run.space}") from None
    if faded is None:
        raise BadProduct(f"{path}: what the masks leave out does not have its off-value; it cannot be packed")
    kept = {name: c.detach()[net.masks[name]] for name, c in net.coefficients.items()}
    for name, tensor in (*kept.items(), *_bases(net).items(), *_others(net).items()):
        _check_fits(name, tensor, tensor.dtype)
    for name, tensor in kept.items():
        _check_fits(name, tensor, kind)
    codes = {name: sparse_code.encode(mask.flatten().numpy()) for name, mask in net.masks.items()}
    layers = [[len(kept[name]), bits, len(code)] for name, (bits, code) in codes.items()]
    text = canonical_json(_header(run, values, layers, faded, start_digest)).encode()
    parts = {
        "header": MAGIC + VERSION.to_bytes(2, "little") + len(text).to_bytes(4, "little") + text,
        "masks": b"".join(code for _, code in codes.values()),
        "values": b"".join(_bytes(tensor.to(kind)) for tensor in kept.values()),
        "filter bases": b"".join(map(_bytes, _bases(net).values())),
        "biases, norms, buffers": b"".join(map(_bytes, _others(net).values())),
    }
    content = b"".join(parts.values())
    dense = net.counted.parameters
    if not plausible(dense, len(content) + CHECKSUM):
        raise BadInput(too_large(path, run.model, dense, len(content) + CHECKSUM))
    write_bytes(path, content + hashlib.sha256(content).digest())
    lengths = {name: len(part) for name, part in parts.items()} | {"checksum": CHECKSUM}
    stored = sum(map(len, kept.values())) + net.basis_entries + dense - net.prunable
    zeroed = sum(int(((tensor != 0) & (tensor.to(kind) == 0)).sum()) for tensor in kept.values())
    return Sizes(lengths, 4 * dense, dense, stored, zeroed)


def _header(run: Run, values: str, layers: list[list[int]], faded: float, start: str) -> dict[str, Any]:
    header = {
        "dataset": run.dataset,
        "model": run.model,
        "run": run.id,
        "seed": run.seed,
        "init": run.recipe.init,
        "space": run.space,
        "values": values,
        "layers": layers,
    }
    if basis := run.basis.differences():
        header["basis"] = basis
    if run.off != "zero":
        # The start is drawn anew when the file is read: this tells whether that machine draws the same.
        header |= {"off": "frozen", "faded": faded, "start": start[:32]}
    return header


def unpack(path: Path) -> SparseNet:
    """The net of a packed file, on the CPU: the same outputs, bit for bit, as the net that was packed with fp32 values.

    Raises:
        BadProduct: the file is missing, truncated, altered, of another version, or its net cannot be built here.
    """
    header, body = read(path)
    net, place = _fresh(run_of(header)), 0

    def take(kind: torch.dtype, shape: tuple[int, ...]) -> Tensor:
        nonlocal place
        size = math.prod(shape) * kind.itemsize
        place += size
        return _tensor(body[place - size : place], kind, shape)

    if header.off != "zero" and tensors_digest(net.start)[:32] != header.start:
        raise BadProduct(
            f"{path}: the initial values drawn here are not those of the machine that packed it; try its torch version"
        )
    kind = VALUES[header.values]
    try:
        for (name, mask), (count, bits, size) in zip(net.masks.items(), header.layers, strict=True):
            coded = sparse_code.decode(body[place : place + size], bits, mask.numel(), count)
            net.masks[name] = torch.from_numpy(coded).view(mask.shape)
            place += size
    except ValueError as error:
        raise BadProduct(f"{path}: does not hold a {header.model}: {error}") from None
    net.fade(header.faded)  # what is left out takes its off-value
    with torch.no_grad():
        for (name, c), (count, _, _) in zip(net.coefficients.items(), header.layers, strict=True):
            c[net.masks[name]] = take(kind, (count,)).to(c.dtype)
        for tensor in (*_bases(net).values(), *_others(net).values()):
            tensor.copy_(take(tensor.dtype, tuple(tensor.shape)))
    for name, tensor in net.tensors().items():
        if not bool(torch.isfinite(tensor).all()):
            raise BadProduct(f"{path}: {name} holds values that are not finite")
    return net.eval()


def inspect(path: Path) -> tuple[dict[str, Any], Sizes]:
    """The header of a packed file, and its bytes by part; the net itself is not built.

    Raises:
        BadProduct: the file is missing, truncated, altered, of another version, or claims what cannot be.
    """
    with opened(path) as (file, size):
        header, sizes = claims(path, file, size)
    return header.model_dump(), sizes


def plain_state(net: SparseNet) -> dict[str, Tensor]:
    """The state of the plain torch module, spatial weights in place of coefficients and FBs: for anyone's use."""
    state = {
        key: value.detach() for key, value in net.net.state_dict().items() if ".parametrizations." not in f".{key}"
    }
    for path, module in net.net.named_modules(remove_duplicate=False):
        for parameter in module.parametrizations if parametrize.is_parametrized(module) else ():
            key = f"{path}.{parameter}" if path else parameter
            state[key] = getattr(module, parameter).detach()
    return state


def _fresh(run: Run) -> SparseNet:
    facts = datasets.dataset(run.dataset)
    net = build_model(run.model, facts.shape, facts.classes, run.seed, run.recipe.init)
    return SparseNet(net, run, facts.shape)


def _faded(net: SparseNet, end: End) -> float | None:
    """What is left of the initial values outside the masks; None if nothing gives what is there, bit for bit."""
    if net.run.off != "decayed" or not (factors := _factors(net, end)):
        factors = [1.0]
    now = {name: c.detach() for name, c in net.coefficients.items()}
    for factor in factors:
        if all(torch.equal(now[name][~mask], net.off_values(name, factor)[~mask]) for name, mask in net.masks.items()):
            return factor
    return None


def _factors(net: SparseNet, end: End) -> list[float]:
    """The factor that the end tells; for one of version 0.1.0, those that rounding may have made to what is there."""
    if "faded" in end.facts:
        return [end.facts["faded"]]
    pairs = []
    for name, c in net.coefficients.items():
        start = net.start[name].masked_fill(net.masks[name], 0).flatten()
        place = start.abs().argmax()
        pairs.append((float(start[place]), float(c.detach().flatten()[place])))
    start_value, now = max(pairs, key=lambda pair: abs(pair[0]))
    if not start_value:
        return []
    quotient = np.float32(now / start_value)
    steps = quotient + np.arange(-4, 5, dtype=np.float32) * np.spacing(quotient)
    return [float(step) for step in sorted(steps, key=lambda step: abs(step - quotient))]


def _check_fits(name: str, tensor: Tensor, kind: torch.dtype) -> None:
    """Raise `BadInput` if a value is not finite in this type."""
    wrong = ~torch.isfinite(tensor.to(kind))
    if bool(wrong.any()):
        value = float(tensor[wrong][0])
        limit = f", whose largest is {torch.finfo(kind).max:g}" if math.isfinite(value) else ""
        raise BadInput(f"{name}: {value:g} cannot be packed as {str(kind).removeprefix('torch.')}{limit}")


def _bases(net: SparseNet) -> dict[str, Tensor]:
    """The filter bases that were trained; the others come from the seed."""
    return {name: basis.matrix.detach() for name, basis in net.bases.items() if isinstance(basis.matrix, nn.Parameter)}


def _others(net: SparseNet) -> dict[str, Tensor]:
    """Biases, norms and buffers."""
    known = {id(c) for c in net.coefficients.values()} | {id(basis.matrix) for basis in net.bases.values()}
    named = {**dict(net.net.named_parameters()), **dict(net.net.named_buffers())}
    return {name: tensor.detach() for name, tensor in named.items() if id(tensor) not in known}


def _bytes(tensor: Tensor) -> bytes:
    data: bytes = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    return data


def _tensor(data: bytes, kind: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(np.frombuffer(data, dtype=np.uint8).copy()).view(kind).view(shape)
