"""What torch's operators do to the labels of `flow`: of which channels a result is formed.

The law behind every rule: a channel of the result is reached from every channel that one of its numbers depends on.
Positions are not told apart: what lies in one plane is one channel. A product of two values (a gate, attention) is
reached from both, for either may be a constant. An operator without a rule leads from all that it is given to all that
it makes, and is noted.
"""

from __future__ import annotations

import re
from typing import Any, cast

import numpy as np
from torch import Tensor

from ipbench.sparse.channel_rules import ALONG, BATCH_NORM, MOVES, PLANES, REDUCTIONS, axes_of, leaves
from ipbench.sparse.flow import Flow, Product, distinct
from ipbench.sparse.trace import Call, Labels, Rule, Trace

#: Of one product, as many entries as values that the same weight is used with may have; above, they are taken as one.
_MOST = 2**20


def flow_rule_of(call: Call) -> Rule | None:
    """The rule of an operator; None if there is none."""
    if call.name == "torchvision.roi_align":
        return cast(Rule, _roi_align)
    if not call.name.startswith("aten."):
        return None
    name = call.name.removeprefix("aten.")
    if name in _RULES:
        return cast(Rule, _RULES[name])
    if name in MOVES:
        return MOVES[name]
    if re.fullmatch(PLANES, name):
        return cast(Rule, _planes)
    if re.fullmatch(BATCH_NORM, name):
        return cast(Rule, _batch_norm)
    return cast(Rule, _pointwise) if call.pointwise else None


def mixing(trace: Trace, call: Call) -> Labels:
    """An operator that may mix anything."""
    flow = cast(Flow, trace)
    node = flow.all_of(call.tensors)
    if node:
        flow.mix(call)
    return np.array(node)


def _nothing(flow: Flow, call: Call) -> None:
    """Views: the labels of their base."""


def _pointwise(flow: Flow, call: Call) -> Labels:
    """Formed of the operands, entry by entry."""
    result = call.written[0] if call.written else leaves(call.result)[0]
    parts = [flow.labels(tensor) for tensor in call.tensors]
    return flow.together([part.reshape((1,) * (result.dim() - part.ndim) + part.shape) for part in parts])


def _convolution(flow: Flow, call: Call) -> Labels:
    """Outputs are reached from the inputs of their group, where a kernel connects them."""
    images, groups = call["input"], call["groups"]
    known = flow.weight(call["weight"])
    if known is None or (groups > 1 and known[1] != (0, 1)):  # a computed weight: from everything to everything
        return np.array(flow.all_of(call.tensors))
    held, order, nodes = known
    planes = flow.merged(flow.labels(images), (0, *range(2, images.dim()))).reshape(-1)
    inputs = np.broadcast_to(planes, (images.shape[1],)).reshape(1, groups, -1)
    outputs = flow.nodes.new(call.result.shape[1])
    rows, columns = (part - held.axes[axis][0] for part, axis in zip(nodes, order, strict=True))
    turned = bool(call["transposed"])
    if order == (1, 0):
        rows, columns, turned = columns, rows, not turned
    flow.steps.append(Product(held.name, rows, columns, turned, inputs, outputs.reshape(1, groups, -1)))
    made = outputs.reshape((1, -1) + (1,) * (images.dim() - 2))
    return _with_bias(flow, made, call["bias"], 1)


def _matrices(flow: Flow, call: Call) -> Labels:
    """mm, addmm, bmm: with a weight, or of two values."""
    added = "mat1" in call.values
    left, right = call["mat1" if added else "self"], call["mat2"]
    weights = _matrix(flow, left), _matrix(flow, right)
    if (weights[0] is None) == (weights[1] is None):
        made = flow.together([flow.merged(flow.labels(left), (-1,)), flow.merged(flow.labels(right), (-2,))])
    else:
        made = _by_weight(flow, left, right, weights)
    return _with_bias(flow, made, call["self"], -1) if added else made


def _by_weight(flow: Flow, left: Tensor, right: Tensor, weights: tuple[Any, Any]) -> Labels:
    """A product of values with a weight, whichever of the two comes first."""
    last = weights[1] is not None  # the weight comes last: values (..., inputs) times (inputs, outputs)
    held, order, nodes = weights[1] if last else weights[0]
    values = left if last else right
    rows, columns = (part - held.axes[axis][0] for part, axis in zip(nodes, order, strict=True))
    inputs_first = last  # along the first axis of the operand
    if order == (1, 0):
        rows, columns, inputs_first = columns, rows, not inputs_first
    given, many = (rows, columns) if inputs_first else (columns, rows)
    labels = np.moveaxis(flow.labels(values), -1 if last else -2, -1)
    shape = labels.shape[:-1]
    labels = np.broadcast_to(labels.reshape(-1, labels.shape[-1]), (int(np.prod(shape)), len(given)))
    variants, which = distinct(labels)
    if len(variants) * max(len(given), len(many)) > _MOST:
        variants, which, shape = flow.merged(labels, (0,)), np.zeros(1, np.int64), (1,) * len(shape)
    made = flow.nodes.new(len(variants) * len(many)).reshape(len(variants), -1)
    flow.steps.append(Product(held.name, rows, columns, inputs_first, variants[:, None], made[:, None]))
    return np.moveaxis(made[which].reshape(*shape, -1), -1, -1 if last else -2)


