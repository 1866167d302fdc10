"""Patterns and budgets: what is kept as one, with answers by hand, and budgets that are met to the last unit."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ipbench import methods
from ipbench.errors import BadInput
from ipbench.models.build import build
from ipbench.runs.outcome import describe
from ipbench.sparse import measure
from ipbench.sparse.net import SparseNet
from ipbench.sparse.patterns import selector
from ipbench.sparse.selection import Impossible, NotFinite, count_of
from ipbench.sparse.slicing import mask_net, plan, slice_net
from ipbench.sparse.unit_selector import OfUnits
from ipbench.training.pruning import pruned_masks
from tests.tiny import TinyData, make_run, run_stages

SHAPE = (2, 4, 4)
UNITS = ("filters", "columns", "channels")


def chain() -> nn.Module:
    """Two convolutions and a classifier: 3 and 2 channels, 54 + 54 + 8 weights."""
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(3, 2, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 4),
    )  # fmt: skip


class Residual(nn.Module):
    """A stream of channels that two convolutions make, with a third one beside it."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.one = nn.Conv2d(width, inner, 3, padding=1)
        self.two = nn.Conv2d(inner, width, 1)
        self.head = nn.Linear(width * 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        stream = self.norm(self.stem(images)).relu()
        stream = stream + self.two(self.one(stream).relu())
        return self.head(nn.functional.adaptive_avg_pool2d(stream, 2).flatten(1))  # four inputs read a channel


def sparse(net: nn.Module | None = None, **values: Any) -> SparseNet:
    """A net in a space."""
    return SparseNet(net or chain(), make_run(**values), SHAPE)


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors of a few numbers are not worth a second one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def filled(net: SparseNet, values: dict[str, list[float]], axes: tuple[int, ...]) -> dict[str, Tensor]:
    """Scores that are the same in all of a slice: one value per slice along some axes of each layer."""
    scores = {}
    for name, mask in net.masks.items():
        shape = [side if axis in axes else 1 for axis, side in enumerate(mask.shape)]
        some = torch.tensor(values[name]).view(shape) if name in values else torch.zeros(())
        scores[name] = some.expand(mask.shape).contiguous()
    return scores


def kept(masks: dict[str, Tensor]) -> dict[str, int]:
    return {name: int(mask.sum()) for name, mask in masks.items()}


@pytest.mark.parametrize("space", ["sp", "ip"])
def test_filters_by_hand(space):
    """One value in a filter is a sum as good as many; the classifier is whole; of every layer the best filter stays."""
    net = sparse(space=space, pattern="filters", budget="channels", sparsity="0.4")
    scores = {name: torch.zeros(mask.shape) for name, mask in net.masks.items()}
    scores["0"][1], scores["0"][2, 1, 0, 0] = 0.5, 10.0  # sums 0, 9, 10
    scores["2"][0], scores["2"][1] = 0.1, 0.2  # sums 2.7, 5.4
    selects = selector(net)
    assert (selects.start, selects.target) == (5, 3)  # 0.6 * 5
    masks = selects.select(scores, 3, tie_key=0, among=net.masks)
    assert masks["0"].flatten(1).all(1).tolist() == [False, True, True] and kept(masks) == {"0": 36, "2": 27, "6": 8}
    assert masks["2"].flatten(1).all(1).tolist() == [False, True]
    assert selects.kept(masks) == 3
    facts = selects.facts(masks)
    assert facts["units"] == [{"name": "0", "units": 3, "kept": 2}, {"name": "2", "units": 2, "kept": 1}]
    assert (facts["asked"], facts["reached"]) == (0.4, 0.4)
    # 2 -> 2 -> 1 channels and 4 outputs: 16 positions of 2*2*9 + 2*1*9 weights, and 1*4.
    assert facts["macs_sliced"] == 16 * (36 + 18) + 4
    assert facts["macs_sliced_two_stage"] == (16 * (2 * 81 + 36 + 2 * 81 + 18) + 4 if space == "ip" else 868)
    assert facts["parameters_sliced"] == 36 + (18 + 1) + (4 + 4) + net.basis_entries


def test_the_best_of_every_layer_stays():
    net = sparse(pattern="filters", budget="channels", sparsity="0.5")
    scores = filled(net, {"0": [3.0, 2.0, 1.0], "2": [-5.0, -4.0]}, (0,))
    masks = selector(net).select(scores, 2, tie_key=0, among=net.masks)
    assert masks["0"][:, 0, 0, 0].tolist() == [True, False, False]
    assert masks["2"][:, 0, 0, 0].tolist() == [False, True]
    with pytest.raises(Impossible, match="a budget of 1 units cannot be met: with one of the filters of each of 2"):
        selector(net).select(scores, 1, tie_key=0, among=net.masks)


@pytest.mark.parametrize("space", ["sp", "ip"])
def test_columns_by_hand(space):
    """A column is one position (in ip: one basis filter) of one input, over all filters; of a linear layer an input."""
    net = sparse(space=space, pattern="columns", budget="channels", sparsity="0.9")
    assert selector(net).start == 18 + 27 + 2
    scores = {name: torch.zeros(mask.shape) for name, mask in net.masks.items()}
    scores["0"][:, 1, 2, 0] = 1.0
    scores["2"][0, 0, 1, 1], scores["2"][1, 0, 1, 2] = 3.0, 4.0
    scores["6"][2, 1] = 2.0
    masks = selector(net).select(scores, 4, tie_key=0, among=net.masks)
    assert kept(masks) == {"0": 3, "2": 4, "6": 4}
    assert masks["0"][:, 1, 2, 0].all() and masks["2"][:, 0, 1, 1:].all() and masks["6"][:, 1].all()
    facts = selector(net).facts(masks)
    assert [entry["kept"] for entry in facts["units"]] == [1, 2, 1] and "macs_sliced" not in facts


@pytest.mark.parametrize("space", ["sp", "ip"])
def test_channels_by_hand(space):
    """A channel goes with the filters that make it and with what reads it; the score is that of the filters."""
    net = sparse(Residual(3, 2), space=space, pattern="channels", budget="channels", sparsity="0.2")
    groups = {entry["name"]: entry["units"] for entry in selector(net).facts(net.masks)["units"]}
    assert groups == {"stem": 3, "one": 2}
    scores = {name: torch.zeros(mask.shape) for name, mask in net.masks.items()}
    scores["stem"][:, 0, 0, 0] = torch.tensor([1.0, 5.0, 3.0])
    scores["two"][:, 0] = torch.tensor([[3.0], [0.0], [2.0]]).view(3, 1, 1)  # makes the stream, too: 4, 5, 5
    scores["one"][:, 0, 0, 0] = torch.tensor([6.0, 7.0])
    scores["one"][:, 0, 1] = 0.0
    scores["head"][:] = torch.arange(12.0)  # reads the stream, and has no say
    masks = selector(net).select(scores, 4, tie_key=0, among=net.masks)
    assert masks["stem"][:, 0, 0, 0].tolist() == masks["two"][:, 0, 0, 0].tolist() == [False, True, True]
    assert masks["one"][0, :, 0, 0].tolist() == [False, True, True] and masks["one"][:, 1].all()
    assert masks["head"][0].tolist() == [False] * 4 + [True] * 8
    assert kept(masks) == {"stem": 36, "one": 36, "two": 4, "head": 24}


def test_a_channel_goes_when_all_filters_that_make_it_are_gone():
    """Pattern filters: MACs after slicing count a channel of a stream as long as one layer still makes it."""
    net = sparse(Residual(3, 2), pattern="filters", budget="macs", sparsity="0.1")
    selects = selector(net)
    masks = {name: mask.clone() for name, mask in net.masks.items()}
    masks["stem"][0] = False
    assert selects.kept(masks) == net.counted.macs
    masks["two"][0] = False
    # 16 positions: stem 2*9, one 2*9, two 2; head 4 * 3 once.
    assert selects.kept(masks) == net.counted.macs - 16 * (18 + 18 + 2) - 12


def test_n_of_m_by_hand():
    layers = nn.Sequential(nn.Conv2d(4, 2, (1, 2)), nn.Flatten(), nn.Linear(6, 2))
    net = SparseNet(layers, make_run(pattern="2:4", sparsity="0.5"), (4, 3, 2))
    scores = {name: torch.zeros(mask.shape) for name, mask in net.masks.items()}
    scores["0"][0, :, 0, 0] = torch.tensor([1.0, 4.0, 2.0, 3.0])
    scores["0"][0, :, 0, 1] = torch.tensor([-1.0, -4.0, -2.0, -3.0])
    selects = selector(net)
    masks = selects.select(scores, 2, tie_key=0, among=net.masks)
    assert masks["0"][0, :, 0, 0].tolist() == [False, True, False, True]
    assert masks["0"][0, :, 0, 1].tolist() == [True, False, True, False]
    assert masks["0"][1].sum(0).tolist() == [[2, 2]] and masks["2"].all()
    assert selects.facts(masks) == {"asked": 0.5, "reached": 1 - (8 + 12) / 28, "dense_layers": ["2"]}
    assert (selects.kept(net.masks), selects.kept(masks)) == (4, 2)
    again = selects.select(scores, 1, tie_key=0, among=masks)
    assert not (again["0"] & ~masks["0"]).any() and again["0"].sum(1).eq(1).all()
    one = selects.select(scores, 2, tie_key=1, among=net.masks)
    assert not all(
        torch.equal(one["0"][1], selects.select(scores, 2, tie_key=k, among=net.masks)["0"][1]) for k in range(9)
    )


def test_n_of_m_leaves_colours_whole_and_follows_transposed_inputs():
    layers = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ConvTranspose2d(6, 4, 2))
    net = SparseNet(layers, make_run(pattern="1:3", sparsity="0.666666666667"), (3, 2, 2))
    masks = selector(net).select(net.magnitudes(), 1, tie_key=0, among=net.masks)
    assert masks["0"].all() and masks["1"].view(2, 3, -1).sum(1).eq(1).all()
    none = SparseNet(nn.Conv2d(3, 4, 1), make_run(pattern="2:4", sparsity="0.5"), (3, 2, 2))
    with pytest.raises(Impossible, match="no layer has a number of inputs above three that 4 divides"):
        selector(none).select(none.magnitudes(), 2, tie_key=0, among=none.masks)


