"""The pattern N:M: of every M consecutive inputs of a filter the N best stay."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ipbench import keys
from ipbench.sparse.layers import TRANSPOSED, Weight
from ipbench.sparse.selection import NotFinite

#: Layers that read so few channels, the colours of an image, are left dense, whatever M is.
_COLOURS = 3


def input_axes(layers: Mapping[str, Weight], shapes: Mapping[str, tuple[int, ...]], m: int) -> dict[str, int]:
    """The axis of the inputs of every layer that has the pattern; the others stay dense.

    A layer has it if M divides its number of inputs (of one group, where a convolution has several) and it has more
    than three of them.

    Args:
        layers: the prunable weights by the name of their layer.
        shapes: of their coefficients.
        m: the M.
    """
    axes = {}
    for name, shape in shapes.items():
        module, axis, inputs = layers[name].module, 1, shape[1]
        if isinstance(module, TRANSPOSED):  # its weight has the inputs of all groups, one group after the other
            axis, inputs = 0, shape[0] // module.groups
        if inputs % m == 0 and inputs > _COLOURS:
            axes[name] = axis
    return axes


def best_of(scores: Tensor, axis: int, n: int, m: int, tie_key: int) -> Tensor:
    """The mask that keeps the N largest of every M consecutive entries along an axis.

    Args:
        scores: of a layer, finite; M divides the axis.
        axis: of the inputs.
        n: to be kept of each group.
        m: entries of a group.
        tie_key: orders equal scores by their place.

    Returns:
        A boolean tensor in the shape of `scores`, on its device.
    """
    values = scores.detach().cpu().numpy()
    places = np.arange(values.size).reshape(values.shape)
    grouped, own = (np.moveaxis(array, axis, -1).reshape(-1, m) for array in (values, places))
    order = np.lexsort((keys.indexed_bits(tie_key, own), -grouped), axis=-1)[:, :n]
    kept = np.zeros(values.size, dtype=bool)
    kept[np.take_along_axis(own, order, axis=1).ravel()] = True
    return torch.from_numpy(kept).view(scores.shape).to(scores.device)


def select(
    scores: Mapping[str, Tensor],
    axes: Mapping[str, int],
    n: int,
    m: int,
    *,
    tie_key: int,
    among: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """The masks that keep N of every M in the layers that have the pattern, and the others whole.

    Args:
        scores: a number per coefficient by layer; larger = keep.
        axes: of `input_axes`.
        n: to be kept of each group.
        m: entries of a group.
        tie_key: orders equal scores by their place.
        among: masks; what they leave out is kept only where a group has no N others.

    Raises:
        NotFinite: a score is not finite.
    """
    masks = {}
    for place, (name, score) in enumerate(scores.items()):
        if not bool(torch.isfinite(score).all()):
            raise NotFinite(f"a score in layer {name} is not finite")
        if name not in axes:
            masks[name] = torch.ones_like(score, dtype=torch.bool)
            continue
        ranked = torch.where(among[name].to(score.device), score, torch.full_like(score, -torch.inf))
        masks[name] = best_of(ranked, axes[name], n, m, keys.splitmix64(tie_key + place))
    return masks


def most_of(mask: Tensor, axis: int, m: int) -> int:
    """The most entries that any group of M along an axis keeps."""
    return int(mask.movedim(axis, -1).reshape(-1, m).sum(dim=1).max())
