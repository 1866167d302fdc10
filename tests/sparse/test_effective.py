"""Effective coefficients: by hand, by derivatives of nets of sums, by listing all paths; what holds for every net."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ipbench.errors import BadInput
from ipbench.models.build import build
from ipbench.sparse import effective as following
from ipbench.sparse.effective import Effective, effective
from ipbench.sparse.flow import distinct
from ipbench.sparse.net import SparseNet
from ipbench.spec import Basis
from tests.scenes import DETECTORS
from tests.scenes import SHAPE as SCENE
from tests.sparse import awkward_nets
from tests.tiny import make_run

SIDE = 6


def sparse(net: nn.Module, shape=(2, SIDE, SIDE), **values) -> SparseNet:
    return SparseNet(net, make_run(**values), shape)


def only(net: SparseNet, kept: dict[str, list[tuple[int, ...]]]) -> SparseNet:
    """Keep some coefficients alone, of the layers that are named; a place without kernel means all of the kernel."""
    masks = {name: mask.clone() for name, mask in net.masks.items()}
    for layer, places in kept.items():
        masks[layer].fill_(False)
        for place in places:
            masks[layer][place] = True
    net.prune(masks)
    return net


def at_random(net: SparseNet, density: float, seed: int) -> SparseNet:
    generator = torch.Generator().manual_seed(seed)
    net.prune({name: torch.rand(mask.shape, generator=generator) < density for name, mask in net.masks.items()})
    return net


def kept(net: SparseNet) -> dict[str, int]:
    return {name: int(mask.sum()) for name, mask in net.masks.items()}


# By hand.


def test_a_chain_by_hand():
    """Of 3 hidden channels the first is not reached, the second is not read, the third is neither."""
    net = sparse(nn.Sequential(OrderedDict(a=nn.Conv2d(2, 3, 3), b=nn.Conv2d(3, 2, 1), c=nn.Conv2d(2, 1, 1))))
    only(net, {"a": [(1, 0), (2, 1, 0, 0)], "b": [(0, 0), (1, 2)], "c": [(0, 0), (0, 1)]})
    # Paths: image 1 -> a 2 -> b 1 -> c. The bias of b 0, which nothing reaches, is no path.
    assert effective(net) == Effective({"a": 1, "b": 1, "c": 1}, (), ())
    assert kept(net) == {"a": 10, "b": 2, "c": 2}


def test_an_interspace_filter_is_dead_only_if_all_its_coefficients_are():
    """One coefficient of a filter keeps the other layer's kernels; its own count is one."""
    net = sparse(nn.Sequential(OrderedDict(a=nn.Conv2d(2, 2, 3), b=nn.Conv2d(2, 1, 3))), space="ip")
    only(net, {"a": [(0, 0, 2, 2)], "b": [(0, 0), (0, 1)]})
    assert effective(net).kept == {"a": 1, "b": 9}
    only(net, {"a": []})
    assert effective(net).kept == {"a": 0, "b": 0}


