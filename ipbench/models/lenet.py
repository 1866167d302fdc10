"""LeNet-300-100 and Caffe's LeNet-5."""

from __future__ import annotations

import math
from collections import OrderedDict

from torch import nn


def lenet_300_100(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Two hidden layers of 300 and 100 units on the flattened input (LeCun et al., Proc. IEEE 1998).

    266,610 parameters for 1 x 28 x 28 and 10 classes. Maps (B, C, H, W) to logits (B, classes).
    """
    return nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),
            fc1=nn.Linear(math.prod(shape), 300),
            relu1=nn.ReLU(),
            fc2=nn.Linear(300, 100),
            relu2=nn.ReLU(),
            classifier=nn.Linear(100, classes),
        )
    )


def lenet5_caffe(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """The LeNet-5 of Caffe's MNIST example: one ReLU only, after the first linear layer.

    431,080 parameters for 1 x 28 x 28 and 10 classes. Maps (B, C, H, W), H and W at least 16, to logits (B, classes).
    """
    channels, *sides = shape
    positions = math.prod(((side - 4) // 2 - 4) // 2 for side in sides)  # twice: a valid 5x5 convolution, then a pool
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, 20, 5),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(20, 50, 5),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(50 * positions, 500),
            relu1=nn.ReLU(),
            classifier=nn.Linear(500, classes),
        )
    )
