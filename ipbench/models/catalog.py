"""The names of the models, without torch.

The names that ipbench ships, and those of users, pass at once; only another one makes this module import torchvision,
or timm, to look it up there.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ipbench.errors import BadInput

#: Our own models: name -> one line. A name of ours wins over the same name in torchvision.
MODELS: dict[str, str] = {
    "lenet-300-100": "two hidden linear layers of 300 and 100, any input flattened (LeCun et al. 1998); no convolution",
    "lenet5-caffe": "Caffe's LeNet-5: convolutions 20@5x5 and 50@5x5, linear 500; inputs of 16 px or more, usually 28",
    "small-vgg": "six 3x3 convolutions with batch norm, widths 32 to 128, for quick runs; inputs of any size",
    "vgg13-cifar": "OrthoReg's VGG-13: biases, batch norm behind ReLU, one linear layer; inputs of 32 px or more",
    "vgg16": "VGG-16 for CIFAR: 13 convolutions with batch norm, one linear layer; inputs of 32 px or more",
    "vgg16-d": "the VGG-16 of SNIP and FreezeNet: vgg16 with biases and three linear layers; inputs of 32 px or more",
    "vgg19": "VGG-19 for CIFAR: 16 convolutions with batch norm, one linear layer; inputs of 16 px or more",
    "googlenet-cifar": "GoogLeNet with a 3x3 stem and batch norm, as it is pruned on CIFAR-10; inputs of any size",
    "mobilenet-v1": "MobileNet of width 1 with a 3x3 stem of stride 1; inputs of any size; 3.2 M parameters",
    "resnet34-cifar": "ResNet-34 with the stem of resnet18-cifar; inputs of any size",
    "resnet18-cifar": "ResNet-18 with a 3x3 stem of stride 1 and no max pooling; inputs of any size",
    "resnet20-cifar": "the CIFAR ResNet of He et al. with n = 3, parameter-free shortcuts; 0.27 M parameters",
    "resnet32-cifar": "the CIFAR ResNet of He et al. with n = 5, parameter-free shortcuts; 0.46 M parameters",
    "resnet56-cifar": "the CIFAR ResNet of He et al. with n = 9, parameter-free shortcuts; 0.85 M parameters",
    "resnet110-cifar": "the CIFAR ResNet of He et al. with n = 18, parameter-free shortcuts; 1.73 M parameters",
}

#: Detectors: name -> one line. Those of torchvision under its names, without weights.
DETECTORS: dict[str, str] = {
    "retinanet-small": "torchvision's RetinaNet on a small residual net, pyramid of 32 channels; images of about 96 px",
    "fasterrcnn-small": "torchvision's Faster R-CNN on the same net, 50 proposals of an image; images of about 96 px",
    "retinanet_resnet50_fpn": "torchvision's RetinaNet on ResNet-50, nothing pretrained or frozen; 3 channels",
    "fasterrcnn_resnet50_fpn": "torchvision's Faster R-CNN on ResNet-50, nothing pretrained or frozen; 3 channels",
}


class Size(NamedTuple):
    """How large a net is."""

    input: str
    """of one image: CxHxW"""
    classes: int
    parameters: int
    macs: int
    """multiply-accumulates of one image"""


#: With images of a usual size; a test counts them.
SIZES = {
    "lenet-300-100": Size("1x28x28", 10, 266_610, 266_200),
    "lenet5-caffe": Size("1x28x28", 10, 431_080, 2_293_000),
    "small-vgg": Size("1x28x28", 10, 288_170, 8_112_512),
    "vgg13-cifar": Size("3x32x32", 10, 9_416_010, 228_267_008),
    "vgg16": Size("3x32x32", 10, 14_724_042, 313_201_664),
    "vgg16-d": Size("3x32x32", 10, 15_255_626, 313_725_952),
    "vgg19": Size("3x32x32", 10, 20_035_018, 398_136_320),
    "googlenet-cifar": Size("3x32x32", 10, 6_158_346, 1_521_756_160),
    "mobilenet-v1": Size("3x32x32", 10, 3_217_226, 46_354_432),
    "resnet34-cifar": Size("3x32x32", 10, 21_282_122, 1_159_402_496),
    "resnet18-cifar": Size("3x32x32", 10, 11_173_962, 555_422_720),
    "resnet20-cifar": Size("3x32x32", 10, 269_722, 40_551_040),
    "resnet32-cifar": Size("3x32x32", 10, 464_154, 68_862_592),
    "resnet56-cifar": Size("3x32x32", 10, 853_018, 125_485_696),
    "resnet110-cifar": Size("3x32x32", 10, 1_727_962, 252_887_680),
    "retinanet-small": Size("1x96x96", 10, 455_255, 32_461_920),
    "fasterrcnn-small": Size("1x96x96", 10, 487_926, 30_529_760),
    "retinanet_resnet50_fpn": Size("3x800x1344", 80, 33_860_669, 249_824_870_400),
    "fasterrcnn_resnet50_fpn": Size("3x800x1344", 80, 41_757_156, 215_935_753_472),
}

#: How names of timm's models begin: what is written timm/NAME is called timm.NAME, since names become parts of paths.
TIMM = "timm."


@dataclass(frozen=True)
class OwnModel:
    """A model of a user's: a function of a file, or a known model that starts with given weights.

    Attributes:
        name: in tables and figures.
        base: the function in the file, or the known model.
        file: where the function stands; None of a known model.
        code: digest of the file and of the user's modules that it imports; "" of a known model.
        weights: a safetensors file; None for weights that are drawn.
        weights_sha256: of that file; "" without one.
    """

    name: str
    base: str
    file: Path | None = None
    code: str = ""
    weights: Path | None = None
    weights_sha256: str = ""


#: Models of users by name, as this command has been told of them (`ipbench.models.own`).
OWN: dict[str, OwnModel] = {}


def shipped(name: str) -> bool:
    """Whether ipbench itself has a model of this name."""
    return name in MODELS or name in DETECTORS


def known(name: str) -> bool:
    """Whether `build` can make a model of this name: ours, a user's, a detector, torchvision's or timm's."""
    if name in OWN or shipped(name):
        return True
    return name.removeprefix(TIMM) in timm_models() if name.startswith(TIMM) else name in torchvision_models()


