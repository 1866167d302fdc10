"""Nets of users' files, and of timm: made, and tried with images of the data set's shape."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ipbench.errors import BadInput, valid_choice
from ipbench.models.catalog import OwnModel
from ipbench.user_files import beside, execute

Shape = tuple[int, int, int]
_LABEL = "ipbench_model"
#: What a function of a model file may take.
GIVEN = ("shape", "classes")


def of_file(found: OwnModel, shape: Shape, classes: int) -> nn.Module:
    """What the function of a model file makes. The file is run anew, so that no net finds what another one left in it.

    Args:
        found: the model; its code has been compared with what was planned.
        shape: (channels, height, width) of one image.
        classes: the number of logits.

    Raises:
        BadInput: there is no such function, it takes something else, fails, or makes no net for such images.
    """
    assert found.file is not None
    place = f"{found.file}: {found.base}"
    try:
        with beside(found.file):
            module = execute(_LABEL, found.file)
            function = _function(vars(module), found.base, found.file)
            net = _called(function, place, shape, classes)
    finally:
        sys.modules.pop(_LABEL, None)
    if not isinstance(net, nn.Module):
        raise BadInput(f"{place} returns {type(net).__name__}, not a torch.nn.Module")
    check_outputs(net, place, shape, classes)
    return net


def of_timm(name: str, shape: Shape, classes: int) -> nn.Module:
    """An architecture of timm's, with its own first layer for the channels of the images.

    Args:
        name: as timm knows it.
        shape: (channels, height, width) of one image.
        classes: the number of logits.

    Raises:
        BadInput: timm does not make it for such images.
    """
    import timm

    sized: Any = {"img_size": shape[1:]} if _is_sized(name) else {}
    try:
        net: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes, in_chans=shape[0], **sized)
    except Exception as error:  # whatever an architecture stumbles over
        raise BadInput(f"timm/{name} for images of {_text(shape)}: {_said(error)}") from None
    return net


def check_outputs(net: nn.Module, place: str, shape: Shape, classes: int) -> None:
    """Whether a net maps images to logits, in evaluation and in training; its parameters and buffers stay as they are.

    Args:
        net: on the CPU or the meta device, in training mode.
        place: how messages name it.
        shape: (channels, height, width) of one image.
        classes: the number of logits.

    Raises:
        BadInput: it fails, or gives something else.
    """
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    device = next((tensor.device for tensor in before.values()), torch.device("cpu"))  # "meta" of an outline
    images = torch.zeros(2, *shape, device=device)
    for training in (False, True):
        net.train(training)
        try:
            with torch.no_grad():
                logits = net(images)
        except Exception as error:
            raise BadInput(f"{place} cannot take images of {_text(shape)}: {_said(error)}") from None
        if not isinstance(logits, torch.Tensor):
            mode = "in training" if training else "in evaluation"
            raise BadInput(f"{place} gives {type(logits).__name__} {mode}, not a tensor of logits (images, classes)")
        if tuple(logits.shape) != (2, classes):
            raise BadInput(
                f"{place} gives outputs of shape {tuple(logits.shape)} for 2 images, where the data set has"
                f" {classes} classes: it must be (2, {classes}); a function may take `classes`"
            )
    net.load_state_dict(before)


def _function(names: dict[str, Any], wanted: str, file: Path) -> Callable[..., Any]:
    own = [
        name
        for name, value in names.items()
        if callable(value) and getattr(value, "__module__", None) == _LABEL and not name.startswith("_")
    ]
    if wanted not in names:
        if not own:
            raise BadInput(f"{file}: no function {wanted}, nor any other one")
        valid_choice(wanted, own, "function", str(file))
    if not callable(names[wanted]):
        raise BadInput(f"{file}: {wanted} is {type(names[wanted]).__name__}, not a function or a class of nets")
    function: Callable[..., Any] = names[wanted]
    return function


def _called(function: Callable[..., Any], place: str, shape: Shape, classes: int) -> object:
    given = {"shape": shape, "classes": classes}
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        raise BadInput(f"{place} does not tell what it takes; write a function of your own around it") from None
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    for one in parameters:
        by_name = one.name in GIVEN and one.kind is not inspect.Parameter.POSITIONAL_ONLY
        if one.default is inspect.Parameter.empty and one.kind not in variable and not by_name:
            raise BadInput(
                f"{place} needs the argument {one.name!r}, which nothing gives: it takes shape and classes by these"
                " names, or nothing"
            )
    taken = {one.name: given[one.name] for one in parameters if one.name in given and one.kind not in variable}
    try:
        return function(**taken)
    except (Exception, SystemExit) as error:
        raise BadInput(f"{place} fails: {_said(error)}") from None


def _is_sized(name: str) -> bool:
    """Whether an architecture is made for one size of images."""
    import timm

    config = timm.models.get_pretrained_cfg(name, allow_unregistered=True)
    return bool(config is not None and config.fixed_input_size)


def _text(shape: Shape) -> str:
    return " x ".join(map(str, shape))


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split()):.300}"
