"""Groups of well-known nets, written down by hand: whose filters make the channels, and who reads them."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from ipbench.errors import BadInput
from ipbench.models.build import build, outline
from ipbench.sparse.groups import Group, Groups, channel_groups
from ipbench.sparse.layers import prunable_weights
from ipbench.sparse.net import SparseNet
from tests.tiny import make_run


def found(groups: Groups) -> dict[str, tuple[int, set[str], set[str]]]:
    """Name -> units, producers and consumers of every free group."""
    return {
        group.name: (group.units, {m.layer for m in group.producers}, {m.layer for m in group.consumers})
        for group in groups.free
    }


def tv(name: str) -> nn.Module:
    return torchvision.models.get_model(name, weights=None, num_classes=10)


def bottlenecks(depths: tuple[int, ...], widths: tuple[int, ...], grouped: bool) -> dict:
    """torchvision's ResNets and ResNeXts of bottleneck blocks."""
    expected = {"conv1": (64, {"conv1"}, {"layer1.0.conv1", "layer1.0.downsample.0"})}
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True), start=1):
        blocks = [f"layer{stage}.{number}" for number in range(depth)]
        for block in blocks:
            if grouped:  # 32 units: a group of the 3x3 convolution with its inputs and outputs
                expected[f"{block}.conv1"] = (32, {f"{block}.conv1", f"{block}.conv2"}, {f"{block}.conv3"})
            else:
                expected[f"{block}.conv1"] = (width, {f"{block}.conv1"}, {f"{block}.conv2"})
                expected[f"{block}.conv2"] = (width, {f"{block}.conv2"}, {f"{block}.conv3"})
        stream = {f"{block}.conv3" for block in blocks} | {f"layer{stage}.0.downsample.0"}
        readers = {f"{block}.conv1" for block in blocks[1:]}
        readers |= {"fc"} if stage == 4 else {f"layer{stage + 1}.0.conv1", f"layer{stage + 1}.0.downsample.0"}
        expected[f"layer{stage}.0.conv3"] = (256 * 2 ** (stage - 1), stream, readers)
    return expected


@pytest.mark.parametrize(
    ("name", "widths", "grouped"),
    [("resnet50", (64, 128, 256, 512), False), ("resnext50_32x4d", (128, 256, 512, 1024), True)],
)
def test_bottleneck_nets(name, widths, grouped):
    groups = channel_groups(tv(name), (3, 32, 32))
    assert found(groups) == bottlenecks((3, 4, 6, 3), widths, grouped)
    assert [group.name for group in groups.frozen] == ["fc"]


def test_mobilenet_v2():
    # (block, expansion's width, output's width, first of a new width); block 1 has no expansion.
    outputs = [16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320]
    expected = {
        # The first depthwise convolution works on the stem's channels.
        "features.0.0": (32, {"features.0.0", "features.1.conv.0.0"}, {"features.1.conv.1"}),
    }
    streams: list[tuple[int, list[int]]] = []  # width and blocks of every residual stream
    for block, width in enumerate(outputs, start=1):
        if block == 1 or width != outputs[block - 2]:
            streams.append((width, [block]))
        else:
            streams[-1][1].append(block)
        if block > 1:
            path = f"features.{block}.conv"
            wide = 6 * outputs[block - 2]
            expected[f"{path}.0.0"] = (wide, {f"{path}.0.0", f"{path}.1.0"}, {f"{path}.2"})
    for width, blocks in streams:
        producers = {f"features.{block}.conv.{1 if block == 1 else 2}" for block in blocks}
        readers = {f"features.{block + 1}.conv.0.0" if block < 17 else "features.18.0" for block in blocks}
        first = f"features.{blocks[0]}.conv.{1 if blocks[0] == 1 else 2}"
        expected[first] = (width, producers, readers)
    expected["features.18.0"] = (1280, {"features.18.0"}, {"classifier.1"})
    assert found(channel_groups(tv("mobilenet_v2"), (3, 32, 32))) == expected


