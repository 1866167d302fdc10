"""The same coupled layers as torch-pruning finds, on nets where it is right: no shuffles, chunks or padding."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from ipbench.models.build import build
from ipbench.sparse.groups import Group, channel_groups
from tests.sparse import awkward_nets

torch_pruning = pytest.importorskip("torch_pruning")

NETS = {
    **{
        name: (getattr(awkward_nets, name), getattr(awkward_nets, name).example[1:])
        for name in (
            "Residual",
            "SqueezeExcite",
            "SharedHead",
            "FlattenFree",
            "Recurrent",
            "OptionACat",
            "ConstantLeak",
        )
    },
    "lenet5-caffe": (lambda: build("lenet5-caffe", (1, 28, 28), 10, 0), (1, 28, 28)),
    "small-vgg": (lambda: build("small-vgg", (3, 8, 8), 10, 0), (3, 8, 8)),
    "resnet18-cifar": (lambda: build("resnet18-cifar", (3, 8, 8), 10, 0), (3, 8, 8)),
    "squeezenet1_1": (lambda: torchvision.models.squeezenet1_1(num_classes=5), (3, 32, 32)),
    "mobilenet_v3_small": (lambda: torchvision.models.mobilenet_v3_small(num_classes=5), (3, 32, 32)),
}

#: Layer, what a unit takes of it ("out", "in" or "both" of a depthwise convolution), and which indices.
Coupled = set[tuple[str, str, tuple[int, ...]]]


def ours(group: Group, unit: int) -> Coupled:
    return {(m.layer, m.role, tuple(sorted(m.indices[unit].tolist()))) for m in (*group.producers, *group.consumers)}


def theirs(net: nn.Module, graph: object, layer: str, channel: int) -> Coupled:
    names = {module: name for name, module in net.named_modules()}
    module = net.get_submodule(layer)
    found: Coupled = set()
    for dependency, indices in graph.get_pruning_group(module, torch_pruning.prune_conv_out_channels, [channel]):
        target = dependency.target.module
        if not isinstance(target, nn.Conv2d | nn.Linear):
            continue
        outputs = dependency.handler == graph.get_pruner_of_module(target).prune_out_channels
        depthwise = isinstance(target, nn.Conv2d) and target.groups > 1
        role = "both" if depthwise else "out" if outputs else "in"
        found.add((names[target], role, tuple(sorted(int(index) for index in indices))))
    return found


@pytest.mark.parametrize("name", NETS)
def test_coupled_layers(name):
    make, shape = NETS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = make().eval()
    groups = channel_groups(net, shape)
    graph = torch_pruning.DependencyGraph().build_dependency(net, example_inputs=torch.zeros(2, *shape))
    compared = 0
    for group in groups.free:
        producer = group.producers[0]
        if isinstance(net.get_submodule(producer.layer), nn.Conv2d):
            for unit in {0, group.units // 2, group.units - 1}:
                first = int(producer.indices[unit, 0])
                assert ours(group, unit) == theirs(net, graph, producer.layer, first), (group.name, unit)
                compared += 1
    assert compared
