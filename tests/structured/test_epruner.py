"""EPruner: exemplars against the public code and by hand, budgets, fresh norms, starts, what was published."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ipbench import methods
from ipbench.analysis.grid import parse
from ipbench.analysis.published import find, published
from ipbench.errors import BadInput
from ipbench.machine.stopping import Stopped
from ipbench.methods._affinity import LARGEST, RESOLUTION, NotConverged, exemplars, nearest_within, similarities
from ipbench.methods._exemplars import choose, clustered, masks
from ipbench.methods._projection import sparse_projection
from ipbench.models.build import build
from ipbench.planning.experiment import Experiment
from ipbench.runs.environment import Environment
from ipbench.runs.execute import execute
from ipbench.sparse import measure
from ipbench.sparse.net import SparseNet
from ipbench.sparse.selection import Impossible
from ipbench.sparse.view import NetView
from ipbench.spec import Basis, Recipe, Run
from tests.test_stopping import stop_at
from tests.tiny import TinyData, make_run, run_stages, tiny_conv, tiny_stack

CONFIG = Path(__file__).parents[2] / "config"
RECIPE = Recipe(epochs=2, batch_size=50, train_examples=200)
FILTERS = {"method": "epruner", "pattern": "filters", "budget": "macs", "allocation": "uniform"}


def net_of(model: str = "resnet20-cifar", shape: tuple[int, int, int] = (1, 8, 8), **values: Any) -> SparseNet:
    values = {**FILTERS, "sparsity": "0.5", **values}
    return SparseNet(build(model, shape, 10, 0), make_run(model=model, **values), shape)


def as_if_trained(net: SparseNet) -> SparseNet:
    """Every tensor is moved a little, so that none is what a new net has."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, tensor in net.tensors().items():
            if tensor.is_floating_point() and "matrix" not in name:
                tensor.add_(0.1 + 0.1 * torch.rand(tensor.shape, generator=generator))
    return net


def drawn(seed: int, number: int, inputs: int, side: int, clusters: int) -> np.ndarray:
    """Filters of unit variance; around so many centres, if any, with a deviation of a half."""
    state = np.random.RandomState(seed)  # its stream never changes
    if not clusters:
        return state.randn(number, inputs, side, side).astype(np.float32)
    centres = state.randn(clusters, inputs, side, side)
    noise = state.randint(clusters, size=number)
    return (centres[noise] + 0.5 * state.randn(number, inputs, side, side)).astype(np.float32)


def similarity_of(filters: np.ndarray) -> np.ndarray:
    return similarities(filters.reshape(len(filters), -1).astype(np.float64))


# Exemplars.

#: What `cluster_weight(filters, beta)` of lmbxmu/EPruner (ddb844f, utils/common.py) gives as indices for the filters of
#: `drawn`, run with scikit-learn 1.9.1 and random_state=0, which is the noise of the version it was written for.
REFERENCE = {
    ((0, 16, 3, 3, 0), 0.6): [2, 3, 5, 6, 7, 8, 9, 13],
    ((0, 16, 3, 3, 0), 0.73): [2, 3, 5, 7, 9, 13],
    ((0, 16, 3, 3, 0), 0.76): [2, 3, 7, 9, 13],
    ((0, 16, 3, 3, 0), 0.85): [2, 3, 7, 13],
    ((1, 16, 8, 3, 5), 0.6): [3, 6, 10, 12],
    ((2, 32, 16, 3, 9), 0.73): [2, 4, 8, 15, 17, 18, 23, 28, 29],
    ((3, 48, 32, 1, 0), 0.73): [0, 4, 11, 12, 14, 19, 20, 24, 37, 41, 43, 45, 46],
    ((3, 48, 32, 1, 0), 0.76): [0, 4, 11, 12, 14, 19, 20, 24, 37, 41, 43, 45],
    ((3, 48, 32, 1, 0), 0.92): [4, 6, 11, 14, 19, 41, 43],
    ((4, 64, 16, 3, 0), 0.6): list(range(64)),
    ((4, 64, 16, 3, 0), 0.85): [0, 5, 6, 10, 12, 14, 29, 31, 33, 34, 36, 38, 41, 45, 53, 54, 60, 62],
    ((4, 64, 16, 3, 0), 1.1): [5, 6, 12, 16, 26, 38],
    ((5, 64, 32, 3, 12), 0.6): [0, 4, 9, 11, 12, 14, 15, 20, 42, 45, 55, 60],
    ((5, 64, 32, 3, 12), 0.73): [0, 4, 11, 14, 15, 20, 30, 42, 45, 55, 58, 60],
    ((5, 64, 32, 3, 12), 1.1): [0, 4, 10, 15, 20, 30, 42, 45, 55, 58, 60],
    ((6, 96, 24, 1, 15), 0.76): [1, 8, 13, 15, 18, 22, 27, 29, 34, 65, 86, 89, 90, 91, 95],
    ((6, 96, 24, 1, 15), 0.85): [1, 7, 8, 12, 15, 18, 22, 27, 29, 34, 65, 86, 89, 91, 95],
}


