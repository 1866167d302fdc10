"""What is left of a net whose channels were cut: the kept units of every channel group, as plain data.

Units and groups are those of `channels.py`, numbered as in the dense net, however often a net is cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ipbench.sparse.channels import Group, Groups, Member
from ipbench.sparse.example import Example, Images, example_of


@dataclass(frozen=True)
class Structure:
    """Which units of the channel groups stay; a group that is not named is whole.

    Attributes:
        kept: numbers of the units by the name of their group, in rising order, never all of them and never none.
    """

    kept: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether anything is cut."""
        return bool(self.kept)

    def without(self, groups: Groups, dead: Mapping[str, NDArray[np.bool_]]) -> Structure:
        """What is left when more units go.

        Args:
            groups: of the dense net.
            dead: by group, whether each of the units that are still there goes. A group of which all would go keeps the
                first of them.
        """
        kept = dict(self.kept)
        for name, gone in dead.items():
            units = np.flatnonzero(self.alive(groups[name]))
            left = units[~gone] if not gone.all() else units[:1]
            if len(left) < groups[name].units:
                kept[name] = tuple(left.tolist())
        return Structure({group.name: kept[group.name] for group in groups if group.name in kept})

    def to_json(self) -> dict[str, list[int]]:
        """Plain values; `from_json` makes the same structure of them."""
        return {name: list(units) for name, units in self.kept.items()}

    @classmethod
    def from_json(cls, value: Any) -> Structure:
        """The structure that `to_json` gave.

        Raises:
            ValueError: the value is of another kind.
        """
        if not isinstance(value, Mapping) or not all(_rising(units) for units in value.values()):
            raise ValueError("not a structure: units by group, in rising order")
        return cls({str(name): tuple(units) for name, units in value.items()})

    def check(self, groups: Groups) -> None:
        """Whether this can be what is left of a net.

        Raises:
            BadInput: a group is not one of the net's.
            ValueError: one cannot be cut, or has not the units that stay.
        """
        for name, units in self.kept.items():
            group = groups[name]
            if group.reason:
                raise ValueError(f"channel group {name} cannot be cut: {group.reason}")
            if not units or units[-1] >= group.units or len(units) == group.units:
                raise ValueError(f"channel group {name} has {group.units} units; not a part of them: {units!s:.60}")

    def alive(self, group: Group) -> NDArray[np.bool_]:
        """Whether each unit of a group of the dense net is kept."""
        result = np.ones(group.units, dtype=bool)
        if group.name in self.kept:
            result[:] = False
            result[list(self.kept[group.name])] = True
        return result

    def removed(self, groups: Groups, before: Structure | None = None) -> dict[str, list[int]]:
        """The units that go, by group, as `slicing.plan` takes them.

        Args:
            groups: of the dense net.
            before: what is left of the net that is to be cut; the dense net if left out. Units are numbered as in
                `restricted(groups, before)`.

        Raises:
            ValueError: a unit is to stay that is not there any more.
        """
        result = {}
        for name in dict.fromkeys((*self.kept, *(before.kept if before else ()))):
            group = groups[name]
            alive, there = self.alive(group), (before or Structure()).alive(group)
            if (alive & ~there).any():
                raise ValueError(f"channel group {name}: a unit was cut that is to stay")
            if gone := np.flatnonzero(~alive[there]).tolist():
                result[name] = gone
        return result


#: Channel groups by what a net is made of. They follow from its shapes alone, and take seconds to find.
_FOUND: dict[tuple[object, ...], Groups] = {}


def groups_of(net: nn.Module, shape: Example | Sequence[int]) -> Groups:
    """The channel groups of a plain net, of images found once in a process for all nets that are made of the same.

    Args:
        net: any.
        shape: of one image, (C, H, W); or what else the net is called with.
    """
    from ipbench.sparse.groups import (
        channel_groups,
    )  # here: few nets are cut, and scipy's graphs take a while to import

    example = example_of(shape)
    if not isinstance(example, Images):
        return channel_groups(net, example)
    key = (*map(tuple, example.shapes), repr(net), *_made_of(net))
    if key not in _FOUND:
        _FOUND[key] = channel_groups(net, example)
    return _FOUND[key]


