"""`ipbench.prune`: the masks are those of runs, the function is the user's, and what cannot be pruned is named."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

import ipbench
from ipbench import methods
from ipbench.data.loaders import Batch
from ipbench.errors import BadInput
from ipbench.sparse.net import SparseNet
from ipbench.training.pruning import pruned_masks
from tests.api.nets import BATCH, IMAGES, LABELS, Boxes, Words, fit
from tests.tiny import Fixed, make_run, tiny_conv, tiny_stack


@pytest.mark.parametrize("space", ["sp", "ip"])
@pytest.mark.parametrize("method", ["random", "magnitude", "snip", "grasp", "synflow", "cops"])
def test_masks_are_those_of_a_run(method, space):
    run = make_run(method=method, space=space, sparsity="0.5", seed=3)
    net = SparseNet(tiny_stack(), run, (2, 6, 6))
    expected = pruned_masks(net, methods.get(method).stages({})[0], Fixed(Batch(IMAGES, LABELS)))
    found = ipbench.prune(tiny_stack(), method, 0.5, space=space, batch=BATCH, seed=3)
    assert all(torch.equal(found.masks[name], mask) for name, mask in expected.items())


@pytest.mark.parametrize("pattern", ["filters", "columns", "channels", "2:4"])
def test_masks_under_patterns_are_those_of_a_run(pattern):
    run = make_run(method="snip", pattern=pattern, sparsity="0.5")
    net = SparseNet(tiny_stack(), run, (2, 6, 6))
    expected = pruned_masks(net, methods.get("snip").stages({})[0], Fixed(Batch(IMAGES, LABELS)))
    found = ipbench.prune(tiny_stack(), "snip", 0.5, pattern=pattern, batch=BATCH)
    same = [torch.equal(found.masks[name], mask) for name, mask in expected.items()]
    within = [not (found.masks[name] & ~mask).any() for name, mask in expected.items()]
    assert all(within if pattern == "filters" else same)  # readers of filters that are gone are masked, too


@pytest.mark.parametrize("model", [tiny_stack, Words])
def test_a_net_in_ip_is_the_same_function_at_the_start(model):
    given = (IMAGES,) if model is tiny_stack else ({"words": torch.arange(8).view(2, 4)},)
    net, before = model().eval(), model()
    before.load_state_dict(net.state_dict())
    dense = ipbench.prune(net, "dense", space="ip")
    one, two = before.eval()(*given), dense(*given)
    assert torch.equal(*(out if isinstance(out, torch.Tensor) else out["logits"] for out in (one, two)))
    assert not any(hasattr(module, "parametrizations") for module in net.modules())  # the user's stays as it is
    turned = ipbench.prune(net, "dense", space="ip", basis={"init": "orthonormal"})
    assert (model is Words) == (not turned.masked.bases)


def test_the_mode_of_every_module_is_kept():
    model = tiny_stack().train()
    model[1].eval()  # a norm whose statistics are to stay
    for space in ("sp", "ip"):
        net = ipbench.prune(model, "magnitude", 0.5, space=space)
        assert net.training and net.net.training and not net.net[1].training and net.net[3].training


def test_dicts_and_named_arguments():
    words, labels = torch.randint(11, (6, 4), generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3
    net = ipbench.prune(
        Words(), "snip", 0.5, batch=(words, labels),
        loss=lambda model, batch: functional.cross_entropy(model(words=batch[0])["logits"], batch[1]),
    )  # fmt: skip
    assert torch.equal(net({"words": words})["logits"], net(words=words)["logits"])
    report = net.report()
    assert report.not_prunable == {"words.weight": 88} and "words.weight (88)" in str(report)
    assert report.reached == 1 - report.kept / report.prunable and abs(report.reached - 0.5) < 1 / report.prunable
    sliced = ipbench.prune(Words(), "magnitude", 0.5, pattern="channels", inputs=ipbench.Inputs(words=words)).slice()
    assert sliced.hidden.out_features < 16 and sliced(words=words)["logits"].shape == (6, 3)


def test_lists_of_images_and_targets():
    images = [torch.rand(2, side, side, generator=torch.Generator().manual_seed(side)) for side in (6, 8)]
    targets = [{"boxes": torch.tensor([0.0, 0.0, 4.0, 4.0])}] * 2
    net = ipbench.prune(
        Boxes(), "snip", 0.4, pattern="channels", inputs=(images, targets), batch=(images, targets),
        loss=lambda model, batch: sum(model(*batch).values()),
    )  # fmt: skip
    optimiser = torch.optim.AdamW(net.parameters(), lr=0.01)
    sum(net(images, targets).values()).backward()
    optimiser.step()
    net.eval()
    small = net.slice()
    assert small.backbone[0].out_channels < 8 and isinstance(small, Boxes)
    torch.testing.assert_close(small(images)[1]["boxes"], net(images)[1]["boxes"])


def test_a_loss_of_the_net_alone_and_its_attributes():
    net = tiny_stack()
    net.images, net.labels = IMAGES, LABELS
    with_batch = ipbench.prune(net, "snip", 0.5, batch=BATCH)
    alone = ipbench.prune(net, "snip", 0.5, loss=lambda m: functional.cross_entropy(m(m.images), m.labels))
    assert all(torch.equal(mask, alone.masks[name]) for name, mask in with_batch.masks.items())


def test_a_forward_that_cannot_be_followed_is_told_by_another_call():
    class Draws(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 3, 3)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            scale = (0.5, 1.0)[int(torch.rand(1).item() * 2)]
            return self.two(self.one(images).relu()) * scale

    with pytest.raises(BadInput, match=r"^ipbench.prune: the net cannot be .*; for a forward .* trace= names"):
        ipbench.prune(Draws(), "magnitude", 0.4, pattern="channels", inputs=IMAGES)
    net = ipbench.prune(
        Draws(), "magnitude", 0.4, pattern="channels", inputs=IMAGES, trace=lambda m, x: m.two(m.one(x).relu())
    )
    assert net.slice().one.out_channels < 8


def test_what_is_not_pruned_is_named():
    model = tiny_stack()
    model[0] = parametrizations.weight_norm(model[0])
    model[3].weight.requires_grad_(False)
    frozen = model[3].weight.detach().clone()
    net = ipbench.prune(model, "snip", 0.4, batch=BATCH, skip=["9"])
    assert list(net.masks) == ["5"]
    assert net.report().left_out == {
        "0": "its weight is computed from other parameters (a parametrisation such as weight_norm); remove that before"
        " it is pruned",
        "3": "its weight is not trained (requires_grad is false)",
        "9": "as you asked (skip)",
    }
    assert "not pruned:\n  0 (its weight is computed" in str(net.report()) and "as you asked" in str(net)
    fit(net, torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1))
    assert torch.equal(net.net[3].weight, frozen)


def test_layers_that_are_left_out_keep_their_channels():
    net = ipbench.prune(tiny_stack(), "magnitude", 0.3, pattern="channels", inputs=IMAGES, skip=["3"])
    small = net.eval().slice()
    assert small[3].out_channels == 8 and small[0].out_channels < 8 and net.report().whole["3"].endswith("left out")
    torch.testing.assert_close(small(IMAGES), net(IMAGES))


def test_channels_that_no_prunable_layer_makes_stay():
    class Mixes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(2, 8, 3), nn.Conv2d(8, 3, 3)
            self.matrix = nn.Parameter(torch.eye(8))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.last(torch.einsum("nchw,cd->ndhw", self.first(images), self.matrix))

    net = ipbench.prune(Mixes(), "magnitude", 0.2, pattern="channels", inputs=IMAGES)
    report = net.report()
    assert report.whole["matrix"] == "layer matrix: its weight is never pruned" and "matrix" in report.not_prunable
    assert bool(net.masks["last"].all()) and 0.19 < report.reached < 0.4
    torch.testing.assert_close(net.slice()(IMAGES), net(IMAGES))


def test_dense_layers_of_a_pattern_are_named():
    report = ipbench.prune(tiny_stack(), pattern="2:4").report()
    assert report.dense_layers == ("0", "9") and "not in groups of 2:4, left dense:\n  0\n  9" in str(report)
    assert report.asked == 0.5 and report.reached < 0.5


def test_methods_behind_a_training_prune_the_net_as_it_is():
    fine = ipbench.prune(tiny_stack(), "ft", 0.5).masks
    plain = ipbench.prune(tiny_stack(), "magnitude", 0.5).masks
    assert all(torch.equal(mask, plain[name]) for name, mask in fine.items())
    net = ipbench.prune(tiny_stack(), "l1-filters", inputs=IMAGES, ratios="0=0.5,3=0.25")
    assert [int(net.masks[name].any((1, 2, 3)).sum()) for name in ("0", "3")] == [4, 6]
    assert net.report().asked is None


BAD = [
    ({"method": "snup", "sparsity": 0.5}, "unknown method 'snup' in ipbench.prune"),
    ({"sparsity": 1.0}, "ipbench.prune: sparsity: a sparsity is a number from 0 up to"),
    ({}, "ipbench.prune: sparsity is missing"),
    ({"method": "dense", "sparsity": 0.5}, "method dense prunes nothing"),
    ({"method": "lt", "sparsity": 0.5}, "method lt needs trainings of ipbench's own .* work cops, dense, .*synflow$"),
    ({"method": "greg-1", "sparsity": 0.5}, "method greg-1 needs trainings"),
    ({"method": "snip", "sparsity": 0.5}, r"method snip looks at data: give batch=\(inputs, labels\), or loss="),
    ({"method": "synflow", "sparsity": 0.5}, "the method sends ones through the net: give inputs="),
    ({"sparsity": 0.5, "pattern": "channels"}, "channels followed, through a call of the net: give inputs="),
    ({"sparsity": 0.5, "patern": "filters"}, "unknown option of method magnitude 'patern'"),
    ({"sparsity": 0.5, "pattern": "rows"}, "ipbench.prune: pattern: a pattern is one of"),
    ({"sparsity": 0.5, "space": "xp"}, "ipbench.prune: space"),
    ({"sparsity": 0.5, "budget": "macs"}, "budget macs has no meaning for pattern coefficients"),
    ({"sparsity": 0.5, "basis": {"init": "standard", "lr": 0.5}}, "the filter basis belongs to space ip"),
    (
        {"sparsity": 0.5, "space": "ip", "basis": {"sides": 3}},
        "unknown key 'sides' in ipbench.prune: basis",
    ),
    ({"sparsity": 0.5, "off": "decayed"}, "off decayed follows the weight decay of SGD"),
    ({"sparsity": 0.5, "skip": "head"}, "skip: 'head' is no prunable layer, nor holds one; valid: 0, 3, 5, 9"),
    ({"sparsity": 0.5, "skip": ["0", "3", "5", "9"]}, "this Sequential has no weight that can be pruned"),
    ({"sparsity": 0.5, "steps": 5}, "method magnitude changes nothing while you train; leave it out"),
    ({"method": "rigl", "sparsity": 0.5}, "changes masks while you train: give steps="),
    ({"method": "rigl", "sparsity": 0.5, "steps": 50}, "no coefficients would be exchanged"),
    ({"method": "rigl", "sparsity": 0.5, "steps": -1}, "steps is a whole number"),
    ({"method": "rigl", "sparsity": 0.5, "steps": 500, "pattern": "filters"}, "exchanges single coefficients"),
    ({"method": "snip", "sparsity": 0.5, "batch": IMAGES}, r"batch is a pair \(inputs, labels\)"),
    ({"method": "snip", "sparsity": 0.5, "batch": (IMAGES, LABELS.float())}, "whole numbers as labels"),
    ({"method": "snip", "sparsity": 0.5, "batch": (IMAGES, LABELS[:3])}, "12 inputs and 3 labels"),
    ({"method": "snip", "sparsity": 0.5, "loss": lambda m, b: m}, "loss takes a net and a batch, and batch is missing"),
    ({"method": "snip", "sparsity": 0.5, "loss": lambda m: m, "batch": BATCH}, "loss takes a net alone"),
    ({"method": "snip", "sparsity": 0.5, "loss": lambda: 1}, "not of 0"),
    ({"method": "snip", "sparsity": 0.5, "loss": lambda m: m(IMAGES)}, r"not a tensor of shape \(12, 3\)"),
    ({"method": "snip", "sparsity": 0.5, "loss": lambda m: torch.ones(())}, "without a graph"),
    ({"method": "grasp", "sparsity": 0.5, "loss": lambda m: m(IMAGES).sum()}, "grasp is for classification"),
    ({"sparsity": 0.999}, "ipbench.prune: method magnitude: the budget of 0 parameters keeps nothing"),
    ({"sparsity": 0.5, "seed": -1}, "ipbench.prune: seed"),
    ({"sparsity": 0.5, "trace": 3, "inputs": IMAGES}, "trace is a function"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_bad_input_is_one_line_and_leaves_the_net(arguments, message):
    model = tiny_stack()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(BadInput, match=message) as caught:
        ipbench.prune(model, **arguments)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_models_that_are_none():
    with pytest.raises(BadInput, match="is a function, no nn"):
        ipbench.prune(tiny_conv)  # not called
    with pytest.raises(BadInput, match="the model is pruned already"):
        ipbench.prune(ipbench.prune(tiny_conv(), sparsity=0.5), sparsity=0.5)
    with pytest.raises(BadInput, match="no weight that can be pruned"):
        ipbench.prune(nn.BatchNorm2d(3), sparsity=0.5)


def test_the_package_needs_no_torch_before_it_is_asked_for():
    code = "import sys, ipbench; assert 'torch' not in sys.modules and 'prune' in dir(ipbench); ipbench.prune"
    subprocess.run([sys.executable, "-c", f"{code}; assert 'torch' in sys.modules"], check=True, timeout=120)
    with pytest.raises(AttributeError, match="has no attribute 'prnue'"):
        _ = ipbench.prnue


def test_random_numbers_of_the_user_are_left_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    ipbench.prune(tiny_stack(), "snip", 0.5, batch=BATCH, pattern="channels")
    assert torch.equal(torch.get_rng_state(), before)
