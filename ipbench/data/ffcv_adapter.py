"""What touches FFCV: writing, keyed augmentation as one of its operations, and epochs in a given order.

Import it after `beton.require`. FFCV is frozen upstream (1.0.2), and this file works around what users ran into:

* its augmentations ignore seeds: `KeyedAugmentation`, and for images that vary in size `ffcv_crop.KeyedCrop`, are pure
  functions of (seed, epoch, sample);
* its orders are its own: an `Epoch` takes the order that the run has computed;
* its iterators leave threads and buffers behind when a loop ends early: `Epoch.stop`;
* an error in its thread leaves the reader waiting for ever: `Epoch.run` hands it over;
* it sets torch's number of threads, from a thread of its own, at any time: `_set_num_threads` does not;
* its writer forks, and waits for ever for a worker that has failed: `_Writer` writes in this process;
* its writes may be cut short by a full disk without an error: `_Allocator` writes all or raises.
"""

from __future__ import annotations

import ctypes
import queue
import threading
from collections.abc import Callable, Generator, Iterable
from dataclasses import replace
from functools import lru_cache, partial
from multiprocessing import Value
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import ffcv.writer
import numba
import numpy as np
import torch
from ffcv.fields import IntField, NDArrayField, RGBImageField
from ffcv.loader import Loader, OrderOption
from ffcv.loader.epoch_iterator import EpochIterator
from ffcv.memory_allocator import MemoryAllocator
from ffcv.pipeline.allocation_query import AllocationQuery
from ffcv.pipeline.compiler import Compiler
from ffcv.pipeline.operation import Operation
from ffcv.pipeline.state import State
from ffcv.transforms import ToTensor

from ipbench.data import beton, sources
from ipbench.data.augment import DX, DY, FLIP, LEFT, TOP, Keyed
from ipbench.data.catalog import dataset
from ipbench.data.ffcv_crop import KeyedCrop, Places


