"""A score alone: what it sees, what it may return, what it promises, and its passes over many images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ipbench import methods
from ipbench.cli.main import main
from ipbench.data.loaders import Batch
from ipbench.errors import BadInput
from ipbench.methods import DropAndGrow, Gradual, Prune, cops, cross_entropy
from ipbench.methods.snip import snip
from ipbench.methods.synflow import synflow
from ipbench.runs.outcome import starting_gradient_norm
from ipbench.sparse.net import SparseNet
from ipbench.sparse.scoring import take
from ipbench.sparse.selection import Impossible, NotFinite
from ipbench.sparse.view import sparse_net
from ipbench.tasks import task as task_module
from ipbench.tasks.task import passes
from ipbench.training.pruning import pruned_masks
from tests.tiny import Fixed, TinyData, hooks_of, make_run, run_stages, tiny_conv

SHAPE = (2, 6, 6)


def normed(seed: int = 0) -> nn.Sequential:
    """Batch norm, whose statistics a forward pass in training mode moves, and dropout."""
    net = tiny_conv(seed=seed)
    net.insert(3, nn.Dropout(0.5))
    return net


def smooth() -> nn.Sequential:
    """No norm: the gradient of a mean loss over parts is the mean of their gradients."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 3))


def alone(name: str, net: SparseNet, batch: Batch) -> dict[str, Tensor]:
    """The score of a method on a copy of its own in training mode."""
    stage = methods.get(name).stages({})[0]
    assert isinstance(stage, Prune)
    with net.scratch() as twin:
        return stage.score(twin, batch, **stage.options)


def flat(scores: dict[str, Tensor]) -> Tensor:
    return torch.cat([values.double().flatten() for values in scores.values()])


def rude(net, batch):
    """Changes all that it can reach, and returns views of the parameters."""
    net(batch.images).sum().backward()
    sparse_net(net).net.register_forward_hook(lambda module, inputs, output: output * 0)
    sparse_net(net).net.eval()
    torch.set_grad_enabled(False)
    torch.rand(5)
    for c in net.coefficients.values():
        c.mul_(-3.0).requires_grad_(False)
    batch.images.zero_()
    batch.labels.zero_()
    return {name: c.detach() for name, c in net.coefficients.items()}


# What a score sees.


@pytest.mark.parametrize("names", [("snip", "synflow", "grasp", "magnitude"), ("grasp", "random", "synflow", "snip")])
def test_cops_sees_the_scores_that_are_taken_alone(names, batch, monkeypatch):
    """Bit for bit, on a net with batch norm and dropout, whatever the order."""
    seen = []
    combine = cops.combine
    monkeypatch.setattr(cops, "combine", lambda s, cs, *rest: seen.extend([s, *cs]) or combine(s, cs, *rest))
    options = {"target": names[0], "controls": ",".join(names[1:]), "beta": "0.1"}
    net = SparseNet(normed(), make_run(method="cops", options=options, sparsity="0.5"), SHAPE)
    pruned_masks(net, methods.get("cops").stages(options)[0], Fixed(batch))
    expected = [cops.normalised(flat(alone(name, net, batch)).numpy()) for name in names]
    assert len(seen) == len(names) and all((a == b).all() for a, b in zip(seen, expected, strict=True))


def test_scores_that_a_users_score_calls_are_taken_alone(batch):
    """Even after it has changed everything itself... on its own copy, and they on theirs."""
    net, found = SparseNet(normed(), make_run(), SHAPE), {}

    def mine(net, batch):
        found["snip"] = snip(net, batch)
        found["synflow"] = synflow(net, batch)
        take(rude, "rude", net, batch, {})
        found["again"] = snip(net, batch)
        return found["synflow"]

    pruned_masks(net, Prune(mine, "mine"), Fixed(batch))
    assert torch.equal(flat(found["snip"]), flat(alone("snip", net, batch)))
    assert torch.equal(flat(found["again"]), flat(found["snip"]))
    assert torch.equal(flat(found["synflow"]), flat(alone("synflow", net, batch)))


