"""A trial of groups: is the net without some units the net with zeros in their place?

What a trace cannot see is written into a net's forward: a size, a number of groups. So a copy loses units of all groups
at once and is compared with its masked twin; where they differ, it is searched which groups it is.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._python_dispatch import TorchDispatchMode

from ipbench.errors import BadInput
from ipbench.sparse.channels import Groups
from ipbench.sparse.slicing import mask_net, plan, slice_net
from ipbench.tasks.inputs import Inputs

#: Largest difference of outputs as a share of the largest output; what single precision leaves open, double decides.
_TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-6}


def breaking(net: nn.Module, groups: Groups, images: Inputs) -> dict[str, str]:
    """The groups whose units cannot be removed although the trace says so, each with a reason.

    Args:
        net: in single precision; it stays as it is.
        groups: those to try are its free ones.
        images: what the net is given.

    Raises:
        BadInput: the net gives values that are not finite.
    """
    found: dict[str, str] = {}
    while names := [group.name for group in groups.free if group.name not in found]:
        bad = _search(net, groups, names, images)
        if not bad:
            break
        found |= bad
    return found


def _search(net: nn.Module, groups: Groups, names: list[str], images: Inputs) -> dict[str, str]:
    """Which of some groups break the net, by halves; all of them if it breaks only if they are cut together."""
    reason = _difference(net, groups, names, images)
    if not reason:
        return {}
    if len(names) == 1:
        return {names[0]: reason}
    half = len(names) // 2
    found = _search(net, groups, names[:half], images) | _search(net, groups, names[half:], images)
    return found or dict.fromkeys(names, reason)


def _difference(net: nn.Module, groups: Groups, names: list[str], images: Inputs) -> str:
    """What goes wrong without about half of the units of some groups; empty if nothing does."""
    generator = np.random.default_rng(0)
    removed = {}
    for name in names:
        units = groups[name].units
        removed[name] = np.sort(generator.permutation(units)[: max(1, units // 2)])
    cut = plan(groups, removed)
    for kind, tolerance in _TOLERANCES.items():
        twin = copy.deepcopy(net).to(kind)
        inputs = images.like(torch.empty(0, dtype=kind))
        mask_net(twin, cut)
        wanted = outputs(twin, inputs)
        if not all(bool(one.isfinite().all()) for one in wanted):
            if all(bool(one.isfinite().all()) for one in outputs(net, images)):
                return "something is divided by its values"
            raise BadInput("the net gives values that are not finite on random images; its groups cannot be tried")
        try:
            slice_net(twin, cut)
            found = outputs(twin, inputs)
        except Exception as error:  # whatever a forward raises
            line = (str(error).splitlines() or [type(error).__name__])[0]
            return f"a size is written into a forward, without some channels it fails: {line:.120}"
        if all(_near(one, two, tolerance) for one, two in zip(wanted, found, strict=True)):
            return ""
    return "a number is written into a forward, without some channels it gives something else"


def _near(one: Tensor, two: Tensor, tolerance: float) -> bool:
    return one.shape == two.shape and bool((one - two).abs().max() <= tolerance * one.abs().max())


def outputs(net: nn.Module, images: Inputs | Sequence[Tensor]) -> list[Tensor]:
    """All tensors that a net returns in evaluation and in training mode; nothing of it changes.

    Args:
        net: any module.
        images: its arguments.
    """
    inputs = images if isinstance(images, Inputs) else Inputs(*images)
    modes = [(module, module.training) for module in net.modules()]
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    found = []
    with torch.no_grad(), torch.random.fork_rng(devices=[]), _Certain():
        for training in (False, True):
            net.train(training)
            found += [tensor.clone() for tensor in returned(inputs.of(net))]
        for name, buffer in net.named_buffers():
            buffer.copy_(buffers[name])
    for module, training in modes:
        module.training = training
    return found


def returned(value: object) -> Iterator[Tensor]:
    """All tensors in what a net returns: in lists, mappings, dataclasses and other objects."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from returned(part)
    elif isinstance(value, list | tuple | set | frozenset):
        for part in value:
            yield from returned(part)
    elif hasattr(value, "__dict__") and not isinstance(value, type | ModuleType | nn.Module):
        yield from returned(vars(value))


def stir(net: nn.Module) -> None:
    """Give a net random values that hide nothing, and that no rounding spoils.

    A norm of zeros in a branch, or the zeros of a pruned net, would make every cut right. A norm of few values that are
    nearly the same, in training mode, would enlarge rounding by the root of its eps.

    Args:
        net: changed in place: tensors, and the eps of batch norms. Weights are drawn as He et al. (2015) do, so that
            what enters a deep net is still seen where it ends.
    """
    for module in net.modules():
        if isinstance(module, _NormBase):
            module.eps = max(module.eps, 1.0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in (*net.parameters(), *net.buffers()):
            if not tensor.is_floating_point() or not tensor.numel():
                continue
            if tensor.numel() == 1 and tensor.item():
                continue  # a number that may mean something
            if tensor.dim() < 2:
                tensor.copy_(torch.rand(tensor.shape, generator=generator, dtype=torch.float64) + 0.5)
            else:
                scale = (2 / max(1, tensor[0].numel())) ** 0.5
                tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64) * scale)


def settle(net: nn.Module, images: Inputs) -> None:
    """Let batch norms take over the statistics of these images, so that they normalise in evaluation mode too.

    Args:
        net: changed in place.
        images: its arguments.
    """
    norms = [module for module in net.modules() if isinstance(module, _NormBase)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad(), torch.random.fork_rng(devices=[]), _Certain():
        net.train()
        images.of(net)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


class _Certain(TorchDispatchMode):
    """Within the block random numbers are constants: nets of different widths would draw different ones."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch would import its compiler to keep it away from here: seconds in every process

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        return result.fill_(1) if str(func.overloadpacket) in _RANDOM else result


_RANDOM = frozenset(
    f"aten.{name}"
    for name in (
        "bernoulli_", "bernoulli", "uniform_", "normal_", "rand", "randn", "rand_like", "randn_like",
    )
)  # fmt: skip
