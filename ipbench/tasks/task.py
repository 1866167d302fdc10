"""What a task is: loss, metrics, and what a net is called with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ipbench.data.loaders import Batch

#: Gives the COCO-style dict of what is in a part of the images (`Data.truth`); of no meaning for classification.
Truths = Callable[[], dict[str, Any]]


class Measured(NamedTuple):
    """Metrics over some images.

    Attributes:
        primary: the metric by which an epoch is selected, larger = better; nan if there were no images.
        loss: mean over the images; nan if there were none.
        others: further metrics by name; None where one is not defined.
    """

    primary: float
    loss: float
    others: Mapping[str, float | None] = {}


class Metrics(ABC):
    """Collects what metrics are formed of, over batches and processes."""

    @abstractmethod
    def add(self, outputs: Any, batch: Batch) -> None:
        """Take in a batch."""

    @abstractmethod
    def measured(self, device: torch.device) -> Measured:
        """The metrics of all batches of all processes; each of them must ask for them.

        Args:
            device: where processes exchange what they have collected.
        """


class Task(ABC):
    """What a net is trained for; the catalogue says which task a data set is of.

    Attributes:
        name: as in the catalogue.
        primary: the name of the metric by which an epoch is selected. A record has it under the keys of the accuracy
            ("test_accuracy"), and says its name where it is another one ("metric").
    """

    name: ClassVar[str]
    primary: ClassVar[str]

    def inputs(self, batch: Batch, seed: int, step: int | None = None) -> tuple[Any, ...]:
        """What the net is called with to have its loss and metrics.

        Args:
            batch: of images.
            seed: the run's.
            step: of the training; None outside of one. What is drawn is keyed by seed, step and image.
        """
        return (batch.images,)

    @abstractmethod
    def loss(self, outputs: Any, batch: Batch, smoothing: float = 0.0) -> Tensor:
        """The mean loss over a batch, a scalar; `smoothing`: of labels."""

    @abstractmethod
    def metrics(self, truth: Truths | None = None) -> Metrics:
        """Collects metrics; `truth`: of the images, where it is more than a batch tells."""
