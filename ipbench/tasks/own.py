"""What a net of a user's own is trained for: classification of whatever it is called with, or a loss of the user's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ipbench.errors import BadInput
from ipbench.tasks.classification import Classification
from ipbench.tasks.inputs import Inputs
from ipbench.tasks.task import Metrics, Task, Truths


@dataclass(frozen=True)
class Labelled:
    """A batch: what the net is called with, and labels (N,)."""

    inputs: Inputs
    labels: Tensor


class OfInputs(Classification):
    """Classification by a net that is called with more than images; a batch is a `Labelled`, taken in one pass."""

    def outputs(self, net: nn.Module, batch: Any, seed: int, step: int | None = None) -> Tensor:
        """Logits (N, classes)."""
        found: Tensor = batch.inputs.of(net)
        return found

    def ones(self, batch: Any) -> Inputs:
        """Ones in place of all numbers of a batch's inputs."""
        return _ones(batch.inputs)

    def cloned(self, batch: Any) -> Any:
        """A batch of its own memory."""
        return replace(batch, inputs=batch.inputs.mapped(torch.clone), labels=batch.labels.clone())

    def parts(self, batch: Any) -> Iterator[tuple[Any, float]]:
        """The batch: only its user knows how it can be divided."""
        yield batch, 1.0


class OwnLoss(Task):
    """A loss of a user's own; a batch is whatever that takes, and one pass."""

    name = "another task"
    primary = "loss"

    def __init__(self, loss: Callable[[nn.Module, Any], Tensor], inputs: Inputs | None) -> None:
        """`loss`: of a net and a batch; `inputs`: what the net can be called with, if that is known."""
        self._loss, self._inputs = loss, inputs

    def __deepcopy__(self, memo: dict[int, Any]) -> OwnLoss:
        return self

    def outputs(self, net: nn.Module, batch: Any, seed: int, step: int | None = None) -> Any:
        """Raises BadInput: what the net gives is the loss's own business."""
        raise BadInput("a loss of your own: what the net gives of a batch is not known")

    def loss_of(self, net: nn.Module, batch: Any, seed: int) -> Tensor:
        """The user's loss.

        Raises:
            BadInput: it is no scalar with a graph.
        """
        found = self._loss(net, batch)
        if not isinstance(found, Tensor) or found.numel() != 1 or not found.requires_grad:
            what = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            graph = " without a graph" if isinstance(found, Tensor) and not found.requires_grad else ""
            raise BadInput(f"loss: it must return a scalar tensor that can be differentiated, not {what}{graph}")
        return found.reshape(())

    def loss(self, outputs: Any, batch: Any, smoothing: float = 0.0) -> Tensor:
        """Raises BadInput, as `outputs`."""
        raise BadInput("a loss of your own: it takes a net and a batch, no outputs")

    def metrics(self, truth: Truths | None = None) -> Metrics:
        """Raises BadInput: nothing is measured in a loop of a user's own."""
        raise BadInput("a loss of your own has no metrics")

    def ones(self, batch: Any) -> Inputs:
        """Ones in place of all numbers of the inputs.

        Raises:
            BadInput: none are known.
        """
        if self._inputs is None:
            raise BadInput("the method sends ones through the net: give inputs=, what the net is called with")
        return _ones(self._inputs)

    def cloned(self, batch: Any) -> Any:
        """A batch whose tensors have memory of their own, in lists, tuples and dicts too."""
        return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, batch)

    def parts(self, batch: Any) -> Iterator[tuple[Any, float]]:
        """The batch: only its user knows how it can be divided."""
        yield batch, 1.0


def _ones(inputs: Inputs) -> Inputs:
    return inputs.mapped(lambda t: torch.ones_like(t, dtype=torch.float64) if t.is_floating_point() else t)
