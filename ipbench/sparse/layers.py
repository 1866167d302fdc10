"""Which tensors of a net are prunable, whatever module holds them and however often they are used.

A layer is one tensor: a weight that several modules share (tied weights) is one layer, under its first name.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, combinations
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from ipbench.errors import BadInput

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)
RECURRENT = (nn.RNNBase, nn.RNNCellBase)
_PROJECTIONS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


class Use(NamedTuple):
    """A module and the name of its parameter."""

    module: nn.Module
    parameter: str


@dataclass(frozen=True)
class Weight:
    """A prunable weight of a net.

    Attributes:
        name: of the layer: the module's where the parameter is called `weight`, else that of the parameter.
        uses: every place where the net holds it; the first one gives the name.
    """

    name: str
    uses: tuple[Use, ...]

    @property
    def module(self) -> nn.Module:
        """The module that gives the name."""
        return self.uses[0].module

    @property
    def parameter(self) -> str:
        """The parameter's name in `module`."""
        return self.uses[0].parameter

    @property
    def weight(self) -> Tensor:
        """The weight as `module` sees it: (outputs, inputs per group, *kernel); the first two swapped if transposed."""
        value = getattr(self.module, self.parameter)
        assert isinstance(value, Tensor)
        return value

    @property
    def kernel(self) -> tuple[int, ...]:
        """The sides of a convolution's filters; empty for a linear layer."""
        return tuple(self.module.kernel_size) if isinstance(self.module, CONVOLUTIONS) else ()


def prunable_weights(net: nn.Module) -> dict[str, Weight]:
    """The weights of all convolutions (transposed ones too), linear layers, attention projections and recurrent layers.

    Args:
        net: any module.

    Returns:
        Each tensor once, by the name of its layer, in the order of the net.

    Raises:
        BadInput: a module is compiled or quantised, a weight has no shape yet, or two parameters share memory without
            being one.
    """
    found: dict[int, tuple[str, list[Use]]] = {}
    for path, module in net.named_modules():
        kind = type(module).__module__
        compiled = isinstance(module, torch.jit.ScriptModule) or hasattr(module, "_orig_mod")  # by torch.compile
        if compiled or (kind.startswith("torch.ao.nn.") and ".quantized" in kind):
            raise BadInput(f"layer {path or type(module).__name__}: compiled and quantised modules cannot be pruned")
        for use in _uses(module):
            name = path if use.parameter == "weight" else f"{path}.{use.parameter}" if path else use.parameter
            tensor = origins(use)[0]
            if is_lazy(tensor):
                raise BadInput(f"layer {name}: a lazy module whose weight has no shape yet; call the net on data first")
            found.setdefault(id(tensor), (name, []))[1].append(use)
    _check_memory(net)
    return {name: Weight(name, tuple(uses)) for name, uses in found.values()}


def check_prunable(net: nn.Module, weights: dict[str, Weight]) -> None:
    """Raise `BadInput` for a weight that masks and filter bases cannot work on.

    Args:
        net: the module.
        weights: of `prunable_weights`.
    """
    places = {id(module): name for name, module in net.named_modules()}
    for weight in weights.values():
        for module, parameter in weight.uses:
            if not isinstance(module._parameters.get(parameter), nn.Parameter):
                raise BadInput(
                    f"layer {places[id(module)] or type(module).__name__}: its {parameter} is computed from other "
                    f"parameters (a parametrisation such as weight_norm); remove that before it is pruned"
                )
        tensor = weight.weight
        if not tensor.requires_grad:
            raise BadInput(f"layer {weight.name}: its weight is not trained (requires_grad is false)")
        if not tensor.is_floating_point() or tensor.layout != torch.strided:
            kind = f"{tensor.dtype}, {tensor.layout}".replace("torch.", "")
            raise BadInput(f"layer {weight.name}: a weight of {kind}; only dense real numbers are pruned")


def not_prunable(net: nn.Module, weights: dict[str, Weight]) -> dict[str, int]:
    """Entries of all parameters with two or more dimensions that are no prunable weight, by name.

    Embeddings, class tokens, raw matrices, scales of layers, ...; biases and most norms have one dimension. What a
    weight is computed from by a parametrisation is not among them.
    """
    known = {
        id(tensor)
        for weight in weights.values()
        for use in weight.uses
        for tensor in (*origins(use), *_parametrisation(use).parameters())
    }
    return {
        name: tensor.numel() for name, tensor in net.named_parameters() if tensor.dim() > 1 and id(tensor) not in known
    }


def origins(use: Use) -> list[Tensor]:
    """The parameters that hold a weight: itself, or those that a parametrisation or a hook computes it from."""
    module, parameter = use
    if (value := module._parameters.get(parameter)) is not None:
        return [value]
    if own := list(_parametrisation(use).parameters(recurse=False)):
        return list(own)
    # The older weight_norm and spectral_norm register weight_v, weight_g, weight_orig beside a plain `weight`.
    return [t for name, t in module._parameters.items() if t is not None and name.startswith(f"{parameter}_")]


def extent(tensor: Tensor) -> tuple[int, int]:
    """The first byte of a tensor in its storage, and the byte behind its last one."""
    last = sum((side - 1) * step for side, step in zip(tensor.shape, tensor.stride(), strict=True))
    start = int(tensor.storage_offset()) * tensor.element_size()
    return start, start + (int(last) + 1) * tensor.element_size()


def _parametrisation(use: Use) -> nn.Module:
    """What computes a weight; a module without parameters if nothing does."""
    if not parametrize.is_parametrized(use.module, use.parameter):
        return nn.Identity()
    assert isinstance(use.module.parametrizations, nn.ModuleDict)
    return use.module.parametrizations[use.parameter]


def _uses(module: nn.Module) -> list[Use]:
    """The prunable weights that a module holds; one that is a buffer, and so never trained, is none."""
    if isinstance(module, (*CONVOLUTIONS, nn.Linear)):
        names = ["weight"]
    elif isinstance(module, nn.MultiheadAttention):
        names = list(_PROJECTIONS)
    elif isinstance(module, RECURRENT):
        held = list(module._parameters)
        if parametrize.is_parametrized(module):
            assert isinstance(module.parametrizations, nn.ModuleDict)
            held += module.parametrizations
        names = [name for name in held if name.startswith("weight_")]
    else:
        return []
    return [use for use in (Use(module, name) for name in names) if origins(use)]


def _check_memory(net: nn.Module) -> None:
    """Raise `BadInput` where a parameter shares memory with another tensor of the net, or with itself."""
    stored: dict[int, list[tuple[str, Tensor]]] = {}
    for name, tensor in chain(net.named_parameters(), net.named_buffers()):
        if tensor.layout == torch.strided and not is_lazy(tensor) and tensor.numel():
            stored.setdefault(tensor.untyped_storage()._cdata, []).append((name, tensor))
            if isinstance(tensor, nn.Parameter) and any(
                side > 1 and not step for side, step in zip(tensor.shape, tensor.stride(), strict=True)
            ):
                raise BadInput(f"parameter {name}: its own entries share memory (an expanded tensor); give it a copy")
    for (one, first), (two, second) in chain(*(combinations(group, 2) for group in stored.values())):
        (begin, end), (start, stop) = extent(first), extent(second)
        if max(begin, start) < min(end, stop) and isinstance(first, nn.Parameter):  # parameters come first
            raise BadInput(
                f"{one} and {two} are two tensors that share memory; give each its own, or tie them as one parameter "
                "(b.weight = a.weight)"
            )
