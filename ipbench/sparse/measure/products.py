"""Which products of a forward pass use which tensor of the net, seen at torch's operators.

Hooks on modules miss every weight that is used without calling its module: torch's attention, torchvision's Swin,
`F.conv2d(x, layer.weight)`. Here every operator is seen, and it is followed what each tensor is made of: the image, or
tensors of the net alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

from ipbench.sparse.layers import extent
from ipbench.tasks.inputs import Inputs

#: What a tensor is made of: names of the net's tensors, none for a constant; None if the image is part of it.
Origin = frozenset[str] | None
_CONSTANT: frozenset[str] = frozenset()
#: Operators that give Python a number: what it does with it is not seen, and may be to choose which layers act.
READS = frozenset({"aten._local_scalar_dense", "aten.equal", "aten.allclose"})
#: What messages say of the class of a net.
CHOOSES = "since the forward of {} looks at their values"


class Product(NamedTuple):
    """A matrix product or convolution.

    Attributes:
        tensors: of the net, that one operand is made of.
        size: entries of that operand.
        macs: multiply-accumulates.
    """

    tensors: frozenset[str]
    size: int
    macs: int


class Products(TorchDispatchMode):
    """Collects the products of what happens within the block `watching`.

    Attributes:
        found: all products of tensors of the net with something else.
        met: the operators that are no products known here, by the name of a tensor that they join with the image.
        weights: names of those that belong to prunable weights.
        reads: whether a number was read that the image is part of (an `if`, `.item()`): what is done may depend on it.
    """

    def __init__(self, net: nn.Module, weights: Collection[str]) -> None:
        """Prepare to watch a net.

        Args:
            net: whose parameters and buffers are told apart.
            weights: those names of `net.named_parameters()` that belong to prunable weights.
        """
        super().__init__()
        self.found: list[Product] = []
        self.met: dict[str, set[str]] = {}
        self.reads, self.weights = False, frozenset(weights)
        self._net, self._calls = net, dict.fromkeys(weights, 0)
        self._computing = 0  # how many parametrisations are at work
        self._pending: list[Product] = []
        self._held: dict[StorageWeakRef, list[tuple[int, int, str]]] = {}
        # Weak references: memory is freed as without them, but no address is taken for that of another tensor.
        self._made: dict[StorageWeakRef, Origin] = {}
        for name, tensor in (*net.named_parameters(), *net.named_buffers()):
            if (key := _storage(tensor)) is not None:
                self._held.setdefault(key, []).append((*extent(tensor), name))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch would import its compiler to keep it away from here: seconds in every process

    @contextmanager
    def watching(self, *images: Tensor) -> Iterator[None]:
        """Within the block, all that is made of one of `images` counts as the image's."""
        for image in images:
            if (key := _storage(image)) is not None:
                self._made[key] = None
        with ExitStack() as stack:
            for handle in self._hooks():
                stack.callback(handle.remove)
            # Fused kernels hide their products.
            stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
            torch.backends.mha.set_fastpath_enabled(False)
            backends: tuple[Any, ...] = (torch.backends.mkldnn, torch.backends.cudnn)
            for backend in backends:
                stack.callback(setattr, backend, "enabled", backend.enabled)
                backend.enabled = False
            stack.enter_context(self)
            yield
        # What was made of the net's tensors and constants alone, and did not turn out to be a weight: activations.
        self.found += self._pending

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do what the operator does, and note it."""
        kwargs = kwargs or {}
        operands = _PRODUCTS.get(str(func.overloadpacket))
        if operands is None and func is not torch.ops.prim.device.default:
            with self:
                parts = func.decompose(*args, **kwargs)  # under inference mode composite operators come undivided
            if parts is not NotImplemented:
                return parts
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        origins = [self._origin(tensor) for tensor in tensors]
        origin = None if None in origins else _CONSTANT.union(*filter(None, origins))
        self.reads |= origin is None and str(func.overloadpacket) in READS
        if operands is not None and not self._computing:
            origin = None if self._note(*operands(*args, **kwargs)) else origin
        elif origin is None:
            for name in _CONSTANT.union(*filter(None, origins)):
                self.met.setdefault(name, set()).add(str(func.overloadpacket))
        result = func(*args, **kwargs)
        written = [
            value
            for value, fact in zip(args, func._schema.arguments, strict=False)
            if fact.alias_info is not None and fact.alias_info.is_write
        ]
        for tensor in tree_leaves((result, written)):
            key = _storage(tensor) if isinstance(tensor, Tensor) else None
            if key is not None and (key not in self._held or origin is None):
                self._made[key] = origin
        return result

    def _note(self, left: Tensor, right: Tensor, macs: int) -> bool:
        """Note a product; returns whether its result is the image's (or stands in for it, as a first state does)."""
        one, two = self._origin(left), self._origin(right)
        if not one and not two:  # of activations with one another
            return None in (one, two)
        if None in (one, two):
            weight = left if one else right
            product = Product(one or two or _CONSTANT, weight.numel(), macs)
            # Products that this weight was computed by are none of the image.
            self._pending = [other for other in self._pending if not other.tensors <= product.tensors]
            self.found.append(product)
            return True
        if self._called(right) and not (one and self._called(left)):  # a layer at work on a constant or a learned token
            self.found.append(Product(two or _CONSTANT, right.numel(), macs))
            return True
        self._pending.append(Product((one or _CONSTANT) | (two or _CONSTANT), (right if two else left).numel(), macs))
        return False

    def _origin(self, tensor: Tensor) -> Origin:
        key = _storage(tensor)
        if key is None:
            return None
        if key in self._made:
            return self._made[key]
        begin, end = extent(tensor)
        return frozenset(name for start, stop, name in self._held.get(key, ()) if max(begin, start) < min(end, stop))

    def _called(self, tensor: Tensor) -> bool:
        """Whether this is the weight of one of torch's own modules that is at work."""
        key = _storage(tensor)
        return key in self._held and any(self._calls.get(name) for name in self._origin(tensor) or ())

    def _hooks(self) -> Iterator[RemovableHandle]:
        names = {id(tensor): name for name, tensor in self._net.named_parameters()}
        for module in self._net.modules():
            if isinstance(module, parametrize.ParametrizationList):
                yield module.register_forward_pre_hook(lambda *_: self._compute(1))
                yield module.register_forward_hook(lambda *_: self._compute(-1))
            elif type(module).forward.__module__.startswith("torch.nn.modules."):
                own = [names[id(tensor)] for tensor in module.parameters(recurse=False)]
                yield module.register_forward_pre_hook(lambda *_, own=own: self._call(own, 1))
                yield module.register_forward_hook(lambda *_, own=own: self._call(own, -1))

    def _compute(self, change: int) -> None:
        self._computing += change

    def _call(self, names: list[str], change: int) -> None:
        for name in names:
            if name in self._calls:
                self._calls[name] += change


