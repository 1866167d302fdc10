"""Which batch norm is that of a layer's channels."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from ipbench.models.build import build
from ipbench.sparse.net import SparseNet
from ipbench.sparse.view import NetView
from tests.tiny import make_run, tiny_conv, tiny_stack


def norms(net: nn.Module, shape: tuple[int, int, int] = (2, 6, 6), **values: str) -> dict[str, str]:
    return SparseNet(net, make_run(pattern="filters", **values), shape).norms


def chain(*parts: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), *parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


@pytest.mark.parametrize(
    ("net", "wanted"),
    [
        (chain(nn.BatchNorm2d(4)), {"0": "1"}),
        (chain(nn.ReLU(inplace=True), nn.BatchNorm2d(4)), {"0": "2"}),
        (chain(nn.MaxPool2d(2), nn.PReLU(4), nn.BatchNorm2d(4)), {"0": "3"}),
        (chain(nn.BatchNorm2d(4), nn.BatchNorm2d(4)), {"0": "1"}),
        (chain(nn.BatchNorm2d(4, affine=False)), {}),
        (chain(nn.GroupNorm(2, 4)), {}),
        (chain(nn.ReLU()), {}),
        (nn.Sequential(nn.BatchNorm2d(2), chain(nn.ReLU())), {}),
        (tiny_conv(), {"0": "1"}),
        (tiny_stack(), {"0": "1", "5": "6"}),
    ],
    ids=["plain", "behind ReLU", "behind pooling", "two in a row", "no scale", "another kind", "none", "of the image",
         "tiny_conv", "tiny_stack"],
)  # fmt: skip
def test_norms_of_chains(net, wanted):
    assert norms(net) == wanted


def test_a_norm_of_entries_is_that_of_no_filter():
    """Behind a flattening there are several entries of each channel."""
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 5), nn.BatchNorm1d(5), nn.ReLU(),
        nn.Linear(5, 3),
    )  # fmt: skip
    assert norms(net) == {"4": "5"}


class Branches(nn.Module):
    """Norms behind a sum, and behind each of its terms; one convolution with two norms; one norm called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(2, 4, 1), nn.Conv2d(2, 4, 1)
        self.of_one, self.of_sum = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.three, self.left, self.right = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.four, self.five, self.shared = nn.Conv2d(4, 6, 1), nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6)
        self.last = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.of_sum(self.of_one(self.one(x)) + self.two(x)).relu()
        x = self.three(x)
        x = self.left(x).relu() + self.right(x)
        return self.last((self.shared(self.four(x)).relu() + self.shared(self.five(x))).mean((2, 3)))


def test_norms_of_sums_and_shared_ones_are_those_of_no_layer():
    assert norms(Branches()) == {"one": "of_one"}


@pytest.mark.parametrize("space", ["sp", "ip"])
@pytest.mark.parametrize("model", ["small-vgg", "resnet20-cifar", "googlenet-cifar"])
def test_every_convolution_of_our_nets_has_its_own(model, space):
    """The norm that is registered behind it, in both spaces."""
    net = build(model, (1, 8, 8), 10, 0)
    order = [path for path, part in net.named_modules() if isinstance(part, nn.Conv2d | nn.BatchNorm2d)]
    own = {conv: norm for conv, norm in pairwise(order) if "norm" in norm and "norm" not in conv}
    assert norms(net, (1, 8, 8), model=model, space=space) == own


def test_scales_are_the_nets_own_and_those_that_are_left_of_it():
    net = SparseNet(tiny_stack(), make_run(pattern="filters"), (2, 6, 6))
    view = NetView(net)
    assert view.norms["0"] is net.net[1].weight and set(view.biases) == {"3", "5", "9"}
    assert all(bias is net.net[int(layer)].bias for layer, bias in view.biases.items())
    masks = {name: mask.clone() for name, mask in net.masks.items()}
    masks["0"][:3] = False
    net.prune(masks)
    net.slice()
    assert view.norms["0"] is net.net[1].weight and view.norms["0"].shape == (5,)
    fresh = SparseNet(tiny_stack(), make_run(pattern="filters"), (2, 6, 6))
    fresh.restore(net.structure, net.tensors(), net.masks)
    assert fresh.norms == net.norms == {"0": "1", "5": "6"}  # found behind the cut, too


def test_a_plain_copy_computes_the_same_and_leaves_the_net_alone():
    net = SparseNet(tiny_stack(), make_run(pattern="filters", space="ip"), (2, 6, 6)).double()
    pixels = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(0)).double()
    plain = NetView(net).plain()
    assert torch.allclose(plain(pixels), net.eval()(pixels), rtol=1e-12)
    gradients = plain.gradients(plain(pixels).sum())
    assert set(gradients) == set(plain.parameters) and all(p.grad is None for p in net.parameters())
    assert {name: plain.parameters[weight].shape for name, weight in plain.filters.items()} == {
        name: mask.shape for name, mask in net.masks.items()
    }
    assert OrderedDict(plain.norms) == {"0": "1.weight", "5": "6.weight"} and plain.biases["9"] == "9.bias"
