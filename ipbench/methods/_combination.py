"""Several scores combined by a linear program, solved without a solver for large linear programs.

COPS (Wimmer, Mehnert, Condurache, IJCNN 2021) keeps k of d weights so that a target score S is large while control
scores C_j retain required amounts b_j. Relaxed to a linear program:

    maximise S·m   subject to   1·m = k,   C_j·m >= b_j,   0 <= m <= 1.

With multipliers mu >= 0 of the controls, the best m is the top k of S + mu·C. So the dual function
g(mu) = (top-k sum of S + mu·C) - mu·b is convex and piecewise linear, an evaluation is one selection, and every
selected set is one of its cutting planes. The optimum of the relaxation combines at most J + 1 such sets, which differ
in as many weights. How the authors solve it could not be read; this is derived from the problem as they state it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ipbench.methods._combination_bracket import bracketed
from ipbench.methods._combination_planes import cut
from ipbench.methods._combination_weights import Array, Infeasible, Unsolved, Weights, most

__all__ = ["Combination", "Infeasible", "Unsolved", "combine"]


@dataclass(frozen=True)
class Combination:
    """The solution of the linear program, and the mask nearest to it that retains what is required.

    Attributes:
        lp_value: optimum of the relaxation, S·m.
        multipliers: mu, one per control; 0 where the control is not active.
        value: S·m of the mask, at most `lp_value`.
        required: b_j.
        retained: C_j·m of the mask. At least b_j, unless no k whole weights were found that retain all of it: then
            nearly so.
        mask: boolean, of shape (d,), with k entries.
        fractional: the relaxation's entries that are neither 0 nor 1, by place; at most J + 1.
        selections: how often all weights were looked at.
    """

    lp_value: float
    multipliers: tuple[float, ...]
    value: float
    required: tuple[float, ...]
    retained: tuple[float, ...]
    mask: NDArray[np.bool_]
    fractional: dict[int, float]
    selections: int

    @property
    def active(self) -> tuple[bool, ...]:
        """Which controls change the choice."""
        return tuple(bool(multiplier > 0) for multiplier in self.multipliers)


def combine(target: Array, controls: Sequence[Array], keep: int, betas: Sequence[float]) -> Combination:
    """Keep `keep` weights by the target score while every control retains a share of what it could retain.

    Args:
        target: S, of shape (d,), finite.
        controls: C_j, of the same shape.
        keep: k, from 1 to d.
        betas: shares from 0 to 1: b_j = beta_j times the sum of the k largest entries of C_j. With 0 a control is not
            asked, with 1 it decides alone.

    Raises:
        Infeasible: the controls contradict each other.
        Unsolved: the optimum was not found to 1e-9.
        ValueError: shapes, k or shares are wrong, or a score is not finite.
    """
    s, cs = _checked(target, controls, keep, betas)
    weights = Weights(s, cs, keep)
    asked = [place for place, beta in enumerate(betas) if beta > 0]
    required = {place: betas[place] * most(cs[place], keep) for place in asked}
    for place, bound in required.items():
        if bound <= 0:
            raise Infeasible(f"control {place + 1} retains nothing at all: a share of that is no requirement")
    part = bracketed(weights, asked[0], required[asked[0]]) if len(asked) == 1 else cut(weights, required)
    mask = np.zeros(len(s), dtype=bool)
    mask[part.places] = True
    if int(mask.sum()) != keep:
        raise Unsolved(f"the linear program gave {int(mask.sum()):,} whole weights instead of {keep:,}")
    return Combination(
        lp_value=part.lp_value,
        multipliers=tuple(part.multipliers.get(place, 0.0) for place in range(len(cs))),
        value=float(s[mask].sum()),
        required=tuple(required.get(place, -np.inf) for place in range(len(cs))),
        retained=tuple(float(c[mask].sum()) for c in cs),
        mask=mask,
        fractional=part.fractional,
        selections=weights.selections,
    )


def _checked(
    target: Array, controls: Sequence[Array], keep: int, betas: Sequence[float]
) -> tuple[Array, tuple[Array, ...]]:
    s = np.ascontiguousarray(target, dtype=np.float64)
    cs = tuple(np.ascontiguousarray(control, dtype=np.float64) for control in controls)
    if s.ndim != 1 or any(c.shape != s.shape for c in cs) or len(betas) != len(cs):
        raise ValueError("target and controls are vectors of one length, with a share for each control")
    if not 1 <= keep <= len(s):
        raise ValueError(f"cannot keep {keep} of {len(s)} weights")
    if not all(0 <= beta <= 1 for beta in betas):
        raise ValueError("the shares of the controls are from 0 to 1")
    if not all(bool(np.isfinite(score.sum())) for score in (s, *cs)):
        raise ValueError("a score is not finite")
    return s, cs
