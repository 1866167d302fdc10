"""Gates on the channels of single images: how much each of them would change the loss, by the units of channel groups.

A gate is a factor of 1 on the channels of a unit where they enter the layers that read them, one for every image. The
derivative of the loss by it is the sum of a * dL/da over these inputs a, over all positions and all calls of all
layers. That is what a pass collects here, without multiplying anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ipbench.data.loaders import Batch
from ipbench.errors import BadInput
from ipbench.sparse import spaces
from ipbench.sparse.channels import Groups, Member
from ipbench.sparse.structure import restricted

if TYPE_CHECKING:
    from ipbench.sparse.net import SparseNet

_TRANSPOSED = (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d)
#: Functions whose inputs have gates; all of them take (input, weight, ...).
_READING = (torch.conv1d, torch.conv2d, torch.conv3d, *_TRANSPOSED, functional.linear)


@dataclass(frozen=True)
class _Part:
    """Inputs of a layer that belong to the units of one group.

    Attributes:
        first: the place of the group's first unit.
        units: how many units.
        inputs: of shape (units * inputs of each,): their channels; None: all, in order, one each.
    """

    first: int
    units: int
    inputs: Tensor | None

    def add(self, values: Tensor, total: Tensor) -> None:
        """Add what belongs to the units, of values (N, C), to a total (N, units of the net)."""
        taken = values if self.inputs is None else values[:, self.inputs]
        if taken.shape[1] > self.units:
            taken = taken.reshape(len(taken), self.units, -1).sum(2)
        total[:, self.first : self.first + self.units] += taken


@dataclass
class _Reader:
    """A layer that reads channels of units.

    Attributes:
        name: of the layer.
        members: with the place of the first unit of their group.
        parts: by the kind of call and the number of input channels, as they are needed.
    """

    name: str
    members: list[tuple[int, Member]] = field(default_factory=list)
    parts: dict[tuple[bool, int], list[_Part]] = field(default_factory=dict)

    def parts_of(self, images: Tensor, weight: Tensor, channels: int, transposed: bool) -> list[_Part]:
        """What of its inputs belongs to which units."""
        key = transposed, channels
        if key not in self.parts:
            self.parts[key] = [
                _part(first, _inputs(member, weight, channels, transposed), channels, images.device)
                for first, member in self.members
            ]
        return self.parts[key]


def _inputs(member: Member, weight: Tensor, channels: int, transposed: bool) -> NDArray[np.int64]:
    """The input channels of every unit, of shape (units, number)."""
    if member.role == "in" or transposed:
        return member.indices
    each = weight.shape[1]  # inputs of one group of a convolution, whose filters are whole units
    filters = weight.shape[0] * each // channels
    groups = np.stack([np.unique(row) for row in member.indices // filters])
    inputs: NDArray[np.int64] = (groups[:, :, None] * each + np.arange(each)).reshape(len(groups), -1)
    return inputs


def _part(first: int, inputs: NDArray[np.int64], channels: int, device: torch.device) -> _Part:
    whole = inputs.shape == (channels, 1) and bool((inputs[:, 0] == np.arange(channels)).all())
    return _Part(first, len(inputs), None if whole else torch.from_numpy(inputs.ravel()).to(device))


class Gates:
    """Gates of value 1 on all units of a net: one for every image and unit, where its channels enter layers.

    `with gates(batch): ...` surrounds a forward and a backward pass; `gradients()` is then the derivative by every
    gate. Units are those of pattern `channels`, numbered as in the dense net. A layer that is called several times has
    the sum over its calls, one with groups the sum over the inputs of whole groups, a linear layer behind a flattening
    the sum over all inputs of a channel. The pass computes what it computes without gates, bit for bit.
    """

    def __init__(self, net: SparseNet) -> None:
        """Gates of a net as it is now; `net`: whose channels have not to be cut while they are used."""
        groups = restricted(net.groups, net.structure)
        self._net = net
        self._number = sum(group.units for group in groups.free)
        self._places = _places(net)
        self._readers = _readers(groups)
        self._images = 0
        self._passes = 0
        self._total: Tensor | None = None

    @contextmanager
    def __call__(self, batch: Batch) -> Iterator[Gates]:
        """Within the block, passes of the net through its images are seen; what was seen before is forgotten.

        Raises:
            BadInput: a layer that reads units is no convolution or linear layer of torch, is called without gradients,
                or gets a number of rows that is no multiple of the number of images.
        """
        self._images, self._passes, self._total = len(batch.images), 0, None
        weights: dict[int, tuple[_Reader, Tensor]] = {}
        mode = _Watch(weights, self._gated)

        def begin(*_: Any) -> None:
            self._passes += 1
            mode.__enter__()

        def end(*_: Any) -> None:
            mode.__exit__(None, None, None)

        with ExitStack() as stack:
            self._find(weights, stack)
            stack.callback(self._net.net.register_forward_pre_hook(begin).remove)
            stack.callback(self._net.net.register_forward_hook(end, always_call=True).remove)
            yield self

    def gradients(self) -> Tensor:
        """The derivative of what was backpropagated by every gate, of shape (N, units).

        Of a mean loss over N images, row n is 1 / N of the derivative of the loss of image n, as far as norms over the
        batch leave images apart. Rows of layers that see several for each image (regions of a detector) count to the
        images in equal parts, one after the other.

        Raises:
            BadInput: the net was not called within the block of these gates.
        """
        if not self._passes:
            raise BadInput("gates: the net was not called within their block")
        total = self._total
        if total is None:
            total = torch.zeros(self._images, self._number, device=next(self._net.parameters()).device)
        if len(self._places) == total.shape[1] and not self._net.structure:
            return total
        whole = total.new_zeros(len(total), sum(group.units for group in self._net.groups.free))
        whole[:, torch.from_numpy(self._places).to(total.device)] = total
        return whole

    def _find(self, weights: dict[int, tuple[_Reader, Tensor]], stack: ExitStack) -> None:
        """Tell the weights of all readers by identity: parameters, and filters as they are built."""
        parameters = dict(self._net.net.named_parameters())

        def noting(reader: _Reader) -> Callable[..., None]:
            def note(module: nn.Module, given: Any, made: Tensor) -> None:
                weights[id(made)] = reader, made

            return note

        for tensor, reader in self._readers.items():
            layer = self._net.layers.get(reader.name)
            if layer is None or spaces.filter_basis(layer) is None:
                weights[id(parameters[tensor])] = reader, parameters[tensor]
                continue
            for use in layer.uses:
                held = use.module.parametrizations
                assert isinstance(held, nn.ModuleDict)
                stack.callback(held[use.parameter].register_forward_hook(noting(reader)).remove)

    def _gated(self, reader: _Reader, function: Callable[..., Any], images: Tensor, weight: Tensor) -> Tensor:
        """The input of a layer, from which its gradient comes back here."""
        transposed, axis = function in _TRANSPOSED, -1 if function is functional.linear else 1
        if not torch.is_grad_enabled():
            raise BadInput(f"layer {reader.name}: it is called without gradients, so that its channels have none")
        if images.dim() != weight.dim() and axis == 1:
            raise BadInput(f"layer {reader.name}: it is given a single image instead of a batch")
        if self._images < 1 or len(images) % self._images:
            raise BadInput(
                f"layer {reader.name}: it is given {len(images)} rows for {self._images} images; gates need as many of"
                " each image"
            )
        parts = reader.parts_of(images, weight, images.shape[axis], transposed)
        values = images.detach()
        seen = images.view_as(images) if images.requires_grad else images.detach().requires_grad_()
        seen.register_hook(lambda gradient: self._add(parts, values, gradient, axis))
        return seen

    def _add(self, parts: list[_Part], values: Tensor, gradient: Tensor, axis: int) -> None:
        """Add a * dL/da of the inputs of one call, for every image and unit."""
        kind = torch.float64 if values.dtype == torch.float64 else torch.float32
        axes = tuple(range(1, values.dim() - 1) if axis == -1 else range(2, values.dim()))
        products = values.to(kind) * gradient.to(kind)
        sums = products.sum(axes) if axes else products
        if len(sums) != self._images:
            sums = sums.view(self._images, -1, sums.shape[1]).sum(1)
        if self._total is None:
            self._total = sums.new_zeros(self._images, self._number)
        for part in parts:
            part.add(sums, self._total)


class _Watch(TorchFunctionMode):
    """Sees every function of torch in a forward pass: gates the inputs of readers, and finds other uses of weights."""

    def __init__(
        self,
        weights: dict[int, tuple[_Reader, Tensor]],
        gated: Callable[[_Reader, Callable[..., Any], Tensor, Tensor], Tensor],
    ) -> None:
        super().__init__()
        self._weights, self._gated = weights, gated

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do what the function does."""
        kwargs = kwargs or {}
        if func in _READING:
            weight = args[1] if len(args) > 1 else kwargs["weight"]
            if (found := self._weights.get(id(weight))) is not None:
                if args:
                    args = (self._gated(found[0], func, args[0], weight), *args[1:])
                else:
                    kwargs = {**kwargs, "input": self._gated(found[0], func, kwargs["input"], weight)}
            return func(*args, **kwargs)
        result = func(*args, **kwargs)
        for value in (*args, *kwargs.values()):
            for leaf in value if isinstance(value, list | tuple) else (value,):
                if isinstance(leaf, Tensor) and id(leaf) in self._weights and _trained(result):
                    name = getattr(func, "__name__", str(func))
                    raise BadInput(
                        f"layer {self._weights[id(leaf)][0].name}: its weight is used by {name}, and gates see"
                        " convolutions and linear layers alone"
                    )
        return result


def _trained(result: Any) -> bool:
    """Whether a gradient comes back through what a function returned."""
    leaves = result if isinstance(result, list | tuple) else (result,)
    return any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in leaves)


def _readers(groups: Groups) -> dict[str, _Reader]:
    """The layers that read units, by the name of their weight in the plain net."""
    found: dict[str, _Reader] = {}
    first = 0
    for group in groups.free:
        for member in group.members:
            if member.role in ("in", "both"):
                found.setdefault(member.tensor, _Reader(member.layer)).members.append((first, member))
        first += group.units
    return found


def _places(net: SparseNet) -> NDArray[np.int64]:
    """The number in the dense net of every unit that there is."""
    whole = np.concatenate([net.structure.alive(group) for group in net.groups.free] or [np.zeros(0, bool)])
    return np.flatnonzero(whole)
