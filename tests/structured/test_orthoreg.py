"""OrthoReg, its scores and Early-Bird tickets against the reference code, by hand, and as runs."""

from __future__ import annotations

import json
from collections import OrderedDict
from functools import cache
from itertools import pairwise
from math import floor, sqrt
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ipbench import methods
from ipbench.analysis import published
from ipbench.analysis.grid import parse
from ipbench.data.loaders import Batch
from ipbench.errors import BadInput
from ipbench.methods import Choose, Continue, Prune, Slice, Train, filter_score
from ipbench.methods._early_bird import MaskDistance
from ipbench.methods._filter_ranking import guarded, masks, share_of_round
from ipbench.methods._filter_scores import SCORES
from ipbench.methods._orthonormal import Orthonormal, layers, orthogonality, penalty
from ipbench.models.build import build, outline
from ipbench.planning.experiment import Experiment
from ipbench.runs.environment import Environment
from ipbench.runs.execute import execute
from ipbench.sparse.measure import count
from ipbench.sparse.net import SparseNet
from ipbench.sparse.selection import Impossible
from ipbench.sparse.view import NetView, TrainedView
from ipbench.spec import Basis, Recipe, Run
from ipbench.tasks import task as task_module
from ipbench.training.loop import learning_rate
from ipbench.training.pruning import pruned_masks
from ipbench.updaters import Steps
from tests.orthoreg_reference import CLASSES, RATIOS, SEPARABLE, WIDTHS, fill, images, like_resnet, like_vgg, table
from tests.tiny import Fixed, make_run

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "orthoreg.json").read_text())
CONFIG = Path(__file__).parents[2] / "config"
HERE = Environment()
ORTHONORMAL = Basis(init="orthonormal")
MODELS = {"vgg": "vgg13-cifar", "mobile": "mobilenet-v1", "res": "resnet34-cifar"}
#: Of the penalty in the public code.
STRENGTHS = {"vgg": 1e-2, "mobile": 1e-3, "res": 1e-2}


def sparse(net: nn.Module, shape: tuple[int, int, int] = (2, 6, 6), **values: Any) -> SparseNet:
    values = {"pattern": "filters", "sparsity": "0.5", "method": "orthoreg", **values}
    if values.get("space") == "ip":
        values.setdefault("basis", ORTHONORMAL)
    return SparseNet(net, make_run(**values), shape).double().eval()


@cache
def published_net(name: str) -> SparseNet:
    return sparse(fill(build(MODELS[name], (3, 32, 32), 100, 0)).float(), (3, 32, 32), model=MODELS[name])


# The penalty.


@pytest.mark.parametrize("name", MODELS)
def test_penalty_and_diagnostic_are_those_of_the_reference(name):
    """A shortcut of its ResNet is weighed like the convolution before it."""
    net = NetView(published_net(name))
    of = layers(net, "shape")
    assert set(of) == set(net.names) - {"classifier"} and sum(layer.share for layer in of.values()) == pytest.approx(1)
    wanted = GOLDEN["penalties"][name]
    if name == "res":
        of = {
            layer: own if "shortcut" not in layer else of[layer.replace("shortcut.conv", "conv1")].__class__(
                own.axis, own.columns, of[layer.replace("shortcut.conv", "conv1")].share
            )
            for layer, own in of.items()
        }  # fmt: skip
    if name == "mobile":
        assert layers(net, "columns") == of
    with torch.no_grad():
        found = penalty(net, of)
    assert found is not None and STRENGTHS[name] * float(found) == pytest.approx(wanted["loss"], rel=1e-6)
    diagonal = list(orthogonality(net, "shape").values())
    # The first number of the ResNet is printed with four decimals.
    assert diagonal[1:] == pytest.approx(wanted["diagonal"][1:], rel=1e-6)
    assert diagonal[0] == pytest.approx(wanted["diagonal"][0], abs=5e-5 if name == "res" else 1e-9)


