"""Spaces: how a prunable weight is represented (floor 2).

`sp` leaves a layer as it is: the coefficients are the weight. `ip` (interspace pruning; Wimmer, Mehnert, Condurache,
CVPR 2022) writes every K x K filter, K > 1, as a linear combination of a filter basis (FB),

    h = sum_n lambda_n g^(n),

and the coefficients are lambda. It is a `torch.nn.utils.parametrize` parametrisation of `weight`, so it fits every
module with convolutions.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ipbench import keys
from ipbench.precision import product
from ipbench.spec import Basis

PRUNABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def prunable_layers(net: nn.Module) -> dict[str, nn.Module]:
    """The layers whose weights count as prunable, by their name in `net`: convolutions and linear layers.

    A module that is used at several places appears once, under its first name.
    """
    return {name: module for name, module in net.named_modules() if isinstance(module, PRUNABLE)}


class FilterBasis(nn.Module):
    """One filter basis for kernels with N entries.

    `matrix` has shape (N, N); row n is the flattened filter g^(n). It is a parameter if the FB is trained and a buffer
    otherwise.
    """

    matrix: Tensor

    def __init__(self, matrix: Tensor, *, train: bool) -> None:
        super().__init__()
        if train:
            self.matrix = nn.Parameter(matrix)
        else:
            self.register_buffer("matrix", matrix)


class Interspace(nn.Module):
    """The parametrisation: coefficients (c_out, c_in / groups, *kernel) to a weight of the same shape."""

    def __init__(self, basis: FilterBasis) -> None:
        super().__init__()
        self.basis = basis

    def forward(self, coefficients: Tensor) -> Tensor:
        """The filters h = sum_n lambda_n g^(n), in the type of the coefficients even under autocast."""
        with torch.autocast(coefficients.device.type, enabled=False):
            matrix = self.basis.matrix
            return product(coefficients.reshape(-1, len(matrix)), matrix).view_as(coefficients)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The coefficients of given filters: lambda with lambda F = h."""
        matrix = self.basis.matrix.detach()
        if torch.equal(matrix, torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)):
            return weight  # exactly, bit for bit
        flat = weight.reshape(-1, len(matrix)).double()
        return torch.linalg.solve(matrix.double().T, flat.T).T.to(weight.dtype).reshape(weight.shape)


def standard_basis(entries: int) -> Tensor:
    """The one-pixel basis: with it, coefficients are the weights themselves. Shape (N, N)."""
    return torch.eye(entries)


def orthonormal_basis(entries: int, generator: torch.Generator) -> Tensor:
    """A random orthonormal basis of shape (N, N), uniform over the orthogonal group.

    QR of a Gaussian matrix with the signs of R's diagonal moved into Q (Mezzadri, Notices of the AMS 54, 2007).
    """
    gaussian = torch.randn(entries, entries, generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(gaussian)
    return (q * r.diagonal().sign()).T.float().contiguous()


def has_basis(layer: nn.Module, options: Basis) -> bool:
    """Whether filters of this layer are combinations of an FB in `ip`: convolutions with more than one kernel entry."""
    if isinstance(layer, nn.Linear):
        return False
    kernel = layer.kernel_size
    assert isinstance(kernel, tuple)
    return max(kernel) > 1 and (options.large_kernels or max(kernel) <= 3)


def enter_interspace(
    net: nn.Module, options: Basis, seed: int, stages: Mapping[str, str] | None = None
) -> dict[str, FilterBasis]:
    """Represent the convolutions of `net` in the interspace; the function that the net computes stays the same.

    Args:
        net: changed in place; its present weights become the start of the coefficients.
        options: start, sharing, training of the FB.
        seed: the run's seed, for an orthonormal start.
        stages: for sharing by stage: the name of the stage of every layer.

    Returns:
        The FBs by name: `<group>/<kernel>`, where a group is a layer, a stage or "network".
    """
    bases: dict[str, FilterBasis] = {}
    for name, layer in prunable_layers(net).items():
        if not has_basis(layer, options):
            continue
        if options.sharing == "stage":
            if stages is None:
                raise ValueError("sharing by stage needs the stages of the layers")
            group = stages[name]
        else:
            group = {"layer": name, "network": "network"}[options.sharing]
        kernel = layer.kernel_size
        assert isinstance(kernel, tuple) and isinstance(layer.weight, Tensor)
        label = f"{group}/{'x'.join(str(side) for side in kernel)}"
        if label not in bases:
            entries = layer.weight[0, 0].numel()
            if options.init == "standard":
                matrix = standard_basis(entries)
            else:
                matrix = orthonormal_basis(entries, keys.generator(seed, "basis", label))
            bases[label] = FilterBasis(matrix.to(layer.weight), train=options.train)
        parametrize.register_parametrization(layer, "weight", Interspace(bases[label]))
    return bases


def coefficients(layer: nn.Module) -> nn.Parameter:
    """The prunable tensor of a layer, in either space."""
    if parametrize.is_parametrized(layer, "weight"):
        parameter = layer.parametrizations.weight.original  # type: ignore[union-attr]
    else:
        parameter = layer.weight
    assert isinstance(parameter, nn.Parameter)
    return parameter


def filter_basis(layer: nn.Module) -> Tensor | None:
    """The matrix (N, N) of a layer's FB, a filter per row; None if the layer has none."""
    if not parametrize.is_parametrized(layer, "weight"):
        return None
    interspace = layer.parametrizations.weight[0]  # type: ignore[union-attr,index]
    return interspace.basis.matrix if isinstance(interspace, Interspace) else None
