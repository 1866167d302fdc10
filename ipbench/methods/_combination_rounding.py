"""The whole weights nearest to an optimum of the relaxation: a corner of it, and the mask that lacks least."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from ipbench.methods._combination_weights import HIGHS, SHARE, Array, Part, Places, Unsolved, Weights

#: What counts as a whole weight in a mixture of sets.
_WHOLE = 1e-9


def corner(weights: Weights, required: Mapping[int, float], amount: Array, multipliers: dict[int, float]) -> Part:
    """The best corner among the mixtures of the same weights, which has at most J + 1 fractional ones, and its mask.

    Args:
        weights: all of them.
        required: what the controls require.
        amount: an optimum of the relaxation, of shape (d,); where scores tie, many of its entries may be fractional.
        multipliers: of the controls.

    Raises:
        Unsolved: HiGHS finds no corner.
    """
    whole = np.flatnonzero(amount >= 1 - SHARE)
    parts = np.flatnonzero((amount > SHARE) & (amount < 1 - SHARE))
    shares = amount[parts]
    if len(parts) > len(required) + 1:
        shares = _corner_shares(weights, required, whole, parts, shares)
        whole = np.sort(np.concatenate([whole, parts[shares >= 1 - _WHOLE]]))
        inside = (shares > _WHOLE) & (shares < 1 - _WHOLE)
        parts, shares = parts[inside], shares[inside]
    value = float(weights.all_s[whole].sum()) + float(shares @ weights.all_s[parts])
    places = _rounded(weights, required, whole, parts)
    fractional = {int(place): float(share) for place, share in zip(parts, shares, strict=True)}
    return Part(value, multipliers, places, fractional)


def _corner_shares(
    weights: Weights, required: Mapping[int, float], whole: Places, parts: Places, shares: Array
) -> Array:
    """How much of each of `parts` a corner takes that is as good as `shares`, by HiGHS."""
    from scipy.optimize import linprog  # here: scipy.optimize takes half a second to import

    s = weights.all_s[parts]
    rows, bounds = [], []
    for place, bound in required.items():
        c = weights.all_cs[place][parts]
        scale = float(np.abs(c).max()) or 1.0
        rows.append(-c / scale)
        # No more than `shares` retain, so that rounding makes nothing impossible.
        bounds.append(-min(bound - float(weights.all_cs[place][whole].sum()), float(c @ shares)) / scale)
    result = linprog(
        -s / (float(np.abs(s).max()) or 1.0), A_ub=np.array(rows), b_ub=bounds, A_eq=np.ones((1, len(parts))),
        b_eq=[weights.keep - len(whole)], bounds=(0, 1), method="highs-ds", options=HIGHS,
    )  # fmt: skip
    if result.x is None:
        raise Unsolved(f"no corner of the optimum was found among {len(parts):,} weights: {result.message}")
    found: Array = result.x
    return found


def _rounded(weights: Weights, required: Mapping[int, float], whole: Places, parts: Places) -> Places:
    """k whole weights: of the fractional ones the best choice that lacks nothing, else the one that lacks least."""
    base = {place: float(weights.all_cs[place][whole].sum()) for place in required}
    best: tuple[float, float] | None = None
    places = whole
    for choice in combinations(parts.tolist(), weights.keep - len(whole)):
        extra = list(choice)
        lack = sum(
            max(0.0, 1 - (base[place] + float(weights.all_cs[place][extra].sum())) / bound) if bound else 0.0
            for place, bound in required.items()
        )
        rank = (-lack if lack > 1e-12 else 0.0, float(weights.all_s[extra].sum()))
        if best is None or rank > best:
            best, places = rank, np.concatenate([whole, np.array(extra, dtype=np.int64)])
    return places
