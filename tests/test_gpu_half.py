"""The code that is for GPUs, as far as it can be seen without one: pretended devices, and switches that exist here."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ipbench.errors import BadInput
from ipbench.machine import distributed, precision, provenance
from ipbench.methods import Gradual
from ipbench.models.build import build
from ipbench.runs import execute as running
from ipbench.runs import stages, trials
from ipbench.runs.environment import Environment, set_mode
from ipbench.runs.execute import execute
from ipbench.runs.state import State
from ipbench.sparse import measure
from ipbench.sparse.layers import prunable_weights
from ipbench.sparse.net import SparseNet
from ipbench.sparse.spaces import build_at_once, coefficients, enter_interspace
from ipbench.spec import Basis, Recipe, Run
from ipbench.training import loop as training
from tests.tiny import TinyData, hooks_of, make_run, run_stages, tiny_conv

GPU = torch.device("cuda:1")


class Stop(Exception):
    """Far enough."""


@pytest.fixture(autouse=True)
def switches() -> Iterator[None]:
    """Back to what strict runs on a CPU have."""
    yield
    set_mode("strict", Environment())


def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nets say that they lie on a GPU."""
    monkeypatch.setattr(SparseNet, "parameters", lambda self: iter([SimpleNamespace(device=GPU)]))


# One process, one GPU.


def test_the_gpu_is_chosen_before_anything_else_of_cuda(tmp_path, monkeypatch):
    seen: list[Any] = []

    def stop(*_: Any, **__: Any) -> None:
        raise Stop

    monkeypatch.setattr(torch.cuda, "init", lambda: seen.append("init"))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: seen.append(device))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: seen.append(f"peak of {device}"))
    for name in ("open_data", "tell_notes", "build_net", "check_share", "check_strict"):
        monkeypatch.setattr(running, name, lambda *_: seen.append("work"))
    monkeypatch.setattr(running, "State", stop)
    with pytest.raises(Stop):
        execute(make_run(), tmp_path, Environment(device="cuda:1"))
    assert seen == ["init", 1, *["work"] * 5, "peak of cuda:1"]  # the trial steps are no part of the run's peak


@pytest.mark.parametrize("rank", [0, 3])
def test_more_processes_than_gpus_are_refused_in_all_of_them(monkeypatch, rank):
    """Also in those that have a GPU: they would wait for the others."""
    for name, value in {"WORLD_SIZE": 4, "LOCAL_WORLD_SIZE": 4, "LOCAL_RANK": rank}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *_, **__: pytest.fail("joined"))
    with pytest.raises(BadInput, match="torchrun started 4 processes here, but there are 2 GPUs"):
        distributed.joined("cuda").__enter__()


def test_nets_of_former_runs_are_no_part_of_the_peak(monkeypatch):
    net = SparseNet(tiny_conv(), make_run(space="ip"), (2, 6, 6))
    gone = weakref.ref(net.net)
    gc.disable()
    try:
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
        del net
        measure.begin_peak("cuda:1")
        assert gone() is None
    finally:
        gc.enable()


def test_strict_mode_does_not_fill_new_memory():
    torch.utils.deterministic.fill_uninitialized_memory = True
    set_mode("strict", Environment())
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory


def test_provenance_of_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setenv("IPBENCH_JOBS_PER_GPU", "3")
    here, there = provenance.provenance("cpu"), provenance.provenance.__wrapped__("cuda:1")
    assert there.keys() - here.keys() == {"cuda", "cudnn", "driver", "capability", "jobs_per_gpu"}
    assert there["capability"] == "9.0" and there["jobs_per_gpu"] == "3" and there["cuda"] == torch.version.cuda


# Generators and momentum.


def test_scores_fork_the_generator_of_the_nets_device(monkeypatch):
    net, forked = SparseNet(tiny_conv(), make_run(), (2, 6, 6)), []
    plain = torch.random.fork_rng
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: (forked.append(devices), plain(devices=[]))[1])
    with net.scratch():
        pass
    on_a_gpu(monkeypatch)
    with net.scratch():
        pass
    assert forked == [[], [GPU]]