def test_a_rude_score_reaches_nothing(batch):
    """Not the net, not the batch, not the next round, not the generator, not whether gradients are kept."""
    net, rounds = SparseNet(normed(), make_run(sparsity="0.5"), SHAPE), []

    def score(net, batch):
        rounds.append(flat(snip(net, batch)))
        assert (
            all(c.grad is None and c.requires_grad for c in net.coefficients.values()) and sparse_net(net).net.training
        )
        assert bool(batch.images.any()) and bool(batch.labels.any()) and torch.is_grad_enabled()
        return rude(net, batch)

    before = {name: tensor.clone() for name, tensor in net.tensors().items()}
    images, state = batch.images.clone(), torch.get_rng_state()
    pruned_masks(net, Prune(score, "rude", rounds=3), Fixed(batch))
    hooks_of(net, Gradual(score, 1, 0.0, 1.0), 10).after_backward(batch, 9, {})
    assert len(rounds) == 4 and torch.equal(batch.images, images) and torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled() and net.net.training
    assert bool(flat(snip(net, batch)).any())  # no hook that sends zeros
    kept = {name: net.masks.get(name.removesuffix(".weight"), torch.tensor(True)) for name in before}
    assert all(torch.equal(tensor, before[name] * kept[name]) for name, tensor in net.tensors().items())


def test_a_rude_growth_reaches_nothing(batch):
    def grow(net, layer, gradient, step):
        net(batch.images)
        torch.set_grad_enabled(False)
        net.coefficients[layer].mul_(-3.0)
        gradient.zero_()
        return net.coefficients[layer]

    net = SparseNet(normed(), make_run(sparsity="0.5"), SHAPE)
    net.prune(pruned_masks(net, Prune(methods.get("random").stages({})[0].score, "random"), Fixed(batch)))
    cross_entropy(net(batch.images), batch.labels).backward()
    before = {name: tensor.clone() for name, tensor in net.tensors().items()}
    gradients = {name: c.grad.clone() for name, c in net.coefficients.items()}
    kept, start = {name: int(mask.sum()) for name, mask in net.masks.items()}, dict(net.masks)
    hooks_of(net, DropAndGrow(grow, 2, 0.5, 0.0, 1.0, False), 10).after_backward(batch, 2, {})
    assert {name: int(mask.sum()) for name, mask in net.masks.items()} == kept and torch.is_grad_enabled()
    assert all(torch.equal(c.grad, gradients[name]) for name, c in net.coefficients.items())
    for name, c in net.coefficients.items():
        assert torch.equal(c, before[f"{name}.weight"] * (net.masks[name] & start[name]))


@pytest.mark.parametrize("space", ["sp", "ip"])
def test_the_record_of_cops_is_that_of_its_mask(space, batch):
    """Value and shares, recomputed from the masks that the run trains; in `ip`, too, which keeps fewer."""
    options = {"controls": "synflow,magnitude", "beta": "0.6"}
    run = make_run(method="cops", space=space, options=options, sparsity="0.2")
    net, _ = run_stages(run, TinyData(), normed)
    notes = net.notes["cops"]
    fresh = SparseNet(normed(), run, SHAPE)
    mask = flat(net.masks).bool()
    vectors = [
        torch.from_numpy(cops.normalised(flat(alone(name, fresh, TinyData().batches[0])).numpy()))
        for name in ("snip", "synflow", "magnitude")
    ]
    retained = [float(vector[mask].sum()) for vector in vectors]
    assert [notes["value"], *notes["retained"]] == pytest.approx(retained, rel=1e-12)
    most = [float(vector.topk(net.budget).values.sum()) for vector in vectors[1:]]
    assert notes["required"] == pytest.approx([0.6 * number for number in most], rel=1e-12)


