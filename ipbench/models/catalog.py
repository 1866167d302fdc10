"""The names of the models, without torch.

Our own names pass at once; only a name that is not ours makes this module import torchvision, to look it up there.
"""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache

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


def known(name: str) -> bool:
    """Whether `build` can make a model of this name: ours, a detector, or torchvision's for classification."""
    return name in MODELS or name in DETECTORS or name in torchvision_models()


def check(name: str, where: str = "") -> str:
    """Return `name` if it is a known model.

    Args:
        name: what a user wrote.
        where: how a user would find it, e.g. "config/x.yaml: model".

    Raises:
        BadInput: no such model; the line names the nearest and the valid choices.
    """
    if known(name):
        return name
    near = get_close_matches(str(name), [*MODELS, *DETECTORS, *torchvision_models()], n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    place = f" in {where}" if where else ""
    # Not `errors.valid_choice`: with torchvision's eighty names its line would hide the ones that matter.
    raise BadInput(
        f"unknown model {name!r}{place}{hint}; valid: {', '.join((*sorted(MODELS), *DETECTORS))}, "
        "or any classification model of torchvision.models"
    )


def task_of_model(name: str) -> str:
    """The task that a known model is for, as the catalogue of data sets names it."""
    return "detection" if name in DETECTORS else "classification"


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
