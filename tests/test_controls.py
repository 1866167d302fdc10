"""Controls: what they take of the method's own run, what they change, and which have a meaning for which method."""

from __future__ import annotations

import csv
import hashlib
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ipbench import keys, methods
from ipbench.analysis.collect import collect, load, write_runs
from ipbench.analysis.grid import parse, to_json
from ipbench.cli.main import main
from ipbench.errors import BadInput
from ipbench.methods import Rewind, Slice, Take, Train
from ipbench.models.initialise import initialise
from ipbench.packing.net import pack
from ipbench.planning.experiment import Experiment
from ipbench.runs import building
from ipbench.runs import execute as running
from ipbench.runs.building import build_net, open_data
from ipbench.runs.environment import Environment
from ipbench.runs.execute import execute
from ipbench.runs.records import end_path, record_path
from ipbench.runs.state import read_end
from ipbench.sparse import measure
from ipbench.sparse.dense_shapes import of_the_dense_net
from ipbench.sparse.net import SparseNet
from ipbench.sparse.patterns import selector
from ipbench.sparse.rearranging import narrowed, rearranged
from ipbench.sparse.selection import Impossible
from ipbench.sparse.structure import Structure
from ipbench.spec import CONTROLS, NO_CONTROL, Recipe, Run, canonical_json
from ipbench.store import tensors_digest, write_json
from tests.tiny import builder, make_run, tiny_conv, tiny_stack

RECIPE = Recipe(epochs=2, batch_size=20, lr=0.05, schedule="cosine", train_examples=100, validation=0.2)
HERE = Environment()


@pytest.fixture(autouse=True)
def tiny_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs train a tiny net whose filters can all be cut."""

    monkeypatch.setattr(building, "build_model", builder(tiny_stack))


def run_of(method: str, control: str = NO_CONTROL, sparsity: str = "0.7", **values: Any) -> Run:
    entry = methods.get(method)
    values = {"pattern": entry.pattern, "allocation": entry.allocation, **values}
    values = {"budget": entry.budget_for(values["pattern"]), **values}
    run = Run(
        dataset="digits", model="small-vgg", method=method, recipe=RECIPE, sparsity=sparsity, control=control, **values
    )
    entry.check_run(run, "test")
    return entry.canonical(run)


def kept(record: dict[str, Any]) -> list[int]:
    return [layer["kept"] for layer in record["outcome"]["layers"]]


def start_of(run: Run) -> dict[str, Tensor]:
    return build_net(run, open_data(run, HERE), HERE).tensors()


# What is kept where


@pytest.mark.parametrize("space", ["sp", "ip"])
@settings(max_examples=30)
@given(counts=st.lists(st.floats(0, 1), min_size=4, max_size=4), seed=st.integers(0, 50))
def test_a_shuffle_keeps_the_numbers_of_all_layers(space, counts, seed):
    net = SparseNet(tiny_conv(), make_run(space=space, seed=seed), (2, 6, 6))
    masks = {
        name: torch.arange(mask.numel()).view(mask.shape) < round(share * mask.numel())
        for (name, mask), share in zip(net.masks.items(), counts, strict=True)
    }
    shuffled = rearranged(net, masks, "shuffle")
    assert {name: int(mask.sum()) for name, mask in shuffled.items()} == {
        name: int(mask.sum()) for name, mask in masks.items()
    }


def test_a_shuffle_is_that_of_the_seed_and_the_layer_alone():
    """Of every method and space the same draws; of a larger sparsity a part of what a smaller one keeps."""

    def at(share: float, **values: Any) -> dict[str, Tensor]:
        net = SparseNet(tiny_conv(), make_run(**values), (2, 6, 6))
        masks = {name: torch.rand(mask.shape) < share for name, mask in net.masks.items()}
        masks = {n: torch.arange(m.numel()).view(m.shape) < int(share * m.numel()) for n, m in masks.items()}
        return rearranged(net, masks, "shuffle")

    half, other, tenth = at(0.5), at(0.5, method="grasp", space="ip", sparsity="0.5"), at(0.1)
    assert all(torch.equal(half[name], other[name]) for name in half)
    assert all(bool((half[name] | ~tenth[name]).all()) for name in half)
    anew = at(0.5, seed=1)
    assert not all(torch.equal(half[name], anew[name]) for name in half)
    assert len({keys.key(0, purpose, "layer") for purpose in ("shuffle", "score")}) == 2


def test_a_shuffle_in_the_interspace_moves_over_basis_indices():
    net = SparseNet(tiny_stack(), make_run(space="ip"), (2, 6, 6))
    first = {name: torch.zeros_like(mask) for name, mask in net.masks.items()}
    for mask in first.values():  # of every filter, the coefficient of the first basis filter alone
        mask.view(*mask.shape[:2], -1)[:, :, 0] = True
    shuffled = rearranged(net, first, "shuffle")["3"]
    assert {int(place) for place in shuffled.view(8, 8, 9).nonzero()[:, 2]} == set(range(9))


@pytest.mark.parametrize("pattern", ["filters", "channels", "columns"])
def test_units_are_shuffled_whole(pattern):
    net = SparseNet(tiny_stack(), make_run(pattern=pattern, sparsity="0.5"), (2, 6, 6))
    selects = selector(net, "first")
    ones = {name: torch.ones_like(mask) for name, mask in net.masks.items()}
    scores = {name: torch.arange(mask.numel(), 0, -1.0).view(mask.shape) for name, mask in ones.items()}
    masks = selects.select(scores, selects.target, tie_key=0, among=ones)
    shuffled = rearranged(net, masks, "shuffle")
    before, after = selects.facts(masks), selects.facts(shuffled)
    assert before["units"] == after["units"] and any(entry["kept"] < entry["units"] for entry in before["units"])
    assert before.get("macs_sliced") == after.get("macs_sliced")
    assert not all(torch.equal(masks[name], shuffled[name]) for name in masks)


class Residual(nn.Module):
    """Two layers whose outputs are added: their filters make the same channels."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.out = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(2, 6, 1), nn.Linear(6, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.out((self.one(images) + self.two(images)).mean((2, 3)))


