"""Runs that continue other runs: levels, fine-tuning, rewinding, interruptions, ends on disk."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ipbench import methods
from ipbench.data.loaders import Data
from ipbench.errors import BadInput, BadProduct
from ipbench.methods import Train
from ipbench.runs import execute as running
from ipbench.runs import stages
from ipbench.runs.building import build_net
from ipbench.runs.environment import Environment
from ipbench.runs.execute import execute
from ipbench.runs.records import end_path, record_path, state_path
from ipbench.runs.stages import rewinding_point
from ipbench.runs.state import End, read_end, write_end
from ipbench.spec import Basis, Recipe, Run
from ipbench.store import read_json, tensors_digest
from ipbench.training import loop as training

#: Four steps an epoch, twelve in all; no schedule rate is used twice.
RECIPE = Recipe(epochs=3, batch_size=20, lr=0.05, schedule="cosine", train_examples=100, validation=0.2)
STEPS = 4
HERE = Environment()
pytestmark = pytest.mark.usefixtures("tiny_model")


class Stop(Exception):
    """Stands in for a kill."""


def tiny_run(**values: Any) -> Run:
    return Run(**{"dataset": "digits", "model": "small-vgg", "method": "ft", "recipe": RECIPE, **values})


#: A space with coefficients to spare: one FB for both convolutions.
SHARED = {"space": "ip", "basis": Basis(init="orthonormal", sharing="network")}
SPACES = {"sp": {}, "ip": SHARED}


class Begin(NamedTuple):
    """The state when an epoch of a training begins."""

    method: str
    sparsity: str
    step: int
    tensors: dict[str, Tensor]
    masks: dict[str, Tensor]


@pytest.fixture
def begins(monkeypatch) -> list[Begin]:
    """Of all trainings, in their order; rewinding trains outside `train` and is not among them."""
    seen: list[Begin] = []
    true = training.train_steps

    def spy(net, data, recipe, optimiser, begin, end, **others):
        tensors = {name: tensor.clone() for name, tensor in net.tensors().items()}
        seen.append(Begin(net.run.method, net.run.sparsity, begin, tensors, dict(net.masks)))
        return true(net, data, recipe, optimiser, begin, end, **others)

    monkeypatch.setattr(training, "train_steps", spy)
    return seen


def data_of(run: Run) -> Data:
    return Data(run.dataset, run.recipe, run.seed, root=Path("data"))


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def masked(tensors: dict[str, Tensor], masks: dict[str, Tensor], off: dict[str, Tensor] | None = None):
    """The state `tensors` with off-values (zero, or those of the state `off`) where `masks` leave out."""
    result = dict(tensors)
    for layer, mask in masks.items():
        label = next(n for n in (f"{layer}.parametrizations.weight.original", f"{layer}.weight") if n in tensors)
        value = torch.zeros_like(mask, dtype=torch.float32) if off is None else off[label]
        result[label] = torch.where(mask, tensors[label], value)
    return result


# Levels.


def chain(run: Run) -> list[str]:
    """Method and sparsity of the runs that a run continues, the nearest first."""
    result = []
    while (before := methods.parent(run)) is not None:
        assert before.method == "dense" or before.density > run.density  # else this goes on for ever
        result.append(f"{before.method} {before.sparsity}")
        run = before
    return result


def test_levels_by_hand():
    """0.8, 0.64, 0.512, 0.4096 are left after levels of 20 %."""
    assert chain(tiny_run(method="lt", sparsity="0.55")) == ["lt 0.488", "lt 0.36", "lt 0.2", "dense 0"]
    assert chain(tiny_run(method="lt", sparsity="0.5")) == ["lt 0.488", "lt 0.36", "lt 0.2", "dense 0"]
    assert chain(tiny_run(method="lt", sparsity="0.488")) == ["lt 0.36", "lt 0.2", "dense 0"]  # is a level itself
    assert chain(tiny_run(method="lt", sparsity="0.4879")) == ["lt 0.36", "lt 0.2", "dense 0"]
    assert chain(tiny_run(method="lt", sparsity="0.2")) == ["dense 0"]  # the first level
    assert chain(tiny_run(method="lt", sparsity="0.1")) == ["dense 0"]  # and below it
    assert chain(tiny_run(method="lt", sparsity="0")) == ["dense 0"]
    half = {"method": "lt", "options": {"rate": 0.5}}
    assert chain(tiny_run(**half, sparsity="0.9")) == ["lt 0.875", "lt 0.75", "lt 0.5", "dense 0"]
    assert chain(tiny_run(**half, sparsity="0.75")) == ["lt 0.5", "dense 0"]


def test_deep_levels_are_rounded_to_six_decimals_and_still_levels():
    """1 - 0.8^7 = 0.7902848 is written 0.790285, a level whose parent is the one before."""
    levels = chain(tiny_run(method="lt", sparsity="0.99"))
    assert levels[-8:] == [
        "lt 0.790285", "lt 0.737856", "lt 0.67232", "lt 0.5904", "lt 0.488", "lt 0.36", "lt 0.2", "dense 0",
    ]  # fmt: skip
    assert len(levels) == 21  # 0.8^20 = 0.0115 is more than 0.01, 0.8^21 = 0.0092 is not
    assert chain(tiny_run(method="lt", sparsity="0.790285"))[0] == "lt 0.737856"


def test_a_level_carries_everything_but_the_sparsity():
    run = tiny_run(
        method="lt", sparsity="0.3", off="frozen", allocation="erk", seed=3, options={"rewind": 1.0}, **SHARED
    )
    level = methods.parent(run)
    assert level == run.model_copy(update={"sparsity": "0.2"})
    dense = methods.parent(level)
    assert dense == tiny_run(method="dense", seed=3, **SHARED)


# Where trainings begin.


@pytest.mark.parametrize("off", ["zero", "frozen"])
@pytest.mark.parametrize("space", SPACES)
def test_ft_begins_with_the_pruned_dense_net(tmp_path, begins, space, off):
    """The smallest of the trained coefficients are off, all else is as the dense training left it."""
    run = tiny_run(off=off, sparsity="0.3", options={"epochs": 2, "lr": 0.5}, **SPACES[space])
    dense = methods.parent(run)
    assert dense == tiny_run(method="dense", **SPACES[space])
    execute(run, tmp_path, HERE, keep=True)
    assert [(begin.method, begin.step) for begin in begins] == [
        ("dense", 0), ("dense", 4), ("dense", 8), ("ft", 0), ("ft", 4),
    ]  # fmt: skip
    end, first = read_end(end_path(tmp_path, dense), dense), begins[3]
    start = build_net(run, data_of(run), HERE)
    assert same(first.tensors, masked(end.net, first.masks, start.tensors() if off == "frozen" else None))
    magnitudes = {}
    for layer in first.masks:
        label = next(n for n in (f"{layer}.parametrizations.weight.original", f"{layer}.weight") if n in end.net)
        magnitudes[layer] = end.net[label].abs()
    kept = torch.cat([magnitudes[layer][mask] for layer, mask in first.masks.items()])
    dropped = torch.cat([magnitudes[layer][~mask] for layer, mask in first.masks.items()])
    assert len(kept) == {"sp": 156, "ip": 156 - 81}[space] and float(kept.min()) > float(dropped.max())
    assert same(first.masks, read_end(end_path(tmp_path, run), run).masks)


def test_fine_tuning_has_its_own_epochs_and_rate():
    """lr is a factor; the schedule and the warm-up fit into the epochs."""
    recipe = RECIPE.model_copy(update={"warmup": 3.0})
    ft = Train(epochs=2, lr=0.1).recipe_of(recipe)
    assert (ft.epochs, ft.lr, ft.warmup) == (2, pytest.approx(0.005), 2)
    assert Train().recipe_of(recipe) == recipe


@pytest.mark.parametrize("epochs", [0, 0.5, 1, 1.75])
@pytest.mark.parametrize("space", SPACES)
def test_rewinding_goes_to_where_the_dense_training_stood(space, epochs):
    """Against a loop by hand, with the rates of the cosine over all twelve steps; FBs have no decay."""
    run = tiny_run(method="lt", sparsity="0.3", **SPACES[space])
    data, last = data_of(run), int(epochs * STEPS)
    point = rewinding_point(build_net(run, data, HERE), data, epochs)
    net = build_net(run, data, HERE)
    assert sum("basis" in name for name, _ in net.net.named_parameters()) == (space == "ip")
    stream = (batch for epoch in range(RECIPE.epochs) for batch in data.train(epoch))
    momentum: dict[str, Tensor] = {}
    for step, batch in enumerate(islice(stream, last)):
        net.zero_grad()
        functional.cross_entropy(net(batch.images), batch.labels).backward()
        with torch.no_grad():
            for name, parameter in net.net.named_parameters():
                decay = 0.0 if "basis" in name else RECIPE.weight_decay
                gradient = parameter.grad.add(parameter, alpha=decay)
                momentum[name] = momentum[name].mul(0.9).add(gradient) if name in momentum else gradient
                parameter.add_(momentum[name], alpha=-0.05 * 0.5 * (1 + math.cos(math.pi * step / 12)))
    assert same(point, net.tensors())
    assert same(point, build_net(run, data, HERE).tensors()) == (epochs == 0)


@pytest.mark.parametrize("off", ["zero", "frozen"])
@pytest.mark.parametrize("space", SPACES)
def test_lt_begins_at_the_rewound_net_with_smaller_masks_each_level(tmp_path, monkeypatch, begins, space, off):
    """Rewound to step 6 of 12: coefficients, FB, norms and biases; levels 0.4 and, the run's own, 0.5."""
    found: list[float] = []
    monkeypatch.setattr(stages, "rewinding_point", lambda *args: found.append(args[2]) or rewinding_point(*args))
    options = {"rate": 0.4, "rewind": 1.5}
    run = tiny_run(method="lt", sparsity="0.5", off=off, options=options, **SPACES[space])
    record = execute(run, tmp_path, HERE, keep=True)
    assert found == [1.5]  # at the first level; it is handed on
    levels = [b for b in begins if b.method == "lt"]
    assert [(b.sparsity, b.step) for b in levels] == [("0.4", 6), ("0.4", 8), ("0.5", 6), ("0.5", 8)]
    point = rewinding_point(build_net(run, data_of(run), HERE), data_of(run), 1.5)
    off_values = build_net(run, data_of(run), HERE).tensors() if off == "frozen" else None
    for begin in (levels[0], levels[2]):
        assert same(begin.tensors, masked(point, begin.masks, off_values))
    fewer, more = levels[2].masks, levels[0].masks
    counts = [sum(int(mask.sum()) for mask in masks.values()) for masks in (more, fewer)]
    assert counts == {"sp": [134, 112], "ip": [134 - 81, 112 - 81]}[space]
    assert not any(bool((fewer[name] & ~more[name]).any()) for name in fewer)
    # The dense training stood there, too: at its second epoch's start it had passed the same first four steps.
    dense = begins[1]
    assert (dense.method, dense.step) == ("dense", 4)
    assert same(dense.tensors, rewinding_point(build_net(run, data_of(run), HERE), data_of(run), 1))
    assert same(read_end(end_path(tmp_path, run), run).point, point)
    assert record["outcome"]["coefficients_kept"] == counts[1]


