"""A ResNet of torchvision, pruned as it is and fine-tuned; with pretrained weights they are kept.

With timm it is the same: `model = timm.create_model("resnet18", pretrained=True, num_classes=10)`.
"""

import torch
from torch.nn.functional import cross_entropy
from torchvision.models import resnet18

import ipbench

generator = torch.Generator().manual_seed(0)
images, labels = torch.rand(8, 3, 64, 64, generator=generator), torch.arange(8) % 10  # your images here
model = resnet18(weights=None, num_classes=10)  # weights="DEFAULT" and another `fc` for your classes

net = ipbench.prune(model, "magnitude", 0.8, space="ip", skip=["fc"])
same = torch.equal(net.eval().net.fc.weight, model.fc.weight)
optimiser = torch.optim.SGD(net.train().parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
for _ in range(2):
    optimiser.zero_grad()
    cross_entropy(net(images), labels).backward()
    optimiser.step()
print(net.report())
print("a plain", type(net.plain()).__name__, "again, whose classifier began as it was:", same)
