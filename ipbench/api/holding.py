"""What keeps masked coefficients where they are, whatever the optimiser: masked gradients, and a hook on its steps.

torch calls a hook before and after every step of every optimiser (`torch.optim.Optimizer`). Behind a step, what is
masked gets its value back, bit for bit: no momentum, decay, noise or rounding of an optimiser moves it. Gradients are
masked before they are accumulated, so that moments, norms of gradients and sums over processes know nothing of it.
"""

from __future__ import annotations

import weakref
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

if TYPE_CHECKING:
    from ipbench.api.pruned import Pruned

#: The nets that are alive.
_HELD: weakref.WeakSet[Pruned] = weakref.WeakSet()


def hold(net: Pruned) -> None:
    """Keep the masked coefficients of a net where they are, for as long as it lives."""
    owner = weakref.ref(net)
    for name, parameter in net.held():
        parameter.register_hook(_masking(owner, name))
    _HELD.add(net)
    _listen()


def _masking(owner: weakref.ref[Pruned], name: str) -> Any:
    """A hook on a gradient: zero where the mask is; not a product, since an overflow of mixed precision times zero is
    no number."""

    def masked(gradient: Tensor) -> Tensor | None:
        net = owner()
        mask = None if net is None else net.mask_of_gradient(name)
        return None if mask is None else torch.where(mask, gradient, 0)

    return masked


@cache
def _listen() -> None:
    """Ask torch, once in a process, to be called before and after every step."""
    register_optimizer_step_pre_hook(_before)
    register_optimizer_step_post_hook(_after)


def _before(optimiser: Optimizer, *_: Any) -> None:
    for net in _of(optimiser):
        net.before_step(optimiser)


def _after(optimiser: Optimizer, *_: Any) -> None:
    for net in _of(optimiser):
        net.restore()


def _of(optimiser: Optimizer) -> list[Pruned]:
    """The nets of which an optimiser trains something."""
    if not _HELD:
        return []
    trained = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
    return [net for net in _HELD if any(id(parameter) in trained for _, parameter in net.held())]


def forget_moments(optimiser: Optimizer, parameter: nn.Parameter, stay: Tensor) -> None:
    """Set what an optimiser remembers of a parameter's entries to zero, but where `stay` is true."""
    for value in optimiser.state.get(parameter, {}).values():
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            value.masked_fill_(stay.logical_not(), 0)
