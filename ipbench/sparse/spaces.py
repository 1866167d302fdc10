"""Spaces: how a prunable weight is represented.

`sp` leaves a layer as it is: the coefficients are the weight. `ip` (interspace pruning; Wimmer, Mehnert, Condurache,
CVPR 2022) writes every K x K filter, K > 1, as a linear combination of a filter basis (FB),

    h = sum_n lambda_n g^(n),

and the coefficients are lambda. It is a `torch.nn.utils.parametrize` parametrisation of `weight`, so it fits every
module with convolutions, transposed ones too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ipbench import keys
from ipbench.errors import BadInput
from ipbench.machine.precision import product
from ipbench.sparse.filters import Building, Together, divided
from ipbench.sparse.layers import Use, Weight
from ipbench.spec import Basis


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
    """The parametrisation: coefficients, e.g. (c_out, c_in / groups, *kernel), to a weight of the same shape.

    Attributes:
        basis: the FB.
        building: of the net that it is a part of; None if its filters are built alone always.
    """

    def __init__(self, basis: FilterBasis) -> None:
        super().__init__()
        self.basis = basis
        self.building: Building | None = None

    def forward(self, coefficients: Tensor) -> Tensor:
        """The filters h = sum_n lambda_n g^(n), in the type of the coefficients even under autocast."""
        if self.building is not None and self.building.now is not None:
            ready = self.building.now.take(self, coefficients)
            if ready is not None:
                return ready
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


def has_basis(layer: Weight, options: Basis) -> bool:
    """Whether filters of this layer are combinations of an FB in `ip`: convolutions with more than one kernel entry."""
    largest = max(layer.kernel, default=1)
    return largest > 1 and (options.large_kernels or largest <= 3)


def basis_labels(
    layers: Mapping[str, Weight], options: Basis, stages: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The name of the FB of every layer that has one in `ip`: `<group>/<kernel>`.

    Args:
        layers: of `prunable_weights`.
        options: sharing and large kernels.
        stages: for sharing by stage: the name of the stage of every layer.

    Returns:
        By layer; a group is a layer, a stage or "network".
    """
    if options.sharing == "stage" and stages is None:
        raise ValueError("sharing by stage needs the stages of the layers")
    labels = {}
    for name, layer in layers.items():
        if has_basis(layer, options):
            group = {"layer": name, "stage": (stages or {}).get(name, ""), "network": "network"}[options.sharing]
            labels[name] = f"{group}/{'x'.join(str(side) for side in layer.kernel)}"
    return labels


def enter_interspace(
    layers: Mapping[str, Weight], options: Basis, seed: int, stages: Mapping[str, str] | None = None
) -> dict[str, FilterBasis]:
    """Represent convolutions in the interspace; the function that their net computes stays the same.

    Args:
        layers: of `prunable_weights`; changed in place, their present weights become the start of the coefficients. A
            weight that several modules share stays shared.
        options: start, sharing, training of the FB.
        seed: the run's seed, for an orthonormal start.
        stages: for sharing by stage: the name of the stage of every layer.

    Returns:
        The FBs by name, as in `basis_labels`.
    """
    bases: dict[str, FilterBasis] = {}
    for name, label in basis_labels(layers, options, stages).items():
        layer = layers[name]
        weight = layer.weight
        if label not in bases:
            entries = weight[0, 0].numel()
            if options.init == "standard":
                matrix = standard_basis(entries)
            else:
                matrix = orthonormal_basis(entries, keys.generator(seed, "basis", label))
            bases[label] = FilterBasis(matrix.to(weight), train=options.train)
        interspace = Interspace(bases[label])
        (module, parameter), *others = layer.uses
        parametrize.register_parametrization(module, parameter, interspace)
        for module, parameter in others:  # the same filters of the same coefficients
            setattr(module, parameter, nn.Parameter(layer.weight.detach().clone()))
            parametrize.register_parametrization(module, parameter, interspace)
            _parametrisation(module, parameter).original = coefficients(layer)
    return bases


