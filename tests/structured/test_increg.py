"""IncReg against a restatement of its code, by hand, and in whole runs; its floor on accuracies that are given."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ipbench import methods
from ipbench.cli.main import main
from ipbench.errors import BadInput
from ipbench.methods import Train
from ipbench.methods._floor import FloorDecay
from ipbench.methods._increments import Increments, increments, limit_of, multiplier_of
from ipbench.methods._ranked import RankedDecay
from ipbench.models.build import build
from ipbench.runs.environment import Environment
from ipbench.sparse.net import SparseNet
from ipbench.sparse.selection import Impossible
from ipbench.sparse.view import TrainedView
from ipbench.spec import Basis, Recipe, Run
from ipbench.tasks import Measured
from ipbench.training import loop
from ipbench.updaters import Steps
from tests.increg_reference import Chain, Layer
from tests.tiny import TinyData, make_run, run_stages

SHAPE = (1, 8, 8)
HERE = Environment()
A = 2.5e-4


def chain() -> nn.Sequential:
    """Two convolutions and a classifier in double precision, in a known state."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = nn.Sequential(
            nn.Conv2d(3, 6, 3, bias=False), nn.ReLU(), nn.Conv2d(6, 5, 3, bias=False), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3, bias=False),
        )  # fmt: skip
        return net.double()


