"""The choice of EPruner: each layer keeps its exemplar filters; the net is written for what is left of its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from ipbench.errors import BadInput
from ipbench.methods._affinity import Indices, Numbers, exemplars, nearest_within, similarities
from ipbench.methods._projection import project_inputs
from ipbench.methods._ratios import rates_of
from ipbench.sparse.selection import Impossible

if TYPE_CHECKING:
    from torch import Tensor

    from ipbench.sparse.channels import Group, Member
    from ipbench.sparse.view import NetView


def choose(net: NetView, *, beta: float, depth: str, projected: bool) -> dict[str, Tensor]:
    """Masks of the exemplar filters of every layer that alone makes its channels.

    Args:
        net: trained.
        beta: of the preferences; 0: what comes nearest to the run's budget from below, which is noted as `beta`.
        depth: layers with a beta of their own, `START=BETA` as in `rates_of`; with a beta of 0 a layer stays whole.
        projected: project the filters that read what is cut on as many inputs as are left.

    Raises:
        Impossible: a layer does not converge, or no beta meets the budget.
        BadInput: the pattern is none of filters, or `depth` names no layer.
    """
    layers = clustered(net, depth)

    def at(common: float) -> dict[str, Indices]:
        return {layer.name: layer.exemplars(common) for layer in layers}

    def cost(kept: Mapping[str, Indices]) -> int:
        return net.kept_by(masks(net, layers, kept))

    if beta:
        kept = at(beta)
    elif net.kept <= net.target:  # nothing is to be pruned
        return net.masks
    else:
        beta, kept = nearest_within(at, cost, net.target)
    net.notes["beta"] = beta
    chosen = masks(net, layers, kept)
    if projected:
        for layer in layers:
            project_inputs(net, layer.group, kept[layer.name])
    return chosen


@dataclass
class Clustered:
    """A layer whose filters are clustered.

    Attributes:
        name: of the layer.
        group: of the channels that it makes.
        blocks: of the run's pattern whose units go with these channels.
        filters: of every channel, of shape (units, weights of one).
        own: its own beta; None if it has the common one.
    """

    name: str
    group: Group
    blocks: tuple[str, ...]
    filters: Numbers
    own: float | None
    _known: dict[float, Indices] = field(default_factory=dict)

    @cached_property
    def similarity(self) -> Numbers:
        """Of the filters, of shape (units, units)."""
        return similarities(self.filters)

    def exemplars(self, common: float) -> Indices:
        """Indices of the filters that are kept where the common beta is this."""
        beta = common if self.own is None else self.own
        if beta not in self._known:
            self._known[beta] = exemplars(self.similarity, beta, f"layer {self.name}")
        return self._known[beta]


def clustered(net: NetView, depth: str) -> list[Clustered]:
    """The layers that are clustered: those that alone make all channels of a group.

    Args:
        net: whose.
        depth: as in `choose`.

    Raises:
        Impossible: there is none.
        BadInput: `depth` names a layer that is none of them.
    """
    found: dict[str, tuple[Group, Member, tuple[str, ...]]] = {}
    for group in net.groups.free:
        makers = [member for member in group.producers if member.role == "out"]
        if len(makers) == 1 and (blocks := _blocks(net, group)):
            found[makers[0].layer] = group, makers[0], blocks
    if not found:
        raise Impossible("no layer of the net makes its channels alone, so that none can be clustered")
    try:
        own = {name: float(beta) for name, beta in rates_of(depth, found, below=None).items()}
    except BadInput as error:
        raise BadInput(f"method epruner: depth: {error}") from None
    weights, layers = net.weights, []
    for name, (group, maker, blocks) in found.items():
        if own.get(name) != 0:
            layers.append(Clustered(name, group, blocks, _filters(weights[name], maker), own.get(name)))
    return layers


def masks(net: NetView, layers: list[Clustered], kept: Mapping[str, Indices]) -> dict[str, Tensor]:
    """The masks that keep these filters of these layers, and all of the others."""
    scores = {name: torch.zeros(shape) for name, shape in net.shapes.items()}
    rates: dict[str, Fraction] = {}
    for layer in layers:
        for member in layer.group.producers:
            rows = torch.from_numpy(member.indices[kept[layer.name]].reshape(-1))
            scores[member.layer].index_fill_(member.axis, rows, 1.0)
        gone = Fraction(layer.group.units - len(kept[layer.name]), layer.group.units)
        rates |= dict.fromkeys(layer.blocks, gone)
    return net.select_each(scores, rates)


def _blocks(net: NetView, group: Group) -> tuple[str, ...]:
    """The blocks of the pattern whose units are those of a group; none if they are not all that makes its channels.

    Of the pattern channels that is the group itself, of filters the layers that make it.
    """
    names = {group.name, *(member.layer for member in group.producers)} & net.inner
    wrong = [name for name in names if net.blocks[name] != group.units]
    return () if wrong else tuple(sorted(names))


def _filters(weight: Tensor, maker: Member) -> Numbers:
    """The filters of every channel, of shape (units, weights of one)."""
    rows = weight.movedim(maker.axis, 0).cpu().double().numpy()[maker.indices]
    return np.ascontiguousarray(rows.reshape(len(rows), -1))
