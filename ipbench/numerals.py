"""Numbers as people write them, read from text: ASCII digits, no underscores, no blanks, no plus sign.

Python's `int` and `float` take more: "1_000", " 5 ", and the digits of every script.
"""

from __future__ import annotations

import re

#: No number that is asked for anywhere has more digits, and Python takes a long time for thousands of them.
_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,18})")
_DECIMAL = re.compile(r"-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,18})?")


def whole(text: str) -> int:
    """A whole number: "0", "12", "-3".

    Raises:
        ValueError: the text is anything else.
    """
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{text!r:.60} is not a whole number")
    return int(text)


def decimal(text: str) -> str:
    """The text of a finite number, as `float` and `Decimal` read it: "0.9", ".5", "1e-3".

    Raises:
        ValueError: the text is anything else.
    """
    if not _DECIMAL.fullmatch(text):
        raise ValueError(f"{text!r:.60} is not a number")
    return text
