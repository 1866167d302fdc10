"""Nets of timm and torchvision as they come, on images of 64 px: pruned in both ways, trained, and cut."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional
from torchvision.models import detection, segmentation

import ipbench
from ipbench.sparse.trial import returned
from tests.api.nets import held, values

GENERATOR = torch.Generator().manual_seed(0)
IMAGES, LABELS = torch.rand(2, 3, 64, 64, generator=GENERATOR), torch.arange(2)
pytestmark = pytest.mark.long


def train(net: ipbench.Pruned, loss) -> None:
    before = values(net)
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3)
    for _ in range(2):
        optimiser.zero_grad()
        loss(net).backward()
        optimiser.step()
    assert held(net, before)


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("resnet18", {"fc"}),
        ("mobilenetv2_050", {"classifier"}),
        ("convnext_atto", {"stem.0", "stages.0.blocks.0.mlp.fc2", "head.fc"}),
        ("vit_tiny_patch16_224", {"patch_embed.proj", "blocks.0.attn.qkv", "head"}),
    ],
)
def test_timm(name, whole):
    sides = {"img_size": 64} if name.startswith("vit") else {}
    model = timm.create_model(name, pretrained=False, num_classes=10, **sides)
    fine = ipbench.prune(model, "snip", 0.8, space="ip", batch=(IMAGES, LABELS))
    assert abs(fine.report().reached - 0.8) < 1e-5
    assert ("cls_token" in fine.report().not_prunable) == name.startswith("vit")
    net = ipbench.prune(model, "snip", 0.4, space="ip", pattern="channels", budget="macs", batch=(IMAGES, LABELS))
    train(net, lambda m: functional.cross_entropy(m(IMAGES), LABELS))
    assert whole <= set(net.report().whole) and 0.4 <= net.report().reached < 0.42
    small = net.eval().slice()
    assert type(small) is type(model)
    assert sum(p.numel() for p in small.parameters()) < 0.9 * sum(p.numel() for p in model.parameters())
    torch.testing.assert_close(small(IMAGES), net(IMAGES), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("make", [segmentation.lraspp_mobilenet_v3_large, segmentation.deeplabv3_mobilenet_v3_large])
def test_segmentation(make):
    model, maps = make(weights=None, weights_backbone=None, num_classes=3), torch.randint(3, (2, 64, 64))

    def loss(net: nn.Module, batch=(IMAGES, maps)) -> torch.Tensor:
        return functional.cross_entropy(net(batch[0])["out"], batch[1])

    net = ipbench.prune(model, "snip", 0.4, pattern="channels", batch=(IMAGES, maps), inputs=IMAGES, loss=loss_of(loss))
    train(net, loss)
    small = net.eval().slice()
    torch.testing.assert_close(small(IMAGES)["out"], net(IMAGES)["out"], atol=1e-4, rtol=1e-3)


def loss_of(loss):
    return lambda net, batch: loss(net, batch)


def ssd_raw(model: nn.Module, images: torch.Tensor):
    return model.head(list(model.backbone(images).values()))


def faster_raw(model: nn.Module, images: torch.Tensor):
    """Backbone and heads, for one box in each image."""
    levels = model.backbone(images)
    boxes = [torch.tensor([[0.0, 0.0, 32.0, 32.0]])] * len(images)
    pooled = torchvision.ops.roi_align(levels["0"], boxes, (7, 7), 0.5)
    return model.rpn.head(list(levels.values())), model.roi_heads.box_predictor(model.roi_heads.box_head(pooled))


@pytest.mark.parametrize(
    ("make", "raw"),
    [
        (detection.ssdlite320_mobilenet_v3_large, ssd_raw),
        (detection.fasterrcnn_mobilenet_v3_large_320_fpn, faster_raw),
    ],
)
def test_detection(make, raw):
    model = make(weights=None, weights_backbone=None, num_classes=3)
    target = {"boxes": torch.tensor([[5.0, 5.0, 40.0, 40.0]]), "labels": torch.tensor([1])}
    batch = list(IMAGES), [target, target]

    def loss(net: nn.Module, given=batch) -> torch.Tensor:
        return sum(net(*given).values())

    net = ipbench.prune(
        model, "snip", 0.4, pattern="channels", batch=batch, loss=loss_of(loss), inputs=IMAGES, trace=raw
    )
    train(net, loss)
    small = net.eval().slice()
    for one, two in zip(returned(raw(small, IMAGES)), returned(raw(net.plain(), IMAGES)), strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-3)
    assert sum(p.numel() for p in small.parameters()) < 0.8 * sum(p.numel() for p in model.parameters())
