"""Methods that change masks while a user trains: RigL, SET and gradual pruning, driven by the optimiser's steps."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

import ipbench
from tests.api.nets import BATCH, IMAGES, LABELS, fit, values
from tests.tiny import tiny_conv, tiny_stack


def begun(method: str = "rigl", space: str = "sp", **more) -> tuple[ipbench.Pruned, torch.optim.Optimizer]:
    net = ipbench.prune(tiny_stack(), method, 0.6, space=space, **{"steps": 12, "every": 3, **more})
    return net, torch.optim.AdamW(net.parameters(), lr=0.05, weight_decay=0.1)


@pytest.mark.parametrize("space", ["sp", "ip"])
@pytest.mark.parametrize("method", ["rigl", "set"])
def test_exchanges(method, space):
    net, optimiser = begun(method, space)
    kept = {name: int(mask.sum()) for name, mask in net.masks.items()}
    for step in range(12):
        masks, before = net.masks, values(net)
        bias = net.net[3].bias.detach().clone()
        fit(net, optimiser, 1)
        changed = any(not torch.equal(masks[name], mask) for name, mask in net.masks.items())
        due = step > 0 and step % 3 == 0 and (method == "set" or step < 9)  # until: 0.75 of the training
        assert changed == due
        assert torch.equal(net.net[3].bias, bias) == due  # at such a step no weight is trained
        for name, c in net.masked.coefficients.items():
            assert not c[~net.masks[name]].any()
            if due:
                stayed, new = masks[name] & net.masks[name], net.masks[name] & ~masks[name]
                assert torch.equal(c[stayed], before[name][stayed]) and not c[new].any()
                assert not optimiser.state[c]["exp_avg"][~stayed].any()
    assert {name: int(mask.sum()) for name, mask in net.masks.items()} == kept and net.step == 12


def test_rigl_grows_where_the_dense_gradient_is_largest():
    net, optimiser = begun()
    fit(net, optimiser, 3)
    twin = net.plain().train()
    functional.cross_entropy(twin(IMAGES), LABELS).backward()
    before = net.masks
    fit(net, optimiser, 1)
    for (name, mask), weight in zip(net.masks.items(), [twin[p].weight for p in (0, 3, 5, 9)], strict=True):
        grown, gradient = mask & ~before[name], weight.grad.abs()
        others = ~mask & ~before[name]
        if grown.any() and others.any():
            assert gradient[grown].min() >= gradient[others].max()


@pytest.mark.parametrize("pattern", ["coefficients", "channels"])
def test_gradual_pruning_ends_at_its_sparsity(pattern):
    net = ipbench.prune(tiny_stack(), "gmp", 0.5, pattern=pattern, inputs=IMAGES, steps=12, every=2, until=0.75)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    reached = []
    for _ in range(12):
        fit(net, optimiser, 1)
        reached.append(net.report().reached)
    assert reached == sorted(reached) and 0 < reached[4] < 0.5 <= reached[-1] < 0.65 and reached[9] == reached[-1]
    if pattern == "channels":
        net.eval()
        torch.testing.assert_close(net.slice()(IMAGES), net(IMAGES))


def test_a_training_that_was_cut_off_goes_on_as_if_it_had_not_been():
    whole, optimiser = begun()
    fit(whole, optimiser, 8)
    first, optimiser = begun()
    fit(first, optimiser, 5)
    state = first.state_dict(), optimiser.state_dict()
    second, optimiser = begun()
    second.load_state_dict(state[0])
    optimiser.load_state_dict(state[1])
    fit(second, optimiser, 3)
    assert second.step == 8
    for name, mask in whole.masks.items():
        assert torch.equal(mask, second.masks[name]) and torch.equal(values(whole)[name], values(second)[name])


def test_an_average_takes_over_masks_that_have_changed():
    net, optimiser = begun()
    average = AveragedModel(net)
    for _ in range(5):
        fit(net, optimiser, 1)
        average.update_parameters(net)
    own = average.module
    assert any(c[~net.masks[name]].any() for name, c in own.masked.coefficients.items())
    own.take_masks(net)
    assert not any(c[~net.masks[name]].any() for name, c in own.masked.coefficients.items())


def test_a_method_that_needs_data_while_training_is_told_that_there_is_none():
    net = ipbench.prune(tiny_conv(), "gmp", 0.5, batch=BATCH, steps=12, every=2)
    assert net.masked.task.name == "another task"
    with pytest.raises(ipbench.errors.BadInput, match="method gmp gets no data while you train"):
        net.masked.task.loss_of(net.masked, None, 0)
