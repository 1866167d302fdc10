"""Exemplars of a set of vectors by affinity propagation, and the preference at which a budget is met."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ipbench.sparse.selection import Impossible

Numbers = NDArray[np.float64]
Indices = NDArray[np.int64]
Kept = TypeVar("Kept")

#: A search for beta ends where the values on both sides of the budget are this near.
RESOLUTION = 2.0**-12
#: The largest beta that a search tries. The preference is then some 128 distances: one exemplar is all that is left.
LARGEST = 128.0


class NotConverged(Impossible):
    """Affinity propagation found no stable exemplars."""


def similarities(vectors: Numbers) -> Numbers:
    """Minus the squared Euclidean distances of all pairs.

    Formed from differences, pair by pair: the same with every number of threads, and zero for equal vectors.

    Args:
        vectors: of shape (n, m).

    Returns:
        Of shape (n, n).
    """
    from scipy.spatial.distance import pdist, squareform  # here and below: the imports take seconds

    return -np.asarray(squareform(pdist(vectors, "sqeuclidean")), dtype=np.float64)


def exemplars(similarity: Numbers, beta: float, of: str) -> Indices:
    """The exemplars of Frey and Dueck (Science 2007), as EPruner chooses them.

    The preference of a vector is `beta` times the median of its column, the zero on the diagonal included. Message
    passing is that of scikit-learn with its defaults (damping 0.5, at most 200 iterations, stable over 15), which at
    its end takes for each cluster the member that is nearest to all others. Similarities are below zero: the larger
    beta, the fewer exemplars. Where all similarities and preferences are equal (always between two vectors), no
    messages are needed: all are exemplars, or with preferences that are no larger than the similarities the first one.

    Args:
        similarity: of shape (n, n).
        beta: 0 or more; 0 keeps every vector that has no equal.
        of: what these are the filters of, for the message.

    Returns:
        Their indices, growing.

    Raises:
        NotConverged: the messages come to no rest.
    """
    from sklearn.cluster import affinity_propagation
    from sklearn.exceptions import ConvergenceWarning

    preference = beta * np.median(similarity, axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # says that all are equal
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            centres, _ = affinity_propagation(similarity, preference=preference, copy=True, random_state=0)
        except ConvergenceWarning:
            raise NotConverged(
                f"affinity propagation over the {len(similarity)} filters of {of} does not converge at beta {beta:g};"
                " take another beta"
            ) from None
    return np.asarray(centres, dtype=np.int64)


def nearest_within(at: Callable[[float], Kept], cost: Callable[[Kept], int], budget: int) -> tuple[float, Kept]:
    """The beta whose exemplars cost at most a budget, and as much of it as any that was tried.

    The cost falls with beta, but not everywhere: now and then a little more of beta gives an exemplar more. So the
    place where it crosses the budget is enclosed as if it fell, by powers of two and then by halves, and of all that
    was tried and fits the most expensive is taken. Where a beta does not converge, others of the interval are tried.

    Args:
        at: the exemplars of a beta; raises NotConverged.
        cost: of exemplars.
        budget: in the unit of the cost.

    Returns:
        Beta and its exemplars.

    Raises:
        Impossible: no beta is large enough.
    """
    found: dict[float, tuple[int, Kept]] = {}

    def fits(beta: float) -> bool | None:
        try:
            kept = at(beta)
        except NotConverged:
            return None
        found[beta] = cost(kept), kept
        return found[beta][0] <= budget

    low, high = 0.0, 1.0
    while (answer := fits(high)) is not True:
        if high >= LARGEST:
            least = min((spent for spent, _ in found.values()), default=None)
            left = "no beta converges" if least is None else f"the fewest exemplars cost {least:,}"
            raise Impossible(f"a budget of {budget:,} cannot be met: with beta up to {LARGEST:g}, {left}")
        low, high = (low if answer is None else high), 2 * high
    while high - low > RESOLUTION:
        tried = ((beta, fits(beta)) for beta in _between(low, high))
        beta, answer = next(((beta, answer) for beta, answer in tried if answer is not None), (high, None))
        if answer is None or found[beta][0] == budget:
            break
        low, high = (low, beta) if answer else (beta, high)
    fitting = [(spent, -beta) for beta, (spent, _) in found.items() if spent <= budget]
    best = -max(fitting)[1]
    return best, found[best][1]


def _between(low: float, high: float) -> Iterator[float]:
    """The middle of an interval, and then what lies beside it."""
    for eighths in (4, 3, 5, 2, 6, 1, 7):
        yield low + (high - low) * eighths / 8
