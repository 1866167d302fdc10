"""Which batch norm is that of a layer's channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ipbench.sparse.channels import Groups
from ipbench.sparse.example import Example, example_of

#: In place of a layer: a norm that another one follows, or the image.
_OTHER = ""


def norms_of(
    net: nn.Module, weights: Mapping[str, str], groups: Groups, shape: Example | Sequence[int]
) -> dict[str, str]:
    """The path of the batch norm behind each layer whose channels are exactly that layer's filters, in their order.

    It is the norm that reads what the layer makes, be it through an activation, and nothing that another layer makes: a
    norm behind a sum of several layers is that of none. A layer with two norms behind it has none, and a norm without a
    scale is none.

    Args:
        net: a plain module; stays as it is but for the modes of modules.
        weights: the name of its weight in `net`, by layer.
        groups: the channel groups of the net.
        shape: of one image, (C, H, W); or what else the net is called with.
    """
    found: dict[str, list[str]] = {}
    for path, sources in _sources(net, weights, shape).items():
        if len(sources) == 1 and (layer := next(iter(sources))) != _OTHER:
            found.setdefault(layer, []).append(path)
    return {
        layer: found[layer][0]
        for layer, weight in weights.items()
        if len(found.get(layer, ())) == 1 and _same_channels(groups, weight, f"{found[layer][0]}.weight")
    }


def _sources(net: nn.Module, weights: Mapping[str, str], shape: Example | Sequence[int]) -> dict[str, set[str]]:
    """By the path of each batch norm, the layers whose outputs it reads, at all of its calls."""
    modules = dict(net.named_modules())
    layers = {
        modules[weight.removesuffix(".weight")]: name for name, weight in weights.items() if _is_own(weight, modules)
    }
    norms = {module: path for path, module in modules.items() if isinstance(module, _BatchNorm)}
    made: dict[Any, str] = {}  # nodes of autograd: what made the tensor
    sources: dict[str, set[str]] = {}

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if module in norms and inputs and isinstance(inputs[0], Tensor):
            sources.setdefault(norms[module], set()).update(_nearest(inputs[0].grad_fn, made))

    def after(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor) and output.grad_fn is not None:
            made[output.grad_fn] = layers.get(module, _OTHER)

    watched = [*layers, *norms]
    handles = [module.register_forward_pre_hook(before) for module in norms]
    handles += [module.register_forward_hook(after) for module in watched]
    try:
        inputs = example_of(shape).one(next(net.parameters()))
        with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
            inputs.of(net.eval())
    finally:
        for handle in handles:
            handle.remove()
    return sources


def _is_own(weight: str, modules: Mapping[str, nn.Module]) -> bool:
    return weight.endswith(".weight") and weight.removesuffix(".weight") in modules


def _nearest(start: Any, made: Mapping[Any, str]) -> set[str]:
    """The layers met first on all ways back from a node; `_OTHER` for what comes from none."""
    if start is None:
        return {_OTHER}
    found, seen, ways = set[str](), set[Any](), [start]
    while ways:
        node = ways.pop()
        if node in seen:
            continue
        seen.add(node)
        if node in made:
            found.add(made[node])
        else:
            ways += [other for other, _ in node.next_functions if other is not None]
    return found or {_OTHER}


def _same_channels(groups: Groups, weight: str, scale: str) -> bool:
    """Whether a norm's scale has an entry for every filter of a layer, at the same place."""
    if scale not in groups.shapes or len(groups.shapes[scale]) != 1:
        return False
    covered = filters = 0
    for group in groups:
        own = [member for member in group.members if member.tensor == scale]
        makers = [member for member in group.producers if member.tensor == weight]
        if not own:
            continue
        if len(own) != 1 or len(makers) != 1 or not np.array_equal(own[0].indices, makers[0].indices):
            return False
        covered += own[0].indices.size
        filters = groups.shapes[weight][makers[0].axis]
    return 0 < covered == groups.shapes[scale][0] == filters
