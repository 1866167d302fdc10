"""GoogLeNet for small images: Szegedy et al., Going Deeper with Convolutions, CVPR 2015, arXiv:1409.4842."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

#: Of each inception block: channels of 1x1; of 3x3 reduce, 3x3; of 5x5 reduce, 5x5; of the pooling's 1x1 (table 1).
_BLOCKS = {
    "inception3a": (64, 96, 128, 16, 32, 32),
    "inception3b": (128, 128, 192, 32, 96, 64),
    "inception4a": (192, 96, 208, 16, 48, 64),
    "inception4b": (160, 112, 224, 24, 64, 64),
    "inception4c": (128, 128, 256, 24, 64, 64),
    "inception4d": (112, 144, 288, 32, 64, 64),
    "inception4e": (256, 160, 320, 32, 128, 128),
    "inception5a": (256, 160, 320, 32, 128, 128),
    "inception5b": (384, 192, 384, 48, 128, 128),
}


def googlenet_cifar(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """GoogLeNet as it is pruned on CIFAR-10 (HRank, EPruner): table 1 from its first inception block on.

    A 3x3 stem of 192 channels and stride 1 takes the place of all before; batch norm after every convolution, no
    biases there; two 3x3 convolutions for each 5x5; no auxiliary classifiers and no dropout. 6,158,346 parameters for
    three channels and 10 classes. Maps (B, C, H, W) to logits (B, classes).
    """
    net = nn.Sequential()
    net.add_module("stem", _branch(shape[0], [(192, 3)]))
    channels = 192
    for name, widths in _BLOCKS.items():
        if name in ("inception4a", "inception5a"):
            net.add_module(f"pool{name[-2]}", nn.MaxPool2d(3, 2, padding=1))
        block = Inception(channels, *widths)
        net.add_module(name, block)
        channels = block.width
    net.add_module("pool", nn.AdaptiveAvgPool2d(1))
    net.add_module("flatten", nn.Flatten())
    net.add_module("classifier", nn.Linear(channels, classes))
    return net


class Inception(nn.Module):
    """Four branches side by side (fig. 2b), with two 3x3 convolutions in place of the 5x5.

    Maps (B, channels, H, W) to (B, `width`, H, W): 1x1, 3x3, 5x5 and the pooling's channels, in this order.
    """

    def __init__(self, channels: int, one: int, reduce3: int, three: int, reduce5: int, five: int, pool: int) -> None:
        super().__init__()
        self.width = one + three + five + pool
        self.branch1x1 = _branch(channels, [(one, 1)])
        self.branch3x3 = _branch(channels, [(reduce3, 1), (three, 3)])
        self.branch5x5 = _branch(channels, [(reduce5, 1), (five, 3), (five, 3)])
        self.pool = nn.MaxPool2d(3, 1, padding=1)
        self.branch_pool = _branch(channels, [(pool, 1)])

    def forward(self, x: Tensor) -> Tensor:
        """All branches of x, one after the other along the channels."""
        return torch.cat([self.branch1x1(x), self.branch3x3(x), self.branch5x5(x), self.branch_pool(self.pool(x))], 1)


def _branch(channels: int, convolutions: Sequence[tuple[int, int]]) -> nn.Sequential:
    """Convolution, batch norm, ReLU for each (channels out, kernel), all of the input's height and width."""
    branch: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (width, kernel) in enumerate(convolutions, start=1):
        branch[f"conv{number}"] = nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False)
        branch[f"norm{number}"] = nn.BatchNorm2d(width)
        branch[f"relu{number}"] = nn.ReLU()
        channels = width
    return nn.Sequential(branch)