class Skip(nn.Module):
    """A stem, and a block of two convolutions that is added to it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = (nn.Conv2d(a, 4, 3, padding=1) for a in (2, 4, 4))
        self.head = nn.Conv2d(4, 5, 3, padding=1)
        self.last = nn.Linear(5, 3)

    def forward(self, images: Tensor) -> Tensor:
        stem = self.stem(images)
        streams = (stem + self.two(self.one(stem).relu())).relu()
        return self.last(self.head(streams).relu().mean((2, 3)))


def sparse(net: nn.Module, pattern: str = "columns", **values: Any) -> SparseNet:
    values = {"pattern": pattern, "sparsity": "0", "allocation": "uniform", **values}
    return SparseNet(net, make_run(**values), (2 if isinstance(net, Skip) else 3, 6, 6))


def updater_of(net: SparseNet, weight_decay: float = 0.0, **options: Any) -> RankedDecay:
    options = {"rise": 0.1, "limit": 1.0, **options}
    return RankedDecay(TrainedView(net, weight_decay), Steps(10**6, 1), **options)


def matrix(tensor: Tensor) -> np.ndarray:
    return tensor.detach().flatten(1).numpy().copy()


# The function of increments, by hand.


@pytest.mark.parametrize("remaining", [1, 2, 7, 20, 460])
def test_increments_are_symmetric_and_vanish_where_groups_stay(remaining):
    """Delta(0) = A, Delta(N) = A / 4, Delta(R) = 0, and what is below N is above it on the other side."""
    middle = -math.log(0.25) / (math.log(8) / remaining)

    def delta(place: float) -> float:
        places = torch.tensor([place], dtype=torch.float64)
        return float(increments(places, torch.tensor([remaining]), A))

    assert delta(0) == A
    assert delta(middle) == pytest.approx(A / 4, rel=1e-12)
    assert delta(remaining) == pytest.approx(0, abs=1e-18)
    assert delta(remaining + 1) < 0 < delta(remaining - 1)
    for distance in np.linspace(0, middle, 7):
        assert delta(middle + distance) + delta(middle - distance) == pytest.approx(A / 2, rel=1e-9)


def test_the_multiplier_of_the_reference():
    assert [multiplier_of(x) for x in (0.01, 0.05)] == [pytest.approx(0.25), pytest.approx(1)]
    assert multiplier_of(0.2) == pytest.approx(2.452, abs=5e-5) and multiplier_of(9) == pytest.approx(2.5)
    assert limit_of(2.5, multiplier_of(0.2)) == pytest.approx(6.130, abs=1e-3) and limit_of(5, 3) == 10


def groups_of(number: int, wanted: int) -> tuple[Increments, Tensor]:
    """One block of so many groups, of norms 1, 2, ..."""
    run = make_run(pattern="columns", sparsity="0", allocation="uniform")
    net = SparseNet(nn.Sequential(nn.Flatten(), nn.Linear(number, 2)), run, (number, 1, 1))
    units = TrainedView(net, 0.0).units
    return Increments(units, torch.tensor([wanted])), torch.arange(1, number + 1, dtype=torch.float64)


def test_factors_of_constant_ranks():
    """max(0, t Delta(j)) until the first group goes; and the step at which it does."""
    groups, sizes = groups_of(12, 5)
    places = torch.arange(12)
    for step in range(1, 40):
        groups.step(sizes, 0.1, 4.0)
        wanted = (step * increments(places, torch.tensor([5]), 0.1)).clamp(min=0)
        assert torch.allclose(groups.factor, wanted, rtol=1e-12, atol=1e-14) and not groups.gone.any()
        assert torch.equal(groups.rank, places.double()) and float(groups.factor[6:].sum()) == 0
    groups.step(sizes, 0.1, 4.0)
    assert groups.gone.nonzero().flatten().tolist() == [0]


@pytest.mark.parametrize(("multiplier", "first"), [(1.0, 10_000), (0.0, 24_521)])
def test_the_step_at_which_the_first_group_goes(multiplier, first):
    """Target over increment, rounded up; 24,521 with the multiplier of the reference."""
    stage = methods.get("increg").stages({"multiplier": multiplier})[1]
    assert isinstance(stage, Train) and stage.update
    limit = stage.update.options["limit"]
    assert math.ceil(limit / A - 1e-9) == first and stage.steps == 20 * first
    groups, sizes = groups_of(2, 1)
    for _ in range(first - 3):  # as `step` adds them
        groups.factor[0] += A
    went = [bool(groups.step(sizes, A, limit)[0].any()) for _ in range(3)]
    assert went == [False, False, True]


@pytest.mark.parametrize(("number", "wanted"), [(10, 9), (40, 20), (40, 1), (300, 270)])
def test_as_many_go_as_are_wanted_whatever_the_ranks_do(number, wanted):
    """Never more: behind the place of the last one that is to go, no factor grows."""
    groups, _ = groups_of(number, wanted)
    generator = torch.Generator().manual_seed(1)
    for _ in range(4000):
        groups.step(torch.rand(number, generator=generator, dtype=torch.float64), 0.1, 1.0)
        if not bool(groups.remaining.any()):
            break
    assert int(groups.gone.sum()) == wanted


def test_a_rank_is_the_mean_over_all_steps():
    groups, _ = groups_of(8, 4)
    generator = torch.Generator().manual_seed(2)
    seen = []
    for _ in range(50):
        sizes = torch.rand(8, generator=generator, dtype=torch.float64)
        seen.append(sizes.argsort().argsort().double())
        groups.step(sizes, 1e-6, 1.0)
    assert torch.allclose(groups.rank, torch.stack(seen).mean(0), rtol=1e-12)


# Against the restatement.


@pytest.mark.parametrize(
    ("pattern", "ratios"),
    [("columns", (0.5, 0.9, 0.0)), ("columns", (0.3, 0.6, 0.4)), ("filters", (0.5, 0.6, 0.0))],
)
def test_steps_are_those_of_the_reference(pattern, ratios):
    """Mean ranks, factors, groups that go and weights after every one of some hundred steps, in double precision."""
    net, limit, lr, decay = sparse(chain(), pattern), 0.99, 0.02, 1e-3
    rise = 0.02 if pattern == "columns" else 0.005
    view, names = TrainedView(net, decay), list(net.coefficients)
    starts = {name: c.detach().clone() for name, c in net.coefficients.items()}
    noise = torch.Generator().manual_seed(5)
    text = ",".join(f"{name}={ratio}" for name, ratio in zip(names, ratios, strict=True) if ratio)
    with torch.no_grad():
        updater = updater_of(net, decay, rise=rise, limit=limit, ratios=text)
        units = updater.groups.units
        ties = units.order.argsort()
        rows, layers = pattern == "filters", []
        for place, (name, c) in enumerate(net.coefficients.items()):
            start, size = (
                (int(units.starts[k]), int(units.sizes[k])) if (k := _place(units, name)) >= 0 else (0, c.shape[0])
            )
            own = ties[start : start + size].tolist()
            layers.append(Layer(matrix(c), c[0, 0].numel(), ratios[place], rows, own))
        oracle, steps = Chain(layers), 0
        while not updater.done or updater.decays is not None:
            pulls = {
                name: 0.3 * (c - starts[name]) + 0.02 * torch.randn(c.shape, generator=noise, dtype=torch.float64)
                for name, c in net.coefficients.items()
            }
            for layer in layers:
                layer.begin()
            oracle.step([matrix(pull) for pull in pulls.values()], rise, limit, lr, decay)
            for name, c in net.coefficients.items():
                c.grad = pulls[name].clone()
            if updater.due(steps):
                assert updater.after_backward(view, None, steps)
            net.mask_gradients(decay, updater.decay(view))
            for c in net.coefficients.values():
                c -= lr * c.grad
            steps += 1
            _compare(updater, layers, names, net)
        assert 150 < steps < 1000
        for layer in layers:
            layer.begin()
        for layer, (name, c) in zip(layers, net.coefficients.items(), strict=True):
            assert np.array_equal(layer.mask.astype(bool), matrix(net.masks[name])), name
            assert sum(layer.gone) == layer.target()
            assert np.allclose(matrix(c), layer.w, rtol=1e-9, atol=1e-12)
    handed = net.masks["0"].flatten(1).any(1) if not rows else net.masks["2"].flatten(1).any(0)
    assert (ratios[1] < 0.9 and not rows) or not bool(handed.all())  # a neighbour has lost something


def _place(units: Any, name: str) -> int:
    return units.blocks.index(name) if name in units.blocks else -1


def _compare(updater: RankedDecay, layers: list[Layer], names: list[str], net: SparseNet) -> None:
    units, groups = updater.groups.units, updater.groups
    for layer, name in zip(layers, names, strict=True):
        if (place := _place(units, name)) < 0:
            continue
        own = slice(int(units.starts[place]), int(units.starts[place] + units.sizes[place]))
        assert groups.gone[own].tolist() == layer.gone, name
        live = ~groups.gone[own].numpy()
        assert np.allclose(groups.rank[own].numpy()[live], np.array(layer.rank)[live], rtol=1e-12)
        assert np.allclose(groups.factor[own].numpy(), layer.factor, rtol=1e-9, atol=1e-13)
        # What a neighbour has pruned is masked at once here, and before the next pass there.
        seen = matrix(net.masks[name])
        assert np.allclose(matrix(net.coefficients[name]), layer.w * seen, rtol=1e-9, atol=1e-12)


# What goes with a group.


def gone_rows(net: SparseNet, name: str) -> list[int]:
    return (~net.masks[name].flatten(1).any(1)).nonzero().flatten().tolist()


def gone_inputs(net: SparseNet, name: str) -> list[int]:
    mask = net.masks[name]
    return (~mask.transpose(0, 1).flatten(1).any(1)).nonzero().flatten().tolist()


def push(net: SparseNet, layer: str, axis: int, small: list[int]) -> None:
    """Make some slices of a layer the smallest."""
    with torch.no_grad():
        net.coefficients[layer].index_fill_(axis, torch.tensor(small), 1e-6)


def prune_at_once(net: SparseNet, **options: Any) -> None:
    updater, view = updater_of(net, **{"rise": 1.0, "limit": 0.5, **options}), TrainedView(net, 0.0)
    with torch.no_grad():
        for step in range(500):
            if updater.done:
                break
            updater.after_backward(view, None, step)
    assert updater.done


@pytest.mark.parametrize("space", ["sp", "ip"])
def test_columns_take_the_filter_before_with_them(space):
    """All nine columns of two channels go; the filters that make these channels go, too, and no others."""
    net = sparse(chain().float(), space=space)
    push(net, "2", 1, [1, 4])
    prune_at_once(net, ratios="2=0.334")
    assert int((~net.masks["2"].flatten(2).any(0)).sum()) == math.ceil(54 * 0.334)
    assert gone_inputs(net, "2") == [1, 4] == gone_rows(net, "0")
    assert not gone_rows(net, "2") and bool(net.masks["6"].all())


@pytest.mark.parametrize("space", ["sp", "ip"])
def test_a_filter_takes_the_columns_behind_it_with_it(space):
    net = sparse(chain().float(), "filters", space=space)
    push(net, "0", 0, [2, 5])
    prune_at_once(net, ratios="0=0.33")
    assert gone_rows(net, "0") == [2, 5] == gone_inputs(net, "2")
    assert not gone_rows(net, "2") and bool(net.masks["6"].all())


def test_a_skip_connection_keeps_what_others_add_to():
    """The stream is made by the stem and the block: what reads it loses two channels, and both still make them. Inside
    the block, where nothing is added, a filter goes.
    """
    net = sparse(Skip())
    for reader in ("one", "head"):
        push(net, reader, 1, [0, 3])
    push(net, "two", 1, [2])
    prune_at_once(net, ratios="one=0.5,head=0.5,two=0.25")
    assert gone_inputs(net, "one") == gone_inputs(net, "head") == [0, 3] and gone_inputs(net, "two") == [2]
    assert gone_rows(net, "one") == [2] and not gone_rows(net, "stem") and not gone_rows(net, "two")
    assert not gone_inputs(net, "stem")


def test_filters_that_a_skip_connection_couples_stay():
    net = sparse(Skip(), "filters")
    with pytest.raises(BadInput, match="nothing that can be pruned begins with 'stem'"):
        updater_of(net, ratios="stem=0.5")
    push(net, "one", 0, [1])
    prune_at_once(net, ratios="one=0.25")
    assert gone_rows(net, "one") == [1] == gone_inputs(net, "two")


def test_what_is_frozen_hands_nothing_on():
    """Columns at their initial values still read the channel."""
    net = sparse(chain().float(), off="frozen")
    push(net, "2", 1, [1, 4])
    prune_at_once(net, ratios="2=0.334")
    assert bool(net.masks["0"].all())


def test_channels_go_with_all_that_reads_them():
    net = sparse(chain().float(), "channels")
    push(net, "0", 0, [2, 5])
    prune_at_once(net, ratios="0=0.33")
    assert gone_rows(net, "0") == [2, 5] == gone_inputs(net, "2")


def test_a_finished_layer_has_the_recipes_decay():
    """Its factors stay behind: the others go on without it."""
    net = sparse(chain().float())
    view = TrainedView(net, 0.01)
    updater = updater_of(net, 0.01, ratios="0=0.04,2=0.9", rise=0.5, limit=1.0)
    with torch.no_grad():
        updater.after_backward(view, None, 0)
        assert float(updater.decay(view)["0"].max()) == pytest.approx(0.51)
        assert set(updater.decay(view)) == {"0", "2", "6"} and float(updater.decay(view)["6"].max()) == pytest.approx(
            0.01
        )
        step = 1
        while int(updater.groups.remaining[0]):
            updater.after_backward(view, None, step)
            step += 1
        assert float(updater.decay(view)["0"].max()) > 0.5  # in the step in which the last one goes
        updater.after_backward(view, None, step)
        assert not updater.done and float(updater.decay(view)["0"].max()) == pytest.approx(0.01)
        assert float(updater.groups.factor[: int(updater.groups.units.sizes[0])].max()) >= 1


# How much goes.


@pytest.mark.parametrize("pattern", ["columns", "filters", "channels", "coefficients"])
@pytest.mark.parametrize("allocation", ["uniform", "global"])
@pytest.mark.parametrize("space", ["sp", "ip"])
def test_the_budget_is_met_by_counts_alone(pattern, allocation, space):
    """Whichever units go, so many of each block: the least that the budget asks for."""
    net = SparseNet(
        build("resnet20-cifar", SHAPE, 10, 0),
        make_run(model="resnet20-cifar", pattern=pattern, sparsity="0.4", space=space, allocation=allocation), SHAPE,
    )  # fmt: skip
    view = TrainedView(net, 0.0)
    wanted, units = updater_of(net).groups.wanted, view.units
    assert bool((wanted < units.sizes).all()) and bool(wanted.any())
    for seed in range(2):
        draws = torch.rand(units.number, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        kept = units.ranks(draws) >= wanted[units.block]
        number = view.kept_by(units.masks(kept))
        assert number <= view.target
        if pattern == "coefficients":
            assert number == view.target
    assert not set(units.blocks) - view.inner or not any(
        wanted[place] for place, name in enumerate(units.blocks) if name not in view.inner
    )


def test_one_share_for_all_layers_and_the_first_may_be_left_out():
    net = sparse(chain().float(), sparsity="0.5")
    shares = [float(w) / float(n) for w, n in zip(*_wanted(updater_of(net)), strict=True)]
    assert all(abs(share - 0.5) < 0.21 for share in shares[:2])  # a layer of five columns is coarse
    without = _wanted(updater_of(net, first=False))[0]
    assert without[0] == 0 and without[1] > _wanted(updater_of(net))[0][1]


def _wanted(updater: RankedDecay) -> tuple[list[int], list[int]]:
    return updater.groups.wanted.tolist(), updater.groups.units.sizes.tolist()


def test_shares_are_rounded_up_and_one_group_stays():
    net = sparse(chain().float())
    assert _wanted(updater_of(net, ratios="0=0.5,2=0.999,6=0.41"))[0] == [14, 53, 3]


def test_a_training_too_short_is_impossible():
    net = sparse(chain().float())
    updater = RankedDecay(TrainedView(net, 0.0), Steps(4, 2), rise=1e-3, limit=1.0, ratios="0=0.5")
    updater.after_epoch(TrainedView(net, 0.0), 0)
    with pytest.raises(Impossible, match="14 groups that are to go have not gone after 2 epochs"):
        updater.after_epoch(TrainedView(net, 0.0), 1)


@pytest.mark.parametrize("basis", [Basis(), Basis(init="orthonormal")], ids=["standard", "orthonormal"])
def test_filters_rank_the_same_in_both_spaces(basis):
    ranks = {}
    for space in ("sp", "ip"):
        net = SparseNet(
            build("small-vgg", SHAPE, 10, 0),
            make_run(pattern="filters", space=space, **({"basis": basis} if space == "ip" else {})), SHAPE,
        )  # fmt: skip
        view = TrainedView(net, 0.0)
        ranks[space] = view.units.ranks(view.units.sums({name: w.abs() for name, w in view.weights.items()}))
    assert float((ranks["sp"] != ranks["ip"]).double().mean()) < 0.02  # sums of other roundings


# The floor.


class Accuracies:
    """Stands in for the evaluation: the accuracy is a function of the share of the columns that are gone."""

    def __init__(self, slope: float, start: float = 0.95) -> None:
        self.slope, self.start = slope, start
        self.nets: list[tuple[float, dict[str, Tensor], dict[str, Tensor]]] = []

    def share(self, net: SparseNet) -> float:
        mask = net.masks["1"]
        return 1 - float(mask.any(0).double().mean())

    def __call__(self, net: SparseNet, batches: Any, recipe: Any, truth: Any) -> Measured:
        tensors = {name: tensor.clone() for name, tensor in net.tensors().items()}
        self.nets.append((self.share(net), tensors, dict(net.masks)))
        return Measured(self.start - self.slope * self.share(net), 0.5)


def flat() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(72, 3))


FLOOR = {"rise": 0.5, "target": 1.0, "settle": 2, "patience": 0, "limit": 3000}


def floor_run(monkeypatch, slope: float, floor: float, **options: Any) -> tuple[SparseNet, Any, Accuracies]:
    seen = Accuracies(slope)
    monkeypatch.setattr(loop, "evaluate", seen)
    run = make_run(
        method="increg-accuracy", pattern="columns", sparsity="0", allocation="uniform",
        options=methods.get("increg-accuracy").check_options({**FLOOR, "floor": floor, **options}, "here"),
        recipe=Recipe(epochs=1, lr=0.05),
    )  # fmt: skip
    net, state = run_stages(run, TinyData(), flat)
    return net, state, seen


def expected(slope: float, floor: float, start: float = 0.95, n: int = 72) -> list[tuple[float, int, bool]]:
    """The rounds by hand: increment, columns gone, whether the round was kept."""
    gone, accuracy, increment, rounds = 0, start, 0.2, []
    while increment >= 0.01:
        now = min(math.ceil(gone + increment * n - 1e-9), math.ceil(0.9 * n))
        if now == gone:
            break
        reached = start - slope * now / n
        good = floor - reached <= 5e-4
        rounds.append((increment, now, good))
        if good:
            gone, accuracy = now, reached
            increment = min(max(10 * (reached - floor), 0.01), 0.2)
        else:
            increment = increment / (accuracy - reached) * (accuracy - floor)
    return rounds


@pytest.mark.parametrize(("slope", "floor"), [(0.3, 0.8), (1.0, 0.7), (0.05, 0.7), (3.0, 0.9), (0.2, 0.9)])
def test_rounds_by_the_accuracy(monkeypatch, slope, floor):
    """Increments from the margin, interpolation after a failure, and the net of the last good round at the end."""
    net, _, seen = floor_run(monkeypatch, slope, floor)
    rounds = net.notes["rounds"]
    wanted = expected(slope, floor)
    assert [entry["kept"] for entry in rounds] == [good for _, _, good in wanted]
    assert [entry["increment"] for entry in rounds] == [pytest.approx(increment) for increment, _, _ in wanted]
    assert [entry["limit"] for entry in rounds] == [pytest.approx(multiplier_of(i)) for i, _, _ in wanted]
    assert [entry["validation_accuracy"] for entry in rounds] == [
        pytest.approx(0.95 - slope * gone / 72) for _, gone, _ in wanted
    ]
    kept = [gone for _, gone, good in wanted if good]
    assert round(72 * seen.share(net)) == (kept[-1] if kept else 0)


def test_cases_of_rounds_hold_all_that_can_happen():
    """All good up to 0.9 of the columns; failures; none good."""
    cases = {case: expected(*case) for case in [(0.3, 0.8), (1.0, 0.7), (0.05, 0.7), (3.0, 0.9), (0.2, 0.9)]}
    assert all(good for _, _, good in cases[0.05, 0.7]) and cases[0.05, 0.7][-1][1] == 65
    assert not any(good for _, _, good in cases[3.0, 0.9])
    assert {good for _, _, good in cases[1.0, 0.7]} == {True, False}


def test_a_failed_round_is_taken_back_to_the_bit(monkeypatch):
    """The dense net's epoch, then a round that fails: what comes back is the net as it was evaluated first."""
    seen = Accuracies(3.0)
    monkeypatch.setattr(loop, "evaluate", seen)
    net = SparseNet(flat(), make_run(pattern="columns", sparsity="0", allocation="uniform"), (2, 6, 6))
    view = TrainedView(net, 0.0)
    updater = FloorDecay(view, Steps(3000, 3), floor=0.9, **{name: FLOOR[name] for name in FLOOR if name != "limit"})
    with torch.no_grad():
        updater.after_evaluation(view, 0, 0.95)
        first = {name: tensor.clone() for name, tensor in net.tensors().items()}
        for step in range(3, 2000):
            updater.after_backward(view, None, step)
            for c in net.coefficients.values():
                c.mul_(0.999)
            if updater.phase == 3:
                break
        assert round(72 * seen.share(net)) == 15 and int(updater.groups.gone.sum()) == 15
        assert float(updater.groups.factor[~updater.groups.gone].abs().sum()) == 0
        updater.after_evaluation(view, 700, 0.5)
        assert not all(bool(mask.all()) for mask in net.masks.values())
        updater.after_evaluation(view, 701, 0.5)
    assert all(bool(mask.all()) for mask in net.masks.values()) and not updater.groups.gone.any()
    assert all(torch.equal(first[name], tensor) for name, tensor in net.tensors().items())
    assert not updater.done and updater.increment == pytest.approx(0.2 / 0.45 * 0.05)
    assert updater.limit == pytest.approx(multiplier_of(updater.increment))


