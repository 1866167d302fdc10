"""Runs that continue those of other methods: which run it is, what is shared, and what has no beginning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ipbench import methods
from ipbench.errors import BadInput
from ipbench.methods import Continue, Prune, Train, Updater, method
from ipbench.methods.magnitude import magnitude
from ipbench.planning.experiment import Experiment
from ipbench.runs.environment import Environment
from ipbench.runs.execute import execute
from ipbench.spec import Basis, Recipe, Run
from ipbench.store import read_json

RECIPE = Recipe(epochs=2, batch_size=20, lr=0.05, schedule="cosine", train_examples=100, validation=0.2)
ONCE = Prune(magnitude, "magnitude")
HERE = Environment()


def run_of(method: str, sparsity: str = "0.5", **values: Any) -> Run:
    return Run(dataset="digits", model="small-vgg", method=method, recipe=RECIPE, sparsity=sparsity, **values)


class Squares(Updater):
    """A penalty by the squares."""

    def __init__(self, net, steps, *, strength):
        self.strength = strength

    def penalty(self, net):
        return self.strength * sum(c.square().sum() for c in net.coefficients.values())


def declare(first: Continue, *rest: Any, name: str = "mine") -> str:
    @method(paper="Nobody, 2026", name=name)
    def mine():
        return [first, *(rest or (ONCE, Train()))]

    methods.get(name).check("here")
    return name


def penalised() -> None:
    @method(paper="Nobody, 2026", name="penalised")
    def trained(*, strength: float = 0.01):
        return [Train(Squares.spec(strength=strength))]

    methods.get("penalised").check("here")


def test_ids_of_what_ft_and_lt_continue():
    """What is published lies in folders of these names."""
    for name in ("ft", "lt"):
        run = run_of(name, "0.2", space="ip", basis=Basis(init="orthonormal"), off="frozen", allocation="erk", seed=4)
        dense = run_of("dense", "0", space="ip", basis=Basis(init="orthonormal"), seed=4)
        assert [parent.id for parent in methods.line(run)] == [dense.id]
    levels = methods.line(run_of("lt", "0.36", off="frozen"))
    assert [level.id for level in levels] == [run_of("lt", "0.2", off="frozen").id, run_of("dense", "0").id]


def test_another_method_is_continued_at_sparsity_zero_by_all_sparsities():
    """Its options that are its defaults are left out of the identity; its run knows nothing of how it is pruned."""
    penalised()
    declare(Continue(of="penalised", options={"strength": 0.01}))
    declare(Continue(of="penalised", options={"strength": 1}), name="strong")
    assert not methods.get("penalised").prunes and methods.get("mine").prunes
    parents = [methods.parent(run_of("mine", sparsity, off="frozen")) for sparsity in ("0.3", "0.5", "0.9")]
    assert parents == [run_of("penalised", "0")] * 3
    assert methods.parent(run_of("strong")) == run_of("penalised", "0", options={"strength": 1.0})


def test_at_the_same_or_a_given_sparsity():
    declare(Continue(of="snip", options={"rounds": 3}, sparsity="same"), Train())
    declare(Continue(of="snip", sparsity="0.50"), ONCE, Train(), name="half")
    run = run_of("mine", "0.7", off="frozen", allocation="uniform")
    assert methods.parent(run) == run.model_copy(update={"method": "snip", "options": {"rounds": 3}})
    run = run_of("half", "0.7", off="frozen")
    assert methods.parent(run) == run_of("snip", "0.5", off="frozen")


def test_levels_may_begin_at_another_method():
    penalised()
    declare(Continue(of="penalised", rate=0.5))
    line = [(run.method, run.sparsity) for run in methods.line(run_of("mine", "0.9"))]
    assert line == [("mine", "0.875"), ("mine", "0.75"), ("mine", "0.5"), ("penalised", "0")]


@pytest.mark.usefixtures("tiny_model")
def test_the_penalised_training_is_trained_once(tmp_path):
    """Two sparsities and one training before them, whose FLOPs both tell."""
    penalised()
    declare(Continue(of="penalised", options={"strength": 0.05}))
    records = [execute(run_of("mine", sparsity), tmp_path, HERE) for sparsity in ("0.5", "0.9")]
    found = [read_json(path) for path in (tmp_path / "runs").rglob("*.json")]
    assert sorted(record["run"]["method"] for record in found) == ["mine", "mine", "penalised"]
    macs = records[0]["outcome"]["macs_dense"]
    assert [record["outcome"]["training_flops"] for record in records] == [6 * macs * 20 * (8 + 8)] * 2
    assert [record["outcome"]["coefficients_kept"] for record in records] == [112, 22]


@pytest.mark.parametrize(
    "first",
    [Continue(of="mine"), Continue(of="mine", sparsity="same"), Continue(of="mine", sparsity="0.5"),
     Continue(of="mine", rate=0.5), Continue(of="other", sparsity="same")],
    ids=["zero", "same", "given", "levels", "by-way-of-another"],
)  # fmt: skip
@pytest.mark.parametrize("sparsity", ["0.5", "0.9"])
def test_a_line_without_a_beginning_is_refused(tmp_path, first, sparsity):
    declare(first)
    declare(Continue(of="mine", sparsity="same"), name="other")
    run = run_of("mine", sparsity)
    with pytest.raises(BadInput, match="here: method mine: has no beginning: a run at sparsity") as error:
        methods.get("mine").check_run(run, "here")
    assert "\n" not in str(error.value)
    with pytest.raises(BadInput, match="method mine: has no beginning"):
        execute(run, tmp_path, HERE)
    config = {"datasets": "digits", "methods": "mine", "sparsities": sparsity, "recipe": RECIPE.model_dump()}
    with pytest.raises(BadInput, match="method mine: has no beginning"):
        Experiment.from_config(config, "x")


def test_options_that_never_repeat_have_no_beginning_either():
    @method(paper="Nobody, 2026")
    def mine(*, x: int = 0):
        return [Continue(of="mine", options={"x": x + 1}), ONCE, Train()]

    with pytest.raises(BadInput, match="has no beginning"):
        methods.get("mine").check_run(run_of("mine"), "here")


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (Continue(of="snap"), "unknown method 'snap' in here: method mine: Continue"),
        (Continue(of="snip", options={"round": 2}), "unknown option of method snip 'round'"),
        (Continue(of="snip", options={"rounds": "x"}), "option rounds of method snip is of type int"),
        (Continue(options={"x": 1}), "option of method dense 'x'"),
        (Continue(of="penalised", sparsity="same"), "continues penalised at a sparsity of same, which does not prune"),
        (Continue(of="rigl", options={"every": 1000}, sparsity="same"), "Continue: method rigl: no coefficients would"),
    ],
)
def test_what_cannot_be_continued_is_one_line(first, message):
    penalised()
    declare(first)
    with pytest.raises(BadInput, match=message) as error:
        methods.get("mine").check_run(run_of("mine"), "here")
    assert str(error.value).startswith("here") or "here" in str(error.value)
    assert "\n" not in str(error.value)


def test_the_method_of_another_file_is_refused(tmp_path: Path):
    """A record tells the code of its own method alone."""
    for name, stages in (("one", "[Train()]"), ("two", "[Continue(of='one'), Prune(magnitude, 'm'), Train()]")):
        (tmp_path / f"{name}.py").write_text(
            "from ipbench.methods import Continue, Prune, Train, method\n"
            "from ipbench.methods.magnitude import magnitude\n\n\n"
            f"@method(paper='Nobody, 2026')\ndef {name}():\n    return {stages}\n"
        )
    methods.load([tmp_path / "one.py", tmp_path / "two.py"])
    with pytest.raises(BadInput, match=r"method two: continues one of another file, .*one\.py, whose code"):
        methods.get("two").check_run(run_of("two"), "here")


@pytest.mark.parametrize(
    ("given", "message"),
    [((0.2,), "Continue takes the name of a method, not 0.2; levels are"), (("dense", {}, 0.01), "rate is from 0.05"),
     (("dense", {}, 0.0, "1"), 'or "same", not \'1\''), (("dense", {}, 0.0, "half"), "'half' is not a number")],
)  # fmt: skip
def test_values_of_the_stage(given, message):
    with pytest.raises(ValueError, match=message):
        Continue(*given)
