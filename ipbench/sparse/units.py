"""Units: coefficients that are kept or removed as one, of layers or of groups of coupled channels.

A unit is told by slices of layers. What removes a unit sets all of its slices to their off-value; a coefficient stays
if every slice that it lies in belongs to a unit that stays, or to none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ipbench import keys
from ipbench.sparse.layers import CONVOLUTIONS, TRANSPOSED, Weight
from ipbench.sparse.selection import Rounding, count_of, require_finite_scores
from ipbench.spec import UnitScore

if TYPE_CHECKING:
    from ipbench.sparse.channels import Groups

Flags = NDArray[np.bool_]
Numbers = NDArray[np.float64]

#: In place of a unit: of slices that belong to none.
NONE = -1


@dataclass(frozen=True)
class Block:
    """Units that are told from each other by an index alone: those of a layer, or of a group of channels.

    Attributes:
        name: of the layer or group.
        start: place of its first unit in the list of all units.
        number: how many units.
    """

    name: str
    start: int
    number: int


@dataclass(frozen=True)
class Side:
    """What units are made of in a layer, along some axes of its coefficients.

    Attributes:
        layer: its name.
        axes: growing; a slice is what has the same indices along them, and slices are counted in row-major order.
        units: of shape (slices,): the unit of every slice, or `NONE`.
        scored: whether the scores of its coefficients are those of the units.
    """

    layer: str
    axes: tuple[int, ...]
    units: NDArray[np.int64] = field(compare=False)
    scored: bool = True

    def slices(self, tensor: Tensor) -> Tensor:
        """A tensor like the layer's coefficients, of shape (slices, coefficients of each)."""
        rest = [axis for axis in range(tensor.dim()) if axis not in self.axes]
        return tensor.permute(*self.axes, *rest).reshape(len(self.units), -1)

    def spread(self, flags: Flags, shape: tuple[int, ...]) -> Tensor:
        """A flag per slice, of a shape that is broadcast over the layer's coefficients, which are of `shape`."""
        return torch.from_numpy(flags).view([side if axis in self.axes else 1 for axis, side in enumerate(shape)])