def test_n_of_m_of_a_transposed_convolution_is_of_the_inputs_of_one_group():
    """Of 8 inputs in 2 groups four read as one; in 4 groups two do, and in 8 one does: these stay dense."""
    layers = nn.Sequential(
        nn.ConvTranspose2d(8, 8, 1, groups=2), nn.ConvTranspose2d(8, 8, 1, groups=4),
        nn.ConvTranspose2d(8, 8, 1, groups=8), nn.Conv2d(8, 8, 1, groups=4), nn.Conv2d(8, 8, 1, groups=2),
    )  # fmt: skip
    net = SparseNet(layers, make_run(pattern="2:4", sparsity="0.5"), (8, 2, 2))
    masks = selector(net).select(net.magnitudes(), 2, tie_key=0, among=net.masks)
    assert selector(net).facts(masks)["dense_layers"] == ["1", "2", "3"]
    assert masks["0"].view(2, 4, 4).sum(1).eq(2).all() and masks["4"].view(8, 4).sum(1).eq(2).all()


def test_a_column_of_a_convolution_with_groups_is_of_one_input_channel():
    """A column has the filters that read its channel: those of its group, 1 of a depthwise convolution."""
    layers = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 6, 1, groups=2))
    net = SparseNet(layers, make_run(pattern="columns", budget="channels", sparsity="0.5"), (4, 3, 3))
    selects = selector(net)
    assert isinstance(selects, OfUnits)
    assert [block.number for block in selects.units.blocks] == [4 * 9, 4] and selects.target == 20
    scores = {"0": torch.arange(36.0).view(4, 1, 3, 3), "1": torch.zeros(6, 2, 1, 1)}
    scores["1"][:3, 1] = 50.0
    masks = selects.select(scores, 20, tie_key=0, among=net.masks)
    assert masks["0"].flatten().tolist() == [False] * 17 + [True] * 19
    assert masks["1"].view(2, 3, 2).any(1).tolist() == [[False, True], [False, False]]
    assert masks["1"].sum() == 3 and selects.units.coefficients(selects.units.alive(masks)) == 19 + 3


