"""What a plain dense net consists of, and the multiply-accumulates (MACs) of one image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ipbench.errors import BadInput
from ipbench.sparse import layers as kinds
from ipbench.sparse.example import Example, example_of
from ipbench.sparse.layers import Weight, not_prunable, origins, prunable_weights
from ipbench.sparse.measure.products import CHOOSES, Products, used_for_some


@dataclass(frozen=True)
class Layer:
    """A prunable weight as in the plain dense net; or, of kind "other", a tensor that is not prunable and has MACs."""

    name: str
    kind: Literal["conv", "transposed", "linear", "other"]
    shape: tuple[int, ...]  #: of the weight: (outputs, inputs per group, *kernel); transposed: inputs first
    parameters: int  #: weight and biases
    positions: (
        Fraction  #: how often one image uses each weight: output pixels (transposed: input pixels), rows; all uses
    )
    groups: int
    in_channels: int
    out_channels: int

    @property
    def size(self) -> int:
        """Entries of the weight."""
        return math.prod(self.shape)

    @property
    def macs(self) -> int:
        """Dense MACs of one image: every weight is used once per position."""
        return int(self.size * self.positions)

    @property
    def prunable(self) -> bool:
        """Whether masks act on it."""
        return self.kind != "other"


@dataclass(frozen=True)
class Count:
    """What a net consists of, counted as the plain dense net."""

    parameters: int  #: all of them: weights, biases, norms and others
    buffers: int  #: numbers in floating-point buffers that are saved with the net (running statistics)
    layers: list[Layer]  #: the prunable ones in the order of the net, then others with MACs
    not_prunable: dict[str, int] = field(
        default_factory=dict
    )  #: entries of parameters of 2 or more dimensions, by name

    @property
    def macs(self) -> int:
        """Dense MACs of one image."""
        return sum(layer.macs for layer in self.layers)

    @property
    def prunable(self) -> int:
        """Entries of all prunable weights."""
        return sum(layer.size for layer in self.layers if layer.prunable)

    @property
    def other_values(self) -> int:
        """Numbers a stored net holds beside the prunable weights: biases, norms, other parameters, buffers."""
        return self.parameters - self.prunable + self.buffers

    @property
    def stages(self) -> dict[str, str]:
        """The stage of every layer: what works at one resolution; the number of positions names it."""
        return {layer.name: f"stage{layer.positions}" for layer in self.layers}

    @property
    def unseen(self) -> list[str]:
        """Prunable layers that an evaluated image does not use."""
        return [layer.name for layer in self.layers if layer.prunable and not layer.positions]


def count(net: nn.Module, shape: Example | Sequence[int]) -> Count:
    """Count a net by one forward pass on an image of zeros, in evaluation mode, on the net's device.

    A net whose tensors are parametrised (`torch.nn.utils.parametrize`) is counted as the plain net: parameters that
    belong to a parametrisation, wherever else they are registered, are not counted. A weight counts once, however many
    modules hold it, and its MACs are those of all its uses. Nothing of the net changes, and the global generators do
    not either.

    Args:
        net: any module that maps images (B, *shape) to something.
        shape: of one image, e.g. (C, H, W); or what else the net is called with: then all is of one such call.

    Raises:
        BadInput: a weight is used in a way that cannot be counted, or for some images and not for others, has no shape
            yet, or shares memory with another.
    """
    weights = prunable_weights(net)
    owners = _owners(net, weights)
    products = Products(net, owners)
    first = next(net.parameters(), torch.empty(0))
    forked = [first.device] if first.device.type == "cuda" else []
    with evaluating(net), torch.no_grad(), torch.random.fork_rng(devices=forked):
        inputs = example_of(shape).one(first)
        with products.watching(*inputs.tensors):
            inputs.of(net)
        if name := used_for_some(net, products, inputs):
            raise BadInput(
                f"{owners.get(name, name)}: used for some inputs and not for others,"
                f" {CHOOSES.format(type(net).__name__)}; what such a net computes cannot be counted"
            )
        parameters, buffers = _plain_values(net)
        shapes = {name: tuple(weight.weight.shape) for name, weight in weights.items()}
    left_out = not_prunable(net, weights)
    macs, others = _ascribed(products, owners, {name: math.prod(sides) for name, sides in shapes.items()})
    _refuse_unknown(products, owners, macs, left_out)
    found = [_layer(weight, shapes[name], macs[name]) for name, weight in weights.items()]
    return Count(parameters, buffers, found + [_other(net, name, number) for name, number in others.items()], left_out)


def _owners(net: nn.Module, weights: dict[str, Weight]) -> dict[str, str]:
    """Name of a parameter -> the layer whose weight it is, or is a part of."""
    names = {id(tensor): name for name, tensor in net.named_parameters()}
    return {
        names[id(tensor)]: weight.name
        for weight in weights.values()
        for use in weight.uses
        for tensor in origins(use)
        if id(tensor) in names
    }


def _ascribed(
    products: Products, owners: dict[str, str], sizes: dict[str, int]
) -> tuple[dict[str, Fraction], dict[str, int]]:
    """MACs by layer, and by tensor that belongs to none.

    Raises:
        BadInput: one product uses the weights of several layers, mixed.
    """
    macs, others = dict.fromkeys(sizes, Fraction(0)), dict[str, int]()
    for product in products.found:
        owning = {owners[name]: None for name in sorted(product.tensors) if name in owners}
        total = sum(sizes[name] for name in owning)
        if not owning:
            name = min(product.tensors)
            others[name] = others.get(name, 0) + product.macs
        elif len(owning) > 1 and total != product.size:
            raise BadInput(
                f"layers {', '.join(owning)}: one product uses their weights mixed; it can be ascribed to none of them"
            )
        for name in owning:  # several: their weights side by side
            macs[name] += Fraction(product.macs * sizes[name], total)
    return macs, others


def _refuse_unknown(
    products: Products, owners: dict[str, str], macs: dict[str, Fraction], left_out: dict[str, int]
) -> None:
    """Raise `BadInput` if weights are used by operators whose MACs are not known here: the count would be too low."""
    for name, operators in products.met.items():
        layer = owners.get(name)
        foreign = {operator for operator in operators if not operator.startswith("aten.")}
        unknown = (operators if layer and not macs[layer] else foreign) if layer or name in left_out else set()
        if unknown:
            raise BadInput(
                f"{layer or name}: used by the operator {min(unknown)}, whose multiply-accumulates are not known here"
            )


def _layer(weight: Weight, shape: tuple[int, ...], macs: Fraction) -> Layer:
    """The facts of one layer."""
    module = weight.module
    size, kernel, groups = math.prod(shape), weight.kernel, 1
    kind: Literal["conv", "transposed", "linear"] = "linear"
    outputs, inputs = shape[:2]
    if kernel:
        groups, inputs, outputs = module.groups, module.in_channels, module.out_channels  # type: ignore[assignment]
        kind = "transposed" if isinstance(module, kinds.TRANSPOSED) else "conv"
    biases = {
        id(bias): bias.numel()
        for use in weight.uses
        if isinstance(bias := getattr(use.module, use.parameter.replace("weight", "bias"), None), Tensor)
    }
    positions = macs / size if size else Fraction(0)
    return Layer(weight.name, kind, shape, size + sum(biases.values()), positions, groups, inputs, outputs)


def _other(net: nn.Module, name: str, macs: int) -> Layer:
    """A tensor that is no prunable weight and has MACs."""
    tensor = dict((*net.named_buffers(), *net.named_parameters()))[name]
    shape = tuple(tensor.shape)
    own = tensor.numel() if isinstance(tensor, nn.Parameter) else 0
    sides = (*shape, 1, 1)
    return Layer(name, "other", shape, own, Fraction(macs, tensor.numel()), 1, sides[1], sides[0])


def _plain_values(net: nn.Module) -> tuple[int, int]:
    """Parameters, and entries of saved floating-point buffers, of the net without its parametrisations."""
    inside: set[int] = set()
    plain: dict[tuple[int, ...], int] = {}
    for module in net.modules():
        if isinstance(module, parametrize.ParametrizationList):
            inside.update(id(tensor) for tensor in (*module.parameters(), *module.buffers()))
        elif parametrize.is_parametrized(module):
            assert isinstance(module.parametrizations, nn.ModuleDict)
            for name, parametrisation in module.parametrizations.items():
                # By what it is computed from: a weight that two modules share counts once.
                origin = tuple(id(tensor) for tensor in parametrisation.parameters(recurse=False))
                plain[origin or (id(module), id(parametrisation))] = getattr(module, name).numel()
    parameters = sum(tensor.numel() for tensor in net.parameters() if id(tensor) not in inside)
    saved = {
        id(tensor): tensor.numel()
        for module in net.modules()
        for name, tensor in module.named_buffers(recurse=False)
        if name not in module._non_persistent_buffers_set and tensor.is_floating_point() and id(tensor) not in inside
    }
    return parameters + sum(plain.values()), sum(saved.values())


@contextmanager
def evaluating(*nets: nn.Module) -> Iterator[None]:
    """Evaluation mode within the block; afterwards every module is in the mode it was in."""
    modes = [(module, module.training) for net in nets for module in net.modules()]
    for net in nets:
        net.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