def _matrix(flow: Flow, tensor: Tensor) -> Any:
    """As `Trace.weight`; also of a weight that stands for every matrix of a batch."""
    if tensor.dim() == 3 and (tensor.stride(0) == 0 or tensor.shape[0] == 1):
        tensor = tensor[0]
    return flow.weight(tensor) if tensor.dim() == 2 else None


def _with_bias(flow: Flow, made: Labels, bias: Tensor | None, axis: int) -> Labels:
    """The result with what is added: a constant, unless the net computes it."""
    if bias is None or not (labels := flow.labels(bias)).any():
        return made
    if labels.ndim == 1:
        labels = np.moveaxis(labels.reshape((1,) * (made.ndim - 1) + (-1,)), -1, axis)
    return flow.together([made, labels])


def _batch_norm(flow: Flow, call: Call) -> list[Labels | None]:
    """Formed of the channel's plane."""
    labels = flow.merged(flow.labels(call.input), tuple(a for a in range(call.input.dim()) if a != 1))
    return [labels, *[None] * (len(leaves(call.result)) - 1)]


def _layer_norm(flow: Flow, call: Call) -> Labels:
    """Every channel is formed of all over which mean and variance are taken."""
    return flow.merged(flow.labels(call.input), tuple(range(-len(call["normalized_shape"]), 0)))


def _group_norm(flow: Flow, call: Call) -> Labels:
    """Every channel is formed of all in its group."""
    rank, channels = call.input.dim(), call.input.shape[1]
    planes = flow.merged(flow.labels(call.input), (0, *range(2, rank))).reshape(-1)
    apart = np.broadcast_to(planes, (channels,)).reshape(call["group"], -1)
    made = np.repeat(flow.formed(apart), channels // call["group"])
    return made.reshape((1, -1) + (1,) * (rank - 2))


def _planes(flow: Flow, call: Call) -> Labels:
    """Pooling, interpolation, padding by mirroring: formed of a plane of the image."""
    found = re.search(r"([123])d", call.name)
    assert found is not None
    return flow.merged(flow.labels(call.input), tuple(range(-int(found[1]), 0)))


def _roi_align(flow: Flow, call: Call) -> Labels:
    """Boxes cut out of planes (N, C, h, w), resampled; and where the boxes are computed, of what they are formed."""
    planes = flow.merged(flow.labels(call["input"]), (0, 2, 3))
    return flow.together([planes, np.full((1, 1, 1, 1), flow.all_of([call["rois"]]))])


def _reduce(flow: Flow, call: Call) -> Labels:
    """Sums, means, extremes and norms over axes."""
    rank = call.input.dim()
    axes = axes_of(call.values.get("dim"), rank) or tuple(range(rank))
    labels = flow.merged(flow.labels(call.input), axes)
    return labels if call.values.get("keepdim") else labels.squeeze(axes)


def _along(flow: Flow, call: Call) -> Labels:
    """Softmax, sorting and the like along axes."""
    rank = call.input.dim()
    axes = axes_of(call.values.get("dim", call.values.get("dims")), rank) or tuple(range(rank))
    return flow.merged(flow.labels(call.input), axes)


def _pad(flow: Flow, call: Call) -> Labels:
    """Padding by constants: along an axis on which channels lie there are more of them, or fewer."""
    labels, pads, rank = flow.labels(call.input), call["pad"], call.input.dim()
    for place in range(len(pads) // 2):
        axis, (before, after) = rank - 1 - place, pads[2 * place : 2 * place + 2]
        if labels.shape[axis] == 1 < call.input.shape[axis]:
            continue  # one channel along all of it: its own padding counts as the channel
        widths = [(0, 0)] * rank
        widths[axis] = (max(before, 0), max(after, 0))
        labels = np.pad(labels, widths)
        kept = slice(max(-before, 0), labels.shape[axis] - max(-after, 0))
        labels = labels[(*(slice(None),) * axis, kept)]
    return labels


def _glu(flow: Flow, call: Call) -> Labels:
    """Gated linear units: one half of the channels times the sigmoid of the other."""
    labels, axis = flow.labels(call.input), call["dim"] % call.input.dim()
    return labels if labels.shape[axis] == 1 else flow.together(np.split(labels, 2, axis))


def _index_select(flow: Flow, call: Call) -> Labels:
    """The index may be anything: whatever lies along the axis may come to any place."""
    labels = flow.merged(flow.labels(call["self"]), (call["dim"],))
    index = flow.all_of([call["index"]])
    return flow.together([labels, np.full((1,) * labels.ndim, index)]) if index else labels


_RULES: dict[str, Any] = {
    "convolution": _convolution,
    **dict.fromkeys(("mm", "bmm", "addmm", "_addmm_activation"), _matrices),
    **dict.fromkeys(
        (
            "hardswish_", "hardsigmoid_", "hardtanh_", "elu_", "leaky_relu_", "_prelu_kernel", "masked_fill",
            "masked_fill_", "fill_",
        ),
        _pointwise,
    ),
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    **dict.fromkeys(REDUCTIONS, _reduce),
    **dict.fromkeys((*ALONG, "_safe_softmax"), _along),
    "constant_pad_nd": _pad,
    **dict.fromkeys(
        (
            "split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "slice", "select", "unbind",
            "narrow", "unfold", "as_strided", "as_strided_", "diagonal",
        ),
        _nothing,
    ),
    "glu": _glu,
    "index_select": _index_select,
}  # fmt: skip
