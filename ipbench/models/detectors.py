"""Detectors: torchvision's RetinaNet and Faster R-CNN on batches that are resized and normalised already.

RetinaNet: Lin et al., ICCV 2017, arXiv:1708.02002. Faster R-CNN: Ren et al., NeurIPS 2015, arXiv:1506.01497. Feature
pyramids: Lin et al., CVPR 2017, arXiv:1612.03144. Layers, matching, losses and what is made of outputs are
torchvision's; here are the way in and out, and which anchors and proposals are sampled.

`net(images)` gives the raw outputs of all heads, in either mode, and nothing in it depends on values: that is what
channels are traced in, what is counted and what is timed. Faster R-CNN takes a fixed set of proposals then, as many as
it keeps of an image at most. `net(images, truth)` gives a `Detected`: losses, and in evaluation mode what was found.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import fastrcnn_loss
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign, roi_align
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool, LastLevelP6P7

from ipbench.models.resnet import BasicBlock, projection
from ipbench.tasks.detection import Detected, Found, Truth

Shape = tuple[int, int, int]

#: Standard deviation of the weights of output layers, and the score that RetinaNet gives every anchor at the start
#: (Lin et al. 2017, sec. 4.1): without it the loss of the background is all that is seen.
OUTPUT_STD, PRIOR = 0.01, 0.01


@dataclass
class KeyedSampler:
    """Which anchors or proposals of an image enter the loss: as torchvision's sampler, by numbers that are keyed.

    Each of an image's candidates has a number, a function of the image's key and of the candidate's place; of the
    positive and of the negative ones, those with the smallest numbers are taken.

    Attributes:
        size: at most so many of an image.
        positive: at most this share of them are positive.
        keys: of the images of the present pass.
    """

    size: int
    positive: float
    keys: list[int] = field(default_factory=list)

    def __call__(self, labels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Masks (uint8) of the positive and of the negative ones that are taken, an entry for each image.

        Args:
            labels: of an image's candidates (n,): above 0 positive, 0 negative, below 0 neither.
        """
        taken: tuple[list[Tensor], list[Tensor]] = [], []
        for key, values in zip(self.keys, labels, strict=True):
            numbers = torch.rand(len(values), generator=torch.Generator().manual_seed(key), dtype=torch.float64)
            numbers = numbers.to(values.device)
            positive, negative = torch.where(values >= 1)[0], torch.where(values == 0)[0]
            first = min(len(positive), int(self.size * self.positive))
            for chosen, candidates, count in zip(
                taken, (positive, negative), (first, min(len(negative), self.size - first)), strict=True
            ):
                mask = torch.zeros_like(values, dtype=torch.uint8)
                mask[candidates[numbers[candidates].argsort(stable=True)[:count]]] = 1
                chosen.append(mask)
        return taken

    @contextmanager
    def of(self, keys: Sequence[int]) -> Iterator[None]:
        """Within the block, the images have these keys."""
        self.keys = list(keys)
        try:
            yield
        finally:
            self.keys = []


class Retina(RetinaNet):
    """RetinaNet on normalised batches."""

    def __init__(self, backbone: nn.Module, classes: int, anchors: AnchorGenerator, **options: float) -> None:
        """As torchvision's, without its transform; `classes` without the background."""
        super().__init__(backbone, classes + 1, anchor_generator=anchors, **options)
        self.transform = nn.Identity()

    @property
    def outputs(self) -> dict[str, float]:
        """Names of the layers that give the outputs, and the biases that they start with."""
        return {
            "head.classification_head.cls_logits": -math.log((1 - PRIOR) / PRIOR),
            "head.regression_head.bbox_reg": 0.0,
        }

    def forward(self, images: Tensor, truth: Truth | None = None) -> tuple[Tensor, ...] | Detected:
        """Logits (N, anchors, classes + 1) and offsets (N, anchors, 4); with `truth`, a `Detected`.

        Args:
            images: (N, C, H, W), normalised, padded on the right and at the bottom.
            truth: what is in the images.
        """
        levels = list(self.backbone(images).values())
        outputs = {name: values.float() for name, values in self.head(levels).items()}
        if truth is None:
            return outputs["cls_logits"], outputs["bbox_regression"]
        boxed = ImageList(images, list(truth.sizes_of(images)))
        anchors = self.anchor_generator(boxed, levels)
        losses = self.compute_loss(truth.by_image(), outputs, anchors)
        return Detected(losses, () if self.training else self._found(outputs, anchors, levels, boxed.image_sizes))

    def _found(
        self, outputs: Mapping[str, Tensor], anchors: list[Tensor], levels: list[Tensor], sizes: list[tuple[int, int]]
    ) -> tuple[Found, ...]:
        """What is in each image: never label 0, an output that torchvision has, and that no truth trains."""
        outputs = {**outputs, "cls_logits": outputs["cls_logits"].clone()}
        outputs["cls_logits"][..., 0] = -math.inf
        cells = [level.shape[-2] * level.shape[-1] for level in levels]
        number = outputs["cls_logits"].shape[1] // sum(cells)
        split = [number * count for count in cells]
        parts = {name: list(values.split(split, dim=1)) for name, values in outputs.items()}
        found = self.postprocess_detections(parts, [list(image.split(split)) for image in anchors], sizes)
        return _as_found(found)


