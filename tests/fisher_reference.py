"""What the public code of Group Fisher and ours are both run on; `golden/fisher.json` holds what that code answers.

How the file was made: `FisherPruningHook` of Ben-Louis/FisherPruning-Pytorch at f390d75 (`fisher_pruning_hook/`), on
the CPU in double precision, with stand-ins for mmcv's `Hook`, registry and runner; the names of autograd's nodes that
it looks for are those of today's torch, and its one pass through the net is that of `toy()`. Every step is one of SGD
with the constants below on the cross entropy of the next of `batches()`, and its `after_train_iter` is called behind
it. The file holds the layers that read each group and those that make it; and for every removal the layers that read
the channel, its number, and the scores of all groups as they are compared, divided by their costs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ipbench.data.loaders import Batch

SHAPE = (2, 8, 8)
IMAGES = 6
EVERY = 3
LR, MOMENTUM, WEIGHT_DECAY = 0.02, 0.9, 1e-3
#: By name: the code's options, ours, and how many channels go. In `flops` it counts convolutions with groups otherwise.
CASES: dict[str, dict[str, Any]] = {
    "memory": {"groups": 4, "delta": "acts", "removals": 12},
    "flops": {"groups": 1, "delta": "flops", "removals": 12},
    "none": {"groups": 4, "delta": "none", "removals": 8},
    "internal": {"groups": 4, "delta": "acts", "internal_only": True, "removals": 3},
}
#: The code's names of what scores are divided by, and ours.
NORMALISE = {"acts": "memory", "flops": "flops", "none": "none"}


class Toy(nn.Module):
    """A stem, a residual block, and one with a convolution with groups and a convolution in its shortcut."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.stem, self.n1 = nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.a, self.n2 = nn.Conv2d(6, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.b, self.n3 = nn.Conv2d(4, 6, 1, bias=False), nn.BatchNorm2d(6)
        self.c, self.n4 = nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8)
        self.d, self.n5 = nn.Conv2d(8, 8, 3, padding=1, groups=groups, bias=False), nn.BatchNorm2d(8)
        self.e, self.n6 = nn.Conv2d(6, 8, 1, stride=2, bias=False), nn.BatchNorm2d(8)
        self.f, self.n7 = nn.Conv2d(8, 5, 3), nn.BatchNorm2d(5)
        self.fc = nn.Linear(5, 3)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 3)."""
        x = functional.relu(self.n1(self.stem(images)))
        x = functional.relu(x + self.n3(self.b(functional.relu(self.n2(self.a(x))))))
        x = self.n5(self.d(functional.relu(self.n4(self.c(x))))) + self.n6(self.e(x))
        x = functional.relu(self.n7(self.f(functional.relu(x))))
        return self.fc(x.mean((2, 3)))


def toy(groups: int) -> Toy:
    """The net in a known state, in double precision and training mode."""
    net = Toy(groups).double()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for tensor in net.parameters():
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            if tensor.dim() > 1:
                tensor.copy_(noise * (2 / tensor[0].numel()) ** 0.5)
            else:
                tensor.copy_(1 + 0.3 * noise)
    return net


def batches() -> Iterator[Batch]:
    """Images and labels of one step after the other."""
    generator = torch.Generator().manual_seed(7)
    while True:
        images = torch.randn(IMAGES, *SHAPE, generator=generator, dtype=torch.float64)
        yield Batch(images, torch.randint(3, (IMAGES,), generator=generator))
