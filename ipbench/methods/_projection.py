"""A sparse random projection of the filters that read channels which are cut, on as many inputs as are left."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from ipbench import keys
from ipbench.errors import BadInput
from ipbench.sparse import spaces
from ipbench.sparse.view import sparse_net

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from scipy.sparse import csr_array

    from ipbench.sparse.channels import Group, Member
    from ipbench.sparse.net import SparseNet
    from ipbench.sparse.view import NetView

#: Random numbers that are held at a time.
_AT_ONCE = 2**22


def project_inputs(net: NetView, group: Group, kept: NDArray[np.int64]) -> None:
    """Put projections of the filters that read a group in the place of what they read of the channels that stay.

    In the interspace the filters are projected, and their coefficients are those of the projections. A convolution with
    groups is cut with the channels that it reads, and so it is not projected.

    Args:
        net: changed in place, before its channels are cut.
        group: of channels.
        kept: the units that stay.

    Raises:
        BadInput: something else than a convolution or a linear layer reads them.
    """
    whole = sparse_net(net)
    for member in group.consumers:
        layer = whole.layers[member.layer]
        if not isinstance(layer.module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
            raise BadInput(
                f"method {whole.run.method}: start=projection has no meaning for layer {member.layer}, which is neither"
                " a convolution nor linear; take start=centroids"
            )
        _project(whole, member, kept)


def _project(net: SparseNet, member: Member, kept: NDArray[np.int64]) -> None:
    """Of one layer, whose inputs lie along axis 1."""
    layer = net.layers[member.layer]
    weight = layer.weight.detach().clone()
    slices = torch.from_numpy(member.indices.reshape(-1)).to(weight.device)
    stay = torch.from_numpy(member.indices[kept].reshape(-1)).to(weight.device)
    read = weight[:, slices].flatten(1).cpu().double().numpy()
    components = len(stay) * math.prod(weight.shape[2:])
    key = keys.key(net.run.seed, "init", "projection", member.layer)
    projected = (sparse_projection(components, read.shape[1], key) @ read.T).T
    weight[:, stay] = torch.from_numpy(projected).to(weight).reshape(len(weight), len(stay), *weight.shape[2:])
    spaces.set_weight(layer, weight)


def sparse_projection(components: int, features: int, key: int) -> csr_array:
    """The matrix of Li, Hastie and Church (KDD 2006), of shape (components, features).

    An entry is 0 with probability 1 - d, and plus or minus sqrt(1 / (d components)) with d / 2 each, where d is
    1 / sqrt(features). Which it is depends on its key and place alone: fewer components are the first ones of more.

    Args:
        components: of what is projected on.
        features: of what is projected.
        key: of the random numbers.
    """
    from scipy.sparse import csr_array, vstack

    density = 1 / math.sqrt(features)
    size = math.sqrt(1 / density) / math.sqrt(components)

    def parts() -> Iterator[csr_array]:
        rows = max(1, _AT_ONCE // features)
        for first in range(0, components, rows):
            places = np.arange(first * features, min(first + rows, components) * features)
            draws = (keys.indexed_bits(key, places) >> np.uint64(11)).reshape(-1, features) * 2.0**-53
            yield csr_array(np.where(draws < density, np.where(draws < density / 2, size, -size), 0.0))

    return csr_array(vstack(list(parts())))
