"""Words of a command line that are numbers or paths: typer's own readers take "1_000", " 5 " and ''."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import typer

from ipbench import numerals


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
