"""What selects the masks of a net: the pattern and the budget of its run.

A selector counts in one unit, that of the budget, so that whatever prunes in several rounds or step by step can keep
its schedule: coefficients, multiply-accumulates (MACs), units, or the N of N:M. All counts are of the dense net:
what was sliced off counts as removed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from ipbench.errors import BadInput
from ipbench.sparse import n_of_m, selection
from ipbench.sparse.dense_shapes import as_it_is, of_the_dense_net
from ipbench.sparse.selection import Impossible, Rounding
from ipbench.sparse.unit_selector import OfUnits
from ipbench.spec import COEFFICIENTS, UnitScore
from ipbench.spec import n_of_m as numbers_of

if TYPE_CHECKING:
    from ipbench.sparse.net import SparseNet


class Selector(Protocol):
    """Selects masks under a pattern and a budget."""

    @property
    def counted(self) -> str:
        """What the budget counts, for a reader."""

    @property
    def start(self) -> int:
        """What is there where nothing is pruned, in the budget's unit."""

    @property
    def target(self) -> int:
        """What may be kept, likewise.

        Raises:
            Impossible: nothing, or the filter bases alone use it up, or the net has nothing of the pattern.
        """

    @property
    def blocks(self) -> dict[str, int]:
        """Units of every layer, or group of channels, by its name."""

    @property
    def inner(self) -> frozenset[str]:
        """Names of the blocks whose units are all that makes their channels: no skip connection adds others."""

    def kept(self, masks: Mapping[str, Tensor]) -> int:
        """What masks keep, in the budget's unit."""

    def select(
        self,
        scores: Mapping[str, Tensor],
        keep: int,
        *,
        tie_key: int,
        among: Mapping[str, Tensor],
        blocks: Collection[str] | None = None,
    ) -> dict[str, Tensor]:
        """The masks that keep the best and at most `keep`.

        Args:
            scores: a number per coefficient by layer; larger = keep.
            keep: in the budget's unit.
            tie_key: orders equal scores by their place.
            among: masks; what they leave out stays out.
            blocks: names of those that may lose units; all if left out.

        Raises:
            NotFinite: a score is not finite.
            Impossible: so little cannot be kept.
        """

    def without_weakest(
        self,
        scores: Mapping[str, Tensor],
        rates: Mapping[str, Fraction | float | str],
        rounding: Rounding,
        *,
        tie_key: int,
        among: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """The masks that leave out a share of the units of each block, the weakest; one stays.

        Args:
            scores: a number per coefficient by layer; larger = keep.
            rates: the share that goes, by block; blocks that are left out keep theirs.
            rounding: of what is no whole number of units.
            tie_key: orders equal scores by their place.
            among: masks; what they leave out is among what goes.

        Raises:
            NotFinite: a score is not finite.
        """

    def facts(self, masks: Mapping[str, Tensor]) -> dict[str, Any]:
        """What a record says of masks beside what it says of all."""


def selector(net: SparseNet, unit_score: UnitScore = "sum") -> Selector:
    """The selector of a net's run.

    Args:
        net: with masks, and perhaps already sliced.
        unit_score: how the score of a unit follows from those of its coefficients, see `Units.scores`.
    """
    pattern = net.run.pattern
    if pattern == COEFFICIENTS:
        return OfCoefficients(net)
    return NofM(net) if numbers_of(pattern) else OfUnits(net, unit_score)


@dataclass(frozen=True)
class OfCoefficients:
    """Single coefficients, and the budget of `selection.budget`."""

    net: SparseNet
    counted: str = "coefficients"

    @property
    def start(self) -> int:
        """All coefficients, less what the filter bases take of the budget."""
        return self.net.prunable - self.net.basis_entries

    @property
    def target(self) -> int:
        """Coefficients that may stay."""
        return self.net.budget

    @property
    def blocks(self) -> dict[str, int]:
        """Coefficients by layer."""
        return {name: mask.numel() for name, mask in self.net.masks.items()}

    @property
    def inner(self) -> frozenset[str]:
        """All layers: coefficients make no channel alone."""
        return frozenset(self.net.masks)

    def kept(self, masks: Mapping[str, Tensor]) -> int:
        """Coefficients."""
        return sum(int(mask.sum()) for mask in masks.values())

    def select(
        self,
        scores: Mapping[str, Tensor],
        keep: int,
        *,
        tie_key: int,
        among: Mapping[str, Tensor],
        blocks: Collection[str] | None = None,
    ) -> dict[str, Tensor]:
        """Exactly `keep` coefficients; see `selection.select`."""
        whole = {name: mask for name, mask in among.items() if blocks is not None and name not in blocks}
        if (rest := keep - self.kept(whole)) < 0:
            raise Impossible(f"{keep:,} coefficients are to be kept, and the layers that are left whole have more")
        chosen = {name: score for name, score in scores.items() if name not in whole}
        masks = selection.select(chosen, rest, self.net.run.allocation, tie_key=tie_key, among=among)
        return {name: masks.get(name, mask) for name, mask in among.items()}

    def without_weakest(
        self,
        scores: Mapping[str, Tensor],
        rates: Mapping[str, Fraction | float | str],
        rounding: Rounding,
        *,
        tie_key: int,
        among: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """See `selection.without_weakest`."""
        return selection.without_weakest(scores, rates, rounding, tie_key=tie_key, among=among)

    def facts(self, masks: Mapping[str, Tensor]) -> dict[str, Any]:
        """Nothing: a record says it already."""
        return {}


class NofM:
    """N of every M consecutive inputs; a number to keep is that of each group. The filter bases come on top."""

    def __init__(self, net: SparseNet) -> None:
        found = numbers_of(net.run.pattern)
        assert found is not None
        self._n, self.start = found
        self.counted = f"of {self.start} inputs"
        self._net = net
        shapes = {name: tuple(shape) for name, shape in net.dense_shapes.items()}
        self._axes = n_of_m.input_axes(net.layers, shapes, self.start)

    @property
    def target(self) -> int:
        """The N.

        Raises:
            Impossible: no layer has the pattern.
        """
        self._require()
        return self._n

    @property
    def blocks(self) -> dict[str, int]:
        """None: all layers are pruned alike."""
        return {}

    @property
    def inner(self) -> frozenset[str]:
        """None, likewise."""
        return frozenset()

    def kept(self, masks: Mapping[str, Tensor]) -> int:
        """The most that any group keeps."""
        masks = of_the_dense_net(self._net, masks)
        return max((n_of_m.most_of(masks[name], axis, self.start) for name, axis in self._axes.items()), default=0)

    def select(
        self,
        scores: Mapping[str, Tensor],
        keep: int,
        *,
        tie_key: int,
        among: Mapping[str, Tensor],
        blocks: Collection[str] | None = None,
    ) -> dict[str, Tensor]:
        """`keep` of every M."""
        self._require()
        if blocks is not None:
            raise self._alike()
        scores, among = of_the_dense_net(self._net, scores), of_the_dense_net(self._net, among)
        masks = n_of_m.select(scores, self._axes, keep, self.start, tie_key=tie_key, among=among)
        return as_it_is(self._net, masks)

    def without_weakest(
        self,
        scores: Mapping[str, Tensor],
        rates: Mapping[str, Fraction | float | str],
        rounding: Rounding,
        *,
        tie_key: int,
        among: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """Raises BadInput: there are no rates but the pattern's."""
        raise self._alike()

    def _alike(self) -> BadInput:
        return BadInput(f"pattern {self._net.run.pattern} prunes all layers alike; nothing can be said of single ones")

    def facts(self, masks: Mapping[str, Tensor]) -> dict[str, Any]:
        """Asked and reached share, and the layers that have no such groups."""
        kept = sum(int(mask.sum()) for mask in masks.values()) + self._net.basis_entries
        dense = [name for name in masks if name not in self._axes]
        asked = float(Fraction(self._net.run.sparsity))
        return {"asked": asked, "reached": 1 - kept / self._net.prunable, "dense_layers": dense}

    def _require(self) -> None:
        if not self._axes:
            raise Impossible(f"no layer has a number of inputs above three that {self.start} divides")