def orthonormal_rows(rows: int, entries: int) -> Tensor:
    square = torch.randn(entries, entries, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.linalg.qr(square)[0][:rows]


@pytest.mark.parametrize("space", ["sp", "ip"])
def test_orthonormal_filters_have_no_penalty(space):
    """Rows of one layer, columns of the other, which has more filters than entries."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(8, 100, 3, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(100, 2),
    ).double()  # fmt: skip
    with torch.no_grad():
        net[0].weight.copy_(orthonormal_rows(8, 27).view(8, 3, 3, 3))
        net[1].weight.copy_(orthonormal_rows(72, 100).t().reshape(100, 8, 3, 3))
    view = NetView(sparse(net, (3, 8, 8), space=space))
    of = layers(view, "shape")
    assert [layer.columns for layer in of.values()] == [False, True]
    assert float(penalty(view, of).detach()) < 1e-10
    assert list(orthogonality(view, "shape").values()) == pytest.approx([1, 1])
    assert float(penalty(view, layers(view, "rows")).detach()) > 1


def test_penalty_by_hand():
    """W = ((1, 1), (0, 2)) with a bias of 1 on the first row: G - 1 = ((2, 2), (2, 3))."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)).double()
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[1.0, 1.0], [0.0, 2.0]]))
        net[1].bias.copy_(torch.tensor([1.0, 0.0]))
    view = NetView(sparse(net, (2, 1, 1)))
    assert float(penalty(view, layers(view, "shape"))) == 9.0
    assert orthogonality(view, "shape") == {"1": pytest.approx(7 / 11)}


def test_shares_by_hand():
    """The first layer and a depthwise one count their filters, a tall one its columns: 6, 6, 6 and 4."""
    net = nn.Sequential(
        nn.Conv2d(1, 6, 1, bias=False), nn.Conv2d(6, 6, 1, groups=6, bias=False), nn.Conv2d(6, 20, 1, bias=False),
        nn.Conv2d(20, 4, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
    )  # fmt: skip
    of = layers(NetView(sparse(net, (1, 2, 2))), "shape")
    total = 3 * sqrt(6) + 2
    assert [layer.share * total for layer in of.values()] == pytest.approx([sqrt(6), sqrt(6), sqrt(6), 2])
    assert [layer.columns for layer in of.values()] == [True, True, True, False]


def test_penalty_pulls_at_coefficients_and_bases():
    """Its gradient is that of the formula written down with c F, in double precision."""
    net = sparse(like_resnet(), space="ip")
    view = TrainedView(net, 0.0)
    updater = Orthonormal(view, Steps(1, 1), strength=0.5, gram="shape")
    updater.penalty(view).backward()
    found = {name: parameter.grad for name, parameter in net.net.named_parameters() if parameter.grad is not None}
    parameters = {name: value.detach().clone().requires_grad_() for name, value in net.net.named_parameters()}
    loss = torch.zeros((), dtype=torch.float64)
    sides = {"0": 4, "3": 5, "6": 5}  # 6 filters of 5 entries: columns
    for name, side in sides.items():
        if name == "6":
            weight = parameters["6.weight"].flatten(1).t()
        else:
            c = parameters[f"{name}.parametrizations.weight.original"]
            matrix = parameters[f"{name}.parametrizations.weight.0.basis.matrix"]
            weight = (c.reshape(-1, 9) @ matrix).view(len(c), -1)
        gram = weight @ weight.t() - torch.eye(len(weight), dtype=torch.float64)
        loss = loss + 0.5 * sqrt(side) / sum(map(sqrt, sides.values())) * gram.abs().sum()
    loss.backward()
    assert len(found) == 5 and all(torch.allclose(g, parameters[n].grad, rtol=1e-10) for n, g in found.items())


def test_the_last_epoch_is_at_a_tenth_and_there_is_no_decay():
    train = methods.get("orthonormal").stages({"epochs": 25})[0]
    recipe = train.recipe_of(Recipe(epochs=140, lr=0.1, weight_decay=1e-4))
    assert (recipe.weight_decay, recipe.epochs) == (0.0, 25)
    for steps in (1, 7, 390, 391):
        rates = [learning_rate(recipe, step, steps) for step in (0, 24 * steps - 1, 24 * steps, 25 * steps - 1)]
        assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01])
    plain = methods.get("orthonormal").stages({"epochs": 25, "strength": 0.0})[0]
    recipe = plain.recipe_of(Recipe(epochs=140, lr=0.1, weight_decay=1e-4))
    assert plain.update is None and (recipe.weight_decay, recipe.schedule) == (1e-4, "constant")
    recipe = methods.get("orthonormal").stages({})[0].recipe_of(Recipe(epochs=9, schedule="cosine"))
    assert (recipe.epochs, recipe.schedule, recipe.weight_decay) == (9, "cosine", 0.0)


# Scores.


def tiny_net(arch: str, **values: Any) -> SparseNet:
    return sparse(fill({"vgg": like_vgg, "resnet": like_resnet}[arch]()), **values)


def of_filters(net: SparseNet, name: str, batch: Batch) -> list[list[float]]:
    """Sums over filters of the scores of coefficients, of all layers but the classifier."""
    found = SCORES[name](net, batch)
    return [scores.flatten(1).sum(1).tolist() for scores in list(found.values())[:-1]]


