"""The units of channel groups as they are removed one after the other: which stand, what each costs, which go next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ipbench import keys
from ipbench.errors import BadInput, valid_choice
from ipbench.sparse import units
from ipbench.sparse.layers import TRANSPOSED
from ipbench.sparse.patterns import selector
from ipbench.sparse.sliced import Sliced
from ipbench.sparse.structure import restricted
from ipbench.sparse.unit_selector import OfUnits
from ipbench.sparse.units import Flags, Numbers

if TYPE_CHECKING:
    from ipbench.sparse.net import SparseNet

#: What a unit costs: numbers that the layers make for one image, or multiply-accumulates.
Cost = Literal["memory", "macs"]


class ChannelUnits:
    """The units of pattern `channels`, in one list: those of all groups that can be cut, numbered as in the dense net.

    Cheap where it is asked for after every removal: what stands is told once for the same masks.
    """

    def __init__(self, net: SparseNet) -> None:
        """Those of `net`, whose channels have not to be cut while they are used."""
        self._net = net
        self._groups = net.groups.free
        shapes = {name: tuple(shape) for name, shape in net.dense_shapes.items()}
        self._whole = units.channels(shapes, net.groups)
        now = {name: tuple(mask.shape) for name, mask in net.masks.items()}
        self._now = units.channels(now, restricted(net.groups, net.structure)) if net.structure else self._whole
        there = [net.structure.alive(group) for group in self._groups]
        self._places = np.flatnonzero(np.concatenate(there or [np.zeros(0, bool)]))
        self._selects = selector(net)
        self._known: tuple[tuple[Tensor, ...], Flags] | None = None

    @property
    def number(self) -> int:
        """How many units the dense net has."""
        return self._whole.number

    @property
    def standing(self) -> Tensor:
        """Whether each unit is there, of shape (units,); on the CPU."""
        return torch.from_numpy(self._standing().copy())

    @property
    def inner(self) -> Tensor:
        """Whether the channel of each unit is made by one layer alone, of shape (units,): no skip connection adds."""
        makers = [len({member.layer for member in group.producers}) for group in self._groups]
        return torch.from_numpy(np.repeat(np.array(makers, np.int64) == 1, [group.units for group in self._groups]))

    def costs(self, of: Cost) -> Tensor:
        """What the net saves without each unit, of shape (units,), float64; of one image.

        Args:
            of: "memory": the numbers that the layers make which make the unit's channels. "macs": the
                multiply-accumulates of the filters that make its channels and of the parts of filters that read them,
                with the widths that are left; a layer that does both counts twice, a convolution with groups once.
        """
        valid_choice(of, get_args(Cost), "cost of a unit")
        standing = self._standing()
        blocks = [standing[block.start : block.start + block.number] for block in self._whole.blocks]
        left = {group.name: max(1, int(own.sum())) for group, own in zip(self._groups, blocks, strict=True)}
        layers = {layer.name: layer for layer in Sliced(self._net.counted, self._net.groups, left).layers()}
        cost = []
        for group in self._groups:
            total = 0.0
            for member in group.members:
                layer = layers.get(member.layer)
                if layer is None or member.role not in ("out", "in", "both"):
                    continue
                slices = member.indices.shape[1]
                if of == "macs":
                    total += float(slices * (layer.size // layer.shape[member.axis]) * layer.positions)
                elif member.role != "in":
                    total += float(slices * layer.positions * self._spread(layer.name))
            cost.append(total)
        return torch.from_numpy(np.repeat(cost, [group.units for group in self._groups]).astype(np.float64))

    def kept_without(self, gone: Tensor | None = None) -> int:
        """What stays without some more units, in the unit of the run's budget.

        Args:
            gone: their numbers; none if left out.

        Raises:
            BadInput: the run's pattern is another one, or a unit is not there.
        """
        standing = self._standing()
        return self._selecting().cost(standing if gone is None else standing & ~self._flags(gone))

    def least(self, among: Tensor | None = None) -> int:
        """What stays if of every group one unit is left, in the unit of the run's budget.

        Args:
            among: whether each unit may go; all if left out.

        Raises:
            BadInput: the run's pattern is another one.
        """
        standing = self._standing()
        flags = np.zeros_like(standing) if among is None else standing & ~among.cpu().numpy()
        for block in self._whole.blocks:
            own = slice(block.start, block.start + block.number)
            if not flags[own].any():
                flags[block.start + int(standing[own].argmax())] = True
        return self._selecting().cost(flags)

    def weakest(self, scores: Tensor, number: int, *parts: int, among: Tensor | None = None) -> Tensor:
        """The units that stand with the smallest scores, the weakest first; the best of every group is none of them.

        By the run's allocation: of one ranking, or of those within groups.

        Args:
            scores: of shape (units,).
            number: how many, or all that there are if these are fewer.
            parts: which of several choices this is, e.g. the step: equal scores are decided by key.
            among: whether each unit may be chosen, of shape (units,); all if left out.

        Returns:
            Their numbers.
        """
        values: Numbers = scores.detach().double().cpu().numpy()
        tie_key = keys.key(self._net.run.seed, "ties", *parts)
        order, first = self._whole.order(values, self._standing(), tie_key, self._net.run.allocation)
        rest = order[first:][::-1]
        if among is not None:
            rest = rest[among.cpu().numpy()[rest]]
        return torch.from_numpy(rest[:number].copy())

    def masks_without(self, gone: Tensor) -> dict[str, Tensor]:
        """The masks of the layers that lose something without some units.

        Raises:
            BadInput: a unit is not there, or a group would have none.
        """
        lost = self._flags(gone)
        flags = self._standing() & ~lost
        for block, group in zip(self._whole.blocks, self._groups, strict=True):
            if not flags[block.start : block.start + block.number].any():
                raise BadInput(f"layer {group.name}: at least one of its {block.number} units stays")
        lost = np.append(lost[self._places], False)  # behind the last unit, where NONE points
        masks: dict[str, Tensor] = {}
        for name, sides in self._now.sides.items():
            for side in sides:
                if (slices := np.flatnonzero(lost[side.units])).size:
                    mask = masks.get(name, self._net.masks[name])
                    masks[name] = mask.index_fill(side.axes[0], torch.from_numpy(slices).to(mask.device), False)
        return masks

    def note_removed(self, gone: Tensor) -> None:
        """Know what stands after these units, of which `gone` has flags, were masked, without a look at all masks."""
        if self._known is not None:
            self._known = tuple(self._net.masks.values()), self._known[1] & ~gone.cpu().numpy()

    def flags(self, numbers: Tensor) -> Tensor:
        """A flag per unit, of shape (units,) and on the CPU, set for these.

        Raises:
            BadInput: one is not there.
        """
        return torch.from_numpy(self._flags(numbers))

    def _flags(self, numbers: Tensor) -> Flags:
        found, standing = numbers.cpu().numpy(), self._standing()
        if found.size and (found.min() < 0 or found.max() >= len(standing) or not standing[found].all()):
            raise BadInput(
                f"a unit that is to be removed is not there (units are numbered from 0 to {len(standing) - 1})"
            )
        flags = np.zeros_like(standing)
        flags[found] = True
        return flags

    def _standing(self) -> Flags:
        masks = tuple(self._net.masks.values())
        if self._known is None or not all(one is two for one, two in zip(self._known[0], masks, strict=True)):
            flags = np.zeros(self._whole.number, dtype=bool)
            flags[self._places] = self._now.alive(self._net.masks)
            self._known = masks, flags
        return self._known[1]

    def _selecting(self) -> OfUnits:
        if not isinstance(self._selects, OfUnits) or self._net.run.pattern != "channels":
            raise BadInput(f"pattern {self._net.run.pattern} has no budget of channels; take pattern channels")
        return self._selects

    def _spread(self, layer: str) -> int:
        """How many places a transposed convolution makes of one; 1 of other layers."""
        module = self._net.layers[layer].module if layer in self._net.layers else None
        return int(np.prod(module.stride)) if isinstance(module, TRANSPOSED) else 1
