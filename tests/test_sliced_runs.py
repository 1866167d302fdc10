"""Runs whose net is cut: records, ends, resumes bit for bit, rewinding, runs that continue them."""

from __future__ import annotations

import hashlib
from itertools import count
from typing import Any

import pytest
import torch
from torch import Tensor

from ipbench import methods
from ipbench.data.loaders import Data
from ipbench.errors import BadInput
from ipbench.machine import stopping
from ipbench.machine.stopping import Stopped
from ipbench.methods import Continue, Prune, Rewind, Slice, Train, method
from ipbench.methods._stages import with_slice
from ipbench.models.build import build as true_build
from ipbench.packing.net import pack, unpack
from ipbench.runs import building
from ipbench.runs import stages as staged
from ipbench.runs.building import build_net
from ipbench.runs.environment import Environment
from ipbench.runs.execute import execute
from ipbench.runs.latency import BATCH
from ipbench.runs.records import end_path, state_path
from ipbench.runs.stages import rewinding_point
from ipbench.runs.state import State, read_end
from ipbench.sparse.net import SparseNet
from ipbench.sparse.slicing import mask_net, plan
from ipbench.spec import Basis, Recipe, Run, canonical_json
from ipbench.store import read_tensors, tensors_digest
from ipbench.training.loop import evaluate

#: Four steps an epoch, eight in all.
RECIPE = Recipe(epochs=2, batch_size=20, lr=0.05, schedule="cosine", train_examples=100, validation=0.2)
HERE = Environment()
SPACES = {"sp": {}, "ip": {"space": "ip", "basis": Basis(init="orthonormal", sharing="network")}}


class Stop(Exception):
    """Stands in for a kill."""


@pytest.fixture(autouse=True)
def quick_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is timed for long."""
    monkeypatch.setattr("ipbench.sparse.measure.timing.MOST", 2)
    monkeypatch.setattr("ipbench.sparse.measure.timing.LEAST", 2)


def by_filter(net: SparseNet, batch: Any) -> dict[str, Tensor]:
    """Every coefficient of a filter by the filter's norm, those of the classifier above all: whole filters go."""
    scores = {}
    for name, c in net.coefficients.items():
        norm = c.detach().flatten(1).norm(dim=1)
        norm = norm + 100 if name == "classifier" else norm
        scores[name] = norm.view(-1, *[1] * (c.dim() - 1)).expand_as(c)
    return scores


PRUNE = Prune(by_filter, "by filter")
METHODS = {
    "before": [PRUNE, Slice(), Train()],
    "after": [Train(), PRUNE, Slice()],
    "between": [Train(epochs=1), PRUNE, Slice(), Train(epochs=1)],
    "twice": [PRUNE, Slice(), Train(), Slice(), Train()],
    "rewound": [Continue(), PRUNE, Slice(), Rewind(0.5), Train(first=0.5)],
    "again": [Continue(), PRUNE, Train(), Slice()],
}


def declare(name: str, stages: list[methods.Stage]) -> str:
    def mine():
        return list(stages)

    mine.__name__ = name
    method(paper="Nobody, 2026")(mine)
    methods.get(name).check("here")
    return name


def sliced_run(name: str, stages: list[methods.Stage] | None = None, **values: Any) -> Run:
    declare(name, stages or METHODS[name])
    return Run(
        **{"dataset": "digits", "model": "small-vgg", "method": name, "recipe": RECIPE, "sparsity": "0.9", **values}
    )


def net_at(end, run: Run) -> SparseNet:
    net = build_net(run, Data(run.dataset, run.recipe, run.seed, root=HERE.root), HERE)
    net.restore(end.structure, end.net, end.masks)
    return net.eval()


# Records and ends.


