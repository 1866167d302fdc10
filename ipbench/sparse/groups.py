"""Which channels of a net belong together.

The public interface, in this file, `slicing.py` and `sliced.py`:

    groups = channel_groups(net, (3, 32, 32))       # Groups; `groups.free`, `groups.frozen`, each frozen one says why
    group = groups["stage1.block1.conv1"]           # .units, .members, .producers, .consumers, .reason
    cut = plan(groups, {group.name: [0, 3]})        # Cut: checked, plain data, JSON by to_json / from_json
    mask_net(net, cut)                              # in place: the same units zero everywhere, shapes as before
    slice_net(net, cut)                             # in place: smaller tensors; equals the masked net to rounding
    dead(groups, net)                               # group -> units all of whose filters are zero
    cut.take("stage1.block1.conv1.weight", values)  # the same slices of a mask or a momentum
    Sliced(count, groups, kept).macs()              # of the sliced net, from numbers of kept units alone
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ipbench.errors import BadInput
from ipbench.sparse.channel_rules import rule_of, unknown
from ipbench.sparse.channels import Group, Groups, Member
from ipbench.sparse.coupling import coupled
from ipbench.sparse.example import Example, example_of
from ipbench.sparse.layers import RECURRENT, Use, prunable_weights
from ipbench.sparse.measure.products import CHOOSES, Products, used_for_some
from ipbench.sparse.spaces import Interspace, leave_interspace
from ipbench.sparse.trace import Trace
from ipbench.sparse.trial import breaking, returned, settle, stir
from ipbench.tasks.inputs import Inputs

__all__ = ["Group", "Groups", "Member", "channel_groups"]


def channel_groups(net: nn.Module, shape: Example | Sequence[int] | Sequence[Sequence[int]]) -> Groups:
    """The groups of coupled channels of a net: what can be removed only together, and what not at all.

    A copy of the net is run on two images in evaluation and in training mode, and it is followed which channel every
    entry of every tensor belongs to (`trace`, `channel_rules`). Then a copy loses half of the units and is compared
    with zeros in their place (`trial`): what is written into a forward freezes the channels that it would break.

    Args:
        net: any module, in either space, on any device, also without values (`meta`); it stays as it is.
        shape: of one image, e.g. (C, H, W); a sequence of shapes for a net with several inputs; or what else it is
            called with.

    Returns:
        Groups in the order of the net. They do not depend on its values, nor on the machine. The channels of the image
        and of what the net returns cannot be removed.

    Raises:
        BadInput: the net cannot be run so, has weights that cannot be told apart (`prunable_weights`), or may choose by
            values which of its layers act.
    """
    with usual_operators():
        plain = _plain_copy(net)
        prunable_weights(plain)
        images = example_of(shape).several()
        groups = coupled(_traced(plain, images))
        broken = _tried(plain, groups, images)
    found = [
        replace(group, reason=f"layer {group.producers[0].layer}: {broken[group.name]}")
        if group.name in broken
        else group
        for group in groups
    ]
    return replace(groups, groups=tuple(found))


def _tried(plain: nn.Module, groups: Groups, images: Inputs) -> dict[str, str]:
    """The groups that a trial finds to break the net, with reasons.

    Raises:
        BadInput: the net cannot be tried.
    """
    try:
        settle(plain, images)
        return breaking(plain, groups, images)
    except BadInput:
        raise
    except Exception as error:  # whatever a forward raises
        line = (str(error).splitlines() or [""])[0]
        raise BadInput(
            f"the net cannot be run with ones in place of random numbers: {type(error).__name__}: {line:.120}"
        ) from error


@contextmanager
def usual_operators() -> Iterator[None]:
    """Within the block torch chooses operators as it does in mode `fast`: groups depend on no mode.

    Deterministic algorithms take some operators apart, into ones that nothing is known of; so does inference mode.
    """
    mode = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("default")
    try:
        with torch.inference_mode(False):
            yield
    finally:
        torch.set_deterministic_debug_mode(mode)


def _plain_copy(net: nn.Module) -> nn.Module:
    """A copy on the CPU in single precision and space `sp`, with values that hide nothing."""

    def here(tensor: Tensor) -> Tensor:
        kind = torch.float32 if tensor.is_floating_point() else tensor.dtype
        if tensor.is_meta:
            return torch.zeros(tensor.shape, dtype=kind)
        return tensor.to("cpu", kind, copy=True)

    plain = replica(net, here)
    uses: dict[int, list[Use]] = {}  # of each coefficients: tied weights stay tied
    for module in plain.modules():
        if not parametrize.is_parametrized(module):
            continue
        assert isinstance(module.parametrizations, nn.ModuleDict)
        for name, made in module.parametrizations.items():
            if isinstance(made, parametrize.ParametrizationList) and isinstance(made[0], Interspace):
                uses.setdefault(id(made.original), []).append(Use(module, name))
    for held in uses.values():
        leave_interspace(held, getattr(*held[0]).detach())
    stir(plain)
    return plain


def replica(net: nn.Module, make: Callable[[Tensor], Tensor]) -> nn.Module:
    """A copy of a net with other tensors in place of its own."""
    tensors: dict[int, Tensor] = {
        id(tensor): nn.Parameter(make(tensor.detach()), requires_grad=False) for tensor in net.parameters()
    }
    tensors.update((id(tensor), make(tensor)) for tensor in net.buffers())
    return copy.deepcopy(net, tensors)


def _traced(net: nn.Module, images: Inputs) -> Trace:
    """The trace of a net in both modes.

    Labels do not depend on values: the net is traced without any, which takes no time. A forward that asks for values
    is traced with them.
    """
    shadow = replica(net, lambda tensor: tensor.to("meta"))
    try:
        return _traced_once(shadow, images.mapped(lambda image: image.to("meta")))
    except Exception:  # whatever a forward raises; it raises it again below if it is the net's own
        return _traced_once(copy.deepcopy(net), images)


def _traced_once(net: nn.Module, images: Inputs) -> Trace:
    trace = Trace(net, rule_of, unknown)
    _freeze_states(trace, net)
    results: list[Tensor] = []
    with torch.random.fork_rng(devices=[]):
        for training in (False, True):
            net.train(training)
            try:
                with trace.watching(images.tensors):
                    result = images.of(net)
                results += returned(result)
            except Exception as error:  # whatever a forward raises
                mode = "training" if training else "evaluation"
                line = (str(error).splitlines() or [type(error).__name__])[0]
                sides = ", ".join(str(tuple(image.shape)) for image in images.tensors)
                raise BadInput(f"the net cannot be run on images of shape {sides} in {mode} mode: {line}") from error
    if not results:
        raise BadInput(f"the net returns no tensors (got {type(result).__name__})")
    if trace.reads:
        _refuse_choice(net, images, [held.name for held in trace.held if held.axes and not held.used])
    for tensor in results:
        trace.freeze(trace.labels(tensor), "the net returns its channels")
    return trace


def _refuse_choice(net: nn.Module, images: Inputs, unused: Sequence[str]) -> None:
    """Raise `BadInput` if a net that looks at values of the images may choose by them which of its layers act.

    Args:
        net: it.
        images: what it was traced with.
        unused: names of weights that this trace has not met: another image may.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for training in (False, True):
            net.train(training)
            products = Products(net, ())
            with products.watching(*images.tensors):
                images.of(net)
            if not products.reads:
                continue
            chooses = CHOOSES.format(type(net).__name__)
            end = "the channels of such a net cannot be followed"
            if unused:
                raise BadInput(f"{unused[0]}: not used for what was tried, but perhaps for others, {chooses}; {end}")
            if name := used_for_some(net, products, images):
                raise BadInput(f"{name}: used for some inputs and not for others, {chooses}; {end}")


def _freeze_states(trace: Trace, net: nn.Module) -> None:
    """Modules that know their own width: attention, and recurrent layers but for their inputs."""
    held = {held.name: held for held in trace.held}
    for path, module in net.named_modules():
        if not isinstance(module, (*RECURRENT, nn.MultiheadAttention)):
            continue
        for name, _ in module.named_parameters():
            entry = held.get(f"{path}.{name}" if path else name)
            if entry is None:
                continue
            inputs = isinstance(module, RECURRENT) and name in ("weight_ih", "weight_ih_l0", "weight_ih_l0_reverse")
            for axis, nodes in enumerate(entry.axes):
                if not (inputs and axis == 1):
                    trace.freeze(nodes, f"{type(module).__name__} {path} has one width for all of its states")
            if entry.elements is not None:
                trace.freeze(
                    np.asarray(entry.elements), f"{type(module).__name__} {path} has one width for all of its states"
                )
