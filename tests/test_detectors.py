"""Detectors: what they give, what they draw, which of their channels belong together, and that they can be cut."""

from __future__ import annotations

import copy
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.detection import FasterRCNN, RetinaNet, fasterrcnn_resnet50_fpn, retinanet_resnet50_fpn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FrozenBatchNorm2d

from ipbench.errors import BadInput
from ipbench.models import build as build_module
from ipbench.models.build import build, outline
from ipbench.models.detectors import OUTPUT_STD, KeyedSampler
from ipbench.sparse import measure
from ipbench.sparse.groups import Groups, channel_groups
from ipbench.sparse.slicing import mask_net, plan, slice_net
from ipbench.sparse.structure import groups_of
from ipbench.sparse.trial import outputs, stir
from ipbench.tasks.detection import Detected, Detection, Found, Truth
from tests.scenes import CLASSES, DETECTORS, SHAPE, batch, frozen_norms, tiny_faster, tiny_retina

HEADS = {
    "retina": ("head.classification_head.cls_logits", "head.regression_head.bbox_reg"),
    "faster": (
        "rpn.head.cls_logits", "rpn.head.bbox_pred", "roi_heads.box_predictor.cls_score",
        "roi_heads.box_predictor.bbox_pred",
    ),
}  # fmt: skip


def called(net: nn.Module, scenes: tuple[int, ...] = (0, 1, 2), seed: int = 0, step: int | None = 0) -> Detected:
    result = net(*Detection().inputs(batch(*scenes), seed, step))
    assert isinstance(result, Detected)
    return result


@pytest.mark.parametrize("name", DETECTORS)
def test_raw_outputs_are_the_same_in_both_modes_but_for_norms(name):
    net, images = frozen_norms(DETECTORS[name]()), batch(0, 1).images
    training, evaluated = net.train()(images), net.eval()(images)
    assert [part.shape for part in training] == [part.shape for part in evaluated]
    assert all(torch.equal(one, two) for one, two in zip(training, evaluated, strict=True))


def test_the_losses_of_retinanet_are_torchvisions():
    net, scenes = tiny_retina().train(), batch(0, 1, 2)
    net.transform.forward = lambda images, targets: (ImageList(images, list(scenes.sizes)), targets)
    targets = [target._asdict() for target in scenes.targets]
    wanted = RetinaNet.forward(net, scenes.images, targets)
    found = called(net).losses
    assert list(found) == list(wanted) and all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_retinanet_never_finds_the_background():
    net, scenes = tiny_retina().eval(), batch(0, 1)
    net.score_thresh = 0.0
    with torch.no_grad():
        net.head.classification_head.cls_logits.bias.view(-1, CLASSES + 1)[:, 0] = 10.0
        found = called(net, (0, 1)).found
    assert {int(label) for one in found for label in one.labels} == {1, 2, 3}
    assert len(found) == len(scenes.images)


def test_what_retinanet_finds_is_torchvisions():
    net, scenes = tiny_retina().eval(), batch(0, 1, 2)
    net.score_thresh = 0.0
    with torch.no_grad():  # torchvision would find label 0, too
        net.head.classification_head.cls_logits.bias.view(-1, CLASSES + 1)[:, 0] = -1e4
    net.transform.forward = lambda images, targets: (ImageList(images, list(scenes.sizes)), targets)
    net.transform.postprocess = lambda found, *_: found
    with torch.no_grad():
        wanted, found = RetinaNet.forward(net, scenes.images), called(net).found
    for one, two in zip(found, wanted, strict=True):
        assert len(one.boxes) == len(two["boxes"]) > 0
        assert torch.equal(one.boxes, two["boxes"]) and torch.equal(one.scores, two["scores"])
        assert torch.equal(one.labels, two["labels"])


def test_losses_and_finds_of_faster_rcnn_are_torchvisions():
    # In evaluation mode torchvision draws nothing. In training mode it draws by the same sampler, keyed here.
    net, scenes = tiny_faster(), batch(0, 1, 2)
    targets = [target._asdict() for target in scenes.targets]
    draws = Detection().inputs(scenes, 0, 0)[1].draws
    net.transform.forward = lambda images, targets: (ImageList(images, list(scenes.sizes)), targets)
    net.transform.postprocess = lambda found, *_: found
    with torch.no_grad():
        wanted, found = FasterRCNN.forward(net.eval(), scenes.images), called(net).found
        for one, two in zip(found, wanted, strict=True):
            assert torch.equal(one.boxes, two["boxes"]) and torch.equal(one.labels, two["labels"])
        with net.rpn.fg_bg_sampler.of(draws[:, 0].tolist()), net.roi_heads.fg_bg_sampler.of(draws[:, 1].tolist()):
            losses = FasterRCNN.forward(net.train(), scenes.images, targets)
        mine = called(net).losses
    assert set(losses) == set(mine)
    for name, value in losses.items():
        torch.testing.assert_close(mine[name], value, rtol=1e-5, atol=1e-7)
    assert all(part > 0 for part in mine.values())


