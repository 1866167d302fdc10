import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from ipbench.models.build import build
from ipbench.sparse import measure
from ipbench.sparse.measure import Layer, count, entropy_bits, sparse_macs, spatial_zeros, stored_bytes, two_stage_macs


class Twice(nn.Module):
    """One convolution called on two resolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x):
        return self.conv(self.conv(x)[:, :, ::2, ::2])


class OwnBasis(nn.Module):
    """Coefficients of the shape (outputs, inputs, N) and N filters."""

    def __init__(self, filters: nn.Parameter) -> None:
        super().__init__()
        self.filters = filters

    def forward(self, coefficients):
        return torch.einsum("oin,nxy->oixy", coefficients, self.filters)

    def right_inverse(self, weight):
        return weight.flatten(2)


class Noisy(nn.Module):
    """Draws and counts its calls, as no parametrisation should."""

    def forward(self, weight):
        return weight + torch.rand(())


def only(net: nn.Module, *shape: int) -> Layer:
    (layer,) = count(net, shape).layers
    return layer


def test_convolution_by_hand():
    # 6 x 5 pixels, kernel 3 x 2, stride 2, no padding: 2 x 2 outputs; 4 * 3 * 6 = 72 weights.
    layer = only(nn.Sequential(nn.Conv2d(3, 4, (3, 2), stride=2)), 3, 6, 5)
    assert layer == Layer("0", "conv", (4, 3, 3, 2), 76, 4, 1, 3, 4)
    assert (layer.size, layer.macs) == (72, 288)


@pytest.mark.parametrize(
    ("conv", "shape", "positions"),
    [
        (nn.Conv2d(4, 6, 3, groups=2, padding=1), (6, 2, 3, 3), 64),
        (nn.Conv2d(4, 4, 3, groups=4, padding=1, bias=False), (4, 1, 3, 3), 64),
        (nn.Conv2d(4, 1, 3, dilation=2), (1, 4, 3, 3), 16),
        (nn.Conv2d(4, 5, 1, stride=2), (5, 4, 1, 1), 16),
    ],
)
def test_kinds_of_convolution(conv, shape, positions):
    layer = only(conv, 4, 8, 8)
    assert layer.shape == shape == tuple(conv.weight.shape)
    assert layer.positions == positions
    assert layer.macs == conv.weight.numel() * positions
    assert layer.parameters == sum(tensor.numel() for tensor in conv.parameters())
    assert layer.groups == conv.groups


def test_linear_on_rows():
    assert only(nn.Linear(3, 5), 3) == Layer("", "linear", (5, 3), 20, 1, 1, 3, 5)
    assert only(nn.Linear(3, 5, bias=False), 7, 3).macs == 7 * 15


def test_layer_used_twice():
    layer = only(Twice(), 2, 8, 8)
    assert layer.positions == 64 + 16
    assert layer.macs == 80 * 36
    assert layer.parameters == 38


def test_whole_net():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3), nn.Linear(3, 3))
    found = count(net, (1, 4, 4))
    assert [layer.name for layer in found.layers] == ["0", "3", "4"]
    assert found.macs == 18 * 4 + 24 + 9
    assert found.prunable == 18 + 24 + 9
    assert found.parameters == 20 + 4 + 27 + 12
    assert found.buffers == 4  # the number of batches is no number a stored net needs
    assert found.other_values == 2 + 4 + 3 + 3 + 4
    assert found.unseen == []


def test_tied_weights_count_once_and_unused_layers_are_unseen():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.idle = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)
            self.two.weight = self.one.weight

        def forward(self, x):
            return self.two(self.one(x))

    found = count(Net(), (2,))
    assert found.parameters == 4 + 2 + 2 + 6
    assert found.macs == 8
    assert found.unseen == ["idle"]


def test_nothing_changes():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(), Noisy())
    net[1].eval()
    net[0].weight.grad = torch.ones_like(net[0].weight)
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    state = torch.get_rng_state()
    count(net, (1, 5, 5))
    assert [module.training for module in net.modules()] == [True, True, False, True, True]
    assert all(torch.equal(before[key], tensor) for key, tensor in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert net[0].weight.grad is not None and not net[0]._forward_hooks


def test_modes_and_hooks_come_back_after_an_error():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(3, 3))
    with pytest.raises(RuntimeError):
        count(net, (2,))
    assert net[1].training and not net[0]._forward_hooks


@pytest.mark.parametrize("elsewhere", [False, True])
def test_parametrised_is_counted_as_plain(elsewhere):
    def make() -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 3, groups=2), nn.PReLU())

    net = make()
    shared = nn.Parameter(torch.eye(9).reshape(9, 3, 3))
    if elsewhere:
        net[3].register_parameter("basis", shared)
    for index in (0, 2):
        parametrize.register_parametrization(net[index], "weight", OwnBasis(shared))
    assert count(net, (1, 8, 8)) == count(make(), (1, 8, 8))


@pytest.mark.parametrize(
    ("name", "shape", "parameters", "prunable", "macs"),
    [
        ("lenet-300-100", (1, 28, 28), 266_610, 266_200, 266_200),
        ("lenet5-caffe", (1, 28, 28), 431_080, 430_500, 500 * 576 + 25_000 * 64 + 400_000 + 5_000),
        ("vgg16", (3, 32, 32), 14_724_042, 14_715_584, 313_201_664),
        ("resnet18-cifar", (3, 32, 32), 11_173_962, 11_164_352, 555_422_720),
        ("resnet20-cifar", (3, 32, 32), 269_722, 268_336, 40_551_040),
        ("resnet56-cifar", (3, 32, 32), 853_018, 848_944, 125_485_696),
    ],
)
def test_our_nets(name, shape, parameters, prunable, macs):
    found = count(build(name, shape, 10, seed=0), shape)
    assert (found.parameters, found.prunable, found.macs) == (parameters, prunable, macs)
    assert found.unseen == []


@pytest.mark.parametrize(
    ("name", "parameters", "prunable", "in_3x3", "macs"),
    [
        # Parameters and GFLOPS (1.814, 4.089) as torchvision states them for its weights.
        ("resnet18", 11_689_512, 11_678_912, 10_985_472, 1_814_073_344),
        ("resnet50", 25_557_032, 25_502_912, 11_317_248, 4_089_184_256),
    ],
)
def test_torchvision(name, parameters, prunable, in_3x3, macs):
    found = count(build(name, (3, 224, 224), 1000, seed=0), (3, 224, 224))
    assert (found.parameters, found.prunable, found.macs) == (parameters, prunable, macs)
    assert sum(layer.size for layer in found.layers if layer.shape[2:] == (3, 3)) == in_3x3


def layer(name: str, shape: tuple[int, ...], positions: int, groups: int = 1) -> Layer:
    kind = "conv" if len(shape) > 2 else "linear"
    return Layer(name, kind, shape, math.prod(shape), positions, groups, shape[1] * groups, shape[0])


def test_sparse_macs():
    layers = [layer("conv", (4, 3, 3, 3), 10), layer("fc", (5, 4), 1)]
    assert sparse_macs(layers, {}) == 1080 + 20
    assert sparse_macs(layers, {"conv": 7, "fc": 0}) == 70
    assert sparse_macs(layers, {"conv": 7}) == 70 + 20


def test_two_stage_macs():
    layers = [layer("conv", (4, 3, 3, 3), 10), layer("tall", (1, 2, 3, 2), 5), layer("fc", (5, 4), 1)]
    kept = {"conv": 7, "tall": 1, "fc": 2}
    assert two_stage_macs(layers, kept, []) == sparse_macs(layers, kept) == 70 + 5 + 2
    assert two_stage_macs(layers, kept, ["conv"]) == (3 * 81 + 7) * 10 + 5 + 2
    assert two_stage_macs(layers, kept, ["conv", "tall"]) == (3 * 81 + 7) * 10 + (2 * 36 + 1) * 5 + 2
    # Depthwise: 4 input channels, whatever the groups.
    assert two_stage_macs([layer("deep", (4, 1, 3, 3), 2, groups=4)], {"deep": 6}, {"deep"}) == (4 * 81 + 6) * 2


@pytest.mark.parametrize(
    ("width", "share"),
    [
        (64, (0.341, 0.241, 0.191, 0.151)),
        (128, (0.270, 0.170, 0.120, 0.080)),
        (256, (0.235, 0.135, 0.085, 0.045)),
        (512, (0.218, 0.118, 0.068, 0.028)),
    ],
)
def test_two_stage_share_of_dense(width, share):
    """K^2 / c_out + 1 - p, the table in section 2.7 of the design notes."""
    conv = layer("conv", (width, width, 3, 3), 16)
    for sparsity, expected in zip((80, 90, 95, 99), share, strict=True):
        kept = conv.size * (100 - sparsity) // 100
        assert two_stage_macs([conv], {"conv": kept}, {"conv"}) / conv.macs == pytest.approx(expected, abs=6e-4)


def test_kept_is_checked():
    layers = [layer("conv", (4, 3, 3, 3), 10), layer("fc", (5, 4), 1)]
    with pytest.raises(ValueError, match=r"no layers of this net: net\.conv"):
        sparse_macs(layers, {"net.conv": 1})
    with pytest.raises(ValueError, match="fc: 21 kept of 20"):
        sparse_macs(layers, {"fc": 21})
    with pytest.raises(ValueError, match="without a filter basis: fc"):
        two_stage_macs(layers, {}, {"fc"})


def test_training_flops():
    assert measure.training_flops(10, 7) == 420


def test_entropy():
    assert entropy_bits(8, 4) == 8
    assert entropy_bits(4, 1) == pytest.approx(4 * (0.25 * 2 + 0.75 * math.log2(4 / 3)))
    assert entropy_bits(5, 0) == entropy_bits(5, 5) == entropy_bits(0, 0) == 0
    with pytest.raises(ValueError, match="6 kept of 5"):
        entropy_bits(5, 6)


def test_stored_bytes_by_hand():
    assert stored_bytes([(9, 3), (10, 10), (10, 0), (16, 8)], basis_entries=81, other_values=5) == {
        "bytes_values": 4 * (21 + 81),
        "bytes_bitmask": 2 + 2,
        "bytes_entropy": 4,  # 9 * H2(1/3) = 8.26 bits and 16 bits
        "bytes_other": 20,
    }


def test_stored_bytes_of_lenet():
    """Section 3.3 of the design notes: LeNet-5-Caffe at 0.995 in 13.4 kB, 129 times less than dense."""
    found = stored_bytes([(430_500, 2_153)], basis_entries=0, other_values=580)
    assert found == {"bytes_values": 8_612, "bytes_bitmask": 53_813, "bytes_entropy": 2_445, "bytes_other": 2_320}
    assert entropy_bits(430_500, 2_153) / 8 == pytest.approx(2_443, abs=1.5)  # there of 2,152.5
    seed = 4
    stored = found["bytes_values"] + found["bytes_other"] + found["bytes_entropy"] + seed
    assert round(4 * 431_080 / stored) == 129


def test_spatial_zeros():
    weights = [torch.tensor([[0.0, -0.0], [1e-45, 1.0]]), torch.zeros(4)]
    assert spatial_zeros(weights) == 6 / 8
    assert spatial_zeros(iter([])) == 0
    assert isinstance(spatial_zeros(weights), float)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_peak_memory_of_the_process_is_in_bytes():
    (line,) = (text for text in Path("/proc/self/status").read_text().splitlines() if text.startswith("VmHWM"))
    assert measure.peak_memory("cpu") == pytest.approx(1024 * int(line.split()[1]), rel=0.05)


def test_peak_memory_of_a_gpu_is_torchs(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 100 + device.index)
    assert measure.peak_memory("cuda:1") == 101
