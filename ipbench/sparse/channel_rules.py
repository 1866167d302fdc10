"""What torch's operators do to the labels of `trace`: which channels a result belongs to, and which become one.

The law behind every rule: without some channels, every tensor must be what it was with their entries left out. So what
reads channels apart joins nothing (elementwise operators: their operands, entry by entry), what needs several at once
joins them, and what mixes them freezes them. An operator without a rule freezes all that it is given.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ipbench.sparse.measure.products import READS
from ipbench.sparse.trace import Call, Held, Labels, Rule, Trace, spoken, squash


def rule_of(call: Call) -> Rule | None:
    """The rule of an operator; None if there is none."""
    if call.name == "torchvision.roi_align":
        return _roi_align
    if not call.name.startswith("aten."):
        return None
    name = call.name.removeprefix("aten.")
    if name in _RULES:
        return _RULES[name]
    if re.fullmatch(PLANES, name):
        return _planes
    if re.fullmatch(BATCH_NORM, name):
        return _batch_norm
    return _pointwise if call.pointwise else None


#: Operators on the planes of an image: how many axes these have is in the name.
PLANES = r"_?(((adaptive|fractional)_)?(max|avg)_pool|upsample_|(reflection|replication)_pad).*[123]d.*"
BATCH_NORM = r"(cudnn_|miopen_|_?native_|_)?batch_norm.*"
#: Sums, means, extremes and norms over axes; what mixes along axes and keeps them.
REDUCTIONS = (
    "mean", "sum", "nansum", "amax", "amin", "aminmax", "max", "min", "prod", "var", "std", "var_mean", "std_mean",
    "norm", "linalg_vector_norm", "logsumexp", "any", "all", "argmax", "argmin", "count_nonzero", "median",
)  # fmt: skip
ALONG = ("_softmax", "_log_softmax", "cumsum", "cumprod", "sort", "roll")


def unknown(trace: Trace, call: Call) -> Labels | None:
    """An operator that may mix anything: nothing of what it is given can be removed."""
    reason = f"{spoken(call.name)} in {trace.where} is not known to keep channels apart"
    known = [trace.freeze_tensor(tensor, reason) for tensor in call.tensors]
    return np.array(trace.nodes.frozen(reason)) if any(known) else None


def _read(trace: Trace, call: Call) -> Labels | None:
    """A number for Python: what becomes of it is not seen."""
    trace.reads |= any(trace.labels(tensor).any() for tensor in call.tensors)
    return unknown(trace, call)


def _nothing(trace: Trace, call: Call) -> None:
    """Constants, and views along whose axes nothing can go wrong."""


def _same(trace: Trace, call: Call) -> Labels:
    """The labels of the first tensor: copies, and constants in its shape."""
    return trace.labels(call.input)


def _pointwise(trace: Trace, call: Call) -> Labels:
    """Operands are joined entry by entry.

    An operand of size 1 along an axis on which another one's channels lie (a spatial gate times all channels) belongs
    to none of them: its own channel is frozen.
    """
    result = call.written[0] if call.written else next(leaf for leaf in leaves(call.result))
    rank = result.dim()
    operands = []
    for tensor in call.tensors:
        missing = rank - tensor.dim()
        labels = trace.labels(tensor)
        operands.append((labels.reshape((1,) * missing + labels.shape), (1,) * missing + tuple(tensor.shape)))
    found: Labels = np.zeros((1,) * rank, np.int64)
    for labels, shape in operands:
        spread = [axis for axis in range(rank) if shape[axis] == 1 < result.shape[axis]]
        if labels.any() and any(other.shape[axis] > 1 for other, _ in operands for axis in spread):
            trace.freeze(labels, f"{spoken(call.name)} in {trace.where} spreads it over other channels")
            continue
        trace.nodes.join(found, labels)
        found = np.where(found == 0, labels, found)
    if not found.any() and any(labels.any() for labels, _ in operands):  # each is spread over the other
        return np.array(trace.nodes.frozen(f"{spoken(call.name)} in {trace.where} spreads it over other channels"))
    return found


def _copy(trace: Trace, call: Call) -> Labels:
    """`copy_`: what is written belongs where it comes from."""
    return trace.labels(call["src"])


def _convolution(trace: Trace, call: Call) -> Labels:
    """Input channels are joined with the weight's inputs, outputs are its outputs.

    With groups, all inputs and outputs of one group are one: none of them can go without the group (as in Group Fisher
    pruning, Liu et al., ICML 2021), since all groups must stay equally large.
    """
    images, bias = call["input"], call["bias"]
    known = trace.weight(call["weight"])
    if known is None:
        return _computed(trace, call)
    held, order, (first, second) = known
    groups = call["groups"]
    planes = _planes_of(trace.labels(images), images.shape[1])
    if groups > 1:
        held.note(order[0], "both")
        units = first.reshape(groups, -1)
        trace.nodes.join(units, units[:, :1])
        trace.nodes.join(planes.reshape(groups, -1), units[:, :1])
        _constants(trace, planes, np.repeat(units[:, 0], len(planes) // groups))
        outputs = np.repeat(units[:, 0], call.result.shape[1] // groups)
    else:
        inputs, outputs = (first, second) if call["transposed"] else (second, first)
        held.note(order[0], "in" if call["transposed"] else "out")
        held.note(order[1], "out" if call["transposed"] else "in")
        trace.nodes.join(planes, inputs[:, None])
        _constants(trace, planes, inputs)
    if bias is not None:
        trace.nodes.join(trace.labels(bias), outputs)
    return outputs.reshape((1, -1) + (1,) * (images.dim() - 2))


def _matrices(trace: Trace, call: Call) -> Labels:
    """mm, addmm, bmm, of which one operand is a weight; a product of two others mixes what it sums over."""
    names = ("mat1", "mat2") if "mat1" in call.values else ("self", "mat2")
    left, right = call[names[0]], call[names[1]]
    weights = _matrix(trace, left), _matrix(trace, right)
    if (weights[0] is None) == (weights[1] is None):
        return _computed(trace, call)
    known = weights[1] or weights[0]
    assert known is not None
    held, order, axes = known
    values, inner = (left, -1) if weights[1] else (right, -2)  # the axis of the values that is summed over
    place = 0 if weights[1] else 1  # the axis of the weight that is
    labels, inputs, outputs = trace.labels(values), axes[place], axes[1 - place]
    held.note(order[place], "in")
    held.note(order[1 - place], "out")
    result = outputs.reshape((1,) * (values.dim() - 1) + (-1,) if inner == -1 else (-1, 1))
    if labels.shape[inner] == 1 < labels.size:  # a layer along the image, of every channel by itself
        for nodes in (inputs, outputs):
            trace.freeze(nodes, f"{trace.where} works along another axis than its channels'")
        return labels
    trace.nodes.join(_planes_of(labels, values.shape[inner], inner), inputs[:, None])
    _constants(trace, _planes_of(labels, values.shape[inner], inner), inputs)
    if names[0] == "mat1":
        trace.nodes.join(trace.labels(call["self"]), result)
    return result


def _matrix(trace: Trace, tensor: Tensor) -> tuple[Held, tuple[int, int], tuple[Labels, Labels]] | None:
    """As `Trace.weight`; also of a weight that stands for every matrix of a batch."""
    if tensor.dim() == 3 and (tensor.stride(0) == 0 or tensor.shape[0] == 1):
        tensor = tensor[0]
    return trace.weight(tensor) if tensor.dim() == 2 else None


def _computed(trace: Trace, call: Call) -> Labels:
    reason = f"{spoken(call.name)} in {trace.where} has no weight of the net's own, or a computed one"
    for tensor in call.tensors:
        trace.freeze_tensor(tensor, reason)
    return np.array(trace.nodes.frozen(reason))


def _constants(trace: Trace, planes: Labels, inputs: Labels) -> None:
    """Input channels that are constants: nothing would remove them together with what reads them."""
    constant = ~planes.any(axis=1)
    if constant.any():
        labels = np.broadcast_to(inputs, constant.shape)[constant]
        trace.freeze(labels, f"{trace.where} reads channels that are constants of the forward pass")


def _lie_along(labels: Labels, axis: int) -> bool:
    """Whether several channels lie along an axis; constants are none."""
    largest = labels.max(axis)
    smallest = np.where(labels == 0, np.iinfo(np.int64).max, labels).min(axis)
    return bool(((largest != smallest) & (largest != 0)).any())


def _planes_of(labels: Labels, channels: int, axis: int = 1) -> Labels:
    """Labels by channel, of shape (channels, number)."""
    planes = np.moveaxis(labels, axis, 0).reshape(labels.shape[axis], -1)
    return np.broadcast_to(planes, (channels, planes.shape[1]))


def _batch_norm(trace: Trace, call: Call) -> list[Labels | None]:
    """A channel is joined with its values in all vectors, and with what else lies in its plane."""
    labels = _one_each(trace, trace.labels(call.input), tuple(a for a in range(call.input.dim()) if a != 1))
    channels = np.broadcast_to(labels.reshape(-1), (call.input.shape[1],))
    for name in ("weight", "bias", "running_mean", "running_var"):
        vector = call.values.get(name)
        if vector is not None:
            values = trace.labels(vector)
            trace.nodes.join(values, channels)
            _constants(trace, channels[:, None], values)
    return [labels, *[None] * (len(leaves(call.result)) - 1)]


def _planes(trace: Trace, call: Call) -> Labels:
    """Pooling, interpolation, padding by mirroring: all that lies in a plane of the image is one."""
    found = re.search(r"([123])d", call.name)
    assert found is not None
    rank = call.input.dim()
    return _one_each(trace, trace.labels(call.input), tuple(range(rank - int(found[1]), rank)))


def _roi_align(trace: Trace, call: Call) -> Labels:
    """Boxes cut out of planes (N, C, h, w), resampled: (boxes, C, height, width). The boxes are to be constants."""
    if trace.labels(call["rois"]).any():
        return unknown(trace, call) or np.zeros((1, 1, 1, 1), np.int64)
    return _one_each(trace, trace.labels(call["input"]), (0, 2, 3))


def _one_each(trace: Trace, labels: Labels, axes: tuple[int, ...]) -> Labels:
    """Join all labels along `axes`; returns one of them, with size 1 along these axes."""
    largest = labels.max(axis=axes, keepdims=True)
    trace.nodes.join(labels, largest)
    return largest


def _mixed(trace: Trace, call: Call, labels: Labels, axes: tuple[int, ...]) -> Labels:
    """What an operator mixes along axes is one; if nothing would be apart then, it is frozen for that reason."""
    if all(labels.shape[axis] == 1 for axis in axes):
        return labels
    largest = labels.max(axis=axes, keepdims=True)
    if squash(torch.from_numpy(largest)).size == 1:
        trace.freeze(labels, f"{spoken(call.name)} in {trace.where} mixes all of its channels")
    else:
        trace.nodes.join(largest, labels)
    return largest


def _reduce(trace: Trace, call: Call) -> Labels:
    """Sums, means, extremes and norms over axes."""
    rank = call.input.dim()
    axes = axes_of(call.values.get("dim"), rank) or tuple(range(rank))
    reduced = _mixed(trace, call, trace.labels(call.input), axes)
    return reduced if call.values.get("keepdim") else reduced.squeeze(axes)


def _along(trace: Trace, call: Call) -> Labels:
    """Softmax, sorting and the like along axes."""
    rank = call.input.dim()
    axes = axes_of(call.values.get("dim", call.values.get("dims")), rank) or tuple(range(rank))
    labels = trace.labels(call.input)
    _mixed(trace, call, labels, axes)
    return labels


def _flip(trace: Trace, call: Call) -> Labels:
    return np.flip(trace.labels(call.input), axes_of(call["dims"], call.input.dim())).copy()


def _cat(trace: Trace, call: Call) -> Labels:
    parts = [tensor for tensor in call["tensors"] if tuple(tensor.shape) != (0,)]  # torch leaves these out
    axis = call["dim"] % parts[0].dim()
    found = [_spread(trace.labels(tensor), axis, tensor.shape[axis]) for tensor in parts]
    return np.concatenate(_alike(found, axis), axis)


def _stack(trace: Trace, call: Call) -> Labels:
    axis = call["dim"] % (call.result.dim())
    return np.concatenate(_alike([np.expand_dims(trace.labels(part), axis) for part in call["tensors"]], axis), axis)


def _repeat(trace: Trace, call: Call) -> Labels:
    times, labels = call["repeats"], trace.labels(call.input)
    labels = labels.reshape((1,) * (len(times) - labels.ndim) + labels.shape)
    # Along other axes the labels do not vary, however often they are repeated.
    return np.tile(labels, [number if size > 1 else 1 for number, size in zip(times, labels.shape, strict=True)])


def _pad(trace: Trace, call: Call) -> Labels:
    """Padding by a constant: along the image its channel's own; along the channels it is new channels, frozen.

    A module can append channels that go like others: its class names in `appends_channels` the attribute that counts
    them.
    """
    labels, pads, rank = trace.labels(call.input), call["pad"], call.input.dim()
    for place in range(len(pads) // 2):
        axis, (before, after) = rank - 1 - place, pads[2 * place : 2 * place + 2]
        if labels.shape[axis] == 1 or (not before and not after):
            continue
        if before < 0 or after < 0:
            return trace.freeze(labels, f"{spoken(call.name)} in {trace.where} takes channels by their number")
        node = np.array(
            trace.nodes.frozen(f"{spoken(call.name)} in {trace.where} puts a constant channel in its place")
        )
        attribute = getattr(type(trace.module[1]), "appends_channels", None)
        tail = trace.pad(attribute, after) if attribute and not before else np.repeat(node, after)
        ends = (np.repeat(node, before), tail)
        shape = [-1 if a == axis else 1 for a in range(rank)]
        labels = np.concatenate(_alike([ends[0].reshape(shape), labels, ends[1].reshape(shape)], axis), axis)
    return labels


def _split(trace: Trace, call: Call) -> None:
    """Parts of equal size stay so if they lose the same channels; others have sizes written down somewhere."""
    tensor, axis = call.input, call.values.get("dim", 0) % call.input.dim()
    if trace.is_weight(tensor) or trace.labels(tensor).shape[axis] == 1:
        return
    parts = [_spread(trace.labels(leaf), axis, leaf.shape[axis]) for leaf in leaves(call.result)]
    if len({part.shape for part in parts}) > 1:
        trace.freeze(trace.labels(tensor), f"{spoken(call.name)} in {trace.where} makes unequal parts")
        return
    for part in parts[1:]:
        trace.nodes.join(part, parts[0])


def _glu(trace: Trace, call: Call) -> Labels:
    """Gated linear units: one half of the channels times the sigmoid of the other."""
    axis = call["dim"] % call.input.dim()
    labels = trace.labels(call.input)
    if labels.shape[axis] == 1:
        return labels
    one, two = np.split(labels, 2, axis)
    trace.nodes.join(one, two)
    return one


def _take(trace: Trace, call: Call) -> Labels | None:
    """Slices and indices along the channels name them by number, which would mean others after a removal."""
    tensor = call.input
    axis = call.values.get("dim", call.values.get("dimension", 0)) % max(tensor.dim(), 1)
    if trace.is_weight(tensor):
        return None
    labels = trace.labels(tensor)
    if _lie_along(labels, axis) and tuple(leaves(call.result)[0].shape) != tuple(tensor.shape):
        return trace.freeze(labels, f"{spoken(call.name)} in {trace.where} takes channels by their number")
    return labels


def _index_select(trace: Trace, call: Call) -> Labels:
    labels = trace.labels(call["self"])
    if labels.shape[call["dim"]] > 1:
        return trace.freeze(labels, f"{spoken(call.name)} in {trace.where} takes channels by their number")
    return labels


def _whole_view(trace: Trace, call: Call) -> None:
    """Views that pick entries in ways not followed here."""
    labels = trace.labels(call.input)
    if labels.size > 1:
        trace.freeze(labels, f"{spoken(call.name)} in {trace.where} takes channels by their number")


def _moved(operator: Callable[..., Tensor], *names: str) -> Rule:
    """A rule that does the same to the labels."""

    def rule(trace: Trace, call: Call) -> Labels:
        labels = torch.from_numpy(trace.labels(call.input)).expand(call.input.shape)
        return squash(operator(labels, *(call[name] for name in names)))

    return rule


def _channel_shuffle(trace: Trace, call: Call) -> Labels:
    """As view, transpose, reshape."""
    groups, labels = call["groups"], trace.labels(call.input)
    apart = _spread(labels, 1, call.input.shape[1])
    apart = apart.reshape(apart.shape[0], groups, -1, *apart.shape[2:])
    trace.split(squash(torch.from_numpy(apart)), view=True)
    return apart.swapaxes(1, 2).reshape(apart.shape[0], -1, *apart.shape[3:])


def _pixel_shuffle(labels: Tensor, factor: int) -> Tensor:
    return torch.pixel_shuffle(labels.double(), factor).long()  # exact up to 2^53 nodes


def _pixel_unshuffle(labels: Tensor, factor: int) -> Tensor:
    return torch.pixel_unshuffle(labels.double(), factor).long()


def _spread(labels: Labels, axis: int, size: int) -> Labels:
    """Labels written out along an axis."""
    return np.broadcast_to(labels, (*labels.shape[:axis], size, *labels.shape[axis + 1 :]))


def _alike(parts: list[Labels], axis: int) -> list[Labels]:
    """Labels brought to one shape but for an axis."""
    shape = np.broadcast_shapes(*((*part.shape[:axis], 1, *part.shape[axis + 1 :]) for part in parts))
    return [np.broadcast_to(part, (*shape[:axis], part.shape[axis], *shape[axis + 1 :])) for part in parts]


def axes_of(dim: Any, rank: int) -> tuple[int, ...]:
    """Axes as an operator names them: one, several or (empty here) none named."""
    if dim is None or not rank:
        return ()
    return tuple(axis % rank for axis in ([dim] if isinstance(dim, int) else dim))


def leaves(result: Any) -> list[Tensor]:
    """All tensors that an operator returned."""
    return [leaf for leaf in torch.utils._pytree.tree_leaves(result) if isinstance(leaf, Tensor)]


#: Operators that lay labels out anew and make none one.
MOVES: dict[str, Rule] = {
    **dict.fromkeys(
        (
            "view", "_unsafe_view", "_reshape_alias", "permute", "transpose", "t", "squeeze", "unsqueeze", "expand",
            "detach", "alias", "lift_fresh", "empty", "zeros", "ones", "full", "rand", "randn", "arange", "linspace",
            "scalar_tensor", "new_empty", "new_zeros", "new_ones", "new_full", "empty_strided", "new_empty_strided",
            "bernoulli_", "uniform_", "normal_", "fill_", "zero_",
        ),
        _nothing,
    ),
    **dict.fromkeys(
        (
            "clone", "_to_copy", "contiguous", "zeros_like", "ones_like", "empty_like", "full_like", "rand_like",
            "randn_like", "bernoulli", "native_dropout", "hardswish", "hardsigmoid", "hardtanh", "rrelu_with_noise",
            "tril", "triu",
        ),
        _same,
    ),
    "copy_": _copy,
    "flip": _flip,
    "cat": _cat,
    "stack": _stack,
    "repeat": _repeat,
    "channel_shuffle": _channel_shuffle,
    "native_channel_shuffle": _channel_shuffle,
    "pixel_shuffle": _moved(_pixel_shuffle, "upscale_factor"),
    "pixel_unshuffle": _moved(_pixel_unshuffle, "downscale_factor"),
}  # fmt: skip

_RULES: dict[str, Rule] = {
    **MOVES,
    "convolution": _convolution,
    **dict.fromkeys(("mm", "bmm", "addmm", "_addmm_activation"), _matrices),
    **dict.fromkeys(
        (
            "hardswish_", "hardsigmoid_", "hardtanh_", "elu_", "leaky_relu_", "_prelu_kernel", "masked_fill",
            "masked_fill_",
        ),
        _pointwise,
    ),
    **dict.fromkeys(REDUCTIONS, _reduce),
    **dict.fromkeys(ALONG, _along),
    "constant_pad_nd": _pad,
    **dict.fromkeys(("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes"), _split),
    **dict.fromkeys(("slice", "select", "unbind", "narrow", "unfold"), _take),
    "glu": _glu,
    "index_select": _index_select,
    **{name.removeprefix("aten."): _read for name in READS},
    **dict.fromkeys(("as_strided", "diagonal"), _whole_view),
}  # fmt: skip
