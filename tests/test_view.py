"""What a method sees of a net: nothing of it tells the space, nor the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ipbench.data.loaders import Batch
from ipbench.errors import BadInput
from ipbench.methods import DropAndGrow, Gradual, Prune
from ipbench.sparse.net import SparseNet
from ipbench.sparse.spaces import FilterBasis
from ipbench.sparse.view import NetView, TrainedView, sparse_net
from ipbench.spec import Basis, Run
from ipbench.training.pruning import pruned_masks
from ipbench.updaters import Updater
from tests.tiny import Fixed, hooks_of, make_run, tiny_conv

#: How each public attribute of a view is used: every one of them stands here.
USES: dict[str, Callable[[Any, Batch], Any]] = {
    "averaged": lambda net, batch: net.averaged(lambda part: net.gradients(loss(net, part)), batch),
    "biases": lambda net, batch: net.biases,
    "blocks": lambda net, batch: net.blocks,
    "budget": lambda net, batch: net.budget,
    "budget_at": lambda net, batch: [net.budget_at(share) for share in (0, 0.3, 1)],
    "channels": lambda net, batch: units_of(net),
    "coefficients": lambda net, batch: net.coefficients,
    "filters": lambda net, batch: net.filters,
    "flow": lambda net, batch: net.flow(batch),
    "forget": lambda net, batch: net.forget("a"),
    "gates": lambda net, batch: gated(net, batch),
    "gradients": lambda net, batch: net.gradients(loss(net, batch)),
    "groups": lambda net, batch: net.groups.to_json(),
    "inner": lambda net, batch: sorted(net.inner),
    "kept": lambda net, batch: net.kept,
    "kept_by": lambda net, batch: net.kept_by(net.masks),
    "linearised": lambda net, batch: linearised(net, batch),
    "logits": lambda net, batch: net.logits(batch),
    "loss": lambda net, batch: net.loss(batch),
    "magnitudes": lambda net, batch: [net.magnitudes(), net.magnitudes(scaled=True)],
    "masks": lambda net, batch: net.masks,
    "mean": lambda net, batch: net.mean(lambda part: {"loss": loss(net, part)}, batch),
    "names": lambda net, batch: net.names,
    "norms": lambda net, batch: net.norms,
    "notes": lambda net, batch: net.notes,
    "outputs": lambda net, batch: net.outputs(batch.images),
    "plain": lambda net, batch: plain(net, batch),
    "prune": lambda net, batch: (net.prune({name: net.uniform(name) < 0.5 for name in net.names}), net.masks),
    "recall": lambda net, batch: (net.remember("b"), net.prune(net.masks), net.recall("b"), net.masks),
    "remember": lambda net, batch: net.remember("a"),
    "remove": lambda net, batch: (net.remove(net.channels.weakest(torch.ones(net.channels.number), 1)), net.masks),
    "select": lambda net, batch: net.select(net.magnitudes(), net.budget, 3),
    "select_each": lambda net, batch: net.select_each(net.magnitudes(), dict.fromkeys(net.blocks, 0.3), 4),
    "select_units": lambda net, batch: of_units(lambda: net.select_units(net.unit_scores(net.magnitudes()), share=0.3)),
    "shapes": lambda net, batch: net.shapes,
    "standing": lambda net, batch: of_units(net.standing),
    "state": lambda net, batch: net.state,
    "summed": lambda net, batch: net.summed(net.magnitudes()),
    "target": lambda net, batch: net.target,
    "task": lambda net, batch: net.task,
    "unit_scores": lambda net, batch: of_units(lambda: net.unit_scores(net.magnitudes())),
    "input_norms": lambda net, batch: net.input_norms(batch),
    "uniform": lambda net, batch: [net.uniform(name, "growth", 2) for name in net.names],
    "units": lambda net, batch: units(net),
    "weight_decay": lambda net, batch: net.weight_decay,
    "weights": lambda net, batch: net.weights,
}


def loss(net: NetView, batch: Batch) -> Tensor:
    return functional.cross_entropy(net(batch.images), batch.labels)


def linearised(net: NetView, batch: Batch) -> list[Any]:
    with net.linearised() as twin:
        return [twin, twin(batch.images.double()), *public(twin)]


def units_of(net: NetView) -> list[Any]:
    channels = net.channels
    values = [channels.number, channels.standing, channels.inner, channels.costs("memory"), channels.costs("macs")]
    return [*values, channels.weakest(torch.arange(channels.number), 3), channels.flags(torch.tensor([], dtype=int))]


def gated(net: NetView, batch: Batch) -> list[Any]:
    with (gates := net.gates())(batch):
        loss(net, batch).backward()
    return [gates.gradients(), *public(gates)]


def units(net: NetView) -> list[Any]:
    """All that tensors of units tell."""
    found = net.units
    sums = found.sums(net.magnitudes())
    kept = found.ranks(sums) > 1
    told = [found.blocks, found.sizes, found.starts, found.block, found.order, found.number, sums]
    return [*told, found.counts(kept), found.spread(sums), found.masks(kept)]


def plain(net: NetView, batch: Batch) -> list[Any]:
    twin = net.plain()
    found = [twin.gradients(twin.loss(batch)), twin(batch.images)]
    return [found, twin.parameters, twin.filters, twin.biases, twin.norms, *public(twin)]


def of_units(ask: Callable[[], Any]) -> Any:
    """What is answered where the pattern has units, or why not."""
    try:
        return ask()
    except BadInput as error:
        return str(error)


def public(thing: object) -> list[str]:
    return [name for name in dir(thing) if not name.startswith("_")]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return type(one) is type(other) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and (isinstance(one, NetView) or one == other)


def reached(thing: Any) -> list[Any]:
    """All that is inside of what an attribute gives, by public names and items."""
    parts = thing.values() if isinstance(thing, dict) else thing if isinstance(thing, list | tuple) else ()
    return [thing, *(inner for part in parts for inner in reached(part))]


@pytest.mark.parametrize("pattern", ["coefficients", "filters"])
@pytest.mark.parametrize("kind", [NetView, TrainedView])
def test_no_attribute_tells_the_space(pair, batch, kind, pattern):
    """A standard FB that is not trained makes both spaces the same function: whatever is asked, the answer is one."""
    nets = pair(sparsity="0.5", basis=Basis(train=False), pattern=pattern)
    views = [kind(net, *([0.5] if kind is TrainedView else [])) for net in nets]
    names = public(views[0])
    assert names == public(views[1]) and set(names) <= set(USES)
    assert kind is NetView or set(names) == set(USES)
    assert same(views[0](batch.images), views[1](batch.images))
    for name in [*names, *names]:  # the second time after masks have changed
        answers = [USES[name](view, batch) for view in views]
        assert same(*answers), name
        for thing in reached(answers[1]):
            assert not isinstance(thing, SparseNet | FilterBasis | Run | nn.Module), name


def test_every_attribute_is_documented():
    text = (Path(__file__).parents[1] / "docs" / "adding-a-method.md").read_text()
    assert [name for name in USES if f"net.{name}" not in text] == []


@pytest.mark.parametrize("name", ["run", "bases", "net", "space", "layers", "start", "counted", "off_values", "fade"])
def test_what_a_method_must_not_see(pair, name):
    for net in pair():
        assert hasattr(net, name) or name == "space"
        assert not hasattr(NetView(net), name) and not hasattr(TrainedView(net, 0.0), name)


def test_every_function_of_a_method_gets_a_view(batch):
    """Scores at once and in a training, growth, and each hook of an updater."""
    seen: list[tuple[str, type]] = []

    def note(who: str, net: Any) -> None:
        seen.append((who, type(net)))

    def score(net, batch):
        note("score", net)
        return net.magnitudes()

    def grow(net, layer, gradient, step):
        note("grow", net)
        return gradient.abs()

    class Noting(Updater):
        def __init__(self, net, steps):
            note("begin", net)

        def penalty(self, net):
            note("penalty", net)

        def after_backward(self, net, batch, step):
            note("after_backward", net)
            return True

        def after_epoch(self, net, epoch):
            note("after_epoch", net)

        def after_evaluation(self, net, epoch, accuracy):
            note("after_evaluation", net)

        def decay(self, net):
            note("decay", net)

    net = SparseNet(tiny_conv(), make_run(sparsity="0.5"), (2, 6, 6))
    functional.cross_entropy(net(batch.images), batch.labels).backward()
    hooks_of(net, Gradual(score, 1, 0.0, 1.0), 10).after_backward(batch, 5, {})
    net.prune(pruned_masks(net, Prune(score, "score"), Fixed(batch)))
    hooks_of(net, DropAndGrow(grow, 1, 0.5, 0.5, 1.0, False), 10).after_backward(batch, 5, {})
    assert set(seen) == {("score", NetView), ("grow", NetView)}
    seen.clear()
    hooks = hooks_of(net, Noting.spec(), 10)
    assert hooks.penalty(0) is None and hooks.after_backward(batch, 0, {}) and hooks.decays(0) is None
    hooks.after_epoch(0, {})
    assert not hooks.after_evaluation(0, 0.5, {})
    hooks_named = ["begin", "penalty", "after_backward", "decay", "after_epoch", "after_evaluation"]
    assert seen == [(name, TrainedView) for name in hooks_named]


def test_a_trained_view_changes_the_net_and_hands_out_copies_of_masks(batch):
    net = SparseNet(tiny_conv(), make_run(off="frozen"), (2, 6, 6))
    view = TrainedView(net, 0.0)
    view.masks["0"].zero_()
    assert all(bool(mask.all()) for mask in net.masks.values())
    with torch.no_grad():
        view.coefficients["0"].add_(1)
    mask = torch.zeros(4, 2, 3, 3, dtype=torch.bool)
    view.prune({**view.masks, "0": mask})
    mask.fill_(True)  # a mask that was handed over is the net's own
    assert not bool(net.masks["0"].any()) and torch.equal(net.coefficients["0"], net.start["0"])
    assert sparse_net(view) is net is sparse_net(net)


def test_masks_that_are_none_are_one_line():
    view = TrainedView(SparseNet(tiny_conv(), make_run(), (2, 6, 6)), 0.0)
    for wrong in ({}, {**view.masks, "x": view.masks["0"]}):
        with pytest.raises(
            BadInput, match=r"method snip: net.prune takes a dict with a boolean mask for each layer: 0,"
        ):
            view.prune(wrong)
    for wrong in (torch.ones(4, 2, 3, 3), torch.ones(4, dtype=torch.bool), 3):
        with pytest.raises(BadInput, match=r"that of layer 0 is none of shape \(4, 2, 3, 3\)"):
            view.prune({**view.masks, "0": wrong})


def test_the_budget_at_a_share_by_hand():
    """324 coefficients and an FB of 81: 243 at the start, floor(0.5 * 324) - 81 = 81 at the end; a third way 189."""
    net = SparseNet(nn.Sequential(nn.Conv2d(4, 9, 3)), make_run(space="ip", sparsity="0.5"), (4, 3, 3))
    assert [NetView(net).budget_at(share) for share in (0, 1 / 3, 0.5, 1)] == [243, 189, 162, 81]