def test_filters_that_make_channels_together_move_together():
    net = SparseNet(Residual(), make_run(pattern="filters", sparsity="0.5", budget="channels"), (2, 6, 6))
    ones = {name: torch.ones_like(mask) for name, mask in net.masks.items()}
    # Channels 0 and 1 have both filters, 2 and 3 that of `one` alone, 4 that of `two` alone, 5 none.
    one, two = torch.tensor([1, 1, 1, 1, 0, 0]).bool(), torch.tensor([1, 1, 0, 0, 1, 0]).bool()
    masks = {**ones, "one": ones["one"] & one.view(-1, 1, 1, 1), "two": ones["two"] & two.view(-1, 1, 1, 1)}
    shuffled = rearranged(net, masks, "shuffle")
    rows = [(bool(shuffled["one"][channel].any()), bool(shuffled["two"][channel].any())) for channel in range(6)]
    before = list(zip(one.tolist(), two.tolist(), strict=True))
    assert sorted(rows) == sorted(before) and rows != before


def test_borrowed_ratios_of_random_pruning_are_random_pruning(tmp_path):
    """The draws are those of `random`, so that its own layer ratios give its very run."""
    for values in ({}, {"pattern": "filters", "budget": "channels", "sparsity": "0.5"}):
        own, borrowed = (
            execute(run_of("random", c, **values), tmp_path, HERE) for c in (NO_CONTROL, "borrowed-ratios")
        )
        assert own["outcome"]["masks_sha256"] == borrowed["outcome"]["masks_sha256"]
        assert own["outcome"]["weights_sha256"] == borrowed["outcome"]["weights_sha256"]
        assert own["outcome"]["curves"] == borrowed["outcome"]["curves"]


