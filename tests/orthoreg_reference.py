"""Runs the reference code of OrthoReg on given weights and scores and writes `tests/golden/orthoreg.json`.

    python -m tests.orthoreg_reference CHECKOUT > tests/golden/orthoreg.json

CHECKOUT is github.com/EkdeepSLubana/OrthoReg at 869f049. Its penalties and diagnostics (`main.py`) are run on its own
nets in double precision, its scores (`imp_estimator.py`) on two tiny ones, its ranking (`pruner.py`) on tables. Three
shims: `main.py` is a script that asks for a GPU, so that its functions are taken out of it; `np.array` of a list of
tensors is a list that is multiplied entry by entry; diagnostics are printed with nine digits in place of two. Weights,
images and tables are made here, so that the test takes the same ones.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

CLASSES = 3
#: Widths of the ten layers of the tables, and of the blocks of the one with depthwise convolutions.
WIDTHS = (12, 40, 7, 21, 64, 30, 5, 16, 24, 48)
SEPARABLE = (6, 8, 12, 10, 16, 9, 20, 14, 8, 10, 6, 12, 30, 22)
RATIOS = (0.1, 0.25, 0.5, 0.75, 0.9)
#: Layers as the reference numbers them.
_NUMBERS = (2, 5, 9, 12, 16, 19, 23, 26, 30, 33)


def waves(like: Tensor, pace: float) -> Tensor:
    """Numbers from -1 to 1 in the shape of a tensor, in double precision."""
    return torch.sin(pace * torch.arange(1, like.numel() + 1, dtype=torch.float64)).view(like.shape)


def fill(net: nn.Module) -> nn.Module:
    """Give all parameters values by their place in the net, and norms statistics; in double precision."""
    net.double()
    with torch.no_grad():
        for place, parameter in enumerate(net.parameters()):
            values = waves(parameter, 1.37 + 0.61 * place) * (1 + 0.5 * waves(parameter, 0.013 * (place + 1)))
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 4
            parameter.copy_(values / fan_in**0.5 + (parameter.dim() == 1) * 0.7)
        for name, buffer in net.named_buffers():
            if name.endswith("running_var"):
                buffer.copy_(1 + 0.5 * waves(buffer, 0.9))
            elif name.endswith("running_mean"):
                buffer.copy_(0.1 * waves(buffer, 1.7))
    return net


def like_vgg() -> nn.Sequential:
    """Two convolutions with biases and norms behind their ReLU, and a classifier."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 3, padding=1), nn.ReLU(),
        nn.BatchNorm2d(5), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, CLASSES),
    )  # fmt: skip


def like_resnet() -> nn.Sequential:
    """Three convolutions with norms, no biases, and a classifier."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5), nn.ReLU(),
        nn.Conv2d(5, 6, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, CLASSES),
    )  # fmt: skip


def images(number: int) -> tuple[Tensor, Tensor]:
    """So many images of each class, class by class, and their labels."""
    shape = torch.empty(number * CLASSES, 2, 6, 6)
    return waves(shape, 0.731) + 0.3 * waves(shape, 0.0173), torch.arange(CLASSES).repeat_interleave(number)


def table(widths: tuple[int, ...], pace: float) -> list[np.ndarray]:
    """Scores of the filters of layers, above zero."""
    whole = (waves(torch.empty(sum(widths)), pace) + 1.001).square() / 7
    return [part.numpy() for part in whole.split(list(widths))]


class _Entries(list):  # type: ignore[type-arg]
    """What `np.array` of several tensors was: a list that is multiplied entry by entry."""

    def __mul__(self, other: Any) -> _Entries:
        return _Entries(one * two for one, two in zip(self, other, strict=True))


class _Whole(nn.Module):
    """What `DataParallel` is on one device."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros(1, 1, dtype=torch.float64)


def functions(source: Path, **names: Any) -> SimpleNamespace:
    """The functions of a file, with more digits printed, and with these names."""
    text = source.read_text().replace("{num:.2}", "{num:.9}").replace("%.2f", "%.9f")
    kept = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    space: dict[str, Any] = {"torch": torch, "nn": nn, "device": "cpu", **names}
    exec(compile(ast.Module(kept, []), str(source), "exec"), space)
    return SimpleNamespace(**space)


def _kept_by(losses: list[float]) -> Any:
    """In place of a backward pass: writes down the loss."""
    return lambda self, *_: losses.append(float(self.detach()))


