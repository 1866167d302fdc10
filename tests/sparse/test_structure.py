"""What is left of a net that is cut: structures, dead channels by hand, constants, one way to take over a state."""

from __future__ import annotations

import copy
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from ipbench.errors import BadInput
from ipbench.models.build import build
from ipbench.models.resnet import PaddedShortcut, _resnet
from ipbench.sparse import dead, measure
from ipbench.sparse.channels import Groups
from ipbench.sparse.groups import channel_groups
from ipbench.sparse.net import SparseNet
from ipbench.sparse.slicing import mask_net, plan, slice_net
from ipbench.sparse.structure import Structure, groups_of, restricted
from ipbench.spec import Basis, Run
from tests.tiny import make_run

SHAPE = (2, 6, 6)
SPACES = {"sp": {}, "ip": {"space": "ip", "basis": Basis(init="orthonormal")}}


def chain(padding: int = 0, bias: bool = True) -> nn.Sequential:
    """Two convolutions (4 and 3 channels), and a linear layer that reads each position of the second one."""
    side = 6 - 2 * (2 - 2 * padding)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            OrderedDict(
                one=nn.Conv2d(2, 4, 3, padding=padding),
                norm=nn.BatchNorm2d(4),
                relu=nn.ReLU(),
                two=nn.Conv2d(4, 3, 3, padding=padding, bias=bias),
                flatten=nn.Flatten(),
                out=nn.Linear(3 * side * side, 3),
            )
        )


def sparse(net: nn.Module, **values) -> SparseNet:
    """In a space, with norms that have something to say."""
    result = SparseNet(net, make_run(**values), SHAPE)
    with torch.no_grad():
        for module in result.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.bias.copy_(torch.tensor([0.5, -1.0, 0.25, 2.0]).repeat(3)[: len(module.bias)])
                module.running_mean.fill_(0.1)
    return result


def without(net: SparseNet, layer: str, axis: int, *indices: int) -> None:
    """Mask slices of a layer."""
    masks = {name: mask.clone() for name, mask in net.masks.items()}
    masks[layer].index_fill_(axis, torch.tensor(indices), False)
    net.prune(masks)


IMAGES = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(3))


# Structures as data.


def test_a_structure_comes_back_from_json_and_nothing_else_does():
    structure = Structure({"one": (0, 2), "two": (1,)})
    assert Structure.from_json(structure.to_json()) == structure and structure
    assert not Structure() and Structure.from_json({}) == Structure()
    for wrong in ([], {"one": 3}, {"one": [1, 1]}, {"one": [2, 1]}, {"one": [-1]}, {"one": []}, {"one": [True]}):
        with pytest.raises(ValueError, match="not a structure"):
            Structure.from_json(wrong)


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"one": (0, 4)}, "one has 4 units; not a part of them"),
        ({"one": (0, 1, 2, 3)}, "one has 4 units; not a part of them"),
        ({"out": (0,)}, "out cannot be cut: layer out: the net returns its channels"),
        ({"other": (0,)}, "unknown channel group 'other'"),
    ],
)
def test_a_structure_of_another_net_is_refused_and_nothing_changes(kept, message):
    net = sparse(chain())
    before = net(IMAGES)
    with pytest.raises((BadInput, ValueError), match=message):
        net.cut(Structure(kept))
    assert torch.equal(net(IMAGES), before) and not net.structure


def test_what_was_cut_cannot_come_back():
    net = sparse(chain())
    net.cut(Structure({"one": (0, 1)}))
    with pytest.raises(ValueError, match="a unit was cut that is to stay"):
        net.cut(Structure({"one": (0, 2)}))
    with pytest.raises(ValueError, match="a unit was cut that is to stay"):
        net.cut(Structure())


