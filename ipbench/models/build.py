"""A net from its name, with keyed initial weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ipbench import keys, output
from ipbench.errors import BadInput
from ipbench.models import catalog, googlenet, lenet, making, mobilenet, own, resnet, vgg, weights
from ipbench.models.initialise import initialise
from ipbench.spec import Own

Shape = tuple[int, int, int]

#: Pixels per side below which the coarsest level of a detector is a single place.
_SMALLEST_SCENE = 64
#: What is told of a model that is known by its name.
_NOTHING = Own()


class _Own(NamedTuple):
    make: Callable[[Shape, int], nn.Module]
    smallest: int = 1  #: the fewest pixels per side that leave something after the last pooling


_OWN: dict[str, _Own] = {
    "lenet-300-100": _Own(lenet.lenet_300_100),
    "lenet5-caffe": _Own(lenet.lenet5_caffe, smallest=16),
    "small-vgg": _Own(vgg.small_vgg),
    "vgg13-cifar": _Own(vgg.vgg13_cifar, smallest=32),
    "vgg16": _Own(vgg.vgg16, smallest=32),
    "vgg16-d": _Own(vgg.vgg16_d, smallest=32),
    "vgg19": _Own(vgg.vgg19, smallest=16),
    "googlenet-cifar": _Own(googlenet.googlenet_cifar),
    "mobilenet-v1": _Own(mobilenet.mobilenet_v1),
    "resnet18-cifar": _Own(resnet.resnet18_cifar),
    "resnet34-cifar": _Own(resnet.resnet34_cifar),
    "resnet20-cifar": _Own(partial(resnet.resnet_cifar, n=3)),
    "resnet32-cifar": _Own(partial(resnet.resnet_cifar, n=5)),
    "resnet56-cifar": _Own(partial(resnet.resnet_cifar, n=9)),
    "resnet110-cifar": _Own(partial(resnet.resnet_cifar, n=18)),
}


def build(
    name: str, shape: Shape, classes: int, seed: int, scheme: str = "kaiming_normal", told: Own = _NOTHING
) -> nn.Module:
    """Make the model `name` on the CPU in training mode.

    Args:
        name: one of `catalog.MODELS` or `catalog.DETECTORS`, any classification model of torchvision.models, timm.NAME
            (never pretrained), or a user's.
        shape: (channels, height, width) of one image.
        classes: the number of logits; of a detector, of classes without the background.
        seed: the run's seed; all initial values are functions of it, of the names of the layers and of nothing else.
        scheme: how weights are drawn, one of `initialise.SCHEMES`.
        told: of a run, what its model stands for: its code, and the weights that it starts with in place of drawn ones.

    Returns:
        A module that maps images (B, *shape) to logits (B, classes); a detector, see `detectors`. The state of
        torch's global generators is as before.

    Raises:
        BadInput: unknown model or scheme, the model cannot take this shape, or is not what the run says.
        ValueError: `shape` or `classes` is not positive.
    """
    _check(name, shape, classes, told)
    base = told.base or name
    with torch.random.fork_rng(devices=[]):
        # For parameters that are neither weights nor norms, which `initialise` leaves alone (embeddings, tokens).
        # Not torch.manual_seed: it would also reseed the GPUs. A blank is in no layer's name, so no stream is shared.
        torch.default_generator.set_state(keys.generator(seed, "init", "other parameters").get_state())
        net = making.of_file(catalog.OWN[name], shape, classes) if told.code else _make(base, shape, classes)
        _check_timm(net, base, shape, classes, told)
    initialise(net, seed, scheme)
    if base in catalog.DETECTORS and not told.code:
        _detectors().begin_outputs(net)
    if told.weights:
        _load(net, name, told, classes)
    return net


def _load(net: nn.Module, name: str, told: Own, classes: int) -> None:
    path = catalog.OWN[name].weights
    assert path is not None  # `own.check` has seen to it
    if drawn := weights.load(net, path, told.weights, classes):
        _say_once(f"ipbench: {path}: made for another number of classes than {classes}, so drawn: {', '.join(drawn)}")


@cache
def _say_once(text: str) -> None:
    output.complain(text)


def outline(name: str, shape: Shape, classes: int, told: Own = _NOTHING) -> nn.Module:
    """The model `name` without values, on torch's meta device: what it consists of, however large it is.

    Args:
        name: as for `build`.
        shape: as for `build`.
        classes: as for `build`.
        told: as for `build`.

    Raises:
        BadInput: as `build`.
    """
    _check(name, shape, classes, told)
    with torch.random.fork_rng(devices=[]):
        if told.code:  # it is tried with an image, which needs values
            return making.of_file(catalog.OWN[name], shape, classes).to("meta")
        with _Unfilled():
            net = _make(told.base or name, shape, classes)
        net = net.to("meta")
        _check_timm(net, told.base or name, shape, classes, told)
    return net


def _check_timm(net: nn.Module, base: str, shape: Shape, classes: int, told: Own) -> None:
    if base.startswith(catalog.TIMM) and not told.code:
        making.check_outputs(net, base.replace(catalog.TIMM, "timm/", 1), shape, classes)


class _Unfilled(TorchFunctionMode):
    """Within the block `torch.empty`, with which modules make their weights, allocates nothing.

    Not `torch.device("meta")`: some models compute their widths with tensors.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        return func(*args, **(kwargs | {"device": "meta"} if func is torch.empty else kwargs))


