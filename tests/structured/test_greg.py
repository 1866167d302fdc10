"""GReg against its reference code, by hand, and by the numbers of its paper."""

from __future__ import annotations

import json
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ipbench import methods
from ipbench.analysis import published
from ipbench.analysis.grid import parse
from ipbench.errors import BadInput
from ipbench.methods import Train
from ipbench.methods._growing import GrowDecay
from ipbench.models.build import build
from ipbench.planning.experiment import Experiment
from ipbench.runs.environment import Environment
from ipbench.sparse.net import SparseNet
from ipbench.sparse.patterns import selector
from ipbench.sparse.slicing import mask_net, plan
from ipbench.sparse.view import TrainedView
from ipbench.spec import Basis, Recipe, Run
from ipbench.updaters import Steps
from tests.greg_reference import CASES, LR, RATIOS, USUAL, WEIGHT_DECAY, gradient, toy
from tests.tiny import make_run

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "greg.json").read_text())["cases"]
CONFIG = Path(__file__).parents[2] / "config"
#: The reference's names of our options.
NAMES = {
    "reg_granularity_prune": "rise", "update_reg_interval": "every", "reg_upper_limit": "ceiling",
    "mag_ratio_limit": "ratio_limit",
}  # fmt: skip
OF_GREG_2 = {"reg_granularity_pick": "pick", "reg_upper_limit_pick": "pick_ceiling"}
DEFAULTS = {"rise": 1e-4, "every": 10, "ceiling": 1.0, "stabilise": 10_000, "ratio_limit": 1000.0, "ratios": ""}
PICKING = {**DEFAULTS, "pick": 1e-5, "pick_ceiling": 1e-2}
SHAPE = (1, 8, 8)
HERE = Environment()


def updater_of(net: SparseNet, weight_decay: float = WEIGHT_DECAY, per_epoch: int = 1, **options: Any) -> GrowDecay:
    return GrowDecay(TrainedView(net, weight_decay), Steps(10**6, per_epoch), **{**DEFAULTS, **options})


def toy_net(**values: Any) -> SparseNet:
    return SparseNet(toy(), make_run(**{"pattern": "filters", "sparsity": "0", **values}), (2, 6, 6)).double()


def digits_net(model: str = "resnet20-cifar", **values: Any) -> SparseNet:
    values = {"pattern": "filters", "budget": "macs", "sparsity": "0.5", "allocation": "uniform", **values}
    return SparseNet(build(model, SHAPE, 10, 0), make_run(model=model, **values), SHAPE)


def gone(masks: dict[str, Tensor], pattern: str) -> dict[str, list[int]]:
    """The units that masks leave out, by layer."""
    rows = {
        name: mask.flatten() if pattern == "coefficients" else mask.flatten(1).any(1) for name, mask in masks.items()
    }
    return {name: (~kept).nonzero().flatten().tolist() for name, kept in rows.items()}


# Against the reference code.


@pytest.mark.parametrize("name", CASES)
def test_factors_are_those_of_the_reference(name):
    """Units that go, the factor of every unit after every update, when layers are finished, the weights at the end."""
    case, wanted = CASES[name], GOLDEN[name]
    values = USUAL | case
    names = NAMES | (OF_GREG_2 if values["method"] == "GReg-2" else {})
    pattern = "coefficients" if case.get("wg") == "weight" else "filters"
    net = toy_net(pattern=pattern)
    view, starts = TrainedView(net, WEIGHT_DECAY), {name: c.detach().clone() for name, c in net.coefficients.items()}
    ratios = ",".join(f"{name}={ratio}" for name, ratio in RATIOS.items())
    found: dict[str, list[list[float]]] = {layer: [] for layer in RATIOS}
    finished: dict[str, int] = {}
    with torch.no_grad():
        updater = updater_of(net, ratios=ratios, stabilise=0, **{own: values[name] for name, own in names.items()})
        if values["method"] == "GReg-1":
            assert {name: gone(updater.kept, pattern)[name] for name in RATIOS} == wanted["first"]
        step = 0
        while updater.frozen < 0:
            loss = {layer: gradient(c, starts[layer]) for layer, c in net.coefficients.items()}
            for layer, c in net.coefficients.items():
                c.grad = loss[layer].clone()
            if due := updater.due(step):
                assert updater.after_backward(view, None, step)
            decays = updater.decay(view)
            net.mask_gradients(WEIGHT_DECAY, decays)
            for layer, c in net.coefficients.items():
                factors = decays[layer] - WEIGHT_DECAY if layer in RATIOS else torch.zeros_like(c)
                assert torch.allclose(c.grad, loss[layer] + (WEIGHT_DECAY + factors) * c, rtol=1e-12, atol=0)
                if due and layer in RATIOS:
                    of_units = factors.flatten(1)[:, 0] if pattern == "filters" else torch.stack(factors.aminmax())
                    assert pattern != "filters" or torch.equal(factors, of_units.view(-1, 1, 1, 1).expand_as(factors))
                    found[layer].append(of_units.tolist())
                    if updater.layers[layer].finished:
                        finished.setdefault(layer, step)
                c -= LR * c.grad
            step += 1
    assert finished == wanted["finished"] and updater.frozen == max(finished.values())
    assert {name: gone(updater.kept, pattern)[name] for name in RATIOS} == wanted["pruned"]
    for layer in RATIOS:
        assert torch.allclose(torch.tensor(found[layer]), torch.tensor(wanted["factors"][layer]), rtol=1e-6, atol=1e-9)
    for layer, means in wanted["weights"].items():
        assert view.weights[layer].abs().flatten(1).mean(1).tolist() == pytest.approx(means, rel=1e-6)