@pytest.mark.parametrize("space", SPACES)
def test_the_record_of_a_sliced_run(tmp_path, space):
    run = sliced_run("before", **SPACES[space])
    record = execute(run, tmp_path, HERE, keep=True)
    outcome, end = record["outcome"], read_end(end_path(tmp_path, run), run)
    net = net_at(end, run)
    assert record["status"] == "done" and end.structure
    names = [entry["name"] for entry in outcome["sliced"]]
    assert names and set(names) <= {entry["name"] for entry in outcome["layers"]} and "classifier" not in names
    for entry in outcome["sliced"]:
        assert entry["kept"] == len(net.masks[entry["name"]]) == len(end.structure.kept[entry["name"]])
        assert entry["channels"] == net.counted.layers[list(net.masks).index(entry["name"])].out_channels
    plain = net.plain()
    assert outcome["parameters_now"] == sum(p.numel() for p in plain.parameters()) + net.basis_entries
    assert outcome["macs_now"] == net.now.macs < outcome["macs_dense"]
    told = hashlib.sha256(canonical_json(end.structure.to_json()).encode()).hexdigest()
    assert outcome["structure_sha256"] == told
    # What is a share of the dense net stays one.
    assert outcome["prunable"] == net.counted.prunable == sum(entry["size"] for entry in outcome["layers"])
    assert outcome["coefficients_kept"] == sum(int(mask.sum()) for mask in end.masks.values()) <= net.budget
    assert outcome["weights_sha256"] == tensors_digest(end.net) == tensors_digest(net.tensors())
    data = Data(run.dataset, run.recipe, run.seed, root=HERE.root)
    assert evaluate(net, data.test(), RECIPE)[0] == outcome["test_accuracy"]


def test_latency_stands_beside_the_outcome(tmp_path):
    record = execute(sliced_run("before"), tmp_path, HERE)
    told = record["cost"]["latency"]
    assert told["batch"] == BATCH and told["threads"] == 1 and told["repetitions"] == 2 and told["device"] == "cpu"
    assert all(told[name]["lower"] <= told[name]["seconds"] <= told[name]["upper"] for name in ("dense", "sliced"))
    assert told["sliced"]["memory_bytes"] < told["dense"]["memory_bytes"]
    assert "latency" not in canonical_json(record["outcome"])


def test_runs_that_are_not_sliced_tell_nothing_new(tmp_path):
    for name, stages in (("plain", [PRUNE, Train()]), ("whole", [Slice(), Train()])):
        record = execute(sliced_run(name, stages, sparsity="0.9" if name == "plain" else "0"), tmp_path, HERE)
        assert not {"sliced", "structure_sha256", "parameters_now", "macs_now"} & set(record["outcome"])
        assert set(record["cost"]) == {"wall_seconds", "cpu_seconds", "peak_memory_bytes"}


def test_a_slice_that_cuts_nothing_does_not_forget_the_best_epoch(tmp_path):
    with_one = execute(sliced_run("one", [Train(), Slice()], sparsity="0"), tmp_path, HERE)
    without = execute(sliced_run("none", [Train()], sparsity="0"), tmp_path, HERE)
    assert with_one["outcome"] == without["outcome"]


def test_what_is_cut_after_the_last_training_is_what_is_selected(tmp_path):
    outcome = execute(sliced_run("after"), tmp_path, HERE)["outcome"]
    assert outcome["selected_epoch"] == RECIPE.epochs
    assert outcome["test_accuracy"] == outcome["test_accuracy_selected"] and outcome["sliced"]


def test_packing_a_sliced_run(tmp_path):
    run = sliced_run("before", **SPACES["ip"])
    execute(run, tmp_path, HERE, keep=True)
    end = read_end(end_path(tmp_path, run), run)
    pack(tmp_path / "net.ipb", run, end)
    assert tensors_digest(unpack(tmp_path / "net.ipb").tensors()) == tensors_digest(end.net)


