"""Boxes of objects beside the pixels of a batch: what is to be found in an image, mirrored and resized with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ipbench.data.coco import Annotations


class Target(NamedTuple):
    """What is to be found in one image."""

    boxes: Tensor
    """float32 (k, 4): x1, y1, x2, y2 in pixels of the image as the batch holds it"""
    labels: Tensor
    """int64 (k,): 1 to the number of classes; 0 is the background"""


def target(annotations: Annotations, image: int, size: tuple[int, int] | None = None) -> Target:
    """The boxes of an image that a net is trained on: all but crowds.

    Args:
        annotations: of the split.
        image: its number in the split.
        size: height, width to which the image was resized; its own if None.

    Returns:
        Boxes in the order of the annotations, of a positive width and height in float32, on the CPU.
    """
    part = annotations.of(image)
    plain = ~annotations.crowd[part]
    boxes = annotations.boxes[part][plain]
    corners = np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
    if size is not None:
        (height, width), (y, x) = size, scale(annotations, image, size)
        corners = np.minimum(corners * [x, y, x, y], [width, height, width, height])
    corners = corners.astype(np.float32)
    there = (corners[:, 2:] > corners[:, :2]).all(axis=1)
    labels = annotations.labels[part][plain][there]
    return Target(torch.tensor(corners[there]), torch.tensor(labels))


def scale(annotations: Annotations, image: int, size: tuple[int, int]) -> tuple[float, float]:
    """Pixels, vertical and horizontal, that a pixel of the image becomes when it is resized to height, width."""
    height, width = annotations.sizes[image].tolist()
    return size[0] / height, size[1] / width


def mirrored(found: Target, width: int) -> Target:
    """The target of the image mirrored left-right.

    Args:
        found: of the image as it was.
        width: of the image, in pixels.
    """
    x1, y1, x2, y2 = found.boxes.unbind(1)
    boxes = torch.stack([width - x2, y1, width - x1, y2], 1)
    there = boxes[:, 2] > boxes[:, 0]  # rounded once more, the thinnest may be gone
    return Target(boxes[there], found.labels[there])


def moved(found: Sequence[Target], device: str) -> tuple[Target, ...]:
    """Targets on a device, by two transfers for all of them."""
    counts = [len(one.labels) for one in found]
    boxes, labels = (torch.cat(parts).to(device).split(counts) for parts in zip(*found, strict=True))
    return tuple(map(Target, boxes, labels))


def truth(
    annotations: Annotations, images: Iterable[int], sizes: Callable[[int], tuple[int, int]] | None = None
) -> dict[str, Any]:
    """What detections in some images of a split are compared with.

    Args:
        annotations: of the split.
        images: numbers in the split.
        sizes: height, width of an image as a batch holds it, by its number; None where images are not resized.

    Returns:
        COCO's `images`, whose ids are numbers in the split + 1, `annotations`, crowds included, and `categories` from 1
        on. Images and boxes are in pixels of the batch. Of images that were resized, `scale` says how many of these a
        pixel of the file became, vertically and horizontally; `area` of an annotation is in pixels of the file.
    """
    found: dict[str, Any] = {"images": [], "annotations": []}
    found["categories"] = [
        {"id": label, "name": name} for label, name in enumerate(annotations.categories, start=1)
    ]  # fmt: skip
    for image in map(int, images):
        height, width = annotations.sizes[image].tolist()
        y, x, resized = 1.0, 1.0, {}
        if sizes is not None:
            y, x = scale(annotations, image, sizes(image))
            height, width = sizes(image)
            resized = {"scale": [y, x]}
        found["images"].append({"id": image + 1, "height": height, "width": width, **resized})
        part = annotations.of(image)
        rows = zip(*(array[part].tolist() for array in _columns(annotations)), strict=True)
        for (left, top, w, h), label, area, crowd in rows:
            found["annotations"].append(
                {
                    "id": len(found["annotations"]) + 1,
                    "image_id": image + 1,
                    "category_id": label,
                    "bbox": [left * x, top * y, w * x, h * y],
                    "area": area,
                    "iscrowd": int(crowd),
                }
            )
    return found


def _columns(annotations: Annotations) -> tuple[np.ndarray, ...]:
    return annotations.boxes, annotations.labels, annotations.areas, annotations.crowd
