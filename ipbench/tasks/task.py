"""What a task is: loss, metrics, and what a net is called with."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ipbench.data.loaders import Batch
from ipbench.spec import PASS_PIXELS
from ipbench.tasks.inputs import Inputs

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


def passes(batch: Batch) -> int:
    """How many passes of nearly equal size the images of a batch are taken in."""
    count, _, *pixels = batch.images.shape
    most = max(2, PASS_PIXELS // math.prod(pixels))
    return max(1, min(-(-count // most), count // 2))


def parts(batch: Batch, number: int) -> Iterator[Batch]:
    """So many parts of nearly equal size, in the order of the images."""
    end = 0
    for images in batch.images.tensor_split(number):
        begin, end = end, end + len(images)
        indices = None if batch.indices is None else batch.indices[begin:end]
        yield Batch(images, batch.labels[begin:end], batch.targets[begin:end], indices, batch.sizes[begin:end])


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

    def outputs(self, net: nn.Module, batch: Batch, seed: int, step: int | None = None) -> Any:
        """What a net gives for a batch; `seed` and `step` as for `inputs`."""
        return net(*self.inputs(batch, seed, step))

    def loss_of(self, net: nn.Module, batch: Batch, seed: int) -> Tensor:
        """The mean loss of a net over a batch, a scalar with a graph."""
        return self.loss(self.outputs(net, batch, seed), batch)

    def ones(self, batch: Batch) -> Inputs:
        """Ones in double precision in place of one image of a batch."""
        return Inputs(batch.images[:1].double() * 0 + 1)

    def cloned(self, batch: Batch) -> Batch:
        """A batch of its own memory."""
        targets = tuple(type(target)(*(part.clone() for part in target)) for target in batch.targets)
        return batch._replace(images=batch.images.clone(), labels=batch.labels.clone(), targets=targets)

    def parts(self, batch: Batch) -> Iterator[tuple[Batch, float]]:
        """Parts of nearly equal size that passes of bounded size take, each with its share of the images.

        A pass has at most `PASS_PIXELS` pixels (height times width times images), but two images at least.
        """
        for part in parts(batch, passes(batch)):
            yield part, len(part.images) / len(batch.images)

    @abstractmethod
    def loss(self, outputs: Any, batch: Batch, smoothing: float = 0.0) -> Tensor:
        """The mean loss over a batch, a scalar; `smoothing`: of labels."""

    @abstractmethod
    def metrics(self, truth: Truths | None = None) -> Metrics:
        """Collects metrics; `truth`: of the images, where it is more than a batch tells."""
