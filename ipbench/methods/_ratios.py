"""Ratios by layer, as text: `layer1=0.5,layer2=0.32`."""

from __future__ import annotations

from collections.abc import Collection
from fractions import Fraction

from ipbench.errors import BadInput
from ipbench.numerals import decimal


def ratios(text: str) -> dict[str, Fraction]:
    """The ratios by the start of a layer's name; empty text has none.

    Args:
        text: `START=RATIO` with commas between them; a ratio is from 0 up to, not including, 1.

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
        if not start or not equals or not 0 <= ratio < 1:
            raise ValueError(
                f"ratios are START=RATIO with commas between them, such as layer1=0.5,layer2=0.32, each from 0 up to,"
                f" not including, 1; not {word!r:.60}"
            )
        if start in found:
            raise ValueError(f"ratios: {start} is there twice")
        found[start] = ratio
    return found


def rates_of(text: str, blocks: Collection[str]) -> dict[str, Fraction]:
    """The ratio of every block whose name begins like one of a text; where several do, of the longest.

    A name begins like `layer1` if it is that, or `layer1.` and more.

    Args:
        text: as `ratios` reads it.
        blocks: names of layers, or of groups of channels.

    Raises:
        ValueError: as `ratios`.
        BadInput: no block begins like that.
    """
    starts = ratios(text)
    found: dict[str, Fraction] = {}
    for start in sorted(starts, key=len):
        own = [name for name in blocks if name == start or name.startswith(f"{start}.")]
        if not own:
            raise BadInput(f"ratios: nothing that can be pruned begins with {start!r:.60}; there are {_some(blocks)}")
        found |= dict.fromkeys(own, starts[start])
    return found


def _some(names: Collection[str]) -> str:
    shown = list(names)[:6]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(names) > len(shown) else "")