def test_a_dense_net_below_the_floor_is_impossible(monkeypatch):
    with pytest.raises(Impossible, match=r"of the dense net is 0.9500, below the floor of 0.96"):
        floor_run(monkeypatch, 0.3, 0.96)


def test_without_a_floor_rounds_go_on_to_the_budget(monkeypatch):
    monkeypatch.setattr(loop, "evaluate", Accuracies(0.5))
    run = make_run(
        method="increg-accuracy", pattern="columns", sparsity="0.5", allocation="uniform", options=FLOOR,
        recipe=Recipe(epochs=1, lr=0.05),
    )  # fmt: skip
    net, _ = run_stages(run, TinyData(), flat)
    gone = [0.95 - entry["validation_accuracy"] for entry in net.notes["rounds"]]
    assert [round(72 * share / 0.5) for share in gone] == [15, 30, 36]
    assert not net.state.get("nets that are kept")


def test_a_floor_needs_a_validation_part():
    values = {"pattern": "columns", "sparsity": "0", "options": {"floor": 0.5}}
    run = make_run(method="increg-accuracy", recipe=Recipe(validation=0.0), **values)
    with pytest.raises(BadInput, match=r"holds out no images; give recipe\.validation a share above 0") as caught:
        methods.get("increg-accuracy").check_run(run, "here", 1000)
    assert "\n" not in str(caught.value)