@pytest.mark.parametrize(("filters", "beta"), REFERENCE)
def test_exemplars_are_those_of_the_public_code(filters, beta):
    found = exemplars(similarity_of(drawn(*filters)), beta, "a")
    assert found.tolist() == REFERENCE[filters, beta]


def passed(similarity: np.ndarray, preference: np.ndarray) -> list[int]:
    """Message passing entry by entry (Frey and Dueck, Science 2007, eq. 1 to 3), then the medoid of each cluster."""
    n = len(similarity)
    s = similarity.copy()
    np.fill_diagonal(s, preference)
    r, a = np.zeros((n, n)), np.zeros((n, n))
    stable, before = 0, None
    for _ in range(200):
        new = np.empty((n, n))
        for i in range(n):
            for k in range(n):
                new[i, k] = s[i, k] - max(a[i, j] + s[i, j] for j in range(n) if j != k)
        r = 0.5 * r + 0.5 * new
        for i in range(n):
            for k in range(n):
                others = sum(max(0.0, r[j, k]) for j in range(n) if j not in (i, k))
                new[i, k] = others if i == k else min(0.0, r[k, k] + others)
        a = 0.5 * a + 0.5 * new
        now = [k for k in range(n) if r[k, k] + a[k, k] > 0]
        stable, before = (stable + 1 if now == before else 1), now
        if stable > 15 and now:
            break
    else:
        return []
    centres = now
    nearest = [centres.index(i) if i in centres else int(np.argmax(s[i, centres])) for i in range(n)]
    medoids = []
    for place in range(len(centres)):
        members = [i for i in range(n) if nearest[i] == place]
        medoids.append(max(members, key=lambda k, members=members: sum(s[j, k] for j in members)))
    return sorted(medoids)


#: Seeds and betas. In the first five the medoids are others than the exemplars of the messages; in these and the next
#: three a median without the diagonal gives others.
CASES = [(103, 0.9), (108, 0.5), (112, 1.2), (116, 0.5), (136, 0.73), (101, 0.73), (102, 0.9), (113, 0.73)]
CASES += [(104, 0.73), (105, 0.9), (106, 0.5), (107, 0.73)]


@pytest.mark.parametrize(("seed", "beta"), CASES)
def test_exemplars_are_those_of_message_passing_by_hand(seed, beta):
    """The diagonal takes part in the median, and in the choice of medoids."""
    similarity = similarity_of(drawn(seed, 11, 2, 3, 0 if seed % 2 else 4))
    preference = np.array([beta * sorted(column)[5] for column in similarity.T])
    assert exemplars(similarity, beta, "a").tolist() == passed(similarity, preference) != []


def test_similarities_by_hand():
    filters = np.array([[0.0, 0.0], [3.0, 4.0], [3.0, 4.0]])
    assert similarities(filters).tolist() == [[0, -25, -25], [-25, 0, 0], [-25, 0, 0]]
    assert similarities(filters[:1]).tolist() == [[0]]


