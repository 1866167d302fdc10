"""Masks that keep as much of every layer as others do, elsewhere; and nets that are narrower by one factor.

What is kept in a layer is drawn by key and by layer, never by method, space or sparsity: of two sparsities the larger
keeps a part of what the smaller keeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import floor
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ipbench import keys
from ipbench.sparse.net import SparseNet
from ipbench.sparse.patterns import selector
from ipbench.sparse.selection import Impossible, largest
from ipbench.sparse.sliced import Sliced
from ipbench.sparse.structure import Structure
from ipbench.sparse.unit_selector import OfUnits, makers_of
from ipbench.sparse.units import Flags, Numbers

#: Halvings of the factor by which layers are narrower: more than there are widths of any layer.
_HALVINGS = 40


def rearranged(net: SparseNet, masks: Mapping[str, Tensor], purpose: Literal["shuffle", "score"]) -> dict[str, Tensor]:
    """Masks that keep in every layer as many coefficients as `masks`, or as many units of the run's pattern.

    Of units that make channels together, in layers joined by a skip connection, all go to another channel together, so
    that as many channels can be cut as before.

    Args:
        net: dense, nothing of it cut.
        masks: in the shapes of its coefficients; no N:M pattern.
        purpose: of the draws; by "score" those of the method `random`, so that what is kept is what it would keep of as
            many.
    """
    selects = selector(net, "first")
    draws = {name: net.uniform(name, purpose) for name in masks}
    if not isinstance(selects, OfUnits):
        return {name: _as_many(mask, draws[name], keys.key(net.run.seed, "ties", 1)) for name, mask in masks.items()}
    units = selects.units
    alive = units.alive(masks)
    kept = np.zeros_like(alive)
    numbers = units.scores(draws, "first")
    for rows in _rows(net, selects):
        _moved(alive, kept, rows, numbers)
    return {name: mask.to(masks[name].device) for name, mask in units.masks(kept).items()}


def _as_many(mask: Tensor, draws: Tensor, tie_key: int) -> Tensor:
    """As many coefficients as a mask keeps, those with the largest draws."""
    chosen = largest(draws.reshape(-1), torch.ones_like(mask).reshape(-1), int(mask.sum()), tie_key)
    return chosen.view(mask.shape)


def _rows(net: SparseNet, selects: OfUnits) -> list[NDArray[np.int64]]:
    """Units that move together as the rows of tables, of shape (places, units of each); -1 where there is none."""
    makers = makers_of(net, selects.units) if net.run.pattern == "filters" else {}
    tables = [table for table in makers.values() if (table >= 0).any()]
    together = np.zeros(selects.units.number, dtype=bool)
    for table in tables:
        together[table[table >= 0]] = True
    for block in selects.units.blocks:
        own = np.arange(block.start, block.start + block.number)
        if (alone := own[~together[own]]).size:
            tables.append(alone[:, None])
    return tables


def _moved(alive: Flags, kept: Flags, rows: NDArray[np.int64], draws: Numbers) -> None:
    """Write into `kept` what the rows of a table keep, dealt out to its rows anew: the most to the largest draw."""
    flags = np.append(alive, False)[rows]
    first = np.take_along_axis(rows, (rows >= 0).argmax(axis=1)[:, None], axis=1)[:, 0]
    to, what = np.argsort(-draws[first], kind="stable"), np.argsort(-flags.sum(axis=1), kind="stable")
    there = rows[to] >= 0
    kept[rows[to][there]] = flags[what][there]


def narrowed(net: SparseNet, most: int, counted: Literal["parameters", "macs"]) -> Structure:
    """The widest net of this kind, all layers narrower by one factor, that is not larger than so much.

    A group of channels keeps its first ones, factor times their number, rounded, and at least one; layers whose
    channels cannot be cut keep theirs.

    Args:
        net: dense, nothing of it cut.
        most: parameters, entries of filter bases included, or multiply-accumulates of an image.
        counted: which of them.

    Raises:
        Impossible: with one channel in every layer it is larger.
    """
    groups, buffers = net.groups, {name for name, _ in net.net.named_buffers()}

    def widths(factor: float) -> dict[str, int]:
        return {group.name: max(1, floor(factor * group.units + 0.5)) for group in groups.free}

    def size(factor: float) -> int:
        sliced = Sliced(net.counted, groups, widths(factor))
        return sliced.macs() if counted == "macs" else sliced.parameters(buffers) + net.basis_entries

    if (least := size(0.0)) > most:
        raise Impossible(f"a net of {most:,} {counted}: with one channel in every layer there are {least:,}")
    low, high = 0.0, 1.0
    if size(high) <= most:
        return Structure()
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if size(middle) <= most else (low, middle)
    found = widths(low)
    return Structure({g.name: tuple(range(found[g.name])) for g in groups.free if found[g.name] < g.units})
