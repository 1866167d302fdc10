"""A net as the plain module, with all of its parameters: for scores that look at more than coefficients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ipbench.tasks import Task

if TYPE_CHECKING:
    from ipbench.data.loaders import Batch
    from ipbench.sparse.net import SparseNet


@dataclass(frozen=True, eq=False)
class PlainNet:
    """A copy of a net in evaluation mode, in which the weights that layers compute with are parameters.

    Attributes:
        parameters: by name, each once.
        filters: the name of the weight of every prunable layer.
        biases: that of the bias of the layers that have one, a number per filter.
        norms: that of the scale of the batch norm behind a layer, where its channels are exactly the layer's filters.
    """

    _module: nn.Module
    parameters: Mapping[str, nn.Parameter]
    filters: Mapping[str, str]
    biases: Mapping[str, str]
    norms: Mapping[str, str]
    _task: Task
    _seed: int

    def loss(self, batch: Batch) -> Tensor:
        """The mean loss of the task over a batch, a scalar with a graph."""
        return self._task.loss_of(self._module, batch, self._seed)

    def logits(self, batch: Batch) -> Tensor:
        """Logits (N, classes) of a batch; of nets for classification."""
        found: Tensor = self._task.outputs(self._module, batch, self._seed)
        return found

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W)."""
        logits: Tensor = self._module(images)
        return logits

    def gradients(self, loss: Tensor, *, create_graph: bool = False, retain_graph: bool = False) -> dict[str, Tensor]:
        """The gradient of a scalar by every parameter; zero where it does not depend on one."""
        values = torch.autograd.grad(
            loss, list(self.parameters.values()), create_graph=create_graph, allow_unused=True,
            retain_graph=retain_graph or create_graph,
        )  # fmt: skip
        return {
            name: torch.zeros_like(parameter) if value is None else value
            for (name, parameter), value in zip(self.parameters.items(), values, strict=True)
        }


def plain_net(net: SparseNet) -> PlainNet:
    """The copy of a net."""
    module = net.plain().eval().requires_grad_(True)
    norms = {name: f"{path}.weight" for name, path in net.norms.items()}
    return PlainNet(
        module, dict(module.named_parameters()), net.weights, bias_names(net), norms, net.task, net.run.seed
    )


def bias_names(net: SparseNet) -> dict[str, str]:
    """The name of its bias, by layer, of the layers that have one."""
    held, found = {name for name, _ in net.net.named_parameters()}, {}
    for layer, weight in net.weights.items():
        bias = f"{weight.removesuffix('weight')}bias"
        if weight.endswith("weight") and bias in held:
            found[layer] = bias
    return found
