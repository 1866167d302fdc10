"""Every method in every combination of axes on odd nets: what must hold whatever the numbers are."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ipbench import keys, methods
from ipbench.methods import DropAndGrow, Gradual, Prune, Train
from ipbench.models.initialise import initialise
from ipbench.runs.outcome import describe
from ipbench.runs.state import State
from ipbench.sparse.net import SparseNet
from ipbench.sparse.selection import Impossible
from ipbench.spec import COEFFICIENTS, Basis, Recipe, Run
from ipbench.store import tensors_digest
from tests.tiny import TinyData, few_steps, run_stages

SHAPE = (2, 7, 7)
DATA = TinyData(SHAPE, batches=3)
RECIPE = Recipe(epochs=2, lr=0.01, weight_decay=0.01, nesterov=True, batch_size=8)

# Odd nets: blocks that map 6 channels to 6, one after the other.


class Flat(nn.Module):
    """A one-dimensional convolution along the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(6, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.flatten(2)).view_as(x)


class Twice(nn.Module):
    """One convolution that is used at two places."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.conv(x).relu())


BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: nn.Conv2d(6, 6, 3, padding=1),
    "norm": lambda: nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)),
    "grouped": lambda: nn.Conv2d(6, 6, 3, padding=1, groups=3),
    "depthwise": lambda: nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False), nn.Conv2d(6, 6, 1)),
    "1x1": lambda: nn.Conv2d(6, 6, 1, bias=False),
    "5x5": lambda: nn.Conv2d(6, 6, 5, padding=2),
    "7x7": lambda: nn.Conv2d(6, 6, 7, padding=3, bias=False),
    "1x3": lambda: nn.Conv2d(6, 6, (1, 3), padding=(0, 1)),
    "dilated": lambda: nn.Conv2d(6, 6, 3, padding=2, dilation=2),
    "twice": Twice,
    "1d": Flat,
}


def odd_net(blocks: list[str], seed: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(2, 6, 3, padding=1)]
    for block in blocks:
        layers += [nn.ReLU(), BLOCKS[block]()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    initialise(net, seed)
    return net


# Runs.


@st.composite
def runs(draw: st.DrawFn) -> Run:
    # Methods of whole filters change no mask before their end, and coefficients by more than steps.
    entry = draw(st.sampled_from([entry for entry in methods.methods().values() if entry.pattern == COEFFICIENTS]))
    space = draw(st.sampled_from(["sp", "ip"]))
    basis = {}
    if space == "ip":
        basis["basis"] = Basis(
            init=draw(st.sampled_from(["standard", "orthonormal"])),
            sharing=draw(st.sampled_from(["network", "stage", "layer"])),
            train=draw(st.booleans()),
            large_kernels=draw(st.booleans()),
        )
    options = few_steps(entry)
    for name in ("scaled", "weights"):
        if name in entry.options:
            options |= entry.check_options({name: draw(st.booleans())}, "here")
    one_ranking = any(isinstance(stage, Prune) and stage.whole_ranking for stage in entry.stages({}))
    return Run(
        dataset="digits", model="odd", method=entry.name, recipe=RECIPE, space=space, **basis,
        off=draw(st.sampled_from(["zero", "frozen"])),
        sparsity=draw(st.sampled_from(["0", "0.3", "0.5", "0.8", "0.95"])) if entry.prunes else "0",
        allocation="global" if one_ranking else draw(st.sampled_from(["global", "uniform", "erk"])),
        options=options, seed=draw(st.integers(0, 3)),
    )  # fmt: skip


nets = st.lists(st.sampled_from(list(BLOCKS)), min_size=1, max_size=2)


def expected_kept(net: SparseNet, step: int) -> int:
    """How many coefficients a run keeps when so many steps of its training are done."""
    run, total = net.run, RECIPE.epochs * DATA.steps_per_epoch
    stages = methods.get(run.method).stages(run.options)
    target = math.floor(run.density * net.prunable) - net.basis_entries
    update = next((stage.update for stage in stages if isinstance(stage, Train)), None)
    if any(isinstance(stage, Prune) for stage in stages):
        return target
    if update is None or update.masks == "stay":
        return net.prunable
    assert isinstance(update, Gradual) and update.every == 2 and math.floor(update.until * total) == 4
    if step == 0:
        return net.prunable
    start, latest = net.prunable - net.basis_entries, [0, 0, 2, 2, 4, 4][step - 1]
    return math.ceil(target + (1 - Fraction(latest, 4)) ** 3 * (start - target))


class Watch:
    """Checks a net before every step and at the end."""

    def __init__(self) -> None:
        self.steps: dict[str, int] = {}
        self.layers: dict[str, list[int]] = {}
        self.moved = False

    def __call__(self, net: SparseNet, state: State) -> None:
        run = net.run
        step = self.steps.get(run.id, 0)
        counts = [int(mask.sum()) for mask in net.masks.values()]
        # A run that rewinds hands out batches to the dense training first: its masks are then as later.
        assert sum(counts) == expected_kept(net, step)
        assert net.budget + net.basis_entries == math.floor(run.density * net.prunable)
        stages = methods.get(run.method).stages(run.options)
        if any(isinstance(stage, Train) and isinstance(stage.update, DropAndGrow) for stage in stages):
            assert self.layers.setdefault(run.id, counts) == counts  # exchanged within layers
        for name, c in net.coefficients.items():
            off = net.start[name] if run.off == "frozen" else torch.zeros_like(c)
            assert torch.equal(c[~net.masks[name]], off[~net.masks[name]]), name
        assert all(bool(torch.isfinite(tensor).all()) for tensor in net.tensors().values())
        self.moved |= any(not torch.equal(c, net.start[name]) for name, c in net.coefficients.items())
        self.steps[run.id] = step + 1


def finish(run: Run, blocks: list[str]) -> tuple[SparseNet, dict[str, Any], Watch] | None:
    """The end of a run, watched; None if it is impossible, and rightly so."""
    watch = Watch()
    try:
        net, state = run_stages(run, DATA, lambda: odd_net(blocks, run.seed), watch)
    except Impossible:
        net = SparseNet(odd_net(blocks, run.seed), run, SHAPE)
        assert math.floor(run.density * net.prunable) <= net.basis_entries
        assert run.space == "ip" and run.basis.train
        return None
    return net, describe(net, DATA, state), watch


@settings(derandomize=True, database=None, deadline=None, max_examples=50, suppress_health_check=list(HealthCheck))
@given(run=runs(), blocks=nets)
def test_every_run_keeps_its_budget_and_its_off_values_at_every_step(run, blocks):
    """And ends as the record says, the same when it is done again."""
    found = finish(run, blocks)
    if found is None:
        return
    net, outcome, watch = found
    assert watch.steps[run.id] >= 2 and watch.moved
    kept = {name: int(mask.sum()) for name, mask in net.masks.items()}
    assert outcome["collapsed_layers"] == [name for name, count in kept.items() if count == 0]
    assert outcome["coefficients_kept"] == sum(kept.values())
    assert {layer["name"]: layer["kept"] for layer in outcome["layers"]} == kept
    assert outcome["masks_sha256"] == tensors_digest(net.masks)
    again = finish(run, blocks)
    assert again is not None
    assert {**again[1], "curves": None} == {**outcome, "curves": None}


@settings(derandomize=True, database=None, deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(run=runs(), other=runs(), blocks=nets)
def test_nothing_drawn_depends_on_method_space_off_or_sparsity(run, other, blocks):
    """Two runs of one seed: the same start, score and growth numbers, and FBs wherever both have one of that name."""
    other = other.model_copy(update={"seed": run.seed})
    one, two = (SparseNet(odd_net(blocks, run.seed), r, SHAPE) for r in (run, other))
    assert list(one.layers) == list(two.layers)
    for name in one.layers:
        assert torch.equal(one.uniform(name), two.uniform(name))
        assert torch.equal(one.uniform(name, "growth", 3), two.uniform(name, "growth", 3))
        if "orthonormal" not in (one.run.basis.init, two.run.basis.init):
            assert torch.equal(one.start[name], two.start[name])
    if one.run.basis.init == two.run.basis.init:
        for name in one.bases.keys() & two.bases.keys():
            assert torch.equal(one.bases[name].matrix, two.bases[name].matrix)


@settings(derandomize=True, database=None, deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(run=runs(), blocks=nets)
def test_every_key_is_of_the_seed_and_a_place(run, blocks):
    """All randomness of a run goes through `keys.key`: its parts are numbers, layers and FBs, never another axis."""
    places = set(dict(odd_net(blocks, 0).named_modules()))
    seen: list[tuple[Any, ...]] = []
    true = keys.key

    def spy(seed: int, *parts: Any) -> int:
        seen.append((seed, *parts))
        return true(seed, *parts)

    state = torch.random.get_rng_state()
    keys.key = spy
    try:
        finish(run, blocks)
    finally:
        keys.key = true
        torch.random.set_rng_state(state)
    assert seen
    for seed, purpose, *parts in seen:
        assert seed == run.seed
        for part in parts:
            word = part.rpartition("/")[0] if purpose == "basis" else part
            assert (
                isinstance(part, int)
                or part in ("score", "method")
                or word in places
                or word.startswith(("network", "stage"))
            )
