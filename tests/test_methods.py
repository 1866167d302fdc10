"""Scores with answers by hand or by an independent computation, and the contract of every registered method."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

from ipbench import methods
from ipbench.data.loaders import Batch
from ipbench.errors import BadInput
from ipbench.methods import Choose, Method, Prune, Train
from ipbench.sparse.net import SparseNet
from ipbench.sparse.selection import NotFinite, select
from ipbench.spec import Basis, Recipe
from ipbench.training.pruning import pruned_masks
from tests.tiny import Fixed, TinyData, few_steps, make_run, run_stages, tiny_conv, tiny_stack


def score(name: str, net: SparseNet, batch: Batch, **options) -> dict[str, torch.Tensor]:
    stage = methods.get(name).stages(options)[0]
    assert isinstance(stage, Prune)
    return stage.score(net, batch, **stage.options)


def linear_net(weights: list[list[float]]) -> SparseNet:
    """Logits W x of inputs with two numbers (as images of shape (2, 1, 1))."""
    layer = nn.Linear(2, len(weights), bias=False)
    layer.weight.data = torch.tensor(weights)
    return SparseNet(nn.Sequential(nn.Flatten(), layer), make_run(), (2, 1, 1))


def test_snip_by_hand():
    """Both logits are 0, so dL/dlogits = (1/2 - 1, 1/2) for label 0 and dL/dW = that times x = (1, 3)."""
    net = linear_net([[3.0, -1.0], [6.0, -2.0]])
    batch = Batch(torch.tensor([[[[1.0]], [[3.0]]]]), torch.tensor([0]))
    assert score("snip", net, batch)["1"].tolist() == [[1.5, 1.5], [3.0, 3.0]]


def test_magnitude_by_hand():
    net = linear_net([[3.0, -1.0], [-6.0, 0.5]])
    batch = Batch(torch.zeros(1, 2, 1, 1), torch.tensor([0]))
    assert score("magnitude", net, batch)["1"].tolist() == [[3.0, 1.0], [6.0, 0.5]]


def test_synflow_by_hand():
    """Two linear layers: R = 1^T |W2| |W1| 1; the score of a weight is the sum of all paths through it."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    net[1].weight.data = torch.tensor([[1.0, -2.0], [3.0, 0.0]])
    net[3].weight.data = torch.tensor([[-5.0, 7.0]])
    sparse = SparseNet(net, make_run(method="synflow"), (2, 1, 1))
    batch = Batch(torch.zeros(1, 2, 1, 1), torch.tensor([0]))
    scores = score("synflow", sparse, batch)
    assert scores["1"].tolist() == [[5.0, 10.0], [21.0, 0.0]]
    assert scores["3"].tolist() == [[15.0, 21.0]]
    assert net[3].weight.tolist() == [[-5.0, 7.0]] and net[3].weight.dtype == torch.float32  # all as before


def test_synflow_conserves_flow_over_layers():
    """Without biases the scores of every layer sum to the same R (Tanaka et al., theorem 1)."""
    net = nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.ReLU(), nn.Conv2d(4, 3, 3, bias=False), nn.Flatten())
    sparse = SparseNet(net, make_run(method="synflow", space="ip"), (2, 6, 6))
    sums = [
        float(s.sum()) for s in score("synflow", sparse, Batch(torch.zeros(1, 2, 6, 6), torch.tensor([0]))).values()
    ]
    assert sums[0] == pytest.approx(sums[1], rel=1e-12)


def test_synflow_does_not_overflow_in_a_deep_net():
    """Sixty layers of gain 100: single precision would overflow after twenty."""
    layers: list[nn.Module] = [nn.Flatten()]
    for _ in range(60):
        layer = nn.Linear(10, 10, bias=False)
        layer.weight.data.fill_(10.0)
        layers += [layer, nn.ReLU()]
    net = SparseNet(nn.Sequential(*layers), make_run(method="synflow", sparsity="0.9"), (10, 1, 1))
    scores = score("synflow", net, Batch(torch.zeros(1, 10, 1, 1), torch.tensor([0])))
    assert all(bool(torch.isfinite(s).all()) and float(s.min()) > 1e100 for s in scores.values())