def test_restricted_groups_by_hand():
    """Of 4 and 3 channels 1, 3 and 0, 2 stay; of the linear layer, which reads 2 x 2 positions, 0-3 and 8-11."""
    groups = restricted(channel_groups(chain(), SHAPE), Structure({"one": (1, 3), "two": (0, 2)}))
    assert groups["one"].units == 2 and groups["two"].units == 2
    assert groups.shapes["one.weight"] == (2, 2, 3, 3) and groups.shapes["two.weight"] == (2, 2, 3, 3)
    assert groups.shapes["out.weight"] == (3, 8)
    places = {(m.tensor, m.axis): m.indices.tolist() for group in groups.free for m in group.members}
    assert places["one.weight", 0] == places["norm.bias", 0] == places["two.weight", 1] == [[0], [1]]
    assert places["out.weight", 1] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def same_groups(one: Groups, two: Groups) -> bool:
    def told(groups: Groups) -> list:
        return [
            (g.name, g.units, [(m.tensor, m.axis, m.role, m.indices.tolist()) for m in g.members]) for g in groups.free
        ]

    return told(one) == told(two) and one.shapes == two.shapes


def residual() -> nn.Module:
    """Three stages of one block, with padded shortcuts between them."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return _resnet(2, 3, widths=(4, 6, 8), blocks=(1, 1, 1), shortcut=PaddedShortcut)


@pytest.mark.parametrize("seed", range(3))
def test_restricted_groups_are_those_of_the_cut_net(seed):
    """Cut twice: what is found anew in the small net is what arithmetic says; cut at once, it is the same net.

    Two channels of every group stay: of one alone it is said that it cannot go.
    """
    net, structure, random = sparse(residual()), Structure(), np.random.default_rng(seed)
    for _ in range(2):
        now = restricted(net.groups, structure)
        gone = {group.name: (random.random(group.units) < 0.5) & (np.arange(group.units) > 1) for group in now.free}
        structure = structure.without(net.groups, gone)
        net.cut(structure)
    assert net.structure == structure
    assert same_groups(channel_groups(net.net, SHAPE), restricted(net.groups, structure))
    at_once = sparse(residual())
    at_once.cut(structure)
    assert all(torch.equal(tensor, net.tensors()[name]) for name, tensor in at_once.tensors().items())


def test_groups_are_found_once_for_nets_that_are_made_of_the_same(monkeypatch):
    from ipbench.sparse import groups as finder

    calls = []
    true = finder.channel_groups
    monkeypatch.setattr(finder, "channel_groups", lambda *args: calls.append(1) or true(*args))
    nets: list[SparseNet] = []
    for width in (5, 5, 7):
        net = nn.Sequential(nn.Conv2d(2, width, 3), nn.Flatten(), nn.Linear(16 * width, 3))
        nets.append(sparse(net, **SPACES["ip" if len(nets) == 1 else "sp"]))
    assert [net.groups["0"].units for net in nets] == [5, 5, 7] and len(calls) == 2
    assert nets[0].groups is nets[1].groups and groups_of(nets[2].plain(), SHAPE) is nets[2].groups


class Told(nn.Module):
    """Three layers whose forward reads an attribute; the last two may be one tensor."""

    def __init__(self, sizes: dict[str, list[int]], tied: bool) -> None:
        super().__init__()
        self.sizes = sizes
        self.first, self.second, self.third = nn.Linear(2, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.last = nn.Linear(4, 3)
        if tied:
            self.third.weight = self.second.weight

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.first(images.mean((2, 3))).relu()
        features = features.view(-1, *self.sizes["first"]) if self.sizes else features
        return self.last(self.third(self.second(features).relu()).relu())


def test_nets_that_differ_in_what_has_no_shape_have_groups_of_their_own():
    plain, fixed, tied = Told({}, False), Told({"first": [4]}, False), Told({}, True)
    assert [net.state_dict().keys() for net in (fixed, tied)] == [plain.state_dict().keys()] * 2
    found = [{group.name for group in groups_of(net, SHAPE).free} for net in (plain, fixed, tied)]
    assert found == [{group.name for group in channel_groups(net, SHAPE).free} for net in (plain, fixed, tied)]
    assert found[0] == {"first", "second", "third"} and "first" not in found[1] and found[2] != found[0]
    assert groups_of(Told({"first": [4]}, False), SHAPE) is groups_of(fixed, SHAPE)


# Dead channels.


@pytest.mark.parametrize("space", SPACES)
def test_dead_channels_by_hand(space):
    """A masked filter kills its channel; so does a masked part of what reads it; a part of either kills nothing."""
    net = sparse(chain(), **SPACES[space])
    without(net, "one", 0, 1)
    without(net, "two", 1, 3)
    without(net, "out", 1, 4, 5, 6)  # three of the four positions of channel 1
    assert dead.silent(net.groups, net.masks)["one"].tolist() == [False, True, False, False]
    assert dead.unread(net.groups, net.masks)["one"].tolist() == [False, False, False, True]
    assert not dead.unread(net.groups, net.masks)["two"].any()
    without(net, "out", 1, 7)
    assert dead.unread(net.groups, net.masks)["two"].tolist() == [False, True, False]
    net.slice()
    assert net.structure == Structure({"one": (0, 2), "two": (0, 2)})
    assert {name: tuple(mask.shape) for name, mask in net.masks.items()} == {
        "one": (2, 2, 3, 3), "two": (2, 2, 3, 3), "out": (3, 8),
    }  # fmt: skip


def test_of_a_group_that_is_dead_as_a_whole_one_channel_stays():
    net = sparse(chain())
    without(net, "one", 0, 0, 1, 2, 3)
    net.slice()
    assert net.structure == Structure({"one": (0,)})
    net.slice()
    assert net.structure == Structure({"one": (0,)})


def test_a_shortcut_keeps_a_channel_alive():
    """The residual stream dies where all its producers do; option A's zeros are made by nobody."""
    net = SparseNet(build("resnet20-cifar", (1, 8, 8), 10, 0), make_run(model="resnet20-cifar"), (1, 8, 8))
    group = net.groups["stem.conv"]
    assert {m.layer for m in group.producers} >= {"stem.conv", *(f"stage1.block{n}.conv2" for n in (1, 2, 3))}
    for member in group.producers[:-1]:
        without(net, member.layer, member.axis, *member.indices[5].tolist())
    assert not dead.silent(net.groups, net.masks)["stem.conv"].any()
    last = group.producers[-1]
    without(net, last.layer, last.axis, *last.indices[5].tolist())
    assert np.flatnonzero(dead.silent(net.groups, net.masks)["stem.conv"]).tolist() == [5]


