"""A view of a net in which what has the smallest scores is kept: the control `invert`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ipbench.errors import BadInput
from ipbench.sparse.net import SparseNet
from ipbench.sparse.view import TrainedView


class InvertedView(TrainedView):
    """The net as a method that chooses at once sees it; whatever is ranked by scores is ranked the other way round."""

    def __init__(self, net: SparseNet) -> None:
        """A view of `net`."""
        super().__init__(net, 0.0)
        self._inverted = False

    def select(self, scores: Mapping[str, Tensor], *args: Any, **named: Any) -> dict[str, Tensor]:
        """As of other views, by the smallest scores."""
        return super().select(self._turned(scores), *args, **named)

    def select_each(self, scores: Mapping[str, Tensor], *args: Any, **named: Any) -> dict[str, Tensor]:
        """As of other views, by the smallest scores."""
        return super().select_each(self._turned(scores), *args, **named)

    def select_units(self, scores: Mapping[str, Tensor], *args: Any, **named: Any) -> dict[str, Tensor]:
        """As of other views, by the smallest scores."""
        return super().select_units(self._turned(scores), *args, **named)

    def require_inverted(self) -> None:
        """Check that something was ranked.

        Raises:
            BadInput: the method has chosen by no scores, so that nothing was turned round.
        """
        if not self._inverted:
            raise BadInput(
                f"method {self._net.run.method}: control invert turns scores round, and what is kept here is chosen by"
                " none"
            )

    def _turned(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self._inverted = True
        return {name: -score for name, score in scores.items()}