def test_the_larger_beta_the_fewer_exemplars_of_clustered_filters():
    """Five tight clusters of eight: one exemplar each over a wide range, more below it, fewer above."""
    state = np.random.RandomState(0)
    filters = np.repeat(10 * state.randn(5, 9), 8, axis=0) + 0.1 * state.randn(40, 9)
    similarity, counts = similarities(filters), {}
    for beta in (0.0, 1e-5, 0.01, 0.6, 1.0, 64.0):
        found = exemplars(similarity, beta, "a")
        counts[beta] = len(found)
        if len(found) == 5:
            assert sorted(found // 8) == [0, 1, 2, 3, 4]
    assert counts[0.0] == 40 and counts[0.01] == counts[0.6] == counts[1.0] == 5 and counts[64.0] == 1
    assert all(more >= fewer for more, fewer in pairwise(counts.values()))


@pytest.mark.parametrize(("beta", "kept"), [(0.0, [0, 1]), (1.9, [0, 1]), (2.0, [0]), (5.0, [0])])
def test_two_filters_by_hand(beta, kept):
    """At distance d both cost 2 (beta d / 2), one costs beta d / 2 + d: one is better from beta = 2 on."""
    assert exemplars(similarities(np.array([[0.0], [3.0]])), beta, "a").tolist() == kept


def test_one_filter_and_equal_ones():
    assert exemplars(similarities(np.ones((1, 4))), 0.7, "a").tolist() == [0]
    assert exemplars(similarities(np.ones((6, 4))), 0.7, "a").tolist() == [0]


def test_what_does_not_converge_names_the_layer():
    similarity = similarity_of(np.random.RandomState(43).randn(8, 1, 3, 3).astype(np.float32))
    with pytest.raises(NotConverged, match=r"the 8 filters of layer x does not converge at beta 1\.5"):
        exemplars(similarity, 1.5, "layer x")
    assert len(exemplars(similarity, 1.0, "layer x")) < 8


# The search for beta.


def steps(*edges: float) -> Any:
    """A cost that falls by one at each edge."""
    return lambda beta: sum(beta < edge for edge in edges)


@pytest.mark.parametrize("budget", range(1, 7))
def test_the_search_comes_as_near_as_a_falling_cost_allows(budget):
    edges = (0.1, 0.31, 0.7123, 0.9, 3.3, 40.0)
    beta, found = nearest_within(steps(*edges), lambda kept: kept, budget)
    assert found == steps(*edges)(beta) == budget
    beta, found = nearest_within(lambda x: 10 * steps(*edges)(x), lambda kept: kept, 10 * budget + 5)
    edge = [40.0, 3.3, 0.9, 0.7123, 0.31, 0.1, 0.0][budget]
    assert found == 10 * budget and edge <= beta <= edge + RESOLUTION


def test_of_what_was_tried_the_most_expensive_that_fits_is_taken():
    """Not monotone: the search ends at 0.5, where the cost falls from 12 to 6; at 1 it was 9."""
    beta, found = nearest_within(lambda beta: 12 if beta < 0.5 else 9 if beta == 1 else 6, lambda kept: kept, 10)
    assert (beta, found) == (1.0, 9)


def test_what_does_not_converge_is_passed_over():
    asked = []

    def at(beta: float) -> int:
        asked.append(beta)
        if 0.4 < beta < 0.6 or beta == 1:
            raise NotConverged("no")
        return 100 if beta < 0.45 else 50

    beta, found = nearest_within(at, lambda kept: kept, 70)
    assert found == 50 and 0.6 <= beta <= 0.6 + 0.1 and len(asked) < 60


def test_budgets_that_no_beta_meets_are_impossible():
    with pytest.raises(Impossible, match=rf"a budget of 3 cannot be met: with beta up to {LARGEST:g}, the fewest .* 5"):
        nearest_within(lambda beta: 5, lambda kept: kept, 3)

    def never(beta: float) -> int:
        raise NotConverged("no")

    with pytest.raises(Impossible, match="no beta converges"):
        nearest_within(never, lambda kept: kept, 3)


# Choices on nets.


def options(**values: Any) -> dict[str, Any]:
    return {"beta": 0.0, "depth": "", "projected": False, **values}


@pytest.mark.parametrize(("pattern", "space"), [("filters", "sp"), ("filters", "ip"), ("channels", "sp")])
@pytest.mark.parametrize("model", ["small-vgg", "resnet20-cifar"])
def test_the_budget_is_met_by_what_may_lose_filters(model, pattern, space):
    net = net_of(model, space=space, pattern=pattern)
    view = NetView(net)
    found = choose(view, **options())
    beta = net.notes["beta"]
    assert view.target * 0.97 < view.kept_by(found) <= view.target
    again = choose(view, **options(beta=beta))
    assert all(torch.equal(found[name], mask) for name, mask in again.items())
    for name in view.blocks:
        if name not in view.inner and pattern == "filters":
            assert bool(found[name].all())
    net.prune(found)
    net.slice()
    assert net.now.macs == view.kept_by(net.masks) <= net.counted.macs // 2


@pytest.mark.parametrize("basis", [Basis(), Basis(init="orthonormal")], ids=["standard", "orthonormal"])
def test_both_spaces_keep_the_same_at_their_start(basis):
    sp, ip = net_of(), net_of(space="ip", basis=basis)
    kept = [choose(NetView(net), **options(beta=0.9)) for net in (sp, ip)]
    assert all(torch.equal(kept[0][name], kept[1][name]) for name in sp.masks)
    assert not all(bool(mask.all()) for mask in kept[0].values())


def test_in_the_interspace_filters_are_clustered_and_not_coefficients():
    """A basis that shrinks all but one entry: what coefficients say is not what filters say."""
    net = net_of("small-vgg", space="ip")
    with torch.no_grad():
        for basis in net.bases.values():
            basis.matrix.copy_(torch.diag(torch.tensor([1.0, *[0.05] * 8])))
    layers = clustered(NetView(net), "")
    for layer in layers[:3]:
        weight = NetView(net).weights[layer.name].double().flatten(1).numpy()
        assert np.allclose(layer.similarity, -((weight[:, None] - weight[None]) ** 2).sum(2), atol=1e-9)
        coefficients = net.coefficients[layer.name].detach().double().numpy()
        of_coefficients = exemplars(similarity_of(coefficients), 0.8, "a")
        assert layer.exemplars(0.8).tolist() != of_coefficients.tolist()


def test_exemplars_stay_and_all_others_go():
    net = net_of()
    found = choose(NetView(net), **options(beta=0.9))
    for layer in clustered(NetView(net), ""):
        kept = exemplars(similarity_of(net.coefficients[layer.name].detach().numpy()), 0.9, "a")
        rows = found[layer.name].flatten(1)
        assert rows.any(1).nonzero().flatten().tolist() == kept.tolist() and torch.equal(rows.any(1), rows.all(1))


def test_depth_sets_single_layers():
    net = net_of("small-vgg")
    view = NetView(net)
    layers = {layer.name: layer.own for layer in clustered(view, "stage2=0.9,stage2.conv2=1.5,stage1.conv1=0")}
    assert layers == {
        "stage1.conv2": None, "stage2.conv1": 0.9, "stage2.conv2": 1.5, "stage3.conv1": None, "stage3.conv2": None,
    }  # fmt: skip
    found = choose(view, **options(beta=0.9, depth="stage1=0,stage2.conv2=1.5"))
    plain = choose(view, **options(beta=0.9))
    assert bool(found["stage1.conv1"].all()) and bool(found["stage1.conv2"].all())
    assert torch.equal(found["stage3.conv1"], plain["stage3.conv1"])
    assert found["stage2.conv2"].sum() < plain["stage2.conv2"].sum()
    with pytest.raises(BadInput, match=r"depth: .* begins with 'stage9'; there are stage1\.conv1"):
        choose(view, **options(beta=0.9, depth="stage9=0.5"))


def test_layers_with_a_beta_of_their_own_keep_it_where_the_budget_is_met():
    view = NetView(net_of("small-vgg"))
    found = choose(view, **options(depth="stage2.conv2=1.1"))
    at = choose(view, **options(beta=1.1))
    assert torch.equal(found["stage2.conv2"], at["stage2.conv2"]) and view.kept_by(found) <= view.target


def test_nets_without_layers_to_cluster_are_impossible():
    net = SparseNet(tiny_conv(), make_run(**{**FILTERS, "sparsity": "0.5"}), (2, 6, 6))
    assert [layer.name for layer in clustered(NetView(net), "")] == ["5"]  # not what a convolution with groups reads
    alone = SparseNet(
        nn.Sequential(nn.Flatten(), nn.Linear(72, 3)), make_run(**{**FILTERS, "sparsity": "0.5"}), (2, 6, 6)
    )
    with pytest.raises(Impossible, match="no layer of the net makes its channels alone"):
        choose(NetView(alone), **options())


def test_sparsity_zero_prunes_nothing():
    net = net_of("small-vgg", sparsity="0")
    assert all(bool(mask.all()) for mask in choose(NetView(net), **options()).values()) and not net.notes


# The small net.


def sliced(net: SparseNet, **values: Any) -> None:
    """Choose and cut as the method's stages say."""
    _, chosen, cut, *_ = methods.get("epruner").stages(values)
    with torch.no_grad():
        net.prune(chosen.choose(NetView(net), **chosen.options))
    net.slice(cut.constant, cut.fresh)


@pytest.mark.parametrize("space", ["sp", "ip"])
def test_norms_of_cut_layers_are_new_and_all_else_is_as_it_was(space):
    net = as_if_trained(net_of(space=space))
    before = {name: tensor.clone() for name, tensor in net.tensors().items()}
    filters = NetView(net).weights
    kept = {layer.name: layer.exemplars(0.9) for layer in clustered(NetView(net), "")}
    sliced(net, beta=0.9)
    new = nn.BatchNorm2d(1)
    for name, module in net.net.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            cut = name.replace("norm", "conv") in kept
            for part in ("weight", "bias", "running_mean", "running_var"):
                value, was = getattr(module, part), before[f"{name}.{part}"]
                assert torch.equal(value, getattr(new, part).expand_as(value)) if cut else torch.equal(value, was)
    for name, weight in NetView(net).weights.items():
        was = filters[name]
        if name in kept:
            was = was[kept[name]]
        elif (reads := name.replace("conv2", "conv1")) in kept:  # the inputs of the exemplars, as they were
            was = was[:, kept[reads]]
        assert torch.equal(weight, was), name


@pytest.mark.parametrize(("head", "fresh"), [("kept", False), ("fresh", True)])
def test_the_classifier_of_a_vgg_begins_anew_if_wanted(head, fresh):
    net = as_if_trained(net_of("small-vgg"))
    was = net.coefficients["classifier"].detach().clone()
    bias = net.layers["classifier"].module.bias.detach().clone()
    sliced(net, beta=0.95, head=head)
    kept = list(net.structure.kept["stage3.conv2"])
    now = net.coefficients["classifier"]
    assert torch.equal(now, net.start["classifier"]) == fresh and torch.equal(now, was[:, kept]) != fresh
    assert torch.equal(net.layers["classifier"].module.bias, bias) != fresh


def test_biases_of_cut_layers_are_new():
    net = as_if_trained(SparseNet(tiny_stack(), make_run(**FILTERS), (2, 6, 6)))
    sliced(net, beta=1.0)
    assert len(net.net[3].bias) < 8 and not net.net[3].bias.any() and bool(net.net[9].bias.any())


@pytest.mark.parametrize("space", ["sp", "ip"])
def test_a_random_start_has_the_initial_values_of_the_run(space):
    run = make_run(**{**FILTERS, "options": {"beta": 0.9, "start": "random"}, "space": space, "recipe": RECIPE})
    seen: list[dict[str, torch.Tensor]] = []

    def watch(net: SparseNet, state: Any) -> None:
        if net.structure and not seen:
            seen.append({name: tensor.clone() for name, tensor in net.tensors().items()})
            expected = net.cut_from_dense(SparseNet(tiny_stack(), run, (2, 6, 6)).tensors())
            assert all(torch.equal(tensor, expected[name]) for name, tensor in seen[0].items() if name in expected)

    run_stages(run, TinyData(), tiny_stack, watch)
    assert seen


# The projection.


def test_the_projection_keeps_squared_norms_on_average():
    """Entries are 0 or plus minus one size, one of sqrt(features) of them is not 0; E |P x|^2 = |x|^2."""
    matrix = sparse_projection(400, 225, key=7).toarray()
    size = np.sqrt(15) / np.sqrt(400)
    assert set(np.unique(matrix).round(12)) == {-round(size, 12), 0.0, round(size, 12)}
    assert np.mean(matrix != 0) == pytest.approx(1 / 15, abs=0.005) and abs(np.mean(np.sign(matrix))) < 0.005
    x = np.random.RandomState(0).randn(225, 20)
    ratio = (matrix @ x).__pow__(2).sum(0) / (x**2).sum(0)
    assert ratio.mean() == pytest.approx(1, abs=0.05)


def test_a_projection_is_a_function_of_key_and_place():
    few, many = (sparse_projection(number, 40, key=3).toarray() for number in (5, 12))
    assert np.allclose(few * np.sqrt(5), many[:5] * np.sqrt(12))
    assert not np.array_equal(few, sparse_projection(5, 40, key=4).toarray())


def test_projections_are_drawn_in_parts(monkeypatch):
    whole = sparse_projection(12, 40, key=3).toarray()
    monkeypatch.setattr("ipbench.methods._projection._AT_ONCE", 100)
    assert np.array_equal(whole, sparse_projection(12, 40, key=3).toarray())


@pytest.mark.parametrize("space", ["sp", "ip"])
def test_reading_filters_are_projected_by_hand(space):
    """Of all that reads a cut layer, and of filters: in the interspace as in the other."""
    net = as_if_trained(net_of(space=space, basis=Basis(init="orthonormal") if space == "ip" else Basis()))
    before = {name: weight.clone() for name, weight in NetView(net).weights.items()}
    kept = {layer.name: layer.exemplars(0.9) for layer in clustered(NetView(net), "")}
    sliced(net, beta=0.9, start="projection")
    from ipbench import keys

    for name, weight in NetView(net).weights.items():
        if (maker := name.replace("conv2", "conv1")) in kept and maker != name:
            number = len(kept[maker])
            matrix = sparse_projection(number * 9, before[name][0].numel(), keys.key(0, "init", "projection", name))
            expected = (matrix.toarray() @ before[name].double().flatten(1).numpy().T).T
            assert weight.shape[1] == number
            assert np.allclose(weight.double().flatten(1).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("pattern", ["filters", "channels"])
def test_a_depthwise_convolution_goes_with_the_channels_that_it_reads(pattern):
    net = stack_of(nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 3, 1), pattern=pattern)
    found = choose(NetView(net), **options(beta=1.0, projected=True))
    kept = found["0"].flatten(1).any(1)
    assert torch.equal(kept, found["1"].flatten(1).any(1)) and not bool(kept.all())
    net.prune(found)
    net.slice()
    assert net.net[1].groups == net.net[0].out_channels == net.net[2].in_channels == int(kept.sum())


def test_a_projection_for_what_is_no_convolution_is_refused():
    net = stack_of(nn.Conv2d(2, 8, 3, padding=1), nn.ConvTranspose2d(8, 3, 2))
    with pytest.raises(BadInput, match="start=projection has no meaning for layer 1, which is neither"):
        choose(NetView(net), **options(beta=1.0, projected=True))
    assert not bool(choose(NetView(net), **options(beta=1.0))["0"].all())


def stack_of(*layers: nn.Module, **values: Any) -> SparseNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for layer in layers:
            layer.reset_parameters()
    plain = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return SparseNet(plain, make_run(**{**FILTERS, **values}), (2, 6, 6))


# Runs.


def run_of(**values: Any) -> Run:
    return Run(**{"dataset": "digits", "model": "small-vgg", "recipe": RECIPE, **FILTERS, **values})


@pytest.mark.parametrize("space", ["sp", "ip"])
def test_a_record_tells_beta_exemplars_and_the_seconds_of_the_search(tmp_path, space):
    record = execute(run_of(sparsity="0.5", space=space), tmp_path, Environment())
    outcome = record["outcome"]
    assert record["status"] == "done" and 0 < outcome["notes"]["beta"] < 2
    assert 0.5 <= outcome["reached"] == 1 - outcome["macs_now"] / outcome["macs_dense"] < 0.55
    assert record["cost"]["choosing_seconds"] > 0 and "seconds" not in str(outcome)
    assert outcome["training_flops"] > 0
    again = execute(run_of(sparsity="0.5", space=space), tmp_path / "again", Environment())
    assert again["outcome_sha256"] == record["outcome_sha256"]
    plain = execute(run_of(method="dense", pattern="coefficients", budget="parameters", allocation="global"), tmp_path,
                    Environment())  # fmt: skip
    assert "choosing_seconds" not in plain["cost"]


def test_a_run_that_does_not_converge_is_impossible(tmp_path, monkeypatch):
    """With two iterations nothing does."""
    import sklearn.cluster

    true = sklearn.cluster.affinity_propagation
    monkeypatch.setattr(sklearn.cluster, "affinity_propagation", lambda *args, **kw: true(*args, max_iter=2, **kw))
    record = execute(run_of(options={"beta": 0.9}), tmp_path, Environment())
    assert record["status"] == "impossible" and record["outcome"] == {}
    assert "the 32 filters of layer stage1.conv1 does not converge at beta 0.9" in record["reason"]


def test_a_run_that_is_stopped_ends_as_one_that_is_not(tmp_path, monkeypatch):
    run = run_of(sparsity="0.5", model="resnet20-cifar", options={"start": "projection"})
    whole = execute(run, tmp_path / "whole", Environment())
    for _ in range(8):
        with monkeypatch.context() as patch:
            stop_at(patch, 4)
            try:
                cut = execute(run, tmp_path / "cut", Environment())
                break
            except Stopped:
                pass
    assert cut["outcome_sha256"] == whole["outcome_sha256"] and cut["cost"]["choosing_seconds"] > 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"beta": -1.0}, "beta is 0 or more"), ({"start": "middle"}, "start is centroids, projection or random"),
        ({"head": "new"}, "head is kept or fresh"), ({"depth": "stage1"}, "START=RATIO"),
        ({"depth": "stage1=-1"}, "each 0 or more"), ({"start": "random", "head": "fresh"}, "leave head out"),
    ],
)  # fmt: skip
def test_options_are_checked(values, message):
    with pytest.raises(BadInput, match=message):
        methods.get("epruner").check_options(values, "here")


