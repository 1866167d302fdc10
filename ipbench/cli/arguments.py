"""What several commands have in common: options, help, and words that are numbers or paths.

typer's own readers of words take "1_000", " 5 " and ''.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ipbench import numerals, output

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def help_alone(context: typer.Context) -> None:
    """What is called without a command prints its help; typer's own way would make it the text of an error."""
    if context.invoked_subcommand is None:
        output.say(context.get_help())
        raise typer.Exit


def whole(low: int, high: int | None = None) -> Callable[[str | int], int]:
    """A reader of whole numbers from `low` to `high`, for typer's `parser`."""

    def read(word: str | int) -> int:
        try:
            number = word if isinstance(word, int) else numerals.whole(word)
        except ValueError:
            raise typer.BadParameter(f"{word!r:.60} is not a valid integer") from None
        if number < low:
            raise typer.BadParameter(f"{number} is not greater than or equal to {low}")
        if high is not None and number > high:
            raise typer.BadParameter(f"{number} is not less than or equal to {high}")
        return number

    return read


def path(word: str | Path) -> Path:
    """A path, for typer's `parser`; the empty one, which would be the folder one is in, is a slip."""
    if word == "":
        raise typer.BadParameter("an empty path; for the folder you are in, write .")
    return Path(word)