@pytest.mark.parametrize("space", SPACES)
def test_a_level_prunes_what_became_smallest_in_the_level_before(tmp_path, begins, space):
    """The ranking is by the end of the level before, not by the rewound values."""
    run = tiny_run(method="lt", sparsity="0.5", options={"rate": 0.4}, **SPACES[space])
    level = methods.parent(run)
    execute(run, tmp_path, HERE)
    end, begin = read_end(end_path(tmp_path, level), level), begins[-3]
    assert (begin.sparsity, begin.step) == ("0.5", 0)
    values = []
    for layer, mask in begin.masks.items():
        label = next(n for n in (f"{layer}.parametrizations.weight.original", f"{layer}.weight") if n in end.net)
        values += [
            (float(v), bool(m)) for v, m, was in zip(
                end.net[label].abs().flatten(), mask.flatten(), end.masks[layer].flatten(), strict=True
            ) if was
        ]  # fmt: skip
    values.sort(reverse=True)
    kept = sum(flag for _, flag in values)
    assert [flag for _, flag in values] == [True] * kept + [False] * (len(values) - kept)


def test_rewinding_the_schedule_alone_keeps_the_weights(tmp_path, begins):
    options = {"rate": 0.4, "rewind": 1.0, "weights": False}
    run = tiny_run(method="lt", sparsity="0.5", options=options, **SHARED)
    execute(run, tmp_path, HERE, keep=True)
    level = methods.parent(run)
    dense = methods.parent(level)
    first, second = (next(b for b in begins if b.method == "lt" and b.sparsity == p) for p in ("0.4", "0.5"))
    assert first.step == second.step == 4
    assert same(first.tensors, masked(read_end(end_path(tmp_path, dense), dense).net, first.masks))
    assert same(second.tensors, masked(read_end(end_path(tmp_path, level), level).net, second.masks))


