"""Effective coefficients: those that lie on a path from the input to what the net returns.

Vysogorets and Kempe, Connectivity Matters: Neural Network Pruning Through the Lens of Effective Sparsity, JMLR 2023,
arXiv:2107.02306, call the other ones disconnected: they are kept, and no output depends on the input by way of them.

What a path is, here:

* Its nodes are channels, as in the paper; positions of an image are not told apart. A kernel of a convolution, all
  coefficients for one output and one input channel, is an edge if any of them is kept; so an IP filter is dead only if
  all of its coefficients are masked. A kept coefficient is effective if its kernel begins at a channel that the input
  reaches, and ends at one that reaches an output.
* Masks decide, not values: a kept coefficient that is zero is an edge. Where the off-value is not zero, masked
  coefficients are edges, too, which are not counted.
* Biases, shifts of norms, position embeddings and class tokens are constants: a channel that only sends on a constant
  is reached by no path, however much it changes the output.
* All that is no masked weight connects: activations, norms, pooling, sums, products of two values (gates, attention).
  A norm over channels connects all of them.
* The pass is that of the evaluated net: a layer that only training uses is on no path.

Nets are followed by `flow`. Of an operator that it has no rule for, everything that it is given reaches everything that
it makes; and of a weight that a net uses otherwise than as the factor of a product, all that is kept counts if what is
computed of it reaches an output. Both give too many effective coefficients rather than too few, and both are told.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ipbench.errors import BadInput
from ipbench.sparse.flow import Flags, Flow, Product
from ipbench.sparse.flow_rules import flow_rule_of, mixing
from ipbench.sparse.groups import replica, usual_operators
from ipbench.sparse.trace import Labels
from ipbench.sparse.trial import returned
from ipbench.tasks.inputs import Inputs

if TYPE_CHECKING:
    from ipbench.sparse.net import SparseNet

#: MACs of one image up to which a net is followed with values: a second at most. Without them a pass of a large net
#: takes no time, but the first one in a process imports torch's compiler, which takes three seconds.
_SMALL = 3 * 10**8


@dataclass(frozen=True)
class Effective:
    """What of a net's masks is connected.

    Attributes:
        kept: effective coefficients by layer, in the order of the net.
        whole_layers: those whose kernels cannot be told apart.
        mixing: operators without a rule, on which the numbers depend.
    """

    kept: dict[str, int]
    whole_layers: tuple[str, ...]
    mixing: tuple[str, ...]


def effective(net: SparseNet) -> Effective:
    """The effective coefficients of a net, as it is masked and cut now.

    Args:
        net: in either space, on any device; it stays as it is.

    Raises:
        BadInput: its channels cannot be followed; the message says why.
    """
    flow, outputs = _followed(net)
    masks = {net.weights[name]: mask.detach().cpu() for name, mask in net.masks.items()}
    kernels = {name: _kernels(mask) for name, mask in masks.items()} if net.run.off == "zero" else {}
    forward, backward = np.zeros((2, flow.nodes.count), dtype=bool)
    forward[flow.image] = backward[outputs] = True
    for step in flow.steps:
        step.forward(forward, kernels)
    for step in reversed(flow.steps):
        step.backward(backward, kernels)
    products: dict[str, list[Product]] = {}
    for step in flow.steps:
        if isinstance(step, Product):
            products.setdefault(step.tensor, []).append(step)
    kept = {}
    for layer, tensor in net.weights.items():
        live = np.zeros(masks[tensor].shape[:2], dtype=bool)
        live |= tensor in flow.whole and backward[flow.whole[tensor]]
        for product in products.get(tensor, []):
            product.mark_live(live, forward, backward)
        kept[layer] = _within(masks[tensor], live)
    layers = {tensor: layer for layer, tensor in net.weights.items()}
    return Effective(kept, tuple(layers[tensor] for tensor in flow.whole), tuple(flow.mixed))


def _kernels(mask: Tensor) -> Flags:
    """By the first two axes of a weight, whether anything of a kernel is kept."""
    flags: Flags = (mask.flatten(2).any(2) if mask.dim() > 2 else mask).numpy()
    return flags


def _within(mask: Tensor, live: Flags) -> int:
    """Kept coefficients in live kernels."""
    flags = torch.from_numpy(live)
    return int(torch.count_nonzero(mask & flags.reshape(*flags.shape, *(1,) * (mask.dim() - 2))))


def _followed(net: SparseNet) -> tuple[Flow, Labels]:
    """The pass of the evaluated net, and the nodes of what it returns.

    Raises:
        BadInput: it cannot be followed.
    """
    plain, prunable, images = net.plain(), list(net.weights.values()), net.example.one(torch.empty(0))
    with usual_operators(), sdpa_kernel(SDPBackend.MATH), torch.random.fork_rng(devices=[]):
        if net.counted.macs > _SMALL:
            try:  # a forward that asks for values is given them
                return _pass(replica(plain, _without_values), prunable, images.mapped(_without_values))
            except Exception:  # whatever a forward raises; it raises it again below if it is the net's own
                pass
        try:
            return _pass(replica(plain, _on_cpu), prunable, images)
        except Exception as error:  # whatever a forward raises
            line = (str(error).splitlines() or [""])[0]
            raise BadInput(f"the net's channels cannot be followed: {type(error).__name__}: {line:.120}") from error


def _without_values(tensor: Tensor) -> Tensor:
    return tensor.to("meta")


def _on_cpu(tensor: Tensor) -> Tensor:
    return tensor.to("cpu", torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True)


def _pass(net: nn.Module, prunable: Collection[str], images: Inputs) -> tuple[Flow, Labels]:
    flow = Flow(net.eval(), prunable, flow_rule_of, mixing)
    with flow.watching(images.tensors):
        results = list(returned(images.of(net)))
    if not results:
        raise ValueError("it returns no tensors")
    return flow, np.concatenate([flow.labels(tensor).ravel() for tensor in results])
