"""SP and IP: the same function at the start, the same everything with a standard basis that is not trained."""

from __future__ import annotations

import copy

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from ipbench import methods
from ipbench.data.loaders import Batch
from ipbench.methods import Prune
from ipbench.sparse.layers import prunable_weights
from ipbench.sparse.measure import count
from ipbench.sparse.net import SparseNet
from ipbench.sparse.spaces import FilterBasis, Interspace, enter_interspace, filter_basis, orthonormal_basis
from ipbench.spec import Basis
from ipbench.training.loop import Sgd
from ipbench.training.pruning import pruned_masks
from tests.tiny import Fixed, make_run, tiny_conv

NETS = {
    "tiny": (tiny_conv, (2, 6, 6)),
    "resnet18": (lambda: seeded(torchvision.models.resnet18), (3, 32, 32)),
    "mobilenet_v2": (lambda: seeded(torchvision.models.mobilenet_v2), (3, 32, 32)),
}


def seeded(build):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return build(num_classes=3)


def steps(net: SparseNet, images: torch.Tensor, labels: torch.Tensor, count: int) -> list[torch.Tensor]:
    """Losses of some training steps with momentum, weight decay and whatever masks the net has."""
    optimiser, losses = Sgd(net, net.run.recipe, {}), []
    net.train()
    for _ in range(count):
        net.zero_grad()
        torch.manual_seed(0)  # dropout
        loss = functional.cross_entropy(net(images), labels)
        loss.backward()
        net.mask_gradients(0.01)
        optimiser.step(0.05)
        losses.append(loss.detach())
    return losses


@pytest.mark.parametrize("name", NETS)
def test_an_untrained_standard_basis_is_sp_bit_for_bit(name, pair):
    net, shape = NETS[name]
    sp, ip = pair(net, shape, basis=Basis(train=False), sparsity="0.8")
    images, labels = torch.randn(6, *shape, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3
    assert len(ip.bases) > 1 and ip.basis_entries == 0 and ip.budget == sp.budget
    for side in (sp, ip):
        side.prune(pruned_masks(side, methods.get("snip").stages({})[0], Fixed(Batch(images, labels))))
    assert all(torch.equal(sp.masks[layer], ip.masks[layer]) for layer in sp.masks)
    assert sum(int(mask.sum()) for mask in sp.masks.values()) == sp.budget
    sp.eval(), ip.eval()
    assert torch.equal(sp(images), ip(images))
    first = [{n: g for n, _, g in side.gradients(functional.cross_entropy(side(images), labels))} for side in (sp, ip)]
    assert all(torch.equal(first[0][layer], first[1][layer]) for layer in sp.masks)
    assert steps(sp, images, labels, 3) == steps(ip, images, labels, 3)
    assert all(torch.equal(sp.coefficients[layer], ip.coefficients[layer]) for layer in sp.masks)
    sp.eval(), ip.eval()
    assert torch.equal(sp(images), ip(images))


@pytest.mark.parametrize("method", ["snip", "grasp", "synflow", "magnitude", "random"])
def test_masks_at_the_start_are_the_same_in_both_spaces(method, pair, batch):
    """Before the FB's share is subtracted: the same number of coefficients is asked for."""
    sp, ip = pair(sparsity="0.7")
    stage = methods.get(method).stages({})[0]
    assert isinstance(stage, Prune)
    data = Fixed(batch)
    masks = pruned_masks(sp, stage, data)
    # In ip the trained FB is charged; freezing it makes the budgets equal and changes no score.
    for basis in ip.bases.values():
        matrix = basis.matrix.detach().clone()
        del basis.matrix
        basis.register_buffer("matrix", matrix)
    assert ip.budget == sp.budget
    twin = pruned_masks(ip, stage, data)
    assert all(torch.equal(masks[layer], twin[layer]) for layer in masks)


def test_an_orthonormal_start_computes_the_same_function(pair, batch):
    sp, ip = pair(basis=Basis(init="orthonormal"))
    assert torch.allclose(sp(batch.images), ip(batch.images), atol=1e-5)
    for basis in ip.bases.values():
        matrix = basis.matrix.detach()
        assert not torch.equal(matrix, torch.eye(9))
        assert torch.allclose(matrix @ matrix.T, torch.eye(9), atol=1e-6)


def test_orthonormal_bases_are_keyed_by_layer_and_seed():
    first, second, other = (
        enter_interspace(prunable_weights(tiny_conv()), Basis(init="orthonormal"), seed) for seed in (0, 0, 1)
    )
    names = list(first)
    assert all(torch.equal(first[name].matrix, second[name].matrix) for name in names)
    assert not torch.equal(first[names[0]].matrix, first[names[1]].matrix)
    assert not torch.equal(first[names[0]].matrix, other[names[0]].matrix)


def test_haar_sign_convention():
    """The sign of R's diagonal is moved into Q, so entries of the first row are symmetric around zero."""
    draws = torch.stack([orthonormal_basis(3, torch.Generator().manual_seed(seed)) for seed in range(300)])
    assert draws.mean(0).abs().max() < 0.15  # standard error 0.033


def test_gradients_by_hand():
    """dL/dlambda_n = <g^(n), G> and dL/dg^(n) = sum over filters of lambda_n G (methods notes, eq. 2.2)."""
    basis = FilterBasis(torch.tensor([[1.0, 2.0], [0.0, 3.0]]), train=True)  # two filters of two entries
    space = Interspace(basis)
    coefficients = torch.tensor([[[[1.0, 2.0]]], [[[3.0, -1.0]]]], requires_grad=True)  # (2, 1, 1, 2)
    weight = space(coefficients)
    assert weight.flatten().tolist() == [1.0, 8.0, 3.0, 3.0]  # 1*(1,2)+2*(0,3), 3*(1,2)-1*(0,3)
    outer = torch.tensor([[[[1.0, 1.0]]], [[[2.0, 0.0]]]])  # G
    weight.backward(outer)
    assert coefficients.grad.flatten().tolist() == [3.0, 3.0, 2.0, 0.0]
    # g1: 1*(1,1)+3*(2,0); g2: 2*(1,1)-1*(2,0)
    assert basis.matrix.grad.tolist() == [[7.0, 1.0], [0.0, 2.0]]
    back = space.right_inverse(weight.detach())
    assert torch.allclose(back, coefficients.detach())


@pytest.mark.parametrize(("sharing", "groups"), [("layer", 2), ("stage", 2), ("network", 1)])
def test_sharing(sharing, groups):
    """Two stages: the second convolution works at half the resolution."""
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 3, stride=2, padding=1), nn.Conv2d(2, 2, 1))
    ip = SparseNet(net, make_run(space="ip", basis=Basis(sharing=sharing)), (1, 8, 8))
    assert len(ip.bases) == groups
    assert ip.basis_entries == 81 * groups
    ip.net(torch.randn(1, 1, 8, 8)).sum().backward()
    assert all(basis.matrix.grad is not None for basis in ip.bases.values())
    shared = filter_basis(ip.layers["0"]) is filter_basis(ip.layers["1"])
    assert shared == (sharing == "network")


