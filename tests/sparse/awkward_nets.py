"""Minimal nets that are hard to cut: shuffles, chunks, gates, padding, shared layers, sizes written down. torch only.

Each public class has `example`, the shape of its input (a tuple of shapes for several inputs).
Call shake(net) after construction, so that norm layers have non-trivial constants.
"""

import torch
from torch import nn
from torch.nn import functional


def shake(net, seed=0):
    """Give every norm layer non-trivial weights, biases and running statistics (in place)."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for m in net.modules():
            for name in ("weight", "bias", "running_mean", "running_var"):
                t = getattr(m, name, None)
                if isinstance(t, torch.Tensor) and t.dim() == 1:
                    r = torch.rand(t.shape, generator=g)
                    t.copy_(r + 0.5 if name in ("weight", "running_var") else r - 0.5)
    return net


def cbr(i, o, k=3, s=1, g=1, bias=False):
    return nn.Sequential(nn.Conv2d(i, o, k, s, k // 2, groups=g, bias=bias), nn.BatchNorm2d(o), nn.ReLU())


class _Head(nn.Module):
    def __init__(self, c, n=5):
        super().__init__()
        self.fc = nn.Linear(c, n)

    def forward(self, x):
        return self.fc(x.mean((2, 3)))


class ChannelShuffle(nn.Module):
    """Channel shuffle between two convs: view to (groups, C / groups), then back; sizes are read off the tensor."""

    example = (2, 3, 8, 8)

    def __init__(self, groups=2):
        super().__init__()
        self.groups = groups
        self.a = cbr(3, 8)
        self.dw = cbr(8, 8, g=8)
        self.b = cbr(8, 6, 1)
        self.head = _Head(6)

    def forward(self, x):
        x = self.a(x)
        n, c, h, w = x.shape
        x = x.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(self.b(self.dw(x)))


class ChannelShuffleFixed(nn.Module):
    """The same shuffle with the channel number written into the reshape."""

    example = (2, 3, 8, 8)

    def __init__(self):
        super().__init__()
        self.a = cbr(3, 8)
        self.dw = cbr(8, 8, g=8)
        self.b = cbr(8, 6, 1)
        self.head = _Head(6)

    def forward(self, x):
        x = self.a(x)
        x = x.view(-1, 2, 4, 8, 8).transpose(1, 2).reshape(-1, 8, 8, 8)
        return self.head(self.b(self.dw(x)))


class ChunkChain(nn.Module):
    """Conv, chunk in two, the last chunk goes on through bottlenecks, all pieces are concatenated."""

    example = (2, 3, 8, 8)

    def __init__(self, n=2):
        super().__init__()
        self.inp = cbr(3, 8, 1)
        self.m = nn.ModuleList(cbr(4, 4) for _ in range(n))
        self.out = cbr(4 * (2 + n), 6, 1)
        self.head = _Head(6)

    def forward(self, x):
        y = list(self.inp(x).chunk(2, 1))
        for m in self.m:
            y.append(y[-1] + m(y[-1]))
        return self.head(self.out(torch.cat(y, 1)))


class Decoder(nn.Module):
    """Linear whose output is viewed as (C, 4, 4) and goes through transposed convs; C is read from the layer."""

    example = (2, 6)

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 8 * 16)
        self.up = nn.ConvTranspose2d(8, 4, 4, 2, 1)
        self.out = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x):
        x = functional.relu(self.fc(x)).view(-1, self.up.in_channels, 4, 4)
        return self.out(functional.relu(self.up(x)))


class SubPixel(nn.Module):
    """Conv, PixelShuffle(2), conv: four conv channels make one channel of the next layer."""

    example = (2, 3, 8, 8)

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 16, 3, padding=1)
        self.ps = nn.PixelShuffle(2)
        self.b = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x):
        return self.b(self.ps(functional.relu(self.a(x))))


class SpatialGate(nn.Module):
    """A one-channel gate (N, 1, H, W) is multiplied onto C channels by broadcasting."""

    example = (2, 3, 8, 8)

    def __init__(self):
        super().__init__()
        self.a = cbr(3, 8)
        self.gate = nn.Conv2d(3, 1, 3, padding=1)
        self.b = cbr(8, 6, 1)
        self.head = _Head(6)

    def forward(self, x):
        return self.head(self.b(torch.sigmoid(self.gate(x)) * self.a(x)))


class DepthMultiplier(nn.Module):
    """Depthwise conv with multiplier 2: groups = in_channels, out_channels = 2 * in_channels."""

    example = (2, 3, 8, 8)

    def __init__(self):
        super().__init__()
        self.a = cbr(3, 6)
        self.dw = nn.Conv2d(6, 12, 3, padding=1, groups=6, bias=False)
        self.bn = nn.BatchNorm2d(12)
        self.b = cbr(12, 6, 1)
        self.head = _Head(6)

    def forward(self, x):
        return self.head(self.b(functional.relu(self.bn(self.dw(self.a(x))))))


class GroupNorms(nn.Module):
    """GroupNorm(4, 8) behind a conv: statistics are over the channels of a group."""

    example = (2, 3, 8, 8)

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.n = nn.GroupNorm(4, 8)
        self.b = cbr(8, 6, 1)
        self.head = _Head(6)

    def forward(self, x):
        return self.head(self.b(functional.relu(self.n(self.a(x)))))


class ChannelsLastNorm(nn.Module):
    """LayerNorm over the channels of a conv output (permute, norm, permute back)."""

    example = (2, 3, 8, 8)

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.n = nn.LayerNorm(8)
        self.b = cbr(8, 6, 1)
        self.head = _Head(6)

    def forward(self, x):
        x = self.n(self.a(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.head(self.b(functional.relu(x)))


class SharedHead(nn.Module):
    """One head run on two feature levels, the way one-stage detectors do; outputs are lists."""

    example = (2, 3, 16, 16)

    def __init__(self):
        super().__init__()
        self.c1 = cbr(3, 8, s=2)
        self.c2 = cbr(8, 8, s=2)
        self.p1 = nn.Conv2d(8, 6, 1)
        self.p2 = nn.Conv2d(8, 6, 1)
        self.tower = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU())
        self.cls = nn.Conv2d(6, 4, 3, padding=1)
        self.box = nn.Conv2d(6, 4, 3, padding=1)

    def forward(self, x):
        c1 = self.c1(x)
        c2 = self.c2(c1)
        p2 = self.p2(c2)
        p1 = self.p1(c1) + functional.interpolate(p2, scale_factor=2.0)
        out = []
        for p in (p1, p2):
            t = self.tower(p)
            out += [self.cls(t).flatten(2), self.box(t).flatten(2)]
        return torch.cat(out[0::2], 2), torch.cat(out[1::2], 2)


class Recurrent(nn.Module):
    """The same square conv applied twice in a row: its outputs are its own inputs."""

    example = (2, 3, 8, 8)

    def __init__(self):
        super().__init__()
        self.a = cbr(3, 8)
        self.r = nn.Conv2d(8, 8, 3, padding=1)
        self.head = _Head(8)

    def forward(self, x):
        x = self.a(x)
        x = functional.relu(self.r(x))
        return self.head(functional.relu(self.r(x)))


class OptionA(nn.Module):
    """CIFAR shortcut without parameters: every second pixel, zero channels padded on both sides."""

    example = (2, 3, 8, 8)

    def __init__(self):
        super().__init__()
        self.stem = cbr(3, 4)
        self.a = cbr(4, 8, s=2)
        self.b = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.head = _Head(8)

    def forward(self, x):
        x = self.stem(x)
        s = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        return self.head(functional.relu(self.b(self.a(x)) + s))


class OptionACat(nn.Module):
    """Shortcut that doubles the channels by concatenating a zero copy of itself."""

    example = (2, 3, 8, 8)

    def __init__(self):
        super().__init__()
        self.stem = cbr(3, 4)
        self.a = cbr(4, 8, s=2)
        self.b = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.head = _Head(8)

    def forward(self, x):
        x = self.stem(x)
        s = functional.avg_pool2d(x, 2)
        s = torch.cat((s, s * 0), 1)
        return self.head(functional.relu(self.b(self.a(x)) + s))


class FixedNorm(nn.Module):
    """Batch norm with constants kept as buffers, as in pretrained detection backbones."""

    def __init__(self, c):
        super().__init__()
        self.register_buffer("weight", torch.ones(c))
        self.register_buffer("bias", torch.zeros(c))
        self.register_buffer("running_mean", torch.zeros(c))
        self.register_buffer("running_var", torch.ones(c))

    def forward(self, x):
        s = self.weight * (self.running_var + 1e-5).rsqrt()
        return x * s.view(1, -1, 1, 1) + (self.bias - self.running_mean * s).view(1, -1, 1, 1)


class BufferNorm(nn.Module):
    """Conv followed by a norm layer all of whose per-channel values are buffers."""

    example = (2, 3, 8, 8)

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.n = FixedNorm(8)
        self.b = cbr(8, 6, 1)
        self.head = _Head(6)

    def forward(self, x):
        return self.head(self.b(functional.relu(self.n(self.a(x)))))


class FrozenStem(nn.Module):
    """The first conv does not require grad (fine-tuning of the upper layers only); a residual joins it."""

    example = (2, 3, 8, 8)

    def __init__(self):
        super().__init__()
        self.stem = cbr(3, 8)
        self.a = cbr(8, 8)
        self.b = cbr(8, 6, 1)
        self.head = _Head(6)
        self.stem.requires_grad_(False)

    def forward(self, x):
        x = self.stem(x)
        return self.head(self.b(x + self.a(x)))


class LstmTail(nn.Module):
    """Conv1d features into an LSTM, then a linear layer."""

    example = (2, 3, 12)

    def __init__(self):
        super().__init__()
        self.a = nn.Conv1d(3, 8, 3, padding=1)
        self.rnn = nn.LSTM(8, 6, batch_first=True)
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        y, _ = self.rnn(functional.relu(self.a(x)).transpose(1, 2))
        return self.fc(y[:, -1])


class FlattenFixed(nn.Module):
    """view(-1, 8 * 4 * 4) between convs and the classifier: the size is a constant of forward()."""

    example = (2, 3, 8, 8)

    def __init__(self):
        super().__init__()
        self.a = cbr(3, 8, s=2)
        self.fc = nn.Linear(8 * 16, 5)

    def forward(self, x):
        return self.fc(self.a(x).view(-1, 8 * 4 * 4))


class FlattenFree(nn.Module):
    """flatten(1) of an 8 x 4 x 4 map: 16 linear inputs per channel."""

    example = (2, 3, 8, 8)

    def __init__(self):
        super().__init__()
        self.a = cbr(3, 8, s=2)
        self.fc = nn.Linear(8 * 16, 5)

    def forward(self, x):
        return self.fc(self.a(x).flatten(1))


class FlattenHeightFirst(nn.Module):
    """permute(0, 2, 3, 1) before flatten: a channel's linear inputs are strided, not a block."""

    example = (2, 3, 8, 8)

    def __init__(self):
        super().__init__()
        self.a = cbr(3, 8, s=2)
        self.fc = nn.Linear(8 * 16, 5)

    def forward(self, x):
        return self.fc(self.a(x).permute(0, 2, 3, 1).flatten(1))


