"""A small net on 8 x 8 digits, pruned before training in both spaces, in a loop of one's own with AdamW."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

import ipbench

pixels, labels = load_digits(return_X_y=True)
images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 8 - 1
labels = torch.tensor(labels)
train, test = slice(0, 1500), slice(1500, None)


def build() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


for space in ("sp", "ip"):
    net = ipbench.prune(build(), "snip", 0.9, space=space, batch=(images[:128], labels[:128]))
    optimiser = torch.optim.AdamW(net.parameter_groups(lr=0.01, weight_decay=0.01))
    for epoch in range(4):
        order = torch.randperm(1500, generator=torch.Generator().manual_seed(epoch))
        for part in order.split(64):
            optimiser.zero_grad()
            cross_entropy(net(images[train][part]), labels[train][part]).backward()
            optimiser.step()
    plain = net.eval().plain()  # an ordinary nn.Sequential
    right = (plain(images[test]).argmax(1) == labels[test]).float().mean()
    print(f"{space}: {net.report().reached:.3f} of the weights are gone, {right:.1%} of the test digits are right")