def test_the_generator_is_restored_on_the_device_of_the_run(monkeypatch):
    given = []
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: given.append(device))
    states = {"cpu": torch.get_rng_state(), "cuda": torch.zeros(16, dtype=torch.uint8)}
    training._set_generators(states, torch.device("cpu"))
    assert given == []
    training._set_generators(states, GPU)
    assert given == [GPU]


def test_momentum_takes_the_memory_format_of_its_parameter():
    net = SparseNet(tiny_conv(), make_run(), (2, 6, 6)).to(memory_format=torch.channels_last)
    parameters = dict(net.net.named_parameters())
    stored = {name: torch.randn_like(p).contiguous() for name, p in parameters.items()}
    optimiser = training.Sgd(net, Recipe(), stored)
    assert not parameters["0.weight"].is_contiguous()
    for name, buffer in optimiser.momentum.items():
        assert buffer.stride() == parameters[name].stride() and torch.equal(buffer, stored[name])


# TF32.


class Watch(TorchDispatchMode):
    """Notes how products of matrices are formed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if function.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm):
            self.seen.append(torch.backends.cuda.matmul.fp32_precision)
        return function(*args, **(kwargs or {}))


def filters(tf32: bool, at_once: bool) -> tuple[list[torch.Tensor], list[str]]:
    """Filters of two layers, their first and second derivatives, and how the products were formed."""
    precision.set_tf32(tf32, tf32)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3))
    layers = prunable_weights(net)
    bases = enter_interspace(layers, Basis(init="orthonormal"), 0).values()
    building, together = build_at_once(layers)
    generator = torch.Generator().manual_seed(0)
    given = [*(coefficients(layer) for layer in layers.values()), *(basis.matrix for basis in bases)]
    with torch.no_grad():
        for c in given[:2]:
            c.copy_(torch.randn(c.shape, generator=generator))
    with Watch() as watch:
        with torch.autocast("cpu", torch.bfloat16), building.a_pass(together) if at_once else nullcontext():
            weights = [layer.weight for layer in layers.values()]
        first = torch.autograd.grad(sum(weight.pow(3).sum() for weight in weights), given, create_graph=True)
        second = torch.autograd.grad(sum(g.pow(2).sum() for g in first), given)
    return [*(weight.detach() for weight in weights), *first, *second], watch.seen


@pytest.mark.parametrize("at_once", [False, True])
def test_filters_are_never_built_in_tf32(at_once):
    plain, _ = filters(False, at_once)
    full, seen = filters(True, at_once)
    assert len(seen) >= 2 * 7 and set(seen) == {"ieee"}  # forward, backward, and the backward of that
    assert precision.tf32() == (True, True)
    assert all(tensor.dtype == torch.float32 for tensor in full)
    other, _ = filters(True, not at_once)
    for one, same, way in zip(plain, full, other, strict=True):
        # Second derivatives are summed in other orders; TF32 would be wrong by 5e-4.
        assert torch.equal(one, same) or (not at_once and (one - same).abs().max() <= 1e-6 * one.abs().max())
        assert (one - way).abs().max() <= 1e-6 * one.abs().max()


def test_layers_are_in_tf32_in_fast_mode():
    set_mode("fast", Environment())
    with Watch() as watch:
        nn.Linear(3, 3)(torch.zeros(2, 3))
    assert watch.seen == ["tf32"]
    set_mode("strict", Environment())
    assert precision.tf32() == (False, False)


def test_scores_are_never_formed_in_tf32(monkeypatch, batch):
    seen = []

    def noting(function: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*given: Any) -> Any:
            seen.append(precision.tf32())
            return function(*given)

        return noted

    monkeypatch.setattr(stages, "pruned_masks", noting(stages.pruned_masks))
    monkeypatch.setattr(stages, "starting_gradient_norm", noting(stages.starting_gradient_norm))
    set_mode("fast", Environment())
    run_stages(make_run(mode="fast"), TinyData())
    net = SparseNet(tiny_conv(), make_run(method="gmp", sparsity="0.5"), (2, 6, 6))
    gradual = Gradual(noting(lambda twin, _: twin.magnitudes()), 1, 0.0, 1.0)
    hooks_of(net, gradual, 4).after_backward(batch, 3, {})
    assert seen == [(False, False)] * 3 and precision.tf32() == (True, True)


def test_switches_set_by_either_interface_of_torch_do_not_end_a_run():
    """A method's file may have used the new one: reading the old one fails then."""
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    with precision.full_precision():
        assert precision.tf32() == (False, False)
    assert precision.tf32() == (True, True)
    set_mode("strict", Environment())
    assert precision.tf32() == (False, False)


