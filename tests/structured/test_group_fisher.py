"""Group Fisher against a public implementation, by hand, and in runs."""

from __future__ import annotations

import json
import re
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from ipbench import methods
from ipbench.analysis import published
from ipbench.analysis.grid import parse
from ipbench.data.loaders import Batch
from ipbench.errors import BadInput
from ipbench.methods import Train
from ipbench.methods._fisher import COSTS, RemoveChannels
from ipbench.models.build import build
from ipbench.planning.experiment import Experiment
from ipbench.runs.environment import Environment
from ipbench.runs.execute import execute
from ipbench.sparse.net import SparseNet
from ipbench.sparse.patterns import selector
from ipbench.sparse.selection import Impossible, NotFinite
from ipbench.sparse.view import NetView, TrainedView
from ipbench.spec import Basis, Recipe, Run
from ipbench.store import read_json
from ipbench.updaters import Steps
from tests.fisher_reference import (
    CASES,
    EVERY,
    IMAGES,
    LR,
    MOMENTUM,
    NORMALISE,
    SHAPE,
    WEIGHT_DECAY,
    batches,
    toy,
)  # fmt: skip
from tests.several import several
from tests.sparse.awkward_nets import shake
from tests.tiny import make_run

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "fisher.json").read_text())
CONFIG = Path(__file__).parents[2] / "config"
DEFAULTS = {"every": 25, "channels": 1, "normalise": "memory", "internal": False, "score": "fisher"}
HERE = Environment()


def net_of(net: nn.Module, shape: tuple[int, int, int] = SHAPE, **values: Any) -> SparseNet:
    values = {"pattern": "channels", "budget": "macs", "sparsity": "0.5", "method": "group-fisher", **values}
    return SparseNet(net, make_run(**values), shape)


def updater_of(net: SparseNet, **options: Any) -> tuple[TrainedView, RemoveChannels]:
    view = TrainedView(net, WEIGHT_DECAY)
    with torch.no_grad():
        return view, RemoveChannels(view, Steps(10**6, 1), **{**DEFAULTS, **options})


def step_of(net: SparseNet, view: TrainedView, updater: RemoveChannels, batch: Batch, step: int) -> None:
    """A forward and a backward pass, and what the updater does behind it."""
    net.zero_grad()
    with updater.gates(batch):
        functional.cross_entropy(net(batch.images), batch.labels).backward()
    if updater.due(step):
        with torch.no_grad():
            assert updater.after_backward(view, batch, step)


# Against a public implementation.


