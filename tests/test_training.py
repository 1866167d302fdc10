"""The schedule and the step by hand; SGD against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from ipbench.sparse.net import SparseNet
from ipbench.spec import Recipe
from ipbench.training.loop import Sgd, learning_rate
from tests.tiny import make_run, tiny_conv


def test_step_schedule_by_hand():
    recipe = Recipe(epochs=4, lr=1.0, schedule="step", milestones=(0.5, 0.75), gamma=0.1)
    rates = [learning_rate(recipe, step, 2) for step in range(8)]
    assert rates == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_cosine_and_warmup_by_hand():
    recipe = Recipe(epochs=3, lr=1.0, schedule="cosine", warmup=1)
    rates = [learning_rate(recipe, step, 2) for step in range(6)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.5 + 0.5 * 0.5**0.5, 0.5, 0.5 - 0.5 * 0.5**0.5])
    constant = Recipe(epochs=3, lr=1.0, schedule="constant")
    assert {learning_rate(constant, step, 2) for step in range(6)} == {1.0}


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_torchs_own_bit_for_bit(nesterov, batch):
    """An unpruned net and the same net under torch.optim.SGD with its own weight decay."""
    recipe = Recipe(momentum=0.9, nesterov=nesterov, weight_decay=0.01)
    ours = SparseNet(tiny_conv(), make_run(recipe=recipe), (2, 6, 6))
    plain = tiny_conv()
    reference = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9, nesterov=nesterov, weight_decay=0.01)
    step = Sgd(ours, recipe, {})
    for rate in (0.1, 0.05, 0.2):
        reference.param_groups[0]["lr"] = rate
        reference.zero_grad()
        functional.cross_entropy(plain(batch.images), batch.labels).backward()
        reference.step()
        ours.zero_grad()
        functional.cross_entropy(ours(batch.images), batch.labels).backward()
        ours.mask_gradients(0.01)
        step.step(rate)
    twin = dict(ours.net.named_parameters())
    assert all(torch.equal(parameter, twin[name]) for name, parameter in plain.named_parameters())


def test_momentum_of_masked_coefficients_is_zero(batch):
    net = SparseNet(tiny_conv(), make_run(), (2, 6, 6))
    generator = torch.Generator().manual_seed(0)
    net.prune({name: torch.rand(mask.shape, generator=generator) < 0.5 for name, mask in net.masks.items()})
    step = Sgd(net, net.run.recipe, {})
    functional.cross_entropy(net(batch.images), batch.labels).backward()
    net.mask_gradients(0.1)
    step.step(0.1)
    names = {id(parameter): name for name, parameter in net.net.named_parameters()}
    for name, c in net.coefficients.items():
        buffer = step.momentum[names[id(c)]]
        assert float(buffer[~net.masks[name]].abs().sum()) == 0 < float(buffer.abs().sum())