def penalties(checkout: Path) -> dict[str, Any]:
    """Of its three nets: what is added to the loss, and the diagnostic of every layer."""
    models: dict[str, Any] = {}
    exec((checkout / "models.py").read_text(), models)
    found = {}
    for name, make in {"vgg": models["VGG"], "mobile": models["MobileNet"], "res": models["ResNet34"]}.items():
        losses: list[float] = []
        nothing = SimpleNamespace(zero_grad=lambda: None, step=lambda: None)
        main = functions(
            checkout / "main.py", trainloader=[(torch.zeros(1), torch.zeros(1, dtype=torch.long))], optimizer=nothing,
            criterion=lambda outputs, labels: outputs.sum() * 0, progress_bar=lambda *_: None,
        )  # fmt: skip
        net, backward, printed = _Whole(fill(make())), torch.Tensor.backward, io.StringIO()
        torch.Tensor.backward = _kept_by(losses)  # type: ignore[assignment, method-assign]
        try:
            getattr(main, f"{name}_train_ortho")(net)
        finally:
            torch.Tensor.backward = backward  # type: ignore[method-assign]
        with contextlib.redirect_stdout(printed):
            getattr(main, f"{name}_diag")(net)
        numbers = re.findall(r"(?:: |tensor\()(\d\.\d+(?:e-\d+)?)", printed.getvalue())
        found[name] = {"loss": losses[0], "diagonal": [float(number) for number in numbers]}
    return found


def scores(checkout: Path) -> dict[str, Any]:
    """Of both tiny nets: every score of every layer."""
    made = functions(checkout / "imp_estimator.py", criterion=nn.CrossEntropyLoss(), np=SimpleNamespace(array=_Entries))
    pixels, labels = images(4)
    parts = [(pixels[:7], labels[:7]), (pixels[7:], labels[7:])]
    found: dict[str, Any] = {}
    for arch, make in {"vgg": like_vgg, "resnet": like_resnet}.items():
        net = fill(make())
        own = {
            "fisher": made.cal_importance_fisher(net, arch, parts, num_stop=10**9),
            "tfo": made.cal_importance_tfo(net, arch, parts, num_stop=10**9),
            "bn-fan-in" if arch == "vgg" else "bn": made.cal_importance_bn(net, arch),
            "l1": made.cal_importance_l1(net, arch),
            "sfp": made.cal_importance_sfp(net, arch),
            "rdt": made.cal_importance_rd(net, arch, [(pixels, labels)], num_of_classes=CLASSES),
            # It stops when it meets an image too many of each class.
            "grasp": made.cal_importance_grasp(net, arch, [(pixels, labels)] * 2, n_samples=4, n_classes=CLASSES),
        }
        found[arch] = {name: [values.tolist() for values in layers] for name, layers in own.items()}
    return found


def rankings(checkout: Path) -> dict[str, Any]:
    """What stays of tables: of ten layers with and without its guard, and of blocks with depthwise convolutions."""
    made = functions(checkout / "pruner.py", np=np)
    layers = table(WIDTHS, 0.517)
    found: dict[str, Any] = {"guarded": {}, "plain": {}, "separable": {}}
    for ratio in RATIOS:
        for name in ("guarded", "plain"):
            rows = _rows(layers, _NUMBERS)
            if name == "guarded":
                rows = made.constrain_ratios(rows, np.array(WIDTHS))
            order, gone = made.vgg_order_and_ratios(rows, ratio)
            found[name][ratio] = [sorted(order[n][k:].tolist()) for n, k in zip(_NUMBERS, gone, strict=True)]
        own = table(SEPARABLE, 0.317)
        pairs = [own[0], *(part for block in range(13) for part in (own[block], own[block + 1]))]
        rows = made.constrain_ratios(_rows(pairs, range(27)), np.array([len(part) for part in pairs]))
        order, gone = made.mobile_order_and_ratios(rows, ratio)
        found["separable"][ratio] = [sorted(order[n][gone[n] :].tolist()) for n in range(0, 27, 2)]
    return found


def _rows(layers: list[np.ndarray], numbers: Any) -> np.ndarray:
    """The table of the reference: a row is a layer, an index and a score."""
    parts = zip(numbers, layers, strict=True)
    return np.concatenate([np.stack((np.full(len(p), n), np.arange(len(p)), p), axis=1) for n, p in parts])


def main() -> None:
    """Write all."""
    checkout = Path(sys.argv[1])
    found = {"penalties": penalties(checkout), "scores": scores(checkout), "rankings": rankings(checkout)}
    print(json.dumps({"made": __doc__, **found}))


if __name__ == "__main__":
    main()
