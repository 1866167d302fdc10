"""Which channel every element of every tensor of a forward pass belongs to.

A net is run, and beside every tensor stands a *label* per element: the number of a node. Nodes are the output and input
channels of every weight, the entries of every vector (bias, norm, buffer), and one per reason why channels cannot be
removed. 0 is a constant. What each of torch's operators does to labels, and which nodes it makes one, says
`channel_rules`.

Labels belong to memory, not to tensors: a view (permute, chunk, transpose, slice) has the labels of its base at its
strides, and an operator in place writes into those of all views, with no rule for either.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

#: Labels of a tensor, as many axes as it has; one entry along every axis on which they do not vary.
Labels = NDArray[np.int64]
Geometry = tuple[tuple[int, ...], tuple[int, ...], int]
#: Why what a net is given cannot be removed.
IMAGE = "its channels are those of the image"


class Nodes:
    """Numbers of nodes, which of them are one, and reasons.

    Attributes:
        count: how many there are; 0 is the constant.
        reasons: node -> why what is joined to it cannot be removed.
    """

    def __init__(self) -> None:
        self.count = 1
        self.reasons: dict[int, str] = {}
        self._by_reason: dict[str, int] = {}
        self._edges: list[NDArray[np.int64]] = []

    def new(self, number: int) -> Labels:
        """Fresh nodes, of shape (number,)."""
        self.count += number
        return np.arange(self.count - number, self.count)

    def frozen(self, reason: str) -> int:
        """The node that stands for a reason."""
        if reason not in self._by_reason:
            node = int(self.new(1)[0])
            self._by_reason[reason], self.reasons[node] = node, reason
        return self._by_reason[reason]

    def join(self, one: Labels, two: Labels) -> None:
        """Make nodes one, entry by entry of two arrays that are broadcast; constants are left out."""
        pairs = np.stack([part.ravel() for part in np.broadcast_arrays(one, two)])
        pairs = pairs[:, (pairs[0] != pairs[1]) & (pairs != 0).all(0)]
        if pairs.size:
            self._edges.append(np.unique(np.sort(pairs, 0), axis=1))

    @property
    def edges(self) -> NDArray[np.int64]:
        """All pairs that were joined, of shape (2, number)."""
        return np.concatenate([np.zeros((2, 0), np.int64), *self._edges], 1)


@dataclass
class Held:
    """A parameter or buffer of the net.

    Attributes:
        name: in the net.
        shape: its shape.
        geometry: shape, strides and offset in its memory.
        axes: the nodes of its output and input channels, if it has two or more dimensions.
        elements: a node per entry, in its shape: of vectors, and of what is used entry by entry.
        roles: how an axis was used by products: "out", "in" or "both".
        used: whether the pass used it.
    """

    name: str
    shape: tuple[int, ...]
    geometry: Geometry
    axes: tuple[Labels, ...] = ()
    elements: Labels | None = None
    roles: dict[int, str] = field(default_factory=dict)
    used: bool = False

    def note(self, axis: int, role: str) -> None:
        """Note that a product used an axis."""
        self.used = True
        self.roles[axis] = role if self.roles.get(axis, role) == role else "both"


@dataclass
class _Memory:
    """Labels of one storage: of tensors in it by their geometry, and, where it is needed, one per place.

    Places are counted in entries of `width` bytes.
    """

    width: int
    known: dict[Geometry, Labels] = field(default_factory=dict)
    flat: Tensor | None = None


@dataclass(frozen=True)
class Split:
    """A tensor whose labels vary along several axes; `view` if a view made them of one axis."""

    labels: Labels
    view: bool
    where: str


class Call:
    """An operator at work.

    Attributes:
        name: of the operator, e.g. `aten.cat`.
        values: its arguments by name.
        result: what it returned.
    """

    def __init__(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.name = str(func.overloadpacket)
        self.pointwise = torch.Tag.pointwise in func.tags
        names = [argument.name for argument in func._schema.arguments]
        self.values: dict[str, Any] = {
            argument.name: argument.default_value for argument in func._schema.arguments if argument.has_default_value()
        }
        self.values.update(zip(names, args, strict=False))
        self.values.update(kwargs)
        self.written = [
            leaf
            for fact in func._schema.arguments
            if fact.alias_info is not None and fact.alias_info.is_write
            for leaf in _tensors(self.values.get(fact.name))
        ]
        self.result: Any = None

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors among the arguments."""
        return _tensors(list(self.values.values()))

    @property
    def input(self) -> Tensor:
        """The first tensor among the arguments."""
        return self.tensors[0]


