"""Keyed augmentation: what happens to sample i in epoch e is a pure function of (seed, e, i).

`draw` decides, `apply` changes the pixels of a batch. Both work on integers alone, so every loader, device and number
of workers gives the same bytes. What comes before, the random crop of images that vary in size, is in `crops`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from ipbench import keys
from ipbench.spec import Augmentation

#: The columns of what `draw` returns.
FLIP, DY, DX, TOP, LEFT = range(5)
COLUMNS = 5


class Keyed(NamedTuple):
    """The augmentation of one epoch of one run."""

    augmentation: Augmentation
    seed: int
    epoch: int

    def draw(self, indices: np.ndarray, height: int, width: int) -> np.ndarray:
        """`draw` for samples of this epoch."""
        return draw(indices, self.seed, self.epoch, self.augmentation, height, width)


def draw(indices: np.ndarray, seed: int, epoch: int, augmentation: Augmentation, height: int, width: int) -> np.ndarray:
    """Decide how samples are augmented.

    Every column has random bits of its own: switching one part of the augmentation on or off changes no other.

    Args:
        indices: (n,) indices of samples in the data set.
        seed: the run's.
        epoch: 0, 1, ...
        augmentation: what is on.
        height: of the images, in pixels.
        width: like `height`.

    Returns:
        int64 (n, 5): `FLIP` 0 or 1; `DY`, `DX` from -translate to translate; `TOP`, `LEFT` the corner of the cutout,
        whose centre is uniform over the image, so that it may begin before the border.
    """
    base = keys.key(seed, "augmentation", epoch)
    result = np.zeros((len(indices), COLUMNS), dtype=np.int64)
    if augmentation.flip:
        result[:, FLIP] = below(2, base, indices, FLIP)
    if augmentation.translate:
        reach = augmentation.translate
        for column in (DY, DX):
            result[:, column] = below(2 * reach + 1, base, indices, column) - reach
    if augmentation.cutout:
        for column, extent in ((TOP, height), (LEFT, width)):
            result[:, column] = below(extent, base, indices, column) - augmentation.cutout // 2
    return result


def below(n: int | np.ndarray, base: int, indices: np.ndarray, number: int) -> np.ndarray:
    """Integers from 0 up to, not including, `n` (far below 2^32): the high 32 bits as a fraction, times n.

    Not `bits % n`; the shares of two values differ by less than n / 2^32.

    Args:
        n: one for all samples, or (n,) one for each.
        base: the key of the epoch.
        indices: (n,) of the samples.
        number: which of a sample's random bits: its own for every use.
    """
    high = keys.indexed_bits(base, indices, number) >> np.uint64(32)
    return ((high * np.asarray(n, dtype=np.uint64)) >> np.uint64(32)).astype(np.int64)


def apply(images: torch.Tensor, drawn: torch.Tensor, augmentation: Augmentation) -> torch.Tensor:
    """Flip, then translate with zeros moving in, then cut out a square of zeros.

    Args:
        images: uint8 (n, height, width, channels), on any device; left as they are.
        drawn: int64 (n, 5) of `draw`, on the same device.
        augmentation: what is on.

    Returns:
        uint8, of the shape of `images`; `images` itself if nothing is on.
    """
    if augmentation.flip:
        flip = drawn[:, FLIP].bool()[:, None, None, None]
        images = torch.where(flip, images.flip(2), images)
    if augmentation.translate:
        images = _translate(images, drawn[:, DY], drawn[:, DX], augmentation.translate)
    if augmentation.cutout:
        images = _cut_out(images, drawn[:, TOP], drawn[:, LEFT], augmentation.cutout)
    return images


def _translate(images: torch.Tensor, dy: torch.Tensor, dx: torch.Tensor, reach: int) -> torch.Tensor:
    """Move every image down by its `dy` and right by its `dx`, both at most `reach` in size.

    In a batch padded with zeros, a row of the result is one contiguous piece: choosing pieces instead of pixels makes
    this several times as fast as indexing by coordinates.
    """
    n, height, width, channels = images.shape
    padded = images.new_zeros(n, height + 2 * reach, width + 2 * reach, channels)
    padded[:, reach : reach + height, reach : reach + width] = images
    row = (width + 2 * reach) * channels
    first = torch.arange(n, device=images.device) * (height + 2 * reach) + (reach - dy)
    starts = (first[:, None] + torch.arange(height, device=images.device)) * row + (reach - dx)[:, None] * channels
    pieces = padded.view(-1).unfold(0, width * channels, 1)
    return pieces.index_select(0, starts.flatten()).view(n, height, width, channels)


def _cut_out(images: torch.Tensor, top: torch.Tensor, left: torch.Tensor, side: int) -> torch.Tensor:
    """Set to zero what lies in the square of that corner and side."""
    n, height, width, channels = images.shape
    rows = _outside(top, side, height)
    columns = _outside(left, side, width).repeat_interleave(channels, 1)
    # Whole rows of bytes, and a product instead of a mask: several times as fast on a CPU.
    keep = (rows[:, :, None] | columns[:, None, :]).view(torch.uint8)
    return (images.reshape(n, height, width * channels) * keep).view(images.shape)


def _outside(start: torch.Tensor, side: int, extent: int) -> torch.Tensor:
    """(n, extent) bool: all positions but those from `start` up to, not including, `start + side`."""
    position = torch.arange(extent, device=start.device)
    return (position < start[:, None]) | (position >= start[:, None] + side)