class SqueezeExcite(nn.Module):
    """Depthwise block with squeeze-excite: the gate's sigmoid is not zero at zero."""

    example = (2, 3, 8, 8)

    def __init__(self):
        super().__init__()
        self.exp = cbr(3, 8, 1)
        self.dw = cbr(8, 8, g=8)
        self.red = nn.Conv2d(8, 4, 1)
        self.gate = nn.Conv2d(4, 8, 1)
        self.proj = nn.Conv2d(8, 6, 1)
        self.head = _Head(6)

    def forward(self, x):
        x = self.dw(self.exp(x))
        s = torch.sigmoid(self.gate(functional.relu(self.red(x.mean((2, 3), keepdim=True)))))
        return self.head(self.proj(x * s))


class SharedPRelu(nn.Module):
    """One PReLU object per channel used behind two convs of equal width."""

    example = (2, 3, 8, 8)

    def __init__(self):
        super().__init__()
        self.act = nn.PReLU(8)
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 8, 3, padding=1)
        self.head = _Head(8)
        with torch.no_grad():
            self.act.weight.copy_(torch.linspace(0.1, 0.9, 8))

    def forward(self, x):
        return self.head(self.act(self.b(self.act(self.a(x)))))


class WeightNormed(nn.Module):
    """Conv whose weight is computed from two parameters by a parametrization."""

    example = (2, 3, 8, 8)

    def __init__(self):
        super().__init__()
        self.a = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3, padding=1))
        self.b = cbr(8, 6, 1)
        self.head = _Head(6)

    def forward(self, x):
        return self.head(self.b(functional.relu(self.a(x))))


