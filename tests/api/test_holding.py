"""What is masked stays as it is, whatever trains the net: bit for bit."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import ipbench
from tests.api.nets import BATCH, IMAGES, LABELS, fit, held, moved, values
from tests.tiny import tiny_stack

OPTIMISERS = {
    "adamw": partial(torch.optim.AdamW, lr=0.01, weight_decay=0.5),
    "sgd": partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "rmsprop": partial(torch.optim.RMSprop, lr=0.01, momentum=0.9, weight_decay=0.1, centered=True),
    "adagrad": partial(torch.optim.Adagrad, lr=0.05, weight_decay=0.1),
}


def pruned(space: str = "sp", off: str = "zero", **more) -> ipbench.Pruned:
    return ipbench.prune(tiny_stack(), "snip", 0.6, space=space, off=off, batch=BATCH, **more)


@pytest.mark.parametrize("space", ["sp", "ip"])
@pytest.mark.parametrize("off", ["zero", "frozen"])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_optimisers_with_momentum_and_decay(name, off, space):
    net = pruned(space, off)
    before = values(net)
    assert off == "zero" or all(before[layer][~mask].any() for layer, mask in net.masks.items() if not mask.all())
    fit(net, OPTIMISERS[name](net.parameters()))
    assert held(net, before) and moved(net, before)


def test_without_the_hook_behind_steps_decay_would_move_frozen_coefficients(monkeypatch):
    net = pruned(off="frozen")
    monkeypatch.setattr(ipbench.Pruned, "restore", lambda self: None)
    before = values(net)
    fit(net, OPTIMISERS["sgd"](net.parameters()))
    assert not held(net, before)


def test_gradients_and_moments_know_nothing_of_what_is_masked():
    net = pruned()
    optimiser = OPTIMISERS["adamw"](net.parameters())
    functional.cross_entropy(net(IMAGES), LABELS).backward()
    for name, c in net.masked.coefficients.items():
        assert not c.grad[~net.masks[name]].any()
        assert c.grad.any() == net.masks[name].any()
    optimiser.step()
    for name, c in net.masked.coefficients.items():
        assert not optimiser.state[c]["exp_avg"][~net.masks[name]].any()


def test_accumulated_gradients_are_those_of_the_whole_batch():
    whole, parts = pruned(), pruned()
    for net, pieces in ((whole, 1), (parts, 3)):
        net.eval()
        for images, labels in zip(IMAGES.chunk(pieces), LABELS.chunk(pieces), strict=True):
            (functional.cross_entropy(net(images), labels) / pieces).backward()
    for (name, one), two in zip(whole.masked.coefficients.items(), parts.masked.coefficients.values(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)
        assert not two.grad[~parts.masks[name]].any()


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("space", ["sp", "ip"])
def test_mixed_precision_with_a_scaler(space, kind):
    net = pruned(space, "frozen")
    before, optimiser = values(net), OPTIMISERS["adamw"](net.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for _ in range(3):
        optimiser.zero_grad()
        with torch.autocast("cpu", kind):
            loss = functional.cross_entropy(net(IMAGES), LABELS)
        scaler.scale(loss).backward()
        scaler.step(optimiser)
        scaler.update()
    assert held(net, before) and moved(net, before)


def test_an_overflow_in_what_is_masked_is_none():
    net = ipbench.prune(nn.Linear(2, 2, bias=False), "magnitude", 0.5)
    (c,), (mask,) = net.masked.coefficients.values(), net.masks.values()
    (c * torch.where(mask, 1.0, torch.inf)).sum().backward()
    assert torch.equal(c.grad, mask.float())


def test_averages_of_weights():
    net = pruned("ip")
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    optimiser = OPTIMISERS["sgd"](net.parameters())
    for _ in range(3):
        fit(net, optimiser, 1)
        average.update_parameters(net)
    assert held(average.module, values(net)) and moved(average.module, values(net))
    assert torch.equal(average.module.plain().eval()(IMAGES), average.eval()(IMAGES))


def test_copies_are_held_as_the_net_is():
    twin = copy.deepcopy(pruned(off="frozen"))
    before = values(twin)
    fit(twin, OPTIMISERS["sgd"](twin.parameters()))
    assert held(twin, before) and moved(twin, before)
    functional.cross_entropy(twin(IMAGES), LABELS).backward()
    assert not any(c.grad[~twin.masks[name]].any() for name, c in twin.masked.coefficients.items())


def test_norms_biases_and_readers_of_channels_that_are_gone():
    net = ipbench.prune(tiny_stack(), "snip", 0.5, pattern="channels", batch=BATCH)
    small = sum(parameter.numel() for parameter in net.slice().parameters())
    assert net._others and small < sum(parameter.numel() for parameter in tiny_stack().parameters())
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    with torch.no_grad():
        for parameter, _ in net._others:
            parameter += 1
    fit(net, optimiser)
    assert all(not parameter[~stays].any() and parameter[stays].any() for parameter, stays in net._others)
    net.eval()
    torch.testing.assert_close(net.slice()(IMAGES), net(IMAGES))


@pytest.mark.parametrize("space", ["sp", "ip"])
def test_compiled(space):
    net = pruned(space)
    before = values(net)
    expected = net(IMAGES)
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(IMAGES), expected)
    fit(compiled, OPTIMISERS["adamw"](compiled.parameters()))
    assert held(net, before) and moved(net, before)


def test_an_optimiser_of_another_net_touches_nothing(monkeypatch):
    net, other = pruned(), nn.Linear(2, 2)
    monkeypatch.setattr(ipbench.Pruned, "restore", lambda self: pytest.fail("restored"))
    other(torch.ones(1, 2)).sum().backward()
    torch.optim.SGD(other.parameters(), lr=0.1).step()
    assert net.step == 0


def test_groups_for_an_optimiser():
    net = pruned("ip", basis={"lr": 0.5})
    rest, bases = net.parameter_groups(lr=0.1, weight_decay=0.01)
    assert (rest["lr"], rest["weight_decay"], bases["lr"], bases["weight_decay"]) == (0.1, 0.01, 0.05, 0.0)
    assert {id(b) for b in bases["params"]} == {id(basis.matrix) for basis in net.masked.bases.values()}
    assert len(rest["params"]) + len(bases["params"]) == len(list(net.parameters()))
    (only,) = pruned().parameter_groups(0.1, 0.0)
    assert len(only["params"]) == len(list(pruned().parameters()))
