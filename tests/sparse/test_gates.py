"""Gates against per-sample masks that autograd differentiates, and against what removing a channel does to a loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ipbench.data.loaders import Batch
from ipbench.errors import BadInput
from ipbench.models.build import build
from ipbench.sparse.net import SparseNet
from ipbench.sparse.structure import Structure
from ipbench.sparse.view import NetView, TrainedView
from ipbench.spec import Basis
from tests.sparse import awkward_nets
from tests.sparse.awkward_nets import shake
from tests.tiny import make_run, tiny_conv

IMAGES = 4


def net_of(net: nn.Module, shape: tuple[int, int, int], space: str = "sp", **values: Any) -> SparseNet:
    """In double precision and evaluation mode."""
    basis = {"basis": Basis(init="orthonormal")} if space == "ip" else {}
    values = {"pattern": "channels", "budget": "macs", "sparsity": "0.5", **values}
    return SparseNet(net, make_run(space=space, **basis, **values), shape).double().eval()


def batch_of(shape: tuple[int, ...], classes: int, kind: torch.dtype = torch.float64) -> Batch:
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(IMAGES, *shape, generator=generator, dtype=torch.float64).to(kind)
    return Batch(images, torch.arange(IMAGES) % classes)


def by_gates(net: SparseNet, batch: Batch) -> Tensor:
    gates = NetView(net).gates()
    with gates(batch):
        functional.cross_entropy(net(batch.images), batch.labels).backward()
    return gates.gradients()


def by_masks(net: SparseNet, batch: Batch) -> Tensor:
    """The derivatives by one mask for all images and units, multiplied at the input of every module that reads them."""
    units = sum(group.units for group in net.groups.free)
    masks = torch.ones(IMAGES, units, dtype=torch.float64, requires_grad=True)
    unit_of, start = dict[str, Tensor](), 0
    modules = dict(net.net.named_modules())
    for group in net.groups.free:
        for member in group.members:
            if member.role not in ("in", "both"):
                continue
            module = modules[member.layer]
            inputs = module.in_features if isinstance(module, nn.Linear) else module.in_channels
            own = unit_of.setdefault(member.layer, torch.full((inputs,), units))
            for unit, row in enumerate(member.indices.tolist()):
                if member.role == "both":  # filters of whole groups of a convolution
                    each, filters = inputs // module.groups, module.out_channels // module.groups
                    row = [place // filters * each + i for place in row for i in range(each)]
                own[row] = start + unit
        start += group.units

    def masking(module: nn.Module, given: tuple[Tensor, ...], own: Tensor) -> tuple[Tensor, ...]:
        rows = torch.cat([masks, torch.ones(IMAGES, 1, dtype=torch.float64)], 1)[:, own]
        rows = rows.repeat_interleave(len(given[0]) // IMAGES, 0)
        if isinstance(module, nn.Linear):
            return (given[0] * rows.view(len(rows), *[1] * (given[0].dim() - 2), -1),)
        return (given[0] * rows.view(*rows.shape, *[1] * (given[0].dim() - 2)),)

    handles = [
        modules[name].register_forward_pre_hook(lambda module, given, own=own: masking(module, given, own))
        for name, own in unit_of.items()
    ]
    loss = functional.cross_entropy(net(batch.images), batch.labels)
    for handle in handles:
        handle.remove()
    return torch.autograd.grad(loss, masks)[0]


def agree(one: Tensor, two: Tensor, share: float = 1e-12) -> bool:
    return one.shape == two.shape and float((one - two).abs().max()) <= share * float(two.abs().max())


@pytest.mark.parametrize(
    ("model", "shape", "space"),
    [
        ("small-vgg", (1, 8, 8), "sp"), ("resnet20-cifar", (3, 8, 8), "ip"), ("mobilenet-v1", (3, 16, 16), "sp"),
        pytest.param("mobilenet_v2", (3, 32, 32), "ip", marks=pytest.mark.long),
        pytest.param("regnet_x_400mf", (3, 32, 32), "sp", marks=pytest.mark.long),
        pytest.param("vgg16-d", (3, 32, 32), "sp", marks=pytest.mark.long),
    ],
)  # fmt: skip
def test_gates_are_per_sample_masks(model, shape, space):
    """Coupled residual channels, option A, depthwise and grouped convolutions, linear layers behind a flattening."""
    net, batch = net_of(shake(build(model, shape, 5, 0)), shape, space), batch_of(shape, 5)
    found = by_gates(net, batch)
    assert found.dtype == torch.float64 and float(found.abs().max()) > 1e-6
    assert agree(found, by_masks(net, batch))


#: Nets with units that are read in unusual ways; all take one image.
AWKWARD = (
    "ChannelShuffle", "ChunkChain", "Decoder", "DepthMultiplier", "FlattenFree", "FlattenHeightFirst",
    "OptionACat", "Recurrent", "Residual", "SharedPRelu", "SpatialGate", "SqueezeExcite",
)  # fmt: skip


class First(nn.Module):
    """A net whose output is one matrix (N, K)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        result = self.net(images)
        result = result[0] if isinstance(result, list | tuple) else result
        return result.flatten(1)