def test_a_refused_constant_ends_the_run_in_one_line(tmp_path):
    run = sliced_run("refusing", [Train(), PRUNE, Slice("refuse")])
    with pytest.raises(BadInput, match=r"layer .*constant=refuse"):
        execute(run, tmp_path, HERE)
    with pytest.raises(ValueError, match="constant is one of drop, refuse, fold, not 'keep'"):
        Slice("keep")


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize(
    ("pattern", "budget"), [("filters", "macs"), ("channels", "parameters"), ("channels", "channels")]
)
def test_patterns_of_whole_channels_are_sliced_by_themselves(tmp_path, space, pattern, budget):
    """What the selection counted without slicing is what is there after it; FLOPs are those of the small net."""
    values = {"pattern": pattern, "budget": budget, "sparsity": "0.6", "recipe": RECIPE, **SPACES[space]}
    run = Run(dataset="digits", model="resnet20-cifar", method="snip", **values)
    outcome = execute(run, tmp_path, HERE)["outcome"]
    assert outcome["macs_now"] == outcome["macs_sliced"] < outcome["macs_dense"]
    assert outcome["parameters_now"] == outcome["parameters_sliced"]
    assert outcome["reached"] >= outcome["asked"] == 0.6
    assert outcome["training_flops"] == 6 * outcome["macs_now"] * RECIPE.epochs * 80
    groups = {entry["name"]: entry for entry in outcome["sliced"]}
    assert groups and all(0 < entry["kept"] < entry["channels"] for entry in groups.values())


def test_a_net_that_is_pruned_while_it_trains_is_cut_at_the_end(tmp_path):
    run = Run(
        dataset="digits", model="small-vgg", method="gmp", options={"every": 2}, pattern="filters", sparsity="0.6",
        recipe=RECIPE,
    )  # fmt: skip
    record = execute(run, tmp_path, HERE, keep=True)
    outcome, end = record["outcome"], read_end(end_path(tmp_path, run), run)
    assert outcome["macs_now"] == outcome["macs_sliced"] and end.structure
    assert outcome["training_flops"] == 6 * outcome["macs_dense"] * RECIPE.epochs * 80
    net = net_at(end, run)
    data = Data(run.dataset, run.recipe, run.seed, root=HERE.root)
    assert evaluate(net, data.test(), RECIPE)[0] == outcome["test_accuracy"] == outcome["test_accuracy_selected"]


# A net that is cut at the end against the masked one, on real images.

TINY = Recipe(epochs=1, batch_size=20, lr=0.05, train_examples=60)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize(
    "model", ["small-vgg", "resnet20-cifar", pytest.param("resnet18-cifar", marks=pytest.mark.long)]
)
def test_a_trained_net_is_the_same_masked_and_sliced(tmp_path, model, space):
    """The trained constants of channels without filters are zero in the masked one, too."""
    run = sliced_run("masked", [PRUNE, Train()], model=model, recipe=TINY, **SPACES[space])
    execute(run, tmp_path, HERE, keep=True)
    end = read_end(end_path(tmp_path, run), run)
    masked, sliced = net_at(end, run), net_at(end, run)
    sliced.slice()
    assert sliced.structure and not masked.structure
    mask_net(masked.net, plan(masked.groups, sliced.structure.removed(masked.groups)))
    data = Data(run.dataset, run.recipe, run.seed, root=HERE.root)
    with torch.no_grad():
        for batch in data.test():
            one, two = sliced(batch.images), masked(batch.images)
            assert float((one - two).abs().max()) <= 1e-5 * float(two.abs().max())


def test_the_stage_does_what_the_net_does(tmp_path):
    masked, cut = sliced_run("masked", [PRUNE, Train()]), sliced_run("cut", [PRUNE, Train(), Slice()])
    for run in (masked, cut):
        execute(run, tmp_path, HERE, keep=True)
    net, end = net_at(read_end(end_path(tmp_path, masked), masked), masked), read_end(end_path(tmp_path, cut), cut)
    net.slice()
    assert net.structure == end.structure and tensors_digest(net.tensors()) == tensors_digest(end.net)


def test_folded_constants_leave_what_the_masked_net_classifies(tmp_path):
    """Units that are pruned after training have biases that send constants on; dropped, they are missed."""
    outcomes = {}
    for name, last in {"masked": [], "folded": [Slice("fold")], "dropped": [Slice()]}.items():
        run = sliced_run(name, [Train(epochs=3), PRUNE, *last], model="lenet-300-100", sparsity="0.6")
        outcomes[name] = execute(run, tmp_path, HERE)["outcome"]
    losses = {name: outcome["test_loss"] for name, outcome in outcomes.items()}
    assert outcomes["folded"]["sliced"] == outcomes["dropped"]["sliced"]
    assert losses["folded"] == pytest.approx(losses["masked"], rel=1e-6)
    assert losses["dropped"] != pytest.approx(losses["masked"], rel=1e-5)


