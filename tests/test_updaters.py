"""Updaters of a user's method file: what they do, and what a resume restores."""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ipbench import methods
from ipbench.errors import BadInput
from ipbench.machine.stopping import Stopped
from ipbench.methods import Prune, Train, Updater, method
from ipbench.methods.magnitude import magnitude
from ipbench.runs import state as resume
from ipbench.runs.environment import Environment
from ipbench.runs.execute import execute
from ipbench.runs.records import end_path
from ipbench.runs.state import State, read_end
from ipbench.sparse.net import SparseNet
from ipbench.sparse.view import TrainedView, sparse_net
from ipbench.spec import Recipe, Run
from ipbench.training import loop
from ipbench.training.updates import Hooks
from tests.tiny import TinyData, hooks_of, make_run, tiny_conv

#: Four steps an epoch, twelve in all.
RECIPE = Recipe(epochs=3, batch_size=20, lr=0.05, schedule="constant", train_examples=100, validation=0.2)
HERE = Environment()
METHOD_FILE = Path(__file__).with_name("own_updaters.py")


@pytest.fixture
def own(tiny_model: None) -> None:
    """The methods of the file, on a tiny net of 224 weights."""

    import sys

    for label in [label for label in sys.modules if label.startswith("ipbench_method_")]:
        del sys.modules[label]
    methods.load([METHOD_FILE])


def tiny_run(method: str, **values: Any) -> Run:
    return Run(
        **{"dataset": "digits", "model": "small-vgg", "method": method, "recipe": RECIPE, "sparsity": "0.5", **values}
    )


OWN = {
    "penalised": {"sparsity": "0"},
    "soft": {},
    "growing": {"space": "ip", "sparsity": "0.2"},
    "mean": {"off": "frozen"},
    "rounds": {},
    "taking": {},
}


# What hooks do.


@pytest.mark.usefixtures("own")
def test_a_penalty_is_a_decay(tmp_path):
    """Half of 0.1 times the squares pulls as a weight decay of 0.1 on coefficients, and on nothing else."""
    recipe = RECIPE.model_copy(update={"weight_decay": 0.0})
    run = tiny_run("penalised", sparsity="0", recipe=recipe)
    record = execute(run, tmp_path, HERE, keep=True)
    assert record["status"] == "done" and "activity" not in record
    found = read_end(end_path(tmp_path, run), run)

    class Decayed(Updater):
        def decay(self, net):
            assert net.weight_decay == 0.0
            return {name: torch.full((), 0.1) for name in net.names}

    @method(paper="Nobody, 2026")
    def decayed():
        return [Train(Decayed.spec())]

    other = tiny_run("decayed", sparsity="0", recipe=recipe)
    execute(other, tmp_path, HERE, keep=True)
    plain = tiny_run("dense", sparsity="0", recipe=recipe)
    outcome = execute(plain, tmp_path, HERE, keep=True)["outcome"]
    expected, unlike = (read_end(end_path(tmp_path, r), r) for r in (other, plain))
    for name, tensor in found.net.items():
        assert torch.allclose(tensor, expected.net[name], atol=1e-5), name
    assert not torch.allclose(found.net["0.weight"], unlike.net["0.weight"], atol=1e-2)
    # The loss of the record is the task's: of the first epoch, before much has moved, nearly that without a penalty.
    losses = [curves["train_loss"][0] for curves in (record["outcome"]["curves"], outcome["curves"])]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


