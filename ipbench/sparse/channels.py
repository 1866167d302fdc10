"""Groups of coupled channels: plain data.

A *unit* is the least that can be removed from a net: one channel with everything that belongs to it in all layers that
share it. A *group* is a set of units with members in the same tensors: the channels of one convolution, or of the
residual stream of a stage.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ipbench.errors import valid_choice

Indices = NDArray[np.int64]

#: What the slices of a tensor are to a unit: the filters that make its channel; the part of other filters that reads
#: it; both at once (a convolution with groups, which falls by whole groups); a value per channel (bias, norm, PReLU);
#: or channels of zeros that a module appends (no tensor, but a number of the module).
Role = Literal["out", "in", "both", "vector", "padding"]


@dataclass(frozen=True)
class Member:
    """One axis of one tensor of the net, and which of its indices go with which unit.

    Attributes:
        tensor: name of a parameter or buffer as in the plain net (`layer1.0.conv1.weight`); of padding, that of the
            module's attribute.
        axis: of the tensor.
        role: what the slices are to a unit.
        indices: of shape (units, number): row u goes with unit u.
    """

    tensor: str
    axis: int
    role: Role
    indices: Indices = field(compare=False)

    @property
    def layer(self) -> str:
        """The layer's name: the module's where the parameter is called `weight`, else that of the tensor."""
        return layer_of(self.tensor)


@dataclass(frozen=True)
class Group:
    """Units that differ by their indices only.

    Attributes:
        name: that of its first layer; `#2` and so on is added where that layer's channels are in several groups.
        members: what belongs to its units, in the order of the net.
        units: how many units.
        reason: why none of them can be removed, in one line that names the layer; empty if they can.
    """

    name: str
    members: tuple[Member, ...]
    units: int
    reason: str = ""

    @property
    def producers(self) -> tuple[Member, ...]:
        """The members whose filters make the channels."""
        return tuple(member for member in self.members if member.role in ("out", "both"))

    @property
    def consumers(self) -> tuple[Member, ...]:
        """The members whose filters read the channels; a convolution with groups is among the producers."""
        return tuple(member for member in self.members if member.role == "in")


@dataclass(frozen=True)
class Groups:
    """All groups of a net.

    Attributes:
        groups: those that can be cut and those that cannot, in the order of the net.
        shapes: of every tensor that a group names (of padding: its number), to tell one net from another.
    """

    groups: tuple[Group, ...]
    shapes: Mapping[str, tuple[int, ...]]

    def __iter__(self) -> Iterator[Group]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, name: str) -> Group:
        """The group of a name.

        Raises:
            BadInput: there is none.
        """
        names = {group.name: group for group in self.groups}
        return names[valid_choice(name, names, "channel group")]

    @property
    def free(self) -> tuple[Group, ...]:
        """The groups whose units can be removed."""
        return tuple(group for group in self.groups if not group.reason)

    @property
    def frozen(self) -> tuple[Group, ...]:
        """The groups whose units cannot be removed; each says why."""
        return tuple(group for group in self.groups if group.reason)

    def of_layer(self, layer: str, role: Iterable[Role] = ("out", "both")) -> tuple[Group, ...]:
        """The groups in which a layer takes part, in a role: with the defaults, those of its output channels."""
        wanted = tuple(role)
        return tuple(g for g in self.groups if any(m.layer == layer and m.role in wanted for m in g.members))

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` makes the same groups of them."""
        return {
            "groups": [
                {
                    "name": group.name,
                    "units": group.units,
                    "reason": group.reason,
                    "members": [
                        {"tensor": m.tensor, "axis": m.axis, "role": m.role, "indices": m.indices.tolist()}
                        for m in group.members
                    ],
                }
                for group in self.groups
            ],
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Groups:
        """The groups that `to_json` gave."""
        groups = tuple(
            Group(
                entry["name"],
                tuple(
                    Member(
                        m["tensor"], m["axis"], m["role"], np.array(m["indices"], np.int64).reshape(entry["units"], -1)
                    )
                    for m in entry["members"]
                ),
                entry["units"],
                entry["reason"],
            )
            for entry in value["groups"]
        )
        return cls(groups, {name: tuple(shape) for name, shape in value["shapes"].items()})


def layer_of(tensor: str) -> str:
    """The name of a tensor's layer: without `.weight`, and without what it is computed from; or the tensor's own."""
    return re.sub(r"(^|\.)parametrizations\.([^.]+)\..*$", r"\1\2", tensor).removesuffix(".weight")
