"""How long nets take for a batch, side by side, and the memory that a forward pass needs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ipbench.sparse.measure.counting import evaluating

#: Passes of each net before anything is timed: memory is allocated, kernels are chosen.
WARM_UP = 3
#: Passes of each net that are timed, at most and at least, and the seconds after which no more than the least begin.
MOST, LEAST, SECONDS = 30, 7, 20.0


def latency(nets: Mapping[str, nn.Module], images: Tensor) -> dict[str, Any]:
    """Time forward passes of several nets in evaluation mode, in turns.

    In every repetition each net computes the same batch once, so that whatever else the machine does falls on all of
    them alike. Nothing is promised of these numbers from one machine, or moment, to the next.

    Args:
        nets: by name; on the device of `images`. Their modes are as before afterwards.
        images: a batch, of shape (N, C, H, W).

    Returns:
        `batch` (images in it), `repetitions`, `threads` (of torch on the CPU), `device`, and by name of the net
        `seconds` (median of a batch), `lower` and `upper` (quartiles), and `memory_bytes`, see `forward_memory`.
    """
    with evaluating(*nets.values()):
        for net in nets.values():
            for _ in range(WARM_UP):
                _timed(net, images)
        seconds: dict[str, list[float]] = {name: [] for name in nets}
        begin = time.perf_counter()
        for repetition in range(MOST):
            if repetition >= LEAST and time.perf_counter() - begin > SECONDS:
                break
            for name, net in nets.items():
                seconds[name].append(_timed(net, images))
        memory = {name: forward_memory(net, images) for name, net in nets.items()}
    told: dict[str, Any] = {
        "batch": len(images),
        "repetitions": len(next(iter(seconds.values()))),
        "threads": torch.get_num_threads(),
        "device": images.device.type,
    }
    for name, values in seconds.items():
        lower, median, upper = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
        told[name] = {"seconds": median, "lower": lower, "upper": upper, "memory_bytes": memory[name]}
    return told


def forward_memory(net: nn.Module, images: Tensor) -> int:
    """Bytes of the largest set of tensors that are alive at once in a forward pass: parameters, buffers, activations.

    On a GPU what torch's allocator held at most, its caches and what other nets hold left out. On the CPU the tensors
    are counted at torch's operators, each memory once, from the moment an operator returns it until nothing holds it:
    what the process is given by the system cannot be told apart by net. What operators use inside themselves is not
    seen there.

    Args:
        net: in the mode that is meant.
        images: a batch; not counted.
    """
    held = sum(_bytes(tensor) for tensor in (*net.parameters(), *net.buffers()))
    with torch.no_grad():
        if images.device.type == "cuda":
            torch.cuda.synchronize(images.device)
            before = torch.cuda.memory_allocated(images.device)
            torch.cuda.reset_peak_memory_stats(images.device)
            net(images)
            return held + torch.cuda.max_memory_allocated(images.device) - before
        watch = _Alive([*net.parameters(), *net.buffers(), images])
        with watch:
            net(images)
        return held + watch.peak


class _Alive(TorchDispatchMode):
    """Adds up the memory of the tensors that operators return, as long as it is in use.

    Attributes:
        peak: the largest sum, in bytes.
    """

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()
        self.peak = 0
        self._known = {StorageWeakRef(tensor.untyped_storage()) for tensor in known}
        self._alive: dict[StorageWeakRef, int] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch would import its compiler to keep it away from here: seconds in every process

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self._alive = {key: size for key, size in self._alive.items() if not key.expired()}
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                key = StorageWeakRef(tensor.untyped_storage())
                if key not in self._known:
                    self._alive[key] = _bytes(tensor)
        self.peak = max(self.peak, sum(self._alive.values()))
        return result


def _bytes(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes()


@torch.no_grad()
def _timed(net: nn.Module, images: Tensor) -> float:
    """Seconds of a forward pass; on a GPU until it has finished."""
    cuda = images.device.type == "cuda"
    if cuda:
        torch.cuda.synchronize(images.device)
    begin = time.perf_counter()
    net(images)
    if cuda:
        torch.cuda.synchronize(images.device)
    return time.perf_counter() - begin
