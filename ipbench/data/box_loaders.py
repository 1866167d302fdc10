"""Splits whose images come with boxes, for detection: scenes held in memory, and COCO's folder of image files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ipbench.data import augment, boxes, coco_folder, image_folder, scenes
from ipbench.data.boxes import Target
from ipbench.data.catalog import dataset
from ipbench.data.coco import Annotations
from ipbench.data.folder_loader import AHEAD
from ipbench.data.sources import Split


class Found(NamedTuple):
    """A batch before its images are normalised."""

    images: torch.Tensor
    """uint8 (n, height, width, channels); what is beyond the size of an image is zero"""
    labels: torch.Tensor
    """int64 (0,): an image has no label"""
    targets: tuple[Target, ...]
    indices: torch.Tensor
    sizes: tuple[tuple[int, int], ...]


class Boxes(ABC):
    """One split of a data set for detection, wherever it lies.

    Attributes:
        annotations: of the whole split.
    """

    annotations: Annotations

    def __len__(self) -> int:
        """Images of the split."""
        return len(self.annotations)

    @abstractmethod
    def batches(self, order: np.ndarray, size: int, keyed: augment.Keyed | None) -> Generator[Found, None, None]:
        """See `loaders.Pixels.batches`."""

    @abstractmethod
    def truth(self, order: np.ndarray) -> dict[str, Any]:
        """See `boxes.truth`."""


class MemoryBoxes(Boxes):
    """One split of `fashion-scenes` as bytes on a device."""

    def __init__(self, split: Split, root: Path, device: str):
        self.annotations = scenes.load(split, root).annotations
        self._images, self._targets = _held(split, root, device)
        self._device = device

    def batches(self, order: np.ndarray, size: int, keyed: augment.Keyed | None) -> Generator[Found, None, None]:
        """See `loaders.Pixels.batches`."""
        _, height, width, _ = self._images.shape
        where = torch.from_numpy(order).to(self._device)
        drawn = keyed.draw(order, height, width) if keyed else np.zeros((len(order), augment.COLUMNS), dtype=np.int64)
        on_device = torch.from_numpy(drawn).to(self._device)
        for start in range(0, len(order), size):
            part = slice(start, start + size)
            images = self._images.index_select(0, where[part])
            if keyed is not None:
                images = augment.apply(images, on_device[part], keyed.augmentation)
            targets = [self._targets[index] for index in order[part].tolist()]
            targets = _flipped(targets, drawn[part, augment.FLIP], [width] * len(targets))
            yield _found(images, targets, order[part], [(height, width)] * len(targets), self._device)

    def truth(self, order: np.ndarray) -> dict[str, Any]:
        """See `boxes.truth`."""
        return boxes.truth(self.annotations, order.tolist())


@lru_cache(maxsize=4)
def _held(split: Split, root: Path, device: str) -> tuple[torch.Tensor, list[Target]]:
    """Images on the device, and targets on the CPU, shared by all runs of a process."""
    found = scenes.load(split, root)
    targets = [boxes.target(found.annotations, image) for image in range(len(found.annotations))]
    return torch.tensor(found.images, device=device), targets


class FolderBoxes(Boxes):
    """One split of COCO, read from its files in every epoch.

    Every image is resized whole, so that its shorter side has `shorter_side` pixels, or its longer one `longer_side`;
    batches are padded on the right and at the bottom.

    Raises:
        BadInput: the folder or the annotations are missing.
        BadProduct: they are not as they should be; while batches are read: a file is broken, or of another size than
            its annotations say.
    """

    def __init__(self, name: str, split: Split, root: Path, device: str, workers: int):
        self._facts = dataset(name)
        self._listing = coco_folder.listing(name, split, root)
        self.annotations = self._listing.annotations
        self._device, self._workers = device, workers

    def batches(self, order: np.ndarray, size: int, keyed: augment.Keyed | None) -> Generator[Found, None, None]:
        """See `loaders.Pixels.batches`."""
        drawn = keyed.draw(order, *self._facts.shape[1:]) if keyed else np.zeros((len(order), augment.COLUMNS))
        read = partial(coco_folder.read, self._listing, self._facts)
        with closing(image_folder.in_order(read, order.tolist(), self._workers, AHEAD * size)) as decoded:
            for start in range(0, len(order), size):
                part, flips = order[start : start + size], drawn[start : start + size, augment.FLIP]
                pixels = list(islice(decoded, len(part)))
                sizes = [(one.shape[0], one.shape[1]) for one in pixels]
                targets = [
                    boxes.target(self.annotations, index, one) for index, one in zip(part.tolist(), sizes, strict=True)
                ]
                targets = _flipped(targets, flips, [width for _, width in sizes])
                images = _padded(pixels, flips, self._facts.multiple)
                yield _found(torch.from_numpy(images).to(self._device), targets, part, sizes, self._device)

    def truth(self, order: np.ndarray) -> dict[str, Any]:
        """See `boxes.truth`."""
        return boxes.truth(
            self.annotations, order.tolist(), lambda image: coco_folder.size(self._listing, self._facts, image)
        )


def opened(name: str, split: Split, root: Path, device: str, workers: int) -> Boxes:
    """One split of a data set for detection.

    Raises:
        BadInput, BadProduct: it is missing, or broken; the message names the file.
    """
    if name == scenes.NAME:
        return MemoryBoxes(split, root, device)
    return FolderBoxes(name, split, root, device, workers)


def _flipped(targets: Sequence[Target], flips: np.ndarray, widths: Iterable[int]) -> list[Target]:
    together = zip(targets, flips.tolist(), widths, strict=True)
    return [boxes.mirrored(one, width) if flip else one for one, flip, width in together]


def _padded(pixels: Sequence[np.ndarray], flips: np.ndarray, multiple: int) -> np.ndarray:
    """One array of images of different sizes, zeros on the right and at the bottom; some of them mirrored first."""
    height, width = (-(-max(one.shape[axis] for one in pixels) // multiple) * multiple for axis in (0, 1))
    images = np.zeros((len(pixels), height, width, pixels[0].shape[2]), dtype=np.uint8)
    for image, one, flip in zip(images, pixels, flips.tolist(), strict=True):
        image[: one.shape[0], : one.shape[1]] = one[:, ::-1] if flip else one
    return images


def _found(
    images: torch.Tensor, targets: Sequence[Target], order: np.ndarray, sizes: Sequence[tuple[int, int]], device: str
) -> Found:
    labels = torch.empty(0, dtype=torch.int64, device=device)
    return Found(images, labels, boxes.moved(targets, device), torch.tensor(order, device=device), tuple(sizes))
