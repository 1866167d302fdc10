"""Keyed orders and splits: which image goes where is a function of a key and the image's index alone."""

from __future__ import annotations

import numpy as np

from ipbench import keys
from ipbench.errors import BadInput


def keyed_order(indices: np.ndarray, base: int) -> np.ndarray:
    """`indices` in the random order of the key `base`.

    Every index is ranked by 64 bits of its own, so that two subsets agree on the order of what they share, and no
    library's permutation, which may change between versions, takes part.

    Args:
        indices: (n,) distinct integers.
        base: a `keys.key`.

    Returns:
        (n,) the same integers, int64.
    """
    indices = np.sort(np.asarray(indices, dtype=np.int64))
    return indices[np.argsort(keys.indexed_bits(base, indices), kind="stable")]


def split(count: int, seed: int, validation: float, train_examples: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The training and the validation part of `count` training images.

    First a keyed subset of `train_examples` images is taken, then `round(validation * size)` of it are held out.
    Subsets of growing size contain each other.

    Args:
        count: number of training images there are.
        seed: the run's.
        validation: fraction held out, 0 up to, not including, 1.
        train_examples: size of the subset; None takes all.

    Returns:
        Sorted int64 indices of the training part and of the validation part, disjoint; both parts of the subset.

    Raises:
        BadInput: `train_examples` is larger than `count`.
    """
    if train_examples is not None and train_examples > count:
        raise BadInput(f"train_examples is {train_examples}, but there are only {count} training images")
    chosen = keyed_order(np.arange(count), keys.key(seed, "split", "subset"))[:train_examples]
    ranked = keyed_order(chosen, keys.key(seed, "split", "validation"))
    held_out = round(validation * len(ranked))
    return np.sort(ranked[held_out:]), np.sort(ranked[:held_out])