@pytest.mark.parametrize("pattern", UNITS)
def test_what_is_left_out_inside_a_unit_stays_out(pattern):
    """An updater may have masked a part of a unit: the unit stands, and gets nothing back."""
    net = sparse(pattern=pattern, sparsity="0.1")
    among = {name: torch.ones_like(mask) for name, mask in net.masks.items()}
    among["2"][0, 0, 1, 1] = False
    masks = selector(net).select(net.magnitudes(), selector(net).start, tie_key=0, among=among)
    assert all(torch.equal(masks[name], among[name]) for name in among)


def test_ties_are_keyed_and_the_same_in_both_spaces():
    zero = {space: sparse(Residual(8, 8), space=space, pattern="channels", budget="channels", sparsity="0.5")
            for space in ("sp", "ip")}  # fmt: skip
    found = {
        (space, key): selector(net).select(
            {name: torch.zeros(mask.shape) for name, mask in net.masks.items()}, 8, tie_key=key, among=net.masks
        )["stem"]
        for space, net in zero.items()
        for key in (1, 2, 3)
    }  # fmt: skip
    assert all(torch.equal(found["sp", key], found["ip", key]) for key in (1, 2, 3))
    assert len({tuple(found["sp", key][:, 0, 0, 0].tolist()) for key in (1, 2, 3)}) > 1


