"""Tiny nets and runs that several test files use."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ipbench.data.loaders import Batch
from ipbench.spec import Recipe, Run


def make_run(**values: Any) -> Run:
    """A run of which only some values matter."""
    defaults = {"dataset": "digits", "model": "small-vgg", "method": "snip", "recipe": Recipe(epochs=2)}
    return Run(**{**defaults, **values})


def tiny_conv(channels: int = 2, classes: int = 3, seed: int = 0) -> nn.Sequential:
    """Two 3 x 3 convolutions (one grouped), a 1 x 1 convolution and a classifier, in a known state."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(channels, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 6, 3, padding=1, groups=2),
            nn.ReLU(),
            nn.Conv2d(6, 5, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(5, classes),
        )


class Fixed:
    """Stands in for `Data` where only the score batch is read."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def score_batch(self, size: int | None = None, per_class: int | None = None) -> Batch:
        return self.batch
