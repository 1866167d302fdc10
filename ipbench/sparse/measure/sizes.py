"""What masks leave: multiply-accumulates and bytes of sparse nets; zeros and memory."""

from __future__ import annotations

import gc
import math
import resource
import sys
from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor

from ipbench.sparse.measure.counting import Layer


def sparse_macs(layers: Iterable[Layer], kept: Mapping[str, int]) -> int:
    """MACs of one image if only kept weights are multiplied.

    Args:
        layers: of `count`.
        kept: layer name -> kept weights; layers that are not named are dense.

    Raises:
        ValueError: a name that is no layer, or a number outside 0 ... size.
    """
    return round(sum(number * layer.positions for layer, number in _with_kept(layers, kept)))


def two_stage_macs(layers: Iterable[Layer], kept: Mapping[str, int], basis_layers: Collection[str]) -> int:
    """MACs of one image if layers with a filter basis (FB) are evaluated in two stages.

    First every input channel is convolved with the N = K^2 filters of the FB, K^2 MACs each, at the output positions;
    then the kept coefficients combine the results: c_in K^4 + kept per position. Transposed convolutions combine first
    and are convolved then: c_out K^4 + kept. For kernels that are not square K^2 is kh kw. Other layers count as in
    `sparse_macs`.

    Args:
        layers: of `count`.
        kept: layer name -> kept coefficients; layers that are not named are dense.
        basis_layers: the names of the layers with an FB.

    Raises:
        ValueError: as in `sparse_macs`, or a basis layer that is no convolution of `layers`.
    """
    layers = list(layers)
    wrong = sorted(set(basis_layers) - {layer.name for layer in layers if layer.kind in ("conv", "transposed")})
    if wrong:
        raise ValueError(f"no convolutions, so without a filter basis: {', '.join(wrong)}")
    # Groups change nothing here: each input channel is in one group, and its N maps serve that group.
    first_stage = sum(
        (layer.out_channels if layer.kind == "transposed" else layer.in_channels)
        * math.prod(layer.shape[2:]) ** 2
        * layer.positions
        for layer in layers
        if layer.name in basis_layers
    )
    return round(first_stage) + sparse_macs(layers, kept)


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
