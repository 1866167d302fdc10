"""Nets that choose by values which of their layers act: refused in a line; those that only look at values are not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ipbench.errors import BadInput
from ipbench.sparse.groups import channel_groups
from ipbench.sparse.measure import count

SHAPE = (1, 8, 8)


class Net(nn.Module):
    """Two convolutions and a linear layer; `chosen` tells what becomes of the second one."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 5)
        self.norm = nn.BatchNorm2d(4, momentum=None)  # reads a buffer in training mode
        self.register_buffer("ready", torch.ones(1))

    def chosen(self, x):
        return self.b(x)

    def forward(self, x):
        return self.fc(self.norm(self.chosen(self.a(x))).mean((2, 3)))


class Branch(Net):
    def chosen(self, x):
        return self.b(x) if x.sum() > self.a.bias.sum() * x[0, 0].numel() else x


class Early(Net):
    """Uses `b` for none of the inputs that are tried."""

    def chosen(self, x):
        return self.b(x) if x.amax().item() > 1e6 else x


class Training(Net):
    def chosen(self, x):
        return x if self.training and x.sum() > self.a.bias.sum() * x[:, 0].numel() else self.b(x)


class Checked(Net):
    """Looks at values, and does the same with all."""

    def chosen(self, x):
        assert torch.isfinite(x).all()
        return self.b(x)


class Ranged(Net):
    """Takes no negative numbers."""

    def forward(self, x):
        assert x.amin() >= 0
        return super().forward(x)


class Buffered(Net):
    def chosen(self, x):
        return self.b(x) if self.ready.item() else x


class Stateful(Net):
    def chosen(self, x):
        return self.b(x) if float(self.b.weight.abs().sum()) else x


def net(kind):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind()


@pytest.mark.parametrize("kind", [Net, Buffered, Stateful])
def test_a_choice_that_no_image_can_change_is_none(kind):
    assert count(net(kind), SHAPE) == count(net(Net), SHAPE)
    assert {group.name for group in channel_groups(net(Net), SHAPE).free} == {"a", "b"}
    assert {group.name for group in channel_groups(net(kind), SHAPE).free} >= {"a"}


def test_what_is_used_for_some_images_alone_cannot_be_counted():
    chosen = net(Branch)
    before = {name: tensor.clone() for name, tensor in chosen.state_dict().items()}
    state = torch.random.get_rng_state()
    with pytest.raises(BadInput, match=r"^b: used for some inputs and not for others"):
        count(chosen, SHAPE)
    assert torch.equal(torch.random.get_rng_state(), state) and chosen.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in chosen.state_dict().items())


@pytest.mark.parametrize("kind", [Training, Checked, Ranged])
def test_what_computes_the_same_for_all_inputs_is_counted(kind):
    assert count(net(kind), SHAPE) == count(net(Net), SHAPE)


def test_a_layer_that_no_input_uses_is_named():
    assert count(net(Early), SHAPE).unseen == ["b"]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Branch, r"^b.weight: used for some inputs and not for others, since the forward of Branch"),
        (Early, r"^b.weight: not used for what was tried, but perhaps for others, since the forward of Early"),
        (Training, r"^b.weight: used for some inputs and not for others, since the forward of Training"),
    ],
)
def test_the_channels_of_a_net_that_chooses_cannot_be_followed(kind, message):
    chosen = net(kind)
    before = {name: tensor.clone() for name, tensor in chosen.state_dict().items()}
    with pytest.raises(BadInput, match=message):
        channel_groups(chosen, SHAPE)
    assert all(torch.equal(tensor, before[name]) for name, tensor in chosen.state_dict().items())


def test_the_channels_of_a_net_that_only_looks_are_followed():
    assert {group.name for group in channel_groups(net(Ranged), SHAPE).free} == {"a", "b"}
    groups = channel_groups(net(Checked), SHAPE)
    assert "b" in {group.name for group in groups.free}
    assert "all" in groups["a"].reason or "local_scalar" in groups["a"].reason  # without some, it might say otherwise
