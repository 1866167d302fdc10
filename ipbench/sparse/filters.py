"""The filters of a net in the interspace, those of many layers built at once.

The filters of a layer are a product of two small matrices, coefficients and filter basis (FB), and two more products
give its gradients. A small net on a GPU takes as long as the host needs to start the kernels. So all that surrounds
the products, a node of autograd and a block of full precision, is there once for many layers and not for each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.graph import disable_saved_tensors_hooks
from torch.nn.utils import parametrize

from ipbench.machine.precision import full_precision

if TYPE_CHECKING:
    from ipbench.sparse.spaces import FilterBasis, Interspace

#: Coefficients from which on no more layers are put to those that are built at once. Large nets are not bound by the
#: host; and several processes exchange the gradients of the last layers while those of the first ones are formed.
ENOUGH = 1 << 22


class Together(NamedTuple):
    """Layers whose filters are built at once.

    Attributes:
        interspaces: of these layers.
        held: what holds the coefficients of each, as its attribute `original`.
        bases: their FBs, each once.
        which: the number of the FB of each layer.
    """

    interspaces: tuple[Interspace, ...]
    held: tuple[parametrize.ParametrizationList, ...]
    bases: tuple[FilterBasis, ...]
    which: tuple[int, ...]


def divided(held: Sequence[parametrize.ParametrizationList], enough: int = ENOUGH) -> list[Together]:
    """Layers in the order of their net as groups that are built at once: layers that share an FB lie in one of them.

    Args:
        held: the parametrisations of the layers.
        enough: a group that has so many coefficients takes no more layers.
    """
    interspaces = [cast("Interspace", one[0]) for one in held]
    bases = [interspace.basis for interspace in interspaces]
    last = {basis: place for place, basis in enumerate(bases)}
    groups: list[Together] = []
    first = size = until = 0
    for place, one in enumerate(held):
        size, until = size + one.original.numel(), max(until, last[bases[place]])
        if place == len(held) - 1 or (size >= enough and until == place):
            part = slice(first, place + 1)
            own = list(dict.fromkeys(bases[part]))
            which = tuple(own.index(basis) for basis in bases[part])
            groups.append(Together(tuple(interspaces[part]), tuple(held[part]), tuple(own), which))
            first, size = place + 1, 0
    return groups


class Building:
    """Builds the filters of a net in every forward pass that runs in the block of `a_pass`.

    Attributes:
        now: the pass that runs; None outside of one, where each layer builds its own filters.
    """

    def __init__(self) -> None:
        self.now: _Pass | None = None

    @contextmanager
    def a_pass(self, groups: Mapping[Interspace, Together]) -> Iterator[None]:
        """A forward pass of the net.

        Args:
            groups: by interspace, the layers that are built with it.
        """
        before, self.now = self.now, _Pass(groups)
        try:
            yield
        finally:
            self.now = before


class _Pass:
    """A forward pass: filters that are built and not asked for yet."""

    def __init__(self, groups: Mapping[Interspace, Together]) -> None:
        self._groups = groups
        self._mode = _mode()
        self._ready: dict[Interspace, tuple[Tensor, Tensor, int, list[int]] | None] = {}

    def take(self, interspace: Interspace, coefficients: Tensor) -> Tensor | None:
        """The filters of a layer, the first time that they are asked for; None if the layer has to build them itself.

        It has to in a part of the pass that runs without gradients, or is computed again in the backward pass; with
        other coefficients; and when a module is called again, so that gradients are summed as if every call had built
        its own.
        """
        if _mode() != self._mode:
            return None
        if interspace not in self._ready:
            self._build(self._groups[interspace])
        found = self._ready[interspace]
        if found is None or found[1] is not coefficients:
            return None
        self._ready[interspace] = None
        filters, _, number, order = found
        order.append(number)
        return filters

    def _build(self, group: Together) -> None:
        originals = [one.original for one in group.held]
        order: list[int] = []
        with _exactly(originals[0].device):
            found = _Combined.apply(group.which, order, *originals, *[basis.matrix for basis in group.bases])
        for number, interspace in enumerate(group.interspaces):
            self._ready[interspace] = found[number], originals[number], number, order


def _mode() -> tuple[bool, bool, bool]:
    """Whether gradients are recorded, whether inference mode is on, and whether hooks take what a graph saves.

    Such hooks are how checkpoints see what a part of a net saves: it must be the same when the part is computed again.
    """
    hooked = False
    try:
        with disable_saved_tensors_hooks("no hooks here"):  # an error if there are any
            pass
    except RuntimeError:
        hooked = True
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), hooked


@contextmanager
def _exactly(device: torch.device) -> Iterator[None]:
    """Within the block, products of float32 are of float32: neither autocast nor TF32 rounds their factors."""
    with torch.autocast(device.type, enabled=False), full_precision():
        yield


class _Combined(torch.autograd.Function):
    """Of several layers the filters h = c F, for coefficients c whose last axes are the N entries of a filter.

    Its arguments: the number of the FB of each layer; the numbers of the layers in the order in which their filters are
    used, a list that may grow until the backward pass; the coefficients of all layers; the FBs (N, N), each once.
    """

    @staticmethod
    def forward(ctx: Any, which: tuple[int, ...], order: list[int], *tensors: Tensor) -> tuple[Tensor, ...]:
        """The filters, each in the shape of its coefficients and contiguous."""
        ctx.which, ctx.order = which, order
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        bases = tensors[len(which) :]
        return tuple(_product(c, bases[number]) for c, number in zip(tensors[: len(which)], which, strict=True))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        """G F^T for coefficients, and c^T G for FBs: summed from the layer that is used last to the first one.

        So one layer after the other would have been summed, whose filters are built where they are used.
        """
        which, tensors = ctx.which, ctx.saved_tensors
        count = len(which)
        needed, result = ctx.needs_input_grad[2:], [None] * len(tensors)
        used = {place: g for place in reversed(ctx.order) if (g := gradients[place]) is not None}
        own = [place for place in used if needed[place]]
        charged = [place for place in used if needed[count + which[place]]]
        with _exactly(tensors[0].device):
            if own:
                turned = [basis.t() for basis in tensors[count:]]
                numbers, order = tuple(which[place] for place in own), list(range(len(own)))
                found = _Combined.apply(numbers, order, *[used[place] for place in own], *turned)
                for place, gradient in zip(own, found, strict=True):
                    result[place] = gradient
            if charged:
                parts = _Correlated.apply(*[tensors[place] for place in charged], *[used[place] for place in charged])
                for place, part in zip(charged, parts, strict=True):
                    basis, so_far = count + which[place], result[count + which[place]]
                    result[basis] = part if so_far is None else so_far + part
        return None, None, *result


class _Correlated(torch.autograd.Function):
    """Of several layers c^T G, of shape (N, N), for coefficients c and gradients G of filters.

    Its arguments: the coefficients of all layers, and then the gradients.
    """

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        """A matrix for each layer."""
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        half = len(tensors) // 2
        return tuple(_flat(c).t().mm(_flat(g)) for c, g in zip(tensors[:half], tensors[half:], strict=True))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """Of a gradient H: G H^T for coefficients, and c H for what was their gradient."""
        tensors, half = ctx.saved_tensors, len(gradients)
        result: list[Tensor | None] = [None] * len(tensors)
        used = [(place, h) for place, h in enumerate(gradients) if h is not None]
        with _exactly(tensors[0].device):
            for first, other, turn in ((0, half, True), (half, 0, False)):
                pairs = [(place, h.t() if turn else h) for place, h in used if ctx.needs_input_grad[first + place]]
                if pairs:
                    numbers = tuple(range(len(pairs)))
                    factors = [tensors[other + place] for place, _ in pairs]
                    found = _Combined.apply(numbers, list(numbers), *factors, *[h for _, h in pairs])
                    for (place, _), gradient in zip(pairs, found, strict=True):
                        result[first + place] = gradient
        return tuple(result)


def _flat(values: Tensor) -> Tensor:
    """Filters (c_out, c_in / groups, *kernel) as the rows of a matrix."""
    return values.reshape(-1, values.shape[2:].numel())


def _product(coefficients: Tensor, basis: Tensor) -> Tensor:
    """c F in the shape of c; not as a view, so that a module may change it in place."""
    return coefficients.reshape(-1, len(basis)).mm(basis).resize_(coefficients.shape)