def test_cops_keeps_nothing_that_was_pruned_before(batch):
    net = SparseNet(normed(), make_run(method="cops", sparsity="0.5"), SHAPE)
    stage = methods.get("cops").stages({})[0]
    net.prune({name: net.uniform(name) < 0.6 for name in net.masks})
    found = pruned_masks(net, stage, Fixed(batch))
    assert all(not bool((found[name] & ~net.masks[name]).any()) for name in found)
    vector = cops.normalised(flat(alone("snip", net, batch)).numpy())
    assert net.notes["cops"]["value"] == pytest.approx(vector[flat(found).numpy().astype(bool)].sum(), rel=1e-12)


@pytest.mark.parametrize("allocation", ["uniform", "erk"])
def test_cops_takes_one_ranking_alone(allocation, tmp_path, capsys):
    """Planning says so, on every way in."""
    grid = tmp_path / "grid.yaml"
    grid.write_text(f"datasets: digits\nmethods: [cops]\nsparsities: ['0.9']\nallocations: {allocation}\nseeds: 1\n")
    out = ["--out", str(tmp_path / "out")]
    for words in (["run", "--method", "cops", "--allocation", allocation, *out], ["grid", str(grid)]):
        assert main(words) == 2
        said = capsys.readouterr().err.strip()
        assert "allocation global" in said and "\n" not in said
    assert not (tmp_path / "out").exists()


# What a score returns.


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_is_ranked_as_it_is(kind, batch):
    net = SparseNet(tiny_conv(), make_run(sparsity="0.5"), SHAPE)
    half = Prune(lambda net, batch: {n: c.abs().to(kind) for n, c in net.coefficients.items()}, "half")
    single = Prune(lambda net, batch: {n: c.abs().to(kind).float() for n, c in net.coefficients.items()}, "single")
    first, second = (pruned_masks(net, stage, Fixed(batch)) for stage in (half, single))
    assert all(torch.equal(first[name], second[name]) for name in first)
    growth = DropAndGrow(lambda net, layer, gradient, step: gradient.to(kind), 2, 0.5, 0.0, 1.0, False)
    net.prune(first)
    hooks_of(net, growth, 10).after_backward(batch, 2, {})
    assert sum(int(mask.sum()) for mask in net.masks.values()) == net.budget


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.detach().to_sparse(), "layout torch.sparse_coo"),
        (lambda c: c.to("meta"), "meta device"),
        (lambda c: c.long(), "torch.int64"),
        (lambda c: c > 0, "torch.bool"),
        (lambda c: c.to(torch.complex64), "torch.complex64"),
        (lambda c: c.detach().numpy(), "ndarray"),
        (lambda c: c.sum(), r"\(\)"),
    ],
)
def test_what_is_no_score_is_one_line(change, message, batch):
    net = SparseNet(tiny_conv(), make_run(sparsity="0.5"), SHAPE)
    score = Prune(lambda net, batch: {name: change(c) for name, c in net.coefficients.items()}, "odd")
    with pytest.raises(BadInput, match=f"method odd: the score of layer 0 must be a tensor.*{message}"):
        pruned_masks(net, score, Fixed(batch))
    growth = DropAndGrow(lambda net, layer, gradient, step: change(gradient), 2, 0.5, 0.0, 1.0, False)
    with pytest.raises(BadInput, match=f"the growth score of layer 0 must be a tensor.*{message}"):
        hooks_of(net, growth, 10).after_backward(batch, 2, {})


def test_scores_with_a_graph_or_without_a_number(batch):
    net = SparseNet(tiny_conv(), make_run(sparsity="0.5"), SHAPE)
    graph = Prune(lambda net, batch: {name: c * 2 for name, c in net.coefficients.items()}, "graph")
    assert sum(int(mask.sum()) for mask in pruned_masks(net, graph, Fixed(batch)).values()) == net.budget
    odd = Prune(lambda net, batch: {name: c / 0 * 0 for name, c in net.coefficients.items()}, "nan")
    with pytest.raises(NotFinite, match="a score in layer 0 is not finite"):
        pruned_masks(net, odd, Fixed(batch))


# What a score promises.


