"""ResNets for small images: He et al., Deep Residual Learning, CVPR 2016, arXiv:1512.03385."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional

#: Makes the shortcut of a block whose input and output differ, from (channels in, channels out, stride).
Shortcut = Callable[[int, int, int], nn.Module]


def resnet_cifar(shape: tuple[int, int, int], classes: int, n: int) -> nn.Module:
    """The CIFAR ResNet with 6n + 2 layers (sec. 4.2): three stages of n blocks, widths 16, 32, 64, option A shortcuts.

    For three channels and 10 classes 269,722 parameters with n = 3 (ResNet-20), 464,154 with n = 5 (ResNet-32),
    853,018 with n = 9 (ResNet-56) and 1,727,962 with n = 18 (ResNet-110). Maps (B, C, H, W) to logits (B, classes).
    """
    return _resnet(shape[0], classes, widths=(16, 32, 64), blocks=(n, n, n), shortcut=PaddedShortcut)


def resnet18_cifar(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """ResNet-18 (table 1) with a 3x3 stem of stride 1 and no max pooling, so that 32 px are not thrown away.

    11,173,962 parameters for three channels and 10 classes. Maps (B, C, H, W) to logits (B, classes).
    """
    return _resnet(shape[0], classes, widths=(64, 128, 256, 512), blocks=(2, 2, 2, 2), shortcut=projection)


def resnet34_cifar(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """ResNet-34 (table 1) with the stem of `resnet18_cifar`.

    21,282,122 parameters for three channels and 10 classes. Maps (B, C, H, W) to logits (B, classes).
    """
    return _resnet(shape[0], classes, widths=(64, 128, 256, 512), blocks=(3, 4, 6, 3), shortcut=projection)


class PaddedShortcut(nn.Module):
    """Option A: subsample the input and append zero channels; no parameters.

    Maps (B, channels, H, W) to (B, width, ceil(H / stride), ceil(W / stride)).
    """

    #: The attribute that counts zero channels: slicing cuts it with the channels that they are added to.
    appends_channels = "extra"

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.extra = width - channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Every `stride`-th pixel, then `extra` channels of zeros."""
        return functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and a shortcut around them (fig. 5, left).

    Maps (B, channels, H, W) to (B, width, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, channels: int, width: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        same = channels == width and stride == 1
        self.shortcut = nn.Identity() if same else shortcut(channels, width, stride)
        self.relu1 = nn.ReLU()
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """relu(residual + shortcut), eq. 1 and 2."""
        residual = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
        return self.relu2(residual + self.shortcut(x))


def projection(channels: int, width: int, stride: int) -> nn.Module:
    """Option B: a 1x1 convolution with batch norm."""
    conv = nn.Conv2d(channels, width, 1, stride, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(width)))


def _resnet(channels: int, classes: int, widths: Sequence[int], blocks: Sequence[int], shortcut: Shortcut) -> nn.Module:
    """A 3x3 stem, a stage of so many blocks per width, each but the first halving the resolution, and a classifier."""
    net = nn.Sequential()
    stem = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
    net.add_module("stem", nn.Sequential(OrderedDict(conv=stem, norm=nn.BatchNorm2d(widths[0]), relu=nn.ReLU())))
    channels = widths[0]
    for number, (width, depth) in enumerate(zip(widths, blocks, strict=True), start=1):
        stage = nn.Sequential()
        for block in range(1, depth + 1):
            stride = 2 if number > 1 and block == 1 else 1
            stage.add_module(f"block{block}", BasicBlock(channels, width, stride, shortcut))
            channels = width
        net.add_module(f"stage{number}", stage)
    net.add_module("pool", nn.AdaptiveAvgPool2d(1))
    net.add_module("flatten", nn.Flatten())
    net.add_module("classifier", nn.Linear(channels, classes))
    return net
