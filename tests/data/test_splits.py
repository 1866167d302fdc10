import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipbench import keys
from ipbench.data.splits import keyed_order, split
from ipbench.errors import BadInput

counts = st.integers(2, 300)
seeds = st.integers(0, 2**32 - 1)
fractions = st.floats(0, 0.9)


@given(counts, seeds, fractions)
def test_the_parts_are_disjoint_sorted_and_complete(count, seed, validation):
    train, held_out = split(count, seed, validation, None)
    assert train.dtype == held_out.dtype == np.int64
    assert sorted([*train, *held_out]) == list(range(count))
    assert list(train) == sorted(train) and list(held_out) == sorted(held_out)
    assert len(held_out) == round(validation * count)


@given(st.integers(10, 300), seeds, fractions)
def test_subsets_contain_each_other(count, seed, validation):
    small = np.concatenate(split(count, seed, validation, count // 2))
    large = np.concatenate(split(count, seed, 0.5, count // 2 + 3))
    assert len(small) == count // 2 and len(large) == count // 2 + 3
    assert set(small) < set(large)


def test_the_seed_decides():
    again = split(100, 1, 0.2, 50), split(100, 1, 0.2, 50)
    assert all(np.array_equal(a, b) for a, b in zip(*again, strict=True))
    assert not np.array_equal(split(100, 1, 0.2, None)[1], split(100, 2, 0.2, None)[1])


def test_the_numbers_themselves():
    """They are part of every published result: a change needs a new `ipbench.NUMERICS`."""
    assert keyed_order(np.arange(8), 1).tolist() == ORDER
    assert split(20, 0, 0.2, None)[1].tolist() == VALIDATION


ORDER = [0, 3, 5, 1, 7, 6, 2, 4]
VALIDATION = [5, 8, 9, 18]


def test_no_validation_part():
    train, held_out = split(5, 0, 0, None)
    assert train.tolist() == [0, 1, 2, 3, 4] and held_out.tolist() == []


def test_more_examples_than_there_are():
    with pytest.raises(BadInput, match=r"^train_examples is 11, but there are only 10 training images$"):
        split(10, 0, 0.1, 11)


@given(st.sets(st.integers(0, 1000)), seeds)
def test_an_order_does_not_depend_on_how_its_elements_came(elements, seed):
    base = keys.key(seed, "order", 0)
    order = keyed_order(np.array(list(elements), dtype=np.int64), base)
    assert order.tolist() == keyed_order(np.array(sorted(elements, reverse=True), dtype=np.int64), base).tolist()
    assert sorted(order) == sorted(elements)


def test_a_subset_keeps_the_order_of_the_whole():
    whole = keyed_order(np.arange(100), 7)
    part = keyed_order(np.arange(0, 100, 3), 7)
    assert [index for index in whole if index % 3 == 0] == part.tolist()