# Whole runs.


RECIPE = Recipe(epochs=2, batch_size=30, lr=0.05, train_examples=100, weight_decay=1e-3, validation=0.2)
FAST = {"rise": 0.5, "target": 0.8, "settle": 2, "limit": 400, "lr": 0.5}
RUNS = {
    "increg columns": {"options": FAST},
    "increg ip": {"space": "ip", "options": FAST},
    "increg filters ip": {"pattern": "filters", "space": "ip", "options": {**FAST, "batch": 15}},
    "increg ratios": {"sparsity": "0", "options": {**FAST, "ratios": "stage1=0.3,stage2.conv2=0.75"}},
    "increg-accuracy columns": {
        "sparsity": "0", "options": {**FAST, "floor": 0.02, "patience": 0, "limit": 3000, "ratios": "stage2=0.5"},
    },
}  # fmt: skip


def run_of(name: str) -> Run:
    values = {"pattern": "columns", "allocation": "uniform", "sparsity": "0.5", "model": "small-vgg", **RUNS[name]}
    return Run(dataset="digits", method=name.split()[0], recipe=RECIPE, **values)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_prunes_and_trains(name, whole):
    record, end = whole(name)
    assert record["status"] == "done"
    outcome = record["outcome"]
    assert len(outcome["curves"]["train_loss"]) == RECIPE.epochs and record["activity"]["mask_updates"] > 1
    kept = {unit["name"]: (unit["kept"], unit["units"]) for unit in outcome["units"]}
    if "accuracy" in name:
        assert outcome["notes"]["rounds"] and 0 < outcome["reached"] < 0.5
        assert all(kept[layer][0] == kept[layer][1] for layer in kept if not layer.startswith("stage2"))
    elif "ratios" in name:
        assert [kept["stage1.conv1"], kept["stage2.conv2"]] == [(9 - 3, 9), (144, 576)]
    else:
        assert 0.5 <= outcome["reached"] < 0.52
        first, last = (outcome["notes"]["steps"][key] for key in ("first_pruned", "last_pruned"))
        assert first == 4 < last < 400  # 0.8 * 2.452 over 0.5
    assert bool(end.structure) == ("filters" in name)


