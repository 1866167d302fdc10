"""What single operators do to channels: kept apart, joined, or frozen; and every cut of what is free is right."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.nn import functional

from ipbench.sparse.groups import channel_groups
from tests.sparse.agreement import check_slice_is_mask, half
from tests.sparse.awkward_nets import shake

SHAPE = (2, 6, 6)


class Net(nn.Module):
    """Layers by name and a forward given from outside."""

    def __init__(self, forward, **layers):
        super().__init__()
        for name, layer in layers.items():
            if isinstance(layer, nn.Module | nn.Parameter):
                setattr(self, name, layer)
            else:
                self.register_buffer(name, layer)
        self.way = forward

    def forward(self, x):
        return self.way(self, x)


def conv(inputs, outputs, kernel=3, **options):
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **options)


def between(operator, width=8, after=None, **layers):
    """Convolution `a` to some channels, an operator, convolution `b`."""
    return lambda: Net(
        lambda net, x: net.b(operator(net, net.a(x))), a=conv(2, width), b=conv(after or width, 3), **layers
    )


def two(operator, after=8, **layers):
    """Convolutions `a` and `c` of the image, an operator of both, convolution `b`."""
    return lambda: Net(
        lambda net, x: net.b(operator(net, net.a(x), net.c(x))), a=conv(2, 8), c=conv(2, 8), b=conv(after, 3), **layers
    )


def in_place(net, x):
    x = x.clone()
    x[:, :, 1:3] *= 2
    x.add_(1).relu_()
    return x


def scaled_by_hand(net, x):
    """Batch norm of the image's own statistics, by hand."""
    x = x - x.mean((0, 2, 3), keepdim=True)
    return x / (x.var((0, 2, 3), keepdim=True) + 0.1).sqrt() * net.scale


def selective(net, one, other):
    """Two branches weighed per channel (as selective kernels)."""
    both = torch.stack([one, other], 1)
    weights = torch.softmax(both.mean((3, 4), keepdim=True), 1)
    return (both * weights).sum(1)


def ghost(net, x):
    """Cheap maps beside the channels that they are made of."""
    return torch.cat([x, net.cheap(x)], 1)


def attention(net, x):
    flat = x.flatten(2).transpose(1, 2)
    return functional.scaled_dot_product_attention(flat, flat, flat).transpose(1, 2).reshape(x.shape)


def dense_block(net, x):
    for layer in (net.d, net.e):
        x = torch.cat([x, torch.relu(layer(x))], 1)
    return x