@pytest.mark.parametrize("pattern", ["coefficients", "columns", "2:4"])
def test_patterns_of_parts_of_filters_are_refused(pattern):
    values = {"pattern": pattern, "budget": "parameters", "sparsity": "0.5"}
    with pytest.raises(BadInput, match=r"take (pattern filters or channels|another pattern)"):
        methods.get("epruner").check_run(
            run_of(**values, **({"allocation": "global"} if ":" in pattern else {})), "here"
        )


# What was published.

#: FLOPs in millions and the share in percent that is removed, of the README's tables.
FLOPS = {
    "vgg16": (74.42, 76.34), "googlenet-cifar": (500.87, 67.36), "resnet56-cifar": (49.35, 61.33),
    "resnet110-cifar": (87.65, 65.91),
}  # fmt: skip


@pytest.mark.parametrize("model", FLOPS)
def test_published_shares_are_of_our_dense_nets(model):
    """Their count adds 4 per value that a batch norm makes, and 1 where the convolution has a bias."""
    flops, percent = FLOPS[model]
    net = build(model, (3, 32, 32), 10, 0)
    made = []
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda module, args, out: made.append(out.numel()))
    with torch.no_grad():
        net.eval()(torch.zeros(1, 3, 32, 32))
    values = sum(made)
    dense = measure.count(net, (3, 32, 32)).macs + (5 if model in ("vgg16", "googlenet-cifar") else 4) * values
    assert 100 * (1 - flops * 1e6 / dense) == pytest.approx(percent, abs=0.011)