@pytest.mark.parametrize("name", ["increg ip", "increg-accuracy columns"])
def test_stopped_in_between_equals_undisturbed(name, whole, in_pieces):
    cut, stops = in_pieces(run_of(name), 23)
    assert stops > 1
    assert cut["outcome"] == whole(name)[0]["outcome"] and cut["activity"] == whole(name)[0]["activity"]


@pytest.mark.parametrize("pattern", ["columns", "filters"])
def test_as_a_user_types_it(pattern, tmp_path, capsys):
    words = ["run", "--method", "increg", "--dataset", "digits", "--pattern", pattern, "--out", str(tmp_path)]
    for option in ("rise=0.5", "target=0.8", "settle=2", "limit=400", "ratios=stage2=0.5"):
        words += ["--option", option]
    for value in ("epochs=1", "warmup=0", "train_examples=200"):
        words += ["--recipe", value]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert f"digits small-vgg increg sp {pattern} ratios=stage2=0.5 seed 0: test accuracy" in out.replace(
        " columns ratios", f" {pattern} ratios"
    )


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        ("increg", {"rise": 0.0}, "rise is above 0"), ("increg", {"target": -1.0}, "target is above 0"),
        ("increg", {"settle": -1}, "settle is 0 or more"), ("increg", {"schedule": "wang"}, "schedule is decays or"),
        ("increg", {"ratios": "stage1"}, "START=RATIO"), ("increg-accuracy", {"floor": 1.0}, "floor is below 1"),
        ("increg-accuracy", {"ratios": "stage1=0.5"}, "the budget says it"),
        ("increg-accuracy", {"floor": 0.5, "pace": "stage1"}, "START=RATIO"),
        ("increg-accuracy", {"patience": -1}, "patience is 0 or more"),
    ],
)  # fmt: skip
def test_options_without_meaning_are_one_line(method, options, words):
    with pytest.raises(BadInput, match=words) as caught:
        methods.get(method).check_options(options, "here")
    assert "\n" not in str(caught.value)
