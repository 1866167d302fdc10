"""A split held in memory, on the device that trains: the default loader."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import numpy as np
import torch

from ipbench.data import augment, sources
from ipbench.data.catalog import cached_by_name


class MemoryPixels:
    """One split as bytes on a device; implements `loaders.Pixels`.

    Attributes:
        labels: (n,) int64 of the whole split.
    """

    def __init__(self, name: str, split: sources.Split, root: Path, device: str):
        self.labels = sources.load(name, split, root).labels
        self._images, self._labels = _held(name, split, root, device)

    def __len__(self) -> int:
        """Images of the split."""
        return len(self.labels)

    def batches(
        self, order: np.ndarray, size: int, keyed: augment.Keyed | None
    ) -> Generator[tuple[torch.Tensor, torch.Tensor], None, None]:
        """See `loaders.Pixels.batches`."""
        _, height, width, _ = self._images.shape
        # One transfer an epoch, none a batch: on a GPU the loop never waits for the host.
        where = torch.from_numpy(order).to(self._images.device)
        drawn = None
        if keyed is not None:
            drawn = torch.from_numpy(keyed.draw(order, height, width)).to(self._images.device)
        for start in range(0, len(order), size):
            part = slice(start, start + size)
            images = self._images.index_select(0, where[part])
            if keyed is not None and drawn is not None:
                images = augment.apply(images, drawn[part], keyed.augmentation)
            yield images, self._labels.index_select(0, where[part])


@cached_by_name(8)
def _held(name: str, split: sources.Split, root: Path, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and labels on the device, shared by all runs of a process: fused jobs train many seeds."""
    images, labels = sources.load(name, split, root)
    return torch.tensor(images, device=device), torch.tensor(labels, device=device)
