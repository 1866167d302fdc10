"""What a process carries on from one run to the next: torch's switches and the global generators.

A run must not find what another one left there, and a method's code must leave nothing there: after a resume it is not
run again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ipbench import keys
from ipbench.machine import stopping

#: Switches that change numbers: how they are read and set, and what they are when a run begins. The number of threads
#: and the deterministic algorithms are of the run's mode and environment.
_SWITCHES: tuple[tuple[Callable[[], Any], Callable[[Any], object], Any], ...] = (
    (torch.get_default_dtype, torch.set_default_dtype, torch.float32),
    (torch.get_default_device, torch.set_default_device, torch.device("cpu")),
    (torch.is_grad_enabled, torch.set_grad_enabled, True),
    (lambda: torch.is_autocast_enabled("cpu"), lambda on: torch.set_autocast_enabled("cpu", on), False),
    (lambda: torch.is_autocast_enabled("cuda"), lambda on: torch.set_autocast_enabled("cuda", on), False),
    (lambda: torch.backends.mkldnn.enabled, lambda on: torch._C._set_mkldnn_enabled(on), True),
    (torch.get_num_threads, torch.set_num_threads, None),
    (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode, None),
)


def reset(seed: int) -> None:
    """Everything as in a new process, but for the generators, which get states that the run's seed gives."""
    for read, write, usual in _SWITCHES:
        if usual is not None and read() != usual:
            write(usual)
    torch.set_flush_denormal(False)
    torch.manual_seed(keys.key(seed, "score", "global") >> 1)
    _seed_others(seed, "global")


@contextmanager
def method_code(method: str, seed: int, *place: int) -> Iterator[None]:
    """Run the code of a method: its score, its growth.

    What it changes of the process is undone at the end, and an end of the process that it asks for is an error like any
    other: it would end the runs of other methods, and look like success.

    Args:
        method: its name.
        seed: of the run; the generators of numpy and of Python, which a method should not use, start from it.
        place: in the run, so that every call draws other numbers.

    Raises:
        RuntimeError: it raises SystemExit, KeyboardInterrupt or another exception that is none of errors.
    """
    switches = [read() for read, *_ in _SWITCHES]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    _seed_others(seed, "method", *place)
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and stopping.may_interrupt():
            raise
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise RuntimeError(f"method {method}: its code ended with {said:.200}") from error
    finally:
        for (read, write, _), value in zip(_SWITCHES, switches, strict=True):
            if read() != value:
                write(value)
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])


def _seed_others(seed: int, *place: int | str) -> None:
    number = keys.key(seed, "score", *place)
    random.seed(number)
    np.random.seed(number >> 32)
