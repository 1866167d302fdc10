"""Plain stacks of 3x3 convolutions with batch norm: VGGs for CIFAR and a small one for quick runs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn


def vgg16(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """VGG-16 (Simonyan and Zisserman, ICLR 2015, configuration D) as usual for CIFAR.

    Batch norm after every convolution, no convolution biases, one linear layer. 14,715,584 prunable weights for three
    channels and 10 classes. Maps (B, C, H, W), H and W at least 32, to logits (B, classes).
    """
    return _vgg(shape[0], classes, depths=(2, 2, 3, 3, 3), poolings=5)


def vgg13_cifar(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """The VGG-13 of OrthoReg (configuration B; Lubana et al. 2020): convolutions with biases, batch norm behind ReLU.

    Ten convolutions, max pooling after every second, one linear layer: 9,416,010 parameters for three channels and 10
    classes. Maps (B, C, H, W), H and W at least 32, to logits (B, classes).
    """
    channels, stages = shape[0], OrderedDict[str, nn.Module]()
    for number, width in enumerate((64, 128, 256, 512, 512), start=1):
        stage = nn.Sequential()
        for place in (1, 2):
            stage.add_module(f"conv{place}", nn.Conv2d(channels, width, 3, padding=1))
            stage.add_module(f"relu{place}", nn.ReLU())
            stage.add_module(f"norm{place}", nn.BatchNorm2d(width))
            channels = width
        stage.add_module("pool", nn.MaxPool2d(2))
        stages[f"stage{number}"] = stage
    return _with_classifier(stages, channels, classes)


def vgg19(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """VGG-19 (configuration E) as usual for CIFAR where pruning is studied: as `vgg16`, without its last max pooling.

    The mean over what is left of the image (2x2 of 32 px) takes its place, as in the nets of GReg (Wang et al., ICLR
    2021). 20,035,018 parameters for three channels and 10 classes. Maps (B, C, H, W), H and W at least 16, to logits
    (B, classes).
    """
    return _vgg(shape[0], classes, depths=(2, 2, 4, 4, 4), poolings=4)


def vgg16_d(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """The VGG-16 of SNIP and FreezeNet: as `vgg16`, with convolution biases and two hidden linear layers of 512.

    15,239,872 prunable weights, 5,258 biases and 10,496 parameters of batch norms for three channels and 10 classes
    (Lee, Ajanthan, Torr, ICLR 2019, "VGG-D"). Maps (B, C, H, W), H and W at least 32, to logits (B, classes).
    """
    net = vgg16(shape, classes)
    for stage in list(net.children())[:5]:
        for name, layer in list(stage.named_children()):
            if isinstance(layer, nn.Conv2d):
                setattr(stage, name, nn.Conv2d(layer.in_channels, layer.out_channels, 3, padding=1))
    head = nn.Sequential()
    for number in (1, 2):
        head.add_module(f"linear{number}", nn.Linear(512, 512))
        head.add_module(f"norm{number}", nn.BatchNorm1d(512))
        head.add_module(f"relu{number}", nn.ReLU())
    head.add_module("linear3", nn.Linear(512, classes))
    net.classifier = head
    return net


def small_vgg(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Six convolutions in three stages of 32, 64 and 128 channels, strides instead of pooling.

    The first convolution has stride 2 on inputs larger than 16 px, else 1. Maps (B, C, H, W) to logits (B, classes).
    """
    channels = shape[0]
    first = 2 if min(shape[1:]) > 16 else 1
    stages: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (width, stride) in enumerate(((32, first), (64, 2), (128, 2)), start=1):
        stages[f"stage{number}"] = _stage(channels, width, [stride, 1])
        channels = width
    return _with_classifier(stages, channels, classes)


def _vgg(channels: int, classes: int, depths: Sequence[int], poolings: int) -> nn.Sequential:
    """Five stages of so many convolutions, the first `poolings` of them with max pooling, and one linear layer."""
    stages: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (width, depth) in enumerate(zip((64, 128, 256, 512, 512), depths, strict=True), start=1):
        stage = _stage(channels, width, [1] * depth)
        if number <= poolings:
            stage.add_module("pool", nn.MaxPool2d(2))
        stages[f"stage{number}"] = stage
        channels = width
    return _with_classifier(stages, channels, classes)


def _stage(channels: int, width: int, strides: Sequence[int]) -> nn.Sequential:
    """Convolution, batch norm, ReLU for each stride; a convolution bias before a norm would have no effect."""
    stage = nn.Sequential()
    for number, stride in enumerate(strides, start=1):
        stage.add_module(f"conv{number}", nn.Conv2d(channels, width, 3, stride, padding=1, bias=False))
        stage.add_module(f"norm{number}", nn.BatchNorm2d(width))
        stage.add_module(f"relu{number}", nn.ReLU())
        channels = width
    return stage


def _with_classifier(stages: OrderedDict[str, nn.Module], channels: int, classes: int) -> nn.Sequential:
    head = OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), classifier=nn.Linear(channels, classes))
    return nn.Sequential(OrderedDict(**stages, **head))