# Counts of updates, in single precision.


def test_greg_1_is_beyond_its_ceiling_after_ten_thousand_updates():
    """In double precision it would take 10,001. K_u = 5: step 49,995; K_u = 10: 99,990."""
    net = toy_net()
    view = TrainedView(net, WEIGHT_DECAY)
    with torch.no_grad():
        updater = updater_of(net, ratios="0=0.5")
        for update in range(10_000):
            assert updater.frozen < 0 and not updater.due(10 * update + 1)
            assert updater.due(10 * update)
            updater.after_backward(view, None, 10 * update)
    assert updater.frozen == 99_990 and not updater.due(100_000)
    for every, last in ((5, 49_995), (10, 99_990)):
        train = methods.get("greg-1").stages({"every": every})[1]
        assert isinstance(train, Train) and train.steps == last + 1 + 10_000


def test_greg_2_picks_at_update_1001_and_is_beyond_its_ceiling_9900_later():
    net = toy_net(pattern="coefficients")
    view = TrainedView(net, WEIGHT_DECAY)
    with torch.no_grad():
        updater = updater_of(net, **{**PICKING, "ratios": "0=0.5"})
        for update in range(1, 10_902):
            assert updater.picked == (update > 1001) and updater.frozen < 0
            updater.after_backward(view, None, 5 * (update - 1))
    assert updater.frozen == 5 * 10_900
    train = methods.get("greg-2").stages({"every": 5, "stabilise": 40_000})[1]
    assert isinstance(train, Train) and train.steps == 54_500 + 1 + 40_000


def test_a_training_has_as_many_epochs_as_its_steps_are():
    train = methods.get("greg-1").stages({"stabilise": 9, "every": 1, "rise": 0.5})[1]
    assert isinstance(train, Train) and train.steps == 3 - 1 + 1 + 9  # 1.5 is above 1
    recipe = train.recipe_of(Recipe(epochs=7, lr=0.1, schedule="step", warmup=2))
    assert (recipe.lr, recipe.schedule, recipe.warmup) == (pytest.approx(0.001), "constant", 0)
    assert [train.in_epochs(recipe, steps).epochs for steps in (1, 4, 5, 12, 13)] == [12, 3, 3, 1, 1]
    with pytest.raises(BadInput, match="at most 10,000 epochs"):
        methods.get("greg-1").check_run(
            make_run(method="greg-1", pattern="filters", recipe=Recipe(batch_size=1000)), "x"
        )


def test_how_long_a_training_is_is_said_once():
    for twice in ({"epochs": 1}, {"recipe": {"epochs": 1}}):
        with pytest.raises(ValueError, match="said twice"):
            Train(steps=1, **twice)
    with pytest.raises(ValueError, match="steps 0 or more"):
        Train(steps=-1)


# What goes.


def test_the_smallest_filters_of_inner_blocks_go_and_the_budget_is_met():
    net = digits_net()
    view, updater = TrainedView(net, 0.0), updater_of(net)
    assert view.kept_by(updater.kept) <= view.target < view.kept
    assert set(updater.layers) == view.inner
    for name, rows in gone(updater.kept, "filters").items():
        if name in view.inner:
            means = view.weights[name].abs().mean(dim=(1, 2, 3))
            assert sorted(rows) == sorted(means.argsort()[: len(rows)].tolist()) and rows
        else:
            assert not rows