@pytest.mark.parametrize("off", ["frozen", "decayed"])
def test_nothing_is_dead_that_keeps_its_initial_values(off):
    net = sparse(chain(), off=off)
    without(net, "one", 0, 1)
    net.slice()
    assert not net.structure


@pytest.mark.parametrize("space", SPACES)
def test_unread_channels_are_cut_without_any_change_of_the_function(space):
    net = sparse(chain(padding=1), **SPACES[space]).eval()
    without(net, "two", 1, 0, 3)
    before = net(IMAGES)
    net.slice("refuse")
    assert net.structure == Structure({"one": (1, 2)})
    assert torch.allclose(net(IMAGES), before, atol=1e-6)


# The constant of a channel without filters.


@pytest.mark.parametrize("space", SPACES)
def test_a_dropped_constant_is_that_of_the_masked_net_without_norms(space):
    net = sparse(chain(padding=1), **SPACES[space]).eval()
    without(net, "one", 0, 0, 3)
    twin = copy.deepcopy(net)
    net.slice()
    mask_net(twin.net, plan(twin.groups, net.structure.removed(twin.groups)))
    assert torch.allclose(net(IMAGES), twin(IMAGES), atol=1e-6)


@pytest.mark.parametrize("space", SPACES)
def test_a_folded_constant_leaves_the_function_as_it_is(space):
    """Without padding the second convolution's bias takes it; of channels 1 and 2 of that, the linear layer's."""
    net = sparse(chain(), **SPACES[space]).eval()
    without(net, "one", 0, 0, 1, 3)
    without(net, "two", 0, 1, 2)
    before = net(IMAGES)
    dropped = copy.deepcopy(net)
    dropped.slice()
    assert not torch.allclose(dropped(IMAGES), before, atol=1e-2)
    net.slice("fold")
    assert net.structure == Structure({"one": (2,), "two": (0,)})
    assert torch.allclose(net(IMAGES), before, atol=1e-5)


