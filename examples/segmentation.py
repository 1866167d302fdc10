"""A segmentation net of torchvision: the net gives a dict, and the loss is one's own."""

import torch
from torch.nn.functional import cross_entropy
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

import ipbench

generator = torch.Generator().manual_seed(0)
images = torch.rand(4, 3, 64, 64, generator=generator)  # your images and maps of classes here
maps = torch.randint(5, (4, 64, 64), generator=generator)


def loss(model, batch):
    return cross_entropy(model(batch[0])["out"], batch[1])


model = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5)
net = ipbench.prune(model, "snip", 0.8, space="ip", batch=(images, maps), loss=loss)
optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3)
for _ in range(2):
    optimiser.zero_grad()
    loss(net, (images, maps)).backward()
    optimiser.step()
print(net.report())
print(net.save("segmentation.ipb").total, "bytes")
