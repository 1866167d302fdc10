"""The one place that counts: parameters, multiply-accumulates (MACs), bytes, zeros and memory (floor 2).

Conventions. A MAC is one multiplication and one addition, 2 FLOPs. Only convolutions and linear layers have MACs here,
their biases not counted; norms, activations, pooling and the products inside attention have none. All counts are of
one image.
"""

from __future__ import annotations

import gc
import math
import resource
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Layer:
    """A convolution or a linear layer, as in the plain dense net."""

    name: str
    kind: Literal["conv", "linear"]
    shape: tuple[int, ...]  #: of the weight: (outputs, inputs per group, *kernel)
    parameters: int  #: weight and bias
    positions: int  #: output pixels (linear: rows) of one image, summed over the calls of the layer
    groups: int
    in_channels: int
    out_channels: int

    @property
    def size(self) -> int:
        """Entries of the weight."""
        return math.prod(self.shape)

    @property
    def macs(self) -> int:
        """Dense MACs of one image: every weight is used once per position."""
        return self.size * self.positions


@dataclass(frozen=True)
class Count:
    """What a net consists of, counted as the plain dense net."""

    parameters: int  #: all of them: weights, biases, norms and others
    buffers: int  #: numbers in floating-point buffers that are saved with the net (running statistics)
    layers: list[Layer]  #: in the order of the net

    @property
    def macs(self) -> int:
        """Dense MACs of one image."""
        return sum(layer.macs for layer in self.layers)

    @property
    def prunable(self) -> int:
        """Weights of convolutions and linear layers."""
        return sum(layer.size for layer in self.layers)

    @property
    def other_values(self) -> int:
        """Numbers a stored net holds beside the prunable weights: biases, norms, other parameters, buffers."""
        return self.parameters - self.prunable + self.buffers

    @property
    def unseen(self) -> list[str]:
        """Layers that were never called and hence have no MACs.

        Either the net does not use them, or it takes their weight without calling them, as the attention of Swin and
        ViT does: the MACs are then too low.
        """
        return [layer.name for layer in self.layers if layer.positions == 0]


