"""What the file of a run's net must hold, told without building the net."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import nn

from ipbench.data import catalog as datasets
from ipbench.models.build import outline as outline_model
from ipbench.sparse import measure
from ipbench.sparse.layers import prunable_weights
from ipbench.sparse.spaces import basis_labels
from ipbench.spec import Run


class Held(NamedTuple):
    """One tensor of a net: its shape, bytes of an entry, and whether it is a parameter."""

    shape: tuple[int, ...]
    bytes: int
    trained: bool

    @property
    def entries(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Outline:
    """What the file of a net must hold.

    Attributes:
        layers: the prunable weights by layer, each with the name of its tensor.
        others: biases, norms and buffers by name.
        basis_entries: of all trained FBs.
        parameters: of the dense standard net.
    """

    layers: dict[str, tuple[str, Held]]
    others: dict[str, Held]
    basis_entries: int
    parameters: int

    @property
    def sizes(self) -> dict[str, int]:
        """Entries by layer."""
        return {name: tensor.entries for name, (_, tensor) in self.layers.items()}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of all tensors."""
        return {name: tensor.shape for name, tensor in (*self.layers.values(), *self.others.items())}

    def cut(self, shapes: Mapping[str, tuple[int, ...]]) -> Outline:
        """That of the net whose tensors have these shapes, where they are named.

        Raises:
            ValueError: one is unknown, or is not smaller.
        """
        dense = self.shapes
        for name, shape in shapes.items():
            there = dense.get(name, ())
            fits = len(shape) == len(there) and all(now <= was for now, was in zip(shape, there, strict=True))
            if not fits or shape == there:
                raise ValueError(f"{name:.80} of shape {list(shape)!s:.80} is cut from none of its tensors")

        def smaller(name: str, tensor: Held) -> Held:
            return tensor._replace(shape=shapes.get(name, tensor.shape))

        return replace(
            self,
            layers={layer: (name, smaller(name, tensor)) for layer, (name, tensor) in self.layers.items()},
            others={name: smaller(name, tensor) for name, tensor in self.others.items()},
        )


def outline_of(run: Run) -> Outline:
    """What a run's dense net consists of, without its values."""
    facts = datasets.dataset(run.dataset)
    net = outline_model(run.model, facts.shape, facts.classes)
    layers = prunable_weights(net)
    kernels: dict[str, int] = {}
    if run.space == "ip" and run.basis.train:
        staged = run.basis.sharing == "stage"
        stages = measure.count(net, facts.shape).stages if staged else None
        labels = basis_labels(layers, run.basis, stages)
        kernels = {label: math.prod(layers[name].kernel) for name, label in labels.items()}
    named = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    tensors = {
        id(tensor): (name, Held(tuple(tensor.shape), tensor.element_size(), isinstance(tensor, nn.Parameter)))
        for name, tensor in named.items()
    }
    pruned = {id(layer.weight) for layer in layers.values()}
    return Outline(
        {name: tensors[id(layer.weight)] for name, layer in layers.items()},
        dict(told for key, told in tensors.items() if key not in pruned),
        sum(entries**2 for entries in kernels.values()),
        sum(parameter.numel() for parameter in net.parameters()),
    )