def check(name: str, where: str = "") -> str:
    """The name of a model as runs have it, if it is a known one.

    Args:
        name: what a user wrote.
        where: how a user would find it, e.g. "config/x.yaml: model".

    Returns:
        `name`; of timm/NAME, timm.NAME.

    Raises:
        BadInput: no such model; the line names the nearest and the valid choices.
    """
    place = f" in {where}" if where else ""
    if isinstance(name, str) and name.startswith(("timm/", TIMM)) and name not in OWN:
        return TIMM + _of_timm(name.removeprefix("timm/").removeprefix(TIMM), place)
    if known(name):
        return name
    near = get_close_matches(str(name), [*OWN, *MODELS, *DETECTORS, *torchvision_models()], n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    # Not `errors.valid_choice`: with torchvision's eighty names its line would hide the ones that matter.
    raise BadInput(
        f"unknown model {name!r:.80}{place}{hint}; valid: {', '.join((*sorted({*OWN, *MODELS}), *DETECTORS))}, "
        "any classification model of torchvision, timm/NAME, a --model-file"
    )


def _of_timm(name: str, place: str) -> str:
    """The name of an architecture of timm's."""
    if importlib.util.find_spec("timm") is None:
        raise BadInput(f"timm/{name:.80}{place}: timm is not installed: pip install 'ipbench[timm]'")
    if name in timm_models():
        return name
    if name.partition(".")[0] in timm_models():
        base, _, tag = name.partition(".")
        raise BadInput(
            f"timm/{name:.80}{place}: {tag!r} names weights: write {{name: timm/{base}, weights: {tag}}}, or --weights"
        )
    near = get_close_matches(name, timm_models(), n=1)
    hint = f" (did you mean timm/{near[0]}?)" if near else ""
    raise BadInput(f"unknown model 'timm/{name:.80}'{place}{hint}; valid: the names that timm.list_models() has")


def task_of_model(name: str) -> str:
    """The task that a known model is for, as the catalogue of data sets names it."""
    base = OWN[name].base if name in OWN and OWN[name].file is None else name
    return "detection" if base in DETECTORS else "classification"


def check_task(name: str, dataset: str, task: str, where: str) -> None:
    """Whether a model is for the task of a data set.

    Args:
        name: of a known model.
        dataset: its name, for the message.
        task: that of the data set.
        where: how a user would find it.

    Raises:
        BadInput: it is for another one.
    """
    if task_of_model(name) != task:
        fitting = ", ".join(DETECTORS if task == "detection" else sorted(MODELS))
        raise BadInput(
            f"{where}: data set {dataset} is of {task}, and model {name} is for {task_of_model(name)}; for {task}:"
            f" {fitting}"
        )


@cache
def torchvision_models() -> frozenset[str]:
    """The names of torchvision's classification models (its detection, video and quantised ones live elsewhere)."""
    import torchvision.models  # here, and only for names that are not ours: it takes seconds and imports torch

    return frozenset(torchvision.models.list_models(module=torchvision.models))


@cache
def timm_models() -> frozenset[str]:
    """The names of timm's architectures; none where it is not installed."""
    if importlib.util.find_spec("timm") is None:
        return frozenset()
    import timm  # here, as above

    return frozenset(timm.list_models())