@pytest.mark.parametrize("space", ["sp", "ip"])
@pytest.mark.parametrize("arch", ["vgg", "resnet"])
def test_scores_are_those_of_the_reference(arch, space):
    """In the interspace, too, with a basis that is not the standard one; classes are of four images each."""
    net, batch = tiny_net(arch, space=space), Batch(*images(4))
    before = {name: tensor.clone() for name, tensor in net.tensors().items()}
    for name, wanted in GOLDEN["scores"][arch].items():
        found = of_filters(net, name, batch)
        for own, layer in zip(found, wanted, strict=True):
            # The second derivatives of the reference's grasp are of the order of 1e-9.
            assert own == pytest.approx(layer, rel=1e-5, abs=1e-16), name
    assert set(SCORES) - {"bn", "bn-fan-in"} <= set(GOLDEN["scores"][arch])
    assert all(torch.equal(before[name], tensor) for name, tensor in net.tensors().items())


def test_sums_over_a_filter_are_the_same_of_coefficients_and_weights():
    """The sum of w * dL/dw over a filter is that of c * dL/dc, as filters are linear in c; that of c * (H g) is not."""
    net, batch = tiny_net("resnet", space="ip"), Batch(*images(4))
    gradients = net.gradients(functional.cross_entropy(net(batch.images), batch.labels))
    by_c = {name: (c * g).flatten(1).sum(1).square().tolist() for name, c, g in gradients}
    assert of_filters(net, "fisher", batch) == [pytest.approx(by_c[name], rel=1e-9) for name in ("0", "3", "6")]


@pytest.mark.parametrize("name", SCORES)
def test_scores_of_a_filter_are_equal_for_all_of_its_coefficients(name):
    scores = SCORES[name](tiny_net("resnet"), Batch(*images(4)))
    assert all(torch.equal(own, own.flatten(1)[:, :1].view(-1, *[1] * (own.dim() - 1)).expand_as(own))
               for own in scores.values())  # fmt: skip


@pytest.mark.parametrize("name", ["fisher", "tfo", "grasp"])
def test_scores_of_large_batches_are_taken_in_passes(name, monkeypatch):
    """Means over all images, whatever the pass."""
    net, batch = tiny_net("vgg"), Batch(*images(4))
    whole = of_filters(net, name, batch)
    monkeypatch.setattr(task_module, "PASS_PIXELS", 5 * 36)
    assert task_module.passes(batch) == 3
    assert of_filters(net, name, batch) == [pytest.approx(own, rel=1e-9) for own in whole]


def test_scores_serve_any_method():
    net = tiny_net("resnet", budget="channels")
    found = pruned_masks(net, Prune(filter_score("fisher"), "fisher"), Fixed(Batch(*images(4))))
    assert sum(int(mask.flatten(1).any(1).sum()) for name, mask in found.items() if name != "11") == 15 // 2
    with pytest.raises(ValueError, match="score of filters"):
        filter_score("fischer")


@pytest.mark.parametrize("name", ["tfo", "bn", "bn-fan-in"])
def test_scores_of_norms_need_norms(name):
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, CLASSES))
    with pytest.raises(BadInput, match=f"score {name}: layer 0 has no batch norm behind it") as caught:
        SCORES[name](sparse(net), Batch(*images(2)))
    assert "\n" not in str(caught.value)


# What goes.


def stack(widths: tuple[int, ...]) -> nn.Module:
    parts = [nn.Conv2d(one, two, 1, bias=False) for one, two in zip((2, *widths), widths, strict=False)]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], CLASSES))


def separable() -> nn.Module:
    """A stem and 13 blocks."""
    parts = OrderedDict[str, nn.Module](stem=nn.Conv2d(2, SEPARABLE[0], 1, bias=False))
    for place, (one, two) in enumerate(pairwise(SEPARABLE)):
        parts[f"depthwise{place}"] = nn.Conv2d(one, one, 3, padding=1, groups=one, bias=False)
        parts[f"pointwise{place}"] = nn.Conv2d(one, two, 1, bias=False)
    head = {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "last": nn.Linear(SEPARABLE[-1], CLASSES)}
    return nn.Sequential(OrderedDict(**parts, **head))


def of_coefficients(net: SparseNet, scores: dict[str, Any]) -> dict[str, Tensor]:
    """Scores of coefficients, of scores of filters by layer; zero elsewhere."""
    found = {name: torch.zeros(mask.shape, dtype=torch.float64) for name, mask in net.masks.items()}
    for name, values in scores.items():
        found[name] += (torch.as_tensor(values) / found[name][0].numel()).view(-1, *[1] * (found[name].dim() - 1))
    return found