@pytest.mark.parametrize(
    ("constant", "net", "message"),
    [
        ("refuse", chain(), "layer two: it reads a constant of channels of one .*constant=refuse"),
        ("fold", chain(padding=1), "layer two: .* its padding makes it another number at the border"),
        ("fold", chain(bias=False), "layer two: .* it has no bias to put it into"),
    ],
)
def test_a_constant_that_cannot_go_is_one_line_and_nothing_changes(constant, net, message):
    net = sparse(net).eval()
    without(net, "one", 0, 3)
    before, state = net(IMAGES), {name: tensor.clone() for name, tensor in net.tensors().items()}
    with pytest.raises(BadInput, match=message) as error:
        net.slice(constant)
    assert "\n" not in str(error.value) and not net.structure
    assert torch.equal(net(IMAGES), before)
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.tensors().items())


def test_a_constant_of_zero_is_nothing_to_refuse():
    """Channel 1: (0 - 0.1) / 1 - 1 is below zero, and the activation ends it."""
    net = sparse(chain(padding=1)).eval()
    with torch.no_grad():
        net.net.one.bias.zero_()
    without(net, "one", 0, 1)
    before = net(IMAGES)
    net.slice("refuse")
    assert net.structure == Structure({"one": (0, 2, 3)}) and torch.allclose(net(IMAGES), before, atol=1e-6)


# What a cut net is.


@pytest.mark.parametrize("space", SPACES)
def test_counts_of_a_cut_net(space):
    """2 of 4 and 1 of 3 channels: 2*2*9+2, 2*2, 2*1*9+1 and 4*3+3 parameters; FBs on top of them are in `bases`."""
    net = sparse(chain(), **SPACES[space])
    dense = (net.counted.parameters, net.prunable, net.budget, net.basis_entries)
    net.cut(Structure({"one": (1, 3), "two": (2,)}))
    assert net.now.parameters == (2 * 2 * 9 + 2) + 2 * 2 + (2 * 9 + 1) + (4 * 3 + 3)
    assert net.now.macs == 2 * 2 * 9 * 16 + 2 * 9 * 4 + 12
    assert (net.counted.parameters, net.prunable, net.budget, net.basis_entries) == dense
    assert net.prunable == 4 * 2 * 9 + 3 * 4 * 9 + 3 * 12


@pytest.mark.parametrize("space", SPACES)
def test_keyed_numbers_of_a_cut_net_are_those_of_the_dense_one(space):
    net, dense = sparse(chain(), **SPACES[space]), sparse(chain())
    net.cut(Structure({"one": (1, 3), "two": (2,)}))
    assert torch.equal(net.uniform("two"), dense.uniform("two")[[2]][:, [1, 3]])
    assert torch.equal(net.start["two"], sparse(chain(), **SPACES[space]).start["two"][[2]][:, [1, 3]])


@pytest.mark.parametrize("space", SPACES)
def test_a_state_is_taken_over_by_a_new_net(space):
    net = sparse(chain(), **SPACES[space])
    net.prune({name: net.uniform(name) < 0.5 for name in net.masks})
    net.cut(Structure({"one": (1, 3), "two": (2,)}))
    other = sparse(chain(), **SPACES[space])
    other.restore(net.structure, net.tensors(), net.masks, 0.5)
    assert torch.equal(other.eval()(IMAGES), net.eval()(IMAGES)) and other.faded == 0.5
    assert all(torch.equal(mask, net.masks[name]) for name, mask in other.masks.items())
    assert other.now == net.now and other.structure == net.structure