@dataclass(frozen=True)
class Units:
    """All units of a net under a pattern, in one list.

    Attributes:
        blocks: in the order of the net.
        sides: by layer; at most one for the same axes.
        shapes: of the coefficients of all layers, in the order of the net.
    """

    blocks: tuple[Block, ...]
    sides: Mapping[str, tuple[Side, ...]]
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def number(self) -> int:
        """How many units."""
        return sum(block.number for block in self.blocks)

    @property
    def block_of(self) -> NDArray[np.int64]:
        """The place of its block, for every unit."""
        return np.repeat(np.arange(len(self.blocks)), [block.number for block in self.blocks])

    def scores(self, scores: Mapping[str, Tensor], rule: UnitScore = "sum") -> Numbers:
        """The score of every unit: the sum over the coefficients that make it, or that of the first of them.

        Of a channel that several layers share these are the filters that produce it, and not what reads it: a filter
        and the part of the next layer that reads its channel carry the same flow (for SNIP and SynFlow the two sums
        are equal where nothing but a positively homogeneous activation lies between them), and would count twice. The
        scores are summed as they are. Sums are formed in double precision; where they overflow, all scores are
        divided by the largest, which changes no order.

        Args:
            scores: a number per coefficient by layer; larger = keep.
            rule: "sum", or "first" for scores that are draws.

        Raises:
            NotFinite: a score is not finite.
        """
        require_finite_scores(scores)
        if rule == "first":
            return self._first(scores)
        total = self._sums(scores, 1.0)
        if not np.isfinite(total).all():
            total = self._sums(scores, max(float(score.abs().max()) for score in scores.values() if score.numel()))
        return total

    def _sums(self, scores: Mapping[str, Tensor], divisor: float) -> Numbers:
        total = np.zeros(self.number)
        for side in self._scored:
            sums = (side.slices(scores[side.layer].detach()).double() / divisor).sum(dim=1).cpu().numpy()
            here = side.units != NONE
            np.add.at(total, side.units[here], sums[here])
        return total

    def _first(self, scores: Mapping[str, Tensor]) -> Numbers:
        found = np.full(self.number, np.nan)
        for side in self._scored:
            values = side.slices(scores[side.layer].detach())[:, 0].double().cpu().numpy()
            own, places = np.unique(side.units, return_index=True)
            new = (own != NONE) & np.isnan(found[own])
            found[own[new]] = values[places[new]]
        return found

    def alive(self, masks: Mapping[str, Tensor]) -> Flags:
        """Which units stand: those of whose scored coefficients anything is kept."""
        found = np.zeros(self.number, dtype=bool)
        for side in self._scored:
            any_kept = side.slices(masks[side.layer]).any(dim=1).cpu().numpy()
            here = side.units != NONE
            np.logical_or.at(found, side.units[here], any_kept[here])
        return found

    def masks(self, kept: Flags) -> dict[str, Tensor]:
        """The masks of all layers that keep some units, and all that belongs to none; on the CPU.

        Args:
            kept: a flag per unit.
        """
        masks = {name: torch.ones(shape, dtype=torch.bool) for name, shape in self.shapes.items()}
        for name, sides in self.sides.items():
            for side in sides:
                masks[name] &= side.spread(_flags(side, kept), self.shapes[name])
        return masks

    def coefficients(self, kept: Flags) -> int:
        """How many coefficients are kept with these units; the sum over `masks(kept)`.

        Args:
            kept: a flag per unit.
        """
        total = 0
        for name, shape in self.shapes.items():
            number = math.prod(shape)
            for side in self.sides.get(name, ()):
                number = number // len(side.units) * int(_flags(side, kept).sum())
            total += number
        return total

    def order(self, scores: Numbers, alive: Flags, tie_key: int, allocation: str) -> tuple[NDArray[np.int64], int]:
        """The units that stand in the order in which they are kept: the best of every block, then all others.

        Args:
            scores: of all units.
            alive: which units can be kept.
            tie_key: a key that orders equal scores by their place.
            allocation: "global" (one ranking), or "uniform" (ranked by the share of a block that is not behind a unit).

        Returns:
            Units, and how many of them are first in their block.
        """
        bits = keys.indexed_bits(tie_key, np.arange(self.number))
        order = np.lexsort((bits, -scores))
        order = order[alive[order]]
        blocks = self.block_of
        if allocation == "uniform":
            place = np.zeros(self.number)
            for number, block in enumerate(self.blocks):
                own = order[blocks[order] == number]
                place[own] = np.arange(1, len(own) + 1) / block.number
            order = order[np.lexsort((blocks[order], place[order]))]
        first = np.sort(np.unique(blocks[order], return_index=True)[1])
        return np.concatenate((order[first], np.delete(order, first))), len(first)

    def without_weakest(
        self,
        scores: Numbers,
        alive: Flags,
        rates: Mapping[str, Fraction | float | str],
        rounding: Rounding,
        tie_key: int,
    ) -> Flags:
        """Which units stay when a share of those of each block goes, the ones with the smallest scores.

        Args:
            scores: of all units.
            alive: which units stand; those that do not are among what goes.
            rates: the share of a block's units that goes; blocks that are left out keep theirs. One stays.
            rounding: of what is no whole number of units.
            tie_key: orders equal scores by their place.
        """
        bits = keys.indexed_bits(tie_key, np.arange(self.number))
        kept = alive.copy()
        for block in self.blocks:
            own = np.arange(block.start, block.start + block.number)
            weakest = own[np.lexsort((bits[own], -scores[own], ~alive[own]))[::-1]]
            kept[weakest[: min(count_of(rates.get(block.name, 0.0), block.number, rounding), block.number - 1)]] = False
        return kept

    @property
    def _scored(self) -> Iterable[Side]:
        return (side for sides in self.sides.values() for side in sides if side.scored)


def _flags(side: Side, kept: Flags) -> Flags:
    """Whether each slice stays."""
    flags: Flags = np.append(kept, True)[side.units]  # behind the last unit, where `NONE` points
    return flags


