"""Where and how a run is computed: device, mode, and a process in which nothing has run before."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from ipbench import methods
from ipbench.errors import BadInput
from ipbench.machine.precision import set_tf32
from ipbench.machine.process_state import reset
from ipbench.spec import Run


@dataclass(frozen=True)
class Environment:
    """Where and how a run is computed; in strict mode none of it but the device and the threads can change a number.

    Attributes:
        root: the folder of the data sets.
        device: "cpu", "cuda" or "cuda:1".
        threads: of torch on the CPU.
        loader: "memory" or "ffcv"; both give the same pixels.
        workers: threads that read images (ffcv, and folders of images).
    """

    root: Path = Path("data")
    device: str = "cpu"
    threads: int = 1
    loader: Literal["memory", "ffcv"] = "memory"
    workers: int = 1


def choose_device(wanted: str) -> str:
    """ "auto" to "cuda" if there is a GPU, else "cpu".

    Raises:
        BadInput: the device does not exist here.
    """
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise BadInput(f"unknown device {wanted!r}; valid: auto, cpu, cuda, cuda:0, cuda:1, ...") from None
    if device.type not in ("cpu", "cuda"):
        raise BadInput(f"unknown device {wanted!r}; valid: auto, cpu, cuda, cuda:0, cuda:1, ...")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BadInput(f"device {wanted!r} is not here: torch sees {torch.cuda.device_count()} GPUs")
    return wanted


def set_mode(mode: str, environment: Environment) -> None:
    """Set torch's switches for `strict` (bit-equal on one machine) or `fast`, and the GPU that this process uses."""
    strict, device = mode == "strict", torch.device(environment.device)
    if device.type == "cuda":
        torch.cuda.init()
        torch.cuda.set_device(torch.cuda.current_device() if device.index is None else device.index)
    torch.set_num_threads(environment.threads)
    # Not `use_deterministic_algorithms`: it does the same and imports torch's compiler, which takes four seconds.
    torch.set_deterministic_debug_mode("error" if strict else "default")
    # New memory would be filled with NaN, a kernel for every tensor: it finds mistakes, and changes no number.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not strict
    set_tf32(not strict, not strict)


def begin_anew(run: Run, environment: Environment) -> None:
    """Make this process one in which nothing has run before: other runs, other methods and their state."""
    reset(run.seed)
    methods.renew()
    reset(run.seed)  # a method's file may have changed something when it was run
    set_mode(run.mode, environment)


def channels_last(mode: str, environment: Environment) -> bool:
    """Whether nets and images lie in torch's channels-last memory format: faster, and sums are formed in another order.

    Always on GPUs; on CPUs in `fast` mode alone, so that strict runs stay what they were.
    """
    return mode == "fast" or torch.device(environment.device).type == "cuda"


def versions(environment: Environment) -> dict[str, Any]:
    """What one training is not continued across: the release of torch, the kind of device."""
    return {
        "torch": str(torch.__version__).partition("+")[0],
        "device": torch.device(environment.device).type,
    }