# Interruptions.

CONTINUED = {
    "ft": {"method": "ft", "sparsity": "0.5", "options": {"epochs": 2}},
    "lt": {"method": "lt", "sparsity": "0.5", "options": {"rate": 0.4, "rewind": 0.5}},
    "lt-schedule": {"method": "lt", "sparsity": "0.5", "options": {"rate": 0.4, "rewind": 0.5, "weights": False}},
    "gmp": {"method": "gmp", "sparsity": "0.5", "options": {"every": 2}},
    "rigl": {"method": "rigl", "sparsity": "0.5", "options": {"every": 2}},
    "set": {"method": "set", "sparsity": "0.5", "options": {"every": 2}},
}


def stopping(call: int) -> Callable[[int, int], None]:
    """A progress bar that kills the process the `call`-th time it is called, in this run or in one before it."""
    calls = iter(range(1, 1000))

    def on_epoch(epoch: int, epochs: int) -> None:
        if next(calls) == call:
            raise Stop

    return on_epoch


@pytest.mark.parametrize(
    ("name", "space"),
    [("ft", "sp"), ("lt", "ip"), ("lt-schedule", "sp"), ("gmp", "ip"), ("rigl", "sp"), ("set", "ip")],
)
@pytest.mark.usefixtures("every_epoch")
def test_interrupted_equals_uninterrupted_bit_for_bit(tmp_path, name, space):
    """Killed at every place where a process can be told from outside, in the run and in those it continues."""
    run = tiny_run(**CONTINUED[name], **SPACES[space], off="frozen", recipe=RECIPE.model_copy(update={"epochs": 2}))
    calls: list[int] = []
    whole = execute(run, tmp_path / "whole", HERE, keep=True, on_epoch=lambda epoch, _: calls.append(epoch))
    assert whole["status"] == "done" and len(calls) >= 3
    for call in range(1, len(calls) + 1):
        folder = tmp_path / str(call)
        with pytest.raises(Stop):
            execute(run, folder, HERE, keep=True, on_epoch=stopping(call))
        cut = execute(run, folder, HERE, keep=True)
        assert cut["outcome"] == whole["outcome"], call
        ends = [read_end(end_path(tmp_path / part, run), run) for part in ("whole", str(call))]
        assert same(ends[0].net, ends[1].net) and same(ends[0].masks, ends[1].masks)
        assert same(ends[0].point, ends[1].point) and ends[0].facts == ends[1].facts
        assert not list((folder / "state").rglob("*.safetensors"))