@pytest.mark.usefixtures("own")
def test_a_projection_comes_before_the_evaluation(tmp_path, monkeypatch):
    """Half of each layer is zero whenever the validation part is evaluated, and not while steps are taken."""
    zeros = []
    true = loop.evaluate

    def evaluate(net, *given):
        zeros.append([int((c == 0).sum()) for c in net.coefficients.values()])
        return true(net, *given)

    monkeypatch.setattr(loop, "evaluate", evaluate)
    record = execute(tiny_run("soft"), tmp_path, HERE)
    assert zeros == [[c // 2 for c in (36, 108, 30, 50)]] * 3
    assert record["outcome"]["notes"] == {"epochs": 3} and record["outcome"]["coefficients_kept"] == 112
    assert record["outcome"]["selected_epoch"] == 3  # the net at the end: it was pruned after the training


@pytest.mark.usefixtures("own")
def test_a_net_is_taken_back_after_an_evaluation(tmp_path, monkeypatch):
    """With its masks, values and statistics, without momentum; and what is selected is the net as it is then."""
    nets, true, momenta = [], loop.evaluate, []

    def evaluate(net, *given):
        nets.append(({name: tensor.clone() for name, tensor in net.tensors().items()}, dict(net.masks)))
        return true(net, *given)

    true_after = Hooks.after_evaluation

    def after(hooks, epoch, accuracy, momentum):
        found = true_after(hooks, epoch, accuracy, momentum)
        momenta.append(max(float(buffer.abs().max()) for buffer in momentum.values()))
        assert found == (epoch > 0)
        return found

    monkeypatch.setattr(loop, "evaluate", evaluate)
    monkeypatch.setattr(Hooks, "after_evaluation", after)
    run = tiny_run("taking")
    record = execute(run, tmp_path, HERE, keep=True)
    end, outcome = read_end(end_path(tmp_path, run), run), record["outcome"]
    for name, tensor in nets[0][0].items():
        assert torch.equal(end.net[name], tensor), name
    assert all(torch.equal(end.masks[name], mask) for name, mask in nets[0][1].items())
    assert sum(int(mask.sum()) for mask in nets[2][1].values()) == 56 and outcome["coefficients_kept"] == 112
    assert momenta[0] > 0 and momenta[1] > 0 and momenta[2] == 0
    curve = outcome["curves"]["validation_accuracy"]
    assert outcome["notes"] == {**{f"epoch {n}": value for n, value in enumerate(curve)}, "seen": sum(curve)}
    assert outcome["selected_epoch"] == 3 and outcome["validation_accuracy"] == curve[0]
    assert outcome["test_accuracy"] == outcome["test_accuracy_selected"]


@pytest.mark.usefixtures("own")
def test_what_decides_by_an_accuracy_needs_one(tmp_path):
    """Refused at planning; and where the share that is held out is no image."""
    recipe = RECIPE.model_copy(update={"validation": 0.0})
    run = tiny_run("taking", recipe=recipe)
    for refused in (lambda: methods.get("taking").check_run(run, "here"), lambda: execute(run, tmp_path, HERE)):
        with pytest.raises(BadInput, match="method taking: decides by the validation accuracy") as caught:
            refused()
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.json"))
    net = SparseNet(tiny_conv(), make_run(), (2, 6, 6))
    hooks = hooks_of(net, methods.get("taking").stages({})[1].update, 10)
    with pytest.raises(BadInput, match="needs a validation accuracy, and no image is held out"):
        hooks.after_evaluation(0, float("nan"), {})


def test_a_net_that_is_not_kept_cannot_be_taken_back():
    view = TrainedView(SparseNet(tiny_conv(), make_run(), (2, 6, 6)), 0.0)
    view.remember("a")
    view.forget("a")
    with pytest.raises(BadInput, match=r"net.recall: no net is kept under 'a'"):
        view.recall("a")


@pytest.mark.usefixtures("own")
def test_a_training_ends_when_its_updater_is_done(tmp_path):
    """0.01 a step reaches 0.055 at the sixth of twelve, in the second epoch of four steps."""
    ends = {}
    for options in ({}, {"limit": 1.0}):
        run = tiny_run("growing", options=options)
        record = execute(run, tmp_path, HERE, keep=True)
        ends[str(options)] = record["outcome"]
        assert record["status"] == "done" and record["outcome"]["coefficients_kept"] == 112
    assert len(ends["{}"]["curves"]["train_loss"]) == 1  # of the last training
    macs = ends["{}"]["macs_dense"]
    assert [end["training_flops"] for end in ends.values()] == [6 * macs * 20 * steps for steps in (8 + 4, 12 + 4)]


def test_decay_of_single_coefficients_by_hand():
    """c' = c - lr (g + d c), with d by coefficient; layers that are not named have the recipe's."""
    net = SparseNet(tiny_conv(), make_run(), (2, 6, 6))
    before = {name: c.detach().clone() for name, c in net.coefficients.items()}
    for c in net.coefficients.values():
        c.grad = torch.ones_like(c)
    decays = {"0": torch.arange(4.0).view(4, 1, 1, 1)}
    net.mask_gradients(0.5, decays)
    for name, c in net.coefficients.items():
        assert torch.equal(c.grad, 1 + before[name] * decays.get(name, 0.5)), name


class Never(Updater):
    settled = False


class Late(Updater):
    """Settled from the second epoch on."""

    def after_epoch(self, net, epoch):
        self.settled = epoch >= 1


def test_only_a_settled_epoch_is_selected():
    for kind, expected in ((Never, set()), (Late, {2, 3})):
        net = SparseNet(tiny_conv(), make_run(method="dense", sparsity="0", recipe=RECIPE), (2, 6, 6))
        progress = loop.Progress()
        hooks = hooks_of(net, kind.spec(), 9, 3)
        hooks.updater.settled = False
        loop.train(net, TinyData(), RECIPE, progress, hooks=hooks)
        assert progress.best_epoch in (expected or {0}) and bool(progress.best) == bool(expected)


def declare(*stages: methods.Stage) -> str:
    @method(paper="Nobody, 2026")
    def mine():
        return list(stages)

    methods.get("mine").check("here")
    return "mine"


class Shrinks(Updater):
    def after_epoch(self, net, epoch):
        net.prune({name: mask & (net.uniform(name) < 0.4) for name, mask in net.masks.items()})


class Prunes(Shrinks):
    masks = "pruned"


@pytest.mark.usefixtures("own")
def test_masks_change_only_where_an_updater_says_so(tmp_path):
    once = Prune(magnitude, "magnitude")
    with pytest.raises(BadInput, match='updater Shrinks changes masks, which its attribute `masks` must tell: "exch'):
        execute(tiny_run(declare(once, Train(Shrinks.spec()))), tmp_path / "stays", HERE)
    record = execute(tiny_run(declare(Train(Prunes.spec()))), tmp_path, HERE)
    outcome = record["outcome"]
    assert record["activity"]["mask_updates"] == 1  # the same keyed numbers after every epoch
    assert record["activity"]["coefficients_removed"] == 224 - outcome["coefficients_kept"] > 112
    assert outcome["selected_epoch"] >= 1
    with pytest.raises(BadInput, match="exchanges coefficients of a net that it does not prune"):

        class Exchanges(Shrinks):
            masks = "exchanged"

        declare(Train(Exchanges.spec()))


def bad(hook: str, value: Any, **more: Any) -> type[Updater]:
    return type("Bad", (Updater,), {hook: lambda *_: value, **more})


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (bad("penalty", 3), r"Bad.penalty must return a scalar tensor or None, not int"),
        (bad("penalty", torch.ones(2)), r"must return a scalar tensor or None, not a tensor of shape \(2,\)"),
        (bad("after_backward", None), r"Bad.after_backward must return True"),
        (bad("decay", {"x": torch.ones(1)}), r"Bad.decay: what it returns for layer x does not fit"),
        (bad("decay", {"0": torch.ones(7)}), r"Bad.decay: what it returns for layer 0 does not fit"),
        (bad("decay", [1]), r"Bad.decay must return a dict of tensors by layer or None, not \[1\]"),
        (bad("gates", None), r"Bad.gates must return a context, not None"),
        (bad("tensors", [1]), r"Bad.tensors must return a dict of tensors and numbers, not \[1\]"),
        (bad("tensors", {"a": [1]}), r"'a' is \[1\]; tensors and plain numbers by name can be remembered"),
        (bad("tensors", {"a": 2**70}), r"'a' is 1180591620717411303424: whole numbers of at most 64 bits"),
    ],
)
def test_what_is_no_hook_is_one_line(tmp_path, monkeypatch, kind, message):
    monkeypatch.setattr(resume, "SECONDS_BETWEEN_STATES", 0.0)
    with pytest.raises(BadInput, match=message) as error:
        execute(tiny_run(declare(Train(kind.spec()), Prune(magnitude, "magnitude"))), tmp_path, HERE)
    assert "\n" not in str(error.value)


