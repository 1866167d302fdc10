"""From an image of any size to one of a data set's shape: which part of it, and its resize, exactly.

`draw` decides on rectangles as a pure function of (seed, epoch, sample), `resize` brings a rectangle to the wanted
size. Both are exact: integers, or float64 operations that IEEE 754 rounds correctly (+, -, *, /, sqrt). So every
machine and every loader gives the same bytes; FFCV's loader has a compiled twin of `resize` (`ffcv_crop`), which uses
the same `taps`.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ipbench import keys
from ipbench.data import augment

#: The columns of what `draw` returns.
TOP, LEFT, HEIGHT, WIDTH = range(4)

#: Of a random crop, as is usual on ImageNet: smallest area as a share of the image; then its aspect ratio (width by
#: height) is from 3/4 to 4/3, log-uniform; after so many tries that do not fit, the middle of the image is taken.
SMALLEST = 0.08
TRIES = 10
_LOG_RATIO = 0.2876820724517809  # log(4/3)

# Which random bits of a sample serve what; the numbers before these are `augment`'s.
_TOP_BITS, _LEFT_BITS, _FIRST_TRY = (augment.COLUMNS + place for place in range(3))


def draw(
    indices: np.ndarray,
    keyed: augment.Keyed | None,
    heights: np.ndarray,
    widths: np.ndarray,
    shape: tuple[int, int],
) -> np.ndarray:
    """Decide which part of each image is seen.

    Args:
        indices: (n,) indices of samples in the data set.
        keyed: how to augment; the middle of the image if it is None or has no random crop.
        heights: (n,) of the images, in pixels, `shape` at least.
        widths: like `heights`.
        shape: (height, width) of the crop from the middle.

    Returns:
        int64 (n, 4): `TOP` and `LEFT` corner, `HEIGHT` and `WIDTH` of rectangles inside the images.
    """
    heights, widths = heights.astype(np.int64), widths.astype(np.int64)
    if keyed is None or not keyed.augmentation.random_resized_crop:
        high, wide = (np.full(len(indices), side, dtype=np.int64) for side in shape)
        return np.stack([(heights - high) // 2, (widths - wide) // 2, high, wide], axis=1)
    base = keys.key(keyed.seed, "augmentation", keyed.epoch)
    high, wide, found = _sizes(base, indices, heights, widths)
    top = np.where(found, augment.below(heights - high + 1, base, indices, _TOP_BITS), (heights - high) // 2)
    left = np.where(found, augment.below(widths - wide + 1, base, indices, _LEFT_BITS), (widths - wide) // 2)
    return np.stack([top, left, high, wide], axis=1)


def longest(shorter_side: int) -> int:
    """No side of a random crop of an image with that shorter side is longer, in pixels: 4/3 of it, and rounding."""
    return 4 * shorter_side // 3 + 3


def _sizes(
    base: int, indices: np.ndarray, heights: np.ndarray, widths: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Heights, widths, and whether a try has found them; else they are those of the middle."""
    # The largest rectangle of a ratio in range; 4/3 of an integer is never halfway between two.
    high = np.where(4 * widths < 3 * heights, (8 * widths + 3) // 6, heights)
    wide = np.where(3 * widths > 4 * heights, (8 * heights + 3) // 6, widths)
    found = np.zeros(len(indices), dtype=bool)
    areas = (heights * widths).astype(np.float64)
    for number in range(_FIRST_TRY, _FIRST_TRY + 2 * TRIES, 2):
        area = areas * (SMALLEST + (1 - SMALLEST) * _fraction(base, indices, number))
        ratio = _exp(_LOG_RATIO * (2 * _fraction(base, indices, number + 1) - 1))
        w = np.rint(np.sqrt(area * ratio)).astype(np.int64)
        h = np.rint(np.sqrt(area / ratio)).astype(np.int64)
        fits = ~found & (w > 0) & (w <= widths) & (h > 0) & (h <= heights)
        high, wide = np.where(fits, h, high), np.where(fits, w, wide)
        found |= fits
        if found.all():
            break
    return high, wide, found


def _fraction(base: int, indices: np.ndarray, number: int) -> np.ndarray:
    """(n,) float64 from 0 up to, not including, 1: the high 53 bits."""
    return (keys.indexed_bits(base, indices, number) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _exp(x: np.ndarray) -> np.ndarray:
    """e^x for |x| < 0.3, to the last bits: its series. numpy's own differs in the last bit between processors."""
    result = np.ones_like(x)
    for n in range(14, 0, -1):
        result = 1 + result * x / n
    return result


class Taps(NamedTuple):
    """What every output position of a resize sums up, for input sizes 0, 1, 2, ... (0 stands for nothing).

    Output position o of an input of size s is the sum over t of `weight[s, o, t]` times the pixel
    `source[s, o, t]`, divided by `total[s, o]`.
    """

    source: np.ndarray
    """int64 (sizes, out, taps)"""
    weight: np.ndarray
    """float32 (sizes, out, taps): integers, 0 or more"""
    total: np.ndarray
    """float32 (sizes, out): the sum of the weights"""
    used: np.ndarray
    """int64 (sizes,): how many taps have a weight above 0 anywhere"""


@lru_cache(maxsize=8)
def taps(out: int, largest: int) -> Taps:
    """The triangle filter, as integers.

    This is bilinear interpolation where an image is enlarged; where it is reduced by a factor f, the triangle is f
    times as wide, so that no pixel is skipped. Input pixel k lies at (2k + 1) / (2 s), output pixel o at
    (2o + 1) / (2 out), and the weight falls linearly to 0 at a distance of max(1 / s, 1 / out). All times 2 s out, the
    weights are the integers max(0, 2 max(s, out) - |(2k + 1) out - (2o + 1) s|).

    Args:
        out: output size in pixels.
        largest: tables are made for inputs up to this size in pixels.

    Raises:
        ValueError: sums over a column of pixels could reach 2^24, from where on float32 does not hold all integers.
    """
    sizes = np.arange(largest + 1, dtype=np.int64)[:, None, None]
    centre = (2 * np.arange(out, dtype=np.int64)[:, None] + 1) * sizes
    reach = 2 * np.maximum(sizes, out)
    first = np.maximum((centre - reach - out) // (2 * out) + 1, 0)
    source = first + np.arange(math.ceil(2 * max(largest, out) / out))
    weight = np.maximum(reach - np.abs((2 * source + 1) * out - centre), 0) * (source < sizes)
    source = np.minimum(source, np.maximum(sizes - 1, 0))
    used = (weight > 0).any(axis=1).sum(axis=1)
    total = weight.sum(axis=2)
    if 255 * total.max() >= 2**24:
        raise ValueError(f"a resize from {largest} to {out} pixels: its sums are no longer exact in float32")
    tables = Taps(source, weight.astype(np.float32), total.astype(np.float32), used)
    for array in tables:
        array.setflags(write=False)
    return tables


def resize(pixels: np.ndarray, shape: tuple[int, int], largest: int) -> np.ndarray:
    """Resize an image by the triangle filter (`taps`), each pixel rounded once, half up: there is one right answer.

    Args:
        pixels: uint8 (height, width, channels), with sides of 1 to `largest`.
        shape: (height, width) of the result.
        largest: as for `taps`, whose tables are made once.

    Returns:
        uint8 (*shape, channels); an image of that shape is returned as it is.
    """
    height, width, channels = pixels.shape
    if (height, width) == shape:
        return pixels
    down, across = taps(shape[0], largest), taps(shape[1], largest)
    rows = pixels.reshape(height, width * channels).astype(np.float32)
    tall = np.zeros((shape[0], width * channels), dtype=np.float32)
    for t in range(down.used[height]):
        tall += rows[down.source[height, :, t]] * down.weight[height, :, t, None]
    # Channels lie beside each other in a row of numbers: numpy is slow where the innermost axis is short.
    columns = tall.astype(np.float64)
    wide = np.zeros((shape[0], shape[1] * channels))
    for t in range(across.used[width]):
        places = across.source[width, :, t, None] * channels + np.arange(channels)
        wide += columns.take(places.ravel(), axis=1) * across.weight[width, :, t].repeat(channels)
    total = down.total[height][:, None] * across.total[width].astype(np.float64).repeat(channels)
    # A quotient of such integers is never rounded up to the next one.
    return ((2 * wide + total) / (2 * total)).astype(np.uint8).reshape(*shape, channels)
