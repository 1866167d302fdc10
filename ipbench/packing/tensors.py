"""What every format of a packed net does with tensors: which there are, their bytes, and what fits these."""

from __future__ import annotations

import math
from io import BytesIO

import numpy as np
import torch
from torch import Tensor, nn

from ipbench.errors import BadInput
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