@pytest.mark.parametrize("name", AWKWARD)
def test_gates_of_awkward_nets(name):
    kind = getattr(awkward_nets, name)
    shape = tuple(kind.example[1:])
    net = net_of(First(shake(kind())), shape)
    for parameter in net.net.parameters():
        parameter.requires_grad_(True)
    batch = batch_of(shape, 3)
    assert agree(by_gates(net, batch), by_masks(net, batch))


def test_a_head_that_is_called_at_every_level_has_the_sum():
    """Two levels of one image: the tower's gates are those of both calls (RetinaNet's heads)."""

    class Levels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.down = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 6, 3, stride=2, padding=1)
            self.tower, self.out = nn.Conv2d(6, 5, 3, padding=1), nn.Conv2d(5, 3, 1)

        def forward(self, images: Tensor) -> Tensor:
            one = functional.relu(self.stem(images))
            two = one + 0
            levels = [two, functional.relu(self.down(two))]
            return sum(self.out(functional.relu(self.tower(level))).mean((2, 3)) for level in levels)

    net, batch = net_of(Levels(), (2, 8, 8)), batch_of((2, 8, 8), 3)
    found = by_gates(net, batch)
    assert {group.name: group.units for group in net.groups.free} == {"stem": 6, "tower": 5}
    assert agree(found, by_masks(net, batch))


def test_the_derivative_of_a_loss_that_is_linear_in_a_gate_is_its_removal():
    """Brute force: of a net without activations, a gate from 1 to 0 takes exactly its derivative from the output."""
    net = net_of(
        nn.Sequential(
            nn.Conv2d(2, 5, 3, padding=1), nn.Conv2d(5, 4, 3, bias=False), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.Linear(16, 3),
        ),
        (2, 6, 6),
    )  # fmt: skip
    batch = batch_of((2, 6, 6), 3)
    gates = NetView(net).gates()
    with gates(batch):
        net(batch.images)[:, 0].sum().backward()
    found, whole = gates.gradients(), net(batch.images)[:, 0].detach()
    view = TrainedView(net, 0.0)
    assert found.shape == (IMAGES, 9) == (IMAGES, view.channels.number)
    before = {name: tensor.clone() for name, tensor in net.tensors().items()}
    for unit in range(9):
        net.masks = {name: torch.ones_like(mask) for name, mask in net.masks.items()}
        net.load_tensors(before)
        view.remove(torch.tensor([unit]))
        assert torch.allclose(whole - net(batch.images)[:, 0], found[:, unit], rtol=1e-10, atol=1e-12)


def test_by_hand():
    """L = sum of w a of the images (1, 2) and (3, -1), w = (5, 7): derivatives by gates are w a."""
    net = net_of(nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False)), (2, 1, 1))
    with torch.no_grad():
        net.net[1].weight.copy_(torch.eye(2))
        net.net[2].weight.copy_(torch.tensor([[5.0, 7.0]]))
    batch = Batch(torch.tensor([[1.0, 2.0], [3.0, -1.0]], dtype=torch.float64).view(2, 2, 1, 1), torch.zeros(2))
    gates = NetView(net).gates()
    with gates(batch):
        net(batch.images).sum().backward()
    assert gates.gradients().tolist() == [[5.0, 14.0], [15.0, -7.0]]


@pytest.mark.parametrize("space", ["sp", "ip"])
def test_a_pass_with_gates_is_a_pass_without(space):
    """Bit for bit: outputs, gradients, running statistics."""
    results = []
    for gated in (False, True):
        net = SparseNet(build("resnet20-cifar", (3, 8, 8), 5, 0), make_run(space=space), (3, 8, 8)).train()
        batch = batch_of((3, 8, 8), 5, torch.float32)
        gates = NetView(net).gates()
        if gated:
            with gates(batch):
                functional.cross_entropy(net(batch.images), batch.labels).backward()
        else:
            functional.cross_entropy(net(batch.images), batch.labels).backward()
        results.append([*net.tensors().values(), *(c.grad for c in net.coefficients.values())])
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


