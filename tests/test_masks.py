"""Budgets, allocation and selection, with answers by hand."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ipbench import keys
from ipbench.models.build import build
from ipbench.sparse import selection
from ipbench.sparse.net import SparseNet
from ipbench.sparse.selection import Impossible, NotFinite, allocate, budget, largest, select
from tests.tiny import make_run

MODELS = {
    "lenet-300-100": (1, 28, 28),
    "lenet5-caffe": (1, 28, 28),
    "small-vgg": (1, 8, 8),
    "vgg16": (3, 32, 32),
    "resnet18-cifar": (3, 32, 32),
    "resnet20-cifar": (3, 32, 32),
    "resnet56-cifar": (3, 32, 32),
    "mobilenet-v1": (3, 32, 32),
    "googlenet-cifar": (3, 32, 32),
    "resnet18": (3, 64, 64),
    "resnet50": (3, 64, 64),
    "mobilenet_v2": (3, 64, 64),
}


def test_budget_by_hand():
    assert budget(1000, Fraction("0.1")) == 100
    assert budget(1005, Fraction("0.1")) == 100  # 100.5: never above
    assert budget(1005, Fraction("0.1"), 81) == 19
    assert budget(430_500, 1 - Fraction("0.995")) == 2152
    with pytest.raises(Impossible, match="filter bases alone"):
        budget(1000, Fraction("0.1"), 100)
    with pytest.raises(Impossible, match="keeps nothing"):
        budget(100, Fraction("0.001"))


@pytest.mark.parametrize("model", MODELS)
def test_budget_identity_on_every_model(model):
    """coefficients kept + FB entries never exceed (1 - p) of the weights and miss it by less than one."""
    for space in ("sp", "ip"):
        net = SparseNet(build(model, MODELS[model], 10, 0), make_run(space=space), MODELS[model])
        for sparsity in ("0", "0.5", "0.9", "0.98", "0.99", "0.995"):
            net.run = net.run.model_copy(update={"sparsity": sparsity})
            exact = (1 - Fraction(sparsity)) * net.prunable
            try:
                total = net.budget + net.basis_entries
            except Impossible:
                assert net.basis_entries >= int(exact)
                continue
            assert exact - 1 < total <= exact


def test_uniform_by_hand():
    assert allocate({"a": (10,), "b": (30,)}, 4, "uniform") == {"a": 1, "b": 3}
    assert allocate({"a": (10,), "b": (30,)}, 5, "uniform") == {"a": 1, "b": 4}  # 1.25 and 3.75
    assert allocate({"a": (5,), "b": (5,)}, 3, "uniform") == {"a": 2, "b": 1}  # a tie goes to the first


def test_erk_by_hand():
    """Wanted counts are proportional to the sums of the dimensions: (10+10) to (20+20), 12 in all."""
    assert allocate({"a": (10, 10), "b": (20, 20)}, 12, "erk") == {"a": 4, "b": 8}
    # (2, 2) would get 4/44 of 66 = 6 > 4: dense; the rest, 62, goes to the other.
    assert allocate({"a": (2, 2), "b": (20, 20)}, 66, "erk") == {"a": 4, "b": 62}


@given(
    shapes=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3)), min_size=1, max_size=6),
    part=st.fractions(0, 1),
    allocation=st.sampled_from(["uniform", "erk"]),
)
def test_allocation_keeps_exactly(shapes, part, allocation):
    named = {str(place): shape for place, shape in enumerate(shapes)}
    total = sum(a * b * c for a, b, c in shapes)
    keep = int(part * total)
    counts = allocate(named, keep, allocation)
    assert sum(counts.values()) == keep
    assert all(0 <= counts[name] <= a * b * c for name, (a, b, c) in named.items())


def test_select_by_hand():
    scores = {"a": torch.tensor([3.0, 1.0, 2.0]), "b": torch.tensor([[5.0, 0.0], [4.0, -1.0]])}
    assert {n: m.int().tolist() for n, m in select(scores, 3).items()} == {"a": [1, 0, 0], "b": [[1, 0], [1, 0]]}
    masks = select(scores, 4, "uniform")  # 12/7 and 16/7: two each
    assert {n: m.int().tolist() for n, m in masks.items()} == {"a": [1, 0, 1], "b": [[1, 0], [1, 0]]}
    among = {"a": torch.tensor([False, True, True]), "b": torch.tensor([[False, True], [True, True]])}
    masks = select(scores, 2, among=among)
    assert {n: m.int().tolist() for n, m in masks.items()} == {"a": [0, 0, 1], "b": [[0, 0], [1, 0]]}


def test_ties_are_broken_by_key_and_place():
    scores = {"a": torch.zeros(500), "b": torch.zeros(500)}
    one, again, other = (select(scores, 100, tie_key=key) for key in (1, 1, 2))
    assert torch.equal(one["a"], again["a"]) and not torch.equal(one["a"], other["a"])
    assert 20 < int(one["a"].sum()) < 80  # spread over the net, not the first layer only
    assert int(one["a"].sum() + one["b"].sum()) == 100


def test_scores_must_be_finite():
    with pytest.raises(NotFinite, match="layer a"):
        select({"a": torch.tensor([1.0, float("nan")])}, 1)
    with pytest.raises(NotFinite, match="layer a"):
        select({"a": torch.tensor([1.0, float("inf")])}, 1)


@given(
    values=st.lists(st.integers(-3, 3), min_size=1, max_size=40),
    keep=st.integers(0, 40),
    key=st.integers(0, 2**64 - 1),
)
def test_select_keeps_the_largest_exactly(values, keep, key):
    keep = min(keep, len(values))
    mask = select({"a": torch.tensor(values, dtype=torch.float32)}, keep, tie_key=key)["a"].tolist()
    kept = [value for value, flag in zip(values, mask, strict=True) if flag]
    assert sorted(kept, reverse=True) == sorted(values, reverse=True)[:keep]


# Two ways to select: numpy's on the CPU, and one for tensors that lie elsewhere.


def both(monkeypatch: pytest.MonkeyPatch, *given: object) -> torch.Tensor:
    """What `largest` gives; asserts that it gives the same when tensors of the CPU are treated as those of a GPU."""
    plain = largest(*given)  # type: ignore[arg-type]
    with monkeypatch.context() as patch:
        patch.setattr(selection, "_by_partition", selection._by_sorting)
        assert torch.equal(plain, largest(*given))  # type: ignore[arg-type]
    return plain


@settings(deadline=None)
@given(
    values=st.lists(st.sampled_from([-1.5, -0.0, 0.0, 1e-45, 0.25, 3e38]), min_size=1, max_size=60),
    free=st.integers(0, 2**60 - 1),
    keep=st.integers(0, 60),
    key=st.integers(0, 2**64 - 1),
    kind=st.sampled_from([torch.float32, torch.float64]),
)
def test_both_ways_select_the_same(values, free, keep, key, kind):
    """Ties, zeros of both signs, and candidates that leave some out; an oracle that sorts pairs."""
    scores = torch.tensor(values, dtype=kind)
    candidates = torch.tensor([bool(free >> place & 1) for place in range(len(values))])
    keep = min(keep, int(candidates.sum()))
    with pytest.MonkeyPatch.context() as patch:
        mask = both(patch, scores, candidates, keep, key)
    bits = keys.indexed_bits(key, np.arange(len(values))).tolist()
    order = sorted(candidates.nonzero().flatten().tolist(), key=lambda place: (-values[place], bits[place]))
    assert mask.nonzero().flatten().tolist() == sorted(order[:keep])


@pytest.mark.parametrize("levels", [50, 10**9])
@pytest.mark.parametrize("size", [1, 2, 37, 1000, 100_000, 1_000_000])
def test_both_ways_select_the_same_of_many(monkeypatch, size, levels):
    generator = torch.Generator().manual_seed(size)
    scores = (torch.rand(size, generator=generator) * levels).round()
    candidates = torch.rand(size, generator=generator) < 0.7
    candidates[0] = True
    available = int(candidates.sum())
    for keep in {available // 10, available - 1} if size > 1000 else {0, 1, available // 10, available - 1, available}:
        mask = both(monkeypatch, scores, candidates, keep, size)
        assert int(mask.sum()) == keep and not bool((mask & ~candidates).any())
        if 0 < keep < available:
            assert scores[mask].min() >= scores[candidates & ~mask].max()


def test_only_ties_leave_the_device(monkeypatch):
    """Of scores that differ, one comes to the CPU, however many there are."""
    monkeypatch.setattr(selection, "_by_partition", selection._by_sorting)
    seen = []
    plain = selection._first
    monkeypatch.setattr(selection, "_first", lambda ties, *given: (seen.append(len(ties)), plain(ties, *given))[1])
    largest(torch.arange(1000.0), torch.ones(1000, dtype=torch.bool), 100, 1)
    largest(torch.arange(1000.0) // 10, torch.ones(1000, dtype=torch.bool), 105, 1)
    assert seen == [1, 10]
