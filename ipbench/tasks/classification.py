"""Classification: one label for each image."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from ipbench.data.loaders import Batch
from ipbench.machine.distributed import summed
from ipbench.tasks.task import Measured, Metrics, Task, Truths


class Classification(Task):
    """One label for each image: mean cross entropy, and the share of images whose largest logit is their label's."""

    name = "classification"
    primary = "accuracy"

    def loss(self, outputs: Tensor, batch: Batch, smoothing: float = 0.0) -> Tensor:
        """Mean cross entropy of logits (N, classes); of logits in half precision, formed in single precision."""
        return functional.cross_entropy(_full(outputs), batch.labels, label_smoothing=smoothing)

    def metrics(self, truth: Truths | None = None) -> Metrics:
        """Accuracy and mean cross entropy."""
        return _Right()


class _Right(Metrics):
    """Right ones, sum of the cross entropies, images."""

    def __init__(self) -> None:
        self._sums = torch.zeros(3, dtype=torch.float64)

    def add(self, outputs: Tensor, batch: Batch) -> None:
        logits = outputs.float()
        right = float((logits.argmax(1) == batch.labels).sum())
        loss = float(functional.cross_entropy(logits, batch.labels, reduction="sum"))
        self._sums = self._sums + torch.tensor([right, loss, len(batch.labels)], dtype=torch.float64)

    def measured(self, device: torch.device) -> Measured:
        right, loss, count = summed(self._sums.to(device)).tolist()
        return Measured(right / count, loss / count) if count else Measured(math.nan, math.nan)


def _full(logits: Tensor) -> Tensor:
    return logits if logits.dtype in (torch.float32, torch.float64) else logits.float()