@pytest.mark.parametrize("pattern", UNITS)
def test_at_random_every_unit_has_the_same_chance(pattern):
    """Large filters are drawn as often as small ones; sums of uniform numbers would keep the large ones."""
    counted = {"size": 0, "kept": 0}
    for seed in range(40):
        run = {"method": "random", "pattern": pattern, "budget": "channels", "sparsity": "0.5", "seed": seed}
        net = sparse(seeded(Residual, 12, 4), **run)
        net.prune(pruned_masks(net, methods.get("random").stages({})[0], TinyData(SHAPE)))
        last = selector(net).facts(net.masks)["units"][-1]
        counted["size"] += last["units"]
        counted["kept"] += last["kept"]
    share = counted["kept"] / counted["size"]
    assert abs(share - 0.5) < 4 * math.sqrt(0.25 / counted["size"]) + 0.02  # one of each group always stays


def test_the_first_score_of_a_unit_by_hand():
    net = sparse(Residual(3, 2), pattern="channels", budget="channels", sparsity="0.2")
    scores = {name: torch.zeros(mask.shape) for name, mask in net.masks.items()}
    scores["stem"][:, 0, 0, 0] = torch.tensor([1.0, 5.0, 3.0])
    scores["stem"][:, 1] = scores["two"][:] = 9.0
    scores["one"][:, 0, 0, 0] = torch.tensor([-6.0, 7.0])
    assert selector(net).units.scores(scores, "first").tolist() == [1, 5, 3, -6, 7]


def test_uniform_takes_the_same_share_of_every_layer():
    net = sparse(Residual(8, 4), pattern="channels", budget="channels", sparsity="0.5", allocation="uniform")
    scores = {name: torch.rand(mask.shape) + (name == "stem") for name, mask in net.masks.items()}
    masks = selector(net).select(scores, 6, tie_key=0, among=net.masks)
    assert [entry["kept"] for entry in selector(net).facts(masks)["units"]] == [4, 2]
    sums = scores["stem"].flatten(1).sum(1) + scores["two"].flatten(1).sum(1)
    assert sorted(sums.topk(4).indices.tolist()) == masks["stem"][:, 0, 0, 0].nonzero().flatten().tolist()


def test_scores_that_overflow_in_sums_rank_all_the_same():
    net = sparse(pattern="filters", budget="channels", sparsity="0.4")
    scores = {name: torch.ones(mask.shape, dtype=torch.float64) for name, mask in net.masks.items()}
    scores["0"] *= torch.tensor([1e308, 0.9e308, 0.8e308], dtype=torch.float64).view(3, 1, 1, 1)
    masks = selector(net).select(scores, 3, tie_key=0, among=net.masks)
    assert masks["0"][:, 0, 0, 0].tolist() == [True, True, False]
    scores["0"] = scores["0"] * 10
    with pytest.raises(NotFinite, match="layer 0"):
        selector(net).select(scores, 3, tie_key=0, among=net.masks)


NETS: tuple[Callable[[], nn.Module], ...] = (chain, lambda: Residual(5, 3), lambda: Residual(8, 8))


