"""Cuts: planned, applied whole or not at all, the same in both spaces, and plain data."""

from __future__ import annotations

import copy
import json
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from ipbench.errors import BadInput
from ipbench.models.build import build
from ipbench.sparse.groups import channel_groups
from ipbench.sparse.measure import count
from ipbench.sparse.net import SparseNet
from ipbench.sparse.sliced import Sliced
from ipbench.sparse.slicing import Cut, dead, mask_net, plan, slice_net
from ipbench.sparse.trial import outputs
from ipbench.spec import Basis
from tests.sparse.agreement import check_slice_is_mask, half, images
from tests.sparse.awkward_nets import Residual, SqueezeExcite, WeightNormed, shake
from tests.tiny import make_run, tiny_conv

SHAPE = (2, 6, 6)


def little():
    """Conv2d(1, 3), batch norm, Linear(3, 2) on the mean of an image, with numbers as weights."""
    net = nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1, 1))
        net[0].bias.copy_(torch.tensor([4.0, 5.0, 6.0]))
        net[1].running_mean.copy_(torch.tensor([7.0, 8.0, 9.0]))
        net[4].weight.copy_(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    return net


def state(net):
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def test_by_hand():
    net = little()
    groups = channel_groups(net, (1, 2, 2))
    slice_net(net, plan(groups, {"0": [1]}))
    assert net[0].weight.flatten().tolist() == [1, 3]
    assert net[0].bias.tolist() == [4, 6]
    assert net[1].running_mean.tolist() == [7, 9]
    assert net[4].weight.tolist() == [[1, 3], [4, 6]]
    assert net[4].bias.shape == (2,)
    assert (net[0].in_channels, net[0].out_channels, net[1].num_features) == (1, 2, 2)
    assert (net[4].in_features, net[4].out_features) == (2, 2)


def test_masked_by_hand():
    net = little()
    mask_net(net, plan(channel_groups(net, (1, 2, 2)), {"0": [1]}))
    assert net[0].weight.flatten().tolist() == [1, 0, 3]
    assert net[0].bias.tolist() == [4, 0, 6]
    assert net[1].weight.tolist() == [1, 0, 1]
    assert net[1].running_mean.tolist() == [7, 8, 9]  # a buffer: with a weight of zero it does nothing
    assert net[4].weight.tolist() == [[1, 0, 3], [4, 0, 6]]


def test_what_parameters_are_is_kept():
    net = shake(Residual()).to(torch.float64, memory_format=torch.channels_last)
    net.stem[0].weight.requires_grad_(False)
    net.a.eval()
    old = net.stem[0].weight
    slice_net(net, plan(channel_groups(net, (3, 8, 8)), {"stem.0": [0, 5]}))
    assert isinstance(net.stem[0].weight, nn.Parameter)
    assert net.stem[0].weight is not old
    assert not net.stem[0].weight.requires_grad
    assert net.a[0].weight.requires_grad
    assert net.stem[0].weight.dtype == torch.float64
    assert net.a[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert (net.training, net.a.training, net.a[0].training) == (True, False, False)
    assert net.stem[0].weight.untyped_storage().nbytes() == net.stem[0].weight.numel() * 8  # no view of the old one


def test_depthwise_and_grouped_convolutions_change_their_groups():
    net = tiny_conv()  # its second convolution has two groups of 2 inputs and 3 outputs
    groups = channel_groups(net, SHAPE)
    assert [(g.name, g.units) for g in groups.free] == [("0", 2), ("5", 5)]
    sliced = check_slice_is_mask(net, groups, {"0": [1]}, SHAPE)
    conv = sliced[3]
    assert (conv.in_channels, conv.out_channels, conv.groups, tuple(conv.weight.shape)) == (2, 3, 1, (3, 2, 3, 3))


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ({"stem.1": [0]}, "unknown channel group 'stem.1' (did you mean 'stem.0'?)"),
        ({"stem.0": [8]}, "layer stem.0: its units are numbered from 0 to 7 (got [8])"),
        ({"stem.0": [-1]}, "layer stem.0: its units are numbered from 0 to 7 (got [-1])"),
        ({"stem.0": [0.5]}, "layer stem.0: its units are numbered from 0 to 7 (got [0.5])"),
        ({"stem.0": [1, 1]}, "layer stem.0: a unit is to be removed twice ([1, 1])"),
        ({"stem.0": range(8)}, "layer stem.0: at least one of its 8 units stays"),
        ({"head.fc": [0]}, "cannot remove channels: layer head.fc: the net returns its channels"),
    ],
)
def test_bad_plans(removed, message):
    with pytest.raises(BadInput, match=re.escape(message)):
        plan(channel_groups(Residual(), (3, 8, 8)), removed)


