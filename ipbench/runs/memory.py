"""What methods remember, as a file holds it: tensors, and numbers as tensors of no dimension."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ipbench.errors import BadInput

_KINDS = {bool: torch.bool, int: torch.int64, float: torch.float64}


def packed(values: Mapping[str, Any], who: str) -> dict[str, Tensor]:
    """Tensors for a file; what is a number, and what a tensor, is told by the name.

    Raises:
        BadInput: a value is neither, or its name is no text.
    """
    result = {}
    for name, value in values.items():
        if isinstance(name, str) and isinstance(value, Tensor):
            result[f"tensor {name}"] = value.detach().clone()
        elif isinstance(name, str) and type(value) in _KINDS:
            result[f"number {name}"] = _number(value, f"{who}: {name!r:.60}")
        else:
            raise BadInput(f"{who}: {name!r:.60} is {value!r:.60}; tensors and plain numbers by name can be remembered")
    return result


def unpacked(tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, Any]:
    """What `packed` was given, with its tensors on `device`."""
    result: dict[str, Any] = {}
    for label, tensor in tensors.items():
        kind, _, name = label.partition(" ")
        result[name] = tensor.to(device) if kind == "tensor" else tensor.item()
    return result


def packed_by_owner(memories: Mapping[str, Mapping[str, Any]], who: str) -> dict[str, Tensor]:
    """The same of several owners, whose names are any texts."""
    return {
        json.dumps([owner, label]): tensor
        for owner, values in memories.items()
        for label, tensor in packed(values, f"{who}: {owner}").items()
    }


def unpacked_by_owner(tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, dict[str, Any]]:
    """What `packed_by_owner` was given; owners that remember nothing are left out."""
    parts: dict[str, dict[str, Tensor]] = {}
    for label, tensor in tensors.items():
        owner, inner = json.loads(label)
        parts.setdefault(owner, {})[inner] = tensor
    return {owner: unpacked(values, device) for owner, values in parts.items()}


def _number(value: float, who: str) -> Tensor:
    try:
        return torch.tensor(value, dtype=_KINDS[type(value)])
    except (RuntimeError, OverflowError, ValueError):
        raise BadInput(f"{who} is {value}: whole numbers of at most 64 bits can be remembered") from None