def test_synflow_prunes_in_rounds_and_keeps_every_layer(pair, batch):
    """One shot at this sparsity empties a layer, a hundred rounds do not (Tanaka et al., theorem 3)."""
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(72, 100, bias=False), nn.ReLU(), nn.Linear(100, 100, bias=False), nn.ReLU(),
        nn.Linear(100, 3, bias=False),
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for layer in (net[1], net[3], net[5]):
            nn.init.kaiming_normal_(layer.weight)
    sparse = SparseNet(net, make_run(method="synflow", sparsity="0.998"), (2, 6, 6))
    stage = methods.get("synflow").stages({})[0]
    assert isinstance(stage, Prune) and stage.rounds == 100
    masks = pruned_masks(sparse, stage, Fixed(batch))
    assert sum(int(mask.sum()) for mask in masks.values()) == sparse.budget
    assert all(int(mask.sum()) > 0 for mask in masks.values())


def test_rounds_follow_the_exponential_schedule(batch):
    kept = []

    def spy(net, batch):
        kept.append(sum(int((c != 0).sum()) for c in net.coefficients.values()))
        return {name: c.abs() for name, c in net.coefficients.items()}

    net = SparseNet(tiny_conv(), make_run(sparsity="0.9"), (2, 6, 6))
    total, target = net.prunable, net.budget
    masks = pruned_masks(net, Prune(spy, "spy", rounds=4), Fixed(batch))
    assert kept == [total, *(round(total * (target / total) ** (r / 4)) for r in (1, 2, 3))]
    assert sum(int(mask.sum()) for mask in masks.values()) == target


def test_grasp_by_finite_differences():
    """c * (H g) in double precision, with H g from central differences of the gradient along g."""
    net = SparseNet(
        tiny_conv(), make_run(method="grasp", space="ip", basis=Basis(init="orthonormal")), (2, 6, 6)
    ).double()
    generator = torch.Generator().manual_seed(0)
    batch = Batch(torch.randn(6, 2, 6, 6, generator=generator, dtype=torch.float64), torch.arange(6) % 3)
    net.eval()
    scores = score("grasp", net, batch, temperature=2.0)

    def gradients() -> dict[str, torch.Tensor]:
        loss = functional.cross_entropy(net(batch.images) / 2.0, batch.labels)
        return {name: g for name, _, g in net.gradients(loss)}

    start, step = gradients(), 1e-5
    values = {name: c.detach().clone() for name, c in net.coefficients.items()}

    def at(sign: int) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            for name, c in net.coefficients.items():
                c.copy_(values[name] + sign * step * start[name])
        return gradients()

    plus, minus = at(1), at(-1)
    for name in scores:
        expected = values[name] * (plus[name] - minus[name]) / (2 * step)
        assert torch.allclose(scores[name], expected, rtol=1e-4, atol=1e-10)


def test_random_is_keyed_by_seed_and_layer_only(pair, batch):
    sp, ip = pair()
    first, second = score("random", sp, batch), score("random", ip, batch)
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = SparseNet(tiny_conv(), make_run(seed=1), (2, 6, 6))
    assert not torch.equal(first["0"], score("random", other, batch)["0"])


# The contract of every registered method; `pytest --method-file path.py` puts the methods of another file under it.


def contract_run(entry: Method, space: str, **values):
    """A run of the method on the tiny net, whose one shared FB leaves most of the budget to the coefficients."""
    basis = {"basis": Basis(sharing="network")} if space == "ip" else {}
    return make_run(method=entry.name, space=space, pattern=contract_pattern(entry), **basis, **values)


def contract_pattern(entry: Method) -> str:
    """Single coefficients, or the method's own pattern where it can choose no single ones."""
    stages = entry.stages({})
    chosen = [stage.patterns for stage in stages if isinstance(stage, Choose) and stage.patterns]
    chosen += [stage.update.patterns for stage in stages if isinstance(stage, Train) and stage.update]
    chosen = [patterns for patterns in chosen if patterns]
    return entry.pattern if any("coefficients" not in patterns for patterns in chosen) else "coefficients"


def contract_net(entry: Method) -> Callable[[], nn.Module]:
    """A tiny net; where whole filters go, one of which any can."""
    return tiny_conv if contract_pattern(entry) == "coefficients" else tiny_stack


def kept(net: SparseNet) -> list[int]:
    return [int(mask.sum()) for mask in net.masks.values()]


