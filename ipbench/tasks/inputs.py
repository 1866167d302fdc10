"""What a net is called with: positional and named arguments, with tensors wherever they lie in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map


class Inputs:
    """The arguments of one call of a net.

    Attributes:
        args: positional ones.
        named: keyword arguments.
        call: what is called with the net and them, in place of the net.
    """

    call: Callable[..., Any] | None = None

    def __init__(self, *args: Any, **named: Any) -> None:
        """The arguments as a call would have them: `Inputs(tokens, mask=mask)`."""
        self.args, self.named = args, named

    def __deepcopy__(self, memo: dict[int, Any]) -> Inputs:
        return self  # never changed in place

    def of(self, net: nn.Module) -> Any:
        """What a net gives for them."""
        return self.call(net, *self.args, **self.named) if self.call else net(*self.args, **self.named)

    def by(self, call: Callable[..., Any] | None) -> Inputs:
        """The same arguments, for a call of something else than the net's forward."""
        result = Inputs(*self.args, **self.named)
        result.call = call
        return result

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors in them: in lists, tuples and dicts too."""
        return [leaf for leaf in tree_leaves((self.args, self.named)) if isinstance(leaf, Tensor)]

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Inputs:
        """The same arguments with `function(tensor)` in place of every tensor."""
        args, named = tree_map(
            lambda leaf: function(leaf) if isinstance(leaf, Tensor) else leaf, (self.args, self.named)
        )
        return Inputs(*args, **named).by(self.call)

    def like(self, tensor: Tensor) -> Inputs:
        """On the device of a tensor, and floating-point ones in its type."""
        return self.mapped(lambda t: t.to(tensor.device, tensor.dtype if t.is_floating_point() else t.dtype))


def as_inputs(value: Any) -> Inputs:
    """Inputs as they are; a tuple is several positional arguments, anything else is the only one."""
    if isinstance(value, Inputs):
        return value
    return Inputs(*value) if type(value) is tuple else Inputs(value)