def rows(mask: Tensor) -> list[int]:
    return mask.flatten(1).any(1).nonzero().flatten().tolist()


@pytest.mark.parametrize("space", ["sp", "ip"])
@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("name", ["guarded", "plain"])
def test_what_stays_is_what_stays_in_the_reference(name, ratio, space):
    """The guard by index protects those with the highest indices. Without it, the reference may empty a layer.

    Here its best filter stays then, and another one goes.
    """
    net = sparse(stack(WIDTHS), (2, 2, 2), sparsity="0", space=space)
    scores = of_coefficients(net, {str(place): own for place, own in enumerate(table(WIDTHS, 0.517))})
    found = masks(NetView(net), scores, ratio, "index" if name == "guarded" else "none", False, "")
    kept = [rows(found[str(place)]) for place in range(len(WIDTHS))]
    wanted = GOLDEN["rankings"][name][str(ratio)]
    empty = [place for place, own in enumerate(wanted) if not own]
    assert not empty or (name == "plain" and ratio >= 0.75)
    assert all(kept[place] == [table(WIDTHS, 0.517)[place].argmax()] for place in empty)
    lost = [row for own, other in zip(kept, wanted, strict=True) for row in set(other) - set(own)]
    assert len(lost) == len(empty) and sum(map(len, kept)) == sum(WIDTHS) - int(ratio * sum(WIDTHS))
    assert empty or kept == wanted


@pytest.mark.parametrize("ratio", RATIOS)
def test_depthwise_filters_follow_and_count(ratio):
    """A cut between the two rows of one channel takes the channel here; in the reference its sort decides."""
    net = sparse(separable(), (2, 4, 4), sparsity="0", pattern="channels")
    names = ["stem", *(f"pointwise{place}" for place in range(13))]
    own = dict(zip(names, table(SEPARABLE, 0.317), strict=True))
    scores = of_coefficients(net, own | {f"depthwise{place}": [1e3] * SEPARABLE[place] for place in range(13)})
    found = masks(NetView(net), scores, ratio, "index", False, "")
    wanted = dict(zip(names, GOLDEN["rankings"]["separable"][str(ratio)], strict=True))
    differ = [(name, row) for name in names for row in set(rows(found[name])) ^ set(wanted[name])]
    assert len(differ) <= 1 and all(row in wanted[name] for name, row in differ)
    for place in range(13):
        assert rows(found[f"depthwise{place}"]) == rows(found[(["stem", *names[1:]])[place]])
    filters = sum(SEPARABLE) + sum(SEPARABLE[:13])
    kept = sum(len(rows(found[name])) for name in scores if name != "last")
    assert filters - int(ratio * filters) - 1 <= kept <= filters - int(ratio * filters)


@pytest.mark.parametrize(("guard", "protected"), [("index", [60, 61, 62, 63]), ("score", [3, 5, 20, 33]), ("none", [])])
def test_guards_of_64_filters(guard, protected):
    scores = torch.linspace(0, 1, 64).double()
    scores[[3, 5, 20, 33]] = 2.0
    units = {"a": scores, "b": torch.full((10,), 7.0).double()}
    found = guarded(units, {name: values > -1 for name, values in units.items()}, guard)
    assert (found["a"] > 7).nonzero().flatten().tolist() == protected
    assert int((found["b"] > 7).sum()) == (0 if guard == "none" else 1)


def test_guard_of_a_round_is_of_the_dense_number_among_what_stands():
    """40 filters: three of them, the last ones that stand."""
    standing = torch.arange(40) < 20
    found = guarded({"a": torch.zeros(40).double()}, {"a": standing}, "index")
    assert (found["a"] > 0).nonzero().flatten().tolist() == [17, 18, 19]


def test_a_guard_that_cannot_be_kept_is_impossible():
    net = sparse(stack((40, 40)), (2, 2, 2), sparsity="0.96", budget="channels")
    scores = of_coefficients(net, {"0": range(40), "1": range(40, 80)})
    with pytest.raises(Impossible, match="the guard leaves 0 3 of 40 filters, and"):
        masks(NetView(net), scores, 0.0, "score", False, "")
    assert sum(len(rows(mask)) for mask in masks(NetView(net), scores, 0.0, "none", False, "").values()) == 3 + 3