@pytest.mark.parametrize("name", ["ft", "lt"])
def test_a_kill_just_before_a_record_is_written_repeats_no_training(tmp_path, monkeypatch, begins, name):
    run = tiny_run(**CONTINUED[name], **SHARED)
    whole = execute(run, tmp_path / "whole", HERE)
    trained = len(begins)

    def kill(*_: Any) -> None:
        raise Stop

    for _ in range(len(chain(run)) + 1):
        with monkeypatch.context() as patch:
            patch.setattr(running, "write_json", kill)
            with pytest.raises(Stop):
                execute(run, tmp_path / "cut", HERE)
        before = methods.parent(run)
        for link in (before, methods.parent(before) if before else None, run):
            if (
                link
                and not record_path(tmp_path / "cut", link).exists()
                and state_path(tmp_path / "cut", link).exists()
            ):
                execute(link, tmp_path / "cut", HERE, keep=link != run)
    assert execute(run, tmp_path / "cut", HERE)["outcome"] == whole["outcome"]
    assert len(begins) == 2 * trained


# Failures are handed on.


def test_an_impossible_parent_makes_an_impossible_child(tmp_path, begins):
    """Of 224 weights 0.64 are 143, fewer than the 162 entries of two FBs: level 0.36 is impossible, 0.2 is not."""
    run = tiny_run(method="lt", sparsity="0.5", space="ip")
    record = execute(run, tmp_path, HERE)
    level = run.model_copy(update={"sparsity": "0.36"})
    assert record["status"] == "impossible" and record["outcome"] == {}
    assert "filter bases alone (162 entries) use up the budget of 143" in record["reason"]
    assert f"the run that this one continues ({level.cell}) is impossible" in record["reason"]
    assert {begin.sparsity for begin in begins} == {"0", "0.2"}
    assert not end_path(tmp_path, level).exists() and not state_path(tmp_path, level).exists()
    begins.clear()
    execute(run.model_copy(update={"sparsity": "0.6"}), tmp_path, HERE)  # shares the levels and trains nothing
    assert not begins


def test_a_diverged_parent_makes_a_diverged_child(tmp_path):
    recipe = RECIPE.model_copy(update={"lr": 1000.0, "momentum": 0.99, "schedule": "constant", "epochs": 8})
    run = tiny_run(sparsity="0.5", recipe=recipe)
    record = execute(run, tmp_path, HERE)
    dense = methods.parent(run)
    assert read_json(record_path(tmp_path, dense))["status"] == "diverged"
    assert record["status"] == "diverged"
    assert record["reason"].startswith(f"the run that this one continues ({dense.cell}) is diverged: the training loss")
    assert record["outcome"]["training_flops"] == 0 and not end_path(tmp_path, dense).exists()


