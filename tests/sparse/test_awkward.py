"""Every net that is hard to cut is sliced right, or refused in a line that names the layer, and then as it was."""

from __future__ import annotations

import copy

import pytest
import torch

from ipbench.errors import BadInput
from ipbench.sparse.groups import channel_groups
from ipbench.sparse.slicing import plan, slice_net
from tests.sparse import awkward_nets
from tests.sparse.agreement import check_slice_is_mask

#: Net -> units of every group: a number if its channels can go, else a part of the reason why they cannot.
EXPECTED = {
    "Alive": {"a.0": 8, "b.0": 8, "c.0": 8, "head.fc": "returns"},
    "BufferNorm": {"a": 8, "b.0": 6, "head.fc": "returns"},
    "ChannelShuffle": {"a.0": 4, "b.0": 6, "head.fc": "returns"},  # channel i of both halves
    "ChannelShuffleFixed": {"a.0": "written into a forward", "b.0": 6, "head.fc": "returns"},
    "ChannelsLastNorm": {"a": "native_layer_norm in layer n", "b.0": 6, "head.fc": "returns"},
    "ChunkChain": {"inp.0": 4, "out.0": 6, "head.fc": "returns"},  # channel i of both chunks, and of all bottlenecks
    "ConstantLeak": {"a.0": 8, "b.0": 6, "head.fc": "returns"},
    "Decoder": {"fc": 8, "up": 4, "out": "returns"},  # 16 outputs of the linear layer at a time
    "DepthMultiplier": {"a.0": 6, "b.0": 6, "head.fc": "returns"},
    "FlattenFixed": {"a.0": "written into a forward", "fc": "returns"},
    "FlattenFree": {"a.0": 8, "fc": "returns"},
    "FlattenHeightFirst": {"a.0": 8, "fc": "returns"},
    "FrozenStem": {"stem.0": 8, "b.0": 6, "head.fc": "returns"},
    "GroupNorms": {"a": "native_group_norm in layer n", "b.0": 6, "head.fc": "returns"},
    "LstmTail": {"a": 8, "rnn.weight_ih_l0": "LSTM rnn has one width", "fc": "returns"},
    "OptionA": {"stem.0": 4, "a.0": 8, "b.0": "constant channel", "head.fc": "returns"},
    "OptionACat": {"stem.0": 4, "a.0": 8, "head.fc": "returns"},
    "Recurrent": {"a.0": 8, "head.fc": "returns"},
    "Residual": {"stem.0": 8, "a.0": 8, "head.fc": "returns"},
    "SharedHead": {"c1.0": 8, "c2.0": 8, "p1": 6, "tower.0": 6, "tower.2": 6, "cls": "returns", "box": "returns"},
    "SharedPRelu": {"a": 8, "head.fc": "returns"},
    "SilentSibling": {"a.0": 8, "b.0": 6, "aux": "returns", "never": "never run", "head.fc": "returns"},
    "SpatialGate": {"a.0": 8, "gate": "spreads it over other channels", "b.0": 6, "head.fc": "returns"},
    "SqueezeExcite": {"exp.0": 8, "red": 4, "proj": 6, "head.fc": "returns"},
    "SubPixel": {"a": 4, "b": "returns"},
    "WeightNormed": {"a": "weight_norm_interface", "a#2": "weight_norm_interface", "b.0": 6, "head.fc": "returns"},
}


def make(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return awkward_nets.shake(getattr(awkward_nets, name)())


@pytest.fixture(scope="module")
def found():
    """Net and groups by name, each made once."""
    known = {}

    def get(name):
        if name not in known:
            net = make(name)
            known[name] = net, channel_groups(net, net.example[1:])
        return known[name]

    return get


def test_the_table_has_every_net():
    public = {n for n, c in vars(awkward_nets).items() if hasattr(c, "example") and not n.startswith("_")}
    assert public == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_groups(name, found):
    _, groups = found(name)
    assert {group.name: group.units for group in groups.free} == {
        layer: units for layer, units in EXPECTED[name].items() if isinstance(units, int)
    }
    reasons = {layer: text for layer, text in EXPECTED[name].items() if isinstance(text, str)}
    assert {group.name for group in groups.frozen} == set(reasons)
    for group in groups.frozen:
        assert reasons[group.name] in group.reason
        assert group.reason.startswith(f"layer {group.name.removesuffix('#2')}: ")
        assert "\n" not in group.reason


@pytest.mark.parametrize("numbers", [(1, 2, 7), (1, 6)], ids=str)
@pytest.mark.parametrize("name", EXPECTED)
def test_sliced_is_masked(name, numbers, found):
    net, groups = found(name)
    for group in groups.free:  # one at a time, and all together
        units = [unit for unit in numbers if unit < group.units]
        check_slice_is_mask(net, groups, {group.name: units}, net.example[1:])
    every = {group.name: [unit for unit in numbers if unit < group.units] for group in groups.free}
    check_slice_is_mask(net, groups, every, net.example[1:])


@pytest.mark.parametrize("name", EXPECTED)
def test_refused_in_a_line_and_unchanged(name, found):
    net, groups = found(name)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    for group in groups.frozen:
        with pytest.raises(BadInput, match=f"layer {group.producers[0].layer}: "):
            slice_net(net, plan(groups, {group.name: [0]}))
    after = net.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


@pytest.mark.parametrize("name", ["Residual", "SilentSibling", "WeightNormed"])
def test_tracing_leaves_the_net_as_it_was(name):
    net = make(name)
    net.head.eval()
    net.b[0].weight.requires_grad_(False)
    before, state = copy.deepcopy(net), torch.get_rng_state()
    channel_groups(net, net.example[1:])
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in net.modules()] == [module.training for module in before.modules()]
    assert [p.requires_grad for p in net.parameters()] == [p.requires_grad for p in before.parameters()]
    for one, two in zip(net.state_dict().values(), before.state_dict().values(), strict=True):
        assert torch.equal(one, two)