def test_what_is_no_update_is_refused_when_it_is_declared():
    class Takes(Updater):
        def __init__(self, net, steps, *, rate):
            pass

    with pytest.raises(ValueError, match="updater Takes: missing a required argument: 'rate'"):
        Takes.spec()
    with pytest.raises(ValueError, match="Train takes an update"):
        Train(Takes)  # type: ignore[arg-type]
    assert str(Train(Takes.spec(rate=2), until="done")) == "train (until done) with Takes (rate 2)"


@pytest.mark.usefixtures("own")
def test_decay_of_single_coefficients_has_no_meaning_where_masked_ones_decay(tmp_path):
    with pytest.raises(BadInput, match="Growing sets the weight decay of single coefficients, so that off: decayed"):
        execute(tiny_run("growing", off="decayed"), tmp_path, HERE)


def test_flops_are_those_of_the_net_as_it_then_was():
    """Three epochs of three steps of 8 images; after the first one the net has a tenth of its work."""

    class Smaller(Updater):
        def after_epoch(self, net, epoch):
            whole = sparse_net(net)
            whole._now = SimpleNamespace(macs=whole.counted.macs // 10)

    net = SparseNet(tiny_conv(), make_run(method="dense", sparsity="0"), (2, 6, 6))
    macs, progress = net.counted.macs, loop.Progress()
    recipe = RECIPE.model_copy(update={"batch_size": 8})
    loop.train(net, TinyData(), recipe, progress, hooks=hooks_of(net, Smaller.spec(), 9, 3))
    assert progress.flops == 6 * 3 * 8 * (macs + 2 * (macs // 10))


class Gated(Updater):
    """A gate of 1 on every channel of the first layer for each image; sums the squares of their gradients."""

    def __init__(self, net, steps):
        self.layer, self.score = sparse_net(net).net[0], torch.zeros(net.shapes["0"][0])

    @contextmanager
    def gates(self, batch):
        self.gate = torch.ones(len(batch.images), len(self.score), 1, 1, requires_grad=True)
        hook = self.layer.register_forward_hook(lambda module, inputs, output: output * self.gate)
        try:
            yield
        finally:
            hook.remove()

    def after_backward(self, net, batch, step):
        self.score += self.gate.grad.flatten(1).square().sum(0)
        return True


def test_gates_of_single_images_are_around_forward_and_backward_pass():
    """A gate's gradient is the sum over a channel of activation times gradient; the net trains as without gates."""
    nets = [SparseNet(tiny_conv(), make_run(method="dense", sparsity="0"), (2, 6, 6)) for _ in range(2)]
    data = TinyData(batches=1)
    recipe = RECIPE.model_copy(update={"epochs": 1})
    activations: list[torch.Tensor] = []

    def keep(module, inputs, output):
        output.retain_grad()
        activations.append(output)

    hooks = hooks_of(nets[0], Gated.spec(), 1)
    loop.train(nets[0], data, recipe, loop.Progress(), hooks=hooks)
    handle = nets[1].net[0].register_forward_hook(keep)
    first = data.batches[0]
    nets[1].train()
    torch.nn.functional.cross_entropy(nets[1](first.images), first.labels).backward()
    handle.remove()
    expected = (activations[0] * activations[0].grad).sum((2, 3)).square().sum(0)
    assert isinstance(hooks.updater, Gated) and bool(expected.any())
    assert torch.allclose(hooks.updater.score, expected.detach(), rtol=1e-4)
    assert not nets[0].net[0]._forward_hooks
    plain = SparseNet(tiny_conv(), make_run(method="dense", sparsity="0"), (2, 6, 6))
    loop.train(plain, data, recipe, loop.Progress())
    assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters(), plain.parameters(), strict=True))


# The recipe of a training.


def recipe_of(**values: Any) -> Recipe:
    return Train(recipe=values).recipe_of(RECIPE.model_copy(update={"warmup": 3.0}))


def test_a_training_changes_values_of_the_recipe():
    assert recipe_of(weight_decay=0.0).weight_decay == 0.0
    assert recipe_of(epochs=2).warmup == 2.0 and recipe_of(epochs=5).epochs == 5
    assert recipe_of(augmentation={"flip": True}).augmentation.flip
    assert Train(recipe={"lr": 1.0}, lr=0.5).recipe_of(RECIPE).lr == 0.5
    with pytest.raises(BadInput, match="unknown key 'wd' in recipe of a training"):
        recipe_of(wd=0.0)
    with pytest.raises(ValueError, match="cannot change validation, which is decided for the whole run"):
        recipe_of(validation=0.5)
    with pytest.raises(ValueError, match="the length of a training is said twice"):
        Train(epochs=2, recipe={"epochs": 3})


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (Train(recipe={"momentum": 2.0}), "method mine: recipe of a training: momentum: input should be less than 1"),
        (Train(recipe={"batch_size": 5000}), "digits: batch_size is 5000, but the training part has only 80 images"),
        (Train(Never.spec(), until="done", recipe={"schedule": "cosine"}), "constant schedule, not cosine"),
    ],
)  # fmt: skip
def test_planning_refuses_the_recipe_of_a_training(stage, message):
    run = tiny_run(declare(stage), sparsity="0")
    with pytest.raises(BadInput, match=message) as error:
        methods.get("mine").check_run(run, "here")
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("own")
def test_a_training_with_other_batches_counts_its_own_images(tmp_path):
    """Twelve steps of 20 images, then two epochs of two steps of 40: what was held out stays."""
    run = tiny_run(declare(Train(), Train(epochs=2, recipe={"batch_size": 40, "weight_decay": 0.0})), sparsity="0")
    outcome = execute(run, tmp_path, HERE)["outcome"]
    assert outcome["training_flops"] == 6 * outcome["macs_dense"] * (12 * 20 + 4 * 40)
    assert len(outcome["curves"]["train_loss"]) == 2


