"""Multiply-accumulates of weights however they are used, by hand; whatever cannot be counted is refused by name."""

from __future__ import annotations

import warnings
from functools import cache

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from torch.utils.flop_counter import FlopCounterMode

from ipbench.errors import BadInput
from ipbench.models.build import outline
from ipbench.sparse.measure import count, sparse_macs, two_stage_macs


class Made(nn.Module):
    """A net of a function and the modules and parameters that it uses."""

    def __init__(self, forward, **held) -> None:
        super().__init__()
        self.function = forward
        for name, value in held.items():
            setattr(self, name, value)

    def forward(self, x):
        return self.function(self, x)


@cache
def known(name: str, side: int) -> nn.Module:
    return outline(name, (3, side, side), 1000)


def found(net: nn.Module, *shape: int) -> dict[str, int]:
    return {layer.name: layer.macs for layer in count(net, shape).layers}


def swin_t(side: int) -> int:
    """By hand: the attention's projections, 4 C^2 weights, see whole windows of 7; the MLP, 8 C^2, what is there."""
    total, channels, tokens = 96 * 48 * (side // 4) ** 2 + 768 * 1000, 96, side // 4
    for depth in (2, 2, 6, 2):
        padded = -(-tokens // 7) * 7
        total += depth * (4 * channels**2 * padded**2 + 8 * channels**2 * tokens**2)
        if channels < 768:
            total += 8 * channels**2 * (tokens // 2) ** 2
        channels, tokens = 2 * channels, tokens // 2
    return total


@pytest.mark.parametrize(
    ("name", "side", "macs", "prunable", "not_prunable"),
    [
        # 196 patches of 16 x 16 x 3; 197 tokens through 12 layers of 4 and 8 times 768^2 weights; one token classified.
        ("vit_b_16", 224, 196 * 768 * 768 + 197 * 12 * 12 * 768**2 + 768_000, 86_292_480, 768 + 197 * 768),
        ("swin_t", 224, swin_t(224), 28_199_424, 169 * 138),
        ("swin_t", 64, swin_t(64), 28_199_424, 169 * 138),
        # As torchvision states them for its weights: 0.301, 1.498 and 2.834 G.
        ("mobilenet_v2", 224, 300_774_272, 3_469_760, 0),
        ("googlenet", 224, 1_498_376_192, 6_609_344, 0),
        ("densenet121", 224, 2_834_161_664, 7_894_208, 0),
    ],
)
def test_torchvision(name, side, macs, prunable, not_prunable):
    counted = count(known(name, side), (3, side, side))
    assert counted.macs == macs
    assert counted.prunable == prunable
    assert sum(counted.not_prunable.values()) == not_prunable
    assert counted.unseen == [] and all(layer.prunable for layer in counted.layers)


def test_vit_is_what_torch_counts_without_the_products_inside_attention():
    net, shape = known("vit_b_16", 224), (3, 224, 224)
    assert count(net, shape).macs == 16_848_500_736  # 16.85 G
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            net.eval()(torch.empty(1, *shape, device="meta"))
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    attention = 12 * 2 * 197**2 * 768
    assert counter.get_total_flops() // 2 in (16_848_500_736, 16_848_500_736 + attention)


def test_a_weight_that_is_used_without_calling_its_module():
    net = Made(lambda net, x: functional.conv2d(x, net.conv.weight, padding=1), conv=nn.Conv2d(2, 3, 3))
    assert found(net, 2, 4, 4) == {"conv": 54 * 16}
    net = Made(lambda net, x: torch.einsum("bi,oi->bo", net.a(x), net.b.weight), a=nn.Linear(5, 4), b=nn.Linear(4, 3))
    assert found(net, 5) == {"a": 20, "b": 12}
    options = (None, [1], [1], [1], False, [0], 1)  # one number for both sides
    net = Made(lambda net, x: torch.convolution(x, net.conv.weight, *options), conv=nn.Conv2d(2, 3, 3))
    assert found(net, 2, 4, 4) == {"conv": 54 * 16}
    both = Made(lambda net, x: net.a(x) + functional.linear(x, net.a.weight), a=nn.Linear(5, 4))
    assert found(both, 5) == {"a": 40}


def test_transposed_convolution_by_hand():
    net = nn.Sequential(nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2))  # every weight once per input pixel
    (layer,) = count(net, (4, 5, 5)).layers
    assert (layer.kind, layer.shape, layer.parameters, layer.macs) == ("transposed", (4, 3, 3, 3), 114, 108 * 25)
    assert sparse_macs([layer], {"0": 10}) == 250
    # Combined first, then convolved: 6 output channels of 9 filters of 9 entries.
    assert two_stage_macs([layer], {"0": 10}, ["0"]) == 6 * 81 * 25 + 250


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_recurrent_layers_by_hand(kind, gates):
    net = Made(lambda net, x: net.rnn(x[:, 0])[0], rnn=kind(5, 7, batch_first=True, bidirectional=True))
    each = {"weight_ih_l0": 5 * 7 * gates * 4, "weight_hh_l0": 7 * 7 * gates * 4}  # four steps, the first one too
    assert found(net, 1, 4, 5) == {f"rnn.{name}{way}": macs for way in ("", "_reverse") for name, macs in each.items()}


def test_attention_by_hand():
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    net = Made(lambda net, x: net.attention(x[:, 0], x[:, 0], x[:, 0])[0], attention=attention)
    assert found(net, 1, 5, 8) == {"attention.in_proj_weight": 3 * 64 * 5, "attention.out_proj": 64 * 5}
    assert count(net, (1, 5, 8)).layers[0].parameters == 3 * 64 + 24
    assert count(net, (1, 5, 8)).not_prunable == {}


def test_a_learned_token_asks():
    """One query against five: the projection of the queries works on one row, though that is no part of the image."""
    net = Made(
        lambda net, x: net.attention(net.token.expand(len(x), -1, -1), x[:, 0], x[:, 0])[0],
        attention=nn.MultiheadAttention(8, 2, batch_first=True),
        token=nn.Parameter(torch.randn(1, 1, 8)),
    )
    counted = count(net, (1, 5, 8))
    assert found(net, 1, 5, 8) == {"attention.in_proj_weight": 64 * (1 + 5 + 5), "attention.out_proj": 64}
    assert counted.not_prunable == {"token": 8}
    assert sparse_macs(counted.layers, {"attention.in_proj_weight": 96}) == 64 * 11 // 2 + 64


def test_tensors_that_are_no_layers_are_counted_and_told():
    net = Made(
        lambda net, x: functional.conv2d(x, net.kernel, groups=2).flatten(1) @ net.matrix,
        matrix=nn.Parameter(torch.randn(18, 3)),
        kernel=nn.Buffer(torch.ones(2, 1, 3, 3)),
        scale=nn.Parameter(torch.ones(2, 1, 1)),
    )
    counted = count(net, (2, 5, 5))
    assert found(net, 2, 5, 5) == {"kernel": 18 * 9, "matrix": 54}
    assert counted.prunable == 0 and counted.not_prunable == {"matrix": 54, "scale": 2}
    assert sparse_macs(counted.layers, {}) == counted.macs
    bilinear = Made(lambda net, x: net.pair(x, x), pair=nn.Bilinear(5, 5, 3))
    assert found(bilinear, 5) == {"pair.weight": 75} and count(bilinear, (5,)).not_prunable == {"pair.weight": 75}


@pytest.mark.parametrize(
    "weight",
    [
        lambda net: (net.conv.weight.view(-1, 9) @ net.basis).view_as(net.conv.weight),
        lambda net: (net.basis @ net.conv.weight.view(-1, 9).T).T.reshape(net.conv.weight.shape),
        lambda net: (net.conv.weight.view(-1, 9) @ torch.eye(9)).view_as(net.conv.weight),
    ],
)
def test_computing_a_weight_is_no_work_on_the_image(weight):
    net = Made(
        lambda net, x: functional.conv2d(x, weight(net)), conv=nn.Conv2d(2, 3, 3), basis=nn.Parameter(torch.eye(9))
    )
    assert found(net, 2, 5, 5) == {"conv": 54 * 9}


def test_an_image_that_is_written_into_a_constant():
    def forward(net, x):
        padded = torch.zeros(1, 2, 6, 6)
        padded[:, :, 1:5, 1:5] = x
        return net.conv(padded)

    assert found(Made(forward, conv=nn.Conv2d(2, 3, 3)), 2, 4, 4) == {"conv": 54 * 16}


def test_weights_side_by_side_in_one_product():
    def forward(net, x):
        return functional.linear(x, torch.cat([net.a.weight, net.b.weight]))

    assert found(Made(forward, a=nn.Linear(5, 4), b=nn.Linear(5, 2)), 5) == {"a": 20, "b": 10}


def test_weights_of_other_parametrisations_are_counted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        old = nn.Sequential(nn.utils.weight_norm(nn.Conv2d(2, 3, 3)), nn.utils.spectral_norm(nn.Conv2d(3, 3, 1)))
    new = [parametrizations.weight_norm(nn.Conv2d(2, 3, 3)), parametrizations.spectral_norm(nn.Conv2d(3, 3, 1))]
    assert found(old, 2, 4, 4) == found(nn.Sequential(*new), 2, 4, 4) == {"0": 54 * 4, "1": 9 * 4}


@pytest.mark.parametrize(
    ("net", "shape", "words"),
    [
        (nn.Sequential(nn.LazyLinear(3)), (4,), "layer 0: a lazy module whose weight has no shape yet"),
        (
            Made(lambda net, x: (x.unsqueeze(1) * net.a.weight).sum(-1), a=nn.Linear(3, 2)),
            (3,),
            r"a: used by the operator aten\.mul, whose multiply-accumulates are not known",
        ),
        (
            Made(
                lambda net, x: functional.linear(x, net.a.weight + net.b.weight @ net.c.weight),
                a=nn.Linear(5, 4),
                b=nn.Linear(2, 4),
                c=nn.Linear(5, 2),
            ),
            (5,),
            "layers a, b, c: one product uses their weights mixed",
        ),
        (
            Made(lambda net, x: net.d(x, torch.zeros(1, 18, 3, 3)), d=torchvision.ops.DeformConv2d(2, 3, 3)),
            (2, 5, 5),
            r"d\.weight: used by the operator torchvision\.deform_conv2d",
        ),
    ],
    ids=["lazy", "elementwise", "mixed", "deformable"],
)
def test_what_cannot_be_counted_is_refused_by_name(net, shape, words):
    with pytest.raises(BadInput, match=words) as error:
        count(net, shape)
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore")
def test_compiled_and_quantised_modules_are_refused_by_name():
    for make in (lambda: torch.ao.nn.quantized.Linear(4, 4), lambda: torch.jit.trace(nn.Linear(4, 4), torch.zeros(4))):
        with pytest.raises(BadInput, match="layer a: compiled and quantised modules cannot be pruned"):
            count(nn.ModuleDict({"a": make()}), (4,))


def test_torchs_switches_are_as_before():
    before = (torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.enabled, torch.backends.cudnn.enabled)
    count(nn.Linear(2, 2), (2,))
    with pytest.raises(RuntimeError):
        count(nn.Linear(2, 2), (3,))
    assert before == (
        torch.backends.mha.get_fastpath_enabled(),
        torch.backends.mkldnn.enabled,
        torch.backends.cudnn.enabled,
    )
