"""Tiny nets of every kind of call, and a loop as a user writes it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ipbench import Pruned

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randn(12, 2, 6, 6, generator=GENERATOR)
LABELS = torch.arange(12) % 3
BATCH = IMAGES, LABELS


class Words(nn.Module):
    """Takes a dict, or named arguments; has an embedding, and gives a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 8)
        self.hidden = nn.Linear(8, 16)
        self.logits = nn.Linear(16, 3)

    def forward(self, given: dict[str, Tensor] | None = None, *, words: Tensor | None = None) -> dict[str, Tensor]:
        chosen = given["words"] if words is None else words
        return {"logits": self.logits(self.hidden(self.words(chosen).mean(1)).relu())}


class Boxes(nn.Module):
    """As torchvision's detectors: lists of images of several sizes, and losses by name where targets are given."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        found = [self.head(self.backbone(image[None])).mean((0, 2, 3)) for image in images]
        if targets is None:
            return [{"boxes": boxes} for boxes in found]
        losses = [functional.l1_loss(boxes, target["boxes"]) for boxes, target in zip(found, targets, strict=True)]
        return {"loss_boxes": torch.stack(losses).mean()}


def values(net: Pruned) -> dict[str, Tensor]:
    """Copies of the coefficients."""
    return {name: c.detach().clone() for name, c in net.masked.coefficients.items()}


def fit(net: nn.Module, optimiser: torch.optim.Optimizer, steps: int = 4) -> None:
    """The loop of a user."""
    for _ in range(steps):
        optimiser.zero_grad()
        functional.cross_entropy(net(IMAGES), LABELS).backward()
        optimiser.step()


def held(net: Pruned, before: dict[str, Tensor]) -> bool:
    """Whether what is masked is what it was, bit for bit."""
    now = values(net)
    return all(torch.equal(now[name][~mask], before[name][~mask]) for name, mask in net.masks.items())


def moved(net: Pruned, before: dict[str, Tensor]) -> bool:
    """Whether something that is kept has moved in every layer that has some."""
    now = values(net)
    return all((now[name] != before[name])[mask].any() for name, mask in net.masks.items() if mask.any())
