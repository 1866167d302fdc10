"""Filters that are built at once are those of layers that build their own, bit for bit, with all their derivatives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from ipbench.sparse import filters
from ipbench.sparse.filters import Building, divided
from ipbench.sparse.net import SparseNet
from ipbench.sparse.spaces import build_at_once
from ipbench.sparse.structure import Structure
from ipbench.spec import Basis
from ipbench.training.loop import Sgd
from tests.tiny import make_run, tiny_conv

SHAPE = (2, 6, 6)
BASES = (
    Basis(),
    Basis(sharing="stage", init="orthonormal"),
    Basis(sharing="network", init="orthonormal"),
    Basis(train=False, init="orthonormal"),
)


def deep(last: Callable[[], nn.Module] = nn.Identity) -> nn.Sequential:
    """Five 3 x 3 convolutions: enough for the order of a sum over them to show in its bits."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        convolutions = [nn.Conv2d(2 if number == 0 else 7, 7, 3, padding=1) for number in range(5)]
        parts = [part for one in convolutions for part in (one, nn.Tanh())]
        return nn.Sequential(*parts, last(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, 3))


class Twice(nn.Module):
    """Calls a convolution twice, and shares its weight with another one."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.other = (nn.Conv2d(2, 2, 3, padding=1) for _ in range(3))
        self.two.weight = self.one.weight
        self.head = nn.Linear(2, 3)

    def forward(self, images: Tensor) -> Tensor:
        images = self.one(self.two(self.one(images)).tanh()).tanh()
        return self.head(self.other(images).mean((2, 3)))


class Reversed(nn.Module):
    """Uses its convolutions in another order than it holds them, the last one never."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(2, 2, 3, padding=1) for _ in range(5))
        self.head = nn.Linear(2, 3)

    def forward(self, images: Tensor) -> Tensor:
        for number in (3, 1, 2, 0):
            images = self.convolutions[number](images).tanh()
        return self.head(images.mean((2, 3)))


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


