"""Several processes that train one net, started by torchrun. With a single process all of it does nothing.

Every process holds the whole net and reads its part of each batch; gradients are averaged by torch's
DistributedDataParallel. What is decided (masks) or written (records, states) comes from the first process. Files are
read by the first process, which tells the others: two that read the same file a moment apart may see different ones.

Two rules keep processes from waiting for each other for ever. What decides which collective comes next is told by one
process (`by_first`). What can fail in one process alone fails in all of them (`together`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ipbench.errors import BadInput

#: How long a process waits for the others: longer than any of them reads data or writes a state.
PATIENCE = timedelta(minutes=10)


class Failed(Exception):
    """Another process has failed, and says itself how."""


class Lost(BadInput):
    """Another process is gone, or has not answered for `PATIENCE`."""


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
        Lost: another process ended, or did not answer.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    local, here = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if device not in ("cpu", "cuda"):
        raise BadInput(f"--device: {device} is one device, and torchrun started several processes; give cpu or cuda")
    if device == "cuda":
        if here > torch.cuda.device_count():  # the same in all processes of this machine: none is waited for in vain
            raise BadInput(f"torchrun started {here} processes here, but there are {torch.cuda.device_count()} GPUs")
        device = f"cuda:{local}"
        torch.cuda.set_device(local)
    try:
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=PATIENCE)
        yield device
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise Lost(
                f"process {os.environ['RANK']}: another process of this training has ended or does not answer;"
                " the same call goes on where the last state was saved"
            ) from None
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


@contextmanager
def together() -> Iterator[None]:
    """What fails in one process within the block fails in all of them, at its end: none goes on alone.

    The block must not wait for other processes itself. The error is that of the first process that has one, where it is
    one of ours; else the others raise `Failed`.
    """
    error: Exception | SystemExit | None = None
    try:
        yield
    except (Exception, SystemExit) as caught:
        if processes() == 1:
            raise
        error = caught
    if processes() > 1:
        _agree(error)


@contextmanager
def agreeing() -> Iterator[None]:
    """As `together`, for a block that may wait for other processes itself: by `together`, or after `meet`."""
    error: Exception | SystemExit | None = None
    try:
        yield
    except (Exception, SystemExit) as caught:
        if processes() == 1 or getattr(caught, "agreed", False):
            raise
        error = caught
    if processes() > 1:
        _agree(error)


def meet() -> None:
    """Called before waiting for other processes inside of an `agreeing` block: raises what one of them has raised."""
    if processes() > 1:
        _agree(None)


def _agree(error: Exception | SystemExit | None) -> None:
    """Raise in every process what the first one that failed raised; return if none did."""
    lowest = torch.tensor(processes() if error is None else rank(), device=_device())
    dist.all_reduce(lowest, dist.ReduceOp.MIN)
    source = int(lowest)
    if source == processes():
        return
    name, message = _told([type(error).__name__, str(error)], source)
    if error is None or rank() != source:
        kinds = [kind for kind in _kinds(Exception) if kind.__name__ == name]
        error = kinds[0](message) if kinds else Failed(f"process {source}: {name}: {message}")
    if isinstance(error, BadInput):
        error.told = True
    error.agreed = True  # type: ignore[union-attr]
    raise error


def _kinds(base: type[Exception]) -> list[type[Exception]]:
    """The kinds of errors of this package: each is made of its message."""
    below = [kind for direct in base.__subclasses__() for kind in _kinds(direct)]
    return [base, *below] if base.__module__.startswith("ipbench.") else below


def by_first(action: Callable[[], Any]) -> Any:
    """What `action` returns in the first process, for all of them; it is called there alone, and all wait for it.

    With several processes the value goes through JSON. An error is raised in all of them, see `together`.
    """
    if processes() == 1:
        return action()
    value = None
    with together():
        value = action() if first() else None
    return _told(value, 0)


def tensors_by_first(
    read: Callable[[], tuple[dict[str, Tensor], Any] | None],
) -> tuple[dict[str, Tensor], Any] | None:
    """Tensors and plain values that the first process reads, for all of them; None if it finds nothing.

    Args:
        read: called in the first process alone; the tensors lie on the CPU.
    """
    if processes() == 1:
        return read()
    own: dict[str, Tensor] = {}

    def described() -> Any:
        if (found := read()) is None:
            return None
        own.update(found[0])
        return found[1], [(name, str(t.dtype).removeprefix("torch."), t.shape) for name, t in own.items()]

    told = by_first(described)
    if told is None:
        return None
    tensors = {}
    for name, kind, shape in told[1]:
        tensors[name] = own[name].contiguous() if first() else torch.empty(shape, dtype=getattr(torch, kind))
        tensors[name] = _bytes_from(0, tensors[name].flatten().view(torch.uint8)).view(getattr(torch, kind)).view(shape)
    return tensors, told[0]


def _told(value: Any, source: int) -> Any:
    """A plain value of one process, for all of them; what the others give is not looked at."""
    text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    size = torch.tensor(len(text), device=_device())
    dist.broadcast(size, source)
    text = text if rank() == source else torch.empty(int(size), dtype=torch.uint8)
    return json.loads(_bytes_from(source, text).numpy().tobytes())


def _bytes_from(source: int, content: Tensor) -> Tensor:
    """Bytes (n,) of one process, for all of them; on the CPU."""
    if content.numel():
        content = content.to(_device())
        dist.broadcast(content, source)
    return content.cpu()


def _device() -> torch.device:
    """Where the tensors lie that processes exchange."""
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")


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


def rows_of_all(rows: Tensor, device: torch.device) -> Tensor:
    """The rows of all processes, those of the first one first, on the CPU.

    Args:
        rows: (n, columns), as many columns everywhere.
        device: where they are exchanged.
    """
    if processes() == 1:
        return rows
    counts = [int(count) for count in gathered(torch.tensor(float(len(rows)), dtype=torch.float64, device=device))]
    padded = rows.new_zeros((max(counts), rows.shape[1]), device=device)
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([part[:count].cpu() for part, count in zip(parts, counts, strict=True)])


def averaged(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The mean of tensors over all processes, formed in double precision: equal values stay what they are."""
    if processes() == 1:
        return dict(tensors)
    return {
        name: (summed(tensor.to(torch.float64, copy=True)) / processes()).to(tensor.dtype)
        for name, tensor in tensors.items()
    }


def from_first(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The values that the first process has, written into the tensors of all others.

    For masks: processes may round sums differently, and must not prune differently. For the running statistics of
    norms: every process has seen other images.
    """
    if processes() > 1:
        for tensor in tensors.values():
            dist.broadcast(tensor.view(torch.uint8) if tensor.dtype == torch.bool else tensor, 0)
    return dict(tensors)
