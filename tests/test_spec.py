"""Values and identities."""

from __future__ import annotations

import pytest

from ipbench.errors import BadInput
from ipbench.spec import Basis, Own, Recipe, Run, build
from tests.tiny import make_run


def test_what_is_no_users_says_nothing_of_users():
    run = Run(dataset="digits", model="small-vgg", method="snip", recipe=Recipe())
    assert "own" not in run.to_json() and "own" not in run.differences()
    own = run.model_copy(update={"own": Own(data="a" * 64)})
    assert Run.model_validate(own.to_json()) == own and own.id != run.id != own.cell


def test_an_identity_is_a_hash_of_what_differs_from_the_defaults():
    run = make_run()
    assert run.differences() == {"dataset": "digits", "model": "small-vgg", "method": "snip", "recipe": {"epochs": 2}}
    assert run.id == make_run(sparsity="0", seed=0, mode="strict", pattern="coefficients", budget="parameters").id
    assert run.id == "7631b7627d71"  # pinned: a new field with a default never renames an old run


def test_every_axis_is_in_the_identity_and_only_the_seed_is_not_in_the_cell():
    runs = [
        make_run(), make_run(seed=1), make_run(sparsity="0.5"), make_run(space="ip"), make_run(off="frozen"),
        make_run(allocation="erk"), make_run(options={"rounds": 2}), make_run(mode="fast"),
        make_run(space="ip", basis=Basis(lr=0.5)), make_run(recipe=Recipe(epochs=3)), make_run(pattern="filters"),
        make_run(pattern="channels"), make_run(pattern="channels", budget="macs"),
        make_run(pattern="1:2", sparsity=0.5),
    ]  # fmt: skip
    assert len({run.id for run in runs}) == len(runs)
    assert len({run.cell for run in runs}) == len(runs) - 1 and runs[0].cell == runs[1].cell


@pytest.mark.parametrize(
    ("written", "canonical"), [(0.9, "0.9"), ("0.90", "0.9"), (0, "0"), ("1e-2", "0.01"), (0.995, "0.995")]
)
def test_sparsity_is_canonical_text(written, canonical):
    run = make_run(sparsity=written)
    assert run.sparsity == canonical and 1 - run.density == run.density.__class__(canonical)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sparsity": 1}, "run: sparsity: a sparsity is a number from 0 up to, not including, 1 (got 1)"),
        ({"sparsity": "nan"}, "not including, 1 (got 'nan')"),
        ({"sparsity": True}, "not including, 1 (got True)"),
        ({"space": "xp"}, "run: space: input should be 'sp' or 'ip' (got 'xp')"),
        ({"seed": -1}, "run: seed: input should be greater than or equal to 0 (got -1)"),
        ({"seed": 1.0}, "run: seed: input should be a valid integer (got 1.0)"),
        ({"dataset": "../up"}, "run: dataset: not a name"),
        ({"sparcity": 0.9}, "unknown key 'sparcity' in run (did you mean 'sparsity'?); valid: allocation, basis"),
        ({"recipe": {"lr": float("nan")}}, "run: recipe.lr"),
        ({"recipe": {"epochs": 2, "warmup": 3}}, "warmup (3 epochs) is longer than the training (2 epochs)"),
        ({"recipe": {"augmentation": {"flop": 1}}}, "unknown key 'flop' in run: recipe.augmentation (did you mean"),
        ({"basis": {"lr": 2.0}}, "the filter basis belongs to space ip"),
        ({"pattern": "4:2"}, "run: pattern: a pattern is one of coefficients, filters, columns, channels, or N:M"),
        ({"pattern": "2:65"}, "with N below M and M up to 64 (got '2:65')"),
        ({"pattern": "\u0662:4"}, "run: pattern: a pattern is one of"),
        ({"pattern": True}, "run: pattern: a pattern is one of"),
        ({"budget": "flops"}, "run: budget: input should be 'parameters', 'macs' or 'channels' (got 'flops')"),
        ({"budget": "macs"}, "run: budget macs has no meaning for pattern coefficients, which removes no channels"),
        ({"pattern": "1:2", "sparsity": 0.5, "budget": "channels"}, "budget channels has no meaning for pattern 1:2"),
        ({"pattern": "columns", "budget": "macs"}, "budget macs has no meaning for pattern columns, which leaves"),
        ({"pattern": "filters", "budget": "macs", "off": "frozen"}, "budget macs needs off zero: what is frozen is"),
        ({"pattern": "filters", "allocation": "erk"}, "allocation erk is a rule for coefficients, not for pattern"),
        ({"pattern": "2:4", "sparsity": 0.5, "allocation": "uniform"}, "allocation uniform has no meaning for pattern"),
        ({"pattern": "2:4", "sparsity": 0.9}, "run: pattern 2:4 has sparsity 0.5, which is 1 - N/M, and no other one"),
        ({"pattern": "1:3", "sparsity": 0.667}, "run: pattern 1:3 has sparsity 0.666666666667, which is 1 - N/M"),
    ],
)  # fmt: skip
def test_bad_values_are_one_line(values, message):
    good = {"dataset": "digits", "model": "small-vgg", "method": "snip", "recipe": {}}
    with pytest.raises(BadInput) as error:
        build(Run, {**good, **values}, "run")
    assert message in str(error.value) and "\n" not in str(error.value)
