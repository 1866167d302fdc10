"""MobileNet for small images: Howard et al., MobileNets, 2017, arXiv:1704.04861."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

#: (channels out, stride) of the 13 blocks: table 1. Its last stride of 2 is taken as 1, which its sizes ask for.
_BLOCKS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
    (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip


def mobilenet_v1(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """MobileNet of width 1 (table 1) with a stem of stride 1, so that 32 px are not thrown away.

    A 3x3 stem of 32 channels, 13 blocks of a depthwise and a pointwise convolution, batch norm and ReLU after each
    convolution and no biases there, one linear layer: the net on CIFAR-100 of OrthoReg (Lubana et al. 2020).
    3,217,226 parameters for three channels and 10 classes. Maps (B, C, H, W) to logits (B, classes).
    """
    net = nn.Sequential()
    stem = nn.Conv2d(shape[0], 32, 3, padding=1, bias=False)
    net.add_module("stem", nn.Sequential(OrderedDict(conv=stem, norm=nn.BatchNorm2d(32), relu=nn.ReLU())))
    channels = 32
    for number, (width, stride) in enumerate(_BLOCKS, start=1):
        net.add_module(f"block{number}", _separable(channels, width, stride))
        channels = width
    net.add_module("pool", nn.AdaptiveAvgPool2d(1))
    net.add_module("flatten", nn.Flatten())
    net.add_module("classifier", nn.Linear(channels, classes))
    return net


def _separable(channels: int, width: int, stride: int) -> nn.Sequential:
    """A 3x3 convolution of each channel alone, then a 1x1 convolution over all of them (fig. 3, right).

    Maps (B, channels, H, W) to (B, width, ceil(H / stride), ceil(W / stride)).
    """
    return nn.Sequential(
        OrderedDict(
            depthwise=nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False),
            norm1=nn.BatchNorm2d(channels),
            relu1=nn.ReLU(),
            pointwise=nn.Conv2d(channels, width, 1, bias=False),
            norm2=nn.BatchNorm2d(width),
            relu2=nn.ReLU(),
        )
    )
