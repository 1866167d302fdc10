"""What every format of a packed net does with tensors: which there are, their bytes, and what fits these."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ipbench.errors import BadInput, BadProduct
from ipbench.packing import mask_code
from ipbench.sparse.net import SparseNet


def check_fits(name: str, tensor: Tensor, kind: torch.dtype) -> None:
    """Raise `BadInput` if a value is not finite in this type."""
    wrong = ~torch.isfinite(tensor.to(kind))
    if bool(wrong.any()):
        value = float(tensor[wrong][0])
        limit = f", whose largest is {torch.finfo(kind).max:g}" if math.isfinite(value) else ""
        raise BadInput(f"{name}: {value:g} cannot be packed as {str(kind).removeprefix('torch.')}{limit}")


def bases_of(net: SparseNet) -> dict[str, Tensor]:
    """The filter bases that were trained; the others come from the seed."""
    return {name: basis.matrix.detach() for name, basis in net.bases.items() if isinstance(basis.matrix, nn.Parameter)}


def others_of(net: SparseNet) -> dict[str, Tensor]:
    """Biases, norms and buffers."""
    known = {id(c) for c in net.coefficients.values()} | {id(basis.matrix) for basis in net.bases.values()}
    named = {**dict(net.net.named_parameters()), **dict(net.net.named_buffers())}
    return {name: tensor.detach() for name, tensor in named.items() if id(tensor) not in known}


def bytes_of(tensor: Tensor) -> bytes:
    """The bytes of a tensor on the CPU, in the order of its places."""
    data: bytes = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    return data


def taken(stream: BytesIO, kind: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """The next tensor of a file."""
    data = stream.read(math.prod(shape) * kind.itemsize)
    return (
        torch.from_numpy(np.frombuffer(data, dtype=np.uint8).copy()).view(kind).view(shape)
        if data
        else torch.empty(shape, dtype=kind)
    )


def masks_taken(stream: BytesIO, net: SparseNet, layers: Sequence[tuple[int, int, int]]) -> dict[str, Tensor]:
    """The masks at the beginning of what a file holds.

    Args:
        stream: it.
        net: whose layers they are of.
        layers: of each, in order: coefficients kept, remainder bits and bytes of its code.

    Raises:
        ValueError: the bytes of a mask are not those of one.
    """
    masks = {}
    for (name, mask), (count, bits, size) in zip(net.masks.items(), layers, strict=True):
        coded = mask_code.decode(stream.read(size), bits, mask.numel(), count)
        masks[name] = torch.from_numpy(coded).view(mask.shape)
    return masks


def rest_taken(stream: BytesIO, net: SparseNet) -> dict[str, Tensor]:
    """What follows the coefficients: the filter bases that were trained, then biases, norms and buffers."""
    places = {id(c): name for name, c in net.net.named_parameters()}
    bases = [basis.matrix for basis in net.bases.values() if isinstance(basis.matrix, nn.Parameter)]
    wanted = {**{places[id(matrix)]: matrix for matrix in bases}, **others_of(net)}
    return {name: taken(stream, tensor.dtype, tuple(tensor.shape)) for name, tensor in wanted.items()}


def check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise `BadProduct` if a file holds a value that is not finite."""
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise BadProduct(f"{path}: {name} holds values that are not finite")
