"""SFP, ASFP, SRFP and ASRFP, and the one-shot methods that they are compared with."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from ipbench import methods
from ipbench.errors import BadInput
from ipbench.machine import stopping
from ipbench.methods._soft import Schedule, Soften, Weakest
from ipbench.models.build import build
from ipbench.runs.environment import Environment
from ipbench.runs.execute import execute
from ipbench.runs.records import end_path
from ipbench.runs.state import read_end
from ipbench.sparse import measure
from ipbench.sparse.net import SparseNet
from ipbench.sparse.view import NetView, TrainedView
from ipbench.spec import Recipe, Run
from ipbench.updaters import Steps
from tests.test_stopping import stop_at
from tests.tiny import make_run

RECIPE = Recipe(epochs=3, batch_size=50, train_examples=120)
SOFT = ("sfp", "asfp", "srfp", "asrfp")

#: Indices of the filters that the reference's `Mask.get_filter_codebook` (he-y/soft-filter-pruning at 919c399) sets to
#: zero, of weights that torch.randn gives with a generator of seed n: by the number n of filters and the kept rate.
REFERENCE: dict[tuple[int, float], list[int]] = {
    (16, 0.9): [6], (16, 0.8): [6, 7, 11], (16, 0.7): [2, 6, 7, 11], (16, 0.6): [1, 2, 6, 7, 11, 14],
    (32, 0.9): [2, 18, 21], (32, 0.8): [2, 13, 18, 21, 23, 29], (32, 0.7): [2, 3, 6, 10, 13, 18, 21, 23, 29],
    (32, 0.6): [2, 3, 6, 7, 9, 10, 13, 14, 18, 21, 23, 29], (64, 0.9): [9, 11, 17, 21, 31, 44],
    (64, 0.8): [5, 9, 11, 17, 19, 21, 26, 30, 31, 42, 44, 45],
    (64, 0.7): [5, 9, 11, 15, 17, 19, 21, 25, 26, 29, 30, 31, 42, 44, 45, 51, 55, 60, 63],
    (64, 0.6): [2, 5, 9, 11, 15, 17, 18, 19, 21, 25, 26, 29, 30, 31, 36, 37, 42, 43, 44, 45, 49, 51, 55, 60, 63],
    (10, 0.9): [], (10, 0.8): [4], (10, 0.7): [0, 3, 4], (10, 0.6): [0, 3, 4, 7],
}  # fmt: skip
INPUTS = {16: 3, 32: 16, 64: 32, 10: 4}


def run_of(method: str, **values: Any) -> Run:
    entry = methods.get(method)
    given = {
        "dataset": "digits", "model": "resnet20-cifar", "method": method, "recipe": RECIPE, "pattern": "filters",
        "budget": "macs", "allocation": entry.allocation, **values,
    }  # fmt: skip
    if given["pattern"] == "coefficients":
        given["budget"] = "parameters"
    return Run(**given)


@pytest.mark.parametrize(("filters", "kept"), REFERENCE, ids=str)
@pytest.mark.parametrize("space", ["sp", "ip"])
def test_filters_are_those_of_the_reference(filters, kept, space):
    net = SparseNet(
        nn.Sequential(nn.Conv2d(INPUTS[filters], filters, 3), nn.ReLU(), nn.Conv2d(filters, 2, 3), nn.Flatten()),
        make_run(pattern="filters", budget="macs", space=space), (INPUTS[filters], 5, 5),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(filters)
    with torch.no_grad():
        net.coefficients["0"].copy_(torch.randn(filters, INPUTS[filters], 3, 3, generator=generator))
    masks = Weakest(rate=round(1 - kept, 1)).masks(NetView(net))
    gone = (~masks["0"].flatten(1).any(dim=1)).nonzero().flatten().tolist()
    assert gone == REFERENCE[filters, kept]
    assert bool(masks["2"].all())  # the outputs of the net are no filters to prune


def test_alpha_and_share_at_epochs():
    """Of the schedules as the reference has them, at T = 200."""
    early = Schedule(alpha=0.5, until=0.5)
    assert [early.factor(epoch, 8) > 0 for epoch in range(8)] == [True] * 4 + [False] * 4
    with pytest.raises(ValueError, match="until is from 0 to 1"):
        Schedule(alpha=0.5, until=1.5)
    schedule = Schedule(alpha=0.5, sigma=1e-5, grow="exp")
    for epoch, value in {0: 0.5, 50: 0.0334, 100: 0.00224, 179: 0.5 * math.exp(-0.0541 * 179)}.items():
        assert schedule.factor(epoch, 200) == pytest.approx(value, rel=4e-3)
    assert schedule.factor(180, 200) == schedule.factor(199, 200) == 0
    kept = [0.6 + 0.4 * schedule.left(epoch, 200) for epoch in (0, 25, 50, 189, 190)]
    assert kept == pytest.approx([1.0, 0.70, 0.625, 0.6, 0.6], abs=2e-5) and schedule.left(190, 200) == 0
    cubic = Schedule(grow="cubic")
    assert cubic.left(0, 200) == pytest.approx((199 / 200) ** 3) and cubic.left(100, 200) == pytest.approx(0.495**3)
    assert Schedule().factor(0, 200) == Schedule().left(0, 200) == 0  # SFP


@pytest.mark.parametrize(
    ("model", "dense", "removed"),
    [
        ("resnet20-cifar", 4.055e7, (15.24, 29.31, 42.22, 53.96)),
        ("resnet32-cifar", 6.886e7, (14.93, 28.77, 41.51, 53.16)),
        ("resnet56-cifar", 1.255e8, (14.74, 28.42, 41.06, 52.63)),
        ("resnet110-cifar", 2.529e8, (14.62, 28.21, 40.78, 52.31)),
    ],
)
def test_reductions_that_are_published(model, dense, removed):
    """The reference counts with rates r that need not be whole filters: r of the stem, r^2 of the first block and of
    each second convolution, r of each other first one, whose inputs are the whole skip connection."""
    counted = measure.count(build(model, (3, 32, 32), 10, 0), (3, 32, 32))
    macs = {layer.name: layer.macs for layer in counted.layers if len(layer.shape) == 4}
    stem, *rest = macs
    assert sum(macs.values()) == pytest.approx(dense, rel=1e-3)
    for kept, expected in zip((0.9, 0.8, 0.7, 0.6), removed, strict=True):
        left = macs[stem] * kept
        for place, name in enumerate(rest):
            left += macs[name] * (kept**2 if place < 2 or place % 2 else kept)
        assert 100 * (1 - left / sum(macs.values())) == pytest.approx(expected, abs=0.006)


def test_a_factor_of_zero_is_sfp_bit_for_bit(tmp_path):
    records = [
        execute(run_of(method, options=options, space="ip"), tmp_path, Environment())
        for method, options in (("sfp", {"rate": 0.4}), ("srfp", {"rate": 0.4, "alpha": 0.0}))
    ]
    assert records[0]["outcome_sha256"] == records[1]["outcome_sha256"]


def soften(net: SparseNet, weakest: Weakest, schedule: Schedule, epochs: int = 10) -> tuple[Soften, TrainedView]:
    view = TrainedView(net, 0.0)
    with torch.no_grad():
        return Soften(view, Steps(epochs * 4, 4), weakest=weakest, schedule=schedule), view


def test_filters_without_a_gradient_never_come_back():
    """Before a batch norm whose shift is not positive, and a ReLU, a filter that is zero gets none."""
    shape = (2, 6, 6)
    torch.manual_seed(0)
    convs = [nn.Conv2d(2, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 3, 4), nn.Flatten()]
    net = SparseNet(nn.Sequential(*convs), make_run(pattern="filters", budget="macs"), shape)
    weak = net.coefficients["0"].detach().flatten(1).norm(dim=1).argsort()[:4]
    with torch.no_grad():
        convs[1].bias.fill_(0.3)
        convs[1].bias[weak[2:]] = torch.tensor([-0.1, 0.0])  # two of the four do not come back
    updater, view = soften(net, Weakest(rate=0.5), Schedule())
    assert sorted(_zero_rows(net)) == sorted(weak.tolist())
    images, labels = torch.randn(16, *shape), torch.arange(16) % 3
    for epoch in range(2):
        nn.functional.cross_entropy(net(images), labels).backward()
        with torch.no_grad():
            for parameter in net.coefficients.values():
                parameter -= 0.1 * parameter.grad
        net.zero_grad()
        assert sorted(_zero_rows(net)) == sorted(weak[2:].tolist())
        with torch.no_grad():
            updater.after_epoch(view, epoch)
    assert net.notes["filters_never_back"] == 2 and net.notes["filters_back"] >= 2


def _zero_rows(net: SparseNet) -> list[int]:
    return (net.coefficients["0"] == 0).flatten(1).all(dim=1).nonzero().flatten().tolist()


@pytest.mark.parametrize("space", ["sp", "ip"])
def test_the_weakest_shrink_by_the_factor(space):
    shape = (1, 8, 8)
    net = SparseNet(
        build("small-vgg", shape, 10, 0), make_run(space=space, pattern="filters", budget="macs"), shape
    )  # fmt: skip
    before = {name: c.detach().clone() for name, c in net.coefficients.items()}
    masks = Weakest(rate=0.25).masks(NetView(net))
    soften(net, Weakest(rate=0.25), Schedule(alpha=0.5))
    for name, c in net.coefficients.items():
        assert torch.equal(c, torch.where(masks[name], before[name], before[name] * 0.5))
    assert all(bool(mask.all()) for mask in net.masks.values())


@pytest.mark.parametrize(("space", "inner"), [("sp", False), ("ip", True)])
@pytest.mark.parametrize("method", [*SOFT, "l1-filters", "random-filters"])
def test_every_method_meets_a_budget(tmp_path, method, space, inner):
    options = {} if inner is methods.get(method).options["inner"] else {"inner": inner}
    record = execute(run_of(method, sparsity="0.4", space=space, options=options), tmp_path, Environment())
    outcome = record["outcome"]
    assert record["status"] == "done" and 0.4 <= outcome["reached"] < 0.5
    assert outcome["macs_now"] <= 0.6 * outcome["macs_dense"]
    if inner:
        assert {entry["name"].rpartition(".")[2] for entry in outcome["sliced"]} == {"conv1"}
        shares = [entry["kept"] / entry["channels"] for entry in outcome["sliced"]]
        assert max(shares) - min(shares) <= 1 / 16


@pytest.mark.parametrize(("method", "dead"), [("sfp", 6 + 3 * (6 + 12 + 25)), ("asrfp", 0)])
def test_a_rate_is_that_of_every_layer(tmp_path, method, dead):
    """What SFP sets to zero before the first epoch in front of a norm and a ReLU alone, whose shift is 0, stays so."""
    record = execute(run_of(method, options={"rate": 0.4}), tmp_path, Environment(), keep=True)
    outcome = record["outcome"]
    assert {entry["units"]: entry["kept"] for entry in outcome["units"]} == {16: 10, 32: 20, 64: 39}
    never = outcome["notes"]["filters_never_back"]
    assert (never >= dead if dead else never == 0) and outcome["asked"] == 0


def test_what_is_chosen_in_the_end_is_what_was_zero(tmp_path):
    """The last projection has set to zero what is then left out: the small net is the one that was trained."""
    run = run_of("asrfp", options={"rate": 0.3})
    execute(run, tmp_path, Environment(), keep=True)
    seen = []
    plain = Weakest.masks

    def watched(self: Weakest, net: NetView, left: float = 0.0) -> dict[str, torch.Tensor]:
        masks = plain(self, net, left)
        seen.append(all(bool((w[~masks[name]] == 0).all()) for name, w in net.weights.items()))
        return masks

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Weakest, "masks", watched)
        execute(run, tmp_path / "again", Environment())
    assert seen[-1] is True and False in seen[:-1]


@pytest.mark.parametrize("space", ["sp", "ip"])
def test_coefficients_are_pruned_softly_too(tmp_path, space):
    run = run_of("srfp", pattern="coefficients", sparsity="0.8", space=space)
    record = execute(run, tmp_path, Environment())
    assert record["status"] == "done" and record["outcome"]["achieved_sparsity"] == pytest.approx(0.8, abs=1e-4)


@pytest.mark.parametrize(
    ("method", "values"),
    [
        ("sfp", {"options": {"rate": 0.4}, "space": "ip"}),
        ("asrfp", {"sparsity": "0.4", "space": "ip"}),
        ("asrfp", {"sparsity": "0.4", "options": {"grow": "cubic", "pretrained": True}}),
    ],
)
def test_stopped_at_every_third_step_equals_undisturbed(tmp_path, monkeypatch, method, values):
    run = run_of(method, model="small-vgg", **values)
    execute(run, tmp_path / "whole", Environment(), keep=True)
    for _ in range(20):
        torch.manual_seed(0)
        with monkeypatch.context() as patch:
            stop_at(patch, 4)
            try:
                execute(run, tmp_path / "cut", Environment(), keep=True)
                break
            except stopping.Stopped:
                pass
    one, two = (read_end(end_path(tmp_path / name, run), run) for name in ("cut", "whole"))
    assert one.structure == two.structure and all(torch.equal(one.net[name], t) for name, t in two.net.items())


def test_layers_of_the_one_shot_methods(tmp_path):
    record = execute(run_of("l1-filters", options={"ratios": "stage1=0.5"}), tmp_path, Environment())
    kept = {entry["name"]: entry["kept"] for entry in record["outcome"]["sliced"]}
    assert set(kept) == {f"stage1.block{block}.conv1" for block in (1, 2, 3)} and set(kept.values()) == {8}
    with pytest.raises(BadInput, match="nothing that can be pruned begins with 'layer1'"):
        execute(run_of("l1-filters", options={"ratios": "layer1=0.5"}), tmp_path, Environment())


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("sfp", {"rate": 1.5}, "rate is from 0 up to, not including, 1"),
        ("srfp", {"alpha": 2.0}, "alpha is from 0 to 1"),
        ("asrfp", {"grow": "linear"}, "grow is exp or cubic"),
        ("l1-filters", {"schedule": "mine"}, "schedule is recipe or wang"),
        ("l1-filters", {"ratios": "layer1"}, "START=RATIO"),
    ],
)
def test_options_are_checked(method, options, message):
    with pytest.raises(BadInput, match=message):
        methods.get(method).check_options(options, "here")


@pytest.mark.parametrize("pattern", ["filters", "coefficients"])
@pytest.mark.parametrize("method", SOFT)
def test_what_is_left_is_trained_if_that_is_wanted(method, pattern, tmp_path):
    """Two epochs softly, then one: what is pruned is gone before it, and whole filters are cut."""
    recipe = RECIPE.model_copy(update={"train_examples": 100, "batch_size": 50})
    run = run_of(method, model="small-vgg", recipe=recipe, sparsity="0.5", pattern=pattern,
                 options={"epochs": 2, "tune": 1})  # fmt: skip
    outcome = execute(run, tmp_path, Environment())["outcome"]
    assert len(outcome["curves"]["train_loss"]) == 1
    assert ("sliced" in outcome) == (pattern == "filters") and outcome["selected_epoch"] == 1


def test_tune_is_a_number_of_epochs():
    with pytest.raises(BadInput, match="tune is 0 or more epochs"):
        methods.get("sfp").check_options({"tune": -1}, "here")