def test_units_as_tensors_arrays_and_none():
    groups = channel_groups(Residual(), (3, 8, 8))
    cuts = [plan(groups, {"stem.0": units}).to_json() for units in ([2, 5], torch.tensor([5, 2]), np.array([2, 5]))]
    assert cuts[0] == cuts[1] == cuts[2]
    assert plan(groups, {"stem.0": [], "a.0": torch.tensor([])}).to_json() == {}


def test_nothing_changes_unless_all_can():
    wide = channel_groups(Residual(), (3, 8, 8))
    cut = plan(wide, {"stem.0": [0], "a.0": [0]})
    net = Residual()
    net.b[0] = nn.Conv2d(8, 9, 3, padding=1)  # the last layer that the cut names
    before = state(net)
    with pytest.raises(BadInput, match=r"layer b\.0: b\.0\.weight is of shape \(9, 8, 3, 3\), the cut of"):
        slice_net(net, cut)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert net.stem[0].out_channels == 8


def test_cuts_that_leave_a_layer_inconsistent():
    net = tiny_conv()
    cut = plan(channel_groups(net, SHAPE), {"0": [1]})
    biases = Cut({n: axes for n, axes in cut.kept.items() if n != "3.bias"}, cut.shapes)
    with pytest.raises(BadInput, match="layer 3: 3 outputs and 6 biases"):
        slice_net(net, biases)
    norms = Cut({n: axes for n, axes in cut.kept.items() if n != "1.running_mean"}, cut.shapes)
    with pytest.raises(BadInput, match=re.escape("layer 1: its values would be of several lengths: [2, 4]")):
        slice_net(net, norms)
    parts = Cut({**cut.kept, "3.weight": {0: np.array([0, 1])}}, cut.shapes)
    with pytest.raises(BadInput, match="layer 3: 2 channels do not make whole groups of 3"):
        slice_net(net, parts)


def test_called_on_a_copy_first():
    net = tiny_conv()
    cut = plan(channel_groups(net, SHAPE), {"5": [0]})
    half_cut = Cut({n: axes for n, axes in cut.kept.items() if n != "8.weight"}, cut.shapes)
    before = state(net)
    with pytest.raises(BadInput, match="the net does not run without these channels: "):
        slice_net(net, half_cut, SHAPE)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    slice_net(net, cut, SHAPE)
    assert net.training
    assert net[5].out_channels == 4


def test_other_nets_are_refused():
    cut = plan(channel_groups(Residual(), (3, 8, 8)), {"stem.0": [0]})
    with pytest.raises(BadInput, match=r"layer stem\.0: this net has no stem\.0\.weight"):
        slice_net(tiny_conv(), cut)
    computed = Residual()
    parametrizations.weight_norm(computed.b[0])
    with pytest.raises(BadInput, match=r"layer b\.0: its weight is computed from other parameters; it cannot be cut"):
        slice_net(computed, cut)
    older = Residual()
    nn.utils.weight_norm(older.b[0])
    with pytest.raises(BadInput, match=r"layer b\.0: its weight is computed from other parameters; it cannot be cut"):
        mask_net(older, cut)


def test_layers_beside_computed_weights_can_be_cut():
    net = shake(WeightNormed())
    check_slice_is_mask(net, channel_groups(net, (3, 8, 8)), {"b.0": [0, 3]}, (3, 8, 8))