class Negative(nn.Module):
    """Linear layers with a norm over the features between them."""

    def __init__(self, between: nn.Module) -> None:
        super().__init__()
        self.flatten, self.first, self.between, self.last = nn.Flatten(), nn.Linear(72, 8), between, nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self.first(self.flatten(x))))


@pytest.mark.parametrize(
    ("between", "message"),
    [
        (nn.LayerNorm(8), "scores of layer first are negative"),
        (nn.ReLU6(), "no score of layer first is above zero"),
        (nn.Hardsigmoid(), "no score of layer first is above zero"),
    ],
)
@pytest.mark.parametrize("method", ["synflow", "cops"])
def test_synflow_is_refused_where_it_cannot_rank(method, between, message, batch):
    net = SparseNet(Negative(between), make_run(method=method, sparsity="0.5"), SHAPE)
    with torch.no_grad():
        net.net.first.weight.copy_(torch.linspace(-1, 2, 8 * 72).view(8, 72))
    with pytest.raises(Impossible, match=f"synflow: .*{message}") as error:
        pruned_masks(net, methods.get(method).stages({})[0], Fixed(batch))
    assert "\n" not in str(error.value)


def test_a_promise_holds_for_any_score(batch):
    """At the start a layer needs a positive score; later, what is pruned away has none."""
    net = SparseNet(tiny_conv(), make_run(sparsity="0.5"), SHAPE)

    def zeros(net, batch):
        return {name: torch.zeros_like(c) if name == "3" else c.abs() for name, c in net.coefficients.items()}

    with pytest.raises(Impossible, match="mine: no score of layer 3"):
        take(zeros, "mine", net, batch, {}, positive=True)
    assert flat(take(zeros, "mine", net, batch, {}, positive=False)).any()
    net.prune({name: torch.full_like(mask, name != "3") for name, mask in net.masks.items()})
    assert flat(take(zeros, "mine", net, batch, {}, positive=True)).any()
    with pytest.raises(Impossible, match=r"mine: .* are negative"):
        take(lambda net, batch: dict(net.coefficients), "mine", net, batch, {}, positive=True)


def test_layers_that_only_ties_decide_are_noted(batch):
    """A dead layer is a fact of the net, not of the score: SNIP's run goes on, and says so."""
    net = SparseNet(tiny_conv(), make_run(sparsity="0.5"), SHAPE)
    pruned_masks(net, methods.get("snip").stages({})[0], Fixed(batch))
    assert net.notes == {}
    with torch.no_grad():
        net.net[3].bias.fill_(-1e6)
    pruned_masks(net, methods.get("snip").stages({"rounds": 2})[0], Fixed(batch))
    assert net.notes == {"layers_without_scores": ["0", "3", "5"]}


