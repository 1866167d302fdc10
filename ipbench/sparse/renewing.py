"""What begins anew around channels that were cut: norms, biases, filters, and linear layers that read them."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from ipbench.sparse import spaces
from ipbench.sparse.structure import restricted

if TYPE_CHECKING:
    from ipbench.sparse.net import SparseNet

#: What can begin anew; `methods.Slice` has the same words.
Fresh = Literal["norms", "biases", "filters", "linear"]

#: Modules with a value per channel that `reset_parameters` sets to what a new one has.
_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)


def renew(net: SparseNet, groups: Collection[str], what: Collection[Fresh]) -> None:
    """Set what belongs to some channel groups to what it is in a net that is built.

    Args:
        net: as it is after the cut; changed in place.
        groups: names of those that lost channels.
        what: "norms" of these channels: scale 1, shift 0, running mean 0 and variance 1; "biases" of the layers that
            make them: 0. "filters": the weights of these layers, "linear": those of linear layers that read the
            channels, with their biases; both get the run's initial values at the places that are left, in the
            interspace with the initial filter basis.
    """
    if not what:
        return
    makers, readers, vectors = set[str](), set[str](), set[str]()
    for group in restricted(net.groups, net.structure):
        if group.name in groups:
            makers |= {member.layer for member in group.producers}
            readers |= {member.layer for member in group.consumers}
            vectors |= {member.tensor for member in group.members if member.role == "vector"}
    with torch.no_grad():
        if "norms" in what:
            for module in {tensor.rpartition(".")[0] for tensor in vectors}:
                if isinstance(norm := net.net.get_submodule(module), _NORMS):
                    norm.reset_parameters()
        linear = {name for name in readers if name in net.layers and isinstance(net.layers[name].module, nn.Linear)}
        for name in sorted(net.layers):
            if (name in makers and "biases" in what) or (name in linear and "linear" in what):
                _zero_bias(net.layers[name].module)
            if (name in makers and "filters" in what) or (name in linear and "linear" in what):
                _restart(net, name)


def _zero_bias(module: nn.Module) -> None:
    if isinstance(bias := getattr(module, "bias", None), torch.Tensor):
        bias.zero_()


def _restart(net: SparseNet, name: str) -> None:
    """The initial coefficients of a layer, and its initial filter basis."""
    net.coefficients[name].copy_(net.start[name])
    matrix = spaces.filter_basis(net.layers[name])
    for label, basis in net.bases.items():
        if matrix is basis.matrix:
            basis.matrix.copy_(net.basis_start[label])