def test_training_the_small_net_is_training_the_masked_one(tmp_path):
    """A channel without a filter gets no gradient behind a norm and a ReLU: its constant stays zero."""
    small, whole = sliced_run("before"), sliced_run("masked", [PRUNE, Train()])
    one, two = (execute(run, tmp_path, HERE)["outcome"] for run in (small, whole))
    assert one["curves"]["train_loss"] == pytest.approx(two["curves"]["train_loss"], rel=1e-5)
    assert one["test_loss"] == pytest.approx(two["test_loss"], rel=1e-4)


# Interruptions.


@pytest.mark.parametrize(
    ("name", "space"),
    [("before", "ip"), ("between", "sp"), ("twice", "sp"), pytest.param("rewound", "ip", marks=pytest.mark.long)],
)
@pytest.mark.usefixtures("every_epoch")
def test_interrupted_equals_uninterrupted_bit_for_bit(tmp_path, monkeypatch, name, space):
    """Stopped at the end of every stage and epoch, and between a cut and the state that tells of it."""
    run = sliced_run(name, **SPACES[space])
    whole = execute(run, tmp_path / "whole", HERE, keep=True)
    ends = [read_end(end_path(tmp_path / "whole", run), run)]
    saves: list[int] = []
    true_save, true_slice = State.save, SparseNet.slice

    def saving(after: int | None):
        def save(self, *args):
            true_save(self, *args)
            saves.append(1)
            if len(saves) == after:
                raise Stop

        return save

    monkeypatch.setattr(State, "save", saving(None))
    execute(run, tmp_path / "counted", HERE, keep=True)
    for number in range(1, len(saves) + 1):
        saves.clear()
        monkeypatch.setattr(State, "save", saving(number))
        folder = tmp_path / str(number)
        with pytest.raises(Stop):
            execute(run, folder, HERE, keep=True)
        monkeypatch.setattr(State, "save", true_save)
        assert execute(run, folder, HERE, keep=True)["outcome"] == whole["outcome"], number
        ends.append(read_end(end_path(folder, run), run))

    def slice_and_stop(self, *args):
        true_slice(self, *args)
        raise Stop

    monkeypatch.setattr(SparseNet, "slice", slice_and_stop)
    with pytest.raises(Stop):
        execute(run, tmp_path / "in", HERE, keep=True)
    monkeypatch.setattr(SparseNet, "slice", true_slice)
    assert execute(run, tmp_path / "in", HERE, keep=True)["outcome"] == whole["outcome"]
    assert len({(tensors_digest(end.net), canonical_json(end.structure.to_json())) for end in ends}) == 1
    assert not list(tmp_path.rglob("state/*/*.safetensors"))


@pytest.mark.parametrize("name", ["before", "between"])
def test_stopped_in_the_middle_of_an_epoch_of_the_small_net(tmp_path, monkeypatch, name):
    run = sliced_run(name)
    whole = execute(run, tmp_path / "whole", HERE)
    asked = count(1)
    monkeypatch.setattr(stopping, "asked", lambda: next(asked) == 7)
    with pytest.raises(Stopped):
        execute(run, tmp_path / "cut", HERE)
    facts = read_tensors(state_path(tmp_path / "cut", run))[1]
    assert facts["structure"] and facts["inside"] and facts["begun"]["steps"] == 2
    assert execute(run, tmp_path / "cut", HERE)["outcome"] == whole["outcome"]