@pytest.mark.parametrize("space", ["sp", "ip"])
def test_narrower_nets_are_the_widest_that_fit(space):
    net = SparseNet(tiny_stack(), make_run(space=space), (2, 6, 6))

    def size(widths: tuple[int, ...]) -> int:
        one, two, three = widths  # weights, biases and norms of the three convolutions, the classifier
        return 18 * one + 2 * one + 9 * one * two + two + two * three + 3 * three + 3 * three + 3 + net.basis_entries

    assert size((8, 8, 6)) == measure.count(tiny_stack(), (2, 6, 6)).parameters + net.basis_entries
    found = narrowed(net, size((4, 4, 3)), "parameters")
    assert {name: len(units) for name, units in found.kept.items()} == dict(zip(found.kept, (4, 4, 3), strict=True))
    smaller = narrowed(net, size((4, 4, 3)) - 1, "parameters")
    assert [len(units) for units in smaller.kept.values()] in ([3, 3, 3], [4, 4, 2], [3, 3, 2])
    assert narrowed(net, size((8, 8, 6)), "parameters") == Structure()
    with pytest.raises(Impossible, match="with one channel in every layer"):
        narrowed(net, size((1, 1, 1)) - 1, "parameters")


# Runs


@pytest.mark.parametrize("space", ["sp", "ip"])
def test_the_masks_of_a_run_stay_where_values_are_drawn_anew(tmp_path, space):
    own, anew = run_of("snip", space=space), run_of("snip", "reinitialise", space=space)
    records = [execute(run, tmp_path, HERE) for run in (own, anew)]
    assert records[0]["outcome"]["masks_sha256"] == records[1]["outcome"]["masks_sha256"]
    assert records[1]["outcome"]["taken"] == {"of": own.id}
    first, second = start_of(own), start_of(anew)
    weights = [name for name, value in first.items() if value.dim() > 1 and "basis" not in name]
    assert len(weights) == 4 and not any(torch.equal(first[name], second[name]) for name in weights)
    # Neither method, sparsity nor control is in the draws: all controls of a seed start alike.
    other = start_of(run_of("magnitude", "reinitialise", sparsity="0.9", space=space))
    assert all(torch.equal(second[name], other[name]) for name in second)


