"""What a net consists of after the removed channels are sliced off, counted without slicing it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from ipbench.sparse import measure
from ipbench.sparse.channels import Groups
from ipbench.sparse.measure import Count, Layer


@dataclass(frozen=True)
class Sliced:
    """A net from which some units of its channel groups are removed.

    Attributes:
        counted: the plain net, whole.
        groups: its channel groups.
        kept: how many units stay, by the name of the group; groups that are not named are whole.
    """

    counted: Count
    groups: Groups
    kept: Mapping[str, int]

    def layers(self) -> list[Layer]:
        """The layers as they are after slicing; what is used once per position still is."""
        sides = self._sides()
        found = []
        for layer in self.counted.layers:
            tensor = layer.name if layer.name in self.groups.shapes else f"{layer.name}.weight"
            shape = tuple(sides.get((tensor, axis), side) for axis, side in enumerate(layer.shape))
            transposed = layer.kind == "transposed"
            by_group = layer.groups > 1 and shape[0] < layer.shape[0]  # of several groups whole ones go, inputs too
            groups = layer.groups * shape[0] // layer.shape[0] if by_group else layer.groups
            inputs = shape[0] if transposed else shape[1] * groups
            outputs = shape[1] * groups if transposed else shape[0]
            found.append(replace(layer, shape=shape, groups=groups, in_channels=inputs, out_channels=outputs))
        return found

    def macs(self) -> int:
        """MACs of one image."""
        return sum(layer.macs for layer in self.layers())

    def two_stage_macs(self, basis_layers: Collection[str]) -> int:
        """MACs of one image where layers with a filter basis are evaluated in two stages, see `measure`."""
        layers = self.layers()
        return measure.two_stage_macs(layers, {layer.name: layer.size for layer in layers}, basis_layers)

    def parameters(self, buffers: Collection[str]) -> int:
        """Parameters: weights, biases, norms and others.

        Args:
            buffers: names of the tensors of groups that are no parameters.
        """
        sides = self._sides()
        removed = 0
        for tensor, shape in self.groups.shapes.items():
            if tensor not in buffers and any((tensor, axis) in sides for axis in range(len(shape))):
                kept = [sides.get((tensor, axis), side) for axis, side in enumerate(shape)]
                removed += math.prod(shape) - math.prod(kept)
        return self.counted.parameters - removed

    def _sides(self) -> dict[tuple[str, int], int]:
        """What is left along an axis of a tensor, where something was removed."""
        sides: dict[tuple[str, int], int] = {}
        for group in self.groups:
            gone = group.units - self.kept.get(group.name, group.units)
            for member in group.members if gone else ():
                if member.role != "padding":
                    place = member.tensor, member.axis
                    whole = self.groups.shapes[member.tensor][member.axis]
                    sides[place] = sides.get(place, whole) - gone * member.indices.shape[1]
        return sides
