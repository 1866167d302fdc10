"""From the nodes of a trace to groups: components, what freezes them, and units of equal members."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ipbench.sparse.channels import Group, Groups, Member, Role, layer_of
from ipbench.sparse.trace import Held, Labels, Trace


@dataclass(frozen=True)
class _Axis:
    """An axis of a tensor, and a node per index (several, if entries are followed singly)."""

    tensor: str
    axis: int
    role: Role
    nodes: Labels


#: Stands for entries that belong to no channel.
_CONSTANT = -2


def coupled(trace: Trace) -> Groups:
    """The groups of a traced net.

    Args:
        trace: after all passes.
    """
    parts = _Components(trace)
    while _tell_entries(trace, parts) or _tell_splits(trace, parts):
        pass
    axes = list(_axes(trace, parts))
    groups = _named(_grouped(axes, parts))
    shapes = {held.name: held.shape for held in trace.held}
    shapes.update({name: (len(nodes),) for name, nodes in trace.padding.items()})
    named = dict.fromkeys(member.tensor for group in groups for member in group.members)
    return Groups(tuple(groups), {name: shapes[name] for name in named})


class _Components:
    """Which nodes are one, and why some cannot be removed."""

    def __init__(self, trace: Trace) -> None:
        self._nodes = trace.nodes
        for held in trace.held:
            if not held.used:
                for nodes in held.axes or ([held.elements] if held.elements is not None else []):
                    trace.freeze(nodes, "it is never run")
        self.update()

    def update(self) -> None:
        """Take in all joins so far."""
        edges, count = self._nodes.edges, self._nodes.count
        reason = np.zeros(count, np.int64)  # of a node, the reason that it is joined to; 0: none
        reason[list(self._nodes.reasons)] = list(self._nodes.reasons)
        frozen = reason[edges] > 0
        plain = edges[:, ~frozen.any(0)]
        self.number, part = connected_components(
            coo_array((np.ones(plain.shape[1], np.int8), (plain[0], plain[1])), shape=(count, count)), directed=False
        )
        # The earliest reason counts, and the outputs' is given last: what is known better goes before.
        self.part: NDArray[np.int64] = part.astype(np.int64)
        self._reason = np.full(self.number, count, np.int64)
        for one, two in ((0, 1), (1, 0)):
            np.minimum.at(self._reason, self.part[edges[one, frozen[two]]], edges[two, frozen[two]])
        nodes = np.array(list(self._nodes.reasons), np.int64)
        np.minimum.at(self._reason, self.part[nodes], nodes)
        self._reason[self._reason == count] = 0

    def tokens(self, labels: Labels) -> Labels:
        """Labels by component; -1 where nothing can be removed, `_CONSTANT` where nothing was written."""
        part = self.part[labels]
        return np.where(labels == 0, _CONSTANT, np.where(self._reason[part] > 0, -1, part))

    def reason(self, part: int) -> str:
        """Why a component cannot be removed; empty if it can."""
        return self._nodes.reasons.get(int(self._reason[part]), "")


def _varying(tokens: Labels) -> list[int]:
    """The axes along which tokens vary; constants go with whatever is beside them, as a trial will show."""
    varying = []
    for axis in range(tokens.ndim):
        largest = tokens.max(axis)
        smallest = np.where(tokens == _CONSTANT, np.iinfo(np.int64).max, tokens).min(axis)
        if ((largest != smallest) & (largest != _CONSTANT)).any():
            varying.append(axis)
    return varying


def _tell_entries(trace: Trace, parts: _Components) -> bool:
    """Freeze tensors, followed entry by entry, whose channels lie along no one axis; returns whether any was."""
    changed = False
    for held in trace.held:
        if held.elements is None or len(held.shape) < 2:
            continue
        tokens = parts.tokens(held.elements)
        if (tokens < 0).all():
            continue
        if held.roles or len(_varying(tokens)) != 1:
            reason = "a tensor is used entry by entry in more ways than along one axis"
            for nodes in (held.elements, *(held.axes if held.roles else ())):
                trace.freeze(nodes, reason)
            changed = True
    if changed:
        parts.update()
    return changed


def _tell_splits(trace: Trace, parts: _Components) -> bool:
    """Tensors whose channels lie along several axes; returns whether one was found.

    What stays of a tensor must be a tensor. Where a view made two axes of one (a channel shuffle), every part loses the
    same: whether the net really reads the size of the parts from the tensor, a trial tells. All others are frozen.
    """
    for split in trace.splits:
        tokens = parts.tokens(split.labels)
        varying = _varying(tokens)
        if len(varying) < 2:
            continue
        if split.view and len(varying) == 2:
            trace.nodes.join(split.labels, np.take(split.labels, [0], varying[0]))
        else:
            trace.freeze(split.labels, f"in {split.where} its channels lie along several axes of one tensor")
        parts.update()
        if len(_varying(parts.tokens(split.labels))) > 1:
            trace.freeze(split.labels, f"in {split.where} its channels lie along several axes of one tensor")
            parts.update()
        return True
    return False


def _axes(trace: Trace, parts: _Components) -> Iterator[_Axis]:
    """All axes that units have indices of, in the order of the net."""
    for held in trace.held:
        for axis, role in sorted(held.roles.items()):
            yield _Axis(held.name, axis, cast(Role, role), held.axes[axis])
        if held.axes and not held.used:
            yield _Axis(held.name, 0, "out", held.axes[0])
        if held.elements is not None and not held.roles and (held.used or len(held.shape) == 1):
            tokens = parts.tokens(held.elements)
            if len(held.shape) == 1:
                yield _Axis(held.name, 0, "vector", held.elements)
            elif varying := _varying(tokens):
                yield _Axis(held.name, varying[0], "vector", _along(held, varying[0]))
            else:  # a weight that the net computes something of
                yield _Axis(held.name, 0, "out", _along(held, 0))
    for name, nodes in trace.padding.items():
        yield _Axis(name, 0, "padding", nodes)


def _along(held: Held, axis: int) -> Labels:
    assert held.elements is not None
    return np.moveaxis(held.elements, axis, 0).reshape(held.shape[axis], -1)[:, 0]


def _grouped(axes: list[_Axis], parts: _Components) -> list[Group]:
    """Units with members in the same axes, as many in each, and frozen for the same reason."""
    part = np.concatenate([parts.part[axis.nodes] for axis in axes] or [np.zeros(0, np.int64)])
    number = np.concatenate([np.full(len(axis.nodes), n) for n, axis in enumerate(axes)] or [part])
    index = np.concatenate([np.arange(len(axis.nodes)) for axis in axes] or [part])
    order = np.lexsort((index, number, part))
    part, number, index = part[order], number[order], index[order]
    bounds = np.flatnonzero(np.diff(part, prepend=-1, append=-1)).tolist()
    units: dict[tuple[tuple[tuple[int, int], ...], str], list[NDArray[np.int64]]] = {}
    for start, stop in pairwise(bounds):
        present, counts = np.unique(number[start:stop], return_counts=True)
        signature = tuple(zip(present.tolist(), counts.tolist(), strict=True))
        if any(axes[n].role in ("out", "both") for n, _ in signature):
            reason = parts.reason(int(part[start]))
            units.setdefault((signature, reason), []).append(index[start:stop])
    found = []
    for (signature, reason), rows in units.items():
        ends = np.cumsum([0, *(count for _, count in signature)])
        table = np.stack(rows)
        first = next(place for place, (n, _) in enumerate(signature) if axes[n].role in ("out", "both"))
        table = table[np.argsort(table[:, ends[first]], kind="stable")]
        members = tuple(
            Member(axes[n].tensor, axes[n].axis, axes[n].role, table[:, ends[place] : ends[place + 1]])
            for place, (n, _) in enumerate(signature)
        )
        found.append(((signature[first][0], int(table[0, ends[first]])), Group("", members, len(table), reason)))
    return [group for _, group in sorted(found, key=lambda pair: pair[0])]


def _named(groups: list[Group]) -> list[Group]:
    """Give names, and reasons that begin with them."""
    taken: dict[str, int] = {}
    named = []
    for group in groups:
        layer = layer_of(group.producers[0].tensor)
        taken[layer] = taken.get(layer, 0) + 1
        reason = group.reason
        if not reason and group.units == 1:
            reason = "it is one unit: its channels can go only all together"
        name = layer if taken[layer] == 1 else f"{layer}#{taken[layer]}"
        named.append(Group(name, group.members, group.units, f"layer {layer}: {reason}" if reason else ""))
    return named
