"""Writing what the program of a method that is a rule reads, for some runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ipbench import output
from ipbench.spec import Run


def write(runs: Sequence[Run], out: Path, *, data: Path, device: str, threads: int, loader: str, workers: int) -> None:
    """Write the files of some runs, and say where they are.

    Raises:
        BadInput: their method is no rule, or a budget cannot be met.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # strict mode needs it before CUDA starts
    from ipbench.runs.environment import Environment, choose_device
    from ipbench.runs.exchange import external_stage, write_exchange

    external_stage(runs[0])
    environment = Environment(
        root=data.absolute(),
        device=choose_device(device),
        threads=threads or (1 if runs[0].mode == "strict" else os.cpu_count() or 1),
        loader="ffcv" if loader == "ffcv" else "memory",
        workers=workers,
    )
    for run in runs:
        output.say(str(write_exchange(run, out, environment)))