# Resuming.


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("name", OWN)
def test_stopped_anywhere_it_goes_on_bit_for_bit(tmp_path, monkeypatch, name):
    """Stopped before every third step; killed after every state that is written."""
    run = tiny_run(name, **OWN[name])
    monkeypatch.setattr(resume, "SECONDS_BETWEEN_STATES", 0.0)
    counts = {"step": 0, "save": 0}
    true_asked, true_save = loop._asked_to_stop, State.save

    def at(kind: str, wanted: int) -> bool:
        counts[kind] += 1
        return counts[kind] == wanted

    def execute_stopped(folder: Path, step: int = 0, save: int = 0) -> dict[str, Any] | None:
        counts.update(step=0, save=0)

        def saving(self, *given):
            true_save(self, *given)
            if at("save", save):
                raise Stopped

        with monkeypatch.context() as patch:
            patch.setattr(loop, "_asked_to_stop", lambda *given: at("step", step) or true_asked(*given))
            patch.setattr(State, "save", saving)
            try:
                return execute(run, folder, HERE)
            except Stopped:
                return None

    whole = execute_stopped(tmp_path / "whole")
    assert whole and whole["status"] == "done"
    steps, saves = counts["step"], counts["save"]
    assert steps >= 12 and saves >= 3
    places = [{"step": n} for n in range(2, steps, 3)] + [{"save": n} for n in range(1, saves)]
    for number, place in enumerate(places):
        folder = tmp_path / str(number)
        assert execute_stopped(folder, **place) is None
        cut = execute_stopped(folder)
        assert cut and cut["outcome"] == whole["outcome"] and cut.get("activity") == whole.get("activity"), place