def test_a_residual_stream_is_read_before_it_is_written():
    """Blocks of one stream: what a later block writes does not reach an earlier one. Channel groups cannot tell."""

    class Stream(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.one, self.two, self.out = (nn.Conv2d(2, 2, 1) for _ in range(4))

        def forward(self, x):
            x = self.stem(x)
            x = x + self.one(x)
            x = x + self.two(x)
            return self.out(x)

    net = sparse(Stream())
    # Channel 1 comes to life in block two alone: block one reads it for nothing, the last layer does not.
    only(net, {"stem": [(0, 0)], "one": [(0, 1)], "two": [(1, 0)], "out": [(0, 1)]})
    assert effective(net).kept == {"stem": 1, "one": 0, "two": 1, "out": 1}
    # And what block two writes into channel 0 after which only channel 1 is read, is for nothing.
    only(net, {"stem": [(0, 0), (1, 1)], "one": [(1, 0)], "two": [(0, 1)], "out": [(0, 1)]})
    assert effective(net).kept == {"stem": 2, "one": 1, "two": 0, "out": 1}


def test_a_depthwise_kernel_is_one_edge():
    net = sparse(nn.Sequential(OrderedDict(a=nn.Conv2d(2, 3, 1), b=nn.Conv2d(3, 6, 3, groups=3), c=nn.Conv2d(6, 1, 1))))
    only(net, {"a": [(0, 0), (1, 0)], "b": [(1, 0, 1, 1), (2, 0), (4, 0)], "c": [(0, 1), (0, 2), (0, 5)]})
    # b: outputs 0, 1 read channel 0; 2, 3 channel 1; 4, 5 channel 2, which nothing makes.
    assert effective(net).kept == {"a": 2, "b": 10, "c": 2}


def test_groups_of_a_transposed_convolution():
    net = sparse(
        nn.Sequential(OrderedDict(a=nn.Conv2d(2, 4, 1), b=nn.ConvTranspose2d(4, 6, 2, groups=2), c=nn.Conv2d(6, 1, 1)))
    )
    # b has inputs along its rows: (4, 3). Inputs 0, 1 make outputs 0 to 2; inputs 2, 3 outputs 3 to 5.
    only(net, {"a": [(2, 0), (0, 0)], "b": [(2, 1), (3, 1), (0, 2)], "c": [(0, 4), (0, 1)]})
    assert effective(net).kept == {"a": 1, "b": 4, "c": 1}


def test_flatten_before_a_linear_layer():
    """Columns of a linear layer belong to channels: 4 positions of each of 2; one column keeps a channel alive."""
    net = sparse(nn.Sequential(OrderedDict(a=nn.Conv2d(1, 2, 1), f=nn.Flatten(), b=nn.Linear(8, 2))), (1, 2, 2))
    only(net, {"a": [(1, 0)], "b": [(0, 0), (0, 3), (1, 7)]})
    assert effective(net).kept == {"a": 1, "b": 1}


def test_a_tied_weight_counts_if_one_of_its_uses_does():
    """Applied twice, from channel 0 to 1 and then from 1 to 0; of the first use alone, (0, 1) would be dead."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.inner, self.out = nn.Linear(1, 2), nn.Linear(2, 2), nn.Linear(2, 1)

        def forward(self, x):
            return self.out(self.inner(self.inner(self.stem(x))))

    net = only(sparse(Twice(), (1,)), {"stem": [(0, 0)], "inner": [(1, 0), (0, 1)], "out": [(0, 0)]})
    assert effective(net).kept == {"stem": 1, "inner": 2, "out": 1}


def test_gates_connect_from_both_sides():
    """Squeeze-excite: the gate of a channel whose own filter is gone scales a constant, and is a path."""
    net = sparse(awkward_nets.SqueezeExcite(), (3, 8, 8))
    only(net, {"exp.0": [(0, 0)], "red": [(0, 0)], "gate": [(3, 0)], "proj": [(0, 3)], "head.fc": [(0, 0)]})
    found = effective(net).kept
    # exp 0 -> dw 0 -> red 0 -> gate 3 -> proj; channel 3 of dw is not reached, dw 0 is read by the gate alone.
    assert found == {"exp.0": 1, "dw.0": 9, "red": 1, "gate": 1, "proj": 1, "head.fc": 1}


def test_constants_are_no_paths():
    """An offset that is learned, and a norm's shift, keep nothing alive."""

    class Offset(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.norm, self.b = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1)
            self.offset = nn.Parameter(torch.ones(1, 2, 1, 1))

        def forward(self, x):
            return self.b(self.norm(self.a(x)) * self.offset + self.offset)

    assert effective(only(sparse(Offset()), {"a": [(0, 0)]})).kept == {"a": 1, "b": 1}


def test_layers_that_only_training_uses_are_on_no_path():
    found = effective(sparse(awkward_nets.SilentSibling(), (3, 8, 8))).kept
    assert found["aux"] == found["never"] == 0 and found["a.0"] == 8 * 3 * 9


@pytest.mark.parametrize("off", ["frozen", "decayed"])
def test_masked_coefficients_with_a_value_are_edges(off):
    net = sparse(nn.Sequential(nn.Conv2d(2, 3, 1), nn.Conv2d(3, 1, 1)), off=off, method="freezenet")
    only(net, {"0": [(0, 0)], "1": [(0, 2)]})
    assert effective(net).kept == {"0": 1, "1": 1}


# Operators without a rule, and weights that are used otherwise.


def test_what_cannot_be_followed_connects_and_is_told():
    class Sorted(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(2, 3), nn.Linear(3, 1)

        def forward(self, x):
            return self.b(self.a(x)[:, torch.tensor([2, 0, 1])])

    net = only(sparse(Sorted(), (2,)), {"a": [(0, 0), (1, 1)], "b": [(0, 0)]})
    # Exact would be 0 and 0: b reads channel 2, which nothing makes.
    assert effective(net) == Effective({"a": 2, "b": 1}, (), ("index",))


def test_a_weight_that_is_no_factor_counts_whole():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.dead = nn.Linear(2, 3), nn.Linear(3, 1), nn.Linear(2, 3)

        def forward(self, x):
            y = nn.functional.linear(x, self.a.weight * 0.5)
            _ = nn.functional.linear(x, self.dead.weight * 0.5)
            return self.b(y)

    found = effective(only(sparse(Scaled(), (2,)), {"a": [(0, 0)], "b": [(0, 1)]}))
    assert found == Effective({"a": 1, "b": 1, "dead": 0}, ("a", "dead"), ())


def test_a_net_that_keeps_a_state_between_passes_is_refused():
    class Remembering(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(2, 2)
            self.register_buffer("last", torch.zeros(1, 2))

        def forward(self, x):
            y = self.a(x) + self.last
            self.last.copy_(y)
            return y

    with pytest.raises(BadInput, match=r"cannot be followed: ValueError: .* writes into a tensor of the net"):
        effective(sparse(Remembering(), (2,)))


# By derivatives: with positive coefficients, no biases and nothing but sums, the output is a sum over paths.


def of_paths(net: SparseNet) -> SparseNet:
    """The net in double precision with positive coefficients where its masks are, and neither biases nor shifts."""
    net = net.double().eval()
    generator = torch.Generator().manual_seed(1)
    coefficients = {id(c) for c in net.coefficients.values()}
    with torch.no_grad():
        for name, tensor in net.tensors().items():
            if tensor.is_floating_point() and tensor.dim() == 1:
                tensor.fill_(0.0 if name.endswith(("bias", "running_mean")) else 1.0)
        for name, c in net.coefficients.items():
            c.copy_((0.5 + torch.rand(c.shape, generator=generator, dtype=torch.float64)) * net.masks[name])
    assert coefficients
    return net


def by_derivatives(net: SparseNet, shape: tuple[int, ...]) -> dict[str, int]:
    """How many coefficients the part of the output that depends on the input depends on."""
    of_paths(net)
    results = net(torch.ones(1, *shape, dtype=torch.float64))
    results = [results] if isinstance(results, Tensor) else list(results)
    gradients = net.gradients(sum(result.sum() for result in results))
    return {name: int(torch.count_nonzero(c.detach() * gradient)) for name, c, gradient in gradients}


class Drawn(nn.Module):
    """A net of steps on a list of tensors of one size, each (what, which tensors, channels)."""

    def __init__(self, steps: list[tuple], flat: bool) -> None:
        super().__init__()
        self.steps, self.flat, self.layers, widths = steps, flat, nn.ModuleList(), [2]
        for what, places, width in steps:
            first = widths[places[0] % len(widths)]
            layer: nn.Module = nn.Identity()
            made = first
            if what in ("3x3", "1x1"):
                layer, made = nn.Conv2d(first, width, int(what[0]), padding=int(what[0]) // 2), width
            elif what == "groups":
                layer, made = nn.Conv2d(first, 2 * first, 1, groups=2 if first % 2 == 0 else 1), 2 * first
            elif what == "depthwise":
                layer = nn.Conv2d(first, first, 3, padding=1, groups=first)
            elif what == "norm":
                layer = nn.Sequential(nn.BatchNorm2d(first), nn.ReLU())
            elif what == "pool":
                layer = nn.AvgPool2d(3, 1, 1)
            elif what == "cat":
                made = sum(widths[place % len(widths)] for place in places)
            self.layers.append(layer)
            widths.append(made)
        self.head = nn.Linear(widths[-1] * (SIDE * SIDE if flat else 1), 2)
        self.widths = widths

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for (what, places, _), layer in zip(self.steps, self.layers, strict=True):
            given = [values[place % len(values)] for place in places]
            result = layer(given[0])
            if what == "sum":
                same = [value for value in values if value.shape == result.shape]
                result = result + same[places[-1] % len(same)]
            elif what == "cat":
                result = torch.cat(given, 1)
            elif what == "shuffle" and result.shape[1] % 2 == 0:
                n, c, *sides = result.shape
                result = result.view(n, 2, c // 2, *sides).transpose(1, 2).reshape(n, c, *sides)
            values.append(result)
        last = values[-1].flatten(1) if self.flat else values[-1].mean((2, 3))
        return self.head(last)


POINTWISE = ("1x1", "groups", "norm", "sum", "cat", "shuffle")


@st.composite
def nets(draw: st.DrawFn) -> Drawn:
    """Random ones; before a flatten without filters that move things, for positions are not told apart."""
    flat = draw(st.booleans())
    kinds = st.sampled_from(POINTWISE if flat else (*POINTWISE, "3x3", "depthwise", "pool"))
    place = st.integers(0, 5)
    steps = draw(st.lists(st.tuples(kinds, st.tuples(place, place), st.integers(1, 4)), min_size=1, max_size=5))
    # Mostly one after another, so that paths are long.
    steps = [(w, (n if draw(st.booleans()) else a, b), c) for n, (w, (a, b), c) in enumerate(steps)]
    return Drawn(steps, flat)


@settings(max_examples=60, deadline=None)
@given(
    net=nets(), density=st.sampled_from([0.2, 0.4, 0.7]), seed=st.integers(0, 99), space=st.sampled_from(["sp", "ip"])
)
def test_random_nets_by_derivatives(net, density, seed, space):
    made = at_random(sparse(net, space=space), density, seed)
    found = effective(made).kept
    wanted = by_derivatives(made, (2, SIDE, SIDE))
    assert found == wanted


@pytest.mark.parametrize("space, density", [("sp", 0.1), ("ip", 0.1), ("sp", 0.3)])
@pytest.mark.parametrize(
    "name", [name for name, kind in vars(awkward_nets).items() if hasattr(kind, "example") and name != "WeightNormed"]
)
def test_awkward_nets_by_derivatives(name, space, density, monkeypatch):
    """Never too few; and where nothing but sums is in a net, none too many. It is all one whether values are used."""
    kind = getattr(awkward_nets, name)
    net = at_random(sparse(kind().requires_grad_(True), kind.example[1:], space=space), density, 3)
    found = effective(net)
    wanted = by_derivatives(net, kind.example[1:])
    assert all(found.kept[layer] >= number for layer, number in wanted.items())
    more = {"LstmTail", "SpatialGate", "SqueezeExcite", "GroupNorms", "ChannelsLastNorm"}
    if name not in more:
        assert found.kept == wanted
    assert not found.whole_layers and not found.mixing
    monkeypatch.setattr(following, "_SMALL", 0)
    assert effective(net) == found


# By listing all paths of linear layers.


def listed(masks: list[np.ndarray]) -> list[int]:
    """How many entries of matrices (outputs, inputs), one after another, are on a path through all of them."""
    on = [np.zeros_like(mask) for mask in masks]

    def walk(depth: int, channel: int, path: list[tuple[int, int]]) -> None:
        if depth == len(masks):
            for layer, place in zip(on, path, strict=True):
                layer[place] = True
            return
        for output in np.flatnonzero(masks[depth][:, channel]):
            walk(depth + 1, output, [*path, (output, channel)])

    for channel in range(masks[0].shape[1]):
        walk(0, channel, [])
    return [int(layer.sum()) for layer in on]


@settings(max_examples=30, deadline=None)
@given(
    widths=st.lists(st.integers(1, 5), min_size=2, max_size=5), density=st.floats(0.1, 0.9), seed=st.integers(0, 999)
)
def test_perceptrons_by_listing_all_paths(widths, density, seed):
    layers = [nn.Sequential(nn.Linear(one, two), nn.ReLU()) for one, two in pairwise(widths)]
    net = at_random(sparse(nn.Sequential(*layers), (widths[0],)), density, seed)
    assert list(effective(net).kept.values()) == listed([mask.numpy() for mask in net.masks.values()])


# What holds for every net.


@pytest.mark.parametrize("model, space", [("resnet20-cifar", "sp"), ("resnet20-cifar", "ip"), ("mobilenet-v1", "ip")])
def test_masks_of_effective_coefficients_alone_are_effective(model, space):
    """Everything is, of a dense net; of a pruned one, no more than is kept; and cutting dead channels changes none."""
    net = sparse(build(model, (3, 32, 32), 10, 0), (3, 32, 32), model=model, dataset="cifar10", space=space)
    assert effective(net).kept == kept(net)
    at_random(net, 0.02, 0)
    found = effective(net).kept
    assert all(found[name] <= number for name, number in kept(net).items()) and found != kept(net)
    net.slice()
    assert net.structure and effective(net).kept == found


@pytest.mark.parametrize("name", DETECTORS)
def test_detectors(name, monkeypatch):
    """Everything leads to one of the outputs; without the first layer nothing does. No values are needed."""
    net = sparse(DETECTORS[name](), SCENE, dataset="fashion-scenes")
    found = effective(net)
    used = {layer.name for layer in net.counted.layers if layer.positions}
    assert found.kept == {layer: number * (layer in used) for layer, number in kept(net).items()}
    assert not found.whole_layers
    monkeypatch.setattr(following, "_SMALL", 0)
    assert effective(net) == found
    first = next(iter(net.masks))
    assert not any(effective(only(net, {first: []})).kept.values())


def test_attention_is_followed_through():
    """A transformer's layer: heads of attention, norms over channels, a linear layer of which half is never read."""
    layer = nn.TransformerEncoderLayer(8, 2, 6, batch_first=True, norm_first=True)
    net = sparse(nn.Sequential(OrderedDict(block=layer, out=nn.Linear(8, 2))), (5, 8))
    only(net, {"block.linear2": [(0, 0), (1, 1), (2, 2)]})
    found = effective(net)
    assert not found.mixing and found.kept["block.linear1"] == 3 * 8 and found.kept["block.linear2"] == 3
    assert found.kept["block.self_attn.in_proj_weight"] == 3 * 8 * 8


def test_nothing_of_the_net_changes():
    net = at_random(sparse(build("resnet20-cifar", (3, 32, 32), 10, 0), (3, 32, 32), space="ip"), 0.1, 0)
    before = {name: tensor.clone() for name, tensor in net.tensors().items()}
    state, training = torch.get_rng_state(), net.training
    effective(net)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.tensors().items())
    assert torch.equal(torch.get_rng_state(), state) and net.training == training


@given(rows=st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=1, max_size=20))
def test_distinct_rows(rows):
    found, which = distinct(np.array(rows))
    assert {tuple(row) for row in found.tolist()} == set(rows) and len(found) == len(set(rows))
    assert found[which].tolist() == [list(row) for row in rows]


def test_a_basis_that_is_no_pixel_changes_nothing():
    """Which filters a basis has is no matter: coefficients are edges whatever they are multiplied with."""
    found = [
        effective(
            at_random(
                sparse(build("resnet20-cifar", (3, 32, 32), 10, 0), (3, 32, 32), space="ip", basis=basis), 0.03, 0
            )
        )
        for basis in (Basis(), Basis(init="orthonormal"))
    ]
    assert found[0] == found[1]