class Samples(Protocol):
    """What can be written: a list, or whatever makes its elements when they are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[np.ndarray, int]: ...


class BetonPixels:
    """One split in a .beton file; implements `loaders.Pixels`.

    Attributes:
        labels: (n,) int64 of the whole split.

    Raises:
        BadInput: the file is missing.
        BadProduct: it is truncated, altered or of something else.
    """

    def __init__(self, name: str, split: sources.Split, root: Path, device: str, workers: int):
        path = beton.beton_path(name, split, root)
        beton.check(name, split, path, root)
        # numba refuses more workers than it has threads; fewer give the same batches.
        threads: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
        self._loader = _opened(name, path, path.stat().st_mtime_ns, max(1, min(workers, threads)))
        self._device = device
        self.labels = np.array(self._loader.reader.metadata["f1"], dtype=np.int64)

    def __len__(self) -> int:
        """Images of the split."""
        return len(self.labels)

    def batches(
        self, order: np.ndarray, size: int, keyed: Keyed | None
    ) -> Generator[tuple[torch.Tensor, torch.Tensor], None, None]:
        """See `loaders.Pixels.batches`."""
        epoch = Epoch(self._loader, order, size, keyed)
        try:
            for images, labels in epoch:
                # FFCV reuses its buffers: the labels are copied here, the images when they become numbers.
                yield images.to(self._device), labels[:, 0].to(self._device, copy=True)
            if epoch.error is not None:
                raise epoch.error
        finally:
            epoch.stop()


class Epoch(EpochIterator):
    """One pass over samples in a given order, in a thread of its own.

    Args:
        loader: of the file; several epochs may be under way on one.
        order: (n,) indices of samples.
        size: of a batch; the last one may be smaller.
        keyed: how to augment; None for plain images.
    """

    def __init__(self, loader: Loader, order: np.ndarray, size: int, keyed: Keyed | None):
        self.keyed = keyed
        self.error: BaseException | None = None
        loader.batch_size = size  # read by the constructor alone
        super().__init__(loader, order.astype(np.uint64))

    def run(self) -> None:
        """The body of the thread."""
        try:
            super().run()
        except BaseException as error:
            self.error = error
            self.output_queue.put(None)  # the end, for whoever waits

    def stop(self) -> None:
        """End the thread, wherever it is, and wait for it; at most one more batch is made."""
        self.iter_ixes = iter(())
        while self.is_alive():
            try:  # it may wait for room in the queue
                self.output_queue.get_nowait()
            except queue.Empty:
                self.join(0.005)
        self.close()


class KeyedAugmentation(Operation):
    """`augment.apply` as an operation of FFCV: flip, translate and cutout in one pass over the pixels.

    It is not compiled into FFCV's pipeline but calls a compiled kernel: so it can ask which epoch it works for,
    nothing is compiled again when the epoch changes, and `augment.draw` is the one place that draws. FFCV runs an
    operation in the thread that is its epoch.
    """

    def __init__(self, workers: int):
        super().__init__()
        self._kernel = _kernel(workers > 1)

    def generate_code(self) -> Callable[..., np.ndarray]:
        """The function that FFCV calls with a batch, a buffer and the indices of the samples."""
        kernel = self._kernel

        def augment(images: np.ndarray, out: np.ndarray, indices: np.ndarray) -> np.ndarray:
            epoch = threading.current_thread()
            assert isinstance(epoch, Epoch)
            if epoch.keyed is None:
                return images
            drawn = epoch.keyed.draw(indices, images.shape[1], images.shape[2])
            kernel(images, drawn, epoch.keyed.augmentation.cutout, out)
            return out

        augment.with_indices = True  # type: ignore[attr-defined]
        return augment

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, AllocationQuery]:
        """Same shape and type, a buffer of its own, not compiled by FFCV."""
        return replace(previous_state, jit_mode=False), AllocationQuery(previous_state.shape, previous_state.dtype)


def write(path: Path, samples: Samples, shape: tuple[int, int, int] | None) -> None:
    """Write a .beton file, raw bytes and labels.

    Args:
        path: where; not atomic.
        samples: images, uint8 (height, width, channels), and labels; asked for once each, one after the other.
        shape: of every image; None if they vary in size, and then they have three channels.
    """
    field = RGBImageField(write_mode="raw") if shape is None else NDArrayField(np.dtype(np.uint8), shape)
    _Writer(str(path), {"image": field, "label": IntField()}).from_indexed_dataset(samples)


class _Allocator(MemoryAllocator):
    """Writes pages through a buffer: the bare file that FFCV opens may take a part of a page and only say how much."""

    def __enter__(self) -> None:
        self.fp = Path(self.fname).open("ab")


class _Writer(ffcv.writer.DatasetWriter):
    """Writes in this process: no fork of a process with threads, an error is raised, the bytes are reproducible."""

    def _write_common(
        self, num_samples: int, queue_content: Iterable[Any], work_fn: Callable[..., None], extra_worker_args: tuple
    ) -> None:
        self.num_samples = num_samples
        self.prepare()
        # The memory to be shared with workers is not needed, and could not be freed after an error.
        shared = self.metadata_sm
        self.metadata_sm: Any = SimpleNamespace(buf=bytearray(shared.size))
        shared.close()
        shared.unlink()
        work: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for todo in [*queue_content, None]:
            work.put(todo)
        allocations: queue.SimpleQueue[Any] = queue.SimpleQueue()
        allocator = _Allocator(self.fname, self.data_region_start, self.page_size)
        done = Value(ctypes.c_uint64, 0)
        meta = (self.metadata_sm, self.metadata_type, self.fields)
        work_fn(work, *meta, allocator, done, allocations, *extra_worker_args)
        self.finalize(allocations.get())


@lru_cache(maxsize=8)
def _opened(name: str, path: Path, mtime_ns: int, workers: int) -> Loader:
    """A loader of the file, shared by all runs of a process, so that its pipeline is compiled once."""
    facts = dataset(name)
    first = []
    if facts.shorter_side is not None:
        first = [Places(), KeyedCrop(workers, facts.shape[1:], facts.shorter_side)]
    pipelines = {"image": [*first, KeyedAugmentation(workers), ToTensor()]}
    return Loader(
        str(path),
        batch_size=1,  # set by every epoch
        num_workers=workers,
        os_cache=True,
        order=OrderOption.SEQUENTIAL,
        seed=0,
        pipelines=pipelines,
        drop_last=False,
    )


@lru_cache(maxsize=2)
def _kernel(parallel: bool) -> Callable[[np.ndarray, np.ndarray, int, np.ndarray], None]:
    compiled: Callable[[np.ndarray, np.ndarray, int, np.ndarray], None]
    compiled = numba.njit(nogil=True, parallel=parallel)(_augment)
    return compiled


def _augment(images: np.ndarray, drawn: np.ndarray, side: int, out: np.ndarray) -> None:
    """`augment.apply`, pixel by pixel; compiled by numba."""
    n, height, width, channels = images.shape
    for i in numba.prange(n):
        dy, dx, top, left = drawn[i, DY], drawn[i, DX], drawn[i, TOP], drawn[i, LEFT]
        for y in range(height):
            from_y = y - dy
            row_cut = top <= y < top + side
            for x in range(width):
                from_x = x - dx
                cut = row_cut and left <= x < left + side
                if cut or from_y < 0 or from_y >= height or from_x < 0 or from_x >= width:
                    for channel in range(channels):
                        out[i, y, x, channel] = 0
                else:
                    if drawn[i, FLIP]:
                        from_x = width - 1 - from_x
                    for channel in range(channels):
                        out[i, y, x, channel] = images[i, from_y, from_x, channel]


def _set_num_threads(count: int) -> None:
    """FFCV's own, less the call that changes torch's number of threads, and with it the rounding of a training."""
    Compiler.num_threads = count
    numba.set_num_threads(count)


Compiler.set_num_threads = staticmethod(_set_num_threads)
# Its progress bar would be all that a job's log holds.
ffcv.writer.tqdm = partial(ffcv.writer.tqdm, disable=True)