@pytest.mark.usefixtures("own")
def test_what_a_score_remembers_is_of_its_run_alone(tmp_path):
    """Two runs of other seeds one after the other: each counts its own rounds, and begins with nothing."""
    runs = [tiny_run("rounds", seed=seed) for seed in (0, 1, 0)]
    notes = [execute(run, tmp_path / str(place), HERE)["outcome"]["notes"] for place, run in enumerate(runs)]
    assert all(list(found) == [f"round {n}" for n in (1, 2, 3, 4)] for found in notes)
    assert notes[0] == notes[2] != notes[1]


@pytest.mark.usefixtures("own")
def test_the_updater_of_the_documentation(tmp_path):
    """It is what it says: the training ends with the epoch in which the limit is reached."""
    text = (Path(__file__).parents[1] / "docs" / "adding-a-method.md").read_text()
    (block,) = (part for part in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "class GrowDecay" in part)
    (tmp_path / "documented.py").write_text(block.replace("def growing", "def documented"))
    assert list(methods.load([tmp_path / "documented.py"]).values()) == [["documented"]]
    recipe = RECIPE.model_copy(update={"schedule": "cosine", "epochs": 4})
    run = tiny_run("documented", recipe=recipe, options={"rise": 0.01, "limit": 0.055})
    outcome = execute(run, tmp_path, HERE)["outcome"]
    assert outcome["training_flops"] == 6 * outcome["macs_dense"] * 20 * (8 + 16)


# What a beginning does.


class Anchored(Updater):
    """A penalty on the way from where the training began, which is not detached."""

    def __init__(self, net, steps):
        self.begin = {name: c.clone() for name, c in net.coefficients.items()}

    def penalty(self, net):
        return 5.0 * sum(((c - self.begin[name]) ** 2).sum() for name, c in net.coefficients.items())

    def tensors(self):
        return self.begin

    def load(self, tensors):
        self.begin = tensors


class Halves(Updater):
    """Halves all coefficients, and prunes, before the first step; counts how often."""

    masks = "pruned"

    def __init__(self, net, steps):
        net.state["begun"] = net.state.get("begun", 0) + 1
        net.notes["begun"] = net.state["begun"]
        for c in net.coefficients.values():
            c.mul_(0.5)
        net.prune(net.select(net.magnitudes(), net.budget))