def build_at_once(layers: Mapping[str, Weight]) -> tuple[Building, dict[Interspace, Together]]:
    """Let the filters of a net be built at once in its passes; what tells of a pass, and the layers built together.

    Args:
        layers: of the net, in its order, after `enter_interspace`.
    """
    held = [_parametrisation(*layer.uses[0]) for layer in layers.values() if filter_basis(layer) is not None]
    building, groups = Building(), {}
    for group in divided(held):
        for interspace in group.interspaces:
            interspace.building, groups[interspace] = building, group
    return building, groups


def leave_interspace(uses: Sequence[Use], weight: Tensor) -> None:
    """Make a weight of a copied net a plain parameter again.

    Not `parametrize.remove_parametrizations`: it takes the property `weight` from the class, which a module shares with
    its copies.

    Args:
        uses: every place where the copy holds the weight; changed in place.
        weight: the filters.
    """
    plain = nn.Parameter(weight)
    for module, parameter in uses:
        assert isinstance(module.parametrizations, nn.ModuleDict) and list(module.parametrizations) == [parameter]
        del module.parametrizations
        module.__class__ = type(module).__bases__[0]
        others = dict(module._parameters)
        module._parameters.clear()
        module._parameters.update({parameter: plain, **others})  # a weight stands before its bias


def plain_name(tensor: str) -> str:
    """What a parameter or buffer is called in the plain net: of coefficients, the name of the weight."""
    return re.sub(r"(^|\.)parametrizations\.([^.]+)\.original$", r"\1\2", tensor)


def check_held_by_modules(net: nn.Module, layers: Mapping[str, Weight], options: Basis) -> None:
    """Raise `BadInput` if a weight that would enter the interspace is also a parameter of some other module.

    That module would take the coefficients for filters.
    """
    filters = {id(layer.weight): layer for layer in layers.values() if has_basis(layer, options)}
    known = {(id(use.module), use.parameter) for layer in layers.values() for use in layer.uses}
    for path, module in net.named_modules():
        for name, tensor in module.named_parameters(recurse=False):
            if id(tensor) in filters and (id(module), name) not in known:
                raise BadInput(
                    f"layer {filters[id(tensor)].name}: its filters are also the parameter "
                    f"{f'{path}.{name}' if path else name}; in space ip these cannot be one"
                )


def place(layer: Weight) -> Use:
    """Where the net holds the prunable tensor of a layer, in either space."""
    if parametrize.is_parametrized(layer.module, layer.parameter):
        return Use(_parametrisation(layer.module, layer.parameter), "original")
    return layer.uses[0]


def coefficients(layer: Weight) -> nn.Parameter:
    """The prunable tensor of a layer, in either space."""
    parameter = getattr(*place(layer))
    assert isinstance(parameter, nn.Parameter)
    return parameter


def set_weight(layer: Weight, weight: Tensor) -> None:
    """Change the coefficients of a layer in place, so that its weight is this one; its FB stays as it is."""
    with torch.no_grad():
        if filter_basis(layer) is not None:
            interspace = _parametrisation(layer.module, layer.parameter)[0]
            assert isinstance(interspace, Interspace)
            weight = interspace.right_inverse(weight)
        coefficients(layer).copy_(weight)


def filter_basis(layer: Weight) -> Tensor | None:
    """The matrix (N, N) of a layer's FB, a filter per row; None if the layer has none."""
    if not parametrize.is_parametrized(layer.module, layer.parameter):
        return None
    interspace = _parametrisation(layer.module, layer.parameter)[0]
    return interspace.basis.matrix if isinstance(interspace, Interspace) else None


def _parametrisation(module: nn.Module, parameter: str) -> parametrize.ParametrizationList:
    assert isinstance(module.parametrizations, nn.ModuleDict)
    found = module.parametrizations[parameter]
    assert isinstance(found, parametrize.ParametrizationList)
    return found