#: Attributes of a module that say nothing of its channels, or that are told otherwise.
_TOLD = {"_parameters", "_buffers", "_modules", "training"}


def _made_of(net: nn.Module) -> Iterator[object]:
    """All that decides what a net's forward does with channels, but values: nets that are equal in it have one answer.

    Tensors and modules that have several names stand under the first of them; attributes are read by a forward, too.
    """
    known: dict[int, int] = {}
    for name, module in net.named_modules(remove_duplicate=False):
        own = {attribute: value for attribute, value in vars(module).items() if attribute not in _TOLD}
        yield name, known.setdefault(id(module), len(known)), type(module), _fixed(own)
        for attribute, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                yield attribute, known.setdefault(id(tensor), len(known)), tuple(tensor.shape), str(tensor.dtype)


def _fixed(value: object) -> object:
    """A value as one that can be looked up: plain values by what they are, all others by which object they are."""
    if isinstance(value, Mapping):
        return "mapping", *((_fixed(key), _fixed(part)) for key, part in value.items())
    if isinstance(value, list | tuple):
        return type(value).__name__, *map(_fixed, value)
    if isinstance(value, set | frozenset):
        return "set", frozenset(map(_fixed, value))
    if isinstance(value, partial):
        return partial, _fixed(value.func), _fixed(value.args), _fixed(value.keywords)
    if isinstance(value, Tensor):
        return "tensor", tuple(value.shape), str(value.dtype), value.detach().cpu().numpy().tobytes()
    if is_dataclass(value) and not isinstance(value, type):
        return type(value), _fixed({part.name: getattr(value, part.name) for part in fields(value)})
    if type(value).__module__.startswith("torchvision.") and hasattr(
        value, "__dict__"
    ):  # of detectors: matchers, coders
        return type(value), _fixed(vars(value))
    plain = value is None or isinstance(value, bool | int | float | complex | str | bytes | Enum | torch.device)
    return (type(value), value) if plain else _Same(value)


class _Same:
    """An object, equal to itself alone; it is held, so that no other one can take its place in memory."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other._value is self._value

    def __hash__(self) -> int:
        return id(self._value)


def restricted(groups: Groups, structure: Structure) -> Groups:
    """The channel groups of a net that was cut, with the units and indices that its tensors have now.

    Args:
        groups: of the dense net.
        structure: what is left of it.
    """
    if not structure:
        return groups
    places = _places(groups, structure)
    shapes = dict(groups.shapes)
    for (tensor, axis), place in places.items():
        sides = list(shapes[tensor])
        sides[axis] = int((place >= 0).sum())
        shapes[tensor] = tuple(sides)
    return Groups(tuple(_restricted(group, structure.alive(group), places) for group in groups), shapes)


def _restricted(group: Group, alive: NDArray[np.bool_], places: Mapping[tuple[str, int], NDArray[np.int64]]) -> Group:
    members = []
    for member in group.members:
        indices, place = member.indices[alive], places.get((member.tensor, member.axis))
        members.append(Member(member.tensor, member.axis, member.role, indices if place is None else place[indices]))
    return Group(group.name, tuple(members), int(alive.sum()), group.reason)


def _places(groups: Groups, structure: Structure) -> dict[tuple[str, int], NDArray[np.int64]]:
    """Per tensor and axis that is cut: where each index is now, -1 where it is gone."""
    there: dict[tuple[str, int], NDArray[np.bool_]] = {}
    for name in structure.kept:
        gone = ~structure.alive(groups[name])
        for member in groups[name].members:
            key = member.tensor, member.axis
            left = there.setdefault(key, np.ones(groups.shapes[member.tensor][member.axis], dtype=bool))
            left[member.indices[gone].ravel()] = False
    return {key: np.where(left, np.cumsum(left) - 1, -1) for key, left in there.items()}


def _rising(units: Any) -> bool:
    whole = isinstance(units, list | tuple) and all(type(unit) is int and unit >= 0 for unit in units)
    return whole and bool(units) and all(a < b for a, b in pairwise(units))
