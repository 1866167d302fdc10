"""Images that vary in size, in FFCV: `KeyedCrop` is `crops` as one of its operations.

FFCV compiles a decoder, and a compiled one cannot know which epoch it works for. So the decoder here (`Places`) only
hands on which samples are wanted, and the operation behind it reads them from the mapped file: it runs in the thread
that is its epoch, as `ffcv_adapter.KeyedAugmentation` does, and calls a kernel that is compiled once per process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numba
import numpy as np
from ffcv.fields.rgb_image import SimpleRGBImageDecoder
from ffcv.pipeline.allocation_query import AllocationQuery
from ffcv.pipeline.operation import Operation
from ffcv.pipeline.state import State

from ipbench.data import crops
from ipbench.data.crops import HEIGHT, LEFT, TOP, WIDTH


class Places(SimpleRGBImageDecoder):
    """The decoder that `KeyedCrop` needs before it: it reads no pixel."""

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, None]:
        """No memory: its result is the indices of the samples."""
        return replace(previous_state, jit_mode=True), None

    def generate_code(self) -> Callable[..., np.ndarray]:
        """The function that FFCV compiles."""

        def decode(batch_indices, _memory, _metadata, _storage_state):  # type: ignore[no-untyped-def]
            return batch_indices

        return decode


class KeyedCrop(Operation):
    """Reads a part of each image, chosen by `crops.draw`, and brings it to one shape as `crops.resize` does.

    Args:
        workers: whether the kernel is a parallel one.
        shape: (height, width) of the result.
        shorter_side: of the images in the file, in pixels.
    """

    def __init__(self, workers: int, shape: tuple[int, int], shorter_side: int):
        super().__init__()
        self._kernel = _kernel(workers > 1)
        self._shape, self._largest = shape, crops.longest(shorter_side)

    def generate_code(self) -> Callable[..., np.ndarray]:
        """The function that FFCV calls with the result of `Places`, a buffer and the indices of the samples."""
        kernel, shape, images = self._kernel, self._shape, self.metadata
        down, across = (crops.taps(side, self._largest) for side in shape)

        def crop(_places: np.ndarray, out: np.ndarray, indices: np.ndarray) -> np.ndarray:
            epoch: Any = threading.current_thread()  # an ffcv_adapter.Epoch
            chosen = images[indices]
            parts = crops.draw(indices, epoch.keyed, chosen["height"], chosen["width"], shape)
            file = np.asarray(epoch.storage_state[0])
            kernel(
                file, chosen["data_ptr"].astype(np.int64), chosen["width"].astype(np.int64), parts, down, across, out
            )
            return out

        crop.with_indices = True  # type: ignore[attr-defined]
        return crop

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, AllocationQuery]:
        """Images of one shape, in a buffer of its own; not compiled by FFCV."""
        shape, dtype = (*self._shape, 3), np.dtype(np.uint8)
        return replace(previous_state, jit_mode=False, shape=shape, dtype=dtype), AllocationQuery(shape, dtype)


@lru_cache(maxsize=2)
def _kernel(parallel: bool) -> Callable[..., None]:
    # Without fastmath: it would let a quotient be a product with the reciprocal, which is not exact.
    compiled: Callable[..., None] = numba.njit(nogil=True, parallel=parallel, error_model="numpy")(_crop_and_resize)
    return compiled


def _crop_and_resize(
    file: np.ndarray,
    starts: np.ndarray,
    widths: np.ndarray,
    parts: np.ndarray,
    down: crops.Taps,
    across: crops.Taps,
    out: np.ndarray,
) -> None:
    """`crops.resize` of parts of images; compiled by numba.

    Args:
        file: uint8, the whole .beton file.
        starts: int64 (n,) where in it each image begins.
        widths: int64 (n,) of the images, in pixels.
        parts: int64 (n, 4) of `crops.draw`.
        down: the taps of the height of `out`.
        across: the taps of its width.
        out: uint8 (n, height, width, 3), written.
    """
    n, out_height, out_width, _ = out.shape
    for i in numba.prange(n):
        height, width = parts[i, HEIGHT], parts[i, WIDTH]
        stride = 3 * widths[i]
        corner = starts[i] + parts[i, TOP] * stride + 3 * parts[i, LEFT]
        row = np.empty(3 * width, dtype=np.float32)
        sources, weights, totals = across.source[width], across.weight[width], across.total[width]
        for y in range(out_height):
            row[:] = 0
            for t in range(down.used[height]):
                weight = down.weight[height, y, t]
                begin = corner + down.source[height, y, t] * stride
                line = file[begin : begin + 3 * width]
                for x in range(3 * width):
                    row[x] += weight * np.float32(line[x])
            for x in range(out_width):
                total = np.float64(down.total[height, y]) * np.float64(totals[x])
                red = green = blue = total
                for t in range(across.used[width]):
                    at, twice = 3 * sources[x, t], 2 * np.float64(weights[x, t])
                    red += twice * np.float64(row[at])
                    green += twice * np.float64(row[at + 1])
                    blue += twice * np.float64(row[at + 2])
                out[i, y, x, 0] = np.uint8(red / (2 * total))
                out[i, y, x, 1] = np.uint8(green / (2 * total))
                out[i, y, x, 2] = np.uint8(blue / (2 * total))