@pytest.mark.parametrize(
    ("ratio", "shares"),
    [
        (0.5, [1 / 3, 1 / 4]), (0.75, [1 / 2, 1 / 3, 1 / 4]),
        (0.8, [0.4444, 0.3077, 0.2353, 0.1905, 0.16]), (0.3, [0.3]),
    ],
)  # fmt: skip
def test_shares_of_rounds(ratio, shares):
    found = [share_of_round(ratio, number, len(shares)) for number in range(1, len(shares) + 1)]
    assert found == pytest.approx(shares, abs=5e-5)
    left = 1.0
    for share in found:
        left *= 1 - share
    assert left == pytest.approx(1 - ratio, rel=1e-12)


@pytest.mark.parametrize(("ratio", "budget", "sparsity"), [(0.5, "channels", "0"), (0.0, "channels", "0.5")])
def test_rounds_by_ratio_and_by_budget_go_the_same_way(ratio, budget, sparsity):
    """Of 120 filters 80 stand after the first of two rounds, 60 in the end."""
    net = sparse(stack((40, 40, 40)), (2, 2, 2), sparsity=sparsity, budget=budget)
    scores = of_coefficients(net, {str(place): range(40 * place, 40 * place + 40) for place in range(3)})
    for number, left in ((1, 80), (2, 60)):
        found = masks(NetView(net), scores, ratio, "score", False, "", number, 2)
        net.prune(found)
        assert sum(len(rows(mask)) for name, mask in found.items() if name in "012") == left


@pytest.mark.parametrize("space", ["sp", "ip"])
@pytest.mark.parametrize("budget", ["macs", "channels", "parameters"])
@pytest.mark.parametrize("pattern", ["filters", "channels"])
def test_budgets_are_met(budget, pattern, space):
    values = {"pattern": pattern, "budget": budget, "sparsity": "0.4", "space": space, "basis": Basis()}
    values = values if space == "ip" else {name: value for name, value in values.items() if name != "basis"}
    net = sparse(build("small-vgg", (1, 8, 8), 10, 0), (1, 8, 8), **values)
    view, pixels = NetView(net), torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    found = masks(view, SCORES["fisher"](net, Batch(pixels, torch.arange(20) % 10)), 0.0, "index", False, "")
    assert 0.97 * view.target < view.kept_by(found) <= view.target


@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("sparsity", ["0.1", "0.3", "0.55", "0.7"])
def test_the_last_round_ends_at_the_budget_exactly(sparsity, rounds):
    net = sparse(stack((40, 40, 40)), (2, 2, 2), sparsity=sparsity, budget="channels")
    scores = of_coefficients(net, {str(place): range(40 * place, 40 * place + 40) for place in range(3)})
    for number in range(1, rounds + 1):
        net.prune(masks(NetView(net), scores, 0.0, "none", False, "", number, rounds))
    assert NetView(net).kept == NetView(net).target == floor(net.run.density * 120)


def test_whole_layers_count_and_lose_nothing():
    net = sparse(build("resnet20-cifar", (1, 8, 8), 10, 0), (1, 8, 8), model="resnet20-cifar", sparsity="0")
    view = NetView(net)
    scores = SCORES["l1"](net, Batch(torch.zeros(1, 1, 8, 8), torch.zeros(1, dtype=torch.long)))
    scores["stem.conv"] = scores["stem.conv"] * 0
    found = masks(view, scores, 0.5, "none", False, "stem,stage3.block3")
    assert bool(found["stem.conv"].all()) and bool(found["stage3.block3.conv1"].all())
    total = sum(view.blocks.values())
    assert sum(int(flags.sum()) for flags in view.standing(found).values()) == total - total // 2
    inner = masks(view, scores, 0.2, "index", True, "")
    assert all(bool(inner[name].all()) for name in view.blocks if name not in view.inner)
    with pytest.raises(BadInput, match="whole: nothing that can be pruned begins with 'stage9'"):
        masks(view, scores, 0.5, "none", False, "stage9")


def test_ranks_of_units_need_units():
    net = sparse(like_resnet(), pattern="coefficients")
    with pytest.raises(BadInput, match="pattern coefficients has none of them"):
        NetView(net).standing()


# Early-Bird tickets.


def watcher(**options: Any) -> tuple[SparseNet, TrainedView, MaskDistance]:
    net = sparse(stack((20, 20)), (2, 2, 2), sparsity="0")
    view = TrainedView(net, 0.0)
    given = {"score": "l1", "ratio": 0.5, "guard": "none", "inner": False, "whole": "", "window": 3, "below": 0.1}
    return net, view, MaskDistance(view, Steps(10**4, 1), **{**given, "against": "last", "slimming": 0.0, **options})