def used_for_some(net: nn.Module, first: Products, inputs: Inputs) -> str:
    """The first tensor by name that a net uses for some inputs and not for others, or otherwise; '' if there is none.

    Args:
        net: in the mode in which `first` watched it.
        first: what was found with `inputs`. A net that has not looked at values then is not run again.
        inputs: others have their shapes: ones, minus ones and random numbers.
    """
    fills: tuple[Callable[[Tensor], Tensor], ...] = (
        torch.ones_like, lambda tensor: -torch.ones_like(tensor), torch.randn_like,
    )  # fmt: skip
    for fill in fills if first.reads else ():
        others = inputs.mapped(_filled(fill))
        again = Products(net, first.weights)
        try:
            with again.watching(*others.tensors):
                others.of(net)
        except Exception:  # whatever a forward raises that checks what it is given: it takes no such inputs
            continue
        differing = Counter(first.found)
        differing.subtract(again.found)
        if names := sorted(name for product, times in differing.items() if times for name in product.tensors):
            return names[0]
    return ""


def _filled(fill: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`fill` of floating-point tensors; others, such as numbers of words, have values that mean something."""
    return lambda tensor: fill(tensor) if tensor.is_floating_point() else tensor


def _storage(tensor: Tensor) -> StorageWeakRef | None:
    """The memory that a tensor and its views share; None for kinds of tensors that have none."""
    try:
        return StorageWeakRef(tensor.untyped_storage())
    except (NotImplementedError, RuntimeError):
        return None


def _matrices(left: Tensor, right: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor, int]:
    """(..., m, k) @ (..., k, n), or (m, k) @ (k,)."""
    return left, right, left.numel() * (right.shape[-1] if right.dim() > 1 else 1)


def _added(_: Tensor, left: Tensor, right: Tensor, *__: Any, **___: Any) -> tuple[Tensor, Tensor, int]:
    return _matrices(left, right)


def _linear(values: Tensor, weight: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor, int]:
    return values, weight, values.numel() * (weight.shape[0] if weight.dim() > 1 else 1)


def _bilinear(one: Tensor, weight: Tensor, two: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor, int]:
    """`torch.bilinear`'s own operator: rows first; every weight is used once per row."""
    return one, weight, one.shape[0] * weight.numel()


def _convolution(
    values: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
    *_: Any,
) -> tuple[Tensor, Tensor, int]:
    """Every weight is used once per output position, of a transposed convolution per input position."""
    sides, kernel = values.shape[2:], weight.shape[2:]
    if transposed:
        positions = math.prod(sides)
    else:
        steps, pads, spreads = (  # a single number stands for all sides
            list(option) * (len(sides) if len(option) == 1 else 1) for option in (stride, padding, dilation)
        )
        positions = math.prod(
            (side + 2 * pad - spread * (width - 1) - 1) // step + 1
            for side, width, step, pad, spread in zip(sides, kernel, steps, pads, spreads, strict=True)
        )
    return values, weight, weight.numel() * values.shape[0] * positions


#: Operator -> from its arguments: the two operands and the multiply-accumulates.
_PRODUCTS: dict[str, Callable[..., tuple[Tensor, Tensor, int]]] = {
    **dict.fromkeys(("aten.mm", "aten.bmm", "aten.mv", "aten.dot", "aten.vdot"), _matrices),
    **dict.fromkeys(("aten.addmm", "aten.baddbmm", "aten.addbmm", "aten.addmv", "aten._addmm_activation"), _added),
    "aten.linear": _linear,
    "aten._trilinear": _bilinear,
    "aten.convolution": _convolution,
}
