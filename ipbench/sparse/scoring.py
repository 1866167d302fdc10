"""A score taken alone, and what it must be: one floating-point number per coefficient."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ipbench.data.loaders import Batch
from ipbench.errors import BadInput
from ipbench.machine.distributed import averaged
from ipbench.sparse.net import SparseNet
from ipbench.sparse.selection import Impossible
from ipbench.sparse.view import NetView, sparse_net

Scores = dict[str, Tensor]

#: What torch says where a backward pass cannot be differentiated.
_NO_SECOND_DERIVATIVE = re.compile(r"derivative for (?:aten::)?_*(\w+?)(?:_backward)? is not implemented")


def take(
    score: Callable[..., Mapping[str, Tensor]],
    name: str,
    net: SparseNet | NetView,
    batch: Batch,
    options: Mapping[str, Any],
    *,
    positive: bool = False,
) -> Scores:
    """`score` as a function of net and batch alone: whatever else is computed on them, before or after.

    It gets a copy of both, so that running statistics, modes, gradients, hooks or weights that it changes reach no
    other score, and the same dropout every time. Of the copy it sees a `NetView`.

    Args:
        score: a function (net, batch, **options).
        name: of the score, for messages, and of what it remembers (`NetView.state`).
        net: stays as it is.
        batch: stays as it is.
        options: of the score.
        positive: the score promises that nothing is below zero, and something above it in every layer of a net of
            which nothing is pruned.

    Returns:
        Detached floating-point tensors on the devices of the coefficients, single precision at least.

    Raises:
        BadInput: what comes back is not one number for each coefficient.
        Impossible: the net has no second derivatives where the score needs them, or a promise is not kept.
    """
    net = sparse_net(net)
    own = net.task.cloned(batch)
    try:
        with net.scratch(training=net.training) as twin:
            memory = twin.state.setdefault(name, {})
            found = score(NetView(twin, memory), own, **options)
    except RuntimeError as error:
        missing = _NO_SECOND_DERIVATIVE.search(str(error))
        if missing is None:
            raise
        reason = f"{name}: needs second derivatives, which {missing.group(1)} in this net does not have"
        raise Impossible(reason) from None
    # What is remembered keeps no graph: with it, every call's copy of the net would stay.
    memory.update({key: value.detach() for key, value in memory.items() if isinstance(value, Tensor)})
    scores = as_scores(found, net.masks, f"method {name}")
    if positive and all(bool(values.isfinite().all()) for values in scores.values()):
        _check_positive(scores, name, start=all(bool(mask.all()) for mask in net.masks.values()))
    return scores


def share_memory(net: SparseNet) -> None:
    """What scores remember, from now on the same in all processes: the mean of what each of them has seen."""
    for memory in net.state.values():
        tensors = {name: value for name, value in memory.items() if isinstance(value, Tensor)}
        memory.update(averaged({name: value.detach() for name, value in tensors.items() if value.is_floating_point()}))


def as_scores(found: object, like: Mapping[str, Tensor], who: str) -> Scores:
    """One score per coefficient, in the order of the net.

    Raises:
        BadInput: it is not that.
    """
    if not isinstance(found, dict) or list(found) != list(like):
        raise BadInput(f"{who}: must return a dict with an entry for each of net.coefficients, in that order")
    return {name: as_score(found[name], mask, f"{who}: the score of layer {name}") for name, mask in like.items()}


def as_score(score: object, like: Tensor, what: str) -> Tensor:
    """A number for each entry of a tensor `like` this one, on its device; half precision becomes single.

    Raises:
        BadInput: it is not that.
    """
    wanted = f"{what} must be a tensor of shape {tuple(like.shape)} of floating-point numbers, not"
    if not isinstance(score, Tensor):
        raise BadInput(f"{wanted} {type(score).__name__}")
    if score.shape != like.shape or not score.is_floating_point():
        raise BadInput(f"{wanted} {score.dtype} {tuple(score.shape)}")
    if score.layout != torch.strided or score.device.type == "meta":
        kind = "a tensor on the meta device" if score.device.type == "meta" else f"a tensor of layout {score.layout}"
        raise BadInput(f"{wanted} {kind}")
    values = score.detach().to(like.device)
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def _check_positive(scores: Scores, name: str, *, start: bool) -> None:
    """Nothing below zero; at the start, something above it in every layer.

    Raises:
        Impossible: the net is not one on which this score can rank.
    """
    for layer, values in scores.items():
        if negative := int((values < 0).sum()):
            raise Impossible(
                f"{name}: {negative:,} of {values.numel():,} scores of layer {layer} are negative, so it cannot rank"
                " this net (layer norms and some activations are not positively homogeneous)"
            )
        if start and not bool((values > 0).any()):
            raise Impossible(
                f"{name}: no score of layer {layer} is above zero before anything is pruned, so it cannot rank this net"
                " (bounded activations, such as ReLU6 and gates, stop the flow)"
            )
