"""`ipbench lease`: a command with GPUs that are free."""

from __future__ import annotations

from typing import Annotated

import typer

from ipbench import output
from ipbench.cli.arguments import whole
from ipbench.errors import BadInput
from ipbench.machine.lease import parse_gpus, run_with_gpus

app = typer.Typer()


@app.command()
def lease(
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND", help="A program and its arguments.")],
    gpus: Annotated[str, typer.Option(help="Indices or UUIDs of the GPUs to take from, e.g. 0,1.")],
    per_gpu: Annotated[int, typer.Option(help="Jobs that share a GPU.", parser=whole(1))] = 1,
    count: Annotated[int, typer.Option(help="GPUs that the command needs.", parser=whole(1))] = 1,
) -> None:
    """Run a command with free GPUs of this machine, in CUDA_VISIBLE_DEVICES; wait if there are none.

    They are free again when the last process of the command is gone, however it ends.
    """
    try:
        chosen = parse_gpus(gpus)
    except BadInput as error:
        raise BadInput(f"--gpus: {error}") from None
    run_with_gpus(chosen, per_gpu, count, command, lambda text: output.complain(f"ipbench: {text}"))