def test_a_shuffle_trains_the_same_values_elsewhere(tmp_path):
    own, moved = (execute(run_of("snip", c), tmp_path, HERE) for c in (NO_CONTROL, "shuffle"))
    assert kept(own) == kept(moved) and own["outcome"]["masks_sha256"] != moved["outcome"]["masks_sha256"]
    first, second = start_of(run_of("snip")), start_of(run_of("snip", "shuffle"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    again = execute(run_of("snip", "shuffle"), tmp_path / "again", HERE)
    assert again["outcome_sha256"] == moved["outcome_sha256"]


def test_an_inverted_score_keeps_the_smallest(tmp_path):
    run = run_of("magnitude", "invert", sparsity="0.5")
    execute(run, tmp_path, HERE, keep=True)
    end = read_end(end_path(tmp_path, run), run)
    net = build_net(run, open_data(run, HERE), HERE)
    sizes = torch.cat([c.detach().abs().flatten() for c in net.coefficients.values()])
    flags = torch.cat([end.masks[name].flatten() for name in net.coefficients])
    assert int(flags.sum()) == len(sizes) // 2 and sizes[flags].max() <= sizes[~flags].min()
    assert methods.needs(run) == []


def test_a_choice_by_filters_is_inverted(tmp_path):
    run = run_of("l1-filters", "invert", sparsity="0.4", options={"inner": False}, budget="channels")
    execute(run, tmp_path, HERE, keep=True)
    execute(dense := methods.line(run)[0], tmp_path, HERE, keep=True)
    trained, end = read_end(end_path(tmp_path, dense), dense), read_end(end_path(tmp_path, run), run)
    for name, units in end.structure.kept.items():
        weight = next(
            value for label, value in trained.net.items() if label.startswith(f"{name}.") and value.dim() == 4
        )
        order = weight.abs().sum((1, 2, 3)).argsort()
        assert sorted(order[: len(units)].tolist()) == list(units)


def test_what_chooses_by_no_score_cannot_be_inverted(tmp_path):
    @methods.method(paper="none")
    def halves():
        def choose(net):
            """The first half of every layer."""
            return {n: torch.arange(m.numel()).view(m.shape) < m.numel() // 2 for n, m in net.masks.items()}

        return [methods.Choose(choose, "halves"), Train()]

    with pytest.raises(BadInput, match="halves: control invert turns scores round, and what is kept here is chosen"):
        execute(run_of("halves", "invert", sparsity="0.5"), tmp_path, HERE)


def test_fine_tuning_begins_with_what_it_inherits(tmp_path):
    """A shuffle of a trained net's mask keeps its values; scratch does not, and trains as long as both trainings."""
    own = execute(run_of("ft"), tmp_path, HERE)
    shuffle, scratch, anew = (
        execute(run_of("ft", c), tmp_path, HERE) for c in ("shuffle", "scratch-e", "reinitialise")
    )
    assert kept(own) == kept(shuffle) == kept(scratch) == kept(anew)
    assert scratch["outcome"]["taken"]["epochs"] == len(scratch["outcome"]["curves"]["train_loss"]) == 4
    assert len(anew["outcome"]["curves"]["train_loss"]) == 2
    assert own["outcome"]["training_flops"] == shuffle["outcome"]["training_flops"]
    assert anew["outcome"]["training_flops"] * 2 == own["outcome"]["training_flops"]


def test_origin_gives_the_dense_net_the_same_training(tmp_path):
    own, origin = execute(run_of("ft"), tmp_path, HERE), execute(run_of("ft", "origin"), tmp_path, HERE)
    assert origin["outcome"]["training_flops"] == own["outcome"]["training_flops"]
    assert origin["outcome"]["achieved_sparsity"] == 0 and "taken" not in origin["outcome"]
    assert len(origin["outcome"]["curves"]["train_loss"]) == len(own["outcome"]["curves"]["train_loss"])
    assert run_of("ft", "origin", sparsity="0.9").id == run_of("ft", "origin").id
    assert run_of("l1-filters", "origin", options={"ratios": "0=0.5"}, sparsity="0").options == {}


def test_epochs_of_equal_compute_by_hand(tmp_path):
    """Two epochs of the dense net and two of what is left, for as many of what is left as they come to."""
    own, scratch = (execute(run_of("l1-filters", c, sparsity="0.6"), tmp_path, HERE) for c in (NO_CONTROL, "scratch-b"))
    dense, small = own["outcome"]["macs_dense"], own["outcome"]["macs_now"]
    expected = round(Fraction(2 * dense + 2 * small, small))
    assert expected > 4 and scratch["outcome"]["taken"]["epochs"] == expected
    assert scratch["outcome"]["macs_now"] == small and scratch["outcome"]["sliced"] == own["outcome"]["sliced"]
    masked = execute(run_of("ft", "scratch-b", sparsity="0.5"), tmp_path, HERE)
    sparse = masked["outcome"]["macs_sparse"]
    assert masked["outcome"]["taken"]["epochs"] == round(2 + Fraction(2 * dense, sparse))


def test_a_small_net_begins_as_nets_of_its_widths_do(tmp_path):
    """The variance of its weights follows from its own inputs, and not from those of the dense net."""
    source = run_of("l1-filters", sparsity="0.6")
    run = run_of("l1-filters", "scratch-e", sparsity="0.6")
    execute(source, tmp_path, HERE, keep=True)
    end, data = read_end(end_path(tmp_path, source), source), open_data(run, HERE)
    net = build_net(run, data, HERE)
    net.cut(end.structure)
    drawn = building.initial_values(net, data)
    made = tiny_stack(1, 10)
    for place in ("0", "3", "5"):
        made.get_submodule(place).weight = nn.Parameter(torch.empty(drawn[f"{place}.weight"].shape))
    initialise(made, keys.key(0, "control", "initial values"), "kaiming_normal")
    assert all(torch.equal(made.get_submodule(p).weight, drawn[f"{p}.weight"]) for p in ("0", "3", "5"))


def test_small_dense_nets_are_no_larger_than_what_they_stand_for(tmp_path):
    for space in ("sp", "ip"):
        own = execute(run_of("snip", space=space), tmp_path, HERE)["outcome"]
        small = execute(run_of("snip", "small-dense", space=space), tmp_path, HERE)
        fewer = execute(run_of("snip", "small-dense-macs", space=space), tmp_path, HERE)
        assert small["status"] == fewer["status"] == "done"
        assert 0 < small["outcome"]["parameters_now"] <= own["parameters"]
        assert 0 < fewer["outcome"]["macs_now"] <= own["macs_sparse"]
        assert all(entry["kept"] for entry in small["outcome"]["layers"])


def test_masks_that_change_are_trained_as_they_ended(tmp_path):
    options = {"every": 2}
    own, fixed = (execute(run_of("rigl", c, options=options), tmp_path, HERE) for c in (NO_CONTROL, "reinitialise"))
    assert own["outcome"]["masks_sha256"] == fixed["outcome"]["masks_sha256"]
    assert own["activity"]["mask_updates"] and "activity" not in fixed


def test_interrupted_controls_go_on_where_they_were(tmp_path, monkeypatch, every_epoch):
    run = run_of("l1-filters", "scratch-b", sparsity="0.6")
    whole = execute(run, tmp_path / "whole", HERE)
    saved = running._Work.save
    count = 0

    def killed(work) -> None:
        nonlocal count
        saved(work)
        count += work.run.control != NO_CONTROL
        if count == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(running._Work, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        execute(run, tmp_path / "cut", HERE)
    monkeypatch.setattr(running._Work, "save", saved)
    assert execute(run, tmp_path / "cut", HERE)["outcome_sha256"] == whole["outcome_sha256"]


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("ft", {}), ("ft", {"epochs": 1}), ("snip", {}), ("gmp", {"every": 2}), ("lt", {"rate": 0.5, "rewind": 0.5}),
        ("l1-filters", {}), ("sfp", {"tune": 1}), ("greg-1", {"rise": 0.2, "every": 1, "stabilise": 1, "epochs": 1}),
    ],
)  # fmt: skip
def test_the_records_of_all_controls_are_collected(tmp_path, method, options):
    """Whatever its control makes of a run's trainings, its curves are as long as they have to be."""
    there = []
    for control in CONTROLS:
        try:
            run = run_of(method, control, sparsity="0.6", options=options)
        except BadInput:
            continue
        assert execute(run, tmp_path, HERE)["status"] == "done"
        there.append(control)
    found = collect(tmp_path)
    assert not found.unreadable, found.unreadable[0].message
    assert len(there) >= 4 and set(found.runs["control"].fillna(NO_CONTROL)) == set(there)


@pytest.mark.parametrize(("epochs", "said"), [(3, "curves end at epoch 4, its training at epoch 3"), (None, "taken")])
def test_a_scratch_run_of_another_length_is_not_collected(tmp_path, epochs, said):
    record = execute(run_of("ft", "scratch-e"), tmp_path, HERE)
    record["outcome"]["taken"] = {**record["outcome"]["taken"], "epochs": epochs}
    record["outcome_sha256"] = hashlib.sha256(canonical_json(record["outcome"]).encode()).hexdigest()
    write_json(record_path(tmp_path, run_of("ft", "scratch-e")), record)
    (odd,) = collect(tmp_path).unreadable
    assert said in odd.message


def test_a_control_of_what_cannot_be_is_impossible(tmp_path):
    record = execute(run_of("snip", "shuffle", sparsity="0.99999", space="ip"), tmp_path, HERE)
    assert record["status"] == "impossible" and "the run that this one is a control of" in record["reason"]


# Which have a meaning

ALL = {"shuffle", "reinitialise", "borrowed-ratios", "small-dense", "small-dense-macs"}


@pytest.mark.parametrize(
    ("method", "values", "expected"),
    [
        ("dense", {"sparsity": "0"}, set()),
        ("snip", {}, ALL | {"invert"}),
        ("cops", {}, ALL),
        ("gmp", {}, ALL),
        ("rigl", {}, ALL),
        ("ft", {}, ALL | {"invert", "scratch-e", "scratch-b", "origin"}),
        ("lt", {}, ALL),
        ("lt", {"options": {"weights": False, "rewind": 0.5}}, ALL - {"shuffle"} | {"scratch-e"}),
        ("snip", {"pattern": "2:4", "sparsity": "0.5"}, ALL - {"shuffle", "borrowed-ratios"} | {"invert"}),
        ("l1-filters", {}, ALL | {"invert", "scratch-e", "scratch-b", "origin"}),
        ("sfp", {}, ALL),
        ("sfp", {"options": {"tune": 1}}, ALL | {"scratch-e", "scratch-b"}),
        ("greg-1", {}, ALL | {"scratch-e", "scratch-b"}),
        ("epruner", {}, ALL | {"invert", "scratch-e", "scratch-b", "origin"}),
    ],
)
def test_which_controls_have_a_meaning(method, values, expected):
    entry = methods.get(method)
    values = {"pattern": entry.pattern, "sparsity": "0.5", **values}
    run = make_run(method=method, budget=entry.budget_for(values["pattern"]), **values)
    found = {c for c in CONTROLS[1:] if not entry.without_control(run.model_copy(update={"control": c}))}
    assert found == expected


def test_values_of_a_file_are_not_drawn_anew():
    run = make_run(control="reinitialise", own={"weights": "0" * 64})
    assert "those of this model are a file's" in methods.get("snip").without_control(run)


def test_the_stages_of_controls():
    def stages(method: str, control: str, **options: Any) -> list[str]:
        run = make_run(method=method, control=control, options=options, pattern=methods.get(method).pattern)
        return [type(stage).__name__ for stage in methods.get(method).stages_of(run)]

    assert stages("lt", "shuffle") == ["Take", "Rewind", "Train"]
    assert stages("ft", "shuffle") == ["Continue", "Take", "Train"]
    assert stages("epruner", "shuffle") == ["Continue", "Take", "Slice", "Train"]
    assert stages("l1-filters", "reinitialise") == ["Take", "Slice", "Train"]
    assert stages("sfp", "shuffle") == ["Take", "Slice", "Train"]
    assert stages("l1-filters", "origin") == ["Continue", "Train"]
    (take, train) = methods.get("gmp").stages_of(make_run(method="gmp", control="shuffle"))
    assert isinstance(take, Take) and isinstance(train, Train) and train.update is None
    assert not {Rewind, Slice} & {type(take), type(train)}


# In experiments, on the command line, in collections


def experiment(**changes: Any) -> Experiment:
    values = {
        "datasets": "digits", "recipe": {"epochs": 1, "warmup": 0, "train_examples": 100, "batch_size": 20},
        "methods": ["dense", "random", "snip", "ft"], "sparsities": ["0.5", "0.9"], "seeds": 2, **changes,
    }  # fmt: skip
    return Experiment.from_config(values, "controls")


def test_an_experiment_takes_the_controls_that_have_a_meaning():
    plain, found = experiment(), experiment(controls=["none", "shuffle", "origin", "scratch-e"])
    assert list(plain.cells) == [cell for cell, run in found.cells.items() if run.control == NO_CONTROL]
    of = {
        method: {run.control for run in found.cells.values() if run.method == method} for method in found.axes.methods
    }
    assert of == {
        "dense": {"none"}, "random": {"none", "shuffle"}, "snip": {"none", "shuffle"},
        "ft": {"none", "shuffle", "origin", "scratch-e"},
    }  # fmt: skip
    origins = [run for run in found.cells.values() if run.control == "origin"]
    assert len(origins) == 2 and {run.sparsity for run in origins} == {"0"}  # one in each space
    for cell, run in found.cells.items():
        before = {found.trained[other].control: found.trained[other].method for other in found.needs.get(cell, ())}
        assert before == {
            ("ft", "none"): {"none": "dense"}, ("ft", "origin"): {"none": "dense"},
            ("ft", "scratch-e"): {"none": "ft"},
        }.get((run.method, run.control), before)  # fmt: skip
    with pytest.raises(
        BadInput, match=r"methods: random: method random: control origin gives|control origin gives the"
    ):
        experiment(methods=["dense", {"name": "random", "control": ["none", "origin"]}])
    with pytest.raises(BadInput, match="control has no meaning for dense"):
        experiment(methods=[{"name": "dense", "control": "shuffle"}])
    with pytest.raises(BadInput, match="controls"):
        experiment(controls=["none", "shuffel"])


def test_jobs_come_after_those_that_they_are_controls_of():
    found = experiment(methods=["dense", "ft"], controls=["none", "shuffle"])
    jobs = {job.path: job for job in found.jobs()}
    for job in jobs.values():
        run = job.cells[0]
        before = {(jobs[path].cells[0].method, jobs[path].cells[0].control) for path in job.parents}
        wanted = {("dense", "none")} if run.method == "ft" else set()
        assert before == wanted | ({("ft", "none")} if run.control == "shuffle" else set())
        assert job.keep == (run.control == NO_CONTROL)
        assert ("--control" in job.arguments) == (run.control != NO_CONTROL)


def test_ids_and_plans_without_controls_are_those_of_before():
    run = make_run()
    assert "control" not in run.to_json() and "control" not in run.differences()
    assert Run.model_validate(run.to_json()) == run
    controlled = run.model_copy(update={"control": "shuffle"})
    assert controlled.to_json()["control"] == "shuffle" and controlled.cell != run.cell
    grid = experiment().grid()
    assert not any("control" in cell for cell in grid["cells"])


def test_collections_know_controls_and_leave_them_out_of_comparisons(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    found = experiment(methods=["snip"], sparsities="0.5", controls=["none", "shuffle"], spaces="sp")
    results = Path("results/controls")
    write_json(results / "grid.json", found.grid())
    for run in found.runs:
        execute(run, results, Environment(root=Path("data")))
    write_runs(results)
    everything, without = load(results, controls=True), load(results)
    assert not everything.unreadable
    assert [cell.control for cell in everything.grid.cells] == ["none", "shuffle"] and len(everything.runs) == 4
    assert [cell.control for cell in without.grid.cells] == ["none"] and len(without.runs) == 2
    assert parse(to_json(everything.grid)) == everything.grid
    assert main(["tables", str(results)]) == 0 and main(["verify", str(results), "--sample", "4"]) == 0
    assert "shuffle" not in (results / "tables/accuracy.csv").read_text()
    assert "4 equal" in capsys.readouterr().out
    (shuffled,) = (cell for cell in everything.grid.cells if cell.control == "shuffle")
    (results / "runs" / shuffled.id / "0.json").write_text("{}")
    assert main(["collect", str(results)]) == main(["tables", str(results)]) == 0
    assert f"left out: {results}/runs/{shuffled.id}/0.json: " in capsys.readouterr().err
    (row,) = csv.DictReader((results / "tables/missing.csv").open())
    assert (row["control"], row["what"], row["seeds"]) == ("shuffle", "unreadable", "0")


def test_a_control_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["run", "--recipe", "epochs=1", "--recipe", "warmup=0", "--recipe", "train_examples=100", "--out", "r"]
    assert main([*words, "--method", "ft", "--control", "origin", "--sparsity", "0.5,0.9"]) == 0
    records = [json.loads(path.read_text()) for path in Path("r/runs").glob("*/*.json")]
    assert sorted(record["run"].get("control", "none") for record in records) == ["none", "origin"]
    for more, says in (
        (["--method", "dense", "--control", "shuffle"], "--control: method dense does not prune"),
        (["--method", "snip", "--control", "origin"], "--control: method snip: control origin gives the dense net"),
        (["--method", "snip", "--control", "shufle"], "did you mean 'shuffle'?"),
    ):
        capsys.readouterr()
        assert main([*words, *more]) == 2
        assert says in capsys.readouterr().err


def test_the_dense_form_of_masks_of_a_cut_net(tmp_path):
    run = run_of("l1-filters", sparsity="0.6")
    execute(run, tmp_path, HERE, keep=True)
    end = read_end(end_path(tmp_path, run), run)
    net = build_net(run, open_data(run, HERE), HERE)
    net.restore(end.structure, end.net, end.masks)
    dense = of_the_dense_net(net, net.masks)
    assert {name: tuple(mask.shape) for name, mask in dense.items()} == {
        n: tuple(s) for n, s in net.dense_shapes.items()
    }
    assert tensors_digest({n: m.sum() for n, m in dense.items()}) == tensors_digest(
        {n: m.sum() for n, m in end.masks.items()}
    )


def test_frozen_values_that_are_drawn_anew_are_not_packed(tmp_path):
    run = run_of("freezenet", "reinitialise", sparsity="0.5", off="frozen")
    execute(run, tmp_path, HERE, keep=True)
    with pytest.raises(BadInput, match="a packed file tells a seed alone"):
        pack(tmp_path / "net.ipb", run, read_end(end_path(tmp_path, run), run))
    assert not (tmp_path / "net.ipb").exists()