def test_regnet_x_400mf():
    expected = {
        "stem.0": (32, {"stem.0"}, {"trunk_output.block1.block1-0.proj.0", "trunk_output.block1.block1-0.f.a.0"})
    }
    depths, widths = (1, 2, 7, 12), (32, 64, 160, 400)  # groups of 16 channels
    blocks = [[f"trunk_output.block{s}.block{s}-{n}" for n in range(depth)] for s, depth in enumerate(depths, start=1)]
    for stage, width in enumerate(widths):
        for path in blocks[stage]:
            expected[f"{path}.f.a.0"] = (width // 16, {f"{path}.f.a.0", f"{path}.f.b.0"}, {f"{path}.f.c.0"})
        first = blocks[stage][0]
        readers = {f"{path}.f.a.0" for path in blocks[stage][1:]}
        readers |= {f"{blocks[stage + 1][0]}.{end}" for end in ("proj.0", "f.a.0")} if stage < 3 else {"fc"}
        producers = {f"{path}.f.c.0" for path in blocks[stage]} | {f"{first}.proj.0"}
        expected[f"{first}.proj.0"] = (width, producers, readers)
    assert found(channel_groups(tv("regnet_x_400mf"), (3, 32, 32))) == expected


def test_option_a_in_three_parts():
    groups = channel_groups(build("resnet20-cifar", (3, 8, 8), 10, seed=0), (3, 8, 8))
    stream = [g for g in groups.free if any(m.layer == "classifier" for m in g.consumers)]
    assert [(g.name, g.units) for g in stream] == [
        ("stem.conv", 16),
        ("stage2.block1.conv2", 16),
        ("stage3.block1.conv2", 32),
    ]
    padding = {g.name: {m.tensor for m in g.members if m.role == "padding"} for g in stream}
    assert padding == {
        "stem.conv": set(),
        "stage2.block1.conv2": {"stage2.block1.shortcut.extra"},
        "stage3.block1.conv2": {"stage3.block1.shortcut.extra"},
    }
    last = {m.tensor: m for m in stream[1].members}["stage3.block3.conv2.weight"]
    assert last.indices[:, 0].tolist() == list(range(16, 32))


def member(group: Group, tensor: str, axis: int) -> np.ndarray:
    return next(m.indices for m in group.members if (m.tensor, m.axis) == (tensor, axis))


def test_of_one_unit_every_index():
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2 * 4, 3))
    (group, last) = channel_groups(net, (1, 2, 2))
    assert (group.name, group.units, group.reason) == ("0", 2, "")
    assert {(m.tensor, m.axis, m.role) for m in group.members} == {
        ("0.weight", 0, "out"),
        ("0.bias", 0, "vector"),
        ("1.weight", 0, "vector"),
        ("1.bias", 0, "vector"),
        ("1.running_mean", 0, "vector"),
        ("1.running_var", 0, "vector"),
        ("3.weight", 1, "in"),
    }
    assert member(group, "3.weight", 1).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert member(group, "0.weight", 0).tolist() == [[0], [1]]
    assert (last.name, last.reason) == ("3", "layer 3: the net returns its channels")


def test_json_and_back():
    groups = channel_groups(build("resnet20-cifar", (3, 8, 8), 10, seed=0), (3, 8, 8))
    again = Groups.from_json(json.loads(json.dumps(groups.to_json())))
    assert again == groups
    for one, two in zip(groups, again, strict=True):
        for left, right in zip(one.members, two.members, strict=True):
            assert np.array_equal(left.indices, right.indices)


def test_same_groups_in_either_space_and_without_values():
    run = {space: make_run(space=space, model="resnet20-cifar") for space in ("sp", "ip")}
    plain = channel_groups(build("resnet20-cifar", (3, 8, 8), 10, seed=0), (3, 8, 8)).to_json()
    for space in ("sp", "ip"):
        net = SparseNet(build("resnet20-cifar", (3, 8, 8), 10, seed=0), run[space], (3, 8, 8)).net
        before = net.stem.conv.weight.clone()
        assert channel_groups(net, (3, 8, 8)).to_json() == plain
        assert torch.equal(net.stem.conv.weight, before)
    assert channel_groups(outline("resnet20-cifar", (3, 8, 8), 10), (3, 8, 8)).to_json() == plain


