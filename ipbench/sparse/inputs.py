"""What every coefficient is multiplied with in a forward pass, as a norm over images and places."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from ipbench.data.loaders import Batch
from ipbench.errors import BadInput

if TYPE_CHECKING:
    from ipbench.sparse.net import SparseNet


def input_norms(net: SparseNet, batch: Batch) -> dict[str, Tensor]:
    """By layer, the Euclidean norm of every coefficient's factor: an output is a sum of coefficients times factors.

    In `sp` the factor of a weight is the input that it meets, in the interspace that of a coefficient is the response
    of its basis filter: a method that weighs coefficients by it does the same in both spaces.

    Args:
        net: as it is, in its mode.
        batch: of whose images; passes are those of `SparseNet.averaged`.

    Returns:
        In the shapes of the coefficients, in double precision; over all images and places, of all uses of a layer.

    Raises:
        BadInput: a layer that is no linear layer and no plain convolution over two dimensions.
    """
    moments: dict[str, Tensor] = {}
    with ExitStack() as hooks, torch.no_grad():
        for name, layer in net.layers.items():
            for module, parameter in layer.uses:
                _check(name, module, parameter)
                hooks.callback(module.register_forward_pre_hook(_adding(moments, name)).remove)
        for part, _ in net.task.parts(batch):
            net.task.outputs(net, part, net.run.seed)
    return {name: _norms(moments.get(name), layer.module, net.coefficients[name]) for name, layer in net.layers.items()}


def _check(name: str, module: nn.Module, parameter: str) -> None:
    plain = isinstance(module, nn.Conv2d) and module.padding_mode == "zeros" and not isinstance(module.padding, str)
    if parameter != "weight" or not (plain or isinstance(module, nn.Linear)):
        kind = type(module).__name__
        raise BadInput(f"layer {name}: input norms are known of linear layers and plain Conv2d, not of this {kind}")


def _adding(moments: dict[str, Tensor], name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    """A hook that adds the second moments of a layer's inputs: of linear layers (inputs,), of convolutions by channel
    those of their patches, (channels, places, places).
    """

    def add(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        inputs = arguments[0].detach()
        if isinstance(module, nn.Conv2d):
            unfolded = functional.unfold(
                inputs, module.kernel_size, module.dilation, module.padding, module.stride  # type: ignore[arg-type]
            ).double()  # fmt: skip
            patches = unfolded.reshape(len(inputs), module.in_channels, -1, unfolded.shape[-1])
            found = torch.einsum("nckl,ncml->ckm", patches, patches)
        else:
            found = inputs.double().reshape(-1, inputs.shape[-1]).square().sum(0)
        moments[name] = moments[name] + found if name in moments else found

    return add


def _norms(moments: Tensor | None, module: nn.Module, coefficients: Tensor) -> Tensor:
    """Of the second moments, the norms in the shape of the coefficients; zero of a layer that was not used."""
    if moments is None:
        return torch.zeros_like(coefficients, dtype=torch.float64)
    if not isinstance(module, nn.Conv2d):
        return moments.sqrt().expand(coefficients.shape)
    if parametrize.is_parametrized(module, "weight"):
        basis = module.parametrizations.weight[0].basis.matrix.detach().double()  # type: ignore[index, union-attr]
        squares = torch.einsum("bk,ckm,bm->cb", basis, moments, basis)
    else:
        squares = moments.diagonal(dim1=1, dim2=2)
    # Channels (groups, inputs of each): the filters of a group read its channels alone.
    each = squares.clamp(min=0).sqrt().reshape(module.groups, 1, *coefficients.shape[1:])
    filters = len(coefficients) // module.groups
    return each.expand(-1, filters, *each.shape[2:]).reshape(coefficients.shape)