def test_a_state_of_another_net_is_refused():
    """A tensor of one number would fit everywhere, by broadcasting."""
    net = sparse(chain())
    tensors, masks = net.tensors(), net.masks
    for wrong, message in [
        ({**tensors, "one.bias": torch.zeros(1)}, r"one.bias is of shape \[1\]; \[4\] is wanted"),
        ({name: tensor for name, tensor in tensors.items() if name != "one.bias"}, r"one.bias is missing; \[4\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            net.restore(Structure(), wrong, masks)
    with pytest.raises(ValueError, match=r"mask of two is of shape \[3\]"):
        net.restore(Structure(), tensors, {**masks, "two": torch.ones(3, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"one.weight is of shape \[4, 2, 3, 3\]; \[1, 2, 3, 3\] is wanted"):
        net.restore(Structure({"one": (0,)}), tensors, masks)


@pytest.mark.parametrize("space", SPACES)
def test_the_plain_copy_computes_the_same_and_leaves_the_net_alone(space):
    net = sparse(chain(), **SPACES[space]).eval()
    net.cut(Structure({"one": (1, 3)}))
    plain, before = net.plain(), net(IMAGES)
    assert {name for name, _ in plain.named_parameters()} == {name for name, _ in chain().named_parameters()}
    assert [type(module) for module in plain.modules()] == [type(module) for module in chain().modules()]
    assert torch.equal(plain(IMAGES), before)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.zero_()
    assert torch.equal(net(IMAGES), before)


def test_tied_weights_stay_tied_in_the_plain_copy():
    net = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 2, 3, padding=1), nn.Flatten())
    net[2].weight = net[0].weight
    tied = sparse(nn.Sequential(*net, nn.Linear(72, 3)), **SPACES["ip"])
    plain = tied.plain()
    assert plain[2].weight is plain[0].weight and torch.allclose(plain(IMAGES), tied(IMAGES), atol=1e-6)
    group = tied.groups["0"]
    assert group.reason or {m.tensor for m in group.members} >= {"0.weight"}


MODELS = {"small-vgg": (3, 16, 16), "resnet20-cifar": (3, 16, 16), "resnet18-cifar": (3, 8, 8)}


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("model", MODELS)
def test_masked_and_sliced_nets_agree_in_both_modes(model, space):
    shape = MODELS[model]
    run = Run(**{**make_run(model=model, sparsity="0.5").model_dump(exclude_defaults=True), **SPACES[space]})
    net = SparseNet(build(model, shape, 10, 0), run, shape)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.bias.copy_(torch.randn(module.bias.shape, generator=generator))
                module.running_var.copy_(torch.rand(module.bias.shape, generator=generator) + 0.5)
    for group in net.groups.free:
        gone = torch.rand(group.units, generator=generator).numpy() < 0.5
        for member in group.producers:
            without(net, member.layer, member.axis, *member.indices[gone].ravel().tolist())
    masked = copy.deepcopy(net)
    net.slice()
    mask_net(masked.net, plan(net.groups, net.structure.removed(net.groups)))
    assert net.now.parameters < 0.5 * net.counted.parameters and net.now.macs < 0.5 * net.counted.macs
    assert net.now == measure.count(net.plain(), shape)
    images = torch.randn(8, *shape, generator=generator)
    for training in (False, True):
        net.train(training), masked.train(training)
        one, two = net(images), masked(images)
        assert float((one - two).detach().abs().max()) <= 1e-5 * float(two.detach().abs().max())


def test_a_failed_cut_gives_the_biases_back(monkeypatch):
    net = sparse(chain()).eval()
    without(net, "one", 0, 3)
    before = net(IMAGES)

    def fail(*_):
        raise BadInput("no")

    monkeypatch.setattr("ipbench.sparse.slicing.slice_net", fail)
    with pytest.raises(BadInput, match="no"):
        net.slice("fold")
    assert torch.equal(net(IMAGES), before) and slice_net is not fail
