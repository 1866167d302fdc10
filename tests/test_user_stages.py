"""Methods of every order of stages: what counts as done, what is selected, what a resume restores, what never acts."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import count, product
from typing import Any

import pytest
import torch

from ipbench import methods
from ipbench.errors import BadInput
from ipbench.methods import DropAndGrow, Gradual, Prune, Rewind, Train, Updater, method
from ipbench.methods.magnitude import magnitude
from ipbench.planning.experiment import Experiment
from ipbench.runs import execute as running
from ipbench.runs import outcome
from ipbench.runs.environment import Environment
from ipbench.runs.execute import execute
from ipbench.runs.records import end_path, record_path, state_path
from ipbench.runs.state import State
from ipbench.spec import Recipe, Run
from ipbench.training.loop import Sgd

#: Four steps an epoch, twelve in all.
RECIPE = Recipe(epochs=3, batch_size=20, lr=0.05, schedule="cosine", train_examples=100, validation=0.2)
HERE = Environment()
pytestmark = pytest.mark.usefixtures("tiny_model")
ONCE = Prune(magnitude, "magnitude")


class Stop(Exception):
    """Stands in for a kill."""


def declare(*stages: methods.Stage) -> str:
    @method(paper="Nobody, 2026")
    def mine():
        return list(stages)

    methods.get("mine").check("here")
    return "mine"


def tiny_run(method: str = "snip", **values: Any) -> Run:
    return Run(
        **{"dataset": "digits", "model": "small-vgg", "method": method, "recipe": RECIPE, "sparsity": "0.9", **values}
    )


def recipe(**values: Any) -> Recipe:
    return RECIPE.model_copy(update=values)


def nulls(value: Any, name: str = "") -> set[str]:
    """Places of nulls, positions in lists left out."""
    if value is None:
        return {name}
    if isinstance(value, dict):
        return set().union(*(nulls(part, f"{name}.{key}".strip(".")) for key, part in value.items()))
    return set().union(*(nulls(part, name) for part in value)) if isinstance(value, list) else set()


# Diverged.

BREAKS: dict[str, tuple[str, float]] = {
    "weight": ("8.weight", math.nan), "bias": ("8.bias", math.inf), "mean": ("1.running_mean", math.nan),
    "variance": ("1.running_var", math.inf), "logits": ("8.bias", 3e38),
}  # fmt: skip


@pytest.mark.parametrize("validation", [0.0, 0.2])
@pytest.mark.parametrize("broken", BREAKS)
def test_a_net_that_the_last_step_breaks_has_diverged(tmp_path, monkeypatch, broken, validation):
    """All training losses are finite; so are all values of the last case, but not its loss."""
    name, value = BREAKS[broken]
    true, steps = Sgd.step, count(1)
    total = RECIPE.epochs * (round(100 * (1 - validation)) // RECIPE.batch_size)

    def step(self, lr):
        true(self, lr)
        if next(steps) == total:
            with torch.no_grad():
                nets[0].tensors()[name].fill_(value)
                if broken == "logits":
                    nets[0].tensors()["8.bias"][::2] *= -1

    nets: list[Any] = []
    build = running.build_net
    monkeypatch.setattr(running, "build_net", lambda *args: nets.append(build(*args)) or nets[-1])
    monkeypatch.setattr(Sgd, "step", step)
    run = tiny_run(recipe=recipe(validation=validation))
    record = execute(run, tmp_path, HERE, keep=True)
    assert next(steps) == total + 1
    assert record["status"] == "diverged" and "not finite" in record["reason"]
    assert ("loss" if broken == "logits" else name) in record["reason"]
    assert "test_accuracy" not in record["outcome"] and not end_path(tmp_path, run).exists()


@pytest.mark.parametrize(("call", "words"), [(1, "test loss"), (2, "training loss"), (3, "selected")])
def test_every_loss_at_the_end_must_be_finite(tmp_path, monkeypatch, call, words):
    true, calls = outcome.evaluate, count(1)

    def evaluate(*given):
        found = true(*given)
        return found._replace(loss=math.nan) if next(calls) == call else found

    monkeypatch.setattr(outcome, "evaluate", evaluate)
    # So high a rate that the last epoch is not the best one.
    run = tiny_run(sparsity="0", recipe=recipe(lr=2.0, schedule="constant", epochs=4))
    record = execute(run, tmp_path, HERE)
    assert record["status"] == "diverged" and words in record["reason"]


def test_a_finished_record_has_null_only_where_there_is_no_validation_part(tmp_path):
    whole = execute(tiny_run(space="ip", sparsity="0"), tmp_path, HERE)
    assert whole["status"] == "done" and not nulls(whole["outcome"])
    without = execute(tiny_run(recipe=recipe(validation=0.0)), tmp_path, HERE)
    assert without["status"] == "done"
    assert nulls(without["outcome"]) == {"validation_accuracy", "curves.validation_accuracy", "curves.validation_loss"}


def test_whatever_number_is_added_to_a_record_is_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(outcome.measure, "training_flops", lambda *_: math.inf)
    record = execute(tiny_run(), tmp_path, HERE)
    assert record["status"] == "diverged" and "training_flops" in record["reason"]


def test_a_gradient_that_overflows_has_diverged(tmp_path, monkeypatch):
    monkeypatch.setattr("ipbench.training.loop.gradient_norm", lambda net: torch.tensor(math.inf))
    record = execute(tiny_run(), tmp_path, HERE)
    assert record["status"] == "diverged" and record["reason"] == "the gradient norm of epoch 1 is not finite"


# Selection.


class Late(Updater):
    """Prunes at the end of the second epoch; nothing is settled before the third."""

    masks = "pruned"
    settled = False

    def after_epoch(self, net, epoch):
        if epoch == 1:
            net.prune(net.select(net.magnitudes(), net.budget, epoch))
        self.settled = epoch >= 2


ORDERS: dict[str, tuple[methods.Stage, ...]] = {
    "prune": (ONCE,),
    "train-prune": (Train(), ONCE),
    "prune-train-rewind": (ONCE, Train(), Rewind(1.0)),
    "train-prune-train": (Train(), ONCE, Train()),
    "train-prune-train-prune": (Train(), ONCE, Train(), ONCE),
    "gradual": (Train(Gradual(magnitude, 1, 0.0, 0.5)),),
    "gradual-train": (Train(Gradual(magnitude, 1, 0.0, 0.5)), Train(epochs=1)),
    "train-prune-exchange": (
        Train(), ONCE, Train(DropAndGrow(lambda net, layer, g, step: g.abs(), 2, 0.5, 0.5, 1.0, False)),
    ),
    "own": (Train(Late.spec()),),
    "own-prune": (Train(Late.spec()), ONCE),
}  # fmt: skip


@pytest.mark.parametrize("order", ORDERS)
def test_whatever_is_tested_is_within_its_budget(tmp_path, monkeypatch, order):
    """0.9 of 224 weights: 22 stay. The net that was not pruned yet would win every validation."""
    seen = []
    true = outcome.evaluate

    def evaluate(net, *given):
        seen.append(sum(int((c != 0).sum()) for c in net.coefficients.values()))
        return true(net, *given)

    monkeypatch.setattr(outcome, "evaluate", evaluate)
    record = execute(tiny_run(declare(*ORDERS[order])), tmp_path, HERE)
    found = record["outcome"]
    assert record["status"] == "done" and found["coefficients_kept"] == 22
    assert seen and max(seen) <= 22
    trained = len(found["curves"]["validation_accuracy"])
    if not isinstance(ORDERS[order][-1], Train):  # the net at the end is selected
        assert found["selected_epoch"] == trained and found["test_accuracy_selected"] == found["test_accuracy"]
        assert len(seen) == 3  # test, training and validation part
    else:
        assert found["validation_accuracy"] == found["curves"]["validation_accuracy"][-1]
        assert (3 if order == "own" else 1) <= found["selected_epoch"] <= trained
    assert 0 <= found["validation_accuracy"] <= 1


def test_the_validation_accuracy_is_that_of_the_pruned_net(tmp_path):
    """Almost everything goes after the training: the accuracy falls, and the curve stays that of the training."""
    values = recipe(epochs=20, lr=0.2, train_examples=400)
    trained = execute(tiny_run("dense", sparsity="0", recipe=values), tmp_path, HERE)["outcome"]
    pruned = execute(tiny_run(declare(Train(), ONCE), sparsity="0.99", recipe=values), tmp_path, HERE)["outcome"]
    assert pruned["curves"] == trained["curves"]
    assert pruned["validation_accuracy"] < trained["validation_accuracy"] - 0.2
    assert pruned["test_accuracy_selected"] == pruned["test_accuracy"] < trained["test_accuracy"] - 0.2


def test_a_net_above_its_budget_is_an_error_that_names_the_method(tmp_path):
    class Never(Gradual):
        def due(self, step, total):
            return False

    run = tiny_run(declare(Train(Never(magnitude, 1, 0.0, 1.0))))
    with pytest.raises(BadInput, match=r"method mine: left the net above its budget: 224 .* sparsity 0.9 lets 22 stay"):
        execute(run, tmp_path, HERE)
    with pytest.raises(BadInput, match="method dense: left the net above its budget"):
        execute(tiny_run("dense"), tmp_path, HERE)
    assert not list(tmp_path.rglob("*.json"))


# Resuming.


def noted(net, batch):
    """Magnitude; it writes down how often it was asked, and what is left of the first layer."""
    name = next(iter(net.coefficients))
    net.notes[f"seen {len(net.notes)}"] = float(net.coefficients[name].detach().abs().sum())
    return net.magnitudes()


NOTED = Prune(noted, "noted")
CUT: dict[str, tuple[str, tuple[methods.Stage, ...]]] = {
    "decayed": ("decayed", (NOTED, Train())),
    "again": ("decayed", (Train(epochs=1), NOTED, Train(first=1.0), NOTED)),
    "gradual": ("decayed", (Train(Gradual(noted, 2, 0.0, 0.9)),)),
    "exchange": ("frozen", (NOTED, Train(DropAndGrow(lambda n, layer, g, s: g.abs(), 2, 0.5, 0.5, 1.0, False)), NOTED)),
}


@pytest.mark.usefixtures("every_epoch")
@pytest.mark.parametrize("name", CUT)
def test_interrupted_at_every_state_and_in_the_evaluation(tmp_path, monkeypatch, name):
    """After every state that is written, and after all of them: the record is that of the undisturbed run."""
    off, stages = CUT[name]
    run = tiny_run(declare(*stages), off=off, recipe=recipe(weight_decay=0.05, epochs=2))
    saves = count(1)
    true = State.save

    def killed_after(last: int) -> Callable[..., None]:
        calls = count(1)

        def save(self, *args):
            true(self, *args)
            if next(calls) == last:
                raise Stop

        return save

    with monkeypatch.context() as patch:
        patch.setattr(State, "save", lambda *args: (next(saves), true(*args))[1])
        whole = execute(run, tmp_path / "whole", HERE)
    assert whole["status"] == "done" and len(whole["outcome"]["notes"]) >= 1
    assert (whole["outcome"].get("faded", 0.5) < 1) and ("activity" in whole) == (name in ("gradual", "exchange"))
    total = next(saves) - 1
    assert total >= 2
    for last in range(1, total + 1):
        folder = tmp_path / str(last)
        with monkeypatch.context() as patch, pytest.raises(Stop):
            patch.setattr(State, "save", killed_after(last))
            execute(run, folder, HERE)
        cut = execute(run, folder, HERE)
        assert cut["outcome"] == whole["outcome"] and cut["outcome_sha256"] == whole["outcome_sha256"], last
        assert cut.get("activity") == whole.get("activity"), last


# Methods that never act.


@pytest.mark.parametrize("every", [1, 2, 3, 5, 8, 13])
def test_idle_is_what_no_step_does(every):
    """Against all steps of short trainings."""
    for first, total, until in product((0, 1, 4, 9), (1, 2, 3, 7, 10, 12), (0.1, 0.3, 0.5, 0.75, 1.0)):
        if first < total:
            exchange = DropAndGrow(lambda *_: torch.zeros(1), every, 0.5, 0.0, until, False)
            acts = any(exchange.due(step, total) for step in range(first, total))
            assert (exchange.idle(first, total) == "") == acts
            gradual = Gradual(magnitude, every, 0.0, until)
            shares = {gradual.share(step, total) for step in range(first, total) if gradual.due(step, total)}
            assert (gradual.idle(first, total) == "") == any(0 < share < 1 for share in shares)
            for update in (exchange, gradual):
                most = re.search(r"from 1 to (\d+) steps", update.idle(first, total))
                valid = range(1, int(most[1]) + 1) if most else []
                assert all(not replace(update, every=other).idle(first, total) for other in valid)


NEVER = {"rigl": 9, "set": 12, "gmp": 9, "rigl-itop": 4000, "set-itop": 1500}


@pytest.mark.parametrize("name", NEVER)
def test_an_interval_that_exceeds_the_training_is_refused(tmp_path, name):
    """Twelve steps; exchanges of `rigl` and pruning of `gmp` end at the ninth."""
    run = tiny_run(name, options=methods.get(name).check_options({"every": NEVER[name]}, "here"))
    words = f"method {name}: .* in a training of 12 steps, .* every {NEVER[name]} steps .* from 1 to .* is valid"
    with pytest.raises(BadInput, match=f"digits: {words}"):
        execute(run, tmp_path, HERE)
    assert not list(tmp_path.iterdir())
    axes = {"datasets": "digits", "sparsities": "0.9", "recipe": RECIPE.model_dump()}
    with pytest.raises(BadInput, match=f"experiment x: {words}"):
        Experiment.from_config({**axes, "methods": {"name": name, "every": NEVER[name]}}, "x")
    Experiment.from_config({**axes, "methods": {"name": name, "every": 4}}, "x")


def test_where_the_number_of_images_is_not_known_the_run_refuses():
    """ImageNet may be a part of it: nothing is said when it is planned."""
    run = Run(dataset="imagenet", model="resnet18", method="rigl", sparsity="0.9", recipe=Recipe(epochs=1))
    methods.get("rigl").check_run(run, "here")
    with pytest.raises(BadInput, match="imagenet: method rigl: no coefficients would be exchanged"):
        methods.get("rigl").check_run(run, "imagenet", 50)


def test_a_run_whose_update_changed_no_mask_is_not_done(tmp_path):
    """Half of a hundredth of 22 coefficients is none."""
    run = tiny_run("rigl", options={"every": 2, "fraction": 0.01})
    record = execute(run, tmp_path, HERE)
    assert record["status"] == "impossible" and record["reason"].startswith("method rigl changed no mask")
    assert record["activity"] == {"mask_updates": 0, "coefficients_removed": 0} and record["outcome"] == {}


def test_records_count_the_steps_that_changed_masks(tmp_path):
    record = execute(tiny_run("gmp", options={"every": 2}), tmp_path, HERE)
    assert record["activity"] == {"mask_updates": 5, "coefficients_removed": 224 - 22}  # steps 2, 4, 6, 8, 9
    assert json.loads(record_path(tmp_path, tiny_run("gmp", options={"every": 2})).read_text())["activity"]
    assert not any("activity" in key or "mask_updates" in key for key in record["outcome"])
    plain = execute(tiny_run("random"), tmp_path, HERE)
    assert "activity" not in plain and not state_path(tmp_path, tiny_run("random")).exists()
