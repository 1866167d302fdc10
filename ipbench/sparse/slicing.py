"""Removing units from a net: smaller tensors, or the same zeros.

The net without some units (`slice_net`) computes what the net with zeros in their place (`mask_net`) computes, but for
rounding. The zeros are in all that belongs to a unit: in the filters that make its channel, in its values of norms and
biases, and in the parts of other filters that read it. So the constant that a norm sends through an empty channel
reaches nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils import parametrize

from ipbench.errors import BadInput
from ipbench.sparse.channels import Groups, Indices, layer_of
from ipbench.sparse.layers import CONVOLUTIONS, TRANSPOSED
from ipbench.sparse.spaces import Interspace

#: Units by group: their numbers.
Units = Mapping[str, "Sequence[int] | Indices | Tensor"]


@dataclass(frozen=True)
class Cut:
    """What stays of every tensor that loses something.

    Attributes:
        kept: tensor -> axis -> the indices that stay, ascending. Names as in the plain net; of padding, the module's
            attribute.
        shapes: of these tensors, as they are before.
    """

    kept: Mapping[str, Mapping[int, Indices]]
    shapes: Mapping[str, tuple[int, ...]]

    def take(self, tensor: str, values: Tensor) -> Tensor:
        """What stays of values in the shape of a tensor: the tensor itself, its mask, its momentum.

        Args:
            tensor: its name; one that loses nothing is returned as it is.
            values: of the tensor's shape before the cut.

        Raises:
            BadInput: they have another shape.
        """
        if tensor not in self.kept:
            return values
        if (shape := tuple(values.shape)) != self.shapes[tensor]:
            raise BadInput(f"layer {layer_of(tensor)}: {tensor} is of shape {shape}, the cut of {self.shapes[tensor]}")
        formats = (torch.channels_last, torch.channels_last_3d)
        kept = values
        for axis, indices in self.kept[tensor].items():
            kept = kept.index_select(axis, torch.from_numpy(indices).to(values.device))
        for ndim, memory in zip((4, 5), formats, strict=True):
            if values.dim() == ndim and not values.is_contiguous() and values.is_contiguous(memory_format=memory):
                kept = kept.contiguous(memory_format=memory)
        return kept

    def removed(self, tensor: str, axis: int) -> Indices:
        """The indices along an axis that go, ascending."""
        gone = np.ones(self.shapes[tensor][axis], bool)
        gone[self.kept[tensor][axis]] = False
        return np.flatnonzero(gone)

    def shape(self, tensor: str) -> tuple[int, ...]:
        """The shape of one of these tensors after the cut."""
        kept = self.kept[tensor]
        return tuple(len(kept[axis]) if axis in kept else side for axis, side in enumerate(self.shapes[tensor]))

    def then(self, later: Cut) -> Cut:
        """This cut and then another one of the net that it leaves, as one cut."""
        kept: dict[str, dict[int, Indices]] = {name: dict(axes) for name, axes in self.kept.items()}
        for name, axes in later.kept.items():
            before = kept.setdefault(name, {})
            for axis, indices in axes.items():
                before[axis] = before[axis][indices] if axis in before else indices
        return Cut(kept, {**later.shapes, **self.shapes})

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` makes the same cut of them."""
        return {
            name: {
                "shape": list(self.shapes[name]),
                "kept": {str(axis): indices.tolist() for axis, indices in axes.items()},
            }
            for name, axes in self.kept.items()
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Cut:
        """The cut that `to_json` gave."""
        kept = {
            name: {int(axis): np.array(indices, np.int64) for axis, indices in entry["kept"].items()}
            for name, entry in value.items()
        }
        return cls(kept, {name: tuple(entry["shape"]) for name, entry in value.items()})


def plan(groups: Groups, removed: Units) -> Cut:
    """The cut that removes units.

    Args:
        groups: of the net.
        removed: group -> the numbers of the units that go; groups that are not named stay whole.

    Raises:
        BadInput: an unknown group, one that cannot be cut, a number that is no unit of it or is there twice, or all of
            its units.
    """
    gone: dict[tuple[str, int], list[Indices]] = {}
    for name, numbers in removed.items():
        group = groups[name]
        units = np.asarray(numbers.cpu() if isinstance(numbers, Tensor) else numbers).reshape(-1)
        if not units.size:
            continue
        if group.reason:
            raise BadInput(f"cannot remove channels: {group.reason}")
        if not np.issubdtype(units.dtype, np.integer) or units.min() < 0 or units.max() >= group.units:
            raise BadInput(
                f"layer {name}: its units are numbered from 0 to {group.units - 1} (got {units.tolist()!r:.80})"
            )
        if len(np.unique(units)) < len(units):
            raise BadInput(f"layer {name}: a unit is to be removed twice ({units.tolist()!r:.80})")
        if len(units) == group.units:
            raise BadInput(f"layer {name}: at least one of its {group.units} units stays")
        for member in group.members:
            gone.setdefault((member.tensor, member.axis), []).append(member.indices[units].reshape(-1))
    kept: dict[str, dict[int, Indices]] = {}
    for (tensor, axis), parts in gone.items():
        stays = np.ones(groups.shapes[tensor][axis], bool)
        stays[np.concatenate(parts)] = False
        kept.setdefault(tensor, {})[axis] = np.flatnonzero(stays)
    return Cut(kept, {name: groups.shapes[name] for name in kept})


def slice_net(net: nn.Module, cut: Cut, shape: Sequence[int] | None = None) -> None:
    """Remove units from a net, in place: nothing changes unless all of it can.

    A net in the interspace is cut through its coefficients; filter bases stay. The parameters that are cut become new
    ones (without a gradient), as optimisers must be told; what they require, their type, device and memory format stay.

    Args:
        net: of the kind that the groups are of, uncut.
        cut: of `plan`, or read from a file.
        shape: of one image; if it is given, a copy is cut first and called on two images.

    Raises:
        BadInput: a tensor is missing, has another shape or is computed from others; or the copy does not run.
    """
    changes = _changes(net, cut)
    if shape is not None:
        trial = copy.deepcopy(net)
        _apply(_changes(trial, cut))
        first = next(net.parameters())
        try:
            with torch.no_grad():
                trial.eval()(torch.zeros(2, *shape, device=first.device, dtype=first.dtype))
        except Exception as error:
            raise BadInput(f"the net does not run without these channels: {str(error).splitlines()[0]}") from error
    _apply(changes)


def mask_net(net: nn.Module, cut: Cut) -> None:
    """Set to zero, in place, what a cut would remove from the parameters of a net; buffers stay as they are.

    Args:
        net: as for `slice_net`.
        cut: what goes.

    Raises:
        BadInput: as `slice_net`.
    """
    with torch.no_grad():
        for name, tensor in _found(net, cut).items():
            if isinstance(tensor, nn.Parameter):
                for axis in cut.kept[name]:
                    tensor.index_fill_(axis, torch.from_numpy(cut.removed(name, axis)).to(tensor.device), 0)


def dead(groups: Groups, net: nn.Module) -> dict[str, Indices]:
    """The units all of whose filters are zero, by group: of every producer, in either space.

    Without such a unit the net computes something else if a norm or a bias gives its channel a value: the masked net is
    that of `mask_net`. Groups that cannot be cut are left out, and so are those without such units; of a group that is
    dead as a whole its first unit is left out, since one stays.

    Args:
        groups: of the net.
        net: uncut.

    Raises:
        BadInput: a weight is missing or is computed from others.
    """
    found = {}
    for group in groups.free:
        empty = np.ones(group.units, bool)
        for member in group.producers:
            weight = _tensor(net, member.tensor)
            others = [axis for axis in range(weight.dim()) if axis != member.axis]
            filled = (weight.detach() != 0).sum(others).cpu().numpy() > 0
            empty &= ~filled[member.indices].any(axis=1)
        if empty.all():
            empty[0] = False
        if empty.any():
            found[group.name] = np.flatnonzero(empty)
    return found


class _Change(NamedTuple):
    """A module, the name of one of its attributes, and its new value."""

    module: nn.Module
    name: str
    value: Any


def _changes(net: nn.Module, cut: Cut) -> list[_Change]:
    """All that a cut changes; nothing is changed yet."""
    tensors = _found(net, cut)
    new: dict[int, Tensor] = {}
    for name, tensor in tensors.items():
        values = cut.take(name, tensor.detach()).clone(memory_format=torch.preserve_format)
        new[id(tensor)] = nn.Parameter(values, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else values
    changes = []
    for path, module in net.named_modules():
        own = {**module._parameters, **module._buffers}
        changes += [_Change(module, name, new[id(t)]) for name, t in own.items() if id(t) in new]
        shapes = {name: tuple(new.get(id(t), t).shape) for name, t in own.items() if t is not None}
        if parametrize.is_parametrized(module):
            assert isinstance(module.parametrizations, nn.ModuleDict)
            for name, made in module.parametrizations.items():
                if isinstance(original := getattr(made, "original", None), Tensor):
                    shapes[name] = tuple(new.get(id(original), original).shape)
        changes += [_Change(module, name, value) for name, value in _attributes(path, module, shapes)]
    for name, axes in cut.kept.items():
        if name not in tensors:
            path, _, attribute = name.rpartition(".")
            changes.append(_Change(net.get_submodule(path), attribute, len(axes[0])))
    return changes


def _apply(changes: Iterable[_Change]) -> None:
    for module, name, value in changes:
        setattr(module, name, value)


def _found(net: nn.Module, cut: Cut) -> dict[str, Tensor]:
    """The tensors that a cut names, those of padding left out; all is checked."""
    found = {}
    for name in cut.kept:
        path, _, attribute = name.rpartition(".")
        try:
            number = getattr(net.get_submodule(path), attribute)
        except AttributeError:
            number = None
        if isinstance(number, int):  # what a module appends
            if (number,) != tuple(cut.shapes[name]):
                raise BadInput(f"layer {path}: its {attribute} is {number}, the cut is for {cut.shapes[name][0]}")
            continue
        found[name] = _tensor(net, name)
        if tuple(found[name].shape) != tuple(cut.shapes[name]):
            shape = tuple(found[name].shape)
            raise BadInput(f"layer {layer_of(name)}: {name} is of shape {shape}, the cut of {cut.shapes[name]}")
    return found


def _tensor(net: nn.Module, name: str) -> Tensor:
    """The parameter or buffer behind a name of the plain net: in the interspace, the coefficients."""
    path, _, attribute = name.rpartition(".")
    try:
        module = net.get_submodule(path)
    except AttributeError:
        raise BadInput(f"layer {layer_of(name)}: this net has no {name}") from None
    if parametrize.is_parametrized(module, attribute):
        assert isinstance(module.parametrizations, nn.ModuleDict)
        made = module.parametrizations[attribute]
        assert isinstance(made, parametrize.ParametrizationList)
        if isinstance(made[0], Interspace) and isinstance(made.original, Tensor):
            return made.original
        raise BadInput(f"layer {path}: its {attribute} is computed from other parameters; it cannot be cut")
    value = module._parameters.get(attribute, module._buffers.get(attribute))
    if value is None:
        if isinstance(getattr(module, attribute, None), Tensor):
            raise BadInput(f"layer {path}: its {attribute} is computed from other parameters; it cannot be cut")
        raise BadInput(f"layer {layer_of(name)}: this net has no {name}")
    return value


def _attributes(path: str, module: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[str, int]]:
    """Numbers of a module that follow from the shapes of its tensors.

    Raises:
        BadInput: the shapes do not fit one another.
    """
    wanted: dict[str, int] = {}
    weight = shapes.get("weight", ())
    outputs = None
    if isinstance(module, (*CONVOLUTIONS, nn.Linear)) and not weight:
        pass  # computed from parameters that a cut does not touch
    elif isinstance(module, CONVOLUTIONS):
        transposed = isinstance(module, TRANSPOSED)
        each = (module.in_channels if transposed else module.out_channels) // module.groups
        groups, rest = (weight[0] // each, weight[0] % each) if module.groups > 1 else (1, 0)
        if rest:
            raise BadInput(f"layer {path}: {weight[0]} channels do not make whole groups of {each}")
        sides = (weight[0], weight[1] * groups)
        wanted["in_channels"], outputs = sides if transposed else (sides[1], sides[0])
        wanted |= {"out_channels": outputs, "groups": groups}
    elif isinstance(module, nn.Linear):
        outputs, wanted["in_features"] = weight
        wanted["out_features"] = outputs
    elif isinstance(module, _NormBase):
        sizes = {shapes[name][0] for name in ("weight", "bias", "running_mean", "running_var") if name in shapes}
        if len(sizes) > 1:
            raise BadInput(f"layer {path}: its values would be of several lengths: {sorted(sizes)}")
        if sizes:
            wanted["num_features"] = sizes.pop()
    elif isinstance(module, nn.PReLU):
        wanted["num_parameters"] = weight[0]
    elif isinstance(module, nn.RNNBase):
        wanted["input_size"] = shapes["weight_ih_l0"][1]
    elif isinstance(module, nn.RNNCellBase):
        wanted["input_size"] = shapes["weight_ih"][1]
    if outputs is not None and shapes.get("bias", (outputs,)) != (outputs,):
        raise BadInput(f"layer {path}: {outputs} outputs and {shapes['bias'][0]} biases")
    return iter((name, value) for name, value in wanted.items() if getattr(module, name) != value)
