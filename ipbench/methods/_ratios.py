"""Ratios by layer, as text: `layer1=0.5,layer2=0.32`."""

from __future__ import annotations

from collections.abc import Collection
from fractions import Fraction

from ipbench.errors import BadInput
from ipbench.numerals import decimal


def ratios(text: str, *, below: int | None = 1) -> dict[str, Fraction]:
    """The ratios by the start of a layer's name; empty text has none.

    Args:
        text: `START=RATIO` with commas between them; a ratio is from 0 up to, not including, `below`.
        below: None: any number of 0 or more.

    Raises:
        ValueError: it is not of that form, or a start is there twice.
    """
    found: dict[str, Fraction] = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        start, equals, number = (part.strip() for part in word.partition("="))
        try:
            ratio = Fraction(decimal(number))
        except ValueError:
            ratio = Fraction(-1)
        if not start or not equals or ratio < 0 or (below is not None and ratio >= below):
            valid = "0 or more" if below is None else f"from 0 up to, not including, {below}"
            raise ValueError(
                f"ratios are START=RATIO with commas between them, such as layer1=0.5,layer2=0.32, each {valid}; not"
                f" {word!r:.60}"
            )
        if start in found:
            raise ValueError(f"ratios: {start} is there twice")
        found[start] = ratio
    return found


def rates_of(text: str, blocks: Collection[str], *, below: int | None = 1) -> dict[str, Fraction]:
    """The ratio of every block whose name begins like one of a text; where several do, of the longest.

    A name begins like `layer1` if it is that, or `layer1.` and more. A star stands for one part of a name, whichever:
    `layer4.*.conv2`.

    Args:
        text: as `ratios` reads it.
        blocks: names of layers, or of groups of channels.
        below: of `ratios`.

    Raises:
        ValueError: as `ratios`.
        BadInput: no block begins like that.
    """
    starts = ratios(text, below=below)
    found: dict[str, Fraction] = {}
    for start in sorted(starts, key=len):
        own = [name for name in blocks if _begins(name.split("."), start.split("."))]
        if not own:
            raise BadInput(f"ratios: nothing that can be pruned begins with {start!r:.60}; there are {_some(blocks)}")
        found |= dict.fromkeys(own, starts[start])
    return found


def beginning(text: str, blocks: Collection[str]) -> set[str]:
    """The blocks whose names begin like one of the words of a text, with commas between them; empty text has none.

    Args:
        text: starts as in `rates_of`, without ratios.
        blocks: names of layers, or of groups of channels.

    Raises:
        BadInput: no block begins like one of them.
    """
    found = set[str]()
    for start in filter(None, (word.strip() for word in text.split(","))):
        own = {name for name in blocks if _begins(name.split("."), start.split("."))}
        if not own:
            raise BadInput(f"whole: nothing that can be pruned begins with {start!r:.60}; there are {_some(blocks)}")
        found |= own
    return found


def _begins(parts: list[str], start: list[str]) -> bool:
    return len(start) <= len(parts) and all(own in ("*", part) for part, own in zip(parts, start, strict=False))


def _some(names: Collection[str]) -> str:
    shown = list(names)[:6]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(names) > len(shown) else "")
