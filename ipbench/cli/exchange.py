"""The command `ipbench exchange`: what the program of a method that is a rule reads."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from ipbench import output
from ipbench.cli import run as run_command
from ipbench.spec import Run

app = typer.Typer()

#: Options of `ipbench run` that are about a training.
_OF_TRAINING = ("keep", "done", "exchange")


def exchange(**options: Any) -> None:
    """Write what the program of a rule reads: OUT/exchange/CELL/SEED/net.safetensors and batch.safetensors.

    The options are those of `ipbench run`, which takes the scores that the program writes beside these files.
    """
    run_command.run(**options, exchange=True)


_parameters = inspect.signature(run_command.run, eval_str=True).parameters.values()
_own = [parameter for parameter in _parameters if parameter.name not in _OF_TRAINING]
exchange.__signature__ = inspect.Signature(_own)  # type: ignore[attr-defined]
exchange.__annotations__ = {parameter.name: parameter.annotation for parameter in _own}
app.command()(exchange)


def write(runs: Sequence[Run], out: Path, *, data: Path, device: str, threads: int, loader: str, workers: int) -> None:
    """Write the files of some runs, and say where they are.

    Raises:
        BadInput: their method is no rule, or a budget cannot be met.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # strict mode needs it before CUDA starts
    from ipbench.runs.exchange import external_stage, write_exchange
    from ipbench.runs.execute import Environment, choose_device

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
