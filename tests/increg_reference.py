"""IncReg as its public code states it, in loops of plain numbers: an oracle for `tests/structured/test_increg.py`.

Written from github.com/MingSun-Tse/Caffe_IncReg at 32b9d62 (`sgd_solver.cpp`, Reg_Col and Reg_Row, and `layer.cpp`),
which is C++ for a GPU. One thing differs: in Reg_Row the score of a removed row is read from another place than it is
written to; here a removed row sorts first, as a removed column does.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


class Layer:
    """A matrix of weights, rows by columns, of which groups go.

    Attributes:
        w: of shape (rows, columns); column j is position j % kernel of input channel j // kernel.
        ratio: of the groups; 0: none are pruned.
    """

    def __init__(self, w: NDArray[np.float64], kernel: int, ratio: float, rows: bool, ties: list[int]) -> None:
        """`rows`: groups are rows; `ties`: the place of each group among equal ones."""
        self.w, self.kernel, self.ratio, self.rows, self.ties = w.copy(), kernel, ratio, rows, ties
        self.mask = np.ones_like(self.w)
        groups = self.w.shape[0] if rows else self.w.shape[1]
        self.rank, self.factor, self.gone = [0.0] * groups, [0.0] * groups, [False] * groups
        self.finished = not ratio
        self.rows_to_prune: list[int] = []
        self.columns_to_prune: list[int] = []

    def group(self, g: int) -> tuple[int | slice, int | slice]:
        return (g, slice(None)) if self.rows else (slice(None), g)

    def target(self) -> int:
        return math.ceil(len(self.gone) * self.ratio - 1e-12)

    def begin(self) -> None:
        """Before a forward pass: what neighbours have pruned, whether it is finished, the masks."""
        for row in self.rows_to_prune:
            self.mask[row] = 0
        for column in self.columns_to_prune:
            self.mask[:, column] = 0
        self.rows_to_prune, self.columns_to_prune = [], []
        self.finished = self.finished or sum(self.gone) >= self.target()
        self.w *= self.mask

    def added(self, rise: float, limit: float, n: int) -> list[float]:
        """Step n, counted from 1: ranks, factors, groups that go; what is added to the weight decay of each group."""
        if self.finished:
            return [0.0] * len(self.gone)
        before = sum(self.gone)
        remaining = self.target() - before
        norms = [np.abs(self.w[self.group(g)]).sum() for g in range(len(self.gone))]
        order = sorted(range(len(norms)), key=lambda g: (not self.gone[g], norms[g], self.ties[g]))
        for place, g in enumerate(order):
            if not self.gone[g]:
                self.rank[g] = ((n - 1) * self.rank[g] + place) / n
        order = sorted(range(len(norms)), key=lambda g: (not self.gone[g], self.rank[g], self.ties[g]))
        u = 0.25
        alpha = math.log(2 / u) / remaining
        middle = -math.log(u) / alpha
        for j, g in enumerate(order[before:]):
            if j < middle:
                delta = rise * math.exp(-alpha * j)
            else:
                delta = 2 * u * rise - rise * math.exp(-alpha * (2 * middle - j))
            self.factor[g] = max(self.factor[g] + delta, 0.0)
            if self.factor[g] >= limit:
                self.gone[g] = True
                self.mask[self.group(g)] = 0
                self.w[self.group(g)] = 0
        return list(self.factor)


class Chain:
    """Layers of which each reads the channels that the one before makes."""

    def __init__(self, layers: list[Layer]) -> None:
        self.layers, self.n = layers, 0

    def step(self, pulls: list[NDArray[np.float64]], rise: float, limit: float, lr: float, decay: float) -> None:
        """One step of SGD without momentum; `pulls`: gradients of the loss, which masks are laid over."""
        self.n += 1
        for place, layer in enumerate(self.layers):
            was = list(layer.gone)
            added = layer.added(rise, limit, self.n)
            factors = np.array(added)[:, None] if layer.rows else np.array(added)[None]
            layer.w -= lr * (pulls[place] + (decay + factors) * layer.w) * layer.mask
            for g in [g for g, gone in enumerate(layer.gone) if gone and not was[g]]:
                self._hand_on(place, g)

    def _hand_on(self, place: int, g: int) -> None:
        layer = self.layers[place]
        if layer.rows and place + 1 < len(self.layers):
            kernel = self.layers[place + 1].kernel
            self.layers[place + 1].columns_to_prune += range(g * kernel, (g + 1) * kernel)
        elif not layer.rows and place:
            channel = g // layer.kernel
            if all(layer.gone[channel * layer.kernel : (channel + 1) * layer.kernel]):
                self.layers[place - 1].rows_to_prune.append(channel)