class ConstantLeak(nn.Module):
    """Conv without bias, BN with bias, ReLU, padded conv: a zeroed filter still emits relu(beta - mean * scale)."""

    example = (2, 3, 8, 8)

    def __init__(self):
        super().__init__()
        self.a = cbr(3, 8)
        self.b = cbr(8, 6)
        self.head = _Head(6)

    def forward(self, x):
        return self.head(self.b(self.a(x)))


class SilentSibling(nn.Module):
    """A layer that forward() never calls and an auxiliary output given only in training mode."""

    example = (2, 3, 8, 8)

    def __init__(self):
        super().__init__()
        self.a = cbr(3, 8)
        self.b = cbr(8, 6)
        self.aux = nn.Conv2d(8, 2, 1)
        self.never = nn.Conv2d(8, 8, 1)
        self.head = _Head(6)

    def forward(self, x):
        x = self.a(x)
        y = self.head(self.b(x))
        return (y, self.aux(x)) if self.training else y


class Alive(nn.Module):
    """Plain chain in which one layer's weights are tiny, so that a global ranking takes all of its channels."""

    example = (2, 3, 8, 8)

    def __init__(self):
        super().__init__()
        self.a = cbr(3, 8)
        self.b = cbr(8, 8)
        self.c = cbr(8, 8)
        self.head = _Head(8)
        with torch.no_grad():
            self.b[0].weight.mul_(1e-3)

    def forward(self, x):
        return self.head(self.c(self.b(self.a(x))))


class Residual(nn.Module):
    """Identity shortcut: two convs and the stem share one channel group."""

    example = (2, 3, 8, 8)

    def __init__(self):
        super().__init__()
        self.stem = cbr(3, 8)
        self.a = cbr(8, 8)
        self.b = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.head = _Head(8)

    def forward(self, x):
        x = self.stem(x)
        return self.head(functional.relu(x + self.b(self.a(x))))
