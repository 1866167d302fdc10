"""The initial weights of any `nn.Module`: a function of the seed and of each layer's name.

A layer draws from a stream of its own, so adding, removing or reordering layers leaves the others as they are, and
both sides of every comparison start from the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ipbench import keys
from ipbench.errors import valid_choice
from ipbench.sparse.layers import RECURRENT, TRANSPOSED, prunable_weights

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_NORMS = (*_BATCH_NORMS, nn.GroupNorm, nn.LayerNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


def _kaiming_normal(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """N(0, 2 / fan_in): fan-in mode, gain sqrt(2) for ReLU (He et al., ICCV 2015, eq. 10)."""
    fan_in, _ = _fans(shape)
    return torch.randn(shape, generator=generator, dtype=torch.float64) * math.sqrt(2 / fan_in)


def _kaiming_uniform(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """U(-b, b), b = sqrt(6 / fan_in): the variance of kaiming_normal (and not the smaller one of torch's default)."""
    fan_in, _ = _fans(shape)
    return (torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1) * math.sqrt(6 / fan_in)


def _xavier_normal(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """N(0, 2 / (fan_in + fan_out)), gain 1 (Glorot and Bengio, AISTATS 2010)."""
    return torch.randn(shape, generator=generator, dtype=torch.float64) * math.sqrt(2 / sum(_fans(shape)))


def _signed_kaiming(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """The signs of kaiming_normal's draws times its standard deviation: all weights of a layer are of one size."""
    return _kaiming_normal(shape, generator).sign() * math.sqrt(2 / _fans(shape)[0])


def _signed_xavier(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """The signs of xavier_normal's draws times its standard deviation."""
    return _xavier_normal(shape, generator).sign() * math.sqrt(2 / sum(_fans(shape)))


#: Name, as in `Recipe.init` -> float64 draws of a shape.
SCHEMES: dict[str, Callable[[torch.Size, torch.Generator], Tensor]] = {
    "kaiming_normal": _kaiming_normal,
    "kaiming_uniform": _kaiming_uniform,
    "xavier_normal": _xavier_normal,
    "signed_kaiming": _signed_kaiming,
    "signed_xavier": _signed_xavier,
}


def initialise(net: nn.Module, seed: int, scheme: str = "kaiming_normal") -> None:
    """Redraw the weights of convolutions, linear layers and attention in place; biases become 0, norms 1 and 0.

    Values are drawn on the CPU in float64 and rounded to float32: the last bits in which mathematical libraries
    disagree are rounded away almost always, so machines agree on the weights. A weight that several modules share is
    drawn once, for its first name. Batch norms also forget their running statistics. All other parameters (recurrent
    weights, class tokens, position embeddings, ...) stay as they are, and so do torch's global generators.

    Args:
        net: any module, not yet parametrised.
        seed: the run's seed.
        scheme: one of `SCHEMES`.

    Raises:
        BadInput: unknown scheme.
        ValueError: a weight is parametrised; its plain value cannot be set then.
    """
    draw = SCHEMES[valid_choice(scheme, SCHEMES, "init")]
    with torch.no_grad():
        for name, layer in prunable_weights(net).items():
            if isinstance(layer.module, RECURRENT):
                continue
            if any(parametrize.is_parametrized(module) for module, _ in layer.uses):
                raise ValueError(f"{name}: initialise a net before it is parametrised")
            weight = layer.weight
            shape = weight.shape
            if isinstance(layer.module, TRANSPOSED):  # (inputs, outputs / groups, *kernel): the draws know it as others
                groups, *sides = layer.module.groups, *shape[2:]
                shape = torch.Size((shape[1] * groups, shape[0] // groups, *sides))
            weight.copy_(draw(shape, keys.generator(seed, "init", name)).reshape(weight.shape).to(torch.float32))
            for module, parameter in layer.uses:
                bias = getattr(module, parameter.replace("weight", "bias"), None)
                if bias is not None:
                    bias.zero_()
        for module in net.modules():
            if isinstance(module, _NORMS):
                if isinstance(module, _BATCH_NORMS):
                    module.reset_running_stats()
                # Norms without affine parameters have None here; some have a weight only.
                if module.weight is not None:
                    module.weight.fill_(1)
                if module.bias is not None:
                    module.bias.zero_()


def _fans(shape: torch.Size) -> tuple[int, int]:
    """Fan-in and fan-out of a weight (outputs, inputs per group, *kernel); fan-out ignores groups, as in torch."""
    kernel = math.prod(shape[2:])
    return shape[1] * kernel, shape[0] * kernel
