"""Masks: budgets, allocation over layers and selection of what is kept.

A mask is a boolean tensor of the shape of a layer's coefficients; True = trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import ceil, floor, prod
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ipbench import keys
from ipbench.errors import BadInput

#: What a method does with a number of units that is not whole.
Rounding = Literal["int", "ceil", "round"]


class Impossible(Exception):
    """A budget that cannot be met; the text is the reason that tables print."""


class NotFinite(Exception):
    """A score or a loss that is not a finite number; the run counts as diverged."""


def budget(prunable: int, density: Fraction, basis_entries: int = 0) -> int:
    """How many coefficients may stay: floor(density * prunable) - basis_entries.

    Args:
        prunable: number of prunable weights of the dense standard net.
        density: 1 - sparsity, exact.
        basis_entries: entries of all trained FBs, which are paid for inside the same budget.

    Raises:
        Impossible: nothing is left.
    """
    total = floor(density * prunable)
    if total < 1:
        raise Impossible(f"the budget of {total} parameters keeps nothing of {prunable:,} weights")
    if total <= basis_entries:
        raise Impossible(
            f"the filter bases alone ({basis_entries:,} entries) use up the budget of {total:,} parameters"
        )
    return total - basis_entries


def count_of(rate: Fraction | float | str, number: int, rounding: Rounding) -> int:
    """How many of so many units a rate is, in exact arithmetic: 0.29 of 100 are 29, and int(100 * 0.29) is 28.

    Args:
        rate: from 0 to 1; a float is the number that it prints as.
        number: of the units.
        rounding: of what is no whole number: "int" (down), "ceil" (up) or "round" (to the nearest, halves to the even).

    Raises:
        BadInput: the rate is no such number.
    """
    try:
        exact = rate if isinstance(rate, Fraction) else Fraction(str(rate))
    except (ValueError, ZeroDivisionError):  # "x", and "1/0"
        exact = Fraction(-1)
    if not 0 <= exact <= 1:
        raise BadInput(f"a rate is a number from 0 to 1, not {rate!r:.40}")
    return floor(exact * number) if rounding == "int" else (ceil if rounding == "ceil" else round)(exact * number)


def allocate(
    shapes: Mapping[str, tuple[int, ...]], keep: int, allocation: str, available: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Split a budget over layers by a fixed rule.

    Args:
        shapes: the shape of every layer's coefficients.
        keep: coefficients to keep in all, at most their number.
        allocation: "uniform" (the same density everywhere) or "erk" (Erdos-Renyi-Kernel: density of a layer
            proportional to the sum of its dimensions over their product, at most 1; Evci et al., ICML 2020, sec. 3,
            after Mocanu et al., Nature Communications 2018).
        available: how many of a layer can be kept at most; its size if left out.

    Returns:
        A count per layer. They sum to `keep` exactly: fractions are rounded by largest remainder.

    Raises:
        Impossible: a layer's share is larger than what is available.
    """
    sizes = {name: prod(shape) for name, shape in shapes.items()}
    if not 0 <= keep <= sum(sizes.values()):
        raise ValueError(f"cannot keep {keep} of {sum(sizes.values())} coefficients")
    if allocation == "uniform":
        wanted = {name: Fraction(keep * size, sum(sizes.values())) for name, size in sizes.items()}
    elif allocation == "erk":
        wanted = _erk(shapes, sizes, keep)
    else:
        raise ValueError(f"{allocation!r} is no rule for single layers")
    counts = {name: floor(value) for name, value in wanted.items()}
    limits = sizes if available is None else available
    for name, count in counts.items():
        if count > limits[name]:
            raise Impossible(f"layer {name} is to keep {count:,} coefficients, but only {limits[name]:,} are left")
    # Largest remainder first; equal ones in the order of the net. A layer that is full takes no more: then those behind
    # it do, which happens when masks shrink step by step and one step rounded down what the next rounds up.
    order = sorted(wanted, key=lambda name: counts[name] - wanted[name])
    while short := keep - sum(counts.values()):
        free = [name for name in order if counts[name] < limits[name]][:short]
        if not free:
            raise Impossible(f"{keep:,} coefficients are to be kept where fewer are left")
        for name in free:
            counts[name] += 1
    return counts


def _erk(shapes: Mapping[str, tuple[int, ...]], sizes: Mapping[str, int], keep: int) -> dict[str, Fraction]:
    """Coefficients per layer by ERK: layers that the rule would fill beyond 1 are dense and the rest shares again."""
    dense: set[str] = set()
    while True:
        rest = keep - sum(sizes[name] for name in dense)
        raw = {name: sum(shape) for name, shape in shapes.items() if name not in dense}  # = size * sum / prod
        scale = Fraction(rest, sum(raw.values())) if raw else Fraction(0)
        full = {name for name, value in raw.items() if value * scale > sizes[name]}
        if not full:
            return {name: Fraction(sizes[name]) if name in dense else raw[name] * scale for name in shapes}
        dense |= full