def test_units_of_a_net_that_is_cut_keep_their_numbers():
    net, batch = net_of(tiny_conv(), (2, 6, 6)), batch_of((2, 6, 6), 3)
    first = net.groups.free[0]
    net.cut(Structure({first.name: (first.units - 1,)}))
    found = by_gates(net, batch)
    assert found.shape[1] == sum(group.units for group in net.groups.free)
    assert not bool(found[:, : first.units - 1].any()) and bool(found[:, first.units - 1].any())
    view = NetView(net)
    assert view.channels.standing.tolist()[: first.units] == [False] * (first.units - 1) + [True]


def test_under_bf16_and_in_channels_last():
    """Products of activations and gradients are formed in single precision; the layout changes nothing but rounding."""
    shape = (3, 8, 8)
    net = net_of(shake(build("resnet20-cifar", shape, 5, 0)), shape)
    want = by_gates(net, batch_of(shape, 5))
    net, batch = net.float(), batch_of(shape, 5, torch.float32)
    gates = NetView(net).gates()
    for layout in (torch.contiguous_format, torch.channels_last):
        net.net.to(memory_format=layout)
        with gates(batch):
            functional.cross_entropy(net(batch.images.to(memory_format=layout)), batch.labels).backward()
        assert gates.gradients().dtype == torch.float32 and agree(gates.gradients().double(), want, 1e-3)
    with gates(batch):
        with torch.autocast("cpu", torch.bfloat16):
            loss = functional.cross_entropy(net(batch.images), batch.labels)
        loss.backward()
    found = gates.gradients()
    assert found.dtype == torch.float32
    assert float(np.corrcoef(found.flatten(), want.flatten())[0, 1]) > 0.99


def test_rows_of_several_regions_of_each_image_count_to_the_image():
    """Six rows for two images, three each, as a second stage of a detector has them."""

    class Regions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.one, self.two = nn.Conv2d(2, 5, 3), nn.Linear(5, 4), nn.Linear(4, 3)

        def forward(self, images: Tensor) -> Tensor:
            maps = self.conv(images).relu().mean(3)  # (N, 5, 4)
            rows = self.two(self.one(maps.transpose(1, 2).flatten(0, 1)).relu())
            return rows.view(len(images), -1, 3).mean(1)

    net, batch = net_of(Regions(), (2, 6, 6)), batch_of((2, 6, 6), 3)
    assert agree(by_gates(net, batch), by_masks(net, batch))


class Refused(nn.Module):
    """A net whose second layer is used in another way."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.one, self.two, self.three = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 1, bias=False), nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        x = self.one(images).relu()
        if self.how == "no_grad":
            with torch.no_grad():
                x = self.two(x)
        elif self.how == "product":
            x = torch.einsum("nchw,dc->ndhw", x, self.two.weight.flatten(1))
        elif self.how == "rows":
            x = torch.cat([self.two(x[:3]), self.two(x[3:])])
        elif self.how == "functional":
            x = functional.conv2d(x, self.two.weight)
        else:
            x = checkpoint(self.two, x, use_reentrant=False)
        return self.three(x.relu().mean((2, 3)))


@pytest.mark.parametrize(
    ("how", "line"),
    [
        ("no_grad", "layer two: it is called without gradients"),
        ("product", "layer two: its weight is used by flatten, and gates see convolutions and linear layers alone"),
        ("rows", "layer two: it is given 3 rows for 4 images"),
    ],
)
def test_what_gates_cannot_see_is_refused(how, line):
    net, batch = net_of(Refused("functional"), (2, 6, 6)), batch_of((2, 6, 6), 3)
    assert len(net.groups.free) == 2
    net.net.how = how
    with pytest.raises(BadInput, match=line):
        by_gates(net, batch)
    net.net.how = "functional"  # nothing is left behind
    assert bool(by_gates(net, batch).any())
    assert not net.net._forward_pre_hooks and not net.net._forward_hooks


@pytest.mark.parametrize("how", ["functional", "checkpoint"])
def test_a_call_without_its_module_or_in_a_checkpoint_is_seen(how):
    net, batch = net_of(Refused(how), (2, 6, 6)), batch_of((2, 6, 6), 3)
    found = by_gates(net, batch)
    plain = nn.Sequential(
        net.net.one, nn.ReLU(), net.net.two, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), net.net.three
    )
    twin = net_of(plain, (2, 6, 6))
    assert agree(found, by_masks(twin, batch))


def test_without_a_pass_there_is_nothing():
    gates = NetView(net_of(tiny_conv(), (2, 6, 6))).gates()
    with pytest.raises(BadInput, match="was not called"):
        gates.gradients()