def test_the_sampler_takes_as_many_as_torchvisions_of_the_right_kind():
    sampler = KeyedSampler(8, 0.25)
    labels = [torch.tensor([1, 0, -1, 1, 0, 2, 0, 0, 0, -1, 0, 0, 0]), torch.tensor([0, -1, 0]), torch.tensor([1.0, 1])]
    with sampler.of([5, 6, 7]):
        positive, negative = sampler(labels)
    assert [int(mask.sum()) for mask in positive] == [2, 0, 2]
    assert [int(mask.sum()) for mask in negative] == [6, 2, 0]
    for mask, others, values in zip(positive, negative, labels, strict=True):
        assert (values[mask.bool()] >= 1).all() and (values[others.bool()] == 0).all()


def test_the_sampler_takes_the_smallest_keyed_numbers():
    numbers = torch.rand(100, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    with (sampler := KeyedSampler(10, 0.5)).of([3]):
        (positive,), (negative,) = sampler([(torch.arange(100) < 50).long()])
    assert set(torch.where(positive)[0].tolist()) == set(numbers[:50].argsort()[:5].tolist())
    assert set(torch.where(negative)[0].tolist()) == {50 + place for place in numbers[50:].argsort()[:5].tolist()}


def test_draws_depend_on_seed_step_and_image_and_on_nothing_else():
    def draws(*numbers: int, seed: int = 0, step: int | None = 0) -> list[list[int]]:
        found: Truth = Detection().inputs(batch(*numbers), seed, step)[1]
        return found.draws.tolist()

    assert draws(4, 7)[1] == draws(7, 2, 4)[0]  # the place in the batch, and so the process, makes no difference
    different = [draws(4), draws(5), draws(4, seed=1), draws(4, step=1), draws(4, step=None)]
    numbers = [number for found in different for row in found for number in row]
    assert len(set(numbers)) == len(numbers) == 10


def test_an_image_without_boxes_has_a_loss():
    for make in DETECTORS.values():
        scenes = batch(0, 1)
        empty = type(scenes.targets[0])(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
        inputs = Detection().inputs(scenes._replace(targets=(empty, scenes.targets[1])), 0, 0)
        total = Detection().loss(make().train()(*inputs), scenes)
        total.backward()
        assert math.isfinite(float(total.detach()))


def test_boxes_are_inside_of_the_image_and_not_of_its_padding():
    net, scenes = tiny_retina().eval(), batch(0, 1)
    net.score_thresh = 0.0
    inputs = Detection().inputs(scenes._replace(sizes=((40, 64), (64, 30))), 0)
    with torch.no_grad():
        first, second = net(*inputs).found
    assert 30 < float(first.boxes[:, 3].max()) <= 40 and 30 < float(first.boxes[:, 2].max()) <= 64
    assert 20 < float(second.boxes[:, 2].max()) <= 30


# Channel groups, by hand: the tensors that each is of, without norms and biases.

BODY = {
    "backbone.body.stem.conv": (
        "stem.conv", "stage1.block1.conv1", "stage1.block1.conv2", "stage2.block1.conv1", "stage2.block1.shortcut.conv",
    ),
    "backbone.body.stage1.block1.conv1": ("stage1.block1.conv1", "stage1.block1.conv2"),
    "backbone.body.stage2.block1.conv1": ("stage2.block1.conv1", "stage2.block1.conv2"),
    "backbone.body.stage3.block1.conv1": ("stage3.block1.conv1", "stage3.block1.conv2"),
    "backbone.body.stage4.block1.conv1": ("stage4.block1.conv1", "stage4.block1.conv2"),
    "backbone.body.stage2.block1.conv2": (
        "stage2.block1.conv2", "stage2.block1.shortcut.conv", "stage3.block1.conv1", "stage3.block1.shortcut.conv",
    ),
    "backbone.body.stage3.block1.conv2": (
        "stage3.block1.conv2", "stage3.block1.shortcut.conv", "stage4.block1.conv1", "stage4.block1.shortcut.conv",
    ),
    "backbone.body.stage4.block1.conv2": ("stage4.block1.conv2", "stage4.block1.shortcut.conv"),
}  # fmt: skip


def wanted(name: str) -> dict[str, set[str]]:
    found = {group: {f"backbone.body.{layer}" for layer in layers} for group, layers in BODY.items()}
    levels = 3 if name == "retina" else 4
    stages = ["backbone.body.stem.conv", *(f"backbone.body.stage{stage}.block1.conv2" for stage in (2, 3, 4))][-levels:]
    inner, layer = "backbone.fpn.inner_blocks.{}.0", "backbone.fpn.layer_blocks.{}.0"
    for place, stage in enumerate(stages):  # a stage's channels are read by its lateral convolution
        found[stage].add(inner.format(place))
    # The sums from the top down join all lateral convolutions; heads that are shared join what all levels give.
    found[inner.format(0)] = {pattern.format(place) for place in range(levels) for pattern in (inner, layer)}
    heads = {"retina": ("head.classification_head.conv.0.0", "head.regression_head.conv.0.0"),
             "faster": ("rpn.head.conv.0.0", "roi_heads.box_head.fc6")}  # fmt: skip
    found[layer.format(0)] = {*(layer.format(place) for place in range(levels)), *heads[name]}
    chains = {
        "retina": [
            [*(f"head.{head}_head.conv.{place}.0" for place in range(4)), f"head.{head}_head.{last}"]
            for head, last in (("classification", "cls_logits"), ("regression", "bbox_reg"))
        ],
        "faster": [["roi_heads.box_head.fc6", "roi_heads.box_head.fc7"]],
    }
    for chain in chains[name]:
        found |= {one: {one, two} for one, two in pairwise(chain)}
    if name == "faster":
        found["rpn.head.conv.0.0"] = {"rpn.head.conv.0.0", "rpn.head.cls_logits", "rpn.head.bbox_pred"}
        last = "roi_heads.box_head.fc7"
        found[last] = {last, "roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred"}
    return found


@pytest.mark.parametrize("name", DETECTORS)
def test_groups_are_those_found_by_hand(name):
    groups = channel_groups(DETECTORS[name](), SHAPE)
    weights = {
        group.name: {member.layer for member in group.members if member.role != "vector"} for group in groups.free
    }
    assert weights == wanted(name)
    assert {group.name for group in groups.frozen} == set(HEADS[name])  # what is returned stays
    shared = groups["backbone.fpn.layer_blocks.0.0"]
    if name == "faster":  # nine inputs of the linear layer for every channel that is pooled to 3 x 3
        (linear,) = [member for member in shared.consumers if member.layer == "roi_heads.box_head.fc6"]
        assert linear.indices.tolist() == [list(range(9 * unit, 9 * unit + 9)) for unit in range(8)]


def cut_of(groups: Groups) -> dict[str, list[int]]:
    generator = np.random.default_rng(1)
    return {group.name: generator.permutation(group.units)[: group.units // 2].tolist() for group in groups.free}


@pytest.mark.parametrize("frozen", [False, True], ids=["batch norm", "frozen norms and stem"])
@pytest.mark.parametrize("name", DETECTORS)
def test_a_sliced_detector_is_the_masked_one(name, frozen):
    net = DETECTORS[name]()
    net = frozen_norms(net) if frozen else net
    groups = channel_groups(net, SHAPE)
    stir(net)
    net.double()
    chosen = plan(groups, cut_of(groups))
    sliced = copy.deepcopy(net)
    slice_net(sliced, chosen, SHAPE) if not frozen else slice_net(sliced, chosen)
    mask_net(net, chosen)
    images = [batch(0, 1).images.double()]
    for one, two in zip(outputs(net, images), outputs(sliced, images), strict=True):
        assert one.abs().max() > 0 and torch.allclose(one, two, rtol=1e-9, atol=1e-9 * float(one.abs().max()))
    assert sum(part.numel() for part in sliced.parameters()) < 0.5 * sum(part.numel() for part in net.parameters())
    if frozen:
        norms = [module for module in sliced.modules() if isinstance(module, FrozenBatchNorm2d)]
        assert norms and all(len(norm.weight) == len(norm.running_var) < 8 for norm in norms)
        assert not sliced.backbone.body.stem.conv.weight.requires_grad
        assert sliced.backbone.body.stage1.block1.conv1.weight.requires_grad


@pytest.mark.parametrize("name", DETECTORS)
def test_a_sliced_detector_finds_and_learns_what_the_masked_one_does(name):
    # Here in the forward that trains, and in that which finds: the trace and its trial see raw outputs alone.
    net = DETECTORS[name]()
    groups = channel_groups(net, SHAPE)
    chosen = plan(groups, cut_of(groups))
    sliced = copy.deepcopy(net)
    slice_net(sliced, chosen)
    mask_net(net, chosen)
    inputs = Detection().inputs(batch(0, 1, 2), 0, 3)
    for training in (True, False):
        one, two = (each.train(training)(*inputs) for each in (net, sliced))
        for loss in one.losses:
            torch.testing.assert_close(one.losses[loss], two.losses[loss], rtol=1e-5, atol=1e-7)
        for image, other in zip(one.found, two.found, strict=True):
            torch.testing.assert_close(image.boxes, other.boxes, rtol=1e-4, atol=1e-3)
            assert image.labels.tolist() == other.labels.tolist()


def test_a_net_that_is_made_alike_has_its_groups_found_once():
    assert groups_of(tiny_retina(0), SHAPE) is groups_of(tiny_retina(1), SHAPE)
    net = tiny_faster()
    called(net.train())  # nothing of a pass is left in the net
    assert groups_of(net, SHAPE) is groups_of(copy.deepcopy(tiny_faster(1)), SHAPE)
    other = tiny_faster()
    other.rpn._post_nms_top_n["testing"] = 11
    assert groups_of(other, SHAPE) is not groups_of(net, SHAPE)


@pytest.mark.parametrize("name", ["retinanet-small", "fasterrcnn-small"])
@pytest.mark.parametrize("channels", [1, 3])
def test_small_detectors_are_built_keyed(name, channels):
    shape = (channels, 96, 96)
    net, again, other = (build(name, shape, 10, seed) for seed in (0, 0, 1))
    state, same, changed = (each.state_dict() for each in (net, again, other))
    assert all(torch.equal(state[key], same[key]) for key in state)
    assert any(not torch.equal(state[key], changed[key]) for key in state)
    for layer in net.outputs:
        assert float(net.get_submodule(layer).weight.detach().double().std()) == pytest.approx(OUTPUT_STD, rel=1e-5)
    hidden = net.backbone.fpn.layer_blocks[0][0].weight
    assert float(hidden.std()) == pytest.approx(math.sqrt(2 / (32 * 9)), rel=0.05)


def test_every_score_of_retinanet_starts_at_its_prior():
    net = build("retinanet-small", (1, 96, 96), 10, 0).eval()
    with torch.no_grad():
        logits, _ = net(torch.zeros(1, 1, 96, 96))
    assert float(logits.sigmoid().mean()) == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize(
    ("name", "torchvisions"),
    [("retinanet_resnet50_fpn", retinanet_resnet50_fpn), ("fasterrcnn_resnet50_fpn", fasterrcnn_resnet50_fpn)],
)
def test_torchvisions_detectors_by_their_names(name, torchvisions):
    made = outline(name, (3, 800, 1344), 80).state_dict()
    theirs = torchvisions(weights=None, weights_backbone=None, num_classes=81).state_dict()
    assert {key: tensor.shape for key, tensor in made.items()} == {key: tensor.shape for key, tensor in theirs.items()}


def macs(name: str) -> dict[str, int]:
    return {layer.name: layer.macs for layer in measure.count(outline(name, (1, 96, 96), 10), (1, 96, 96)).layers}


def test_macs_by_hand():
    # The heads of RetinaNet run at 12 x 12, 6 x 6 and 3 x 3; proposals are pooled to 5 x 5 and are 50 of an image.
    layers = macs("retinanet-small")
    assert layers["head.classification_head.conv.0.0"] == 32 * 32 * 9 * (144 + 36 + 9)
    assert layers["head.classification_head.cls_logits"] == 9 * 11 * 32 * 9 * (144 + 36 + 9)
    assert layers["backbone.fpn.inner_blocks.0.0"] == 32 * 32 * 144
    layers = macs("fasterrcnn-small")
    assert layers["roi_heads.box_head.fc6"] == 50 * 32 * 25 * 128
    assert layers["rpn.head.conv.0.0"] == 32 * 32 * 9 * (24**2 + 12**2 + 6**2 + 3**2 + 2**2)


def test_what_a_detector_cannot_take_is_one_line():
    with pytest.raises(BadInput, match="takes images of 3 channels"):
        build("retinanet_resnet50_fpn", (1, 96, 96), 10, 0)
    with pytest.raises(BadInput, match="at least 64 x 64 pixels"):
        build("retinanet-small", (1, 28, 28), 10, 0)


def test_every_detector_can_be_made():
    from ipbench.models import catalog, detectors

    assert set(detectors.DETECTORS) == set(catalog.DETECTORS)
    assert not set(catalog.DETECTORS) & set(build_module._OWN)
    assert CLASSES == 3 and Found._fields == ("boxes", "labels", "scores")
