"""Masks of whole filters, columns or channels: the most units that a budget allows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from fractions import Fraction
from math import floor
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ipbench.sparse import selection, spaces, units
from ipbench.sparse.dense_shapes import as_it_is, of_the_dense_net
from ipbench.sparse.selection import Impossible, Rounding
from ipbench.sparse.sliced import Sliced
from ipbench.sparse.units import Flags, Units
from ipbench.spec import UnitScore

if TYPE_CHECKING:
    from ipbench.sparse.channels import Member
    from ipbench.sparse.net import SparseNet


class OfUnits:
    """Filters, columns or channels; the most that the budget allows, which leaves less than one unit of it unused.

    Every layer or group keeps its best unit, whatever the others score.
    """

    def __init__(self, net: SparseNet, unit_score: UnitScore = "sum") -> None:
        self._net, self._unit_score = net, unit_score
        self.counted = {"parameters": "coefficients", "macs": "MACs", "channels": "units"}[net.run.budget]
        self.units = units_of(net)
        self._makers = makers_of(net, self.units)
        run = net.run
        counted: dict[str, tuple[Callable[[], int], Callable[[], int], Callable[[Flags], int]]] = {
            "parameters": (
                lambda: net.prunable - net.basis_entries, lambda: net.budget, self.units.coefficients,
            ),
            "macs": (lambda: net.counted.macs, lambda: floor(run.density * net.counted.macs), self._macs),
            "channels": (
                lambda: self.units.number, lambda: floor(run.density * self.units.number),
                lambda kept: int(kept.sum()),
            ),
        }  # fmt: skip
        self._start, self._target, self._count = counted[run.budget]

    @property
    def start(self) -> int:
        """Of the whole net, less what the filter bases take of a budget of parameters."""
        return self._start()

    @property
    def target(self) -> int:
        """What may stay, rounded down.

        Raises:
            Impossible: nothing, or the filter bases alone use it up, or the net has no units.
        """
        self._require()
        return self._target()

    @property
    def blocks(self) -> dict[str, int]:
        """Units by layer, or by group of channels."""
        return {block.name: block.number for block in self.units.blocks}

    @property
    def inner(self) -> frozenset[str]:
        """Layers, or groups, none of whose channels is made by two layers."""
        if self._net.run.pattern == "columns":
            return frozenset(self.blocks)
        shared = set[str]()
        for group in self._net.groups:
            makers = {member.layer for member in group.members if member.role == "out"}
            if len(makers) > 1:
                shared |= {group.name} if self._net.run.pattern == "channels" else makers
        return frozenset(self.blocks) - shared

    def kept(self, masks: Mapping[str, Tensor]) -> int:
        """Coefficients, MACs of the net after slicing, or units."""
        return self._count(self.units.alive(of_the_dense_net(self._net, masks)))

    def cost(self, kept: Flags) -> int:
        """What these units keep, in the budget's unit; a flag per unit."""
        return self._count(kept)

    def select(
        self,
        scores: Mapping[str, Tensor],
        keep: int,
        *,
        tie_key: int,
        among: Mapping[str, Tensor],
        blocks: Collection[str] | None = None,
    ) -> dict[str, Tensor]:
        """The best units that cost at most `keep`; with one more they would cost more."""
        self._require()
        ranked = self.units.scores(of_the_dense_net(self._net, scores), self._unit_score)
        return self._best(ranked, keep, tie_key, among, blocks)

    def select_units(
        self,
        scores: Mapping[str, Tensor],
        *,
        keep: int = 0,
        share: Fraction | float | None = None,
        tie_key: int,
        among: Mapping[str, Tensor],
        blocks: Collection[str] | None = None,
    ) -> dict[str, Tensor]:
        """As `select`, by scores of units.

        Args:
            scores: a number per unit of the dense net, by block; larger = keep.
            keep: in the budget's unit.
            share: in its place: of all filters that stand, int(share * number) of them go; a channel is as many as make
                it.
            tie_key: orders equal scores by their place.
            among: masks; what they leave out stays out.
            blocks: names of those that may lose units; all if left out.

        Raises:
            NotFinite: a score is not finite.
            Impossible: so little cannot be kept.
        """
        self._require()
        selection.require_finite_scores(scores)
        ranked = np.concatenate([scores[name].double().cpu().numpy() for name in self.blocks])
        if share is None:
            return self._best(ranked, keep, tie_key, among, blocks)
        filters = self._filters_of_units()
        number = int(filters[self.units.alive(of_the_dense_net(self._net, among))].sum())
        left = number - int(share * number)
        return self._best(ranked, left, tie_key, among, blocks, (lambda kept: int(filters[kept].sum()), "filters"))

    def _best(
        self,
        ranked: NDArray[np.float64],
        keep: int,
        tie_key: int,
        among: Mapping[str, Tensor],
        blocks: Collection[str] | None,
        counted: tuple[Callable[[Flags], int], str] | None = None,
    ) -> dict[str, Tensor]:
        """The best units that cost at most `keep`, in the budget's unit or in another one."""
        net, (count, what) = self._net, counted or (self._count, self.counted)
        alive = self.units.alive(of_the_dense_net(net, among))
        whole = alive & self._others(blocks)
        order, least = self.units.order(ranked, alive & ~whole, tie_key, net.run.allocation)

        def cost(number: int) -> int:
            return count(whole | _flags(order[:number], self.units.number))

        if (lowest := cost(least)) > keep:
            raise Impossible(
                f"a budget of {keep:,} {what} cannot be met: with one of the"
                f" {net.run.pattern} of each of {least} layers or groups, {lowest:,} are left"
            )
        low, high = least, len(order) + 1  # the cost of `low` fits, that of `high` does not
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if cost(middle) <= keep else (low, middle)
        return self._masks(whole | _flags(order[:low], self.units.number), among)

    def unit_scores(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The scores of units, by block, of scores of coefficients; a unit that does not stand any more has some, too.

        Raises:
            NotFinite: a score is not finite.
        """
        return self._by_block(self.units.scores(of_the_dense_net(self._net, scores), self._unit_score))

    def standing(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Which units of the dense net masks leave standing, by block."""
        return self._by_block(self.units.alive(of_the_dense_net(self._net, masks)))

    def _by_block(self, values: NDArray[Any]) -> dict[str, Tensor]:
        return {b.name: torch.from_numpy(values[b.start : b.start + b.number].copy()) for b in self.units.blocks}

    def _filters_of_units(self) -> NDArray[np.int64]:
        """How many filters make each unit: one, or as many as make a channel."""
        numbers = np.ones(self.units.number, dtype=np.int64)
        if self._net.run.pattern == "channels":
            made = {group.name: sum(m.indices.shape[1] for m in group.producers) for group in self._net.groups}
            for block in self.units.blocks:
                numbers[block.start : block.start + block.number] = made[block.name]
        return numbers

    def without_weakest(
        self,
        scores: Mapping[str, Tensor],
        rates: Mapping[str, Fraction | float | str],
        rounding: Rounding,
        *,
        tie_key: int,
        among: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """See `Units.without_weakest`."""
        self._require()
        ranked = self.units.scores(of_the_dense_net(self._net, scores), self._unit_score)
        alive = self.units.alive(of_the_dense_net(self._net, among))
        return self._masks(self.units.without_weakest(ranked, alive, rates, rounding, tie_key), among)

    def _others(self, blocks: Collection[str] | None) -> Flags:
        """The units of all blocks but these."""
        names = [block.name for block in self.units.blocks]
        left_out = np.array([blocks is not None and name not in blocks for name in names], dtype=bool)
        return left_out[self.units.block_of]

    def _masks(self, kept: Flags, among: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The masks that keep these units of what stands."""
        masks = as_it_is(self._net, self.units.masks(kept))
        return {name: mask.to(among[name].device) & among[name] for name, mask in masks.items()}

    def facts(self, masks: Mapping[str, Tensor]) -> dict[str, Any]:
        """Units of every layer or group, asked and reached share, and the counts of the net after slicing."""
        net, alive = self._net, self.units.alive(of_the_dense_net(self._net, masks))
        facts: dict[str, Any] = {
            "units": [
                {
                    "name": block.name,
                    "units": block.number,
                    "kept": int(alive[block.start : block.start + block.number].sum()),
                }
                for block in self.units.blocks
            ],
            "asked": float(Fraction(net.run.sparsity)),
            "reached": self.reached(masks),
        }
        if net.run.pattern != "columns" and net.run.off == "zero":
            facts |= self._after_slicing(alive)
        return facts

    def reached(self, masks: Mapping[str, Tensor]) -> float:
        """The share that masks remove, in the unit of the budget."""
        net, kept = self._net, self.kept(masks)
        if net.run.budget == "parameters":
            return 1 - (kept + net.basis_entries) / net.prunable
        return 1 - kept / (net.counted.macs if net.run.budget == "macs" else self.units.number)

    def _require(self) -> None:
        if not self.units.number:
            why = next((f": {group.reason}" for group in self._net.groups if group.reason), "")
            raise Impossible(f"the net has no {self._net.run.pattern} that can be removed{why}")

    def _after_slicing(self, alive: Flags) -> dict[str, int]:
        net, sliced = self._net, self._sliced(alive)
        with_basis = [name for name, layer in net.layers.items() if spaces.filter_basis(layer) is not None]
        buffers = {name for name, _ in net.net.named_buffers()}
        return {
            "macs_sliced": sliced.macs(),
            "macs_sliced_two_stage": sliced.two_stage_macs(with_basis),
            "parameters_sliced": sliced.parameters(buffers) + net.basis_entries,
        }

    def _macs(self, kept: Flags) -> int:
        return self._sliced(kept).macs()

    def _sliced(self, kept: Flags) -> Sliced:
        """The net after slicing: a channel goes where all filters that make it are gone; one of every group stays."""
        with_none = np.append(kept, True)
        numbers = {name: max(1, int(with_none[filters].any(axis=1).sum())) for name, filters in self._makers.items()}
        return Sliced(self._net.counted, self._net.groups, numbers)


def _flags(chosen: NDArray[np.int64], number: int) -> Flags:
    flags = np.zeros(number, dtype=bool)
    flags[chosen] = True
    return flags


def units_of(net: SparseNet) -> Units:
    """The units of a net under the pattern of its run."""
    shapes = {name: tuple(shape) for name, shape in net.dense_shapes.items()}
    if net.run.pattern == "columns":
        return units.columns(net.layers, shapes)
    if net.run.pattern == "channels":
        return units.channels(shapes, net.groups)
    return units.filters(net.layers, shapes, net.groups)


def makers_of(net: SparseNet, found: Units) -> dict[str, NDArray[np.int64]]:
    """By channel group, of shape (channels, filters of each): the units without which a channel can be sliced off.

    -1 is in place of what is never removed.
    """
    if net.run.pattern == "columns":
        return {}
    if net.run.pattern == "channels":
        return {block.name: (block.start + np.arange(block.number))[:, None] for block in found.blocks}
    return {
        group.name: np.concatenate([_filters(member, found) for member in group.producers], axis=1)
        for group in net.groups.free
    }


def _filters(member: Member, found: Units) -> NDArray[np.int64]:
    """The units of a producer's filters, of shape (channels, filters of each)."""
    for side in found.sides.get(member.layer, ()):
        if side.axes == (member.axis,):
            return side.units[member.indices]
    return np.full(member.indices.shape, units.NONE)