@pytest.mark.parametrize("method", ["synflow", "gmp", "magnitude"])
@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"pattern": "7:61", "sparsity": "0.885245901639"}, "above three that 61 divides"),
        (
            {"pattern": "filters", "budget": "channels", "sparsity": "0.5"},
            "no filters that can be removed: layer 1: the net",
        ),
        (
            {"pattern": "channels", "budget": "parameters", "sparsity": "0.5"},
            "no channels that can be removed: layer 1: the net",
        ),
    ],
)
def test_a_net_without_anything_of_the_pattern_is_impossible(method, values, reason):
    """Whatever a method does first: a schedule has nothing to start from."""
    with pytest.raises(Impossible, match=reason):
        run_stages(
            make_run(method=method, options={"every": 2} if method == "gmp" else {}, **values),
            TinyData(SHAPE),
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(32, 3)),
        )


@settings(deadline=None)
@given(
    make=st.sampled_from(NETS),
    space=st.sampled_from(["sp", "ip"]),
    pattern=st.sampled_from(UNITS),
    budget=st.sampled_from(["parameters", "macs", "channels"]),
    allocation=st.sampled_from(["global", "uniform"]),
    sparsity=st.integers(0, 95),
    seed=st.integers(0, 100),
)
def test_a_budget_is_never_exceeded_and_less_than_a_unit_of_it_is_unused(
    make, space, pattern, budget, allocation, sparsity, seed
):
    if (pattern, budget) == ("columns", "macs"):
        return
    values = {"pattern": pattern, "budget": budget, "allocation": allocation, "sparsity": sparsity / 100}
    net = sparse(make(), space=space, **values)
    selects = selector(net)
    assert isinstance(selects, OfUnits)
    generator = torch.Generator().manual_seed(seed)
    scores = {name: torch.randn(mask.shape, generator=generator) for name, mask in net.masks.items()}
    every = selects.units.alive(net.masks)
    try:
        masks = selects.select(scores, selects.target, tie_key=seed, among=net.masks)
    except Impossible as error:
        if "cannot be met" in str(error):  # with the best of every layer or group alone
            order, least = selects.units.order(selects.units.scores(scores), every, seed, allocation)
            alone = every & False
            alone[order[:least]] = True
            assert selects.kept(selects.units.masks(alone)) > selects.target
        else:
            assert "filter bases alone" in str(error) or "keeps nothing" in str(error)
        return
    alive = selects.units.alive(masks)
    assert all(torch.equal(masks[name], mask) for name, mask in selects.units.masks(alive).items())
    assert selects.kept(masks) <= selects.target
    if budget == "parameters":
        assert selects.units.coefficients(alive) == sum(kept(masks).values()) == selects.kept(masks)
        assert sum(kept(masks).values()) + net.basis_entries <= (1 - Fraction(sparsity, 100)) * net.prunable
    assert all(entry["kept"] >= 1 for entry in selects.facts(masks)["units"])
    # The next unit of the ranking, whichever it is, costs more than what is left.
    order, least = selects.units.order(selects.units.scores(scores), every, seed, allocation)
    number = int(alive.sum())
    assert number >= least and set(order[:number]) == set(alive.nonzero()[0])
    if number < len(order):
        more = alive.copy()
        more[order[number]] = True
        assert selects.kept(selects.units.masks(more)) > selects.target


@pytest.mark.parametrize("pattern", ["filters", "channels"])
@pytest.mark.parametrize("make", NETS)
def test_counts_after_slicing_are_those_of_a_sliced_net(make, pattern):
    for sparsity in ("0.1", "0.5"):
        net = sparse(make(), pattern=pattern, budget="channels", sparsity=sparsity)
        selects = selector(net)
        masks = selects.select(net.magnitudes(), selects.target, tie_key=0, among=net.masks)
        net.prune(masks)
        facts = selects.facts(masks)
        plain, gone = net.net, {}
        for group in net.groups.free:
            rows = [masks[member.layer].movedim(member.axis, 0).flatten(1).any(1)[torch.from_numpy(member.indices)]
                    for member in group.producers]  # fmt: skip
            gone[group.name] = (~torch.cat(rows, 1).any(1)).nonzero().flatten().tolist()
        slice_net(plain, plan(net.groups, gone), SHAPE)
        counted = measure.count(plain, SHAPE)
        assert (facts["macs_sliced"], facts["parameters_sliced"]) == (counted.macs, counted.parameters)
        # The few filters of a stream that go alone leave its channels there.
        assert facts["macs_sliced"] < net.counted.macs or (pattern, sparsity) == ("filters", "0.1")