@pytest.mark.parametrize("pattern", ["filters", "channels", "coefficients"])
def test_ratios_round_up_and_leave_one(pattern):
    net = digits_net(pattern=pattern, budget="parameters", sparsity="0")
    updater = updater_of(net, ratios="stage1=0.3,stage2.block1=0.999,stage3=0")
    masks = updater.kept
    shares = {
        name: mask.flatten() if pattern == "coefficients" else mask.flatten(1).any(1) for name, mask in masks.items()
    }
    inside = {name: (len(kept), int((~kept).sum())) for name, kept in shares.items() if "conv1" in name}
    units = 144 * 16 if pattern == "coefficients" else 16
    assert inside["stage1.block1.conv1"] == (units, -(-3 * units // 10))
    number, without = inside["stage2.block1.conv1"]
    assert without == (number - 1 if pattern != "coefficients" else -(-999 * number // 1000))
    assert not inside["stage2.block2.conv1"][1] and not inside["stage3.block1.conv1"][1]


@pytest.mark.parametrize("options", [DEFAULTS, PICKING], ids=["greg-1", "greg-2"])
@pytest.mark.parametrize("basis", [Basis(), Basis(init="orthonormal")], ids=["standard", "orthonormal"])
def test_both_spaces_choose_the_same_at_the_start(options, basis):
    kept = {}
    for space in ("sp", "ip"):
        net = digits_net("small-vgg", space=space, **({"basis": basis} if space == "ip" else {}))
        with torch.no_grad():
            updater = updater_of(net, **options)
            kept[space] = updater._choose(TrainedView(net, 0.0))
    assert all(torch.equal(mask, kept["ip"][name]) for name, mask in kept["sp"].items())
    assert not all(bool(mask.all()) for mask in kept["sp"].values())


@pytest.mark.parametrize(("recovery", "stays"), [("code", 5e-4 - 1e-4), ("paper", 0.0)])
def test_what_stays_recovers(recovery, stays):
    """While it is picked all units have the same factor; then what goes has more, and what stays less than before."""
    net = toy_net()
    view = TrainedView(net, WEIGHT_DECAY)
    with torch.no_grad():
        updater = updater_of(net, **{**PICKING, "pick": 0.005, "ratios": "0=0.5", "recovery": recovery})
        updater.after_backward(view, None, 0)
        assert set(updater.decay(view)) == {"0"}
        assert updater.decay(view)["0"].unique().tolist() == [pytest.approx(WEIGHT_DECAY + 0.005)]
        updater.after_backward(view, None, 10)
        assert updater.picked and updater.decay(view)["0"].unique().tolist() == [pytest.approx(WEIGHT_DECAY + 0.01)]
        updater.after_backward(view, None, 20)
        found, kept = updater.decay(view)["0"], updater.kept["0"]
    assert int(kept.sum()) == kept.numel() // 2
    assert torch.allclose(found[~kept], torch.tensor(WEIGHT_DECAY + 0.0101, dtype=torch.float64), rtol=1e-6)
    assert found[kept].unique().tolist() == [pytest.approx(stays) if stays else 0.0]


def test_a_layer_of_which_nothing_goes_is_finished_when_the_others_are_picked():
    """With one ranking over layers, all that goes may lie in one of them."""
    net = toy_net(sparsity="0.2", allocation="global")
    with torch.no_grad():
        net.coefficients["2"] *= 100
        view, updater = TrainedView(net, 0.0), updater_of(net, 0.0, **{**PICKING, "pick": 0.01, "rise": 0.4})
        assert set(updater.layers) == {"0", "2"}
        for step in range(0, 40, 10):
            updater.after_backward(view, None, step)
        assert bool(updater.kept["2"].all()) and not bool(updater.kept["0"].all())
        assert updater.layers["2"].finished and updater.frozen == 30
        assert float(updater.decay(view)["2"].unique()) == -1e-4


@pytest.mark.parametrize("space", ["sp", "ip"])
def test_pruned_at_the_end_of_the_epoch_in_which_it_is_stable_enough(space):
    """Frozen at step 2, one step more: at the end of the second epoch of two steps. Sliced, the net is the masked one
    whose norms are zero where filters are gone.
    """
    net = digits_net("small-vgg", space=space)
    view = TrainedView(net, 0.0)
    with torch.no_grad():
        for name, buffer in net.net.named_buffers():
            if name.endswith("running_var"):
                buffer.copy_(torch.linspace(0.5, 2, len(buffer)))
        updater = updater_of(net, 0.0, per_epoch=2, every=1, rise=0.4, stabilise=1)
        for step in range(4):
            if updater.due(step):
                updater.after_backward(view, None, step)
            if step % 2:
                updater.after_epoch(view, step // 2)
                assert updater.done == updater.settled == (step == 3)
                assert all(bool(mask.all()) for mask in net.masks.values()) != updater.done
    assert updater.frozen == 2 and net.notes["steps"] == {"growing": 3, "stable": 1}
    masked = digits_net("small-vgg", space=space)
    masked.load_tensors(net.tensors())
    masked.prune(net.masks)
    net.slice()
    mask_net(masked.net, plan(masked.groups, net.structure.removed(masked.groups)))
    images = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, two = net.eval()(images), masked.eval()(images)
    assert net.structure and float((one - two).abs().max()) <= 1e-5 * float(two.abs().max())


# Runs.

#: Three steps an epoch. Factors: 0.4, 0.8, 1.2 at steps 0, 2, 4; four more steps; pruned after step 8.
RECIPE = Recipe(epochs=2, batch_size=30, lr=0.05, train_examples=100, weight_decay=1e-3)
FAST = {"every": 2, "rise": 0.4, "stabilise": 4}
RUNS = {
    "greg-1": {"options": FAST},
    "greg-1 ratios": {"sparsity": "0", "options": {**FAST, "ratios": "stage1=0.3,stage2.conv2=0.75"}},
    "greg-1 channels": {"pattern": "channels", "options": FAST},
    "greg-2": {"options": {**FAST, "pick": 0.005, "batch": 15}},
    "greg-2 ip": {"space": "ip", "options": {**FAST, "pick": 0.005, "recovery": "paper"}},
    "greg-2 coefficients": {
        "pattern": "coefficients", "budget": "parameters", "space": "ip", "options": {**FAST, "pick": 0.005},
    },
}  # fmt: skip


def run_of(name: str) -> Run:
    values = {
        "pattern": "filters", "budget": "macs", "allocation": "uniform", "sparsity": "0.5", "model": "small-vgg",
        **RUNS[name],
    }  # fmt: skip
    return Run(dataset="digits", method=name.split()[0], recipe=RECIPE, **values)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_squeezes_prunes_and_trains(name, whole):
    record, end = whole(name)
    assert record["status"] == "done"
    outcome, notes = record["outcome"], record["outcome"]["notes"]["steps"]
    per_epoch = 6 if RUNS[name]["options"].get("batch") else 3
    trained = notes["growing"] + notes["stable"]
    assert notes["growing"] == (5 if "greg-1" in name else 9)
    assert notes["stable"] >= 4 and trained % per_epoch == 0 and trained - per_epoch < notes["growing"] + 4
    assert record["activity"]["mask_updates"] == 1
    assert outcome["curves"]["train_loss"] and len(outcome["curves"]["train_loss"]) == RECIPE.epochs
    if "coefficients" in name:
        assert not end.structure and outcome["achieved_sparsity"] == 0.5
    elif "ratios" in name:
        kept = {unit["name"]: unit["kept"] for unit in outcome["units"]}
        assert kept["stage1.conv1"] == kept["stage1.conv2"] == 32 - 10 and kept["stage2.conv2"] == 16
        assert {kept[unit] for unit in ("stage2.conv1",)} == {64} and outcome["macs_now"] == outcome["macs_sliced"]
    else:
        assert outcome["reached"] >= 0.5 and outcome["macs_now"] == outcome["macs_sliced"] <= outcome["macs_dense"] / 2


@pytest.mark.parametrize("name", RUNS)
def test_stopped_at_every_third_step_equals_undisturbed(name, whole, in_pieces):
    cut, stops = in_pieces(run_of(name))
    assert stops > 4
    assert cut["outcome"] == whole(name)[0]["outcome"] and cut["activity"] == whole(name)[0]["activity"]


# The numbers of the paper's table 1, and the ratios of its README: no training decides them.


def printed(number: int, unit: int) -> Decimal:
    """As the code prints it, with four decimals, and as the paper's table was computed from that, with three."""
    value = (Decimal(number) / unit).quantize(Decimal("0.0001"), ROUND_HALF_UP)
    return value.quantize(Decimal("0.001"), ROUND_HALF_UP)


STAGES = {
    "resnet56-cifar": ("stage1={0},stage2={0},stage3={0}", 10),
    "vgg19": ("stage1.conv2={0},stage2={0},stage3={0},stage4={0},stage5={0}", 100),
}
TABLE = {
    ("resnet56-cifar", "0.5"): ("49.82", "1.99"), ("resnet56-cifar", "0.7"): ("70.57", "3.59"),
    ("resnet56-cifar", "0.9"): ("90.39", "11.41"), ("resnet56-cifar", "0.925"): ("93.43", "14.76"),
    ("resnet56-cifar", "0.95"): ("95.19", "19.31"), ("vgg19", "0.5"): ("74.87", "3.60"),
    ("vgg19", "0.6"): ("84.00", "5.41"), ("vgg19", "0.7"): ("90.98", "8.84"), ("vgg19", "0.8"): ("95.95", "17.30"),
    ("vgg19", "0.9"): ("98.96", "44.22"),
}  # fmt: skip


@cache
def published_net(model: str) -> SparseNet:
    run = make_run(model=model, pattern="filters", budget="macs", allocation="uniform")
    return SparseNet(build(model, (3, 32, 32), STAGES[model][1], 0), run, (3, 32, 32))


def sliced_counts(model: str, ratios: str) -> tuple[Decimal, Decimal]:
    """Parameters in millions, those of norms included, and FLOPs, two for each MAC, in thousands of millions."""
    net = published_net(model)
    masks = updater_of(net, ratios=ratios).kept if ratios else net.masks
    facts = selector(net).facts(masks)
    return printed(facts["parameters_sliced"], 10**6), printed(2 * facts["macs_sliced"], 10**9)


@pytest.mark.parametrize(("model", "ratio"), TABLE)
def test_sparsities_and_speedups_of_the_paper(model, ratio):
    """Both are quotients of rounded numbers: unrounded, ResNet-56 at 95 % is 19.85 times as fast, not 19.31."""
    parameters, flops = sliced_counts(model, "")
    assert (str(parameters), str(flops)) == {"resnet56-cifar": ("0.853", "0.251"), "vgg19": ("20.081", "0.796")}[model]
    left, cost = sliced_counts(model, STAGES[model][0].format(ratio))
    found = (f"{100 * (1 - left / parameters):.2f}", f"{flops / cost:.2f}")
    assert found == TABLE[model, ratio]


def test_the_speedup_of_the_papers_table_2():
    """Of numbers that are not rounded."""
    net = published_net("resnet56-cifar")
    facts = selector(net).facts(updater_of(net, ratios="stage1=0.75,stage2=0.75,stage3=0.32").kept)
    assert f"{net.counted.macs / facts['macs_sliced']:.2f}" == "2.55"


def test_published_numbers_stand_beside_the_cells_of_the_experiments_as_published():
    """Each of them beside one cell; and each cell of `sp`, but for those whose number is not known."""
    rows = [entry for entry in published.published() if "GReg" in entry.source]
    unknown: dict[str, int] = {}
    for name in ("greg-cifar", "greg-cifar100", "greg-imagenet", "greg-imagenet-resnet34"):
        cells = parse(Experiment.load(CONFIG / f"{name}.yaml").grid()).cells
        found = {cell.id: entry for cell in cells if (entry := published.find(cell)) in rows}
        assert len({id(entry) for entry in found.values()}) == len(found)
        rows = [entry for entry in rows if entry not in found.values()]
        unknown[name] = sum(cell.space == "sp" and cell.id not in found for cell in cells)
    assert not rows
    # GReg-2 of table 1, and L1 norms of the others; the dense nets of ImageNet are torchvision's, and GReg-2 at 1.49x
    # began with another one.
    assert unknown == {"greg-cifar": 5 + 1, "greg-cifar100": 4, "greg-imagenet": 4 + 1 + 1, "greg-imagenet-resnet34": 2}


# Options.


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rise": 0.0}, "rise is above 0"), ({"every": 0}, "every is above 0"), ({"stabilise": -1}, "stabilise"),
        ({"pick": -1e-5}, "pick is above 0"), ({"recovery": "none"}, "recovery is one of code, paper"),
        ({"ratios": "stage1"}, "START=RATIO"), ({"schedule": "none"}, "schedule is recipe or wang"),
        ({"rise": 1e-9}, "more than 100,000 updates"), ({"batch": -1}, "batch"),
    ],
)  # fmt: skip
def test_options_without_meaning_are_one_line(options, words):
    with pytest.raises(BadInput, match=words) as caught:
        methods.get("greg-2").check_options(options, "here")
    assert "\n" not in str(caught.value)


def test_ratios_of_no_layer_are_refused():
    with pytest.raises(BadInput, match="nothing that can be pruned begins with 'stage9'"):
        updater_of(digits_net(sparsity="0"), ratios="stage9=0.5")