def readers(net: SparseNet) -> dict[str, str]:
    """By group, the layers that read its channels as the fixture writes them."""
    return {
        group.name: ",".join(sorted({m.layer for m in group.members if m.role in ("in", "both")}))
        for group in net.groups.free
    }


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name in ("flops", "internal") else name for name in CASES]
)
def test_groups_scores_and_removals_are_those_of_the_reference(name, monkeypatch):
    """The groups, the scores of all units at every removal, which goes, and so the weights in between."""
    case, wanted = CASES[name], GOLDEN[name]
    net = net_of(toy(case["groups"]), sparsity="0.99", budget="channels").double()
    by_readers = {reading: group for group, reading in readers(net).items()}
    if name != "internal":
        assert set(by_readers) == {reading for reading, makers in wanted["groups"].items() if makers}
        for reading, makers in wanted["groups"].items():
            if makers:
                assert sorted({m.layer for m in net.groups[by_readers[reading]].producers}) == makers
    monkeypatch.setattr("ipbench.sparse.removal.ChannelUnits.least", lambda *_: 0)
    view, updater = updater_of(
        net, every=EVERY, normalise=NORMALISE[case["delta"]], internal=case.get("internal_only", False)
    )
    # The reference divides by the batch's numbers in millions, or by its operations in billions.
    scale = IMAGES**2 * {"acts": IMAGES / 1e6, "flops": IMAGES / 1e9, "none": 1}[case["delta"]]
    starts = {block.name: block.start for block in selector(net).units.blocks}
    optimiser = torch.optim.SGD(net.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    found: list[tuple[str, int]] = []
    for step, batch in enumerate(islice(batches(), case["removals"] * EVERY)):
        with torch.no_grad():  # what is masked stays off; all else is SGD
            net.prune(net.masks)
        net.zero_grad()
        with updater.gates(batch):
            functional.cross_entropy(net(batch.images), batch.labels).backward()
        before = view.channels.standing
        scores, original = [], updater._scores
        monkeypatch.setattr(
            updater, "_scores", lambda net, original=original, to=scores: to.append(original(net)) or to[0]
        )
        with torch.no_grad():
            updater.after_backward(view, batch, step)
        monkeypatch.setattr(updater, "_scores", original)
        optimiser.step()
        if (step + 1) % EVERY:
            continue
        (gone,) = (before & ~view.channels.standing).nonzero().flatten().tolist()
        (group,) = [g for g in net.groups.free if starts[g.name] <= gone < starts[g.name] + g.units]
        found.append((readers(net)[group.name], gone - starts[group.name]))
        told = wanted["removed"][len(found) - 1]["scores"]
        for reading, values in told.items():
            own = scores[0][starts[by_readers[reading]] :][: len(values)] / scale
            for value, one in zip(values, own.tolist(), strict=True):
                assert value is None or one == pytest.approx(value, rel=1e-8)
    assert found == [(",".join(entry["readers"]), entry["channel"]) for entry in wanted["removed"]]


# Costs, by hand.


def test_costs_by_hand():
    """Stem 2 to 6 channels of 8 x 8, a 6 to 4, b 4 to 6; c and e 6 to 8 of 4 x 4, d in groups; f 8 to 5 of 2 x 2."""
    net = net_of(toy(4))
    view = TrainedView(net, 0.0)
    starts = {block.name: block.start for block in selector(net).units.blocks}
    memory, macs = (
        {n: float(view.channels.costs(of)[start]) for n, start in starts.items()} for of in ("memory", "macs")
    )
    names = {reading: group for group, reading in readers(net).items()}
    stream, inner, pairs, last = (names[key] for key in ("a,c,e", "b", "d,f", "fc"))
    assert memory == {stream: 64 + 64, inner: 64, pairs: 2 * 3 * 16, last: 4}
    # Of the stream: made by stem and b, read by a, c and e. Of a pair: c, d (once) and e, two filters each, and f.
    of_stream = 64 * (2 * 9 + 4) + 64 * 4 * 9 + 16 * 8 * 9 + 16 * 8
    of_pairs = 2 * 16 * (6 * 9 + 2 * 9 + 6) + 2 * 4 * 5 * 9
    assert macs == {stream: of_stream, inner: 64 * 6 * 9 + 64 * 6, pairs: of_pairs, last: 4 * 8 * 9 + 3}
    # With a channel of a gone, one of the stream is made and read by three of its filters; memory is what it was.
    view.remove(torch.tensor([starts[inner]]))
    view.remove(torch.tensor([starts[pairs] + 2]))
    assert float(view.channels.costs("macs")[starts[stream]]) == 64 * (2 * 9 + 3) + 64 * 3 * 9 + 16 * 6 * 9 + 16 * 6
    assert float(view.channels.costs("memory")[starts[stream]]) == 128
    before = view.channels.kept_without()
    assert before == selector(net).kept(net.masks) == view.kept
    # Without a layer that makes and reads one group, a cost is exactly what a removal saves.
    cost = int(view.channels.costs("macs")[starts[pairs]])
    view.remove(torch.tensor([starts[pairs]]))
    assert before - view.kept == cost


def test_a_score_is_the_sum_over_images_of_squares_of_sums_over_layers():
    """Two readers whose derivatives cancel: zero, and not twice a square."""
    net = net_of(toy(4)).double()
    view, updater = updater_of(net, every=10)
    batch = next(batches())
    step_of(net, view, updater, batch, 0)
    one = updater.sums.clone()
    gates = NetView(net).gates()
    with gates(batch):
        functional.cross_entropy(net(batch.images), batch.labels, reduction="sum").backward()
    assert torch.allclose(one, gates.gradients().square().sum(0), rtol=1e-10)
    step_of(net, view, updater, batch, 1)
    assert torch.allclose(updater.sums, 2 * one, rtol=1e-10)
    by_gradient = updater_of(net, every=10, score="gradient")[1]
    step_of(net, view, by_gradient, batch, 0)
    assert torch.allclose(by_gradient.sums, gates.gradients().sum(0), rtol=1e-8, atol=1e-12)


# What a removal does.


@pytest.mark.parametrize(
    ("model", "shape", "space"),
    [
        ("resnet20-cifar", (1, 8, 8), "ip"), pytest.param("regnet_x_400mf", (3, 32, 32), "sp", marks=pytest.mark.long),
        pytest.param("mobilenet-v1", (1, 8, 8), "sp", marks=pytest.mark.long),
        pytest.param("mobilenet_v2", (3, 32, 32), "sp", marks=pytest.mark.long),
        pytest.param("googlenet-cifar", (1, 8, 8), "sp", marks=pytest.mark.long),
    ],
)  # fmt: skip
def test_the_masked_net_is_the_sliced_one(model, shape, space):
    """In evaluation mode, without `fold`: no norm sends a constant through a channel that is masked."""
    basis = {"basis": Basis(init="orthonormal")} if space == "ip" else {}
    net = net_of(shake(build(model, shape, 10, 0)), shape, space=space, **basis)
    view = TrainedView(net, 0.0)
    scores = torch.rand(view.channels.number, generator=torch.Generator().manual_seed(0))
    view.remove(view.channels.weakest(scores, view.channels.number * 2 // 5))
    images = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        masked = net.eval()(images)
        net.slice()
        sliced = net(images)
    assert net.structure and net.now.macs == view.kept < net.counted.macs
    assert float((masked - sliced).abs().max()) <= 1e-5 * float(masked.abs().max())


def test_a_removal_touches_only_what_it_takes_and_is_refused_whole():
    net = net_of(toy(4))
    view, before = TrainedView(net, 0.0), dict(net.masks)
    names = {reading: group for group, reading in readers(net).items()}
    starts = {block.name: block.start for block in selector(net).units.blocks}
    view.remove(torch.tensor([starts[names["b"]] + 1]))
    assert {name for name, mask in net.masks.items() if mask is not before[name]} == {"a", "b"}
    assert not net.masks["a"][1].any() and not net.masks["b"][:, 1].any() and int((~net.masks["a"]).sum()) == 6 * 9
    assert not net.coefficients["a"][1].any() and bool(net.coefficients["a"][0].any())
    for gone in (starts[names["b"]] + 1, 10**6, -1):
        with pytest.raises(BadInput, match="is not there"):
            view.remove(torch.tensor([gone]))
    masks = dict(net.masks)
    with pytest.raises(BadInput, match="layer a: at least one of its 4 units stays"):
        view.remove(starts[names["b"]] + torch.tensor([0, 2, 3]))
    assert all(mask is masks[name] for name, mask in net.masks.items())


def test_the_budget_is_met_with_the_last_channel_and_one_of_every_group_stays():
    for channels in (1, 3, 1000):
        net = net_of(toy(4), sparsity="0.6").double()
        view, updater = updater_of(net, every=1, channels=channels)
        step, removed = 0, []
        for batch in batches():
            if updater.done:
                break
            standing = view.channels.standing
            step_of(net, view, updater, batch, step)
            removed.append(int((standing & ~view.channels.standing).sum()))
            step += 1
        assert view.kept <= view.target and removed[:-1] == [channels] * (len(removed) - 1)
        assert net.notes["removals"] == {"channels": sum(removed), "steps": step} and updater.settled
        assert all(block["kept"] >= 1 for block in selector(net).facts(net.masks)["units"])
        if channels > 1:  # with one less of the last ones it is not met
            again = net_of(toy(4), sparsity="0.6").double()
            other, twin = updater_of(again, every=1, channels=channels)
            for number, batch in enumerate(islice(batches(), step)):
                if number == step - 1:
                    kept = other.channels.standing
                step_of(again, other, twin, batch, number)
            last = (kept & ~other.channels.standing).nonzero().flatten()
            assert len(last) == removed[-1]
    view, updater = updater_of(net_of(toy(4), sparsity="0"))
    assert updater.done and not updater.due(0)


def test_budgets_that_cannot_be_met_and_scores_that_are_no_numbers():
    with pytest.raises(Impossible, match="with one channel of every group that may lose some"):
        updater_of(net_of(toy(4), sparsity="0.999"))
    with pytest.raises(Impossible):
        updater_of(net_of(toy(4), sparsity="0.9"), internal=True)
    view, updater = updater_of(net_of(toy(4)), every=1)
    updater.sums[3] = float("nan")
    with pytest.raises(NotFinite):
        updater._remove(view, 0)


@pytest.mark.long
def test_internal_only_leaves_what_skip_connections_share():
    net = net_of(toy(4), sparsity="0.2").double()
    view, updater = updater_of(net, every=1, internal=True)
    for step, batch in enumerate(islice(batches(), 30)):
        step_of(net, view, updater, batch, step)
    assert updater.done
    lost = {entry["name"] for entry in selector(net).facts(net.masks)["units"] if entry["kept"] < entry["units"]}
    assert lost and lost <= view.inner


@pytest.mark.parametrize("allocation", ["global", "uniform"])
def test_equal_scores_are_decided_by_key_and_allocation(allocation):
    found = []
    for seed in (0, 0, 1):
        view = TrainedView(net_of(toy(4), allocation=allocation, seed=seed), 0.0)
        found.append(view.channels.weakest(torch.zeros(view.channels.number), 8, 5).tolist())
    assert found[0] == found[1] != found[2]
    if allocation == "uniform":  # the groups have lost about the same share
        blocks = {int(view.channels._whole.block_of[unit]) for unit in found[0]}
        assert len(blocks) == 4


@pytest.mark.parametrize("basis", [Basis(), Basis(init="orthonormal")], ids=["standard", "orthonormal"])
def test_both_spaces_remove_the_same_at_the_start(basis):
    """Gates are on activations: scores do not depend on how weights are represented."""
    sums = []
    for space in ("sp", "ip"):
        net = net_of(
            build("resnet20-cifar", (1, 8, 8), 10, 0), (1, 8, 8), space=space,
            **({"basis": basis} if space == "ip" else {}),
        ).double()  # fmt: skip
        view, updater = updater_of(net)
        generator = torch.Generator().manual_seed(0)
        batch = Batch(torch.randn(8, 1, 8, 8, generator=generator, dtype=torch.float64), torch.arange(8))
        step_of(net, view, updater, batch, 0)
        sums.append(updater.sums)
    # A drawn basis is one of single precision, so that filters are the same to its rounding.
    assert torch.allclose(sums[0], sums[1], rtol=1e-3, atol=1e-9 * float(sums[0].max()))


# Real sizes.


@pytest.mark.long
def test_removals_of_resnet_50():
    """11,456 units, removed one by one; what is told as kept is what the masks keep."""
    net = net_of(build("resnet50", (3, 32, 32), 1000, 0), (3, 32, 32))
    view, updater = updater_of(net, every=1)
    generator = torch.Generator().manual_seed(0)
    batch = Batch(torch.randn(2, 3, 32, 32, generator=generator), torch.arange(2))
    for step in range(3):
        with updater.gates(batch):
            functional.cross_entropy(net(batch.images), batch.labels).backward()
        with torch.no_grad():
            updater.after_backward(view, batch, step)
    assert view.channels.number == 11_456 and updater.removed == 3
    assert view.channels.kept_without() == selector(net).kept(net.masks) < net.counted.macs


# Runs.

#: Three steps an epoch.
RECIPE = Recipe(epochs=1, batch_size=30, lr=0.05, train_examples=100, weight_decay=1e-3)
RUNS: dict[str, dict[str, Any]] = {
    "one": {"sparsity": "0.03", "options": {"every": 2}},
    "several ip": {"space": "ip", "options": {"every": 2, "channels": 40, "normalise": "flops", "batch": 15}},
    "residual": {"model": "resnet20-cifar", "sparsity": "0.3", "options": {"every": 2, "channels": 25}},
    "parameters": {"budget": "parameters", "options": {"every": 1, "channels": 50, "score": "gradient"}},
}


def run_of(name: str) -> Run:
    values = {"pattern": "channels", "budget": "macs", "sparsity": "0.5", "model": "small-vgg", **RUNS[name]}
    return Run(dataset="digits", method="group-fisher", recipe=RECIPE, **values)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_removes_cuts_and_trains(name, whole):
    record, end = whole(name)
    assert record["status"] == "done"
    outcome, options = record["outcome"], RUNS[name]["options"]
    removals = outcome["notes"]["removals"]
    assert record["activity"]["mask_updates"] == removals["steps"] // options["every"]
    assert removals["channels"] <= record["activity"]["mask_updates"] * options.get("channels", 1)
    assert sum(unit["units"] - unit["kept"] for unit in outcome["units"]) == removals["channels"]
    assert outcome["reached"] >= float(RUNS[name].get("sparsity", "0.5")) and end.structure
    if RUNS[name].get("budget", "macs") == "macs":
        assert outcome["macs_now"] == outcome["macs_sliced"] < outcome["macs_dense"]
    assert len(outcome["curves"]["train_loss"]) == RECIPE.epochs


@pytest.mark.parametrize("name", ["one", "several ip", "residual"])
def test_stopped_at_every_third_step_equals_undisturbed(name, whole, in_pieces):
    cut, stops = in_pieces(run_of(name))
    assert stops > 2
    assert cut["outcome"] == whole(name)[0]["outcome"] and cut["activity"] == whole(name)[0]["activity"]


def test_two_processes_add_up_squares_and_remove_together(tmp_path):
    """A net without norms: what two processes remove is what one removes."""
    words = [
        "run", "--device", "cpu", "--model", "lenet-300-100", "--out", "out", "--recipe", "epochs=1", "--recipe",
        "train_examples=120", "--recipe", "batch_size=12", "--recipe", "warmup=0", "--sparsity", "0.3", "--method",
        "group-fisher", "--option", "every=2", "--option", "channels=30",
    ]  # fmt: skip
    found = []
    with several() as processes:
        for world in (1, 2):
            ended = processes.run(world, words, tmp_path / str(world))
            assert ended.codes == [0] * world, ended.lines
            records = [read_json(path) for path in (tmp_path / str(world) / "out/runs").glob("*/*.json")]
            found += [record["outcome"] for record in records if record["run"]["method"] == "group-fisher"]
    assert len(found) == 2
    for key in ("structure_sha256", "macs_now", "units", "notes"):
        assert found[0][key] == found[1][key]


def test_what_has_no_meaning_is_refused_at_planning():
    entry = methods.get("group-fisher")
    assert (entry.pattern, entry.budget, entry.allocation) == ("channels", "macs", "global")
    for options in ({"every": 0}, {"channels": 0}, {"batch": -1}, {"normalise": "time"}, {"score": "x"}):
        with pytest.raises((BadInput, ValueError), match=r"1 or more|is one of"):
            entry.stages({**entry.options, **options})
    for pattern in ("coefficients", "filters", "2:4"):
        run = make_run(method="group-fisher", pattern=pattern, sparsity="0.5")
        with pytest.raises(BadInput, match=f"pattern {pattern} does not keep as one; take pattern channels"):
            entry.check_run(run, "here")
    train = entry.stages({})[1]
    assert isinstance(train, Train) and train.until == "done" and train.lr == 0.04
    assert set(COSTS) == {"memory", "flops", "none"}


def test_the_method_of_the_documentation(tmp_path):
    """Gates and removals as a user's file writes them: the budget is met, and the net is cut."""
    text = (Path(__file__).parents[2] / "docs" / "adding-a-method.md").read_text()
    (block,) = (part for part in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "class OneByOne" in part)
    (tmp_path / "documented.py").write_text(block)
    assert list(methods.load([tmp_path / "documented.py"]).values()) == [["one_by_one"]]
    values = {"pattern": "channels", "budget": "macs", "sparsity": "0.03", "model": "small-vgg"}
    run = Run(dataset="digits", method="one_by_one", recipe=RECIPE, options={"every": 1}, **values)
    outcome = execute(run, tmp_path, HERE)["outcome"]
    assert outcome["reached"] >= 0.03 and outcome["macs_now"] == outcome["macs_sliced"] < outcome["macs_dense"]


def test_published_numbers_stand_beside_the_cells_of_the_experiment():
    rows = [entry for entry in published.published() if entry.source == "Liu et al., Group Fisher, ICML 2021"]
    cells = parse(Experiment.load(CONFIG / "group-fisher-imagenet.yaml").grid()).cells
    found = {cell.id: entry for cell in cells if (entry := published.find(cell)) in rows}
    assert rows and len({id(entry) for entry in found.values()}) == len(found) == len(rows)