def test_padding_of_another_width_is_refused():
    net = build("resnet20-cifar", (3, 8, 8), 10, seed=0)
    cut = plan(channel_groups(net, (3, 8, 8)), {"stage2.block1.conv2": [0, 1]})
    net.stage2.block1.shortcut.extra = 15
    with pytest.raises(BadInput, match=r"layer stage2\.block1\.shortcut: its extra is 15, the cut is for 16"):
        slice_net(net, cut)


def test_padding_is_cut():
    net = build("resnet20-cifar", (3, 8, 8), 10, seed=0)
    groups = channel_groups(net, (3, 8, 8))
    removed = {"stem.conv": [0], "stage2.block1.conv2": [3, 5, 6], "stage3.block1.conv2": list(range(10))}
    sliced = check_slice_is_mask(net, groups, removed, (3, 8, 8))
    assert (sliced.stage2.block1.shortcut.extra, sliced.stage3.block1.shortcut.extra) == (13, 22)
    assert sliced.classifier.in_features == 64 - 14


def test_a_cut_from_a_file_makes_the_same_net():
    net = build("resnet20-cifar", (3, 8, 8), 10, seed=0)
    groups = channel_groups(net, (3, 8, 8))
    cut = plan(groups, half(groups))
    again = Cut.from_json(json.loads(json.dumps(cut.to_json())))
    fresh = build("resnet20-cifar", (3, 8, 8), 10, seed=0)
    slice_net(net, cut)
    slice_net(fresh, again)
    assert str(net) == str(fresh)
    one, two = net.state_dict(), fresh.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert sum(len(json.dumps(entry)) for entry in cut.to_json().values()) < 20_000  # small enough for a file's head


def test_two_cuts_are_one():
    net = shake(SqueezeExcite())
    first = plan(channel_groups(net, (3, 8, 8)), {"exp.0": [0, 3], "red": [1]})
    twice = copy.deepcopy(net)
    slice_net(twice, first)
    second = plan(channel_groups(twice, (3, 8, 8)), {"exp.0": [1], "proj": [0]})
    slice_net(twice, second)
    slice_net(net, first.then(second))
    for one, two in zip(net.state_dict().values(), twice.state_dict().values(), strict=True):
        assert torch.equal(one, two)
    assert str(net) == str(twice)


def test_take_slices_what_goes_with_a_tensor():
    net = little()
    cut = plan(channel_groups(net, (1, 2, 2)), {"0": [0]})
    momentum = torch.arange(6.0).view(2, 3)
    assert cut.take("4.weight", momentum).tolist() == [[1, 2], [4, 5]]
    assert cut.take("4.bias", momentum) is momentum
    assert cut.shape("4.weight") == (2, 2)
    assert cut.removed("4.weight", 1).tolist() == [0]
    with pytest.raises(BadInput, match=re.escape("layer 4: 4.weight is of shape (2, 2), the cut of (2, 3)")):
        cut.take("4.weight", torch.zeros(2, 2))


def test_dead_units():
    net = shake(Residual())
    groups = channel_groups(net, (3, 8, 8))
    assert dead(groups, net) == {}
    with torch.no_grad():
        net.stem[0].weight[[1, 2]] = 0
        net.b[0].weight[[2, 4]] = 0  # the residual stream is made by both
        net.a[0].weight[:] = 0
    found = {name: units.tolist() for name, units in dead(groups, net).items()}
    assert found == {"stem.0": [2], "a.0": [1, 2, 3, 4, 5, 6, 7]}  # one stays
    slice_net(net, plan(groups, dead(groups, net)))
    assert (net.a[0].out_channels, net.head.fc.in_features) == (1, 7)


def test_dead_units_of_a_depthwise_convolution_are_so_in_both():
    net = shake(SqueezeExcite())
    groups = channel_groups(net, (3, 8, 8))
    with torch.no_grad():
        for layer in (net.exp[0], net.gate):
            layer.weight[3] = 0
    assert dead(groups, net) == {}
    with torch.no_grad():
        net.dw[0].weight[3] = 0
    assert dead(groups, net)["exp.0"].tolist() == [3]