def test_stage_sharing_joins_layers_of_one_resolution():
    ip = SparseNet(tiny_conv(), make_run(space="ip", basis=Basis(sharing="stage")), (2, 6, 6))
    assert list(ip.bases) == ["stage36/3x3"]


def test_large_kernels_may_go_without():
    net = nn.Sequential(nn.Conv2d(1, 2, 7), nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, (1, 3)))
    with_all = enter_interspace(prunable_weights(copy.deepcopy(net)), Basis(), 0)
    assert {name: len(basis.matrix) for name, basis in with_all.items()} == {"0/7x7": 49, "1/3x3": 9, "2/1x3": 3}
    assert list(enter_interspace(prunable_weights(net), Basis(large_kernels=False), 0)) == ["1/3x3", "2/1x3"]


def test_one_by_one_and_linear_have_no_basis():
    ip = SparseNet(tiny_conv(), make_run(space="ip"), (2, 6, 6))
    assert list(ip.bases) == ["0/3x3", "3/3x3"]
    assert ip.coefficients["5"] is ip.layers["5"].weight


def test_a_shared_module_is_one_layer():
    shared = nn.Conv2d(2, 2, 3, padding=1)
    net = nn.Sequential(shared, nn.ReLU(), shared)
    assert list(prunable_weights(net)) == ["0"]
    ip = SparseNet(net, make_run(space="ip"), (2, 6, 6))
    ip(torch.randn(2, 2, 6, 6)).sum().backward()
    assert ip.coefficients["0"].grad is not None


def test_counting_sees_the_plain_net():
    ip = SparseNet(tiny_conv(), make_run(space="ip"), (2, 6, 6))
    assert ip.counted.parameters == count(tiny_conv(), (2, 6, 6)).parameters
    assert ip.prunable == 2 * 4 * 9 + 2 * 6 * 9 + 6 * 5 + 5 * 3


def test_an_fb_is_trained_at_its_own_rate_and_decay(batch):
    net = SparseNet(tiny_conv(), make_run(space="ip", basis=Basis(lr=0.5, weight_decay=0.1)), (2, 6, 6))
    groups = {group.factor: group for group in net.parameter_groups(0.01)}
    assert set(groups[0.5].parameters) == {
        "0.parametrizations.weight.0.basis.matrix",
        "3.parametrizations.weight.0.basis.matrix",
    }
    assert groups[0.5].weight_decay == 0.1
    before = net.bases["0/3x3"].matrix.detach().clone()
    net.zero_grad()
    functional.cross_entropy(net(batch.images), batch.labels).backward()
    gradient = net.bases["0/3x3"].matrix.grad.clone()
    Sgd(net, net.run.recipe, {}).step(0.2)
    assert torch.allclose(net.bases["0/3x3"].matrix.detach(), before - 0.2 * 0.5 * (gradient + 0.1 * before), atol=1e-7)
