"""Whether a sliced net computes what its masked twin computes."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ipbench.sparse.groups import Groups
from ipbench.sparse.slicing import mask_net, plan, slice_net
from ipbench.sparse.trial import outputs


def images(*shapes: Sequence[int], kind: torch.dtype = torch.float64, seed: int = 3) -> list[Tensor]:
    """Two images of every shape."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn((2, *shape), generator=generator, dtype=kind) for shape in shapes]


def half(groups: Groups, seed: int = 0) -> dict[str, np.ndarray]:
    """About half of the units of every free group, at random."""
    generator = np.random.default_rng(seed)
    removed = {}
    for group in groups.free:
        gone = generator.random(group.units) < 0.5
        gone[generator.integers(group.units)] = False
        removed[group.name] = np.flatnonzero(gone)
    return removed


def entries(net: nn.Module) -> dict[str, int]:
    """Entries of every parameter."""
    return {name: tensor.numel() for name, tensor in net.named_parameters()}


def check_slice_is_mask(
    net: nn.Module,
    groups: Groups,
    removed: Mapping[str, Sequence[int] | np.ndarray],
    shape: Sequence[int],
    kind: torch.dtype = torch.float64,
) -> nn.Module:
    """Assert that the sliced and the masked net agree in both modes; returns the sliced one.

    Args:
        net: uncut.
        groups: of it.
        removed: units by group.
        shape: of one image.
        kind: of all numbers. Norms of few values in training mode enlarge the rounding of single precision by the root
            of their eps: it is larger then.
    """
    net = copy.deepcopy(net).to(kind)
    for module in net.modules() if kind == torch.float32 else ():
        if isinstance(module, _NormBase):
            module.eps = 1.0
    cut = plan(groups, removed)
    masked, sliced = copy.deepcopy(net), copy.deepcopy(net)
    mask_net(masked, cut)
    slice_net(sliced, cut)
    given = images(shape, kind=kind)
    for one, two in zip(outputs(masked, given), outputs(sliced, given), strict=True):
        assert one.shape == two.shape
        assert (one - two).abs().max() < (1e-5 if kind == torch.float32 else 1e-9) * one.abs().max()
    gone = sum(entries(net).values()) - sum(entries(sliced).values())
    assert gone >= sum(len(units) for units in removed.values()), "a unit has no parameter"
    return sliced
