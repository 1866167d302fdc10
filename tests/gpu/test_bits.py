"""Strict trainings on a GPU repeat bit for bit; filters are exact; generators and masks are those of the CPU."""

from __future__ import annotations

import time

import pytest
import torch

from benchmarks.gpu import SHAPES, Images
from ipbench.errors import BadInput
from ipbench.machine.precision import tf32
from ipbench.models.build import build
from ipbench.runs.building import build_net
from ipbench.runs.environment import begin_anew, channels_last, set_mode
from ipbench.runs.trials import check_strict
from ipbench.sparse.net import SparseNet
from ipbench.sparse.selection import largest
from ipbench.spec import Recipe, Run
from ipbench.training.loop import Sgd, train_steps
from tests.gpu.conftest import GPU
from tests.tiny import make_run

NETS = (
    ("lenet-300-100", "mnist"), ("lenet5-caffe", "mnist"), ("small-vgg", "cifar10"), ("vgg16", "cifar10"),
    ("resnet20-cifar", "cifar10"), ("resnet18-cifar", "cifar10"), ("mobilenet-v1", "cifar10"), ("resnet18", "imagenet"),
)  # fmt: skip


def trained(run: Run, steps: int = 10) -> dict[str, torch.Tensor]:
    """Every tensor of the net, a tenth of it trained, after some steps."""
    begin_anew(run, GPU)
    data = Images(run.dataset, 32, steps, "cuda", channels_last(run.mode, GPU))
    net = build_net(run, data, GPU)  # type: ignore[arg-type]
    net.prune({name: net.uniform(name) < 0.1 for name in net.masks})
    train_steps(net, data, run.recipe, Sgd(net, run.recipe, {}), 0, steps)  # type: ignore[arg-type]
    return {name: tensor.cpu() for name, tensor in net.tensors().items()}


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("space", ["sp", "ip"])
@pytest.mark.parametrize(("model", "dataset"), NETS, ids=[name for name, _ in NETS])
def test_ten_strict_steps_repeat_bit_for_bit(model, dataset, space, precision):
    run = make_run(model=model, dataset=dataset, space=space, sparsity="0.9", recipe=Recipe(precision=precision))
    one, two = trained(run), trained(run)
    assert all(torch.isfinite(tensor).all() for tensor in one.values())
    assert one.keys() == two.keys() and [name for name in one if not torch.equal(one[name], two[name])] == []


def test_a_layer_without_a_deterministic_algorithm_is_refused():
    run = make_run(model="vgg11_bn", dataset="imagenet")
    set_mode("strict", GPU)
    data = Images("imagenet", 2, 1, "cuda", True)
    with pytest.raises(BadInput, match="layers without a deterministic algorithm on GPUs: avgpool"):
        check_strict(build_net(run, data, GPU), data)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["fast", "strict"])
def test_ip_starts_as_sp_bit_for_bit(mode):
    """The filters of the standard basis are the weights themselves: TF32 must not round them."""
    nets = {}
    for space in ("sp", "ip"):
        run = make_run(space=space, mode=mode, dataset="cifar10")
        begin_anew(run, GPU)
        assert tf32() == ((mode == "fast"),) * 2
        nets[space] = build_net(run, Images("cifar10", 2, 1, "cuda", True), GPU)  # type: ignore[arg-type]
    for name, layer in nets["ip"].layers.items():
        assert torch.equal(layer.weight, nets["sp"].layers[name].weight), name
    images = torch.randn(8, 3, 32, 32, device="cuda").to(memory_format=torch.channels_last)
    set_mode("strict", GPU)
    assert torch.equal(nets["ip"].eval()(images), nets["sp"].eval()(images))


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_filters_of_a_pass_are_exact_in_mode_fast(precision):
    """Of the standard basis: filters are the coefficients, gradients of coefficients those of the filters."""
    run = make_run(space="ip", mode="fast", dataset="cifar10", model="resnet20-cifar", recipe=Recipe())
    begin_anew(run, GPU)
    net = build_net(run, Images("cifar10", 2, 1, "cuda", True), GPU)  # type: ignore[arg-type]
    modules = {name: layer.module for name, layer in net.layers.items() if layer.kernel}
    coefficients, weights = net.coefficients, {}
    images = torch.randn(8, 3, 32, 32, device="cuda").to(memory_format=torch.channels_last)
    with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
        logits = net(images)
        with net._building.a_pass(net._together):
            for name, module in modules.items():
                weights[name] = module.weight
    # The same coefficients, filters and random gradients of them in a pass of its own.
    gradients = {name: torch.randn_like(weight) for name, weight in weights.items()}
    found = torch.autograd.grad(
        list(weights.values()), [coefficients[name] for name in weights], list(gradients.values())
    )
    assert torch.isfinite(logits).all() and tf32() == (True, True)
    for (name, weight), gradient in zip(weights.items(), found, strict=True):
        assert coefficients[name].is_contiguous() and torch.equal(weight, coefficients[name]), name
        assert torch.equal(gradient, gradients[name]), name


def test_steps_in_fast_mode_copy_no_coefficients():
    run = make_run(space="ip", mode="fast", dataset="cifar10", model="resnet20-cifar", recipe=Recipe())
    begin_anew(run, GPU)
    data = Images("cifar10", 8, 2, "cuda", True)
    net = build_net(run, data, GPU)  # type: ignore[arg-type]
    optimiser = Sgd(net, run.recipe, {})
    train_steps(net, data, run.recipe, optimiser, 0, 2)  # type: ignore[arg-type]
    parameters = dict(net.net.named_parameters())
    for name, c in net.coefficients.items():
        if net.layers[name].kernel:
            assert c.grad is not None and c.is_contiguous() and c.grad.is_contiguous()
    assert all(buffer.stride() == parameters[name].stride() for name, buffer in optimiser.momentum.items())


def test_scores_leave_the_generators_of_the_gpu_as_they_were():
    net = SparseNet(build("small-vgg", *SHAPES["cifar10"], 0), make_run(), SHAPES["cifar10"][0]).to("cuda")
    torch.cuda.manual_seed(5)
    before = torch.cuda.get_rng_state()
    with net.scratch():
        torch.manual_seed(1)
        torch.rand(3, device="cuda")
    assert torch.equal(before, torch.cuda.get_rng_state())


@pytest.mark.parametrize("size", [1_000, 2_000_000])
def test_selection_is_that_of_the_cpu_ties_too(size):
    scores = torch.rand(size, generator=torch.Generator().manual_seed(0)).mul(50).round()  # many of each value
    candidates = torch.rand(size, generator=torch.Generator().manual_seed(1)) < 0.7
    keep = size // 7
    there = largest(scores.cuda(), candidates.cuda(), keep, 1)
    assert there.is_cuda and torch.equal(there.cpu(), largest(scores, candidates, keep, 1))


def test_selection_stays_on_the_gpu():
    """14.7 million scores: sorted there in a thousandth of a second; on the CPU it takes a tenth."""
    scores = torch.rand(14_715_584, device="cuda")
    candidates = torch.ones_like(scores, dtype=torch.bool)
    seconds = []
    for _ in range(4):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        largest(scores, candidates, len(scores) // 10, 1)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    assert min(seconds) < 0.03
