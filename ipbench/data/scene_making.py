"""Scenes for detection, made of real images: garments of Fashion-MNIST, of different sizes, on one canvas.

What a scene shows is a function of its number and of the images alone, in whole numbers, so that every machine makes
the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np

from ipbench import keys

#: Pixels of a side of a scene.
CANVAS = 96
#: Garments in a scene.
FEWEST, MOST = 2, 5
#: Pixels of a side that an image of a garment is resized to; the garment itself fills a part of it.
SMALLEST, LARGEST = 16, 44
#: Two boxes of a scene share at most 1 / `OVERLAP` of the smaller one.
OVERLAP = 5
#: How often a garment, its size and its place are drawn before a scene stays without it.
TRIES = 50
#: What Fashion-MNIST calls its classes 0 to 9.
NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


class Scene(NamedTuple):
    """One scene."""

    image: np.ndarray
    """uint8 (CANVAS, CANVAS)"""
    boxes: list[tuple[int, int, int, int]]
    """x, y, width, height: the pixels of the garment that are not zero touch all four sides"""
    classes: list[int]
    """0 to 9"""


def scenes(count: int, split: Literal["train", "test"], images: np.ndarray, labels: np.ndarray) -> Iterator[Scene]:
    """The scenes of one split.

    Args:
        count: how many.
        split: scenes of the two splits are drawn independently.
        images: uint8 (n, side, side): the garments to choose from.
        labels: (n,) their classes.
    """
    for number in range(count):
        yield _scene(_Draws(keys.key(0, "scenes", split, number)), images, labels)


def described(found: list[Scene], array: str) -> dict[str, Any]:
    """Images, annotations and categories of scenes in COCO's format.

    Args:
        found: the scenes of one split.
        array: name of the file that holds all their pixels, one after the other.
    """
    rows = [(image, *row) for image, scene in enumerate(found) for row in zip(scene.boxes, scene.classes, strict=True)]
    return {
        "images": [
            {"id": number + 1, "file_name": f"{array}:{number}", "width": CANVAS, "height": CANVAS}
            for number in range(len(found))
        ],
        "annotations": [
            {
                "id": number,
                "image_id": image + 1,
                "category_id": kind + 1,
                "bbox": list(box),
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            for number, (image, box, kind) in enumerate(rows, start=1)
        ],
        "categories": [{"id": kind + 1, "name": name} for kind, name in enumerate(NAMES)],
    }


class _Draws:
    """The random numbers of one scene, one after the other."""

    def __init__(self, base: int) -> None:
        bits = keys.indexed_bits(base, np.arange(1 + MOST * TRIES * 4)) >> np.uint64(32)
        self._bits = iter(bits.tolist())

    def below(self, n: int) -> int:
        """A whole number from 0 up to, not including, n: 32 bits as a fraction, times n."""
        return (next(self._bits) * n) >> 32


def _scene(draws: _Draws, images: np.ndarray, labels: np.ndarray) -> Scene:
    scene = Scene(np.zeros((CANVAS, CANVAS), dtype=np.uint8), [], [])
    for _ in range(FEWEST + draws.below(MOST - FEWEST + 1)):
        for _ in range(TRIES):
            chosen, side = draws.below(len(labels)), SMALLEST + draws.below(LARGEST - SMALLEST + 1)
            left, top = draws.below(CANVAS - side + 1), draws.below(CANVAS - side + 1)
            garment = resized(images[chosen], side)
            rows, columns = np.flatnonzero(garment.any(1)), np.flatnonzero(garment.any(0))
            if not len(rows):
                continue
            x, y = left + int(columns[0]), top + int(rows[0])
            box = x, y, int(columns[-1] - columns[0]) + 1, int(rows[-1] - rows[0]) + 1
            if not any(_overlap(box, other) for other in scene.boxes):
                part = scene.image[top : top + side, left : left + side]
                np.maximum(part, garment, out=part)
                scene.boxes.append(box)
                scene.classes.append(int(labels[chosen]))
                break
    return scene


def _overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    """Whether two boxes share more than 1 / `OVERLAP` of the smaller one."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    shared = max(0, width) * max(0, height)
    return shared * OVERLAP > min(one[2] * one[3], other[2] * other[3])


def resized(image: np.ndarray, side: int) -> np.ndarray:
    """A square image brought to `side` x `side` pixels with a triangle as kernel, as wide as the coarser grid.

    Args:
        image: uint8 (n, n).
        side: in pixels.

    Returns:
        uint8 (side, side), in whole numbers throughout, rounded half up.
    """
    weights = _weights(len(image), side)
    totals = weights.sum(1)[:, None] * weights.sum(1)
    rounded: np.ndarray = (2 * (weights @ image.astype(np.int64) @ weights.T) + totals) // (2 * totals)
    return rounded.astype(np.uint8)


@cache
def _weights(before: int, after: int) -> np.ndarray:
    """int64 (after, before): what a pixel of the finer or coarser grid takes of each pixel, not yet divided.

    Distances of the centres of pixels are measured in 1 / (2 after) of a pixel of `before`.
    """
    centres = (2 * np.arange(after) + 1) * before
    distances = np.abs((2 * np.arange(before) + 1) * after - centres[:, None])
    return np.maximum(0, 2 * max(before, after) - distances)
