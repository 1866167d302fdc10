"""Which weights of a net are not pruned, and why."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from ipbench.api.plan import WHERE
from ipbench.errors import BadInput
from ipbench.sparse.layers import check_prunable, prunable_weights
from ipbench.sparse.spaces import check_held_by_modules
from ipbench.spec import Run


def left_out(net: nn.Module, run: Run, skip: Iterable[str]) -> dict[str, str]:
    """The prunable layers that are left as they are, with a reason each.

    Args:
        net: of the user.
        run: gives the space: two weights that are one in `sp` cannot always be one in `ip`.
        skip: names of layers, or of modules that hold some.

    Raises:
        BadInput: a name of `skip` is none, or nothing is left to be pruned.
    """
    layers, reasons = prunable_weights(net), dict[str, str]()
    names = [skip] if isinstance(skip, str) else list(skip)
    for start in names:
        found = [name for name in layers if name == start or name.startswith(f"{start}.")]
        if not found:
            raise BadInput(f"{WHERE}: skip: {start!r:.80} is no prunable layer, nor holds one; valid: {_some(layers)}")
        reasons.update(dict.fromkeys(found, "as you asked (skip)"))
    for name, layer in layers.items():
        if name in reasons:
            continue
        try:
            check_prunable(net, {name: layer})
            if run.space == "ip":
                check_held_by_modules(net, {name: layer}, run.basis)
        except BadInput as error:
            reasons[name] = str(error).partition(": ")[2]
    if len(reasons) == len(layers):
        why = "; ".join(f"{name}: {reason}" for name, reason in list(reasons.items())[:3])
        raise BadInput(
            f"{WHERE}: this {type(net).__name__} has no weight that can be pruned{f' ({why})' if why else ''}"
        )
    return {name: reasons[name] for name in layers if name in reasons}


def _some(names: Iterable[str]) -> str:
    every = list(names)
    return ", ".join(every[:12]) + (f", ... ({len(every)} in all)" if len(every) > 12 else "")
