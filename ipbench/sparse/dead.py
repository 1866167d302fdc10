"""Which channels of a masked net are dead, and what becomes of the constant that some of them still send on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ipbench.errors import BadInput
from ipbench.sparse.channels import Group, Groups, Member
from ipbench.sparse.layers import CONVOLUTIONS, TRANSPOSED
from ipbench.sparse.slicing import Cut, plan
from ipbench.sparse.structure import Structure

if TYPE_CHECKING:
    from ipbench.sparse.net import SparseNet

#: What becomes of the constant that a channel without filters sends on; `methods.Slice` has the same words.
Constant = Literal["drop", "refuse", "fold"]
#: Whether each unit is meant, by group.
Flags = Mapping[str, NDArray[np.bool_]]


def silent(groups: Groups, masks: Mapping[str, Tensor]) -> dict[str, NDArray[np.bool_]]:
    """The units of the free groups that no filter makes any more: all masked, in all layers that share the channel.

    Args:
        groups: of the net as it is.
        masks: by layer.
    """
    return {group.name: _empty(group, group.producers, masks) for group in groups.free}


def unread(groups: Groups, masks: Mapping[str, Tensor]) -> dict[str, NDArray[np.bool_]]:
    """The units of the free groups that no filter reads any more: all its parts for the channel are masked."""
    return {group.name: _empty(group, group.consumers, masks) for group in groups.free}


def removed_with(groups: Groups, masks: Mapping[str, Tensor]) -> Cut:
    """The cut of all channels that masks leave without filters or without readers; one of every group stays.

    Args:
        groups: of the dense net.
        masks: by layer.
    """
    made, read = silent(groups, masks), unread(groups, masks)
    gone = {name: made[name] | read[name] for name in made}
    return plan(groups, Structure().without(groups, gone).removed(groups))


def _empty(group: Group, members: Sequence[Member], masks: Mapping[str, Tensor]) -> NDArray[np.bool_]:
    """Whether nothing is left of some members of each unit; False without members, or where one has no mask."""
    empty = np.full(group.units, bool(members))
    for member in members:
        if (mask := masks.get(member.layer)) is None:
            return np.zeros(group.units, dtype=bool)
        others = [axis for axis in range(mask.dim()) if axis != member.axis]
        left = (mask.sum(others) > 0).cpu().numpy()
        empty &= ~left[member.indices].any(axis=1)
    return empty


@contextmanager
def settled(net: SparseNet, groups: Groups, units: Flags, constant: Constant) -> Iterator[None]:
    """See to the constant that dead channels send on, which are cut within the block.

    A channel whose filters are all zero still has what its bias, its norm and the activation behind them make of zero,
    the same number at every place of every image in evaluation mode. Without the channel its readers miss that number.

    Args:
        net: changed in place.
        groups: of the net as it is.
        units: those that are cut though something reads them, by group.
        constant: "drop": nothing is done, so that the small net is the masked one whose norms and biases are zero
            there, too (`slicing.mask_net`); "refuse": it must be zero; "fold": it goes into the biases of the layers
            that read it, where that is exact for the net in evaluation mode: linear layers, and convolutions without
            padding.

    Raises:
        BadInput: it is not zero and is refused; or it cannot be folded. The message names the layer.
    """
    folded: dict[nn.Parameter, Tensor] = {}
    if constant != "drop" and any(flags.any() for flags in units.values()):
        folded = _folded(net, groups, units, constant)
    before = {bias: bias.detach().clone() for bias in folded}
    with torch.no_grad():
        for bias, value in folded.items():
            bias.copy_(value)
        try:
            yield
        except BaseException:
            for bias, value in before.items():
                bias.copy_(value)
            raise


def _folded(net: SparseNet, groups: Groups, units: Flags, constant: Constant) -> dict[nn.Parameter, Tensor]:
    """The biases that take the constant, with what they become; none where nothing is to be folded."""
    readers = [(group, member) for group in groups.free if units[group.name].any() for member in group.consumers]
    seen = _inputs(net, {member.layer for _, member in readers})
    result: dict[nn.Parameter, Tensor] = {}
    for group, member in readers:
        indices = torch.from_numpy(member.indices[units[group.name]].ravel())
        values = _constant(net, member, indices, seen.get(member.layer, []))
        if not bool((values != 0).any()):
            continue
        where = f"layer {member.layer}: it reads a constant of channels of {group.name} that have no filters any more"
        if constant == "refuse":
            raise BadInput(f"{where}, {float(values.abs().max()):g} at most; they are not cut with constant=refuse")
        if problem := _not_foldable(net, member.layer):
            raise BadInput(f"{where}, and {problem}; they are not cut with constant=fold")
        bias = net.layers[member.layer].module.bias
        assert isinstance(bias, nn.Parameter)
        result[bias] = result.get(bias, bias.detach().double()) + _effect(net, member, indices.to(bias.device), values)
    return result


def _inputs(net: SparseNet, layers: set[str]) -> dict[str, list[Tensor]]:
    """What the modules of some layers are given when the net evaluates two different images."""
    seen: dict[str, list[Tensor]] = {name: [] for name in layers}

    def noting(name: str) -> Callable[[nn.Module, Any], None]:
        return lambda module, given: seen[name].append(given[0].detach())

    inputs = net.example.several().like(next(net.parameters()))
    with net.scratch(training=False) as twin, torch.no_grad(), ExitStack() as stack:
        for name in layers & {*twin.layers}:
            for use in twin.layers[name].uses:
                stack.callback(use.module.register_forward_pre_hook(noting(name)).remove)
        inputs.of(twin)
    return seen


def _constant(net: SparseNet, member: Member, indices: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    """What a reader is given at some of its inputs, in double precision.

    Raises:
        BadInput: that is not seen, or not the same at every place of every image.
    """
    if not inputs:
        raise BadInput(
            f"layer {member.layer}: used without a call of its module: what constant it reads cannot be told"
        )
    axis = 1 if isinstance(net.layers[member.layer].module, CONVOLUTIONS) else -1
    found = [
        given.index_select(axis, indices.to(given.device)).movedim(axis, 0).flatten(1).double() for given in inputs
    ]
    values = torch.cat(found, dim=1)
    if not bool((values == values[:, :1]).all()):
        raise BadInput(
            f"layer {member.layer}: it reads a channel without filters that is no constant (padding before it)"
        )
    return values[:, 0]


def _not_foldable(net: SparseNet, layer: str) -> str:
    """Why a constant input of a layer cannot go into its bias; empty if it can."""
    weight = net.layers[layer]
    module = weight.module
    if len(weight.uses) > 1 or not isinstance(module, (nn.Linear, *CONVOLUTIONS)):
        return "its weight is shared, or is not that of a convolution or linear layer"
    padding = getattr(module, "padding", ())
    if isinstance(module, TRANSPOSED) or isinstance(padding, str) or any(padding):
        return "its padding makes it another number at the border"
    return "" if isinstance(module.bias, Tensor) else "it has no bias to put it into"


def _effect(net: SparseNet, member: Member, indices: Tensor, values: Tensor) -> Tensor:
    """What constant inputs add to each output of a layer."""
    weight = net.layers[member.layer].weight.detach().double().index_select(member.axis, indices)
    return weight.flatten(2).sum(2) @ values if weight.dim() > 2 else weight @ values
