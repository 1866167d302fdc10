"""Our models and torchvision's: half of all units removed is half of them masked, and counted right without slicing."""

from __future__ import annotations

import pytest
import torch

from ipbench.models.build import build
from ipbench.sparse.groups import channel_groups
from ipbench.sparse.measure import count
from ipbench.sparse.sliced import Sliced
from tests.sparse.agreement import check_slice_is_mask, half

#: Model -> shape of an image, free groups, their units in all. Only the classifier is frozen.
OURS = {
    "lenet-300-100": ((1, 28, 28), 2, 400),
    "lenet5-caffe": ((1, 28, 28), 3, 570),
    "small-vgg": ((3, 8, 8), 6, 448),
    "vgg16": ((3, 32, 32), 13, 4224),
    "vgg16-d": ((3, 32, 32), 15, 4224 + 1024),
    # Each depthwise convolution belongs to the pointwise one, or the stem, before it.
    "mobilenet-v1": ((3, 8, 8), 14, 32 + 64 + 2 * 128 + 2 * 256 + 6 * 512 + 2 * 1024),
    # The stem, and seven convolutions inside each of the nine blocks, whose outputs stand side by side.
    "googlenet-cifar": ((3, 8, 8), 1 + 9 * 7, 7904),
    # One convolution inside each of the nine blocks, and the residual stream in three parts: its first 16 channels
    # go through all stages, the next 16 begin with the second, the last 32 with the third.
    "resnet20-cifar": ((3, 8, 8), 12, 3 * (16 + 32 + 64) + 64),
    # One inside each of the eight blocks, and a residual stream per stage.
    "resnet18-cifar": ((3, 8, 8), 12, 3 * (64 + 128 + 256 + 512)),
}
TORCHVISION = {
    "resnet18": (32, 12, 2880),
    "resnet50": (32, 37, 11456),
    "vgg16_bn": (32, 15, 12416),
    "mobilenet_v2": (32, 25, 9128),
    "resnext50_32x4d": (32, 21, 16 * 32 + 64 + 256 + 512 + 1024 + 2048),
    "regnet_x_400mf": (32, 27, 1068),
    "googlenet": (32, 57, 7280),
}


def check(name, shape, groups_expected, units_expected):
    net = build(name, shape, 10, seed=0)
    groups = channel_groups(net, shape)
    assert [group.units for group in groups.frozen] == [10]
    assert (len(groups.free), sum(group.units for group in groups.free)) == (groups_expected, units_expected)
    removed = half(groups)
    sliced = check_slice_is_mask(net, groups, removed, shape, torch.float32)
    kept = {name: groups[name].units - len(units) for name, units in removed.items()}
    dense, counted = count(net, shape), count(sliced, shape)
    buffers = {name for name, _ in net.named_buffers()}
    for units, wanted in ((kept, counted), ({}, dense)):
        told = Sliced(dense, groups, units)
        assert (told.parameters(buffers), told.macs()) == (wanted.parameters, wanted.macs)


@pytest.mark.parametrize("name", OURS)
def test_our_models(name):
    check(name, *OURS[name])


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name == "vgg16_bn" else name for name in TORCHVISION]
)
def test_models_of_torchvision(name):
    pixels, groups, units = TORCHVISION[name]
    check(name, (3, pixels, pixels), groups, units)
