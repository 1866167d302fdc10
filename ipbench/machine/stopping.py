"""Ending early on request: a signal asks, and the training stops after its current step.

Schedulers send SIGTERM some time before they kill: at a time limit, before a preemption, when a node is drained.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: The exit status of a command that was asked to stop and can be called again to go on (EX_TEMPFAIL of sysexits.h).
EXIT_STATUS = 75

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_received: list[int] = []


class Stopped(Exception):
    """A signal asked this process to stop; what it has done is saved."""


@contextmanager
def on_signals() -> Iterator[None]:
    """Within the block, SIGTERM and SIGINT ask for an end instead of causing one; the second SIGINT ends at once."""
    _received.clear()
    former = {number: signal.signal(number, _receive) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def asked() -> bool:
    """Whether a signal has asked this process to stop."""
    return bool(_received)


def may_interrupt() -> bool:
    """Whether a KeyboardInterrupt can be a user's: within `on_signals` only the second SIGINT raises one."""
    return bool(_received) or signal.getsignal(signal.SIGINT) is not _receive


def reason() -> str:
    """The name of the signal that asked; of several processes, another one may have got it."""
    return signal.Signals(_received[0]).name if _received else "a signal to another process"


def _receive(number: int, frame: FrameType | None) -> None:
    if number == signal.SIGINT and number in _received:
        raise KeyboardInterrupt
    _received.append(number)