@pytest.mark.parametrize("sharing", ["layer", "network"])
def test_a_net_in_the_interspace_is_cut_through_its_coefficients(sharing):
    run = make_run(space="ip", model="small-vgg", basis=Basis(init="orthonormal", sharing=sharing))
    net = SparseNet(build("small-vgg", (2, 6, 6), 3, seed=0), run, SHAPE)
    groups = channel_groups(net.net, SHAPE)
    cut = plan(groups, half(groups))
    bases = {name: basis.matrix.clone() for name, basis in net.bases.items()}
    masked = copy.deepcopy(net.net)
    mask_net(masked, cut)
    slice_net(net.net, cut)
    layer = net.net.stage1.conv2
    assert parametrize.is_parametrized(layer, "weight")
    kept = {name: len(axes[0]) for name, axes in cut.kept.items() if 0 in axes}
    assert layer.parametrizations.weight.original.shape[:2] == (
        kept["stage1.conv2.weight"],
        kept["stage1.conv1.weight"],
    )
    assert layer.weight.shape == layer.parametrizations.weight.original.shape
    assert all(torch.equal(basis.matrix, bases[name]) for name, basis in net.bases.items())
    given_images = images(SHAPE, kind=torch.float32)
    for one, two in zip(outputs(masked, given_images), outputs(net.net, given_images), strict=True):
        torch.testing.assert_close(two, one, rtol=1e-5, atol=1e-5)
    assert {name: c.shape for name, c in net.coefficients.items()} == {
        name: weight.weight.shape for name, weight in net.layers.items()
    }
    net(given_images[0]).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_dead_units_in_the_interspace():
    run = make_run(space="ip", model="small-vgg")
    net = SparseNet(build("small-vgg", (2, 6, 6), 3, seed=0), run, SHAPE)
    with torch.no_grad():
        net.coefficients["stage1.conv2"][[0, 4]] = 0
    found = dead(channel_groups(net.net, SHAPE), net.net)
    assert {name: units.tolist() for name, units in found.items()} == {"stage1.conv2": [0, 4]}


def test_training_goes_on_with_every_parameter():
    net = build("resnet20-cifar", (3, 8, 8), 10, seed=0)
    groups = channel_groups(net, (3, 8, 8))
    slice_net(net, plan(groups, half(groups)))
    before = {name: tensor.clone() for name, tensor in net.named_parameters()}
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(0)
    net(torch.randn(4, 3, 8, 8, generator=generator)).square().sum().backward()
    optimiser.step()
    assert all(not torch.equal(tensor, before[name]) for name, tensor in net.named_parameters())


class Small(nn.Module):
    """A residual net with a squeeze-excite gate, a depthwise convolution and two linear layers."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.a = nn.Conv2d(6, 4, 1)
        self.depthwise = nn.Conv2d(4, 8, 3, padding=1, groups=4)
        self.gate = nn.Conv2d(8, 8, 1)
        self.b = nn.Conv2d(8, 6, 1)
        self.hidden = nn.Linear(6 * 4, 5)
        self.out = nn.Linear(5, 3)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        y = torch.relu(self.depthwise(self.a(x)))
        y = y * torch.sigmoid(self.gate(y.mean((2, 3), keepdim=True)))
        x = nn.functional.adaptive_avg_pool2d(x + self.b(y), 2)
        return self.out(torch.tanh(self.hidden(x.permute(0, 2, 3, 1).flatten(1))))


@pytest.fixture(scope="module")
def small():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = shake(Small())
    groups = channel_groups(net, SHAPE)
    return net, groups, count(net, SHAPE)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_removal(small, data):
    net, groups, dense = small
    removed = {
        group.name: sorted(data.draw(st.sets(st.integers(0, group.units - 1), max_size=group.units - 1), group.name))
        for group in groups.free
    }
    sliced = check_slice_is_mask(net, groups, removed, SHAPE)
    kept = {group.name: group.units - len(removed[group.name]) for group in groups.free}
    counted = count(sliced.float(), SHAPE)
    told = Sliced(dense, groups, kept)
    buffers = {name for name, _ in net.named_buffers()}
    assert (told.parameters(buffers), told.macs()) == (counted.parameters, counted.macs)


def test_groups_of_the_small_net(small):
    _, groups, _ = small
    assert {group.name: group.units for group in groups.free} == {"stem": 6, "a": 4, "hidden": 5}
