"""Tensors like the coefficients of a net that was sliced, in the shapes of its dense net, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ipbench.sparse import slicing

if TYPE_CHECKING:
    from ipbench.sparse.net import SparseNet


def of_the_dense_net(net: SparseNet, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Tensors like the coefficients of a net that may have been sliced, as of the dense net: zero, or False, else."""
    if not net.structure:
        return tensors
    cut = slicing.plan(net.groups, net.structure.removed(net.groups))
    dense = {}
    for name, tensor in tensors.items():
        dense[name] = tensor.new_zeros(net.dense_shapes[name])
        kept = cut.kept.get(net.weights[name], {})
        sides = [kept.get(axis, np.arange(side)) for axis, side in enumerate(dense[name].shape)]
        dense[name][tuple(torch.from_numpy(index) for index in np.ix_(*sides))] = tensor
    return dense


def as_it_is(net: SparseNet, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors like the coefficients of the dense net, as of the net that may have been sliced."""
    if not net.structure:
        return dict(tensors)
    cut = slicing.plan(net.groups, net.structure.removed(net.groups))
    return {name: cut.take(net.weights[name], tensor) for name, tensor in tensors.items()}
