"""What bad input raises: one line that says what is wrong, what is valid, and where."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class BadInput(Exception):
    """Input that cannot be used. The command line prints it as one line on stderr and exits with code 2.

    Attributes:
        told: whether all processes of a training have this error, so that the first one says it for all.
    """

    told = False


class BadProduct(BadInput):
    """A file on disk that is truncated, altered or of an unknown version; the message names it."""


def valid_choice(value: object, valid: Iterable[str], what: str, where: str = "") -> str:
    """Return `value` if it is one of `valid`, else raise `BadInput` naming the nearest and all the valid choices."""
    choices = sorted(valid)
    if isinstance(value, str) and value in choices:
        return value
    near = get_close_matches(str(value), choices, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    place = f" in {where}" if where else ""
    raise BadInput(f"unknown {what} {value!r:.80}{place}{hint}; valid: {', '.join(choices)}")
