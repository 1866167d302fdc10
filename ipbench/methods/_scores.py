"""Scores as functions: what wraps every one of them where it is declared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING

from ipbench.spec import Option

if TYPE_CHECKING:
    from torch import Tensor

    from ipbench.data.loaders import Batch
    from ipbench.sparse.net import SparseNet
    from ipbench.sparse.view import NetView

    Score = Callable[..., Mapping[str, Tensor]]


def alone(score: Score, name: str, positive: bool = False) -> Score:
    """A score that sees a copy of the net and the batch, whoever calls it, and whose result is checked.

    Args:
        score: a function (net, batch, **options).
        name: of the score, for messages.
        positive: its promise, see `ipbench.sparse.scoring.take`.
    """
    if getattr(score, "alone", False):
        return score

    @wraps(score)
    def taken(net: SparseNet | NetView, batch: Batch, **options: Option) -> Mapping[str, Tensor]:
        from ipbench.sparse.scoring import take  # here, so that planning a grid imports no torch

        return take(score, name, net, batch, options, positive=positive)

    taken.alone = True  # type: ignore[attr-defined]
    return taken