@pytest.mark.parametrize("space", ["sp", "ip"])
@pytest.mark.parametrize("pattern", ["filters", "channels"])
@pytest.mark.parametrize("budget", ["parameters", "macs", "channels"])
def test_a_sliced_net_keeps_its_budget_and_can_be_pruned_on(space, pattern, budget):
    """Counts are of the dense net, and units have their places there, whatever was sliced off before."""
    net = sparse(Residual(8, 8), space=space, pattern=pattern, budget=budget, sparsity="0.3")
    scores = {name: net.uniform(name) for name in net.masks}
    masks = selector(net).select(scores, selector(net).target, tie_key=0, among=net.masks)
    net.prune(masks)
    facts, kept_before = selector(net).facts(net.masks), selector(net).kept(net.masks)
    net.slice()
    assert net.structure and (selector(net).facts(net.masks), selector(net).kept(net.masks)) == (facts, kept_before)
    assert (net.now.macs, net.now.parameters) == (facts["macs_sliced"], facts["parameters_sliced"] - net.basis_entries)
    net.run = net.run.model_copy(update={"sparsity": "0.5"})
    cut = plan(net.groups, net.structure.removed(net.groups))
    scores = {name: cut.take(net.weights[name], score) for name, score in scores.items()}
    again = selector(net).select(scores, selector(net).target, tie_key=0, among=net.masks)
    assert selector(net).kept(again) <= selector(net).target
    net.prune(again)
    net.slice()
    assert net.now.macs == selector(net).facts(net.masks)["macs_sliced"] < facts["macs_sliced"]


def test_masked_channels_are_silent():
    """What a masked net computes is what it computes with the removed channels zero everywhere, in both spaces."""
    for space in ("sp", "ip"):
        torch.manual_seed(0)
        net = sparse(Residual(6, 4), space=space, pattern="channels", budget="macs", sparsity="0.5").eval()
        masks = selector(net).select(net.magnitudes(), selector(net).target, tie_key=0, among=net.masks)
        net.prune(masks)
        torch.manual_seed(0)
        plain = Residual(6, 4).eval()
        stem = masks["stem"][:, 0, 0, 0].logical_not().nonzero().flatten().tolist()
        one = masks["one"].flatten(1).any(1).logical_not().nonzero().flatten().tolist()
        mask_net(plain, plan(net.groups, {"stem": stem, "one": one}))
        images = torch.randn(3, *SHAPE)
        assert torch.allclose(net(images), plain(images), atol=1e-5)


@pytest.mark.parametrize("method", ["random", "magnitude", "snip", "grasp", "synflow", "freezenet", "ft", "gmp"])
@pytest.mark.parametrize(
    ("pattern", "budget"),
    [("filters", "parameters"), ("filters", "macs"), ("columns", "channels"), ("channels", "macs"),
     ("channels", "parameters"), ("2:4", "parameters")],
)  # fmt: skip
def test_every_score_that_stands_works_with_every_pattern(method, pattern, budget):
    """In both spaces; and where the filter basis is at its start, units and MACs are the same."""
    entry, found = methods.get(method), {}
    options = {
        name: value for name, value in {"rounds": 3, "every": 1, "per_class": 0}.items() if name in entry.options
    }
    for space in ("sp", "ip"):
        run = make_run(
            method=method, space=space, pattern=pattern, budget=budget, sparsity="0.5", seed=3,
            options=entry.check_options(options, "here"),
        )  # fmt: skip
        net, _ = run_stages(run, TinyData(SHAPE), lambda: seeded(Residual, 8, 8))
        selects = selector(net)
        assert selects.kept(net.masks) <= selects.target
        found[space] = selects.facts(net.masks)
    if budget == "macs":
        assert found["sp"]["reached"] >= 0.5 and found["ip"]["reached"] >= 0.5
    if method in ("random", "magnitude", "snip", "freezenet") and budget != "parameters":
        assert found["sp"]["units"] == found["ip"]["units"]


