"""Object detection: boxes with labels in every image, and the mean average precision of those that are found."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ipbench import keys
from ipbench.data.average_precision import average_precision
from ipbench.data.boxes import Target
from ipbench.data.loaders import Batch
from ipbench.errors import BadInput
from ipbench.machine.distributed import by_first, rows_of_all
from ipbench.tasks.task import Measured, Metrics, Task, Truths

#: What is drawn for an image in a step: which anchors, and which proposals enter the loss.
DRAWS = 2


class Truth(NamedTuple):
    """What a detector is told of the images of a batch.

    Attributes:
        targets: of each image.
        sizes: height and width of each image inside the padded batch; empty if none is padded.
        draws: int64 (n, `DRAWS`), keys of what is drawn for each image.
    """

    targets: tuple[Target, ...]
    sizes: tuple[tuple[int, int], ...]
    draws: Tensor

    def sizes_of(self, images: Tensor) -> tuple[tuple[int, int], ...]:
        """Height and width of each image of a batch (n, c, h, w)."""
        height, width = images.shape[-2:]
        return self.sizes or ((height, width),) * len(images)

    def by_image(self) -> list[dict[str, Tensor]]:
        """Boxes and labels by name, as torchvision takes them."""
        return [{"boxes": target.boxes, "labels": target.labels} for target in self.targets]


class Found(NamedTuple):
    """What a detector found in an image."""

    boxes: Tensor
    """float32 (m, 4): x1, y1, x2, y2 in pixels of the image in the batch"""
    labels: Tensor
    """int64 (m,): 1 .. classes"""
    scores: Tensor
    """float32 (m,): 0 to 1"""


class Detected(NamedTuple):
    """What a detector gives of images whose truth it is told.

    Attributes:
        losses: scalars by name, as torchvision's.
        found: in each image; empty in training mode.
    """

    losses: dict[str, Tensor]
    found: tuple[Found, ...] = ()


class Detection(Task):
    """Boxes with labels: the sum of the detector's own losses, and COCO's mean average precision."""

    name = "detection"
    primary = "map"

    def inputs(self, batch: Batch, seed: int, step: int | None = None) -> tuple[Any, ...]:
        """Images and `Truth`; what is drawn for an image depends on its number in the data set, not on the batch."""
        numbers = range(len(batch.images)) if batch.indices is None else batch.indices.tolist()
        place: tuple[int | str, ...] = ("evaluation",) if step is None else (step,)
        draws = [[keys.key(seed, "sampling", *place, number, draw) >> 1 for draw in range(DRAWS)] for number in numbers]
        return batch.images, Truth(batch.targets, batch.sizes, torch.tensor(draws, dtype=torch.int64))

    def loss(self, outputs: Detected, batch: Batch, smoothing: float = 0.0) -> Tensor:
        """The sum of the detector's losses, each a mean over images, anchors or proposals as torchvision forms it.

        Raises:
            BadInput: labels are to be smoothed.
        """
        if smoothing:
            raise BadInput(f"label_smoothing: it has no meaning for detection (got {smoothing:g}); leave it out")
        return torch.stack(list(outputs.losses.values())).sum()

    def metrics(self, truth: Truths | None = None) -> Metrics:
        """Average precision over thresholds of 0.50 to 0.95, and others of COCO's."""
        assert truth is not None
        return _Found(truth)


class _Found(Metrics):
    """What was found, in rows: number of the image, label, score, x1, y1, x2, y2; and the losses of the images."""

    def __init__(self, truth: Truths) -> None:
        self._truth = truth
        self._rows: list[Tensor] = []
        self._losses: list[Tensor] = []

    def add(self, outputs: Detected, batch: Batch) -> None:
        assert batch.indices is not None
        loss = float(torch.stack(list(outputs.losses.values())).sum())
        numbers = batch.indices.cpu().double()
        self._losses.append(torch.full((len(numbers), 1), loss, dtype=torch.float64))
        for number, found in zip(numbers, outputs.found, strict=True):
            boxes, labels, scores = (part.detach().cpu().double() for part in found)
            self._rows.append(torch.cat((number.expand(len(boxes), 1), labels[:, None], scores[:, None], boxes), 1))

    def measured(self, device: torch.device) -> Measured:
        rows = rows_of_all(torch.cat([torch.zeros(0, 7, dtype=torch.float64), *self._rows]), device)
        losses = rows_of_all(torch.cat([torch.zeros(0, 1, dtype=torch.float64), *self._losses]), device)
        if not len(losses):
            return Measured(math.nan, math.nan)
        if not bool(rows.isfinite().all()):
            return Measured(0.0, math.nan)  # the run has diverged, as a loss that is no number tells
        found = by_first(lambda: average_precision(self._truth(), _as_coco(rows)))
        value = found.pop("map")
        return Measured(math.nan if value is None else value, float(losses.mean()), found)


def _as_coco(rows: Tensor) -> list[dict[str, Any]]:
    """Detections in COCO's form: ids of images from 1, boxes by corner, width and height."""
    return [
        {
            "image_id": int(number) + 1,
            "category_id": int(label),
            "bbox": [left, top, right - left, bottom - top],
            "score": score,
        }
        for number, label, score, left, top, right, bottom in rows.tolist()
    ]