def test_tied_weights_are_one():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(1, 4, 3, padding=1)
            self.one = nn.Conv2d(4, 4, 3, padding=1)
            self.two = nn.Conv2d(4, 4, 3, padding=1)
            self.two.weight = self.one.weight
            self.last = nn.Conv2d(4, 2, 1)

        def forward(self, x):
            return self.last(self.two(self.one(self.first(x))))

    # `one` reads what `first` makes, `two` what `one` makes, with the same filters: all three are one.
    net = Tied()
    assert found(channel_groups(net, (1, 4, 4))) == {"first": (4, {"first", "one"}, {"one", "last"})}
    assert set(prunable_weights(net)) == {"first", "one", "last"}


def test_of_layer_and_names():
    groups = channel_groups(build("small-vgg", (3, 8, 8), 10, seed=0), (3, 8, 8))
    assert [group.name for group in groups.of_layer("stage1.conv2")] == ["stage1.conv2"]
    assert [group.name for group in groups.of_layer("stage1.conv2", ("in",))] == ["stage1.conv1"]
    assert groups["stage1.conv2"].units == 32
    with pytest.raises(BadInput, match=r"did you mean 'stage1\.conv2'"):
        groups["stage1.conv9"]


def test_a_net_that_cannot_be_run_so():
    with pytest.raises(BadInput, match=r"cannot be run on images of shape \(2, 5, 8, 8\) in evaluation mode"):
        channel_groups(build("small-vgg", (3, 8, 8), 10, seed=0), (5, 8, 8))


def test_the_forward_may_ask_for_values():
    class Asks(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            scale = 2.0 if float(x.detach().sum()) > 1e9 else 1.0
            return self.b(torch.relu(self.a(x)) * scale)

    assert found(channel_groups(Asks(), (3,))) == {"a": (4, {"a"}, {"b"})}


@dataclass
class Output:
    logits: torch.Tensor
    hidden: dict[str, list[torch.Tensor]]


class Returns(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 2)
        self.wrap = wrap

    def forward(self, x):
        x = torch.relu(self.a(x))
        y = torch.relu(self.b(x))
        return self.wrap(self.c(y), y)


def test_everything_that_is_returned_is_kept():
    net = Returns(lambda logits, hidden: Output(logits, {"b": [hidden]}))
    assert [group.name for group in channel_groups(net, (3,)).free] == ["a"]
    assert [group.name for group in channel_groups(Returns(lambda logits, _: logits), (3,)).free] == ["a", "b"]
    with pytest.raises(BadInput, match=r"the net returns no tensors \(got float\)"):
        channel_groups(Returns(lambda *_: 1.0), (3,))


def test_a_net_of_infinite_values():
    class Overflows(Returns):
        def forward(self, x):
            return super().forward(x) * float("inf")

    with pytest.raises(BadInput, match="not finite on random images"):
        channel_groups(Overflows(lambda logits, _: logits), (3,))


def test_several_inputs():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(1, 4, 3), nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, image, vector):
            return self.c(self.a(image).mean((2, 3)) + self.b(vector))

    assert found(channel_groups(Both(), [(1, 5, 5), (3,)])) == {"a": (4, {"a", "b"}, {"c"})}


def test_groups_do_not_depend_on_values():
    class Sorted(nn.Module):
        """Weighs its channels by their number; a norm of zeros, or a pruned weight, would hide it."""

        def __init__(self):
            super().__init__()
            self.a, self.norm, self.b = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)

        def forward(self, x):
            x = self.norm(self.a(x))
            return self.b(x * torch.linspace(1, 2, x.shape[1], dtype=x.dtype, device=x.device).view(1, -1, 1, 1))

    net = Sorted()
    assert not channel_groups(net, (1, 5, 5)).free
    for hidden in (net.norm.weight, net.a.weight, net.b.weight):
        before = hidden.detach().clone()
        nn.init.zeros_(hidden)
        groups = channel_groups(net, (1, 5, 5))
        assert "gives something else" in groups["a"].reason
        assert not hidden.any()
        hidden.data.copy_(before)
