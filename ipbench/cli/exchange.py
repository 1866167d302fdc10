"""The command `ipbench exchange`: what the program of a method that is a rule reads."""

from __future__ import annotations

import inspect
from typing import Any

import typer

from ipbench.cli import run as run_command

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
