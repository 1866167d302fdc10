"""Keyed randomness: every random number is a function of a seed, a purpose and the place where it is used.

Nothing here knows a method, a space, an off-value or a sparsity, and no caller passes one: that is what pairs the two
sides of every comparison.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    import torch

Purpose = Literal[
    "augmentation",
    "basis",
    "control",
    "dropout",
    "growth",
    "init",
    "order",
    "sampling",
    "scenes",
    "score",
    "score batch",
    "shuffle",
    "split",
    "ties",
]
PURPOSES: tuple[str, ...] = get_args(Purpose)

_MASK = (1 << 64) - 1


def key(seed: int, purpose: Purpose, *parts: int | str) -> int:
    """A 64-bit key for one use of randomness.

    Args:
        seed: the run's seed, 0 or more.
        purpose: what the numbers are for, one of `PURPOSES`; two purposes never share numbers.
        parts: where they are used (epoch, layer name, ...). Never a method, space, off-value or sparsity.

    Returns:
        An unsigned 64-bit integer, the same on every machine and in every process.
    """
    if purpose not in PURPOSES:
        raise ValueError(f"unknown purpose {purpose!r}; valid: {', '.join(PURPOSES)}")
    text = "\x1f".join([str(int(seed)), purpose, *(f"{type(part).__name__}:{part}" for part in parts)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def generator(seed: int, purpose: Purpose, *parts: int | str) -> torch.Generator:
    """A torch CPU generator at the start of the stream of `key(seed, purpose, *parts)`."""
    import torch  # here, so that planning a grid does not pay for it

    # torch.Generator takes signed 64-bit seeds on some builds; 63 bits are the same everywhere.
    return torch.Generator().manual_seed(key(seed, purpose, *parts) >> 1)


def splitmix64(x: Any) -> Any:
    """The finaliser of splitmix64 (Steele, Lea, Flood, OOPSLA 2014): a bijection of 64-bit numbers that mixes well.

    Takes and returns a Python int, or a numpy uint64 scalar or array.
    """
    if isinstance(x, int):
        x = (x + 0x9E3779B97F4A7C15) & _MASK
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
        return x ^ (x >> 31)
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def indexed_bits(base: int, index: np.ndarray, draw: int = 0) -> np.ndarray:
    """Draw number `draw` of every element of `index` under the key `base`: 64 random bits each.

    Args:
        base: a `key`.
        index: integers of any shape, e.g. the indices of samples in the data set.
        draw: 0, 1, 2, ... for several independent draws of one element.

    Returns:
        uint64 array of the shape of `index`; a pure function of its arguments, so the order does not matter.
    """
    return splitmix64(splitmix64(index.astype(np.uint64) ^ np.uint64(base)) + np.uint64(draw))
