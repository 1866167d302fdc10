"""Masks that change during training, step by step and by hand."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ipbench import keys, methods
from ipbench.data.loaders import Batch
from ipbench.methods import DropAndGrow, Gradual, Train, Update
from ipbench.sparse.net import SparseNet
from ipbench.sparse.selection import NotFinite
from ipbench.spec import Basis
from ipbench.training.loop import Progress, Sgd, train
from ipbench.training.updates import Activity
from ipbench.updaters import Steps
from ipbench.updaters.exchange import Exchange
from tests.tiny import TinyData, hooks_of, make_run, tiny_conv

BATCH = Batch(torch.zeros(2, 1, 3, 3), torch.tensor([0, 1]))


def update_of(method: str, **options) -> Update:
    """How a registered method changes masks while it trains."""
    (found,) = (s.update for s in methods.get(method).stages(options) if isinstance(s, Train) and s.update)
    return found


def revise(net: SparseNet, update: Update, batch: Batch, step: int, total: int, momentum: dict[str, Tensor]) -> bool:
    """What the training loop does at a step when the gradients are at hand."""
    return hooks_of(net, update, total).after_backward(batch, step, momentum)


# RigL and SET on three layers with 9, 6 and 12 coefficients. Lists are in the order of the places.

START = {
    "0": [0.9, -0.1, 0.5, -0.3, 0.2, -0.8, 0.7, -0.7, 0.6],  # a 3 x 3 convolution
    "2": [1.0, -2.0, 3.0, 4.0, 5.0, 6.0],
    "3": [0.12, -0.11, 0.10, -0.09, 0.08, -0.07, 0.06, -0.05, 0.04, 0.03, 0.02, 0.01],
}
KEPT = {"0": {0, 1, 2, 3, 4, 5}, "2": {0, 1, 2}, "3": {0, 1, 2, 3, 4, 5, 6, 7}}
#: What stays trained has gradients of 100: they must not count.
GRADIENTS = {
    "0": [100.0, 5.0, 100.0, 0.1, -0.2, 100.0, -3.0, 4.0, 0.0],
    "2": [0.5, 0.1, 100.0, 0.4, -0.6, 0.2],  # and 0.1, for what would come with a half rounded up
    "3": [100.0, 100.0, 100.0, 100.0, 9.0, 8.0, -7.0, 6.0, 1.0, 2.0, 3.0, 4.0],
}
#: Half of 6, 3 and 8 coefficients is 3, 1 and 4. Dropped are the smallest: {1, 4, 3}, {0}, {4, 5, 6, 7}. Grown are the
#: largest gradients of all that is masked then: {1, 7, 6} (1 comes back), {4}, {4, 5, 6, 7} (all come back).
RIGL = {"0": {0, 1, 2, 5, 6, 7}, "2": {1, 2, 4}, "3": {0, 1, 2, 3, 4, 5, 6, 7}}


def three_layers(**values) -> SparseNet:
    net = nn.Sequential(
        nn.Conv2d(1, 1, 3, bias=False), nn.Flatten(), nn.Linear(1, 6, bias=False), nn.Linear(6, 2, bias=False)
    )
    for name, numbers in START.items():
        layer = net.get_submodule(name)
        layer.weight.data = torch.tensor(numbers).view(layer.weight.shape)
    return SparseNet(net, make_run(**values), (1, 3, 3))


def place(sparse: SparseNet, sets: Mapping[str, set[int]]) -> dict[str, Tensor]:
    """Masks of the given places."""
    masks = {}
    for name, mask in sparse.masks.items():
        masks[name] = torch.tensor([i in sets[name] for i in range(mask.numel())]).view(mask.shape)
    return masks


def kept(sparse: SparseNet) -> dict[str, set[int]]:
    return {name: set(mask.flatten().nonzero().flatten().tolist()) for name, mask in sparse.masks.items()}


def ready(**values) -> tuple[SparseNet, dict[str, Tensor]]:
    """The three layers in the middle of a training: masks, values that have moved, gradients, momentum.

    Trained coefficients are 2 times their start, which changes no order; the momentum of a trained one is 7.
    """
    net = three_layers(**values)
    with torch.no_grad():
        for c in net.coefficients.values():
            c.mul_(2)
    net.prune(place(net, KEPT))
    names = {id(parameter): name for name, parameter in net.net.named_parameters()}
    momentum = {}
    for name, c in net.coefficients.items():
        c.grad = torch.tensor(GRADIENTS[name]).view(c.shape)
        momentum[names[id(c)]] = net.masks[name] * 7.0
    return net, momentum


HALF = DropAndGrow(lambda net, layer, gradient, step: gradient.abs(), 1, 0.5, 0.5, 1.0, scaled=False)


@pytest.mark.parametrize("off", ["zero", "frozen"])
@pytest.mark.parametrize("space", ["sp", "ip"])
def test_rigl_by_hand(space, off):
    net, momentum = ready(space=space, off=off)
    trained = revise(net, update_of("rigl", every=1, fraction=0.5, end=0.5), BATCH, 1, 100, momentum)
    assert not trained
    assert kept(net) == RIGL
    for (name, c), buffer in zip(net.coefficients.items(), momentum.values(), strict=True):
        for i, value in enumerate(c.flatten().tolist()):
            start = torch.tensor(START[name][i])
            stayed = i in KEPT[name] and i in RIGL[name]  # what was dropped and grown again has not moved
            expected = 2 * start if stayed else start if off == "frozen" else 0 * start
            assert value == float(expected), (name, i)
            assert float(buffer.flatten()[i]) == (7.0 if stayed else 0.0), (name, i)


def test_exchange_counts_what_is_new():
    """Of 3, 1 and 4 exchanged coefficients one and all four came back in the first and the last layer."""
    net, momentum = ready()
    hooks = hooks_of(net, HALF, 100)
    hooks.after_backward(BATCH, 1, momentum)
    assert hooks.activity == Activity(mask_updates=1, coefficients_removed=2 + 1 + 0)


def test_dropping_goes_by_magnitude_and_not_by_gradient():
    """The largest coefficients stay whatever their gradients are."""
    net, momentum = ready()
    for c in net.coefficients.values():
        c.grad.zero_()
        c.grad.flatten()[8:] = 1.0
    revise(net, HALF, BATCH, 1, 100, momentum)
    assert {0, 2, 5} <= kept(net)["0"] and {1, 2} <= kept(net)["2"] and kept(net)["3"] == {0, 1, 2, 3, 8, 9, 10, 11}


def test_scaled_dropping_counts_the_size_of_the_basis_filters():
    """Row 0 of the FB times 0.01: the largest coefficient of the convolution becomes the smallest."""
    for scaled, first in ((False, True), (True, False)):
        net, momentum = ready(space="ip")
        with torch.no_grad():
            net.bases["0/3x3"].matrix[0] *= 0.01
        net.coefficients["0"].grad.flatten()[0] = 0.0  # it does not come back
        revise(net, DropAndGrow(HALF.grow, 1, 0.2, 0.2, 1.0, scaled), BATCH, 1, 100, momentum)
        assert (0 in kept(net)["0"]) == first


def test_gradients_must_be_finite():
    net, momentum = ready()
    net.coefficients["2"].grad[0, 0] = float("nan")
    with pytest.raises(NotFinite, match="layer 2"):
        revise(net, HALF, BATCH, 1, 100, momentum)


@pytest.mark.parametrize("space", ["sp", "ip"])
def test_set_by_hand(space):
    """Drops as RigL does; grows where the keyed numbers of (seed, layer, step) are largest, in both spaces the same."""
    net, momentum = ready(space=space, seed=5)
    assert not revise(net, update_of("set", every=1, fraction=0.5, end=0.5), BATCH, 3, 100, momentum)
    dropped = {"0": {1, 3, 4}, "2": {0}, "3": {4, 5, 6, 7}}
    for name, mask in net.masks.items():
        draws = torch.rand(mask.shape, generator=keys.generator(5, "growth", name, 3), dtype=torch.float64).flatten()
        stay = KEPT[name] - dropped[name]
        free = sorted(set(range(mask.numel())) - stay, key=lambda i: -float(draws[i]))
        assert kept(net)[name] == stay | set(free[: len(dropped[name])])


def test_growth_of_set_is_new_at_every_step_and_seed():
    found = []
    for seed, step in ((0, 1), (0, 2), (1, 1)):
        net, _ = ready(seed=seed)
        found.append(update_of("set").grow(net, "3", net.coefficients["3"].grad, step))
    assert all(not torch.equal(found[i], found[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize("method", ["rigl", "set"])
def test_both_spaces_exchange_the_same(method, pair, batch):
    """A standard FB that is not trained: the same masks and weights after six steps, three of them exchanges."""
    ends = []
    data = TinyData()
    for net in pair(basis=Basis(train=False), method=method, sparsity="0.6"):
        generator = torch.Generator().manual_seed(0)
        net.prune({name: torch.rand(mask.shape, generator=generator) < 0.4 for name, mask in net.masks.items()})
        before = kept(net)
        train(net, data, net.run.recipe, Progress(), hooks=hooks_of(net, update_of(method, every=2, until=1.0), 6, 3))
        assert kept(net) != before
        ends.append((kept(net), [c.detach().clone() for c in net.coefficients.values()]))
    assert ends[0][0] == ends[1][0] and all(map(torch.equal, ends[0][1], ends[1][1]))


# When, and how many.


def fractions(method: str, steps: list[int], total: int) -> list[float]:
    update = update_of(method)
    assert isinstance(update, DropAndGrow)
    return [Exchange(update, Steps(total, total)).fraction_at(step) for step in steps]


def test_the_fraction_falls_along_a_cosine_with_the_published_constants():
    """At the start, a third, half and the end of the exchanges: cos(pi / 3) = 1/2, so 3/4 of the way is left."""
    assert fractions("rigl", [0, 250, 375, 750], 1000) == pytest.approx([0.3, 0.225, 0.15, 0.0])
    ends = [0.5, 0.005 + 0.75 * 0.495, 0.2525, 0.005]
    assert fractions("rigl-itop", [0, 400, 600, 1200], 1200) == pytest.approx(ends)
    assert fractions("set-itop", [0, 400, 600, 1200], 1200) == pytest.approx(ends)
    assert fractions("set", [0, 400, 600, 1200], 1200) == pytest.approx([0.3] * 4)


def due(update: Update, total: int) -> list[int]:
    return [step for step in range(total) if update.due(step, total)]


def test_due_steps_by_hand():
    assert due(update_of("rigl"), 1000) == [100, 200, 300, 400, 500, 600, 700]  # until step 750
    assert due(update_of("rigl"), 800) == [100, 200, 300, 400, 500]  # 600 is the end itself
    assert due(update_of("set"), 400) == [100, 200, 300]
    assert due(update_of("rigl-itop"), 9000) == [4000, 8000]
    assert due(update_of("set-itop"), 6000) == [1500, 3000, 4500]
    assert due(update_of("gmp"), 1000) == [*range(0, 750, 100), 750]
    assert due(update_of("gmp", start=0.25, until=0.5, every=100), 1000) == [250, 350, 450, 500]
    assert due(update_of("gmp", until=1.0, every=4), 10) == [0, 4, 8, 9]  # the last step that there is
    assert due(update_of("gmp", every=100), 2) == [0, 1] and due(update_of("gmp"), 1) == [0]


# GMP: 64 + 32 + 4 = 100 coefficients, 20 of them at the end.


def hundred(**values) -> SparseNet:
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(8, 8, bias=False), nn.Linear(8, 4, bias=False), nn.Linear(4, 1, bias=False)
    )
    generator = torch.Generator().manual_seed(0)
    for layer in (net[1], net[2], net[3]):
        layer.weight.data = torch.randn(layer.weight.shape, generator=generator)
    return SparseNet(net, make_run(method="gmp", sparsity="0.8", **values), (8, 1, 1))


def gradual_counts(net: SparseNet, update: Gradual, total: int) -> dict[int, int]:
    """Kept coefficients after every step that changed masks; what is pruned must stay so."""
    counts = {}
    for step in range(total):
        before = net.masks
        assert revise(net, update, BATCH, step, total, {})  # weights are trained at every step
        assert not any(bool((net.masks[name] & ~before[name]).any()) for name in before)
        if any(not torch.equal(net.masks[name], before[name]) for name in before):
            counts[step] = sum(int(mask.sum()) for mask in net.masks.values())
    return counts


@pytest.mark.parametrize(
    ("allocation", "ends"), [("global", None), ("uniform", [13, 6, 1]), ("erk", [10, 7, 3])]
)  # uniform: 12.8, 6.4 and 0.8; erk: 16, 12 and 5 of 33, of 20
def test_gmp_follows_the_cubic_by_hand(allocation, ends):
    """12 steps until 0.75: 20 + 80 (1 - t)^3 with t = 0, 2/9, 4/9, 6/9, 8/9, 1, rounded up."""
    net = hundred(allocation=allocation)
    start = {name: c.detach().abs().flatten() for name, c in net.coefficients.items()}
    # 343, 125, 27 and 1 of 729 parts of 80: 37.6, 13.7, 2.96 and 0.1. At step 0 nothing is to be pruned.
    assert gradual_counts(net, update_of("gmp", every=2), 12) == {2: 58, 4: 34, 6: 23, 8: 21, 9: 20}
    counts = [int(mask.sum()) for mask in net.masks.values()]
    assert sum(counts) == net.budget == 20 and counts == (ends or counts)
    if allocation == "global":  # values did not move: what is left is what one pruning would leave
        border = torch.cat(list(start.values())).sort(descending=True).values[19]
        assert all(torch.equal(start[name] >= border, mask.flatten()) for name, mask in net.masks.items())
    for name, c in net.coefficients.items():
        assert not bool(c[~net.masks[name]].any())


def test_gmp_pays_for_the_bases_from_its_first_step():
    """324 coefficients and an FB of 81: 243 at the start, floor(0.5 * 324) - 81 = 81 at the end; 81 + 162 (1 - t)^3."""
    net = SparseNet(
        nn.Sequential(nn.Conv2d(4, 9, 3)), make_run(method="gmp", space="ip", sparsity="0.5", off="frozen"), (4, 3, 3)
    )
    assert gradual_counts(net, update_of("gmp", every=1), 4) == {0: 243, 1: 129, 2: 87, 3: 81}
    off = ~net.masks["0"]
    assert torch.equal(net.coefficients["0"][off], net.start["0"][off])


def test_gmp_starts_late_and_clears_momentum():
    """start = 0.5 of 8 steps: nothing before step 4."""
    net = hundred()
    update = update_of("gmp", every=1, start=0.5, until=0.75)
    momentum = {name: torch.ones_like(parameter) for name, parameter in net.net.named_parameters()}
    for step in range(8):
        revise(net, update, BATCH, step, 8, momentum)
        left = sum(int(mask.sum()) for mask in net.masks.values())
        assert left == (100 if step < 5 else 30 if step == 5 else 20)  # 20 + 80 / 8
        assert float(sum(buffer.sum() for buffer in momentum.values())) == left


# A training as a whole.


@pytest.mark.parametrize("space", ["sp", "ip"])
@pytest.mark.parametrize("off", ["zero", "frozen"])
@pytest.mark.parametrize(("method", "expected"), [("rigl", [2, 4, 6]), ("set", [2, 4, 6, 8]), ("gmp", [0, 2, 4, 6])])
def test_masks_change_only_at_due_steps(method, expected, off, space):
    """Nine steps, until step 6.75 or to the end; the state before every step against the state after it."""
    net = SparseNet(tiny_conv(), make_run(method=method, space=space, sparsity="0.25", off=off), (2, 6, 6))
    exchanging = method != "gmp"
    if exchanging:
        generator = torch.Generator().manual_seed(0)
        net.prune({name: torch.rand(mask.shape, generator=generator) < 0.5 for name, mask in net.masks.items()})
    states: list[tuple[dict[str, set[int]], dict[str, Tensor]]] = []

    def watch() -> None:
        states.append((kept(net), {name: p.detach().clone() for name, p in net.net.named_parameters()}))

    data = TinyData(batches=3)
    data.before_step = watch
    recipe = net.run.recipe.model_copy(update={"epochs": 3, "weight_decay": 0.01, "nesterov": True})
    options = {"fraction": 0.5, "end": 0.5} if exchanging else {}
    train(net, data, recipe, Progress(), hooks=hooks_of(net, update_of(method, every=2, **options), 9, 3))
    watch()
    assert len(states) == 10
    changed = [step for step in range(9) if states[step][0] != states[step + 1][0]]
    # At step 0 gradual pruning takes what the FBs cost, nothing in sp.
    assert changed == {"gmp-sp": [2, 4, 6], "gmp-ip": [0, 2, 4, 6]}.get(f"{method}-{space}", expected)
    coefficients = {id(c): name for name, c in net.coefficients.items()}
    for step in range(9):
        (before, old), (after, new) = states[step : step + 2]
        if exchanging:
            assert {n: len(s) for n, s in before.items()} == {n: len(s) for n, s in after.items()}
        for label, parameter in net.net.named_parameters():
            same = (old[label] == new[label]).flatten()
            name = coefficients.get(id(parameter))
            if exchanging and step in expected:  # not trained: only what entered or left may differ
                moved = set() if name is None else before[name] ^ after[name]
                assert set((~same).nonzero().flatten().tolist()) <= moved
            elif name is not None:
                assert not bool(same.all()) or not after[name]
    for name, c in net.coefficients.items():
        off_value = net.start[name] if off == "frozen" else torch.zeros_like(c)
        assert torch.equal(c[~net.masks[name]], off_value[~net.masks[name]])


def test_new_coefficients_move_from_their_off_value_without_momentum():
    """One step after an exchange, a grown coefficient has moved by lr times its gradient and nothing else."""
    net, momentum = ready(off="frozen")
    revise(net, HALF, BATCH, 1, 100, momentum)
    optimiser = Sgd(net, net.run.recipe, momentum)
    net.mask_gradients(0.0)
    optimiser.step(0.1)
    # Place 7 of the convolution is new (start -0.7, gradient 4); place 1 came back (2 * -0.1, momentum 0.9 * 7 + 5).
    flat = net.coefficients["0"].detach().flatten()
    assert float(flat[7]) == pytest.approx(-0.7 - 0.1 * 4)
    assert float(flat[1]) == pytest.approx(-0.2 - 0.1 * (0.9 * 7 + 5))
    assert float(flat[8]) == pytest.approx(0.6) and float(flat[4]) == pytest.approx(0.2)  # off: as at the start


def test_the_loss_sees_dense_gradients_for_growth(batch):
    """What RigL grows by is the gradient of masked coefficients too, as backward left it."""
    net = SparseNet(tiny_conv(), make_run(space="ip"), (2, 6, 6))
    generator = torch.Generator().manual_seed(0)
    net.prune({name: torch.rand(mask.shape, generator=generator) < 0.5 for name, mask in net.masks.items()})
    functional.cross_entropy(net(batch.images), batch.labels).backward()
    for name, c in net.coefficients.items():
        assert bool(c.grad[~net.masks[name]].any()), name
