"""A split that is a folder of image files, decoded by threads while the net trains."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from ipbench.data import augment, crops, image_folder, own_images
from ipbench.data.catalog import dataset
from ipbench.data.sources import Split

#: Batches that are prepared before they are asked for.
AHEAD = 2


class FolderPixels:
    """One split, read from its files in every epoch; implements `loaders.Pixels`.

    Args:
        name: of a data set that is a folder.
        split: "train" or "test".
        root: the data folder.
        device: where the batches go.
        workers: threads that decode.

    Attributes:
        labels: (n,) int64 of the whole split.

    Raises:
        BadInput: the folder is missing.
        BadProduct: it is not laid out as it should be; while batches are read: a file is broken.
    """

    def __init__(self, name: str, split: Split, root: Path, device: str, workers: int):
        facts = dataset(name)
        assert facts.shorter_side is not None
        self._listing = own_images.listing(facts, split) if facts.own else image_folder.listing(name, split, root)
        self._channels, self._shape, self._shorter_side = facts.shape[0], facts.shape[1:], facts.shorter_side
        self._device, self._workers = device, workers
        self.labels = self._listing.labels

    def __len__(self) -> int:
        """Images of the split."""
        return len(self.labels)

    def batches(
        self, order: np.ndarray, size: int, keyed: augment.Keyed | None
    ) -> Generator[tuple[torch.Tensor, torch.Tensor], None, None]:
        """See `loaders.Pixels.batches`."""
        one = partial(self._one, keyed=keyed)
        with closing(image_folder.in_order(one, order.tolist(), self._workers, AHEAD * size)) as decoded:
            for start in range(0, len(order), size):
                part = order[start : start + size]
                images = torch.from_numpy(np.stack(list(islice(decoded, len(part))))).to(self._device)
                if keyed is not None:
                    drawn = torch.from_numpy(keyed.draw(part, self._shape[0], self._shape[1])).to(self._device)
                    images = augment.apply(images, drawn, keyed.augmentation)
                yield images, torch.from_numpy(self.labels[part]).to(self._device)

    def _one(self, index: int, keyed: augment.Keyed | None) -> np.ndarray:
        """The crop of one sample, uint8 (height, width, channels)."""
        pixels = image_folder.read(self._listing.path(index), self._shorter_side)[..., : self._channels]
        heights, widths = (np.array([side]) for side in pixels.shape[:2])
        ((top, left, height, width),) = crops.draw(np.array([index]), keyed, heights, widths, self._shape).tolist()
        part = pixels[top : top + height, left : left + width]
        # A copy, where nothing is to be resized: a part would keep the whole image in memory.
        return np.ascontiguousarray(crops.resize(part, self._shape, crops.longest(self._shorter_side)))
