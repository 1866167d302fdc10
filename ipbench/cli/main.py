"""The command line. Bad input is one line on stderr and exit code 2, never a traceback.

torch is imported by the commands that compute, so that planning and help answer at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.core import TyperGroup

from ipbench import __version__, files, output
from ipbench.cli import count, data, exchange, experiment, grid, lease, lists, packed, results, run
from ipbench.cli.arguments import help_alone
from ipbench.errors import BadInput

#: The base of all complaints about a command line; typer carries its own copy of click from 0.25 on.
UsageProblem: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

#: As help lists them: what a user needs first, what shows results, what there is, files of nets, what programs call.
ORDER = (
    "quickstart", "experiment", "run", "grid", "status",
    "summary", "tables", "figures", "report", "survive", "compare", "verify", "collect",
    "methods", "models", "datasets", "data", "count",
    "pack", "inspect", "unpack", "slice",
    "exchange", "lease",
)  # fmt: skip


class InOrder(TyperGroup):
    """Commands in that order."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """Names of the commands."""
        return sorted(super().list_commands(ctx), key=ORDER.index)


app = typer.Typer(
    cls=InOrder,
    help="A reproducibility benchmark for neural-network pruning.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(data.app, name="data")
for _commands in (run, exchange, experiment, results, packed, lists, count, grid, lease):
    app.add_typer(_commands.app)

#: Characters of a message; a path may have thousands.
_LONGEST = 900


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    if version:
        output.say(__version__)
        raise typer.Exit
    help_alone(context)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code."""
    output.begin()
    code, message = _run(arguments)
    if code == 0 and (lost := output.lost()):
        code, message = 2, f"standard output: {lost}"
    if message:
        output.complain(f"ipbench: {_short(message)}")
    return code


def _run(arguments: Sequence[str] | None) -> tuple[int, str]:
    """Run a command line; returns the exit code and what is to be said of it."""
    if sys.flags.optimize > 1:
        return 2, "python -OO (PYTHONOPTIMIZE=2) takes away texts that ipbench prints; leave it out"
    command = typer.main.get_command(app)
    try:
        code = command.main(
            args=list(arguments) if arguments is not None else None, prog_name="ipbench", standalone_mode=False
        )
        return code if isinstance(code, int) else 0, ""
    except BadInput as error:
        return 2, str(error)
    except typer.Exit as error:
        return error.exit_code, ""
    except (typer.Abort, KeyboardInterrupt):
        return 130, ""
    except UsageProblem as error:
        return 2, error.format_message()  # type: ignore[attr-defined]
    except BrokenPipeError:  # `ipbench --help | head`
        output.abandon(sys.stdout)
        return 0, ""
    except OSError as error:
        if error.errno is None:  # no answer of the system, but a mistake of a library or of ours
            raise
        return 2, files.refusal(error)


def _short(message: str) -> str:
    """On one line, and of a length that can be read whatever it quotes."""
    line = " ".join(message.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 3 :]}"