def test_macs_of_a_vgg_at_given_widths():
    """13 convolutions of 3 x 3 and the classifier, each with the widths of its two sides."""
    net = net_of("vgg16", (3, 32, 32))
    widths = [24, 40, 60, 81, 120, 130, 140, 200, 90, 30, 20, 21, 60]
    layers = clustered(NetView(net), "")
    kept = {layer.name: np.arange(width) for layer, width in zip(layers, widths, strict=True)}
    sides = [32] * 2 + [16] * 2 + [8] * 3 + [4] * 3 + [2] * 3
    inputs = [3, *widths[:-1]]
    expected = sum(9 * a * b * side**2 for a, b, side in zip(inputs, widths, sides, strict=True)) + 10 * widths[-1]
    assert NetView(net).kept_by(masks(NetView(net), layers, kept)) == expected


def test_macs_of_a_resnet_at_given_widths():
    """Only the inside of a block is narrower: 2 x 9 x (outside) x (inside) a pixel, but where the width doubles."""
    net = net_of("resnet56-cifar", (3, 32, 32))
    layers = clustered(NetView(net), "")
    widths = [4 + place for place in range(27)]
    kept = {layer.name: np.arange(min(width, layer.group.units)) for layer, width in zip(layers, widths, strict=True)}
    expected, before = 9 * 3 * 16 * 32**2 + 640, 16
    for place, width in enumerate(widths):
        outside, side = ((16, 32), (32, 16), (64, 8))[place // 9]
        expected += 9 * (before + outside) * min(width, outside) * side**2
        before = outside
    assert NetView(net).kept_by(masks(NetView(net), layers, kept)) == expected


def blocks_of(depths: tuple[int, ...]) -> list[str]:
    return [f"layer{stage}.{block}" for stage, depth in enumerate(depths, start=1) for block in range(depth)]


#: From which block on the public code overrides the preference, with what, and in which convolutions.
DEEP = {
    "resnet18": ((2, 2, 2, 2), 6, 0.86, ("conv1",)), "resnet34": ((3, 4, 6, 3), 14, 0.92, ("conv1",)),
    "resnet50": ((3, 4, 6, 3), 13, 0.85, ("conv2",)), "resnet101": ((3, 4, 23, 3), 28, 0.92, ("conv2",)),
    "resnet152": ((3, 8, 36, 3), 45, 0.92, ("conv2",)),
}  # fmt: skip


def test_presets_are_those_of_the_public_code():
    from ipbench.methods._ratios import rates_of

    runs = Experiment.load(CONFIG / "epruner-imagenet.yaml").cells.values()
    assert {run.model for run in runs} == set(DEEP)
    for run in runs:
        depths, first, beta, deep = DEEP[run.model]
        clustered_ones = ("conv1",) if deep == ("conv1",) else ("conv1", "conv2")
        names = [f"{block}.{conv}" for block in blocks_of(depths) for conv in clustered_ones]
        found = {name: float(value) for name, value in rates_of(run.options["depth"], names, below=None).items()}
        assert found == {f"{block}.{conv}": beta for block in blocks_of(depths)[first:] for conv in deep}
    runs = Experiment.load(CONFIG / "epruner-cifar.yaml").cells.values()
    for model, depth in sorted({(run.model, str(run.options.get("depth", ""))) for run in runs}):
        layers = clustered(NetView(net_of(model, (3, 32, 32))), depth)
        own = [layer.own for layer in layers]
        if model == "vgg16":
            assert own == [None] * 8 + [0.92] * 5
        elif model == "googlenet-cifar":
            convs = ("branch3x3.conv1", "branch5x5.conv1", "branch5x5.conv2")
            assert [layer.name.partition(".")[2] for layer in layers] == [*convs] * 9 and not any(own)
        else:
            assert not any(own) and all(layer.name.endswith("conv1") for layer in layers)


def test_what_was_published_stands_beside_the_experiments():
    ours = [entry for entry in published() if entry.setting["method"] == "epruner"]
    found = []
    for name in ("epruner-cifar", "epruner-imagenet"):
        for cell in parse(Experiment.load(CONFIG / f"{name}.yaml").grid()).cells:
            entry = find(cell)
            assert (entry is not None) == (cell.space == "sp"), cell
            found += [entry] if entry else []
    assert len(found) == len(ours) == 20 and {id(entry) for entry in found} == {id(entry) for entry in ours}