def epoch_with(net: SparseNet, view: TrainedView, updater: MaskDistance, epoch: int, shift: int) -> None:
    """An epoch after which the largest filters begin at `shift` of the first layer."""
    with torch.no_grad():
        for name in ("0", "1"):
            net.coefficients[name].fill_(0.5 if name == "1" else 0.1)
        net.coefficients["0"][shift : shift + 10] = 9.0
        net.coefficients["1"][:10] = 8.0
        updater.after_epoch(view, epoch)


def test_distances_of_masks_by_hand():
    """A shift by one exchanges one filter of 40 for another: 2 of 40 differ."""
    net, view, updater = watcher(below=0.06)
    for epoch, (shift, distances, done) in enumerate(
        [(0, [], False), (1, [0.05], False), (5, [0.05, 0.2], False), (5, [0.05, 0.2, 0.0], False),
         (6, [0.05, 0.2, 0.0, 0.05], False), (6, [0.05, 0.2, 0.0, 0.05, 0.0], True)]
    ):  # fmt: skip
        epoch_with(net, view, updater, epoch, shift)
        assert updater.distances == pytest.approx(distances) and updater.done == done
    assert net.notes["early_bird"]["epochs"] == 6 and net.notes["early_bird"]["found"]
    assert all(bool(mask.all()) for mask in net.masks.values())  # nothing is pruned meanwhile


def test_the_newest_mask_against_all():
    """Of three masks the newest is two shifts from the first one: 0.1, which is not above the limit."""
    net, view, updater = watcher(against="all")
    for epoch, (shift, distance, done) in enumerate(
        [(0, None, False), (1, 0.05, False), (3, 0.15, False), (3, 0.1, True)]
    ):
        epoch_with(net, view, updater, epoch, shift)
        assert updater.done == done and (distance is None or updater.distances[-1] == pytest.approx(distance))


def test_a_watcher_that_is_resumed_goes_on_as_it_was():
    net, view, updater = watcher()
    for epoch, shift in enumerate((0, 4, 5)):
        epoch_with(net, view, updater, epoch, shift)
    other = watcher()[2]
    other.load(dict(updater.tensors()))
    for epoch, shift in enumerate((5, 6), start=3):
        epoch_with(net, view, updater, epoch, shift)
        before = net.notes["early_bird"]
        epoch_with(net, view, other, epoch, shift)
        assert net.notes["early_bird"] == before
    assert other.done == updater.done is True


def test_slimming_is_the_sum_of_scales():
    net = tiny_net("resnet")
    view = TrainedView(net, 0.0)
    updater = MaskDistance(view, Steps(2, 1), score="bn", ratio=0.5, guard="none", inner=False, whole="", window=5,
                           below=0.1, against="last", slimming=0.5)  # fmt: skip
    scales = torch.cat([net.net[place].weight.detach() for place in (1, 4, 7)])
    found = updater.penalty(view)
    assert float(found) == pytest.approx(0.5 * float(scales.abs().sum()))
    found.backward()
    assert torch.equal(net.net[4].weight.grad, 0.5 * net.net[4].weight.sign())


# Stages, and what is shared.


def test_a_method_of_rounds_cuts_after_each_of_them():
    stages = methods.get("orthoreg").stages({"rounds": 3, "before": 4, "epochs": 9, "between": 5, "schedule": "rounds"})
    kinds = [type(stage) for stage in stages]
    assert kinds == [Continue, *[Choose, Slice, Train, Train] * 2, Choose, Slice, Train]
    trained = [stage for stage in stages if isinstance(stage, Train)]
    assert [stage.epochs for stage in trained] == [5, 4, 5, 4, 9]
    assert [stage.update is not None for stage in trained] == [False, True, False, True, False]
    recipe = Recipe(epochs=100, lr=0.1)
    for stage, epochs, rates in ((trained[0], 80, [0.1, 0.01, 0.001]), (trained[-1], 100, [0.1, 0.01, 0.001])):
        own = stage.recipe_of(recipe).model_copy(update={"epochs": epochs})
        ends = (0, 35, 70) if epochs == 80 else (0, 40, 80)
        assert [learning_rate(own, epoch * 390, 390) for epoch in ends] == pytest.approx(rates)
        assert learning_rate(own, ends[1] * 390 - 1, 390) == 0.1
    plain = methods.get("scored-filters").stages({"rounds": 2})
    assert [type(stage) for stage in plain] == [Continue, Choose, Slice, Train, Choose, Slice, Train]


