"""A RetinaNet of torchvision whose channels are removed: lists of images and targets, and a forward to follow.

What torchvision's detectors do with boxes cannot be followed channel by channel: `trace` calls backbone and head alone.
"""

from collections import OrderedDict

import torch
from torch import nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator

import ipbench


class Backbone(nn.Module):
    """Two levels of a small net; any other backbone of torchvision does as well."""

    out_channels = 32

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Conv2d(3, 32, 3, 4, padding=1), nn.BatchNorm2d(32), nn.ReLU()]
        self.first = nn.Sequential(*layers)
        self.second = nn.Sequential(nn.Conv2d(32, 32, 3, 2, padding=1), nn.BatchNorm2d(32), nn.ReLU())

    def forward(self, images):
        first = self.first(images)
        return OrderedDict(fine=first, coarse=self.second(first))


generator = torch.Generator().manual_seed(0)
images = [torch.rand(3, 96, 96, generator=generator) for _ in range(2)]  # your images and boxes here
targets = [{"boxes": torch.tensor([[10.0, 10.0, 50.0, 60.0]]), "labels": torch.tensor([1])}] * 2
anchors = AnchorGenerator(sizes=((16,), (32,)), aspect_ratios=((0.5, 1.0, 2.0),) * 2)
model = RetinaNet(Backbone(), num_classes=3, anchor_generator=anchors, min_size=96, max_size=96)


def loss(model, batch):
    return sum(model(*batch).values())


net = ipbench.prune(
    model, "snip", 0.5, pattern="channels", budget="macs", space="ip", batch=(images, targets), loss=loss,
    inputs=torch.stack(images), trace=lambda model, x: model.head(list(model.backbone(x).values())),
)  # fmt: skip
optimiser = torch.optim.AdamW(net.train().parameters(), lr=1e-3)
for _ in range(2):
    optimiser.zero_grad()
    loss(net, (images, targets)).backward()
    optimiser.step()
print(net.report())
small = net.eval().slice()
pairs = zip(small(images), net(images), strict=True)
same = all(torch.allclose(one["boxes"], two["boxes"], atol=1e-3) for one, two in pairs)
print("the small net finds the same:", same)
print(f"{sum(p.numel() for p in small.parameters()):,} of {sum(p.numel() for p in model.parameters()):,} parameters")