def _check(name: str, shape: Shape, classes: int, told: Own) -> None:
    own.check(name, told)
    if not told.code:
        catalog.check(told.base or name)
    if len(shape) != 3 or min(shape) < 1 or classes < 1:
        raise ValueError(f"not a shape (C, H, W) and a number of classes: {shape}, {classes}")


def _make(name: str, shape: Shape, classes: int) -> nn.Module:
    if name in catalog.DETECTORS:
        return _detector(name, shape, classes)
    if name.startswith(catalog.TIMM):
        return making.of_timm(name.removeprefix(catalog.TIMM), shape, classes)
    return _own(name, shape, classes) if name in _OWN else _torchvision(name, shape, classes)


def _detectors() -> ModuleType:
    from ipbench.models import detectors  # here, so that nets of classification do not pay for torchvision

    return detectors


def _detector(name: str, shape: Shape, classes: int) -> nn.Module:
    make, any_channels = _detectors().DETECTORS[name]
    if shape[0] != 3 and not any_channels:
        raise BadInput(f"model {name} of torchvision takes images of 3 channels (got {shape[0]})")
    if min(shape[1:]) < _SMALLEST_SCENE:
        raise BadInput(
            f"model {name} needs images of at least {_SMALLEST_SCENE} x {_SMALLEST_SCENE} pixels"
            f" (got {shape[1]} x {shape[2]})"
        )
    net: nn.Module = make(shape, classes)
    return net


def _own(name: str, shape: Shape, classes: int) -> nn.Module:
    make, smallest = _OWN[name]
    if min(shape[1:]) < smallest:
        raise BadInput(
            f"model {name} needs images of at least {smallest} x {smallest} pixels (got {shape[1]} x {shape[2]})"
        )
    return make(shape, classes)


def _torchvision(name: str, shape: Shape, classes: int) -> nn.Module:
    import torchvision.models  # here, so that our own nets do not pay for it

    if shape[0] != 3:
        raise BadInput(f"model {name} of torchvision takes images of 3 channels (got {shape[0]})")
    # With auxiliary classifiers these two return several outputs in training; their own initialisation is replaced.
    plain = {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    net: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=classes, **plain)
    _try(net, name, shape)
    return net


def _try(net: nn.Module, name: str, shape: Shape) -> None:
    """Raise `BadInput` if the net cannot take this shape: a forward pass of shapes alone, without values."""
    shapes = {key: tensor.to("meta") for key, tensor in net.state_dict().items()}
    net.eval()
    try:
        with torch.no_grad():
            torch.func.functional_call(net, shapes, torch.empty(1, *shape, device="meta"))
    except (RuntimeError, AssertionError, ValueError) as error:
        message = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(f"model {name} cannot take images of {shape[1]} x {shape[2]} pixels: {message}") from None
    finally:
        net.train()
