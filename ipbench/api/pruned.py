"""`Pruned`: a net of a user's own with masks, which trains in any loop."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _IncompatibleKeys
from torch.optim import Optimizer

from ipbench.api.holding import forget_moments, hold
from ipbench.api.report import Kept, Report
from ipbench.api.updating import Updating
from ipbench.errors import BadInput
from ipbench.packing import own
from ipbench.packing.file import Sizes
from ipbench.sparse.dead import removed_with
from ipbench.sparse.layers import not_prunable, prunable_weights
from ipbench.sparse.net import SparseNet
from ipbench.sparse.patterns import selector
from ipbench.sparse.slicing import Cut, slice_net
from ipbench.sparse.spaces import plain_name
from ipbench.sparse.unit_selector import OfUnits

#: Patterns that remove whole channels.
OF_CHANNELS = ("filters", "channels")
Facts = dict[str, Any]


class Pruned(nn.Module):
    """A net with masks; made by `ipbench.prune` and `ipbench.load`.

    It is called as the net is called. Whatever optimiser of torch trains its parameters, what is masked stays as it is:
    zero, or its initial value. An optimiser that is no `torch.optim.Optimizer` needs a call of `restore` behind every
    step.

    Attributes:
        masked: the net in its space, with its masks.
    """

    def __init__(self, masked: SparseNet, left_out: Mapping[str, str], updating: Updating | None) -> None:
        """Hold what the masks leave out.

        Args:
            masked: whose masks are chosen.
            left_out: layers that are not pruned, with reasons.
            updating: changes masks while the net is trained; None: they stay.
        """
        super().__init__()
        self.masked = masked
        self.training = masked.training
        self._left_out, self._updating = dict(left_out), updating
        self._cut, self._told = Cut({}, {}), dict[str, Any]()
        #: Parameters that are no coefficients, and what of them stays: of norms and biases of channels that are gone.
        self._others: list[tuple[nn.Parameter, Tensor]] = []
        self.register_load_state_dict_post_hook(Pruned._take_over)
        hold(self)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """What the net gives for these arguments."""
        return self.masked(*inputs, **named)

    @property
    def net(self) -> nn.Module:
        """The module of the user's class; in `ip` its filters are computed from coefficients and filter bases."""
        return self.masked.net

    @property
    def masks(self) -> dict[str, Tensor]:
        """Boolean tensors by layer, in the shapes of the coefficients; True = trained."""
        return dict(self.masked.masks)

    @property
    def step(self) -> int:
        """Steps of the optimiser so far, of a method that changes masks while the net is trained; else 0."""
        return self._updating.step if self._updating else 0

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Groups for an optimiser: filter bases at their own rate and decay (`basis`: as the recipe, none), all else.

        Args:
            lr: learning rate.
            weight_decay: of all but filter bases.
        """
        bases = {id(basis.matrix) for basis in self.masked.bases.values()}
        parts: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
        for parameter in self.parameters():
            parts[id(parameter) in bases].append(parameter)
        options = self.masked.run.basis
        groups = [
            {"params": parts[0], "lr": lr, "weight_decay": weight_decay},
            {"params": parts[1], "lr": lr * options.lr, "weight_decay": options.weight_decay},
        ]
        return [group for group in groups if group["params"]]

    def restore(self) -> None:
        """Give everything that is masked its value back; called behind every step of an optimiser of torch."""
        net = self.masked
        with torch.no_grad():
            for name, c in net.coefficients.items():
                if net.run.off == "zero":
                    c.masked_fill_(net.masks[name].logical_not(), 0)
                else:
                    c.copy_(torch.where(net.masks[name], c, net.start[name]))
            for parameter, stays in self._others:
                parameter.masked_fill_(stays.logical_not(), 0)

    def take_masks(self, other: Pruned) -> None:
        """Take over the masks of another net of this kind: of an average of a net whose masks have changed.

        Args:
            other: e.g. the net that an `AveragedModel` averages.
        """
        self.masked.masks = {name: other.masked.masks[name].clone() for name in self.masked.masks}
        self._remove(other._cut)
        self.restore()

    def plain(self) -> nn.Module:
        """A copy as a module of the user's class, with ordinary weights, zeros among them; of `ip` the filters."""
        self.restore()
        return self.masked.plain()

    def slice(self) -> nn.Module:
        """A copy as a module of the user's class without the channels that are gone: it computes the same, but smaller.

        Raises:
            BadInput: the pattern, or the off-value, removes no channels.
        """
        run = self.masked.run
        if run.pattern not in OF_CHANNELS or run.off != "zero":
            raise BadInput(
                f"slice: pattern {run.pattern} with off {run.off} removes no channels; patterns"
                f" {' and '.join(OF_CHANNELS)} with off zero do"
            )
        small = self.plain()
        slice_net(small, self._cut)
        return small

    def save(self, path: str | Path, values: str = "fp32") -> Sizes:
        """Write the net as one packed file, which `ipbench.load` reads; docs/packed-format.md describes it.

        Args:
            path: of the file; it takes its place when it is whole.
            values: how kept coefficients are stored: "fp32", "fp16" or "bf16".

        Returns:
            Bytes by part.

        Raises:
            BadInput: an unknown type of values, or a value that is not finite or not in that type.
        """
        self.restore()
        report = self.report()
        facts = {"left_out": self._left_out, "reached": report.reached, "whole": dict(report.whole)}
        return own.pack(Path(path), self.masked, self._cut, facts, values)

    def report(self) -> Report:
        """What was pruned, what is reached, and what could not be pruned; `str` of it is a text."""
        net, run = self.masked, self.masked.run
        layers = {name: Kept(mask.numel(), int(mask.sum())) for name, mask in net.masks.items()}
        kept = sum(layer.kept for layer in layers.values())
        facts = dict(self._told) or _facts(net)
        whole = self._told.get("whole")
        if whole is None:
            whole = {group.name: group.reason for group in net.groups.frozen} if run.pattern in OF_CHANNELS else {}
        bases = {id(basis.matrix) for basis in net.bases.values()}
        plain = {id(c): net.dense_shapes[name].numel() for name, c in net.coefficients.items()}
        parameters = sum(plain.get(id(p), p.numel()) for p in net.net.parameters() if id(p) not in bases)
        weights = prunable_weights(net.net)
        return Report(
            run.method, run.space, run.pattern, run.budget, run.off,
            float(run.sparsity) if run.sparsity != "0" or run.method == "dense" else None,
            facts.get("reached", 1 - (kept + net.basis_entries) / net.prunable),
            layers, net.basis_entries, parameters, dict(self._left_out),
            {name: size for name, size in not_prunable(net.net, weights).items() if not name.endswith(".matrix")},
            whole, tuple(facts.get("dense_layers", ())), dict(net.notes),
        )  # fmt: skip

    def extra_repr(self) -> str:
        """The report, when the net is printed."""
        return str(self.report())

    # What hooks call.

    def held(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The coefficients by layer."""
        yield from self.masked.coefficients.items()

    def mask_of_gradient(self, name: str) -> Tensor | None:
        """What a gradient of a layer's coefficients keeps; None: all, since the next step looks at all of it."""
        if self._updating and self._updating.needs_dense:
            return None
        return self.masked.masks[name]

    def before_step(self, optimiser: Optimizer) -> None:
        """Change masks, where the method does so at this step of the optimiser that trains the first layer."""
        first = next(iter(self.masked.coefficients.values()))
        if self._updating is None or all(first is not p for group in optimiser.param_groups for p in group["params"]):
            return
        if self._updating.due:
            before = self.masked.masks
            trained = self._updating.change()
            self.remove_dead()
            for name, c in self.held():
                forget_moments(optimiser, c, before[name] & self.masked.masks[name])
                if c.grad is not None:
                    c.grad.masked_fill_(self.masked.masks[name].logical_not(), 0)
            if not trained:
                for parameter in self.parameters():
                    parameter.grad = None
        self._updating.step += 1

    def remove_dead(self) -> None:
        """Set to zero, and hold there, all that belongs to channels that the masks remove: norms, biases, readers."""
        run = self.masked.run
        if run.pattern in OF_CHANNELS and run.off == "zero":
            self._remove(removed_with(self.masked.groups, self.masked.masks))

    def _remove(self, cut: Cut) -> None:
        """Hold at zero what a cut would remove."""
        net, layers = self.masked, {weight: layer for layer, weight in self.masked.weights.items()}
        named = {plain_name(name): parameter for name, parameter in net.net.named_parameters()}
        self._cut, self._others, masks = cut, [], dict(net.masks)
        for name, axes in cut.kept.items():
            if name not in named:
                continue  # statistics of norms, and numbers of channels that are appended
            stays = torch.ones(cut.shapes[name], dtype=torch.bool, device=named[name].device)
            for axis in axes:
                stays.index_fill_(axis, torch.from_numpy(cut.removed(name, axis)).to(stays.device), False)
            if name in layers:
                masks[layers[name]] = masks[layers[name]] & stays
            else:
                self._others.append((named[name], stays))
        net.prune(masks)
        self.restore()

    # Copies, devices, checkpoints.

    def __deepcopy__(self, memo: dict[int, Any]) -> Pruned:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update({name: copy.deepcopy(value, memo) for name, value in self.__dict__.items()})
        hold(twin)
        return twin

    def _apply(self, function, recurse=True):  # type: ignore[no-untyped-def]
        super()._apply(function, recurse)
        self._others = [(parameter, function(stays)) for parameter, stays in self._others]
        return self

    def get_extra_state(self) -> dict[str, Any]:
        """Masks, what is cut, and where the method stands: part of `state_dict`, plain values and tensors alone."""
        state: dict[str, Any] = {"masks": self.masks, "step": self.step}
        if self._cut.kept:
            state["cut"] = self._cut.to_json()
        return state

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take over what `get_extra_state` gave."""
        own_masks, given = self.masked.masks, state["masks"]
        if {name: mask.shape for name, mask in own_masks.items()} != {name: m.shape for name, m in given.items()}:
            raise BadInput("load_state_dict: the masks are those of another net; prune it as the other one was pruned")
        self.masked.masks = {name: given[name].to(mask.device) for name, mask in own_masks.items()}
        if self._updating:
            self._updating.step = state["step"]
        self._loaded = Cut.from_json(state.get("cut", {}))

    @staticmethod
    def _take_over(net: nn.Module, keys: _IncompatibleKeys) -> None:
        """Behind `load_state_dict`: what is masked is held at the values that were loaded."""
        assert isinstance(net, Pruned)
        cut = net.__dict__.pop("_loaded", None)
        if cut is None:
            return
        masked = net.masked
        if masked.run.off != "zero":
            masked.start = {name: c.detach().clone() for name, c in masked.coefficients.items()}
        net._remove(cut)


def _facts(net: SparseNet) -> dict[str, Any]:
    """What is reached; nothing else of whole units, since not every net's products can be counted."""
    selects = selector(net)
    return {"reached": selects.reached(net.masks)} if isinstance(selects, OfUnits) else selects.facts(net.masks)