def test_the_penalised_training_is_one_for_all_scores_ratios_rounds_and_sparsities():
    config = {
        "datasets": "digits", "models": "small-vgg", "sparsities": ["0.5", "0.8"], "seeds": 2, "recipe": {"epochs": 2},
        "methods": [
            {"name": "orthoreg", "score": ["fisher", "tfo", "l1"], "rounds": [1, 2]},
            {"name": "orthoreg", "ratio": [0.25, 0.5], "pattern": ["filters", "channels"]},
            {"name": "scored-filters", "before": 1, "ratio": [0.25, 0.5], "score": ["fisher", "bn"]},
            {"name": "scored-filters", "ratio": [0.25, 0.5]},
        ],
    }  # fmt: skip
    experiment = Experiment.from_config(config, "x")
    assert len(experiment.cells) == 2 * (6 * 2 + 4 + 4 + 2)
    others = {cell: run for cell, run in experiment.trained.items() if cell not in experiment.cells}
    found = sorted(
        (run.method, json.dumps(run.options, sort_keys=True)) for run in others.values() if run.space == "sp"
    )
    assert found == [("dense", "{}"), ("orthonormal", '{"epochs": 1, "strength": 0.0}'), ("orthonormal", "{}")]
    assert len(others) == 6
    starts = {cell: others[experiment.needs[cell][0]].method for cell in experiment.cells}
    for cell, run in experiment.cells.items():
        wanted = "orthonormal" if run.method == "orthoreg" or "before" in run.options else "dense"
        assert starts[cell] == wanted and others[experiment.needs[cell][0]].space == run.space


def test_a_penalised_training_that_begins_at_the_dense_net():
    run = make_run(method="orthoreg", pattern="filters", sparsity="0.5", options={"pretrained": True})
    line = methods.line(run)
    assert [(before.method, before.pattern) for before in line] == [
        ("orthonormal", "coefficients"),
        ("dense", "coefficients"),
    ]
    assert line[0].options == {"pretrained": True}


# Runs.

RECIPE = Recipe(epochs=2, batch_size=30, lr=0.05, train_examples=100, weight_decay=1e-3)
RUNS: dict[str, dict[str, Any]] = {
    "orthoreg": {"options": {"rounds": 2, "before": 2, "guard": "score"}},
    "orthoreg ip": {"space": "ip", "options": {"rounds": 2, "score": "tfo"}},
    "orthoreg channels": {"pattern": "channels", "sparsity": "0", "options": {"ratio": 0.5, "score": "grasp"}},
    "scored-filters": {"budget": "channels", "space": "ip", "options": {"score": "rdt", "between": 1, "rounds": 2}},
    "scored-filters frozen": {"budget": "channels", "off": "frozen", "options": {"before": 1, "rounds": 2}},
    "early-bird": {"options": {"most": 5, "window": 2, "below": 0.5, "slimming": 0.001}},
    "early-bird ip": {
        "space": "ip", "sparsity": "0",
        "options": {"most": 4, "ratio": 0.5, "score": "l1", "against": "all", "window": 2},
    },
    "orthonormal": {"pattern": "coefficients", "budget": "parameters", "sparsity": "0", "options": {}},
    "orthonormal ip": {
        "pattern": "coefficients", "budget": "parameters", "sparsity": "0", "space": "ip", "options": {"epochs": 2},
    },
}  # fmt: skip


def run_of(name: str) -> Run:
    values = {"pattern": "filters", "budget": "macs", "sparsity": "0.5", "model": "small-vgg", **RUNS[name]}
    return Run(dataset="digits", method=name.split()[0], recipe=RECIPE, **values)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Any:
    """Records of the runs, undisturbed."""
    folder = tmp_path_factory.mktemp("whole")

    @cache
    def result(name: str) -> dict[str, Any]:
        return execute(run_of(name), folder, HERE)

    return result


@pytest.mark.parametrize("name", RUNS)
def test_a_run(name, whole):
    record = whole(name)
    outcome, options = record["outcome"], RUNS[name]["options"]
    assert record["status"] == "done" and len(outcome["curves"]["train_loss"]) == RECIPE.epochs
    notes = outcome["notes"]
    if name.startswith("early-bird"):
        found = notes["early_bird"]
        assert found["epochs"] <= options["most"] and len(found["distances"]) == found["epochs"] - 1
        assert all(0 <= distance <= 1 for distance in found["distances"])
    if not name.startswith("orthonormal"):
        units = {unit["name"]: (unit["units"], unit["kept"]) for unit in outcome["units"]}
        total, kept = (sum(numbers) for numbers in zip(*units.values(), strict=True))
        if "ratio" in options:
            assert kept == total - int(options["ratio"] * total)
        else:
            assert outcome["reached"] >= 0.5
        if "frozen" not in name:
            assert outcome["macs_now"] == outcome["macs_sliced"] < outcome["macs_dense"]
    for key in {"orthogonality", "orthogonality_1", "orthogonality_2"} & set(notes):
        assert set(notes[key]) == {f"stage{s}.conv{c}" for s in (1, 2, 3) for c in (1, 2)}
        assert all(0 < value <= 1 for value in notes[key].values())
    assert any(key.startswith("orthogonality") for key in notes)


