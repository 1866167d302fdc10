"""Keyed randomness: pinned numbers, independence of purposes, scalar and array agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ipbench import keys


def test_keys_are_pinned():
    """These numbers are part of every published result: they change only together with NUMERICS."""
    assert keys.key(0, "init", "conv1") == 0x3D9088DAC06CD2C6
    assert keys.splitmix64(0) == 0xE220A8397B1DCDAF  # the first output of splitmix64 with state 0
    assert keys.splitmix64(1) == 0x910A2DEC89025CC1


def test_parts_are_told_apart():
    values = {
        keys.key(0, "init", "a"), keys.key(1, "init", "a"), keys.key(0, "order", "a"), keys.key(0, "init", "b"),
        keys.key(0, "init", "a", 0), keys.key(0, "init", "a0"), keys.key(0, "init", 1), keys.key(0, "init", "1"),
        keys.key(0, "init"),
    }  # fmt: skip
    assert len(values) == 9 and all(0 <= value < 2**64 for value in values)


def test_unknown_purpose():
    with pytest.raises(ValueError, match="valid: augmentation"):
        keys.key(0, "methods")


def test_arrays_and_ints_agree():
    numbers = [0, 1, 2**63, 2**64 - 1]
    assert keys.splitmix64(np.array(numbers, dtype=np.uint64)).tolist() == [keys.splitmix64(n) for n in numbers]
    expected = [keys.splitmix64((keys.splitmix64(n ^ 77) + 3) % 2**64) for n in (0, 5)]
    assert keys.indexed_bits(77, np.array([0, 5]), 3).tolist() == expected


def test_generators_start_anew():
    one, two = (torch.rand(3, generator=keys.generator(0, "score", "a")) for _ in range(2))
    assert torch.equal(one, two)
