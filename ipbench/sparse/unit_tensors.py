"""Units of a run's pattern as tensors on the net's device, for what judges or decays all of them at every step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ipbench import keys
from ipbench.errors import BadInput
from ipbench.sparse.patterns import OfCoefficients, selector
from ipbench.sparse.unit_selector import OfUnits
from ipbench.sparse.units import NONE, Block, Side, Units

if TYPE_CHECKING:
    from ipbench.sparse.net import SparseNet


@dataclass(frozen=True)
class Place:
    """Where the slices of one side of a layer lie in the list of all units.

    Attributes:
        layer: its name.
        shape: of the coefficients, with 1 along the axes that a slice has whole.
        rest: these axes.
        units: of shape (slices,): the unit of each; the number of all units in place of none.
        first: the unit of the first slice, where slice k is of unit first + k; -1 elsewhere.
        scored: whether sums over the slices are those of the units.
    """

    layer: str
    shape: tuple[int, ...]
    rest: tuple[int, ...]
    units: Tensor
    first: int
    scored: bool

    def slices(self, tensor: Tensor) -> Tensor:
        """Sums over each slice of a tensor like the coefficients, in double precision."""
        if self.rest:
            return tensor.sum(self.rest, dtype=torch.float64).flatten()
        return tensor.flatten().double()

    def spread(self, values: Tensor) -> Tensor:
        """The value of its unit for each slice, in a shape that is broadcast over the coefficients.

        Args:
            values: of all units, and behind them what slices of no unit have.
        """
        whole = self.first >= 0
        found = values[self.first : self.first + len(self.units)] if whole else values[self.units]
        return found.view(self.shape)


class UnitTensors:
    """The units of a net, in one list: block by block, in the order of the net.

    Attributes:
        blocks: names of the layers or groups of channels.
        sizes: of shape (blocks,), int64: how many units each has.
        starts: likewise: the place of its first unit.
        block: of shape (units,), int64: the place of each unit's block.
        order: of shape (units,), int64: the units in the keyed order in which equal ones are taken.
    """

    def __init__(self, units: Units, device: torch.device, tie_key: int) -> None:
        """Of `units`; `tie_key`: a key that orders equal ones by their place."""
        self.blocks = tuple(block.name for block in units.blocks)
        self.sizes = torch.tensor([block.number for block in units.blocks], dtype=torch.int64, device=device)
        self.block = torch.from_numpy(units.block_of.astype(np.int64)).to(device)
        bits = keys.indexed_bits(tie_key, np.arange(units.number))
        self.order = torch.from_numpy(np.argsort(bits, kind="stable")).to(device)
        self.starts = torch.tensor([block.start for block in units.blocks], dtype=torch.int64, device=device)
        self._shapes = dict(units.shapes)
        self._places = [
            _place(side, units.shapes[name], units.number, device)
            for name, sides in units.sides.items()
            for side in sides
        ]

    @property
    def number(self) -> int:
        """How many units."""
        return len(self.block)

    def sums(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Sums over the coefficients that make each unit, as scores of units are formed.

        Args:
            tensors: by layer, in the shapes of the coefficients.

        Returns:
            Of shape (units,), in double precision.
        """
        total = torch.zeros(self.number + 1, dtype=torch.float64, device=self.block.device)
        for place in self._places:
            if place.scored and place.first >= 0:
                total[place.first : place.first + len(place.units)] += place.slices(tensors[place.layer])
            elif place.scored:
                total.index_add_(0, place.units, place.slices(tensors[place.layer]))
        return total[:-1]

    def counts(self, flags: Tensor) -> Tensor:
        """How many units of each block are flagged, of shape (blocks,), int64; `flags`: boolean, of shape (units,)."""
        total = torch.zeros_like(self.sizes)
        return total.index_add_(0, self.block, flags.long())

    def spread(self, values: Tensor) -> dict[str, Tensor]:
        """By layer, a tensor that is broadcast over its coefficients: the sum of the values of the units they lie in.

        Args:
            values: of shape (units,). What belongs to no unit has 0; layers without units are left out.
        """
        values = torch.cat((values, values.new_zeros(1)))
        found: dict[str, Tensor] = {}
        for place in self._places:
            own = place.spread(values)
            found[place.layer] = found[place.layer] + own if place.layer in found else own
        return found

    def masks(self, kept: Tensor) -> dict[str, Tensor]:
        """Masks of all layers that keep some units, and all that belongs to none.

        Args:
            kept: boolean, of shape (units,).
        """
        kept = torch.cat((kept, kept.new_ones(1)))
        masks = {name: torch.ones(shape, dtype=torch.bool, device=kept.device) for name, shape in self._shapes.items()}
        for place in self._places:
            masks[place.layer] &= place.spread(kept)
        return masks

    def ranks(self, values: Tensor) -> Tensor:
        """The rank of each unit within its block, from 0, the smallest value first; equal ones by `order`.

        Args:
            values: of shape (units,); not nan.

        Returns:
            Of shape (units,), int64.
        """
        order = self.order[torch.argsort(values[self.order], stable=True)]
        order = order[torch.argsort(self.block[order], stable=True)]
        ranks = torch.empty_like(order)
        ranks[order] = torch.arange(self.number, device=order.device) - self.starts[self.block[order]]
        return ranks


def unit_tensors(net: SparseNet) -> UnitTensors:
    """The units of a net under the pattern of its run; of pattern coefficients, every coefficient is one.

    Raises:
        BadInput: the pattern has no units of one layer each (N:M), or channels have been cut from the net.
    """
    if net.structure:
        raise BadInput(f"method {net.run.method}: asks for units of a net whose channels have been cut; ask before")
    selects = selector(net)
    if isinstance(selects, OfCoefficients):
        found = _single({name: tuple(mask.shape) for name, mask in net.masks.items()})
    elif isinstance(selects, OfUnits):
        found = selects.units
    else:
        raise BadInput(f"pattern {net.run.pattern} prunes all layers alike; nothing can be said of single units")
    return UnitTensors(found, next(net.parameters()).device, keys.key(net.run.seed, "ties"))


def _single(shapes: Mapping[str, tuple[int, ...]]) -> Units:
    """Every coefficient as a unit."""
    blocks: list[Block] = []
    sides = {}
    for name, shape in shapes.items():
        start = blocks[-1].start + blocks[-1].number if blocks else 0
        blocks.append(Block(name, start, math.prod(shape)))
        own = start + np.arange(blocks[-1].number)
        sides[name] = (Side(name, tuple(range(len(shape))), own),)
    return Units(tuple(blocks), sides, shapes)


def _place(side: Side, shape: tuple[int, ...], number: int, device: torch.device) -> Place:
    own = np.where(side.units == NONE, number, side.units)
    run = bool(len(own)) and bool((side.units >= 0).all()) and bool((np.diff(own) == 1).all())
    rest = tuple(axis for axis in range(len(shape)) if axis not in side.axes)
    kept = tuple(1 if axis in rest else length for axis, length in enumerate(shape))
    units = torch.from_numpy(own.astype(np.int64)).to(device)
    return Place(side.layer, kept, rest, units, int(own[0]) if run else NONE, side.scored)