@pytest.mark.usefixtures("own")
def test_no_gradients_are_recorded_while_an_updater_begins(tmp_path):
    """Else the anchor would move with the net, and the penalty would have no gradient."""
    losses = [
        execute(tiny_run(declare(Train(), second), sparsity="0"), tmp_path / str(second), HERE)["outcome"]["train_loss"]
        for second in (Train(), Train(Anchored.spec()))
    ]
    assert abs(losses[1] - losses[0]) > 1e-3  # by rounding alone they would differ, too


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(("kind", "sparsity"), [(Anchored, "0"), (Halves, "0.5")])
def test_a_beginning_happens_once_however_often_it_is_resumed(tmp_path, monkeypatch, kind, sparsity):
    run = tiny_run(declare(Train(kind.spec())), sparsity=sparsity)
    whole = execute(run, tmp_path / "whole", HERE)
    if kind is Halves:
        assert whole["status"] == "done" and whole["outcome"]["notes"] == {"begun": 1}
        assert whole["activity"] == {"mask_updates": 1, "coefficients_removed": 112}
    calls = []
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_asked_to_stop", lambda *given: calls.append(0) or len(calls) in (6, 9))
        for _ in range(2):
            with pytest.raises(Stopped):
                execute(run, tmp_path, HERE)
    cut = execute(run, tmp_path, HERE)
    assert cut["outcome"] == whole["outcome"] and cut.get("activity") == whole.get("activity")


@pytest.mark.usefixtures("own")
def test_masks_that_a_beginning_changes_are_seen(tmp_path):
    class Quiet(Halves):
        masks = "stay"

    with pytest.raises(BadInput, match="updater Quiet changes masks"):
        execute(tiny_run(declare(Train(Quiet.spec()), Prune(magnitude, "magnitude"))), tmp_path, HERE)


@pytest.mark.usefixtures("own")
def test_what_cannot_be_remembered_is_said_before_the_first_step(tmp_path, monkeypatch):
    """Not when a signal asks for a state, with hours of training behind."""
    monkeypatch.setattr(loop, "train_steps", lambda *given, **more: pytest.fail("trained"))
    run = tiny_run(declare(Train(bad("tensors", {"a": [1]}).spec()), Prune(magnitude, "magnitude")))
    with pytest.raises(BadInput, match=r"'a' is \[1\]"):
        execute(run, tmp_path, HERE)


@pytest.mark.usefixtures("own")
def test_a_training_that_never_settles_is_one_line(tmp_path):
    run = tiny_run(declare(Prune(magnitude, "magnitude"), Train(type("Never", (Updater,), {"settled": False}).spec())))
    with pytest.raises(BadInput, match="none of the 3 epochs of the last training was settled"):
        execute(run, tmp_path, HERE)


def test_an_unknown_use_of_masks_is_refused_when_it_is_declared():
    with pytest.raises(ValueError, match="updater Typo: masks is one of stay, exchanged, pruned, not 'prune'"):
        type("Typo", (Updater,), {"masks": "prune"}).spec()


@pytest.mark.usefixtures("own")
def test_what_is_remembered_keeps_no_graph(tmp_path):
    """A graph would keep the copy of the net of every call."""
    graphs = []

    def remembered(net, batch):
        graphs.append(any(value.requires_grad for value in net.state.values()))
        for name, c in net.coefficients.items():
            net.state[name] = net.state.get(name, 0.0) * 0.5 + c.abs()
        return dict(net.state)

    execute(tiny_run(declare(Prune(remembered, "remembered", rounds=3), Train())), tmp_path, HERE)
    assert graphs == [False] * 3


@pytest.mark.usefixtures("own")
def test_notes_that_no_record_can_hold_are_one_line(tmp_path):
    def noting(net, batch):
        net.notes["mean"] = torch.ones(2)
        return net.magnitudes()

    with pytest.raises(BadInput, match=r"net.notes: 'mean' is tensor\(\[1., 1.\]\); plain numbers"):
        execute(tiny_run(declare(Prune(noting, "noting"), Train())), tmp_path, HERE)


@pytest.mark.parametrize(("name", "meant"), [("after_epochs", "after_epoch"), ("decays", "decay"), ("penalties", None)])
def test_what_is_nearly_a_hook_is_refused(name, meant):
    body = {name: lambda self, net: None, "settle_all": 1, "_after_epoch": 2}
    if meant is None:
        type("Mine", (Updater,), body)
        return
    with pytest.raises(ValueError, match=f"updater Mine: {name} is no hook .did you mean {meant}"):
        type("Mine", (Updater,), body)
