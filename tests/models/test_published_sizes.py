"""Parameters and multiply-accumulates of our nets against numbers that others printed, to their last digit."""

from __future__ import annotations

from decimal import Decimal

import pytest
import torch
from torch import nn

from ipbench.models.build import outline
from ipbench.sparse.measure import count


@pytest.mark.parametrize(
    ("name", "side", "classes", "parameters", "macs"),
    [
        # Parameters: He et al., arXiv:1512.03385, table 6. Multiply-adds: the counter of SFP's code
        # (he-y/soft-filter-pruning at 399c919, utils/cifar_resnet_flop.py).
        ("resnet20-cifar", 32, 10, "0.27e6", "4.055e7"),
        ("resnet32-cifar", 32, 10, "0.46e6", "6.886e7"),
        ("resnet56-cifar", 32, 10, "0.85e6", "1.255e8"),
        ("resnet110-cifar", 32, 10, "1.7e6", "2.529e8"),
        # GReg, arXiv:2012.09243, the table of CIFAR: 20.08 M and 0.80 G, an addition counted as one more.
        ("vgg19", 32, 100, "20.08e6", "0.40e9"),
        # Howard et al., arXiv:1704.04861, table 4. Their stem of stride 2 makes 112 px of 224, ours keeps its 112.
        ("mobilenet-v1", 112, 1000, "4.2e6", "569e6"),
    ],
)
def test_sizes_are_the_published_ones(name, side, classes, parameters, macs):
    found = count(outline(name, (3, side, side), classes), (3, side, side))
    assert _as_printed(found.parameters, parameters) == Decimal(parameters)
    assert _as_printed(found.macs, macs) == Decimal(macs)


def test_googlenet_is_the_published_one_without_biases():
    """EPruner (arXiv:2101.07985) prints 1.52 G multiply-adds and 6.15 M parameters for its net.

    Its code (lmbxmu/EPruner at ddb844f, model/googlenet.py) has 6,166,250: a bias in each convolution, which a batch
    norm cancels, and which ours leaves out. That leaves 6,158,346; 6,142,528 are weights.
    """
    net = outline("googlenet-cifar", (3, 32, 32), 10)
    found = count(net, (3, 32, 32))
    assert _as_printed(found.macs, "1.52e9") == Decimal("1.52e9")
    biases = sum(layer.out_channels for layer in net.modules() if isinstance(layer, nn.Conv2d))
    assert found.parameters + biases == 6_166_250
    assert found.prunable == 6_142_528


def test_mobilenet_on_cifar_100_is_that_of_orthoreg():
    """As counted with the code of OrthoReg (EkdeepSLubana/OrthoReg at 869f049, models.py)."""
    net = outline("mobilenet-v1", (3, 32, 32), 100)
    found = count(net, (3, 32, 32))
    assert (found.parameters, found.macs) == (3_309_476, 46_446_592)
    last = net[:14](torch.zeros(1, 3, 32, 32, device="meta"))
    assert last.shape == (1, 1024, 2, 2)


def _as_printed(number: int, printed: str) -> Decimal:
    """`number`, rounded to the last digit of `printed`."""
    return Decimal(number).quantize(Decimal((0, (1,), Decimal(printed).as_tuple().exponent)))
