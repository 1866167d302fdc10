"""Freezing: what is not trained stays at its seeded value, or fades by weight decay alone."""

from __future__ import annotations

import pytest
import torch

from ipbench.models.build import build
from ipbench.planning.experiment import Experiment
from ipbench.runs.environment import Environment
from ipbench.runs.execute import execute
from ipbench.runs.records import end_path
from ipbench.runs.state import read_end
from ipbench.spec import Basis, Recipe, Run
from ipbench.training.loop import Fading, learning_rate

RECIPE = Recipe(epochs=2, batch_size=100, train_examples=500, nesterov=True, weight_decay=0.01, lr=0.05)


def trained(folder, **values):
    """The end of a run, its initial weights built anew from the seed, and its record."""
    run = Run(**{"dataset": "digits", "model": "small-vgg", "recipe": RECIPE, "sparsity": "0.95", "seed": 7, **values})
    record = execute(run, folder, Environment(), keep=True)
    net = build(run.model, (1, 8, 8), 10, run.seed, run.recipe.init)
    start = {
        name: module.weight.detach()
        for name, module in net.named_modules()
        if getattr(module, "weight", None) is not None
    }
    return read_end(end_path(folder, run), run), start, record["outcome"]


def off_values(end, start):
    """Pairs (after training, initial value) of everything outside the masks."""
    for name, mask in end.masks.items():
        (value,) = (t for key, t in end.net.items() if key.startswith(f"net.{name}.") or key.startswith(f"{name}.")
                    if key.endswith(("weight", "original")) and t.shape == mask.shape)  # fmt: skip
        yield value[~mask], start[name][~mask]


@pytest.mark.parametrize("values", [{}, {"space": "ip", "basis": Basis(sharing="network")}], ids=["sp", "ip"])
def test_frozen_weights_are_the_seeds_bit_for_bit(tmp_path, values):
    end, start, outcome = trained(tmp_path, method="freezenet", off="frozen", **values)
    pairs = list(off_values(end, start))
    assert len(pairs) == 7 and all(torch.equal(after, before) for after, before in pairs)
    assert sum(len(after) for after, _ in pairs) == outcome["prunable"] - outcome["coefficients_kept"]


@pytest.mark.parametrize("nesterov", [False, True])
def test_fading_is_what_sgd_does_without_a_gradient(nesterov):
    recipe = Recipe(epochs=3, lr=0.1, weight_decay=0.02, nesterov=nesterov, warmup=1)
    weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    sgd = torch.optim.SGD(
        [weight], lr=1.0, momentum=recipe.momentum, weight_decay=recipe.weight_decay, nesterov=nesterov
    )
    fading = Fading(recipe, 10)
    for step in range(30):
        assert fading.at(step) == pytest.approx(weight.item(), rel=1e-13)
        sgd.param_groups[0]["lr"] = learning_rate(recipe, step, 10)
        weight.grad = torch.zeros_like(weight)
        sgd.step()
    assert Fading(recipe, 10).at(30) == pytest.approx(weight.item(), rel=1e-13)  # asked for at once
    assert fading.at(5) == Fading(recipe, 10).at(5)  # and backwards


def test_fading_at_the_published_setting():
    """lr 0.1, decay 5e-4, momentum 0.9: what is left after 1,000, 5,000, 10,000 and 25,000 steps."""
    fading = Fading(Recipe(epochs=30, schedule="constant"), 1000)
    assert [fading.at(step) for step in (1000, 5000, 10_000, 25_000)] == pytest.approx(
        [0.608, 0.081, 6.6e-3, 3.5e-6], rel=0.02
    )


def test_decayed_weights_are_the_seeds_times_a_known_factor(tmp_path):
    end, start, outcome = trained(tmp_path, method="freezenet", off="decayed")
    steps = 2 * (450 // 100)
    factor = Fading(RECIPE, 450 // 100).at(steps)
    assert 0.5 < factor < 1 and outcome["faded"] == factor
    for after, before in off_values(end, start):
        assert torch.equal(after, before * factor)


def test_freezenet_keeps_what_snip_keeps(tmp_path):
    """The same masks: the saliency is the same, only what happens to the rest differs."""
    ends = [trained(tmp_path, method=method, off=off)[0] for method, off in (("freezenet", "frozen"), ("snip", "zero"))]
    assert all(torch.equal(ends[0].masks[name], mask) for name, mask in ends[1].masks.items())


def test_freezenet_is_frozen_unless_told_otherwise():
    config = {"datasets": "digits", "sparsities": 0.9, "seeds": 1, "spaces": "sp"}
    runs = Experiment.from_config({**config, "methods": ["freezenet", "snip"], "off": "zero"}, "test").runs
    assert [(run.method, run.off) for run in runs] == [("freezenet", "frozen"), ("snip", "zero")]
    runs = Experiment.from_config(
        {**config, "methods": [{"name": "freezenet", "off": ["frozen", "decayed"]}]}, "t"
    ).runs
    assert [run.off for run in runs] == ["frozen", "decayed"]


@pytest.mark.parametrize(
    ("scheme", "variances"),
    [("kaiming", [2 / 25, 2 / 500, 2 / 800, 2 / 500]), ("xavier", [2 / 525, 2 / 1750, 2 / 1300, 2 / 510])],
)
def test_signed_initialisations_have_one_size_per_layer(scheme, variances):
    """The signs of the normal draws of the same seed, times their standard deviation (fans of LeNet-5 by hand)."""
    signed = build("lenet5-caffe", (1, 28, 28), 10, 3, f"signed_{scheme}")
    normal = build("lenet5-caffe", (1, 28, 28), 10, 3, f"{scheme}_normal")
    pairs = zip(signed.named_parameters(), normal.named_parameters(), strict=True)
    weights = [(one, other) for (name, one), (_, other) in pairs if name.endswith("weight")]
    for (one, other), variance in zip(weights, variances, strict=True):
        assert torch.equal(one.sign(), other.sign())
        assert one.abs().min().item() == one.abs().max().item() == pytest.approx(variance**0.5)