def test_a_state_holds_the_structure(tmp_path):
    run = sliced_run("before")
    path = state_path(tmp_path, run)
    data = Data(run.dataset, run.recipe, run.seed, root=HERE.root)
    net, again = build_net(run, data, HERE), build_net(run, data, HERE)
    net.prune({name: mask & (net.uniform(name) > 0.5) for name, mask in net.masks.items()})
    net.masks["stage1.conv1"][3] = False
    net.slice()
    state = State(path, run)
    state.stage = 2
    state.save(net, 1.0, 1.0)
    other = State(path, run)
    other.load(again)
    assert other.stage == 2 and again.structure == net.structure and 3 not in net.structure.kept["stage1.conv1"]
    assert tensors_digest(again.tensors()) == tensors_digest(net.tensors())
    assert tensors_digest(again.masks) == tensors_digest(net.masks)


# Continuing and rewinding.


def test_a_run_that_continues_a_sliced_end_continues_sliced(tmp_path):
    first, second = sliced_run("before"), sliced_run("child", [Continue("before", sparsity="same"), Train()])
    assert methods.parent(second) == first
    execute(second, tmp_path, HERE, keep=True)
    ends = [read_end(end_path(tmp_path, run), run) for run in (first, second)]
    assert ends[0].structure == ends[1].structure and ends[0].structure
    assert tensors_digest(ends[0].masks) == tensors_digest(ends[1].masks)
    assert tensors_digest(ends[0].net) != tensors_digest(ends[1].net)


@pytest.mark.parametrize("space", SPACES)
def test_rewinding_in_a_small_net_goes_to_the_dense_point_cut(tmp_path, monkeypatch, space):
    run = sliced_run("rewound", **SPACES[space])
    seen: list[dict[str, Tensor]] = []
    true = staged.train

    def spy(net, *args, **named):
        if net.run.method == "rewound":
            seen.append({name: tensor.clone() for name, tensor in net.tensors().items()})
        return true(net, *args, **named)

    monkeypatch.setattr(staged, "train", spy)
    execute(run, tmp_path, HERE, keep=True)
    end = read_end(end_path(tmp_path, run), run)
    data = Data(run.dataset, run.recipe, run.seed, root=HERE.root)
    net = build_net(run, data, HERE)
    point = rewinding_point(build_net(run, data, HERE), data, 0.5)
    assert {name: tensor.shape for name, tensor in end.point.items()} == {n: t.shape for n, t in point.items()}
    assert all(torch.equal(tensor, point[name]) for name, tensor in end.point.items())  # others rewind to it, too
    net.load_tensors(point)
    net.cut(end.structure)
    net.prune(seen_masks := end.masks)
    assert seen_masks and all(torch.equal(tensor, seen[0][name]) for name, tensor in net.tensors().items())


# Where a Slice is put.


def test_a_pattern_of_whole_channels_puts_a_slice_behind_the_last_stage_that_changes_masks():
    gmp = methods.get("gmp").stages({})
    filters = Run(dataset="digits", model="small-vgg", method="snip", recipe=RECIPE, pattern="filters", sparsity="0.5")
    kinds = lambda stages: [type(stage).__name__ for stage in stages]  # noqa: E731
    for stages, wanted in [
        ([PRUNE, Train()], ["Prune", "Slice", "Train"]),
        ([Continue(), PRUNE, Train()], ["Continue", "Prune", "Slice", "Train"]),
        ([PRUNE, Rewind(), Train()], ["Prune", "Slice", "Rewind", "Train"]),
        ([Train(), PRUNE], ["Train", "Prune", "Slice"]),
        ([PRUNE, Train(), PRUNE, Train()], ["Prune", "Train", "Prune", "Slice", "Train"]),
        (gmp, ["Train", "Slice"]),
        ([Train()], ["Train"]),
        ([PRUNE, Train(), Slice("fold")], ["Prune", "Train", "Slice"]),
    ]:
        assert kinds(with_slice(stages, filters)) == wanted
        for other in ({"pattern": "coefficients"}, {"off": "frozen"}, {"pattern": "columns"}):
            assert with_slice(stages, filters.model_copy(update=other)) == stages
    assert kinds(methods.get("snip").stages_of(filters)) == ["Prune", "Slice", "Train"]


def test_models_are_those_of_the_package():
    assert building.build_model is true_build