class Faster(FasterRCNN):
    """Faster R-CNN on normalised batches, with keyed samples."""

    def __init__(
        self, backbone: nn.Module, classes: int, anchors: AnchorGenerator, pool: MultiScaleRoIAlign,
        head: nn.Module, representation: int, **options: float,
    ) -> None:  # fmt: skip
        """As torchvision's, without its transform.

        Args:
            backbone: with a feature pyramid.
            classes: without the background.
            anchors: of the proposals.
            pool: of the pyramid's levels for a proposal.
            head: what the values of a proposal go through.
            representation: how many values leave `head`.
            options: others of torchvision's.
        """
        super().__init__(
            backbone, rpn_anchor_generator=anchors, box_roi_pool=pool, box_head=head,
            box_predictor=FastRCNNPredictor(representation, classes + 1), **options,
        )  # fmt: skip
        self.transform = nn.Identity()
        for part in (self.rpn, self.roi_heads):
            sampler = part.fg_bg_sampler
            part.fg_bg_sampler = KeyedSampler(sampler.batch_size_per_image, sampler.positive_fraction)

    @property
    def outputs(self) -> dict[str, float]:
        """Names of the layers that give the outputs, and the biases that they start with."""
        names = (
            "rpn.head.cls_logits", "rpn.head.bbox_pred",
            "roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred",
        )  # fmt: skip
        return dict.fromkeys(names, 0.0)

    @property
    def proposals(self) -> int:
        """How many proposals of an image are looked at, at most: what its MACs are counted with."""
        return int(self.rpn._post_nms_top_n["testing"])

    def forward(self, images: Tensor, truth: Truth | None = None) -> tuple[Tensor, ...] | Detected:
        """All objectness and offsets by level, then logits and offsets of fixed proposals; with `truth`, a `Detected`.

        Args:
            images: (N, C, H, W), normalised, padded on the right and at the bottom.
            truth: what is in the images.
        """
        features = self.backbone(images)
        if truth is None:
            objectness, offsets = self.rpn.head(list(features.values()))
            return (*objectness, *offsets, *self._judged(self._pooled_fixed(images, features)))
        boxed = ImageList(images, list(truth.sizes_of(images)))
        targets = truth.by_image()
        with self.rpn.fg_bg_sampler.of(truth.draws[:, 0].tolist()):
            proposals, losses = self._propose(boxed, features, targets)
        with self.roi_heads.fg_bg_sampler.of(truth.draws[:, 1].tolist()):
            losses |= self._losses(boxed, features, proposals, targets)
        return Detected(losses, () if self.training else self._found(boxed, features, proposals))

    def _propose(
        self, images: ImageList, features: Mapping[str, Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """The proposals of each image, and the losses of the net that proposes."""
        rpn, levels = self.rpn, list(features.values())
        objectness, offsets = rpn.head(levels)
        anchors = rpn.anchor_generator(images, levels)
        counts = [level[0].numel() for level in objectness]
        scores, deltas = concat_box_prediction_layers(
            [level.float() for level in objectness], [level.float() for level in offsets]
        )
        boxes = rpn.box_coder.decode(deltas.detach(), anchors).view(len(anchors), -1, 4)
        proposals, _ = rpn.filter_proposals(boxes, scores, images.image_sizes, counts)
        labels, matched = rpn.assign_targets_to_anchors(anchors, targets)
        wanted = rpn.box_coder.encode(matched, anchors)
        objectness_loss, box_loss = rpn.compute_loss(scores, deltas, labels, wanted)
        return proposals, {"loss_objectness": objectness_loss, "loss_rpn_box_reg": box_loss}

    def _losses(
        self, images: ImageList, features: Mapping[str, Tensor], proposals: list[Tensor],
        targets: list[dict[str, Tensor]],
    ) -> dict[str, Tensor]:  # fmt: skip
        """The losses of the second stage, on a sample of the proposals.

        As many rows of every image go through its layers, so that it is known whose they are (`sparse.gates`); those
        that fill up are in no loss.
        """
        roi = self.roi_heads
        sampled, _, labels, wanted = roi.select_training_samples(proposals, targets)
        size = roi.fg_bg_sampler.size
        filled = [
            torch.cat((boxes, boxes.new_tensor([[0, 0, 1, 1]]).expand(size - len(boxes), 4))) for boxes in sampled
        ]
        there = torch.cat([torch.arange(size, device=boxes.device) < len(boxes) for boxes in sampled])
        logits, offsets = self._judged(self._pooled(features, filled, images))
        classifier, box = fastrcnn_loss(logits[there], offsets[there], labels, wanted)
        return {"loss_classifier": classifier, "loss_box_reg": box}

    def _found(self, images: ImageList, features: Mapping[str, Tensor], proposals: list[Tensor]) -> tuple[Found, ...]:
        roi = self.roi_heads
        logits, offsets = self._judged(self._pooled(features, proposals, images))
        boxes, scores, labels = roi.postprocess_detections(logits, offsets, proposals, images.image_sizes)
        return tuple(Found(*parts) for parts in zip(boxes, labels, scores, strict=True))

    def _judged(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (proposals, classes + 1) and offsets (proposals, 4 (classes + 1))."""
        logits, offsets = self.roi_heads.box_predictor(self.roi_heads.box_head(pooled))
        return logits.float(), offsets.float()

    def _pooled(self, features: Mapping[str, Tensor], boxes: list[Tensor], images: ImageList) -> Tensor:
        """What the second stage is given of boxes: (boxes, channels, height, width)."""
        pool = self.roi_heads.box_roi_pool
        pooled: Tensor = pool(features, boxes, images.image_sizes)
        pool.scales = pool.map_levels = None  # nothing of these images is left behind
        return pooled

    def _pooled_fixed(self, images: Tensor, features: Mapping[str, Tensor]) -> Tensor:
        """What the second stage is given of fixed proposals, spread over the levels and over the image.

        Every operator of it is known to the trace of channels, and no size depends on a value.
        """
        pool = self.roi_heads.box_roi_pool
        levels = [features[name] for name in pool.featmap_names]
        height, width = images.shape[-2:]
        pooled = []
        for number, level in enumerate(levels):
            count = len(range(number, self.proposals, len(levels)))
            places = torch.arange(count, device=images.device, dtype=images.dtype) / count
            corners = torch.stack((places * width / 2, places.flip(0) * height / 2), 1)
            sides = corners.new_tensor([width / 2, height / 2])
            boxes = torch.cat((corners, corners + sides), 1)
            scale = 2.0 ** round(math.log2(level.shape[-2] / height))
            pooled.append(roi_align(level, [boxes] * len(images), pool.output_size, scale, pool.sampling_ratio))
        return torch.cat(pooled)


def _as_found(found: Sequence[Mapping[str, Tensor]]) -> tuple[Found, ...]:
    return tuple(Found(image["boxes"], image["labels"], image["scores"]) for image in found)


class Pyramid(nn.Module):
    """A small residual net with a feature pyramid.

    A stem of stride 4 and a stage of so many basic blocks per width, each but the first halving the resolution.

    Attributes:
        out_channels: of every level of the pyramid.
    """

    def __init__(
        self,
        channels: int,
        widths: Sequence[int],
        blocks: int,
        out_channels: int,
        levels: int,
        extra: ExtraFPNBlock | None = None,
    ) -> None:
        """A pyramid over the last `levels` of the stages.

        Args:
            channels: of the image.
            widths: of the stages.
            blocks: of a stage.
            out_channels: of every level.
            levels: how many stages the pyramid is made of.
            extra: makes coarser levels, if any.
        """
        super().__init__()
        self.out_channels = out_channels
        self.body = nn.Sequential()
        stem = OrderedDict(
            conv=nn.Conv2d(channels, widths[0], 3, 2, padding=1, bias=False),
            norm=nn.BatchNorm2d(widths[0]),
            relu=nn.ReLU(),
            pool=nn.MaxPool2d(3, 2, padding=1),
        )
        self.body.add_module("stem", nn.Sequential(stem))
        before = widths[0]
        for number, width in enumerate(widths, start=1):
            stage = nn.Sequential()
            for block in range(1, blocks + 1):
                stride = 2 if number > 1 and block == 1 else 1
                stage.add_module(f"block{block}", BasicBlock(before, width, stride, projection))
                before = width
            self.body.add_module(f"stage{number}", stage)
        self.used = [f"stage{number}" for number in range(len(widths) - levels + 1, len(widths) + 1)]
        self.fpn = FeaturePyramidNetwork(list(widths[-levels:]), out_channels, extra)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The levels (N, out_channels, h, w) by name, the finest first."""
        found: OrderedDict[str, Tensor] = OrderedDict()
        for name, part in self.body.named_children():
            images = part(images)
            if name in self.used:
                found[str(len(found))] = images
        levels: dict[str, Tensor] = self.fpn(found)
        return levels


def _thirds(sizes: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Anchor sizes by level, three an octave, as torchvision rounds them."""
    return tuple((size, int(size * 2 ** (1 / 3)), int(size * 2 ** (2 / 3))) for size in sizes)


def _anchors(sizes: Sequence[Sequence[int]], ratios: tuple[float, ...] = (0.5, 1.0, 2.0)) -> AnchorGenerator:
    return AnchorGenerator(tuple(map(tuple, sizes)), (ratios,) * len(sizes))


def retinanet_small(shape: Shape, classes: int) -> Retina:
    """RetinaNet for images of about 96 px: a residual net of widths 16 to 128, levels of stride 8, 16 and 32.

    Anchors of three sizes an octave from 16 px on.
    """
    backbone = Pyramid(shape[0], (16, 32, 64, 128), 1, 32, 3)
    return Retina(backbone, classes, _anchors(_thirds((16, 32, 64))), detections_per_img=50)


def fasterrcnn_small(shape: Shape, classes: int) -> Faster:
    """Faster R-CNN for images of about 96 px: the same residual net, levels of stride 4 to 64, 50 proposals."""
    backbone = Pyramid(shape[0], (16, 32, 64, 128), 1, 32, 4, LastLevelMaxPool())
    pool = MultiScaleRoIAlign(["0", "1", "2", "3"], 5, 2, canonical_scale=48)
    return Faster(
        backbone, classes, _anchors([(12,), (20,), (32,), (48,), (72,)]), pool,
        TwoMLPHead(32 * 5**2, 128), 128,
        rpn_pre_nms_top_n_train=200, rpn_pre_nms_top_n_test=200, rpn_post_nms_top_n_train=100,
        rpn_post_nms_top_n_test=50, rpn_batch_size_per_image=64, box_batch_size_per_image=64,
        box_detections_per_img=50,
    )  # fmt: skip


def retinanet_resnet50_fpn(shape: Shape, classes: int) -> Retina:
    """Torchvision's `retinanet_resnet50_fpn` without weights: batch norm that is trained, nothing frozen."""
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5,
        returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256),
    )  # fmt: skip
    return Retina(backbone, classes, _anchors(_thirds((32, 64, 128, 256, 512))))


def fasterrcnn_resnet50_fpn(shape: Shape, classes: int) -> Faster:
    """Torchvision's `fasterrcnn_resnet50_fpn` without weights: batch norm that is trained, nothing frozen."""
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5
    )
    pool = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)
    return Faster(
        backbone, classes, _anchors([(32,), (64,), (128,), (256,), (512,)]), pool, TwoMLPHead(256 * 7**2, 1024), 1024
    )


#: By name: what makes a detector of a shape and a number of classes, and whether it takes any number of channels.
DETECTORS: dict[str, tuple[Callable[[Shape, int], Retina | Faster], bool]] = {
    "retinanet-small": (retinanet_small, True),
    "fasterrcnn-small": (fasterrcnn_small, True),
    "retinanet_resnet50_fpn": (retinanet_resnet50_fpn, False),
    "fasterrcnn_resnet50_fpn": (fasterrcnn_resnet50_fpn, False),
}


def begin_outputs(net: nn.Module) -> None:
    """Give the layers that make a detector's outputs the small weights and the biases that its losses need.

    Args:
        net: changed in place, if it is a detector: the weights that were drawn are scaled to `OUTPUT_STD`.
    """
    if not isinstance(net, Retina | Faster):
        return
    with torch.no_grad():
        for name, bias in net.outputs.items():
            layer = net.get_submodule(name)
            assert isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None
            layer.weight.mul_(OUTPUT_STD / float(layer.weight.double().std()))
            layer.bias.fill_(bias)
