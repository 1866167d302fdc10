"""What a net has left after slicing, from numbers of units alone: nothing is sliced or run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import nn

from ipbench.sparse.channels import Groups
from ipbench.sparse.layers import prunable_weights
from ipbench.sparse.measure import Count, count


class SlicedCost:
    """Parameters and multiply-accumulates (MACs) of a net after slicing, as functions of how many units stay.

    What one unit of a group takes along is the same for all of them, so numbers are enough. A weight of which several
    groups take rows and columns is a product of two such numbers.
    """

    def __init__(self, net: nn.Module, shape: Sequence[int], groups: Groups, counted: Count | None = None) -> None:
        """Prepare for the cuts of a net.

        Args:
            net: uncut, in space `sp`.
            shape: of one image, e.g. (C, H, W).
            groups: of this net.
            counted: of `measure.count`, if there is one.
        """
        counted = count(net, shape) if counted is None else counted
        parameters = {name: tuple(tensor.shape) for name, tensor in net.named_parameters()}
        places = {(m.tensor, m.axis): 0 for group in groups for m in group.members if m.tensor in parameters}
        self._pairs = {pair: number for number, pair in enumerate(places)}
        self._groups = {group.name: group.units for group in groups.free}
        self._sizes = np.array([*(parameters[name][axis] for name, axis in self._pairs), 1], np.int64)
        #: Indices that one unit takes along: axes of tensors (and a last one that no unit shortens) x groups.
        self._each = np.zeros((len(self._sizes), len(self._groups)), np.int64)
        for column, group in enumerate(groups.free):
            for member in group.members:
                if (member.tensor, member.axis) in self._pairs:
                    self._each[self._pairs[member.tensor, member.axis], column] += member.indices.shape[1]
        axes = {name: [axis for tensor, axis in self._pairs if tensor == name] for name in parameters}
        self._axes = np.array([self._two(name, axes[name]) for name in parameters], np.int64)
        whole = np.array([int(np.prod(shape, dtype=np.int64)) for shape in parameters.values()])
        self._rest = whole // self._sizes[self._axes].prod(1)  # entries per pair of indices, e.g. those of a kernel
        uses = {layer.name: layer.positions for layer in counted.layers}
        names = {id(tensor): name for name, tensor in net.named_parameters()}
        tensors = {names[id(weight.weight)]: name for name, weight in prunable_weights(net).items()}
        positions = [uses.get(tensors.get(name, name), 0) for name in parameters]
        self._times = np.array([position.numerator for position in positions], np.int64)
        self._share = np.array([position.denominator for position in positions], np.int64)
        self._others = 0
        self._others = counted.macs - self.macs({})  # those of tensors that are no parameters

    def parameters(self, units: Mapping[str, int]) -> int:
        """Parameters of the sliced net.

        Args:
            units: group -> how many of its units stay; groups that are not named stay whole.

        Raises:
            ValueError: a group that cannot be cut, or a number outside 1 ... its units.
        """
        return int(self._entries(units).sum())

    def macs(self, units: Mapping[str, int]) -> int:
        """MACs of one image in the sliced net.

        Args:
            units: as for `parameters`.

        Raises:
            ValueError: as `parameters`.
        """
        return int((self._entries(units) * self._times // self._share).sum()) + self._others

    def _entries(self, units: Mapping[str, int]) -> np.ndarray:
        """Entries of every parameter."""
        for name, number in units.items():
            if not 1 <= number <= self._groups.get(name, 0):
                raise ValueError(f"{number} units of {name!r}, which can have 1 to {self._groups.get(name, 0)}")
        removed = np.array([whole - units.get(name, whole) for name, whole in self._groups.items()], np.int64)
        left = self._sizes - self._each @ removed
        return left[self._axes].prod(1) * self._rest

    def _two(self, tensor: str, axes: list[int]) -> tuple[int, int]:
        """The places of the axes of a tensor that are cut along, at most two."""
        places = [self._pairs[tensor, axis] for axis in axes]
        assert len(places) <= 2
        return (*places, *[len(self._pairs)] * (2 - len(places)))  # type: ignore[return-value]
