"""Prunable weights: each tensor once, whatever holds it; what masks cannot work on is refused by name."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from torch.optim.sgd import sgd

from ipbench.data.loaders import Batch
from ipbench.errors import BadInput
from ipbench.models.initialise import initialise
from ipbench.packing.net import plain_state
from ipbench.runs.outcome import describe
from ipbench.runs.stages import Given, execute_stages
from ipbench.runs.state import End, State
from ipbench.sparse.layers import prunable_weights
from ipbench.sparse.net import SparseNet
from ipbench.spec import Basis, Recipe
from ipbench.training.loop import Sgd
from tests.tiny import TinyData, make_run, run_stages, tiny_conv

SHAPE = (2, 6, 6)


class Tied(nn.Module):
    """Two convolutions and two linear layers with one weight each, a module under two names, a transposed one."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.a, self.b = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)
            self.b.weight = self.a.weight
            self.up = nn.ConvTranspose2d(2, 3, 3)
            self.f, self.g = nn.Linear(3, 3), nn.Linear(3, 3)
            self.g.weight = self.f.weight
            self.again = self.g

    def forward(self, x):
        x = self.up(torch.tanh(self.b(torch.tanh(self.a(x))))).mean((2, 3))
        return self.again(torch.tanh(self.g(torch.tanh(self.f(x)))))


SPACES = {"sp": {}, "ip": {"space": "ip"}, "orthonormal": {"space": "ip", "basis": Basis(init="orthonormal")}}


@pytest.fixture
def batch() -> Batch:
    return Batch(torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(1)), torch.arange(4) % 3)


@pytest.mark.parametrize("values", SPACES.values(), ids=SPACES)
def test_one_tensor_is_one_layer(values, batch):
    plain, net = Tied().eval(), SparseNet(Tied(), make_run(**values), SHAPE).eval()
    assert list(net.layers) == list(net.masks) == ["a", "up", "f"]
    assert net.prunable == 36 + 54 + 9
    assert net.counted.parameters == sum(tensor.numel() for tensor in plain.parameters())
    assert net.counted.macs == 36 * 36 * 2 + 54 * 36 + 9 * 3
    assert list(net.bases) == (["a/3x3", "up/3x3"] if values else [])
    assert torch.allclose(net(batch.images), plain(batch.images), atol=1e-6)
    again = SparseNet(Tied(), make_run(**values), SHAPE)
    again.load_tensors(net.tensors())
    assert net.net.a.weight.equal(net.net.b.weight) and again.net.b.weight.equal(net.net.a.weight)


@pytest.mark.parametrize("values", [{}, {"space": "ip", "basis": Basis(train=False)}], ids=["sp", "ip"])
def test_sgd_on_tied_weights_is_torchs(values, batch):
    run = make_run(recipe=Recipe(weight_decay=0.05), **values)
    net, plain = SparseNet(Tied(), run, SHAPE), Tied()
    parameters = list(plain.parameters())
    ours, buffers = Sgd(net, run.recipe, {}), [None] * len(parameters)
    for _ in range(3):
        net.zero_grad(), plain.zero_grad()
        functional.cross_entropy(net(batch.images), batch.labels).backward()
        functional.cross_entropy(plain(batch.images), batch.labels).backward()
        net.mask_gradients(0.05)
        ours.step(0.1)
        with torch.no_grad():
            gradients = [parameter.grad for parameter in parameters]
            options = {"momentum": 0.9, "weight_decay": 0.05, "dampening": 0.0, "nesterov": False, "maximize": False}
            sgd(parameters, gradients, buffers, lr=0.1, foreach=True, **options)
    trained = plain_state(net)
    assert all(torch.allclose(trained[name], tensor, atol=1e-7) for name, tensor in plain.state_dict().items())


@pytest.mark.parametrize("values", SPACES.values(), ids=SPACES)
def test_masks_and_copies_of_tied_weights(values, batch):
    net = SparseNet(Tied(), make_run(**values), SHAPE)
    masks = {name: net.uniform(name) < 0.5 for name in net.masks}
    net.prune(masks)
    for name, c in net.coefficients.items():
        assert not bool(c[~masks[name]].any())
    with net.scratch() as twin:
        assert twin.coefficients["a"] is not net.coefficients["a"]
        with torch.no_grad():
            twin.coefficients["a"].mul_(2)
        assert torch.equal(twin.net.a.weight, twin.net.b.weight)
        assert not torch.equal(twin.net.a.weight, net.net.a.weight)
    plain = Tied()
    plain.load_state_dict(plain_state(net))
    assert torch.allclose(plain.eval()(batch.images), net.eval()(batch.images), atol=1e-6)


@pytest.mark.parametrize(
    "values", [{}, {"space": "ip", "basis": Basis(init="orthonormal", train=False)}], ids=["sp", "ip"]
)
def test_a_training_of_tied_weights_is_resumed_bit_for_bit(values, tmp_path):
    run = make_run(method="gmp", sparsity="0.6", options={"every": 2}, **values)
    whole, _ = run_stages(run, TinyData(), Tied)
    saved: list[bytes] = []
    for _ in range(2):  # the second time from where the first one stood after an epoch
        net, state = SparseNet(Tied(), run, SHAPE), State(tmp_path / "state.safetensors", run)
        state.load(net)

        def save(net=net, state=state) -> None:
            state.save(net, 0, 0)
            saved.append(state.path.read_bytes())

        execute_stages(
            net,
            TinyData(),
            state,
            Given(lambda: SparseNet(Tied(), run, SHAPE), lambda: End({}, {})),
            save=save,
            on_epoch=lambda *_: None,
        )
        state.path.write_bytes(saved[0])
        assert all(torch.equal(tensor, net.tensors()[name]) for name, tensor in whole.tensors().items())
        assert torch.equal(net.net.a.weight, net.net.b.weight)


