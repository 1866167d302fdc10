"""A net of one's own: a function that makes it, for images of any size and any number of classes."""

from torch import nn


def small_lenet(shape, classes):
    """Two convolutions with pooling, and two linear layers."""
    return nn.Sequential(
        nn.Conv2d(shape[0], 6, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(3),
        nn.Flatten(),
        nn.Linear(144, 32),
        nn.ReLU(),
        nn.Linear(32, classes),
    )
