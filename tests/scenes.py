"""Tiny detectors and scenes of bright rectangles that several test files use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from ipbench.data.boxes import Target
from ipbench.data.loaders import Batch
from ipbench.models.detectors import Faster, Pyramid, Retina, begin_outputs
from ipbench.models.initialise import initialise
from tests.tiny import TinyData

SHAPE = (1, 64, 64)
CLASSES = 3


def _anchors(*sizes: int) -> AnchorGenerator:
    return AnchorGenerator(tuple((size,) for size in sizes), ((0.5, 1.0, 2.0),) * len(sizes))


def tiny_retina(seed: int = 0) -> Retina:
    """RetinaNet of a few channels, with keyed weights."""
    net = Retina(Pyramid(1, (4, 6, 8, 8), 1, 8, 3), CLASSES, _anchors(12, 24, 48))
    return _begun(net, seed)


def tiny_faster(seed: int = 0) -> Faster:
    """Faster R-CNN of a few channels, with keyed weights."""
    net = Faster(
        Pyramid(1, (4, 6, 8, 8), 1, 8, 4, LastLevelMaxPool()), CLASSES, _anchors(8, 16, 24, 32, 48),
        MultiScaleRoIAlign(["0", "1", "2", "3"], 3, 2, canonical_scale=48), TwoMLPHead(8 * 3**2, 12), 12,
        rpn_pre_nms_top_n_train=40, rpn_pre_nms_top_n_test=40, rpn_post_nms_top_n_train=20, rpn_post_nms_top_n_test=10,
        rpn_batch_size_per_image=16, box_batch_size_per_image=12,
    )  # fmt: skip
    return _begun(net, seed)


def _begun(net: Any, seed: int) -> Any:
    initialise(net, seed)
    begin_outputs(net)
    return net


DETECTORS = {"retina": tiny_retina, "faster": tiny_faster}


def scene(number: int) -> tuple[Tensor, Target]:
    """An image (1, 64, 64) of noise with one to three bright rectangles, and what is in it."""
    generator = torch.Generator().manual_seed(number)
    image = torch.rand(SHAPE, generator=generator) * 0.2
    count = number % 3 + 1
    corners = torch.randint(0, 30, (count, 2), generator=generator)
    sides = torch.randint(12, 30, (count, 2), generator=generator)
    labels = torch.randint(1, CLASSES + 1, (count,), generator=generator)
    for (x, y), (w, h), label in zip(corners.tolist(), sides.tolist(), labels.tolist(), strict=True):
        image[0, y : y + h, x : x + w] += label
    return image, Target(torch.cat((corners, corners + sides), 1).float(), labels)


def batch(*numbers: int) -> Batch:
    """Scenes by number; their numbers are those of a split."""
    images, targets = zip(*map(scene, numbers), strict=True)
    sizes = ((SHAPE[1], SHAPE[2]),) * len(numbers)
    return Batch(torch.stack(images), torch.zeros(0, dtype=torch.int64), targets, torch.tensor(numbers), sizes)


def truth(*numbers: int) -> dict[str, Any]:
    """What is in these scenes, in COCO's form."""
    annotations: list[dict[str, Any]] = []
    for number in numbers:
        target = scene(number)[1]
        for (left, top, right, bottom), label in zip(target.boxes.tolist(), target.labels.tolist(), strict=True):
            box = [left, top, right - left, bottom - top]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number + 1, "category_id": label, "bbox": box,
                 "area": box[2] * box[3], "iscrowd": 0}
            )  # fmt: skip
    images = [{"id": number + 1, "height": SHAPE[1], "width": SHAPE[2]} for number in numbers]
    categories = [{"id": label, "name": str(label)} for label in range(1, CLASSES + 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


class TinyScenes(TinyData):
    """As `TinyData`: three batches of four scenes, the same in every epoch and every part."""

    name, classes = "fashion-scenes", CLASSES

    def __init__(self) -> None:
        super().__init__(SHAPE)
        self.batches = [batch(*range(4 * place, 4 * place + 4)) for place in range(3)]

    def truth(self, part: str) -> dict[str, Any]:
        """Of all scenes."""
        return truth(*range(12))

    def validation(self) -> Iterator[Batch]:
        return iter(self.batches)

    test = validation


def frozen_norms(net: nn.Module, *, stem: bool = True) -> nn.Module:
    """The net with torchvision's frozen norms in place of its batch norms; `stem`: and its stem is not trained."""
    from torchvision.ops import FrozenBatchNorm2d

    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, FrozenBatchNorm2d(child.num_features))
    net.get_submodule("backbone.body.stem").requires_grad_(not stem)
    return net