def count(net: nn.Module, shape: Sequence[int]) -> Count:
    """Count a net by one forward pass on an image of zeros, in evaluation mode, on the net's device.

    A net whose tensors are parametrised (`torch.nn.utils.parametrize`) is counted as the plain net: parameters that
    belong to a parametrisation, wherever else they are registered, are not counted. Nothing of the net changes, and
    the global generators do not either.

    Args:
        net: any module that maps images (B, *shape) to something.
        shape: of one image, e.g. (C, H, W).

    Returns:
        The counts. Transposed convolutions are among the parameters, but are no layers.
    """
    modules = {name: module for name, module in net.named_modules() if isinstance(module, (*_CONVOLUTIONS, nn.Linear))}
    positions = dict.fromkeys(modules, 0)

    def counter(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            # The image is alone in its batch, so what a reshape moved into the batch dimension is its own.
            positions[name] += output.numel() // _channels(module)[1]

        return hook

    first = next(net.parameters(), torch.empty(0))
    forked = [first.device] if first.device.type == "cuda" else []
    with _evaluating(net), torch.no_grad(), torch.random.fork_rng(devices=forked):
        handles = [module.register_forward_hook(counter(name)) for name, module in modules.items()]
        try:
            net(torch.zeros(1, *shape, device=first.device, dtype=first.dtype))
        finally:
            for handle in handles:
                handle.remove()
        parameters, buffers = _plain_values(net)
        layers = [_layer(name, module, positions[name]) for name, module in modules.items()]
    return Count(parameters, buffers, layers)


def sparse_macs(layers: Iterable[Layer], kept: Mapping[str, int]) -> int:
    """MACs of one image if only kept weights are multiplied.

    Args:
        layers: of `count`.
        kept: layer name -> kept weights; layers that are not named are dense.

    Raises:
        ValueError: a name that is no layer, or a number outside 0 ... size.
    """
    return sum(number * layer.positions for layer, number in _with_kept(layers, kept))


def two_stage_macs(layers: Iterable[Layer], kept: Mapping[str, int], basis_layers: Collection[str]) -> int:
    """MACs of one image if layers with a filter basis (FB) are evaluated in two stages.

    First every input channel is convolved with the N = K^2 filters of the FB, K^2 MACs each, at the output positions;
    then the kept coefficients combine the results: c_in K^4 + kept per position. For kernels that are not square K^2
    is kh kw. Other layers count as in `sparse_macs`.

    Args:
        layers: of `count`.
        kept: layer name -> kept coefficients; layers that are not named are dense.
        basis_layers: the names of the layers with an FB.

    Raises:
        ValueError: as in `sparse_macs`, or a basis layer that is no convolution of `layers`.
    """
    layers = list(layers)
    wrong = sorted(set(basis_layers) - {layer.name for layer in layers if layer.kind == "conv"})
    if wrong:
        raise ValueError(f"no convolutions, so without a filter basis: {', '.join(wrong)}")
    # Groups change nothing here: each input channel is in one group, and its N maps serve that group.
    first_stage = sum(
        layer.in_channels * math.prod(layer.shape[2:]) ** 2 * layer.positions
        for layer in layers
        if layer.name in basis_layers
    )
    return first_stage + sparse_macs(layers, kept)


def training_flops(macs_dense: int, images: int) -> int:
    """FLOPs of dense training: 2 per MAC, and a backward pass costs two forward passes, so 6 * MACs * images.

    Args:
        macs_dense: of one image in one forward pass.
        images: that were trained on, repetitions over the epochs included.
    """
    return 2 * 3 * macs_dense * images


def entropy_bits(size: int, kept: int) -> float:
    """Ideal size in bits of a mask of `size` entries with `kept` ones: size * H2(kept / size), H2 the binary entropy.

    Raises:
        ValueError: `kept` is outside 0 ... size.
    """
    if not 0 <= kept <= size:
        raise ValueError(f"{kept} kept of {size}")
    return -sum(part * math.log2(part / size) for part in (kept, size - kept) if part)


def stored_bytes(layers: Iterable[tuple[int, int]], basis_entries: int, other_values: int) -> dict[str, int]:
    """Bytes of a stored net, all values in fp32; a net takes values + other + one of the two kinds of mask.

    A layer with everything or nothing kept needs no mask.

    Args:
        layers: (size, kept) of every prunable layer.
        basis_entries: numbers in all filter bases that are stored.
        other_values: numbers in biases, norms and buffers, e.g. `Count.other_values`.

    Returns:
        `bytes_values`: kept coefficients and FB; `bytes_bitmask`: one bit per weight, each layer in whole bytes;
        `bytes_entropy`: the masks ideally coded with each layer's density; `bytes_other`.
    """
    layers = list(layers)
    bits = math.fsum(entropy_bits(size, kept) for size, kept in layers)
    return {
        "bytes_values": 4 * (sum(kept for _, kept in layers) + basis_entries),
        "bytes_bitmask": sum(-(-size // 8) for size, kept in layers if 0 < kept < size),
        "bytes_entropy": math.ceil(bits / 8),
        "bytes_other": 4 * other_values,
    }


def spatial_zeros(weights: Iterable[Tensor]) -> float:
    """Share of entries of all `weights` together that are exactly zero; 0 if there are none."""
    entries = nonzero = 0
    for weight in weights:
        entries += weight.numel()
        nonzero += int(torch.count_nonzero(weight))
    return (entries - nonzero) / entries if entries else 0.0


def begin_peak(device: torch.device | str) -> None:
    """Let `peak_memory` of a GPU begin anew.

    Nets in `ip` are part of reference cycles, and live on until they are collected: here, those of former runs.
    """
    device = torch.device(device)
    if device.type == "cuda":
        gc.collect()
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device | str) -> int:
    """The most memory used so far, in bytes.

    On a GPU what torch had allocated there since `begin_peak`; on the CPU the resident memory
    of this process since its start, so a later run in the same process never shows less than an earlier one.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux reports KiB, macOS bytes


def _channels(module: nn.Module) -> tuple[int, int]:
    """Input and output channels of a convolution or linear layer."""
    if isinstance(module, _CONVOLUTIONS):
        return module.in_channels, module.out_channels
    assert isinstance(module, nn.Linear)
    return module.in_features, module.out_features


def _layer(name: str, module: nn.Module, positions: int) -> Layer:
    """The facts of one layer, from its attributes: `weight` may be parametrised and of any origin."""
    inputs, outputs = _channels(module)
    if isinstance(module, _CONVOLUTIONS):
        groups, kernel = module.groups, module.kernel_size
    else:
        groups, kernel = 1, ()
    shape = (outputs, inputs // groups, *kernel)
    parameters = math.prod(shape) + (0 if module.bias is None else outputs)
    return Layer(name, "conv" if kernel else "linear", shape, parameters, positions, groups, inputs, outputs)


def _plain_values(net: nn.Module) -> tuple[int, int]:
    """Parameters, and entries of saved floating-point buffers, of the net without its parametrisations."""
    inside: set[int] = set()
    for module in net.modules():
        if isinstance(module, parametrize.ParametrizationList):
            inside.update(id(tensor) for tensor in (*module.parameters(), *module.buffers()))
    parameters = sum(tensor.numel() for tensor in net.parameters() if id(tensor) not in inside)
    for module in net.modules():
        if parametrize.is_parametrized(module):
            assert isinstance(module.parametrizations, nn.ModuleDict)
            parameters += sum(getattr(module, name).numel() for name in module.parametrizations)
    saved = {
        id(tensor): tensor.numel()
        for module in net.modules()
        for name, tensor in module.named_buffers(recurse=False)
        if name not in module._non_persistent_buffers_set and tensor.is_floating_point() and id(tensor) not in inside
    }
    return parameters, sum(saved.values())


@contextmanager
def _evaluating(net: nn.Module) -> Iterator[None]:
    """Evaluation mode within the block; afterwards every module is in the mode it was in."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _with_kept(layers: Iterable[Layer], kept: Mapping[str, int]) -> list[tuple[Layer, int]]:
    """Each layer with its number of kept weights."""
    layers = list(layers)
    unknown = sorted(set(kept) - {layer.name for layer in layers})
    if unknown:
        raise ValueError(f"no layers of this net: {', '.join(unknown)}")
    pairs = [(layer, kept.get(layer.name, layer.size)) for layer in layers]
    for layer, number in pairs:
        if not 0 <= number <= layer.size:
            raise ValueError(f"{layer.name}: {number} kept of {layer.size}")
    return pairs