Rule = Callable[["Trace", Call], Labels | list[Labels | None] | None]


class Trace(TorchDispatchMode):
    """Follows the labels of everything that happens in the block `watching`.

    Attributes:
        nodes: the channels, and which of them are one.
        held: the parameters and buffers of the net.
        padding: by name of a module's attribute, a node per channel that it appends.
        splits: tensors whose labels vary along several axes.
        reads: whether a number was read of which channels are part (an `if`, `.item()`).
    """

    def __init__(self, net: nn.Module, rules: Callable[[Call], Rule | None], unknown: Rule) -> None:
        """Prepare to watch a net.

        Args:
            net: on the CPU; whose parameters and buffers are told apart.
            rules: gives the rule of an operator, if it has one.
            unknown: the rule of all other operators.
        """
        super().__init__()
        self.nodes, self.splits = Nodes(), list[Split]()
        self.padding: dict[str, Labels] = {}
        self.held: list[Held] = []
        self.reads = False
        self._net, self._rules, self._unknown = net, rules, unknown
        self._modules: list[tuple[str, nn.Module]] = []
        self._memory: dict[StorageWeakRef, _Memory] = {}
        self._places: dict[StorageWeakRef, list[Held]] = {}
        for name, tensor in (*net.named_parameters(), *net.named_buffers()):
            held = Held(name, tuple(tensor.shape), _geometry(tensor))
            if tensor.dim() > 1:
                held.axes = (self.nodes.new(tensor.shape[0]), self.nodes.new(tensor.shape[1]))
            elif tensor.dim() == 1:
                self._by_element(held, tensor)
            self.held.append(held)
            self._places.setdefault(_storage(tensor), []).append(held)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch would import its compiler to keep it away from here: seconds in every process

    @contextmanager
    def watching(self, images: Iterable[Tensor]) -> Iterator[None]:
        """Within the block all operators are followed; `images` are what the net is given."""
        node = np.array(self.nodes.frozen(IMAGE))
        for image in images:
            self.write(image, node.reshape((1,) * image.dim()))
        with ExitStack() as stack:
            for path, module in self._net.named_modules():
                for handle in (
                    module.register_forward_pre_hook(lambda m, *_, path=path: self._modules.append((path, m))),
                    module.register_forward_hook(lambda *_: self._leave(), always_call=True),
                ):
                    stack.callback(handle.remove)
            stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
            torch.backends.mha.set_fastpath_enabled(False)  # fused kernels hide what they do
            mkldnn: Any = torch.backends.mkldnn
            stack.callback(setattr, mkldnn, "enabled", mkldnn.enabled)
            mkldnn.enabled = False
            stack.enter_context(torch.no_grad())
            stack.enter_context(self)
            yield

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do what the operator does, and the same to labels."""
        kwargs = kwargs or {}
        call = Call(func, args, kwargs)
        rule = self._rules(call)
        if rule is None and func is not torch.ops.prim.device.default:
            with self:
                parts = func.decompose(*args, **kwargs)  # composite operators that come undivided
            if parts is not NotImplemented:
                return parts
        call.result = func(*args, **kwargs)
        labels = (rule or self._unknown)(self, call)
        old = {_storage(tensor) for tensor in call.tensors}
        written = {id(tensor) for tensor in call.written}
        leaves = _tensors(call.result)
        for leaf, value in zip(leaves, labels if isinstance(labels, list) else [labels] * len(leaves), strict=True):
            shares = _storage(leaf) in old
            if value is not None and (not shares or id(leaf) in written):
                self.write(leaf, value)
            if shares and not written:
                self._note_view(call, leaf)
        for leaf in call.written:  # operators that return nothing, or something else
            if isinstance(labels, np.ndarray) and not any(leaf is other for other in leaves):
                self.write(leaf, labels)
        if len(self._memory) > 256:
            self._memory = {key: value for key, value in self._memory.items() if not key.expired()}
        return call.result

    # What rules use.

    def labels(self, tensor: Tensor) -> Labels:
        """The labels of a tensor; a weight that is read so is followed entry by entry."""
        key, geometry = _storage(tensor), _geometry(tensor)
        for held in self.holders(tensor):
            held.used = True
            if held.elements is None and held.shape:
                self._by_element(held, tensor)
        memory = self._memory.get(key)
        if memory is not None and memory.width != tensor.element_size():
            memory = self._memory[key] = self._read_otherwise(memory, tensor)
        if memory is None or not tensor.numel():
            return np.zeros((1,) * tensor.dim(), np.int64)
        if geometry not in memory.known:
            memory.known[geometry] = squash(self._flat(tensor).as_strided(*geometry))
        return memory.known[geometry]

    def write(self, tensor: Tensor, labels: Labels) -> None:
        """Set the labels of a tensor; what is written into one of the net's own tensors is joined to it."""
        key, geometry = _storage(tensor), _geometry(tensor)
        if key in self._places:
            self.nodes.join(self.labels(tensor), labels)
            return
        labels = squash(torch.from_numpy(labels.reshape((1,) * (tensor.dim() - labels.ndim) + labels.shape)))
        if tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes():
            self._memory[key] = _Memory(tensor.element_size(), {geometry: labels})
        else:
            flat = self._flat(tensor)
            flat.as_strided(*geometry).copy_(torch.from_numpy(labels))
            self._memory[key] = _Memory(tensor.element_size(), {}, flat)
        self._note_split(labels, view=False)

    def holders(self, tensor: Tensor) -> list[Held]:
        """The net's own tensors that a tensor is, or shares memory with."""
        geometry = _geometry(tensor)
        return [held for held in self._places.get(_storage(tensor), ()) if _meets(held.geometry, geometry)]

    def weight(self, tensor: Tensor) -> tuple[Held, tuple[int, int], tuple[Labels, Labels]] | None:
        """What the first two axes of a weight are, if it is (a part of, or a view of) one of the net's tensors.

        Returns:
            The net's tensor; the number of its axis that is the first axis here, and that of the second; their nodes.
            None if this is something else, computed on the way.
        """
        geometry = _geometry(tensor)
        for held in self.holders(tensor):
            if held.axes:
                for order in ((0, 1), (1, 0)):
                    if (places := _as_axes(held.geometry, geometry, order)) is not None:
                        return held, order, (held.axes[order[0]][places[0]], held.axes[order[1]][places[1]])
        return None

    def is_weight(self, tensor: Tensor) -> bool:
        """Whether this is a view of one of the net's tensors of two or more dimensions, not followed by entries."""
        return any(held.axes and held.elements is None for held in self.holders(tensor))

    def freeze(self, labels: Labels, reason: str) -> Labels:
        """Nothing with these labels can be removed; returns the label that stands for the reason."""
        node = np.array(self.nodes.frozen(reason))
        self.nodes.join(np.unique(labels), node)
        return node

    def freeze_tensor(self, tensor: Tensor, reason: str) -> bool:
        """As `freeze`, for all that a tensor is made of; returns whether that is more than constants."""
        if not self.is_weight(tensor):
            labels = self.labels(tensor)
            self.freeze(labels, reason)
            return bool(labels.any())
        for held in self.holders(tensor):
            held.used = True
            for axis, nodes in enumerate(held.axes):
                held.note(axis, "in" if axis else "out")
                self.freeze(nodes, reason)
        return True

    def split(self, labels: Labels, *, view: bool) -> None:
        """Note labels that vary along several axes."""
        self._note_split(labels, view=view)

    @property
    def module(self) -> tuple[str, nn.Module]:
        """The innermost module at work, and its path."""
        return self._modules[-1] if self._modules else ("", self._net)

    @property
    def where(self) -> str:
        """The innermost module at work, for messages."""
        path, module = self.module
        return f"layer {path}" if path else f"the forward of {type(module).__name__}"

    def pad(self, attribute: str, number: int) -> Labels:
        """The nodes of channels that the module at work appends, by the name of its attribute that counts them."""
        name = ".".join(part for part in (self.module[0], attribute) if part)
        if name not in self.padding:
            self.padding[name] = self.nodes.new(number)
        return self.padding[name]

    # Memory.

    def _leave(self) -> None:
        self._modules.pop()

    def _by_element(self, held: Held, tensor: Tensor) -> None:
        """Give every entry of a tensor of the net a node."""
        held.elements = self.nodes.new(int(np.prod(held.shape, dtype=np.int64))).reshape(held.shape)
        flat = self._flat(tensor)
        flat.as_strided(*held.geometry).copy_(torch.from_numpy(held.elements))
        self._memory[_storage(tensor)] = _Memory(tensor.element_size(), {}, flat)

    def _flat(self, tensor: Tensor) -> Tensor:
        """The label of every place of a tensor's memory."""
        memory = self._memory.setdefault(_storage(tensor), _Memory(tensor.element_size()))
        if memory.width != tensor.element_size():
            memory = self._memory[_storage(tensor)] = self._read_otherwise(memory, tensor)
        if memory.flat is None:
            memory.flat = torch.zeros(tensor.untyped_storage().nbytes() // tensor.element_size(), dtype=torch.int64)
            for geometry, labels in memory.known.items():  # all of them are of the same places
                memory.flat.as_strided(*geometry).copy_(torch.from_numpy(labels))
        return memory.flat

    def _read_otherwise(self, memory: _Memory, tensor: Tensor) -> _Memory:
        """Memory that is read as numbers of another size: nothing in it can be removed."""
        labels = [*memory.known.values(), *([] if memory.flat is None else [memory.flat.numpy()])]
        places = tensor.untyped_storage().nbytes() // tensor.element_size()
        return _Memory(tensor.element_size(), {}, torch.full((places,), self._as_one(labels)))

    def _as_one(self, labels: list[Labels]) -> int:
        """The label of what is made of all of these, one cannot tell how."""
        node = self.nodes.frozen(f"{self.where} reads numbers as those of another size")
        for part in labels:
            self.nodes.join(np.unique(part), np.array(node))
        return node if any(part.any() for part in labels) else 0

    def _note_view(self, call: Call, leaf: Tensor) -> None:
        if not self.is_weight(leaf):
            before = [self.labels(tensor) for tensor in call.tensors]
            self._note_split(self.labels(leaf), view=call.name in _VIEWS and all(_varied(b) < 2 for b in before))

    def _note_split(self, labels: Labels, *, view: bool) -> None:
        if _varied(labels) > 1:
            self.splits.append(Split(labels, view, self.where))


#: Operators that lay out the axes of a tensor anew.
_VIEWS = frozenset({"aten.view", "aten._unsafe_view", "aten._reshape_alias", "aten.unflatten", "aten.channel_shuffle"})


def squash(labels: Tensor) -> Labels:
    """Labels with one entry along every axis on which they do not vary."""
    for axis in range(labels.dim()):
        if labels.shape[axis] > 1:
            first = labels.narrow(axis, 0, 1)
            if not labels.stride(axis) or torch.equal(labels, first.expand_as(labels)):
                labels = first
    return labels.numpy().copy()


def spoken(name: str) -> str:
    """The name of an operator for messages."""
    return re.sub(r"^aten\._?", "", name)


def _varied(labels: Labels) -> int:
    return sum(size > 1 for size in labels.shape)


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _storage(tensor: Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())


def _geometry(tensor: Tensor) -> Geometry:
    return tuple(tensor.shape), tuple(tensor.stride()), int(tensor.storage_offset())


def _end(geometry: Geometry) -> int:
    shape, strides, offset = geometry
    return offset + sum((side - 1) * step for side, step in zip(shape, strides, strict=True)) + 1


def _meets(one: Geometry, two: Geometry) -> bool:
    return max(one[2], two[2]) < min(_end(one), _end(two))


def _as_axes(held: Geometry, view: Geometry, order: tuple[int, int]) -> tuple[Labels, Labels] | None:
    """Indices of a weight's first two axes that the first two axes of a view of it run through, in this order.

    Args:
        held: the weight (outputs, inputs, *kernel).
        view: what a product is given.
        order: which axis of the weight each axis of the view is.

    Returns:
        The indices along the view's first and second axis; None if they run through no such axes.
    """
    shape, strides, offset = view
    if len(shape) < 2:
        return None
    if held == view:
        return (np.arange(shape[0]), np.arange(shape[1])) if order == (0, 1) else None
    (outputs, inputs, *kernel), steps, start = held
    # Of a weight whose memory is in order, the place of an entry tells its indices.
    width = int(np.prod(kernel, dtype=np.int64))
    dense = np.cumprod([1, *reversed(kernel), inputs])[::-1]
    if any(side > 1 and step != int(wanted) for side, step, wanted in zip(held[0], steps, dense, strict=True)):
        return None
    unit = {0: inputs * width, 1: width}
    limit = {0: outputs, 1: inputs}
    rest = offset - start
    first = {0: rest // unit[0], 1: rest % unit[0] // width}
    inner = rest % width + sum((side - 1) * step for side, step in zip(shape[2:], strides[2:], strict=True))
    if inner >= width:
        return None
    found = []
    for side, step, axis in zip(shape[:2], strides[:2], order, strict=True):
        if side > 1 and (step % unit[axis] or not step):
            return None
        indices = first[axis] + np.arange(side) * (step // unit[axis] if side > 1 else 0)
        if indices[-1] >= limit[axis]:
            return None
        found.append(indices)
    return found[0], found[1]