@contextmanager
def alone() -> Iterator[None]:
    """Within the block every layer builds its own filters, as outside of passes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Building, "a_pass", lambda self, groups: contextmanager(lambda: iter([None]))())
        yield


class Calls(TorchDispatchMode):
    """Counts operators."""

    def __init__(self) -> None:
        super().__init__()
        self.count: dict[str, int] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = str(function.overloadpacket)
        self.count[name] = self.count.get(name, 0) + 1
        return function(*args, **(kwargs or {}))


def everything(net: SparseNet, batch) -> dict[str, Tensor]:
    """Outputs, gradients, second derivatives as GraSP takes them, and the tensors after two steps."""
    found: dict[str, Tensor] = {}
    logits = net(batch.images)
    loss = functional.cross_entropy(logits, batch.labels)
    found["logits"] = logits.detach()
    with torch.no_grad():
        found["logits without gradients"] = net(batch.images)
    first = net.gradients(loss, create_graph=True)
    for name, _, gradient in first:
        found[f"gradient of {name}"] = gradient.detach()
    second = net.gradients(sum((g * g.detach().sin()).sum() for _, _, g in first))  # type: ignore[arg-type]
    found |= {f"second of {name}": gradient for name, _, gradient in second}
    optimiser = Sgd(net, net.run.recipe, {})
    for _ in range(2):
        optimiser.forget_gradients()
        functional.cross_entropy(net(batch.images), batch.labels).backward()
        for name, parameter in net.named_parameters():
            if parameter.grad is not None:
                found[f"grad of {name}"] = parameter.grad.clone()
        net.mask_gradients(0.01)
        optimiser.step(0.1)
    return found | {f"after {name}": tensor.clone() for name, tensor in net.tensors().items()}


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(value, two[name]) for name, value in one.items())


@pytest.mark.parametrize("basis", BASES, ids=lambda basis: f"{basis.sharing}-{basis.init}-{basis.train}")
@pytest.mark.parametrize("make", [tiny_conv, deep], ids=["tiny", "deep"])
def test_at_once_is_alone_bit_for_bit(make, basis, batch):
    nets = [SparseNet(make(), make_run(space="ip", sparsity="0.5", basis=basis), SHAPE) for _ in range(2)]
    one = everything(nets[0], batch)
    with alone():
        two = everything(nets[1], batch)
    assert same(one, two)


@pytest.mark.parametrize("basis", BASES, ids=lambda basis: f"{basis.sharing}-{basis.init}-{basis.train}")
def test_sums_are_in_the_order_of_use(basis, batch):
    """Floating point sums over layers that share a basis; a layer that is never used has no gradient."""
    nets = [SparseNet(seeded(Reversed), make_run(space="ip", basis=basis), SHAPE) for _ in range(2)]
    one = everything(nets[0], batch)
    with alone():
        two = everything(nets[1], batch)
    assert same(one, two)
    assert nets[0].coefficients["convolutions.4"].grad is None


@pytest.mark.parametrize("basis", [Basis(), Basis(init="orthonormal", train=False)])
def test_a_weight_that_is_used_several_times(basis, batch):
    nets = [SparseNet(seeded(Twice), make_run(space="ip", basis=basis), SHAPE) for _ in range(2)]
    assert list(nets[0].layers) == ["one", "other", "head"]
    one = everything(nets[0], batch)
    with alone():
        two = everything(nets[1], batch)
    assert same(one, two)


def test_derivatives_are_those_of_finite_differences():
    """First and second ones, of coefficients and of a basis that two layers share."""
    generator = torch.Generator().manual_seed(0)
    c, d = (torch.randn(*shape, 2, 2, generator=generator, dtype=torch.float64) for shape in ((2, 3), (1, 2)))
    basis = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    given = [tensor.requires_grad_() for tensor in (c, d, basis)]

    def build(c: Tensor, d: Tensor, basis: Tensor) -> tuple[Tensor, ...]:
        one, two = filters._Combined.apply((0, 0), [0, 1], c, d, basis)
        return one.sin(), two * two

    assert torch.autograd.gradcheck(build, given)
    assert torch.autograd.gradgradcheck(build, given)


def test_filters_of_a_pass_may_be_changed_in_place():
    """As those that a layer builds: they are no views."""
    net = SparseNet(deep(), make_run(space="ip"), SHAPE)
    with net._building.a_pass(net._together):
        weight = net.layers["0"].weight
        assert not weight._is_view() and weight.is_contiguous()
        weight.mul_(2).sum().backward()
    assert torch.equal(net.coefficients["0"].grad, torch.full_like(weight, 2))


def test_outside_of_a_pass_every_layer_builds_its_own(batch):
    net = SparseNet(deep(), make_run(space="ip"), SHAPE)
    net(batch.images)
    before = net.layers["0"].weight.detach().clone()
    with torch.no_grad():
        net.coefficients["0"].mul_(3)
    assert torch.equal(net.layers["0"].weight, 3 * before)
    with pytest.raises(RuntimeError):
        net(batch.images[:, :1])  # too few channels: the pass ends all the same
    assert net._building.now is None
    net.layers["0"].weight.sum().backward()
    assert net.coefficients["0"].grad is not None and net.coefficients["2"].grad is None


def test_a_pass_inside_of_a_pass(batch):
    net = SparseNet(deep(), make_run(space="ip"), SHAPE)
    inner = []

    def again(module: nn.Module, given: object) -> None:
        handle.remove()
        inner.append(net(batch.images))

    alone_ = net(batch.images)
    handle = net.layers["4"].module.register_forward_pre_hook(again)
    assert torch.equal(net(batch.images), alone_) and torch.equal(inner[0], alone_)


class Frozen(nn.Module):
    """A part of a net that runs without gradients."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return self.part(images)


class Again(nn.Module):
    """A part of a net whose activations are computed again in the backward pass."""

    def __init__(self, part: nn.Module, reentrant: bool) -> None:
        super().__init__()
        self.part, self.reentrant = part, reentrant

    def forward(self, images: Tensor) -> Tensor:
        return checkpoint(self.part, images, use_reentrant=self.reentrant)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # nets are counted without gradients