def seeded(make: Callable[..., nn.Module], *sizes: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make(*sizes)


KEYS = {"asked", "reached", "units", "dense_layers", "macs_sliced", "macs_sliced_two_stage", "parameters_sliced"}


@pytest.mark.parametrize(
    ("values", "keys"),
    [
        ({"pattern": "coefficients"}, set()),
        ({"pattern": "2:4"}, {"asked", "reached", "dense_layers"}),
        ({"pattern": "columns", "budget": "channels"}, {"asked", "reached", "units"}),
        ({"pattern": "channels", "off": "frozen"}, {"asked", "reached", "units"}),
        ({"pattern": "filters"}, KEYS - {"dense_layers"}),
    ],
)
def test_records_tell_of_units_where_there_are_some(values, keys):
    """And nothing of what other runs do not have: their records keep their keys."""
    net, state = run_stages(make_run(method="snip", sparsity="0.5", **values), TinyData(SHAPE), lambda: Residual(8, 8))
    told = describe(net, TinyData(SHAPE), state)
    assert KEYS & set(told) == keys
    if "units" in keys:
        assert 0.5 <= told["reached"] < 1 and told["asked"] == 0.5
    if values["pattern"] == "channels":
        assert not net.structure and sum(int((~mask).sum()) for mask in net.masks.values()) > 0
        for name, mask in net.masks.items():
            assert bool((mask | (net.start[name] == net.coefficients[name])).all())


def test_rounds_keep_an_exponential_schedule_in_the_unit_of_the_budget(monkeypatch):
    net = sparse(Residual(8, 8), method="random", pattern="channels", budget="channels", sparsity="0.75")
    stage = methods.get("random").stages({"rounds": 4})[0]
    selects, asked = selector(net), []

    class Noting:
        start, target, kept = selects.start, selects.target, staticmethod(selects.kept)

        def select(self, scores, keep, **values):
            asked.append(keep)
            return selects.select(scores, keep, **values)

    monkeypatch.setattr("ipbench.training.pruning.selector", lambda net, unit_score: Noting())
    masks = pruned_masks(net, stage, TinyData(SHAPE))
    assert asked == [round(16 * 0.25 ** (r / 4)) for r in (1, 2, 3, 4)] == [11, 8, 6, 4]
    assert selects.kept(masks) == 4


@pytest.mark.parametrize(
    ("rate", "number", "rounding", "count"),
    [
        (1 - Fraction("0.9"), 10, "int", 1), ("0.1", 10, "int", 1), (0.1, 10, "ceil", 1), ("0.29", 100, "int", 29),
        (0.3, 10, "int", 3), ("0.35", 10, "int", 3), ("0.35", 10, "ceil", 4), ("0.25", 10, "round", 2),
        ("0.35", 10, "round", 4), (0, 10, "ceil", 0), (1, 10, "int", 10), ("0.301", 10, "ceil", 4),
    ],
)  # fmt: skip
def test_counts_of_a_rate_are_exact(rate, number, rounding, count):
    """int(10 * (1 - 0.9)) is 0 in floating point, int(100 * 0.29) is 28."""
    assert count_of(rate, number, rounding) == count
    assert math.floor(10 * (1 - 0.9)) == 0 and int(100 * 0.29) == 28


def test_a_rate_is_a_share():
    for rate in (-0.1, 1.1, math.nan, "x", "1/0"):
        with pytest.raises(BadInput, match="a rate is a number from 0 to 1"):
            count_of(rate, 10, "int")


def test_filters_of_a_real_net_in_both_spaces():
    """SNIP's filters at equal MACs are the same in both spaces, and the record says what two stages would cost."""
    facts = {}
    for space in ("sp", "ip"):
        run = make_run(space=space, pattern="channels", budget="macs", sparsity="0.5")
        net = SparseNet(build("lenet5-caffe", (1, 28, 28), 10, 0), run, (1, 28, 28))
        masks = selector(net).select(net.magnitudes(), selector(net).target, tie_key=0, among=net.masks)
        facts[space] = selector(net).facts(masks)
    assert facts["sp"]["macs_sliced"] == facts["ip"]["macs_sliced"] <= net.counted.macs // 2
    assert facts["ip"]["macs_sliced_two_stage"] > facts["ip"]["macs_sliced"]