# What is counted.


def test_training_flops_are_own_and_inherited(tmp_path):
    """6 FLOPs a MAC and image: 12 steps of 20 images dense; 8 of fine-tuning; 10 of each level after epoch 0.5."""
    macs = 64 * (36 + 108 + 30) + 50
    ft = execute(tiny_run(**CONTINUED["ft"]), tmp_path, HERE)
    lt = execute(tiny_run(**CONTINUED["lt"]), tmp_path, HERE)
    dense = read_json(record_path(tmp_path, tiny_run(method="dense")))
    assert ft["outcome"]["macs_dense"] == macs
    assert dense["outcome"]["training_flops"] == 6 * macs * 12 * 20
    assert ft["outcome"]["training_flops"] == 6 * macs * (12 + 8) * 20
    assert lt["outcome"]["training_flops"] == 6 * macs * (12 + 10 + 10) * 20
    gmp = execute(tiny_run(**CONTINUED["gmp"]), tmp_path, HERE)
    assert gmp["outcome"]["training_flops"] == 6 * macs * 12 * 20
    assert "inherited_flops" not in ft["outcome"]


# Ends on disk.


def test_ends_are_kept_only_for_those_who_need_them(tmp_path, begins):
    run = tiny_run(**CONTINUED["lt"])
    level = methods.parent(run)
    dense = methods.parent(level)
    execute(dense, tmp_path, HERE)
    assert not end_path(tmp_path, dense).exists()
    execute(run, tmp_path, HERE)  # needs it: the dense run is made again
    assert [begin.method for begin in begins[:6]] == ["dense"] * 6
    assert end_path(tmp_path, dense).exists() and end_path(tmp_path, level).exists()
    assert not end_path(tmp_path, run).exists()
    begins.clear()
    execute(tiny_run(**CONTINUED["ft"]), tmp_path, HERE)  # the dense run is there
    assert {begin.method for begin in begins} == {"ft"}


def test_a_missing_end_is_made_again(tmp_path):
    run = tiny_run(**CONTINUED["ft"])
    dense = methods.parent(run)
    record = execute(run, tmp_path, HERE)
    digest = tensors_digest(read_end(end_path(tmp_path, dense), dense).net)
    end_path(tmp_path, dense).unlink()
    record_path(tmp_path, run).unlink()
    assert execute(run, tmp_path, HERE)["outcome"] == record["outcome"]
    assert tensors_digest(read_end(end_path(tmp_path, dense), dense).net) == digest


@pytest.mark.parametrize("damage", ["truncated", "zeros", "altered", "of another run"])
def test_a_damaged_end_is_refused_by_name(tmp_path, damage):
    run = tiny_run(**CONTINUED["ft"])
    dense = methods.parent(run)
    execute(dense, tmp_path, HERE, keep=True)
    path = end_path(tmp_path, dense)
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "zeros":
        path.write_bytes(bytes(len(content)))
    elif damage == "altered":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        end = read_end(path, dense)
        write_end(path, dense.model_copy(update={"seed": 1}), End(end.net, end.masks, end.point, end.facts))
    with pytest.raises(BadProduct, match=str(path)):
        execute(run, tmp_path, HERE)
    assert not record_path(tmp_path, run).exists()
    path.unlink()
    assert execute(run, tmp_path, HERE)["status"] == "done"


def test_an_end_holds_the_whole_state(tmp_path):
    run = tiny_run(**CONTINUED["lt"], **SHARED)
    record = execute(run, tmp_path, HERE, keep=True)
    end = read_end(end_path(tmp_path, run), run)
    assert tensors_digest(end.net) == record["outcome"]["weights_sha256"]
    assert tensors_digest(end.masks) == record["outcome"]["masks_sha256"]
    flops = record["outcome"]["training_flops"]
    assert end.facts["training_flops"] == flops > end.facts["inherited_flops"] > 0
    assert end.facts["epochs"] > 0 and end.facts["inherited_epochs"] > 0


@pytest.mark.parametrize("options", [{"rewind": 3.0}, {"rewind": 2.9}, {"rewind": 7.0, "weights": False}])
def test_rewinding_behind_the_last_step_is_bad_input(tmp_path, options):
    """Three epochs of four steps: nothing would be trained; 2.9 epochs are rounded to 12 steps."""
    with pytest.raises(BadInput, match=r"method lt: rewinding to epoch \S+ leaves nothing of a training of 3 epochs"):
        execute(tiny_run(method="lt", sparsity="0.3", options=options), tmp_path, HERE)