@pytest.mark.parametrize(
    "wrapper", [Frozen, lambda part: Again(part, True), lambda part: Again(part, False)], ids=["frozen", "old", "new"]
)
def test_parts_without_gradients(wrapper, batch):
    """What is built first in such a part must not take the gradients of the layers behind it."""

    def make() -> nn.Module:
        net = deep()
        return nn.Sequential(wrapper(net[:4]), net[4:])

    images = batch.images.clone().requires_grad_()  # as reentrant checkpoints need it
    grads = []
    for how in (alone, lambda: contextmanager(lambda: iter([None]))()):
        net = SparseNet(make(), make_run(space="ip"), SHAPE)
        with how():
            functional.cross_entropy(net(images), batch.labels).backward()
        grads.append({name: p.grad for name, p in net.named_parameters() if p.grad is not None})
    assert same(*grads)
    assert sum(name.endswith("original") for name in grads[0]) == (3 if wrapper is Frozen else 5)


def test_copies_doubles_and_cuts(batch):
    """`scratch`, `linearised` and a net that has lost channels build their own tensors."""
    net = SparseNet(deep(), make_run(space="ip", basis=Basis(sharing="network", init="orthonormal")), SHAPE)
    with net.scratch() as twin:
        functional.cross_entropy(twin(batch.images), batch.labels).backward()
        assert all(c.grad is not None for c in list(twin.coefficients.values()))
        with torch.no_grad():
            twin.coefficients["0"].zero_()
    assert all(p.grad is None for p in net.parameters()) and bool(net.layers["0"].weight.any())
    with net.linearised():
        assert net(batch.images.double().abs()).dtype == torch.float64
    group = next(group for group in net.groups.free if group.units == 7)
    net.cut(Structure().without(net.groups, {group.name: torch.arange(7) < 2}))
    shapes = {name: tuple(c.shape) for name, c in net.coefficients.items()}
    assert any(shape[0] == 5 for shape in shapes.values())
    logits = net(batch.images)
    functional.cross_entropy(logits, batch.labels).backward()
    assert {name: tuple(c.grad.shape) for name, c in net.coefficients.items()} == shapes
    with torch.no_grad():
        assert torch.allclose(logits, net.plain()(batch.images), atol=1e-6)


def test_filters_under_autocast_are_in_single_precision(batch):
    net = SparseNet(deep(), make_run(space="ip", basis=Basis(init="orthonormal")), SHAPE)
    seen = []
    for layer in net.layers.values():
        if layer.kernel:
            layer.module.register_forward_hook(lambda module, given, result: seen.append(result.dtype))
    with net._building.a_pass(net._together), torch.autocast("cpu", torch.bfloat16):
        weight = net.layers["0"].weight
    assert weight.dtype == torch.float32 and torch.equal(weight, net.layers["0"].weight)
    with torch.autocast("cpu", torch.bfloat16):
        loss = functional.cross_entropy(net(batch.images).float(), batch.labels)
        loss.backward()  # inside, where autocast is on
    assert set(seen) == {torch.bfloat16}
    assert all(c.grad.dtype == torch.float32 for c in net.coefficients.values())


def test_gradients_of_coefficients_are_in_single_precision_where_autocast_is_on():
    net = SparseNet(deep(), make_run(space="ip", basis=Basis(init="orthonormal")), SHAPE)
    found = []
    for on in (False, True):
        net.zero_grad()
        with net._building.a_pass(net._together):
            weight = net.layers["2"].weight
        with torch.autocast("cpu", torch.bfloat16, enabled=on):
            weight.pow(3).sum().backward()
        found.append(net.coefficients["2"].grad)
    assert torch.equal(*found)


# Which layers are built together.


