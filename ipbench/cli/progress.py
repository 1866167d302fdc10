"""A bar of epochs on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ipbench.output import Lenient


@contextmanager
def epochs_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """Gives a function to call with the epochs finished and all epochs; draws on stderr if that is a terminal."""
    console = Console(file=cast(IO[str], Lenient(sys.stderr)))
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=None)
        yield lambda epoch, epochs: bar.update(task, completed=epoch, total=epochs)
