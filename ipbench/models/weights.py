"""Weights that a net starts with: safetensors files alone, nothing is unpickled in a run."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import nn

from ipbench import files
from ipbench.errors import BadInput, BadProduct
from ipbench.store import MOST_TENSORS

#: A buffer that some files leave out, and that nothing is computed from where batch norms have a momentum.
_COUNTER = "num_batches_tracked"


def load(net: nn.Module, path: Path, sha256: str, classes: int) -> list[str]:
    """Give a net the values of a file.

    Every tensor of the net must be in the file, with its name and shape, and none beside them. Only what makes the
    outputs may differ: a tensor with a row for each class keeps its drawn values where the file has another number of
    rows.

    Args:
        net: on the CPU; changed in place.
        path: a safetensors file.
        sha256: of its bytes, as planned.
        classes: the number of logits.

    Returns:
        The names of the tensors that keep their drawn values.

    Raises:
        BadInput: there is no such file, it is another one than was planned, or it does not fit the net.
    """
    given = read(path, sha256)
    own = net.state_dict()
    if unknown := [name for name in given if name not in own]:
        raise BadInput(f"{path}: holds {unknown[0]!r:.80}, which the net does not have{_more(unknown)}")
    if lacking := [name for name in own if name not in given and not name.endswith(_COUNTER)]:
        raise BadInput(f"{path}: lacks {lacking[0]!r:.80}, which the net has{_more(lacking)}")
    drawn = []
    with torch.no_grad():
        for name, tensor in given.items():
            mine = own[name]
            if tensor.shape == mine.shape:
                mine.copy_(tensor)
            elif mine.ndim and tensor.shape[1:] == mine.shape[1:] and len(mine) == classes:
                drawn.append(name)
            else:
                raise BadInput(
                    f"{path}: {name!r:.80} has the shape {tuple(tensor.shape)}, and in the net {tuple(mine.shape)}"
                )
    if len(drawn) == len(given):
        raise BadInput(f"{path}: holds no tensor that fits the net")
    return drawn


def read(path: Path, sha256: str | None = None) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file.

    Args:
        path: the file.
        sha256: that its bytes must have; None for any.

    Raises:
        BadInput: there is no such file, it is no whole safetensors file, or another one than was planned.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as parsed

    content = files.read(path, MOST_TENSORS)
    if sha256 is not None and (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise BadInput(f"{path}: not the weights that were planned with (SHA-256 {found:.12} now, {sha256:.12} then)")
    try:
        unsorted: dict[str, torch.Tensor] = parsed(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise BadProduct(f"{path}: not a whole safetensors file ({type(error).__name__})") from None
    # The library gives them in another order in every process, and messages name the first.
    tensors = dict(sorted(unsorted.items()))
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise BadInput(f"{path}: {name!r:.80} holds values that are not finite")
    return tensors


def _more(names: list[str]) -> str:
    return f" ({len(names) - 1:,} more)" if names[1:] else ""
