"""Several processes that train one net, started by torchrun (floor 1). With a single process all of it does nothing.

Every process holds the whole net and reads its part of each batch; gradients are averaged by torch's
DistributedDataParallel. What is decided (masks) or written (records, states) comes from the first process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ipbench.errors import BadInput


def processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def first() -> bool:
    """Whether this process is the one that writes."""
    return rank() == 0


@contextmanager
def joined(device: str) -> Iterator[str]:
    """Join the other processes that torchrun started, for the length of the block.

    Args:
        device: "cpu" or "cuda"; every process takes the GPU of its local rank.

    Yields:
        The device of this process.

    Raises:
        BadInput: one GPU was named for several processes, or there are fewer GPUs than processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    local = int(os.environ["LOCAL_RANK"])
    if device not in ("cpu", "cuda"):
        raise BadInput(f"--device: {device} is one device, and torchrun started several processes; give cpu or cuda")
    if device == "cuda":
        if local >= torch.cuda.device_count():
            raise BadInput(f"torchrun started process {local} here, but there are {torch.cuda.device_count()} GPUs")
        device = f"cuda:{local}"
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def averaging(net: nn.Module) -> nn.Module:
    """`net`, or with several processes a wrapper whose backward pass averages the gradients over them."""
    if processes() == 1:
        return net
    device = next(net.parameters()).device
    return nn.parallel.DistributedDataParallel(net, device_ids=[device] if device.type == "cuda" else None)


def summed(values: Tensor) -> Tensor:
    """The sum over all processes, in place."""
    if processes() > 1:
        dist.all_reduce(values)
    return values


def gathered(value: Tensor) -> list[float]:
    """A number of every process, in the order of their ranks."""
    if processes() == 1:
        return [float(value)]
    values = [torch.empty_like(value) for _ in range(processes())]
    dist.all_gather(values, value)
    return [float(number) for number in values]


def from_first(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The values that the first process has, written into the tensors of all others.

    For masks: processes may round sums differently, and must not prune differently. For the running statistics of
    norms: every process has seen other images.
    """
    if processes() > 1:
        for tensor in tensors.values():
            dist.broadcast(tensor.view(torch.uint8) if tensor.dtype == torch.bool else tensor, 0)
    return dict(tensors)


def wait() -> None:
    """Until all processes are here: what the first one wrote is there then."""
    if processes() > 1:
        dist.barrier()
