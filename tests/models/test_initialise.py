import math
from typing import get_args

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from ipbench import keys
from ipbench.errors import BadInput
from ipbench.models.initialise import SCHEMES, initialise
from ipbench.spec import Recipe


def net(**more: nn.Module) -> nn.Module:
    layers = {"conv": nn.Conv2d(3, 4, 3), "norm": nn.BatchNorm2d(4), "fc": nn.Linear(4, 2), **more}
    return nn.ModuleDict(layers)


def test_schemes_are_those_of_a_recipe():
    assert set(SCHEMES) == set(get_args(Recipe.model_fields["init"].annotation))


def test_the_stream_of_a_layer_is_that_of_its_name():
    one = net()
    initialise(one, 7)
    draws = torch.randn(4, 3, 3, 3, generator=keys.generator(7, "init", "conv"), dtype=torch.float64)
    assert torch.equal(one["conv"].weight, (draws * math.sqrt(2 / 27)).to(torch.float32))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_paired(scheme):
    one, two, other_seed = net(), net(before=nn.Linear(9, 9), fd=nn.Linear(4, 2)), net()
    initialise(one, 1, scheme)
    initialise(two, 1, scheme)
    initialise(other_seed, 2, scheme)
    for name in ("conv", "fc"):
        assert torch.equal(one[name].weight, two[name].weight)
        assert not torch.equal(one[name].weight, other_seed[name].weight)
    assert not torch.equal(two["fc"].weight, two["fd"].weight)


def test_biases_norms_and_statistics():
    one = net(layer=nn.LayerNorm(4), group=nn.GroupNorm(2, 4), plain=nn.BatchNorm2d(4, affine=False))
    for tensor in (*one.parameters(), *one.buffers()):
        tensor.data.fill_(5)
    initialise(one, 0)
    for name in ("norm", "layer", "group"):
        assert torch.equal(one[name].weight, torch.ones(4))
        assert torch.equal(one[name].bias, torch.zeros(4))
    for name in ("conv", "fc"):
        assert not one[name].bias.any()
    for name in ("norm", "plain"):
        assert torch.equal(one[name].running_var, torch.ones(4))
        assert not one[name].running_mean.any() and one[name].num_batches_tracked == 0


def test_other_parameters_and_global_generator_stay():
    one = net(embedding=nn.Embedding(3, 2))
    before, state = one["embedding"].weight.clone(), torch.get_rng_state()
    initialise(one, 0)
    assert torch.equal(one["embedding"].weight, before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("scheme", "std"),
    [
        ("kaiming_normal", math.sqrt(2 / (8 * 9))),
        ("kaiming_uniform", math.sqrt(2 / (8 * 9))),
        ("xavier_normal", math.sqrt(2 / (8 * 9 + 512 * 9))),
    ],
)
def test_standard_deviation(scheme, std):
    # A grouped convolution: fan-in is 8 = 16 / 2 channels times the kernel. 36,864 draws: 4 sigma are below 1.6 %.
    conv = nn.Conv2d(16, 512, 3, groups=2)
    initialise(conv, 3, scheme)
    assert conv.weight.std().item() == pytest.approx(std, rel=0.016)
    assert abs(conv.weight.mean().item()) < 4 * std / math.sqrt(conv.weight.numel())
    if scheme == "kaiming_uniform":
        assert 0.999 * math.sqrt(3) * std < conv.weight.abs().max().item() <= math.sqrt(3) * std * (1 + 1e-6)


def test_float64_nets_get_the_same_values():
    one, two = net(), net().double()
    initialise(one, 0)
    initialise(two, 0)
    assert torch.equal(one["conv"].weight.double(), two["conv"].weight)


def test_errors():
    with pytest.raises(BadInput, match=r"unknown init 'kaiming'.*did you mean .*valid: kaiming_normal"):
        initialise(net(), 0, "kaiming")
    conv = nn.Conv2d(1, 1, 3)
    parametrize.register_parametrization(conv, "weight", nn.Identity())
    with pytest.raises(ValueError, match="before it is parametrised"):
        initialise(nn.ModuleDict({"conv": conv}), 0)