def filters(layers: Mapping[str, Weight], shapes: Mapping[str, tuple[int, ...]], groups: Groups) -> Units:
    """Units of the pattern `filters`: one output channel of one layer, a row of a linear one.

    Filters whose channels cannot be removed from the net are left whole: those that make its outputs, and what is read
    by operators that are not known to keep channels apart.

    Args:
        layers: the prunable weights by the name of their layer.
        shapes: of their coefficients.
        groups: the channel groups of the net.
    """
    free: dict[tuple[str, int], Flags] = {}
    for member in (member for group in groups.free for member in group.producers):
        # A filter of a transposed convolution with groups is no slice of its weight.
        if member.layer in shapes and not _several_groups(layers[member.layer]):
            empty = np.zeros(shapes[member.layer][member.axis], dtype=bool)
            free.setdefault((member.layer, member.axis), empty)[member.indices] = True
    blocks: list[Block] = []
    sides: dict[str, tuple[Side, ...]] = {}
    for (name, axis), flags in sorted(free.items(), key=lambda item: list(shapes).index(item[0][0])):
        own = np.full(len(flags), NONE)
        own[flags] = _next(blocks) + np.arange(flags.sum())
        blocks.append(Block(name, _next(blocks), int(flags.sum())))
        sides[name] = (Side(name, (axis,), own),)
    return Units(tuple(blocks), sides, dict(shapes))


def columns(layers: Mapping[str, Weight], shapes: Mapping[str, tuple[int, ...]]) -> Units:
    """Units of the pattern `columns`: one kernel position of one input channel of one layer, over its readers' filters.

    In `ip` the positions are those of coefficients: one basis filter of one input channel, over all filters.

    Args:
        layers: the prunable weights by the name of their layer.
        shapes: of their coefficients.
    """
    blocks: list[Block] = []
    sides: dict[str, tuple[Side, ...]] = {}
    for name, shape in shapes.items():
        module = layers[name].module
        inputs = 0 if isinstance(module, TRANSPOSED) else 1
        along = (inputs, *range(2, len(shape)))
        number = math.prod(shape[axis] for axis in along)
        own = np.arange(number)
        if inputs and isinstance(module, CONVOLUTIONS) and (several := int(module.groups)) > 1:
            # The same index is another input channel in each group: a column has the filters of one group.
            first = number * (np.arange(shape[0]) // (shape[0] // several))
            along, own, number = tuple(range(len(shape))), (first[:, None] + own).ravel(), number * several
        blocks.append(Block(name, _next(blocks), number))
        sides[name] = (Side(name, along, blocks[-1].start + own),)
    return Units(tuple(blocks), sides, dict(shapes))


def channels(shapes: Mapping[str, tuple[int, ...]], groups: Groups) -> Units:
    """Units of the pattern `channels`: one channel with all that is coupled to it, over layers.

    Args:
        shapes: of the coefficients by layer.
        groups: of the net; those that cannot be cut are left whole.
    """
    blocks: list[Block] = []
    found: dict[tuple[str, int], Side] = {}
    for group in groups.free:
        start = _next(blocks)
        blocks.append(Block(group.name, start, group.units))
        for member in group.members:
            if member.role not in ("out", "in", "both") or member.layer not in shapes:
                continue
            place = member.layer, member.axis
            empty = np.full(shapes[member.layer][member.axis], NONE)
            side = found.setdefault(place, Side(member.layer, (member.axis,), empty, member.role != "in"))
            side.units[member.indices] = start + np.arange(group.units)[:, None]
    sides: dict[str, tuple[Side, ...]] = {}
    for (layer, _), side in found.items():
        sides[layer] = (*sides.get(layer, ()), side)
    return Units(tuple(blocks), sides, dict(shapes))


def _next(blocks: list[Block]) -> int:
    """The place of the first unit behind these blocks."""
    return blocks[-1].start + blocks[-1].number if blocks else 0


def _several_groups(weight: Weight) -> bool:
    return isinstance(weight.module, TRANSPOSED) and weight.module.groups > 1