def select(
    scores: Mapping[str, Tensor],
    keep: int,
    allocation: str = "global",
    *,
    tie_key: int = 0,
    among: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """The masks that keep exactly `keep` coefficients with the largest scores.

    Args:
        scores: a number per coefficient; larger = keep.
        keep: how many in all.
        allocation: "global" (one ranking), "uniform" or "erk" (a ranking per layer).
        tie_key: a key that orders equal scores at the threshold. It is the place of a coefficient in the net that
            decides then, the same in both spaces.
        among: masks; only their True entries can be kept. All if left out.

    Raises:
        NotFinite: a score is not finite.
        Impossible: a layer's share is larger than what `among` leaves of it.
    """
    require_finite_scores(scores)
    flat = {name: score.detach().flatten() for name, score in scores.items()}
    candidates = {name: torch.ones_like(s, dtype=torch.bool) for name, s in flat.items()}
    if among is not None:
        candidates = {name: among[name].flatten() for name in flat}
    if allocation == "global":
        kept = largest(torch.cat(list(flat.values())), torch.cat(list(candidates.values())), keep, tie_key)
        parts = kept.split([len(score) for score in flat.values()])
        return {name: part.view(scores[name].shape) for name, part in zip(flat, parts, strict=True)}
    shapes = {name: tuple(score.shape) for name, score in scores.items()}
    counts = allocate(shapes, keep, allocation, {name: int(free.sum()) for name, free in candidates.items()})
    return {
        name: largest(flat[name], candidates[name], counts[name], keys.splitmix64(tie_key + place)).view(score.shape)
        for place, (name, score) in enumerate(scores.items())
    }


def without_weakest(
    scores: Mapping[str, Tensor],
    rates: Mapping[str, Fraction | float | str],
    rounding: Rounding,
    *,
    tie_key: int,
    among: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """The masks that leave out a share of each layer's coefficients, those with the smallest scores.

    Args:
        scores: a number per coefficient by layer; larger = keep.
        rates: the share of all coefficients of a layer that goes; layers that are left out keep theirs. One stays.
        rounding: of what is no whole number of coefficients.
        tie_key: orders equal scores by their place.
        among: masks; what they leave out is among what goes.

    Raises:
        NotFinite: a score is not finite.
    """
    require_finite_scores(scores)
    masks = {}
    for place, (name, mask) in enumerate(among.items()):
        stays = mask.numel() - min(count_of(rates.get(name, 0.0), mask.numel(), rounding), mask.numel() - 1)
        keep = min(stays, int(mask.sum()))
        flat = largest(scores[name].detach().flatten(), mask.flatten(), keep, keys.splitmix64(tie_key + place))
        masks[name] = flat.view(mask.shape)
    return masks


def require_finite_scores(scores: Mapping[str, Tensor]) -> None:
    """Check scores by layer.

    Raises:
        NotFinite: one is not finite.
    """
    for name, score in scores.items():
        if not bool(torch.isfinite(score).all()):
            raise NotFinite(f"a score in layer {name} is not finite")


def largest(scores: Tensor, candidates: Tensor, keep: int, tie_key: int) -> Tensor:
    """Mask of exactly `keep` candidates with the largest scores; ties at the threshold in keyed order.

    Args:
        scores: of shape (n,), finite.
        candidates: boolean, of shape (n,).
        keep: how many of them.
        tie_key: orders equal scores by their place.

    Raises:
        Impossible: there are not so many candidates.
    """
    available = int(candidates.sum())
    if keep > available:
        raise Impossible(f"{keep:,} coefficients are to be kept where only {available:,} are left")
    if keep == available:
        return candidates.clone()
    if keep == 0:
        return torch.zeros_like(candidates)
    found = _by_partition if candidates.device.type == "cpu" else _by_sorting
    return found(scores.detach().to(candidates.device), candidates, keep, available, tie_key)


def _by_partition(scores: Tensor, candidates: Tensor, keep: int, available: int, tie_key: int) -> Tensor:
    """What `largest` gives, by numpy: on the CPU the fastest way by far."""
    values, free = scores.numpy(), candidates.numpy()
    threshold = np.partition(values[free], available - keep)[available - keep]
    mask = free & (values > threshold)
    ties = np.flatnonzero(free & (values == threshold))
    mask[_first(ties, keep - int(mask.sum()), tie_key)] = True
    return torch.from_numpy(mask)


def _by_sorting(scores: Tensor, candidates: Tensor, keep: int, available: int, tie_key: int) -> Tensor:
    """The same on the tensors' device: only ties come to the CPU.

    Sorted as a whole, for `kthvalue` is not deterministic on GPUs.
    """
    threshold = scores[candidates].sort().values[available - keep]
    mask = candidates & (scores > threshold)
    ties = (candidates & (scores == threshold)).nonzero().flatten()
    first = _first(ties.cpu().numpy(), keep - int(mask.sum()), tie_key)
    mask[torch.from_numpy(first).to(mask.device)] = True
    return mask


def _first(ties: np.ndarray, number: int, tie_key: int) -> np.ndarray:
    """So many of these places, in keyed order."""
    return ties[np.argsort(keys.indexed_bits(tie_key, ties), kind="stable")[:number]]
