"""What structured methods stand on: blocks, rates, choices, a knob in place of a sparsity, and fresh layers."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import nn

from ipbench import methods
from ipbench.errors import BadInput
from ipbench.methods import Choose, Continue, Prune, Slice, Train, method
from ipbench.methods._ratios import rates_of
from ipbench.methods.magnitude import magnitude
from ipbench.models.build import build
from ipbench.planning.experiment import Experiment
from ipbench.runs.environment import Environment
from ipbench.runs.execute import execute
from ipbench.runs.records import end_path
from ipbench.runs.state import read_end
from ipbench.sparse.net import SparseNet
from ipbench.sparse.selection import Impossible, count_of
from ipbench.sparse.view import NetView, TrainedView
from ipbench.spec import Recipe, Run
from tests.tiny import make_run

SHAPE = (1, 8, 8)
RECIPE = Recipe(epochs=2, batch_size=50, train_examples=200)


def net_of(model: str = "resnet20-cifar", **values: Any) -> SparseNet:
    values = {"pattern": "filters", "budget": "macs", "sparsity": "0.5", "allocation": "uniform", **values}
    return SparseNet(build(model, SHAPE, 10, 0), make_run(model=model, **values), SHAPE)


def keep_first(net, *, share: float = 0.5):
    """Of every inner layer, the first filters."""
    masks = net.masks
    for name in net.inner:
        masks[name] = torch.zeros_like(masks[name])
        masks[name][: round(len(masks[name]) * share)] = True
    return masks


# Blocks and rates.


@pytest.mark.parametrize("space", ["sp", "ip"])
def test_inner_blocks_are_those_that_no_skip_connection_couples(space):
    for pattern in ("filters", "channels"):
        view = NetView(net_of(space=space, pattern=pattern))
        assert len(view.inner) == 9 and all(name.endswith("conv1") for name in view.inner), pattern
    blocks = NetView(net_of(space=space)).blocks
    assert len(blocks) == 19 and set(blocks.values()) == {16, 32, 64}  # the classifier makes no channel
    vgg = NetView(net_of("small-vgg", space=space))
    assert vgg.inner == set(vgg.blocks)
    assert NetView(net_of(pattern="coefficients", budget="parameters")).inner == set(net_of().masks)


@pytest.mark.parametrize(("rounding", "kept"), [("int", 12), ("ceil", 11), ("round", 11)])
def test_rates_leave_out_the_weakest_of_each_block(rounding, kept):
    net = net_of()
    scores = {name: c.detach() ** 2 for name, c in net.coefficients.items()}
    names = [name for name in NetView(net).blocks if net.masks[name].shape[0] == 16]
    masks = NetView(net).select_each(scores, dict.fromkeys(names, 0.3), rounding=rounding)  # 4.8 of 16
    for name, mask in masks.items():
        rows = mask.flatten(1)
        assert torch.equal(rows.any(1), rows.all(1))
        norms = net.coefficients[name].detach().flatten(1).norm(dim=1)
        if name in names:
            assert int(rows.any(1).sum()) == kept
            assert norms[rows.any(1)].min() > norms[~rows.any(1)].max()
        else:
            assert bool(mask.all())


def test_a_rate_of_a_tenth_of_ten_is_none_by_floats_and_one_exactly():
    """int(10 * (1 - 0.9)) is 0: the references lose a filter to rounding. Rates here are exact."""
    assert int(10 * (1 - 0.9)) == 0 and count_of("0.1", 10, "int") == 1


@pytest.mark.parametrize("pattern", ["filters", "channels", "columns", "coefficients"])
def test_one_unit_of_a_block_stays(pattern):
    net = net_of(pattern=pattern, budget="parameters", allocation="global")
    scores = {name: torch.rand_like(c) for name, c in net.coefficients.items()}
    view = NetView(net)
    masks = view.select_each(scores, dict.fromkeys(view.blocks, 0.999))
    assert all(bool(mask.any()) for mask in masks.values())
    if pattern == "coefficients":
        assert all(int(mask.sum()) == mask.numel() - mask.numel() * 999 // 1000 for mask in masks.values())


def test_what_is_gone_is_among_what_goes():
    net = net_of("small-vgg")
    name = next(iter(NetView(net).blocks))
    masks = dict(net.masks)
    masks[name] = masks[name].clone()
    masks[name][:4] = False
    net.prune(masks)
    scores = {layer: torch.rand_like(c) for layer, c in net.coefficients.items()}
    kept = NetView(net).select_each(scores, {name: 0.25})[name].flatten(1).any(1)  # 8 of 32
    assert int(kept.sum()) == 24 and not kept[:4].any()


@pytest.mark.parametrize("space", ["sp", "ip"])
def test_budgets_are_met_by_some_blocks_alone(space):
    net = net_of(space=space)
    view = NetView(net)
    scores = {name: w.abs() for name, w in view.weights.items()}
    masks = view.select(scores, view.target, blocks=view.inner)
    assert view.kept_by(masks) <= view.target < view.kept
    assert all(bool(masks[name].all()) for name in view.blocks if name not in view.inner)
    shares = {name: float(masks[name].flatten(1).any(1).float().mean()) for name in view.inner}
    assert max(shares.values()) - min(shares.values()) <= 1 / 16  # one rate for all, but for whole filters
    with pytest.raises(Impossible, match="cannot be met"):
        view.select(scores, view.target // 50, blocks=view.inner)


def test_weights_of_the_interspace_are_filters():
    net = net_of(space="ip")
    with torch.no_grad():
        for basis in net.bases.values():
            basis.matrix.mul_(2)
    name = next(iter(NetView(net).blocks))
    assert torch.allclose(NetView(net).weights[name], 2 * net.coefficients[name])
    assert not NetView(net).weights[name].requires_grad


def test_ratios_by_layer():
    blocks = ["conv1", "layer1.0.conv1", "layer1.1.conv1", "layer10.0.conv1"]
    assert rates_of("layer1=0.5, layer1.1=0.25", blocks) == {
        "layer1.0.conv1": Fraction(1, 2), "layer1.1.conv1": Fraction(1, 4),
    }  # fmt: skip
    assert rates_of("", blocks) == {}
    for text, message in {
        "layer1": "START=RATIO", "layer1=1": "not including, 1", "layer1=x": "START=RATIO", "=0.5": "START=RATIO",
        "layer1=0.5,layer1=0.2": "twice",     }.items():  # fmt: skip
        with pytest.raises(ValueError, match=message):
            rates_of(text, blocks)
    with pytest.raises(BadInput, match="nothing that can be pruned begins with 'layer2'"):
        rates_of("layer2=0.5", blocks)


def test_a_star_is_one_part_of_a_name():
    blocks = ["layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv2.a", "layer2.0.conv2"]
    assert rates_of("layer1.*.conv2=0.5", blocks) == dict.fromkeys(blocks[1:3], Fraction(1, 2))
    assert rates_of("*=0.25,layer2=0", blocks) == {**dict.fromkeys(blocks, Fraction(1, 4)), blocks[3]: 0}
    assert rates_of("layer1=1.5", blocks, below=None)[blocks[0]] == Fraction(3, 2)
    with pytest.raises(ValueError, match="each 0 or more"):
        rates_of("layer1=-1", blocks, below=None)


# Choices, and a knob in place of a sparsity.


def declare(stages: Any, **values: Any) -> None:
    @method(name="chosen", family="test", paper="nobody", pattern="filters", budget="macs", knob="share", **values)
    def chosen(*, share: float = 0.0):
        """A test."""
        return stages(share)


def chosen_run(**values: Any) -> Run:
    return Run(
        **{
            "dataset": "digits", "model": "resnet20-cifar", "method": "chosen", "recipe": RECIPE, "pattern": "filters",
            "budget": "macs", **values,
        }
    )  # fmt: skip


@pytest.mark.parametrize("space", ["sp", "ip"])
def test_a_knob_makes_the_budget_a_result(tmp_path, space):
    declare(lambda share: [Choose(keep_first, "the first", {"share": share or 0.9}), Train()])
    record = execute(chosen_run(options={"share": 0.5}, space=space), tmp_path, Environment())
    outcome = record["outcome"]
    assert record["status"] == "done" and outcome["macs_now"] < outcome["macs_dense"]
    assert outcome["asked"] == 0 and outcome["reached"] == 1 - outcome["macs_now"] / outcome["macs_dense"] > 0.4
    assert {entry["kept"] / entry["channels"] for entry in outcome["sliced"]} == {0.5}
    with pytest.raises(BadInput, match="left the net above its budget"):
        execute(chosen_run(sparsity="0.5", space=space), tmp_path, Environment())


def test_both_a_knob_and_a_sparsity_are_refused():
    declare(lambda share: [Choose(keep_first, "the first"), Train()])
    with pytest.raises(BadInput, match=r"share=0\.5 says how much is pruned, and sparsity 0\.7 does, too"):
        methods.get("chosen").check_run(chosen_run(sparsity="0.7", options={"share": 0.5}), "here")
    with pytest.raises(BadInput, match="leaves nothing to choose"):
        run = chosen_run(sparsity="0.5", pattern="2:4", budget="parameters")
        methods.get("chosen").check_run(run, "here")
    declare(lambda share: [Choose(keep_first, "the first", patterns=("filters", "channels")), Train()])
    with pytest.raises(
        BadInput, match="chooses the first, which pattern columns does not keep; take pattern filters or"
    ):
        run = chosen_run(sparsity="0.5", pattern="columns", budget="parameters")
        methods.get("chosen").check_run(run, "here")
    with pytest.raises(BadInput, match="unknown option 'rate'"):

        @method(name="other", family="test", paper="nobody", knob="rate")
        def other(*, share: float = 0.0):
            return [Train()]


def test_a_grid_has_one_run_for_a_knob_and_all_sparsities_without():
    declare(lambda share: [Choose(keep_first, "the first"), Train()], allocation="uniform")
    config = {
        "datasets": "digits", "models": "small-vgg", "methods": ["magnitude", {"name": "chosen", "share": [0.0, 0.5]}],
        "sparsities": ["0.3", "0.6"], "spaces": "sp", "seeds": 1,
    }  # fmt: skip
    runs = list(Experiment.from_config(config, "x").cells.values())
    found = [(run.method, run.sparsity, run.pattern, run.budget, run.allocation, run.options) for run in runs]
    assert found == [
        ("magnitude", "0.3", "coefficients", "parameters", "global", {}),
        ("magnitude", "0.6", "coefficients", "parameters", "global", {}),
        ("chosen", "0.3", "filters", "macs", "uniform", {}),
        ("chosen", "0.6", "filters", "macs", "uniform", {}),
        ("chosen", "0", "filters", "macs", "uniform", {"share": 0.5}),
    ]
    config["methods"] = [{"name": "chosen", "pattern": "coefficients"}]
    assert {run.budget for run in Experiment.from_config(config, "x").cells.values()} == {"parameters"}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda net: None, "must return a dict with a boolean mask for each layer"),
        (lambda net: {}, "must return a dict with a boolean mask for each layer"),
        (lambda net: {name: mask.float() for name, mask in net.masks.items()}, "is none of shape"),
    ],
)
def test_what_is_no_choice_is_refused(tmp_path, answer, message):
    declare(lambda share: [Choose(answer, "nothing"), Train()])
    with pytest.raises(BadInput, match=message):
        execute(chosen_run(options={"share": 0.5}), tmp_path, Environment())


# Fresh layers.


@pytest.mark.parametrize("space", ["sp", "ip"])
@pytest.mark.parametrize("what", [(), ("norms",), ("biases",), ("norms", "filters"), ("linear",)])
def test_what_is_cut_begins_anew_and_nothing_else(space, what):
    net = net_of("small-vgg", space=space)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():  # as if trained
        for tensor in net.tensors().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape, generator=generator))
    first, *_, last = NetView(net).blocks
    masks = dict(net.masks)
    for name in (first, last):
        masks[name] = masks[name].clone()
        masks[name][1] = False
    net.prune(masks)
    net.slice(fresh=what)
    convolutions = [m for m in net.net.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in net.net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert convolutions[0].out_channels == 31
    for place, norm in enumerate(norms):
        cut = place in (0, len(norms) - 1)
        assert bool((norm.weight == 1).all()) == (cut and "norms" in what)
        assert bool((norm.running_var == 1).all()) == (cut and "norms" in what)
    for name, c in net.coefficients.items():
        linear = isinstance(net.layers[name].module, nn.Linear)
        again = (name in (first, last) and "filters" in what) or (linear and "linear" in what)
        assert torch.equal(c, net.start[name]) == again, name
        if linear:
            assert bool((net.layers[name].module.bias == 0).all()) == ("linear" in what)


def test_fresh_is_checked():
    with pytest.raises(ValueError, match="fresh is a tuple of some of norms, biases, filters, linear"):
        Slice(fresh=("norm",))  # type: ignore[arg-type]
    assert str(Slice(fresh=("norms", "biases"))) == "cut dead channels (fresh norms and biases)"


@pytest.mark.parametrize("space", [pytest.param("sp", marks=pytest.mark.long), "ip"])
def test_a_fresh_net_is_the_same_after_a_stop(tmp_path, monkeypatch, space):
    from ipbench.machine import stopping
    from tests.test_stopping import stop_at

    def stages(share: float) -> list[Any]:
        prune = Prune(magnitude, "magnitude")
        return [Continue(), prune, Slice(fresh=("norms", "filters")), Train(epochs=2)]

    declare(stages)
    run = chosen_run(sparsity="0.5", space=space)
    whole = execute(run, tmp_path / "whole", Environment(), keep=True)
    for _ in range(8):
        with monkeypatch.context() as patch:
            stop_at(patch, 4)
            try:
                cut = execute(run, tmp_path / "cut", Environment(), keep=True)
                break
            except stopping.Stopped:
                pass
    assert cut["outcome_sha256"] == whole["outcome_sha256"]
    ends = [read_end(end_path(tmp_path / name, run), run) for name in ("cut", "whole")]
    assert all(torch.equal(ends[0].net[name], tensor) for name, tensor in ends[1].net.items())


def test_the_view_of_a_choice_is_that_of_an_updater(tmp_path):
    seen = []

    def look(net):
        seen.append((type(net), net.kept, net.target))
        return keep_first(net)

    declare(lambda share: [Choose(look, "looks"), Train()])
    execute(chosen_run(options={"share": 0.5}), tmp_path, Environment())
    assert seen[0][0] is TrainedView and seen[0][1] == seen[0][2]
