"""Tasks: what a net is trained for. A task owns the loss, the metrics, and what it takes of a batch."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from ipbench.data.catalog import dataset
from ipbench.data.loaders import Batch


class Task(ABC):
    """What a net is trained for; the catalogue says which task a data set is of.

    Attributes:
        name: as in the catalogue.
        primary: the metric by which an epoch is selected, larger = better; a record has it for each part of the images
            ("test_accuracy").
        size: how many numbers `sums` gives.
    """

    name: ClassVar[str]
    primary: ClassVar[str]
    size: ClassVar[int]

    def inputs(self, batch: Batch) -> Tensor:
        """What the net is called with."""
        return batch.images

    @abstractmethod
    def loss(self, outputs: Tensor, batch: Batch, smoothing: float = 0.0) -> Tensor:
        """The mean loss over a batch, a scalar; `smoothing`: of labels."""

    @abstractmethod
    def sums(self, outputs: Tensor, batch: Batch) -> Tensor:
        """What is summed over batches, and over processes, to form the metrics: float64, on the CPU."""

    @abstractmethod
    def metrics(self, sums: Tensor) -> tuple[float, float]:
        """The primary metric and the mean loss, from the sums over all batches; both nan if there were none."""


class Classification(Task):
    """One label for each image: mean cross entropy, and the share of images whose largest logit is their label's."""

    name = "classification"
    primary = "accuracy"
    size = 3

    def loss(self, outputs: Tensor, batch: Batch, smoothing: float = 0.0) -> Tensor:
        """Mean cross entropy of logits (N, classes)."""
        return functional.cross_entropy(outputs.float(), batch.labels, label_smoothing=smoothing)

    def sums(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Right ones, sum of the cross entropies, images."""
        logits = outputs.float()
        right = float((logits.argmax(1) == batch.labels).sum())
        loss = float(functional.cross_entropy(logits, batch.labels, reduction="sum"))
        return torch.tensor([right, loss, len(batch.labels)], dtype=torch.float64)

    def metrics(self, sums: Tensor) -> tuple[float, float]:
        """Accuracy and mean cross entropy."""
        right, loss, count = sums.tolist()
        return (right / count, loss / count) if count else (math.nan, math.nan)


TASKS: dict[str, Task] = {task.name: task for task in (Classification(),)}


def task_of(data: str) -> Task:
    """The task of a data set, by its name."""
    return TASKS[dataset(data).task]