#: Name -> net, units of its free groups, a part of the reason of each frozen one. `b` is always frozen.
CASES = {
    # Apart: every channel stays itself.
    "activations": (
        between(lambda net, x: functional.hardswish(functional.gelu(functional.elu(functional.leaky_relu(x, 0.1))))),
        {"a": 8},
        {},
    ),
    "more activations": (
        between(lambda net, x: functional.silu(functional.relu6(functional.mish(functional.softplus(x)))).clamp(-1, 1)),
        {"a": 8},
        {},
    ),
    "dropout": (between(lambda net, x: functional.dropout2d(functional.dropout(x, 0.3), 0.2, True)), {"a": 8}, {}),
    "in place": (between(in_place), {"a": 8}, {}),
    "pools": (
        between(lambda net, x: functional.avg_pool2d(functional.max_pool2d(x, 2, ceil_mode=True), 2, 1)),
        {"a": 8},
        {},
    ),
    "adaptive pools": (
        between(lambda net, x: functional.adaptive_avg_pool2d(functional.adaptive_max_pool2d(x, 4), (2, 3))),
        {"a": 8},
        {},
    ),
    "interpolation": (
        between(lambda net, x: functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)),
        {"a": 8},
        {},
    ),
    "padding of the image": (
        between(lambda net, x: functional.pad(functional.pad(x, (1, 2, 0, 1), value=3.0), (1, 1, 1, 1), "reflect")),
        {"a": 8},
        {},
    ),
    "circular convolution": (
        between(lambda net, x: net.c(x), after=5, c=nn.Conv2d(8, 5, 3, padding=1, padding_mode="circular")),
        {"a": 8, "c": 5},
        {},
    ),
    "crop and flip of the image": (between(lambda net, x: x[:, :, 1:-1, ::2].flip(2, 3).roll(1, 3)), {"a": 8}, {}),
    "flipped channels": (between(lambda net, x: x.flip(1)), {"a": 8}, {}),
    "batch norm by hand": (between(scaled_by_hand, scale=nn.Parameter(torch.rand(1, 8, 1, 1))), {"a": 8}, {}),
    "instance norm": (
        between(lambda net, x: net.norm(x), norm=nn.InstanceNorm2d(8, affine=True, track_running_stats=True)),
        {"a": 8},
        {},
    ),
    "layer scale": (between(lambda net, x: x * net.scale, scale=nn.Parameter(torch.rand(8, 1, 1))), {"a": 8}, {}),
    "a mean per channel as a buffer": (between(lambda net, x: x - net.mean, mean=torch.rand(1, 8, 1, 1)), {"a": 8}, {}),
    "softmax over the image": (between(lambda net, x: x * x.flatten(2).softmax(2).view(x.shape)), {"a": 8}, {}),
    "a weight as a matrix": (
        between(
            lambda net, x: (x.permute(0, 2, 3, 1) @ net.w).permute(0, 3, 1, 2),
            after=5,
            w=nn.Parameter(torch.randn(8, 5)),
        ),
        {"a": 8, "w": 5},
        {},
    ),
    "a 1x1 weight used as linear": (
        between(
            lambda net, x: functional.linear(x.mean((2, 3)), net.w.weight.flatten(1))[:, :, None, None],
            after=5,
            w=conv(8, 5, 1, bias=False),
        ),
        {"a": 8, "w": 5},
        {},
    ),
    "linear on channels last": (
        between(lambda net, x: net.mix(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), after=5, mix=nn.Linear(8, 5)),
        {"a": 8, "mix": 5},
        {},
    ),
    "transposed": (
        between(lambda net, x: net.up(x), after=5, up=nn.ConvTranspose2d(8, 5, 2, 2)),
        {"a": 8, "up": 5},
        {},
    ),
    "dense block": (between(dense_block, after=16, d=conv(8, 4), e=conv(12, 4)), {"a": 8, "d": 4, "e": 4}, {}),
    # Joined.
    "sum": (two(lambda net, x, y: x + 2 * y), {"a": 8}, {}),
    "products, extremes, choices": (
        two(lambda net, x, y: torch.where(x > y, torch.maximum(x, y * x), torch.lerp(x, y, 0.3))),
        {"a": 8},
        {},
    ),
    "concatenation": (two(lambda net, x, y: torch.cat([x, y], 1), 16), {"a": 8, "c": 8}, {}),
    "concatenation along the image": (two(lambda net, x, y: torch.cat([x, y], 2)), {"a": 8}, {}),
    "concatenation along the batch": (
        lambda: Net(lambda net, x: net.b(torch.cat([net.a(x), net.c(x)], 0)), a=conv(2, 8), c=conv(2, 8), b=conv(8, 3)),
        {"a": 8},
        {},
    ),
    "selective kernels": (two(selective), {"a": 8}, {}),
    "repeated": (between(lambda net, x: x.repeat(1, 2, 1, 1), after=16), {"a": 8}, {}),
    "ghost": (between(ghost, after=16, cheap=conv(8, 8, groups=8)), {"a": 8}, {}),
    "halves": (between(lambda net, x: x.chunk(2, 1)[0] * torch.sigmoid(x.chunk(2, 1)[1]), after=4), {"a": 4}, {}),
    "gated linear unit": (between(lambda net, x: functional.glu(x, 1), after=4), {"a": 4}, {}),
    "groups of two": (between(lambda net, x: net.g(x), after=12, g=conv(8, 12, groups=4)), {"a": 4}, {}),
    "transposed with groups": (
        between(lambda net, x: net.g(x), after=4, g=nn.ConvTranspose2d(8, 4, 2, 2, groups=2)),
        {"a": 2},
        {},
    ),
    "pixel shuffle": (between(lambda net, x: functional.pixel_shuffle(x, 2), after=2), {"a": 2}, {}),
    "pixel unshuffle": (between(lambda net, x: functional.pixel_unshuffle(x, 2), after=32), {"a": 8}, {}),
    "shuffle": (between(lambda net, x: functional.channel_shuffle(x, 2)), {"a": 4}, {}),
    "shuffle in three axes": (
        between(lambda net, x: x.unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2)),
        {},
        {"a": "written into a forward"},  # unflatten names the sizes
    ),
    "unfolded image": (
        between(lambda net, x: net.mix(x.flatten(2)).unflatten(2, (6, 6)), mix=nn.Linear(36, 36)),
        {"a": 8},
        {"mix": "works along another axis than its channels'"},
    ),
    # Frozen, each with its reason.
    "layer norm": (
        between(lambda net, x: functional.layer_norm(x, x.shape[1:])),
        {},
        {"a": "native_layer_norm in the forward of Net is not known"},
    ),
    "local response norm": (between(lambda net, x: functional.local_response_norm(x, 3)), {}, {"a": "layer a: "}),
    "softmax over channels": (between(lambda net, x: x.softmax(1)), {}, {"a": "softmax in the forward of Net mixes"}),
    "sum over channels": (
        between(lambda net, x: x.sum(1, keepdim=True), after=1),
        {},
        {"a": "sum in the forward of Net mixes all of its channels"},
    ),
    "norm over channels": (
        between(lambda net, x: functional.normalize(x, dim=1)),
        {},
        {"a": "linalg_vector_norm in the forward of Net mixes all"},
    ),
    "first half": (between(lambda net, x: x[:, : x.shape[1] // 2], after=4), {}, {"a": "channels by their number"}),
    "every second": (between(lambda net, x: x[:, ::2], after=4), {}, {"a": "channels by their number"}),
    "one of them": (between(lambda net, x: x[:, 3:4], after=1), {}, {"a": "channels by their number"}),
    "unbound": (
        between(lambda net, x: torch.stack(x.unbind(1)[:4], 1), after=4),
        {},
        {"a": "channels by their number"},
    ),
    "chosen by index": (between(lambda net, x: x[:, [0, 2, 4]], after=3), {}, {"a": "index in the forward of Net"}),
    "rolled": (between(lambda net, x: x.roll(1, 1)), {}, {"a": "roll in the forward of Net mixes all"}),
    "unequal parts": (
        between(lambda net, x: torch.cat(x.split([3, 5], 1)[::-1], 1)),
        {},
        {"a": "makes unequal parts"},
    ),
    "parts of a written size": (
        between(lambda net, x: torch.cat(x.split(4, 1)[::-1], 1)),
        {},
        {"a": "written into a forward"},
    ),
    "channels as a batch": (
        between(lambda net, x: net.one(x.reshape(-1, 1, 6, 6)).reshape(x.shape), one=conv(1, 1)),
        {},
        {"a": "it is one unit", "one": "layer one: "},
    ),
    "attention": (between(attention), {}, {"a": "has no weight of the net's own"}),
    "product of activations": (
        two(lambda net, x, y: (x.flatten(2) @ y.flatten(2).transpose(1, 2))[..., None], 8),
        {},
        {"a": "bmm in the forward", "c": "bmm in the forward"},
    ),
    "a constant beside": (
        between(lambda net, x: torch.cat([x, x.new_ones(len(x), 2, 6, 6)], 1), after=10),
        {"a": 8},
        {},
    ),
    "a constant of written size": (
        between(lambda net, x: x + torch.arange(8.0).view(1, 8, 1, 1)),
        {},
        {"a": "written into a forward"},
    ),
    "written into place": (
        between(lambda net, x: torch.zeros(len(x), 8, 6, 6, dtype=x.dtype).copy_(x)),
        {},
        {"a": "written into a forward"},
    ),
    "standardised weight": (
        between(
            lambda net, x: functional.conv2d(x, net.w.weight - net.w.weight.mean((1, 2, 3), keepdim=True)),
            after=5,
            w=conv(8, 5, bias=False),
        ),
        {},
        {"a": "a computed one", "w": "layer w: "},
    ),
    "order depends on the number": (
        between(lambda net, x: x * torch.linspace(1, 2, x.shape[1], dtype=x.dtype).view(1, -1, 1, 1)),
        {},
        {"a": "gives something else"},
    ),
    "Fourier transform over channels": (
        between(lambda net, x: torch.fft.fft(x, dim=1).real + x),
        {},
        {"a": "fft"},
    ),
    "complex numbers": (
        between(lambda net, x: torch.view_as_real(torch.view_as_complex(torch.stack([x, x * 2], -1)) * 2j).sum(-1)),
        {},
        {"a": "view_as_complex"},
    ),
    "divided": (two(lambda net, x, y: x / y), {}, {"a": "something is divided"}),
    "a value is read": (
        between(lambda net, x: x * (2.0 if float(x.detach().mean()) > 1e9 else 1.0)),
        {},
        {"a": "mixes all of its channels"},
    ),
    "wide gate": (
        two(lambda net, x, y: x * y.mean(1, keepdim=True)),
        {"a": 8},
        {"c": "mean in the forward of Net mixes all"},
    ),
}


def make(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return shake(CASES[name][0]())


@pytest.mark.parametrize("name", CASES)
def test_operator(name):
    _, free, frozen = CASES[name]
    net = make(name)
    groups = channel_groups(net, SHAPE)
    assert {group.name: group.units for group in groups.free} == free
    assert {re.sub("#.*", "", group.name) for group in groups.frozen} == {*frozen, "b"}
    for layer, text in frozen.items():
        assert re.match("layer [^ ]+: ", groups[layer].reason)
        assert text in groups[layer].reason
    for seed in range(2):
        check_slice_is_mask(net, groups, half(groups, seed), SHAPE)


def test_groups_are_the_same_in_strict_mode():
    """Deterministic algorithms interpolate by other operators."""
    mode = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("error")
    try:
        groups = channel_groups(make("interpolation"), SHAPE)
        assert torch.get_deterministic_debug_mode() == 2
    finally:
        torch.set_deterministic_debug_mode(mode)
    assert {group.name: group.units for group in groups.free} == {"a": 8}


def test_groups_are_the_same_in_inference_mode():
    """It takes dropout apart."""
    with torch.inference_mode():
        groups = channel_groups(make("dropout"), SHAPE)
        assert torch.is_inference_mode_enabled()
    assert {group.name: group.units for group in groups.free} == {"a": 8}