def test_large_nets_are_divided_but_never_between_layers_of_one_basis():
    def sizes(sharing: str, enough: int) -> list[int]:
        net = SparseNet(tall(), make_run(space="ip", basis=Basis(sharing=sharing)), (2, 8, 8))
        held = [net._places[name].module for name, layer in net.layers.items() if layer.kernel]
        groups = divided(held, enough)
        for one, two in pairwise(groups):
            assert not {*one.bases} & {*two.bases}
        assert [held for group in groups for held in group.held] == held
        assert all(len({*group.bases}) == len(group.bases) for group in groups)
        assert all(
            one[0].basis is group.bases[n] for group in groups for one, n in zip(group.held, group.which, strict=True)
        )
        return [len(group.held) for group in groups]

    def tall() -> nn.Sequential:
        return nn.Sequential(*(nn.Conv2d(2, 2, 3, stride=2 if n == 2 else 1, padding=1) for n in range(5)))  # 36 each

    assert sizes("layer", 36) == [1] * 5
    assert sizes("layer", 37) == [2, 2, 1]
    assert sizes("layer", 1000) == [5]
    assert sizes("stage", 1) == [2, 3]
    assert sizes("network", 1) == [5]


def test_a_divided_net_is_the_same_net(batch, monkeypatch):
    """Every group has a node of autograd where its first filters are used."""
    nets = [SparseNet(deep(), make_run(space="ip"), SHAPE) for _ in range(2)]
    held = [nets[0]._places[name].module for name, layer in nets[0].layers.items() if layer.kernel]
    monkeypatch.setattr("ipbench.sparse.spaces.divided", lambda held: divided(held, 500))
    nets[0]._building, nets[0]._together = build_at_once(nets[0].layers)
    assert len({id(group) for group in nets[0]._together.values()}) == 3 and len(held) == 5
    assert same(everything(nets[0], batch), everything(nets[1], batch))


# What a step costs.


def test_channels_last_coefficients_are_not_copied(batch):
    """In a net whose memory format is channels-last coefficients stay rows of a matrix, with masks and momentum."""
    net = SparseNet(deep(), make_run(space="ip"), SHAPE).to(memory_format=torch.channels_last)
    net.prune({name: net.uniform(name) < 0.5 for name in net.masks})
    optimiser = Sgd(net, net.run.recipe, {})
    images = batch.images.to(memory_format=torch.channels_last)
    for _ in range(2):
        optimiser.forget_gradients()
        functional.cross_entropy(net(images), batch.labels).backward()
        net.mask_gradients(0.01)
        optimiser.step(0.1)
    parameters = dict(net.net.named_parameters())
    for name, c in net.coefficients.items():
        assert c.is_contiguous() and net.masks[name].is_contiguous() and net.start[name].is_contiguous()
        assert c.grad is not None and c.grad.is_contiguous()
    assert all(buffer.stride() == parameters[name].stride() for name, buffer in optimiser.momentum.items())
    with Calls() as calls, torch.no_grad(), net._building.a_pass(net._together):
        for layer in net.layers.values():
            assert layer.weight is not None
    assert not {"aten.clone", "aten.copy_", "aten._to_copy"} & {*calls.count}
    sp = SparseNet(deep(), make_run(), SHAPE).to(memory_format=torch.channels_last)
    sp.prune({name: sp.uniform(name) < 0.5 for name in sp.masks})
    assert not sp.coefficients["2"].is_contiguous()
    assert all(sp.masks[name].stride() == c.stride() for name, c in sp.coefficients.items())


@pytest.mark.parametrize(("train", "products"), [(True, 5 * 3), (False, 5 * 2)])
def test_a_step_has_three_products_for_every_layer(batch, train, products):
    """Two if the basis is not trained."""
    net = SparseNet(deep(), make_run(space="ip", basis=Basis(train=train)), SHAPE)
    with Calls() as calls:
        net(batch.images).sum().backward()
    assert calls.count["aten.mm"] == products + 2  # of the linear layer


def test_a_pass_has_one_node_and_one_block_of_full_precision(batch, monkeypatch):
    blocks = []
    plain = filters.full_precision
    monkeypatch.setattr(filters, "full_precision", lambda: (blocks.append(1), plain())[1])
    net = SparseNet(deep(), make_run(space="ip"), SHAPE)
    loss = functional.cross_entropy(net(batch.images), batch.labels)
    assert len(blocks) == 1
    nodes, todo = set(), [loss.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in nodes:
            nodes.add(node)
            todo += [following for following, _ in node.next_functions]
    assert sum("Combined" in type(node).__name__ for node in nodes) == 1
    loss.backward()
    assert len(blocks) == 2