@pytest.mark.parametrize("allocation", ["global", "uniform", "erk"])
@pytest.mark.parametrize("space", ["sp", "ip"])
def test_contract_budget_and_determinism(registered_method: Method, space, allocation):
    """All stages, those of the runs before included: exactly the budget at the end, and the same twice."""
    options, single = few_steps(registered_method), contract_pattern(registered_method) == "coefficients"
    sparsity = "0.3" if registered_method.prunes else "0"
    allocation = allocation if single else "uniform"  # whole filters have no allocation erk
    run = contract_run(registered_method, space, allocation=allocation, sparsity=sparsity, options=options)
    if allocation != "global" and any(getattr(s, "whole_ranking", False) for s in registered_method.stages(options)):
        for refused in (lambda: registered_method.check_run(run, "here"), lambda: run_stages(run, TinyData())):
            with pytest.raises(BadInput, match="allocation global"):
                refused()
        return
    (net, state), (again, _) = (run_stages(run, TinyData(), contract_net(registered_method)) for _ in range(2))
    if single:
        assert sum(kept(net)) == (net.budget if registered_method.prunes else net.prunable)
    else:  # whole units come as near as they can
        assert 0 < sum(kept(net)) <= net.budget
    assert all(torch.equal(net.masks[name], again.masks[name]) for name in net.masks)
    state_of = again.tensors()
    assert all(torch.equal(tensor, state_of[name]) for name, tensor in net.tensors().items())
    # The last training counts its epochs, and ends at the last one of its recipe.
    last = [stage for stage in registered_method.stages(options) if isinstance(stage, Train)][-1]
    assert state.progress.epoch == (last.epochs or run.recipe.epochs)


@pytest.mark.parametrize("space", ["sp", "ip"])
def test_contract_scores_leave_the_net_as_it_is(registered_method: Method, space, batch):
    """A stage that prunes says what to keep; it moves no weight, no statistic and no mask, and is the same twice."""
    net = SparseNet(tiny_conv(), contract_run(registered_method, space, sparsity="0.3"), (2, 6, 6))
    before = {name: tensor.clone() for name, tensor in net.tensors().items()}
    for stage in registered_method.stages(few_steps(registered_method)):
        if isinstance(stage, Prune):
            masks, again = (pruned_masks(net, stage, Fixed(batch)) for _ in range(2))
            assert all(torch.equal(masks[name], again[name]) for name in masks)
            assert sum(int(mask.sum()) for mask in masks.values()) == net.budget
    assert all(torch.equal(before[name], tensor) for name, tensor in net.tensors().items())
    assert all(bool(mask.all()) for mask in net.masks.values())


@pytest.mark.parametrize("off", ["zero", "frozen"])
@pytest.mark.parametrize("space", ["sp", "ip"])
def test_contract_off_values_never_move(registered_method: Method, space, off):
    """Steps with momentum, Nesterov and weight decay leave off-coefficients at exactly zero or their start.

    Before every step and at the end, whether masks stay or change meanwhile.
    """
    recipe = Recipe(epochs=2, lr=0.1, nesterov=True, weight_decay=0.1)
    sparsity = "0.5" if registered_method.prunes else "0"
    options = few_steps(registered_method)
    run = contract_run(registered_method, space, off=off, sparsity=sparsity, recipe=recipe, options=options)

    def watch(net: SparseNet, _) -> None:
        for name, c in net.coefficients.items():
            expected = torch.zeros_like(c) if net.run.off == "zero" else net.start[name]
            assert torch.equal(c[~net.masks[name]], expected[~net.masks[name]])

    net, _ = run_stages(run, TinyData(), contract_net(registered_method), watch)
    if registered_method.prunes:
        assert sum(kept(net)) < net.prunable  # something is off
    for name, c in net.coefficients.items():
        if bool(net.masks[name].any()):
            assert not torch.equal(c[net.masks[name]], net.start[name][net.masks[name]])


def test_contract_description(registered_method: Method):
    described = registered_method.describe()
    assert set(described) >= {"name", "family", "paper", "options", "stages"}
    assert described["paper"] and described["summary"] and described["stages"]
    assert registered_method.check_options(registered_method.options, "here") == {}


def test_masks_do_not_depend_on_off_or_sparsity_of_others(batch):
    """Pairing: what is drawn and scored is a function of the seed alone."""
    scores = [
        score("random", SparseNet(tiny_conv(), make_run(off=off, sparsity=p, space=space), (2, 6, 6)), batch)["0"]
        for off in ("zero", "frozen") for p in ("0.5", "0.9") for space in ("sp", "ip")
    ]  # fmt: skip
    assert all(torch.equal(scores[0], other) for other in scores)
    assert select({"a": scores[0]}, 3)["a"].sum() == 3


def test_cops_with_a_score_that_is_not_finite_diverges(pair, batch):
    """It is a result of the run, as for any other score, not a crash."""
    net, _ = pair()
    spoiled = Batch(batch.images * float("nan"), batch.labels)
    stage = methods.get("cops").stages({})[0]
    with pytest.raises(NotFinite, match="the score snip is not finite"):
        stage.score(net, spoiled, **stage.options)