def test_an_embedding_shares_the_classifiers_weight():
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.out = nn.Embedding(6, 4), nn.Linear(4, 6)
            self.words.weight = self.out.weight

        def forward(self, x):
            return self.out(self.words((x[:, 0, 0] * 0).long()).mean(1))

    net = SparseNet(Words(), make_run(), SHAPE)
    assert list(net.layers) == ["out"] and net.counted.not_prunable == {}
    net.prune({"out": torch.zeros(6, 4, dtype=torch.bool)})
    assert not bool(net.net.words.weight.any())
    assert SparseNet(nn.Sequential(nn.Linear(6, 2)), make_run(), SHAPE).counted.not_prunable == {}


again = nn.Parameter


def shared(make) -> nn.Sequential:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    make(net)
    return net


def held_twice() -> nn.Module:
    net = nn.Sequential(nn.Conv2d(2, 2, 3))
    net.register_parameter("filters", net[0].weight)
    return net


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda net: setattr(net[1], "weight", again(net[0].weight.data)), "0.weight and 1.weight are two tensors"),
        (lambda net: setattr(net[1], "weight", again(net[0].weight.data.view(2, 8))), "0.weight and 1.weight are"),
        (lambda net: setattr(net[1], "weight", again(net[0].weight.data[1:3])), "0.weight and 1.weight are two"),
        (lambda net: net.register_buffer("part", net[0].weight.data[0]), "0.weight and part are two tensors"),
        (lambda net: setattr(net[0], "weight", again(torch.ones(1, 4).expand(4, 4))), "0.weight: its own entries"),
        (lambda net: parametrizations.weight_norm(net[1]), "layer 1: its weight is computed from other parameters"),
        (lambda net: nn.utils.spectral_norm(net[1]), "layer 1: its weight is computed from other parameters"),
        (lambda net: net[1].requires_grad_(False), "layer 1: its weight is not trained"),
        (lambda net: net[0].to(torch.complex64), "layer 0: a weight of complex64"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Complex modules are a new feature")
def test_what_masks_cannot_work_on_is_one_line(make, words):
    with pytest.raises(BadInput, match=words) as error:
        SparseNet(shared(make), make_run(), (4,))
    assert "\n" not in str(error.value)


def test_filters_that_are_held_elsewhere_cannot_enter_the_interspace():
    assert list(SparseNet(held_twice(), make_run(), SHAPE).layers) == ["0"]
    with pytest.raises(BadInput, match=r"layer 0: its filters are also the parameter filters"):
        SparseNet(held_twice(), make_run(space="ip"), SHAPE)


def test_transposed_convolutions_in_the_interspace(batch):
    def make() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.ConvTranspose2d(2, 4, 3, stride=2, groups=2), nn.ConvTranspose2d(4, 3, 2))

    plain = make()
    net = SparseNet(make(), make_run(space="ip", basis=Basis(init="orthonormal")), SHAPE)
    assert {name: len(basis.matrix) for name, basis in net.bases.items()} == {"0/3x3": 9, "1/2x2": 4}
    assert net.masks["0"].shape == (2, 2, 3, 3)
    assert torch.allclose(net(batch.images), plain(batch.images), atol=1e-6)


def test_attention_is_pruned_and_initialised():
    net = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    initialise(net, 0)
    assert list(prunable_weights(net)) == ["self_attn.in_proj_weight", "self_attn.out_proj", "linear1", "linear2"]
    assert float(net.self_attn.in_proj_weight.detach().std()) == pytest.approx((2 / 8) ** 0.5, rel=0.2)
    assert not bool(net.self_attn.in_proj_bias.any())


def test_initial_values_of_tied_and_transposed_weights():
    tied, alone = Tied(), nn.ModuleDict({"a": nn.Conv2d(2, 2, 3)})
    initialise(tied, 3), initialise(alone, 3)
    assert torch.equal(tied.a.weight, alone["a"].weight) and tied.b.weight is tied.a.weight
    assert not bool(tied.b.bias.any())
    # 64 inputs in two groups: each output sums over 32 channels of 9 pixels.
    conv = nn.ConvTranspose2d(64, 128, 3, groups=2)
    initialise(conv, 3)
    assert float(conv.weight.detach().std()) == pytest.approx((2 / (32 * 9)) ** 0.5, rel=0.02)


def test_a_record_says_what_was_left_out():
    class Token(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.net, self.idle = nn.Parameter(torch.zeros(1, 2, 1, 1)), tiny_conv(), nn.Linear(2, 2)

        def forward(self, x):
            return self.net(x + self.token)

    def outcome(net) -> dict:
        run = make_run()
        return describe(SparseNet(net, run, SHAPE), TinyData(), State(None, run))

    told = outcome(Token())
    assert told["not_prunable"] == {"token": 2} and told["unused_layers"] == ["idle"]
    assert not {"not_prunable", "unused_layers"} & set(outcome(tiny_conv()))  # records of other nets are as before
    json.dumps(told)