class Attention(nn.Module):
    """One fused attention over the rows of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.head = nn.Linear(12, 24), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x.transpose(1, 2).flatten(2))[:, None].chunk(3, dim=-1)
        return self.head(functional.scaled_dot_product_attention(q, k, v)[:, 0].mean(1))


def test_grasp_on_nets_without_second_derivatives(batch):
    grasp = methods.get("grasp").stages({})[0]
    masks = pruned_masks(SparseNet(Attention(), make_run(sparsity="0.5"), SHAPE), grasp, Fixed(batch))
    assert all(bool(mask.any()) for mask in masks.values())
    net = SparseNet(Negative(nn.Hardsigmoid()), make_run(sparsity="0.5"), SHAPE)
    with pytest.raises(Impossible, match="grasp: needs second derivatives, which hardsigmoid in this net"):
        pruned_masks(net, grasp, Fixed(batch))


def test_other_errors_of_a_score_are_its_own(batch):
    def wrong(net, batch):
        return torch.zeros(2) @ torch.zeros(3)

    with pytest.raises(RuntimeError, match="size"):
        pruned_masks(SparseNet(tiny_conv(), make_run(sparsity="0.5"), SHAPE), Prune(wrong, "wrong"), Fixed(batch))


# Passes.


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [
        (128, 28, 1), (100, 28, 1), (256, 32, 1), (257, 32, 2), (1000, 32, 4), (2000, 64, 32), (256, 224, 52),
        (1, 600, 1), (3, 600, 1), (5, 600, 2), (0, 28, 1),
    ],
)  # fmt: skip
def test_number_of_passes(count, size, expected):
    """Published batches are one pass; no pass has a single image, unless there is no other."""
    batch = Batch(torch.empty(count, 3, size, size, device="meta"), torch.empty(count, device="meta"))
    assert passes(batch) == expected
    if expected > 1:
        assert min(len(part) for part in batch.labels.tensor_split(expected)) >= 2


@pytest.mark.parametrize("method", ["snip", "grasp"])
def test_scores_in_passes_are_those_of_the_whole_batch(method, monkeypatch):
    """Without norms, and with dropout that draws the same numbers in both sweeps of GraSP."""
    generator = torch.Generator().manual_seed(1)
    batch = Batch(torch.randn(11, *SHAPE, generator=generator).double(), torch.arange(11) % 3)
    net = SparseNet(smooth(), make_run(), SHAPE).double()
    whole = alone(method, net, batch)
    monkeypatch.setattr(task_module, "PASS_PIXELS", 3 * 36)
    assert passes(batch) == 4
    sizes = []
    net.net.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    parts = alone(method, net, batch)
    assert torch.allclose(flat(whole), flat(parts), rtol=1e-9, atol=1e-12) and max(sizes) == 3
    assert sizes == [3, 3, 3, 2] * (2 if method == "grasp" else 1)


def test_both_sweeps_of_grasp_draw_the_same_dropout(monkeypatch):
    """Otherwise the gradient that is held fixed would be that of another net."""
    drawn: list[Tensor] = []
    net = SparseNet(nn.Sequential(smooth(), nn.Dropout(0.5)), make_run(), SHAPE)
    net.net[1].register_forward_hook(lambda module, inputs, output: drawn.append(output == 0))
    batch = Batch(torch.randn(12, *SHAPE, generator=torch.Generator().manual_seed(1)), torch.arange(12) % 3)
    monkeypatch.setattr(task_module, "PASS_PIXELS", 4 * 36)
    alone("grasp", net, batch)
    assert len(drawn) == 6 and all(torch.equal(a, b) for a, b in zip(drawn[:3], drawn[3:], strict=True))
    assert not torch.equal(drawn[0], drawn[1])


@pytest.mark.parametrize("build", [tiny_conv, normed])
def test_one_pass_is_the_plain_computation_to_the_bit(build, batch):
    """What is published was computed so."""
    net = SparseNet(build(), make_run(), SHAPE)
    with net.scratch() as twin:
        expected = {n: (c * g).abs() for n, c, g in twin.gradients(cross_entropy(twin(batch.images), batch.labels))}
    assert torch.equal(flat(alone("snip", net, batch)), flat(expected))
    with net.scratch() as twin:
        loss = cross_entropy(twin(batch.images) / 200.0, batch.labels)
        first = twin.gradients(loss, create_graph=True)
        product = sum((g * g.detach()).sum() for _, _, g in first)
        expected = {n: c * hg for n, c, hg in twin.gradients(product)}
    assert torch.equal(flat(alone("grasp", net, batch)), flat(expected))


def test_the_starting_gradient_is_taken_in_passes(monkeypatch, batch):
    net = SparseNet(smooth(), make_run(), SHAPE)
    cross_entropy(net(batch.images), batch.labels).backward()
    expected = float(torch.cat([c.grad.flatten() for c in net.coefficients.values()]).norm())
    assert starting_gradient_norm(net, Fixed(batch)) == pytest.approx(expected, rel=1e-6)
    sizes = []
    net.net.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    monkeypatch.setattr(task_module, "PASS_PIXELS", 2 * 36)
    assert starting_gradient_norm(net, Fixed(batch)) == pytest.approx(expected, rel=1e-5)
    assert sizes == [2, 2, 2, 2]