# Strict mode is tried before it is promised.


class Noisy(nn.Module):
    """Adds another number at every call: what a sum in random order does, but larger."""

    calls = iter(range(10_000))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values + 1e-3 * next(self.calls)


def test_two_steps_tell_whether_bits_repeat(batch):
    run = make_run(space="ip", recipe=Recipe(momentum=0.9))
    net = SparseNet(nn.Sequential(*tiny_conv(), nn.Dropout(0.5)), run, (2, 6, 6))
    before = {name: tensor.clone() for name, tensor in net.tensors().items()}
    generator = torch.get_rng_state()
    assert trials.equal_steps(net, batch)
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.tensors().items())
    noisy = SparseNet(nn.Sequential(Noisy(), *tiny_conv()), run, (2, 6, 6))
    assert not trials.equal_steps(noisy, batch)


@pytest.mark.parametrize(
    ("name", "found"),
    [("vgg11", ["avgpool"]), ("alexnet", ["avgpool"]), ("resnet18", []), ("mobilenet_v2", []), ("small-vgg", [])],
)
def test_layers_without_a_deterministic_algorithm_are_known(name, found):
    if name == "small-vgg":
        net = build(name, (3, 32, 32), 10, 0)
    else:
        import torchvision.models

        with torch.device("meta"):
            net = torchvision.models.get_model(name, weights=None)
    assert trials.without_deterministic(net) == found


@pytest.mark.parametrize(
    ("net", "steps", "message"),
    [
        (lambda: nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Conv2d(2, 3, 2), nn.Flatten()), True, "on GPUs: 0;"),
        (tiny_conv, False, "small-vgg from one state differ, with cuDNN 92300 on sm_86;"),
        (tiny_conv, RuntimeError("f_cuda does not have a deterministic implementation"), "cannot be trained so"),
        (tiny_conv, True, None),
    ],
    ids=["layer", "bits", "operator", "equal"],
)  # fmt: skip
def test_what_strict_mode_cannot_promise_is_refused_in_one_line(monkeypatch, net, steps, message):
    def answer(*_: Any) -> bool:
        if isinstance(steps, Exception):
            raise steps
        return steps

    sparse = SparseNet(net(), make_run(), (2, 6, 6))
    trials.check_strict(sparse, TinyData())  # type: ignore[arg-type]  # on the CPU nothing is asked
    on_a_gpu(monkeypatch)
    monkeypatch.setattr(trials, "equal_steps", answer)
    monkeypatch.setattr(trials, "_seen", set())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 92300)
    trials.check_strict(SparseNet(net(), make_run(mode="fast"), (2, 6, 6)), TinyData())  # type: ignore[arg-type]
    if message is None:
        trials.check_strict(sparse, TinyData())  # type: ignore[arg-type]
        monkeypatch.setattr(trials, "equal_steps", lambda *_: pytest.fail("tried twice"))
        trials.check_strict(sparse, TinyData())  # type: ignore[arg-type]
        return
    with pytest.raises(BadInput, match="mode strict") as error:
        trials.check_strict(sparse, TinyData())  # type: ignore[arg-type]
    assert message in str(error.value) and "\n" not in str(error.value)


# States.


@pytest.mark.parametrize(("seconds", "saves"), [(0.0, 4), (60.0, 2)])
def test_states_are_saved_at_ends_of_stages_and_now_and_then(tmp_path, monkeypatch, seconds, saves):
    count = []
    monkeypatch.setattr("ipbench.runs.state.SECONDS_BETWEEN_STATES", seconds)
    save = State.save
    monkeypatch.setattr(State, "save", lambda *given: (count.append(1), save(*given))[1])
    run = Run(
        dataset="digits", model="lenet-300-100", method="snip", sparsity="0.9",
        recipe=Recipe(epochs=3, batch_size=50, train_examples=120),
    )  # fmt: skip
    execute(run, tmp_path, Environment())
    assert len(count) == saves  # after pruning, after two of three epochs, after the training