@pytest.mark.parametrize("name", RUNS)
def test_stopped_at_every_third_step_equals_undisturbed(name, whole, in_pieces):
    cut, stops = in_pieces(run_of(name))
    assert stops > 0
    assert cut["outcome"] == whole(name)["outcome"]


def test_a_penalty_makes_filters_orthogonal(tmp_path):
    """After three short epochs, in the mean over layers."""
    recipe = Recipe(epochs=3, batch_size=30, lr=0.05, train_examples=600, schedule="cosine")
    means = {}
    for strength in (0.01, 0.0):
        run = Run(dataset="digits", model="small-vgg", method="scored-filters", recipe=recipe, pattern="filters",
                  budget="macs", sparsity="0.5")  # fmt: skip
        if strength:
            run = run.model_copy(update={"method": "orthoreg"})
        notes = execute(run, tmp_path, HERE)["outcome"]["notes"]["orthogonality"]
        means[strength] = sum(notes.values()) / len(notes)
    assert means[0.01] > 0.6 > 0.4 > means[0.0]


# As published.


def test_vgg_13_is_that_of_orthoreg():
    """As counted with the code of OrthoReg (EkdeepSLubana/OrthoReg at 869f049, models.py)."""
    net = outline("vgg13-cifar", (3, 32, 32), 100)
    assert count(net, (3, 32, 32)).parameters == 9_462_180
    stage = [type(layer).__name__ for layer in net[0]]
    assert stage == ["Conv2d", "ReLU", "BatchNorm2d"] * 2 + ["MaxPool2d"] and net[0][0].bias is not None


def test_norms_of_the_published_nets():
    """Each convolution has its own, behind its ReLU in the VGG."""
    for name in MODELS:
        net = published_net(name)
        assert set(net.norms) == set(net.masks) - {"classifier"}
        for layer, norm in net.norms.items():
            assert norm.rpartition(".")[0] == layer.rpartition(".")[0]
            assert norm[-1] == layer[-1] or "wise" in layer or layer.endswith(".conv")


def test_published_numbers_stand_beside_the_cells_of_the_experiment():
    rows_ = [entry for entry in published.published() if "OrthoReg" in entry.source]
    cells = parse(Experiment.load(CONFIG / "orthoreg-cifar100.yaml").grid()).cells
    found = {cell.id: entry for cell in cells if (entry := published.find(cell)) in rows_}
    assert len(rows_) == 3 + 27 and len({id(entry) for entry in found.values()}) == len(found) == len(rows_)
    assert all(cell.space == "sp" for cell in cells if cell.id in found)


# Options.


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        ("orthoreg", {"score": "fischer"}, "did you mean 'fisher'"), ("orthoreg", {"strength": 0.0}, "scored-filters"),
        ("orthoreg", {"ratio": 1.0}, "ratio is from 0"), ("orthoreg", {"guard": "both"}, "index, score, none"),
        ("orthoreg", {"gram": "both"}, "shape, rows, columns"), ("orthoreg", {"rounds": 0}, "rounds is 1 or more"),
        ("orthoreg", {"schedule": "wang"}, "recipe, early or rounds"),
        ("orthonormal", {"strength": -1.0}, "strength is 0"),
        ("scored-filters", {"before": -1}, "before is 0 or more"), ("early-bird", {"score": "fisher"}, "no image"),
        ("early-bird", {"window": 1}, "window is from 2"), ("early-bird", {"against": "next"}, "last or all"),
    ],
)  # fmt: skip
def test_options_without_meaning_are_one_line(method, options, words):
    with pytest.raises(BadInput, match=words) as caught:
        methods.get(method).check_options(options, "here")
    assert "\n" not in str(caught.value)


def test_a_ratio_is_one_ranking_over_all_layers():
    entry = methods.get("orthoreg")
    run = make_run(method="orthoreg", pattern="filters", options={"ratio": 0.5}, allocation="uniform", sparsity="0")
    with pytest.raises(BadInput, match="which is allocation global, not uniform"):
        entry.check_run(run, "here")
    with pytest.raises(BadInput, match="take pattern filters or channels"):
        entry.check_run(make_run(method="orthoreg", pattern="coefficients"), "here")
