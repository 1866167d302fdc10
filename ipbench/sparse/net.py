"""`SparseNet`: a module in a space, with masks. It is what a method sees.

It shows coefficients, their gradients and masks, and nothing that tells one space from the other.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ipbench import keys
from ipbench.data.loaders import Batch
from ipbench.sparse import dead, measure, slicing, spaces
from ipbench.sparse.channels import Group as ChannelGroup
from ipbench.sparse.channels import Groups
from ipbench.sparse.dead import Constant
from ipbench.sparse.example import Example, Images, example_of
from ipbench.sparse.layers import Use, check_prunable, prunable_weights
from ipbench.sparse.norms import norms_of
from ipbench.sparse.renewing import Fresh, renew
from ipbench.sparse.selection import budget
from ipbench.sparse.structure import Structure, groups_of, restricted
from ipbench.spec import Run
from ipbench.tasks import Task, task_of

#: Name, coefficients and gradient of a layer.
Gradient = tuple[str, nn.Parameter, Tensor]


def _laid_out(mask: Tensor, like: Tensor) -> Tensor:
    """A mask on the device and in the memory format of the one before: gradients are multiplied by it in every step."""
    if mask.device == like.device and mask.stride() == like.stride():
        return mask
    return torch.empty_like(like).copy_(mask)


class Group(NamedTuple):
    """Parameters by name that share a weight decay and a factor of the learning rate."""

    parameters: dict[str, nn.Parameter]
    weight_decay: float
    factor: float


class SparseNet(nn.Module):
    """A net whose prunable coefficients carry masks.

    Attributes:
        net: the module itself.
        layers: its prunable weights by the name of their layer, in the order of the net; a tensor that several modules
            share is one of them.
        masks: boolean tensors in the shape of the coefficients; True = trained. All True at the start.
        faded: what is left of a masked coefficient's initial value where the off-value is one; 1 unless it decays.
        notes: what a method wants to have in the record: plain values by name.
        state: what scores remember from one call to the next: by the name of a score, tensors and numbers by name. It
            lies in the run's state file.
        bases: the filter bases by name (empty in `sp`).
        task: what it is trained for.
        example: what it is called with where its products are counted and its channels followed.
        structure: the units of the channel groups that are left.
        dense_shapes: of the coefficients of the dense net.
    """

    def __init__(
        self,
        net: nn.Module,
        run: Run,
        shape: Example | Sequence[int],
        *,
        task: Task | None = None,
        left_out: Collection[str] = (),
    ) -> None:
        """Put `net` into the run's space.

        Args:
            net: changed in place.
            run: gives space, basis, off-value, sparsity and seed.
            shape: of one image, (C, H, W); or what else the net is called with.
            task: what the net is trained for; that of the run's data set if left out.
            left_out: names of prunable layers that are not pruned, and take no part in any count of what is.

        Raises:
            BadInput: a weight that cannot be pruned, or counted.
        """
        super().__init__()
        self.run = run
        everything = prunable_weights(net)
        self.layers = {name: layer for name, layer in everything.items() if name not in left_out}
        check_prunable(net, self.layers)
        self.task = task or task_of(run.dataset)
        self.example = example_of(shape)
        self._counted: measure.Count | None = None
        self._now: measure.Count | None = None
        if isinstance(self.example, Images):  # what cannot be counted is refused before anything is changed
            self._counted = measure.count(net, self.example)
        named = {id(tensor): name for name, tensor in net.named_parameters()}
        #: Names of the weights in the plain net, by layer.
        self.weights = {name: named[id(layer.weight)] for name, layer in self.layers.items()}
        self._left_out = frozenset(everything) - set(self.layers)
        self.structure = Structure()
        self._groups: Groups | None = None
        self._norms: dict[str, str] | None = None
        self.bases: dict[str, spaces.FilterBasis] = {}
        if run.space == "ip":
            spaces.check_held_by_modules(net, self.layers, run.basis)
            stages = None
            if run.basis.sharing == "stage":
                self._counted = self._counted or measure.count(net, self.example)
                stages = self._counted.stages
            self.bases = spaces.enter_interspace(self.layers, run.basis, run.seed, stages)
        self._places = {name: spaces.place(layer) for name, layer in self.layers.items()}
        self._building, self._together = spaces.build_at_once(self.layers)
        self.net = net
        self.masks = {name: torch.ones_like(c, dtype=torch.bool) for name, c in self.coefficients.items()}
        self.dense_shapes = {name: mask.shape for name, mask in self.masks.items()}
        self.faded = 1.0
        self.notes: dict[str, object] = {}
        self.state: dict[str, dict[str, Tensor | int | float | bool]] = {}
        # Nets are small beside their activations: a copy of the start is kept for off-values, drift and rewinding.
        self.start = {name: c.detach().clone() for name, c in self.coefficients.items()}
        self.basis_start = {name: basis.matrix.detach().clone() for name, basis in self.bases.items()}

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """What the net gives for these arguments: logits (N, classes) of images (N, C, H, W), or what else it gives."""
        if not self._together or torch.compiler.is_compiling():  # a compiler joins operators by itself
            return self.net(*inputs, **named)
        with self._building.a_pass(self._together):
            return self.net(*inputs, **named)

    def _apply(self, function, recurse=True):  # type: ignore[no-untyped-def]
        # What `to(device)` and `double()` call: masks and starts move along with the parameters.
        super()._apply(function, recurse)
        self.masks = {name: function(mask) for name, mask in self.masks.items()}
        self.start = {name: function(value) for name, value in self.start.items()}
        self.basis_start = {name: function(value) for name, value in self.basis_start.items()}
        for name, c in self.coefficients.items():
            if spaces.filter_basis(self.layers[name]) is not None and not c.is_contiguous():
                # In another memory format they would be copied in every pass: filters are to be the rows of a matrix.
                c.data = c.data.contiguous()
                self.masks[name], self.start[name] = self.masks[name].contiguous(), self.start[name].contiguous()
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image, (C, H, W); of nets that are called with images alone."""
        assert isinstance(self.example, Images)
        channels, height, width = self.example.shapes[0]
        return channels, height, width

    @property
    def counted(self) -> measure.Count:
        """Parameters, MACs and shapes of the plain dense net.

        Raises:
            BadInput: they cannot be counted.
        """
        if self._counted is None:
            if self.structure:
                raise ValueError("a net is counted before it is cut")
            self._counted = measure.count(self.plain().cpu(), self.example)
        return self._counted

    @property
    def now(self) -> measure.Count:
        """The same of the net as it is, whose channels may have been cut."""
        return self._now or self.counted

    @property
    def coefficients(self) -> dict[str, nn.Parameter]:
        """The prunable tensors by layer name, in the order of the net."""
        return {name: getattr(*place) for name, place in self._places.items()}

    @property
    def prunable(self) -> int:
        """Number of prunable weights of the dense standard net."""
        return sum(shape.numel() for shape in self.dense_shapes.values())

    @property
    def basis_entries(self) -> int:
        """Entries of all trained FBs: what `ip` pays for inside the budget."""
        return sum(basis.matrix.numel() for basis in self.bases.values() if isinstance(basis.matrix, nn.Parameter))

    @property
    def budget(self) -> int:
        """How many coefficients the run's sparsity lets stay.

        Raises:
            Impossible: the FBs alone use it up.
        """
        return budget(self.prunable, self.run.density, self.basis_entries)

    def gradients(self, loss: Tensor, *, create_graph: bool = False) -> list[Gradient]:
        """Name, coefficients and dense gradient of `loss` for every prunable layer, masked entries included.

        Args:
            loss: a scalar.
            create_graph: keep the graph, to differentiate the gradients again.
        """
        coefficients = self.coefficients
        values = torch.autograd.grad(loss, list(coefficients.values()), create_graph=create_graph, allow_unused=True)
        return [
            (name, c, torch.zeros_like(c) if gradient is None else gradient)
            for (name, c), gradient in zip(coefficients.items(), values, strict=True)
        ]

    def uniform(self, layer: str, purpose: keys.Purpose = "score", *parts: int) -> Tensor:
        """Keyed uniform numbers in [0, 1) in the shape of a layer's coefficients; the same in both spaces.

        Those of a net that was cut are the ones that its coefficients had in the dense net.

        Args:
            layer: its name.
            purpose: what they are for; two purposes share no numbers.
            parts: for several draws, e.g. the step of the training.
        """
        generator = keys.generator(self.run.seed, purpose, layer, *parts)
        numbers = torch.rand(self.dense_shapes[layer], generator=generator, dtype=torch.float64)
        return self._cut_from_dense({self.weights[layer]: numbers})[self.weights[layer]].to(self.masks[layer].device)

    def magnitudes(self, scaled: bool = False) -> dict[str, Tensor]:
        """|c| of every layer; `scaled`: |c| * ||g|| with the norm of the coefficient's basis filter (1 without an FB).

        Scaled, it does not depend on how a filter's size is divided between coefficients and FB.
        """
        result = {}
        for name, c in self.coefficients.items():
            basis = spaces.filter_basis(self.layers[name]) if scaled else None
            norms = None if basis is None else basis.detach().norm(dim=1).view(c.shape[2:])
            result[name] = c.detach().abs() if norms is None else c.detach().abs() * norms
        return result

    @contextmanager
    def linearised(self) -> Iterator[Self]:
        """This net in double precision and evaluation mode, with the absolute value of all parameters and buffers.

        SynFlow (Tanaka et al., NeurIPS 2020) sends ones through it: in double precision, since the sum over all paths
        overflows in single precision for nets of some twenty layers. At the end of the block all is as before.
        """
        values = {name: tensor.clone() for name, tensor in self.tensors().items()}
        training, kind = self.training, next(self.parameters()).dtype
        self.double().eval()
        with torch.no_grad():
            for tensor in self.tensors().values():
                if tensor.is_floating_point():
                    tensor.abs_()
        try:
            yield self
        finally:
            self.to(kind).train(training)
            self.load_tensors(values)

    @contextmanager
    def scratch(self, training: bool = True) -> Iterator[Self]:
        """A copy for scores: nothing they do (gradients, running statistics) reaches the net; dropout starts anew.

        Attention is computed without fused kernels, which have no second derivatives.

        Args:
            training: the mode of the copy.
        """
        # What a net started from is never changed in place: no need to copy it a hundred times for SynFlow.
        kept = (
            self.start, self.basis_start, self.notes, self.state, self.task, self.example, self._groups, self._norms,
            self._counted, self._now,
        )  # fmt: skip
        shared: dict[int, object] = {id(values): values for values in kept}
        with self._dropout_anew(), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            yield copy.deepcopy(self, shared).train(training)

    @contextmanager
    def _dropout_anew(self) -> Iterator[None]:
        """The generators that dropout draws from at the beginning of the stream for scores; as they were at the end."""
        device = next(self.parameters()).device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(keys.key(self.run.seed, "dropout", "score") >> 1)
            yield

    def averaged(self, gradients: Callable[[Batch], list[Gradient]], batch: Batch) -> list[Gradient]:
        """The mean over all images of what `gradients` gives for a part of them, in passes of bounded size.

        Passes are those of `Task.parts`. Parts are weighted by their images, so a mean over images is that of the whole
        batch; only norms in training mode see a pass alone. Whatever is computed so draws the same dropout.

        Args:
            gradients: a function of a batch, as `self.gradients` of a mean loss.
            batch: all images.
        """
        if len(list(self.task.parts(batch))) == 1:
            with self._dropout_anew():
                return gradients(batch)
        means = self.mean(lambda part: {name: gradient for name, _, gradient in gradients(part)}, batch)
        return [(name, c, means[name]) for name, c in self.coefficients.items()]

    def mean(self, values: Callable[[Batch], Mapping[str, Tensor]], batch: Batch) -> dict[str, Tensor]:
        """The mean over all images of tensors by name that `values` gives for a part of them; passes as in `averaged`.

        Args:
            values: a function of a batch, as means over its images.
            batch: all images.
        """
        sums: dict[str, Tensor] = {}
        with self._dropout_anew():
            for part, share in self.task.parts(batch):
                for name, value in values(part).items():
                    summand = value.detach() * share
                    sums[name] = sums[name] + summand if name in sums else summand
        return sums

    @property
    def groups(self) -> Groups:
        """The channel groups of the plain dense net, found when first asked for."""
        if self._groups is None:
            self._groups = self._with_left_out(groups_of(self.plain(), self.example))
        return self._groups

    def _with_left_out(self, groups: Groups) -> Groups:
        """The groups, those frozen whose channels are made by a layer that is left out, or by none that is pruned."""

        def reason(group: ChannelGroup) -> str:
            makers = [member.layer for member in group.producers]
            if left := next((layer for layer in makers if layer in self._left_out), ""):
                return f"layer {left}: it is left out"
            return "" if set(makers) & set(self.layers) else f"layer {makers[0]}: its weight is never pruned"

        found = [group if group.reason else replace(group, reason=reason(group)) for group in groups]
        return groups if found == list(groups) else replace(groups, groups=tuple(found))

    @property
    def norms(self) -> dict[str, str]:
        """By layer, the path of the batch norm of its channels (`sparse.norms`); found when first asked for."""
        if self._norms is None:
            groups = restricted(self.groups, self.structure)
            self._norms = norms_of(self.plain(), self.weights, groups, self.example)
        return self._norms

    def plain(self) -> nn.Module:
        """A copy as the plain module: spatial weights in place of coefficients and filter bases."""
        copies: dict[int, Any] = {}
        net = copy.deepcopy(self.net, copies)
        for layer in self.layers.values():
            if spaces.filter_basis(layer) is not None:
                uses = [Use(copies[id(use.module)], use.parameter) for use in layer.uses]
                spaces.leave_interspace(uses, layer.weight.detach().clone())
        return net

    def cut(self, structure: Structure) -> None:
        """Cut the channels that `structure` leaves out: parameters and buffers, masks and what they started from.

        Parameters become new ones: what an optimiser holds of the old ones is of no use any more.

        Raises:
            BadInput: the net cannot be cut like this; nothing has changed then.
            ValueError: `structure` is of another net, or has a unit that this net has not any more.
        """
        if structure == self.structure:
            return
        structure.check(self.groups)
        removed = structure.removed(self.groups, self.structure)
        chosen = slicing.plan(restricted(self.groups, self.structure), removed)
        slicing.slice_net(self.net, chosen)
        self.masks = {name: chosen.take(self.weights[name], mask) for name, mask in self.masks.items()}
        self.start = {name: chosen.take(self.weights[name], value) for name, value in self.start.items()}
        self.structure = structure
        if self._counted is not None:
            self._now = measure.count(self.plain().cpu(), self.example)  # as the dense net was counted, on the CPU

    def slice(self, constant: Constant = "drop", fresh: Collection[Fresh] = ()) -> None:
        """Cut every channel that is dead: one that is zero, or that nothing reads.

        A channel is dead if the masks leave nothing of the filters that make it (where the off-value is zero), or
        nothing of the filters' parts that read it, in all layers that share it. Of a group of which all channels are
        dead one stays.

        Args:
            constant: what becomes of the constant that a channel of the first kind may still send on, by its biases and
                norms; see `dead.settled`.
            fresh: what begins anew around channels that are cut; see `renewing.renew`.

        Raises:
            BadInput: the constant is refused, or cannot be folded; the message names the layer.
        """
        if self.run.off != "zero":
            return
        groups = restricted(self.groups, self.structure)
        silent, unread = dead.silent(groups, self.masks), dead.unread(groups, self.masks)
        gone = {name: silent[name] | unread[name] for name in silent}
        sending = {name: silent[name] & ~unread[name] for name in silent}
        with dead.settled(self, groups, sending, constant):
            self.cut(self.structure.without(self.groups, gone))
        renew(self, {name for name, units in gone.items() if units.any()}, fresh)

    def restore(
        self, structure: Structure, tensors: Mapping[str, Tensor], masks: Mapping[str, Tensor], faded: float = 1.0
    ) -> None:
        """Take over a state: the one way in which a net becomes what another one of its kind was.

        Args:
            structure: what was left of that net; this one has at least that.
            tensors: as `tensors()` gave them.
            masks: by layer.
            faded: as the attribute.

        Raises:
            BadInput: the net cannot be cut like this.
            ValueError: structure, tensors or masks are not those of such a net.
        """
        self.cut(structure)
        own = {**self.tensors(), **{f"mask of {name}": mask for name, mask in self.masks.items()}}
        given = {**tensors, **{f"mask of {name}": mask for name, mask in masks.items()}}
        for name, tensor in own.items():
            if name not in given or given[name].shape != tensor.shape:
                what = f"is of shape {list(given[name].shape)}" if name in given else "is missing"
                raise ValueError(f"{name} {what}; {list(tensor.shape)} is wanted")
        self.load_tensors(tensors)
        self.masks = {name: _laid_out(masks[name], mask) for name, mask in self.masks.items()}
        self.faded = faded

    def cut_from_dense(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state of the dense net, as `tensors()` gives it, cut to what is left of this one."""
        plain = {name: spaces.plain_name(name) for name in tensors}
        cut = self._cut_from_dense({plain[name]: tensor for name, tensor in tensors.items()})
        return {name: cut[plain[name]] for name in tensors}

    def _cut_from_dense(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same by names of the plain net."""
        if not self.structure:
            return dict(tensors)
        chosen = slicing.plan(self.groups, self.structure.removed(self.groups))
        return {name: chosen.take(name, tensor) for name, tensor in tensors.items()}

    def prune(self, masks: Mapping[str, Tensor]) -> None:
        """Take over `masks`, of some layers or of all, and set everything they leave out to its off-value."""
        self.masks = {
            name: _laid_out(masks[name], mask) if name in masks else mask for name, mask in self.masks.items()
        }
        with torch.no_grad():
            for name, c in self.coefficients.items():
                if name in masks:
                    c.copy_(torch.where(self.masks[name], c, self.off_values(name, self.faded)))

    def off_values(self, layer: str, faded: float) -> Tensor:
        """What a layer's masked coefficients are: zero, or `faded` times their initial values."""
        return torch.zeros_like(self.start[layer]) if self.run.off == "zero" else self.start[layer] * faded

    def fade(self, factor: float) -> None:
        """Set everything outside the masks to `factor` times its initial value."""
        self.faded = factor
        self.prune(self.masks)

    def clear(self, momentum: Mapping[str, Tensor]) -> None:
        """Set momentum buffers, by parameter name, to zero wherever the mask is."""
        layers = {id(c): name for name, c in self.coefficients.items()}
        with torch.no_grad():
            for name, parameter in self.net.named_parameters():
                if name in momentum and id(parameter) in layers:
                    momentum[name].mul_(self.masks[layers[id(parameter)]])

    def zero(self, masks: Mapping[str, Tensor]) -> None:
        """Set every coefficient that `masks` leaves out to zero; the net's own masks stay."""
        with torch.no_grad():
            for name, c in self.coefficients.items():
                c.mul_(masks[name])

    def mask_gradients(self, weight_decay: float, decays: Mapping[str, Tensor] | None = None) -> None:
        """Make the gradients what a step of SGD may use: decay added, then zero wherever the mask is.

        Decay is added here, not by the optimiser, which would move frozen coefficients. With a momentum buffer that is
        zero where the mask is, every step of SGD leaves those coefficients as they are, bit for bit.

        Args:
            weight_decay: of all coefficients.
            decays: by layer, the weight decay of each coefficient in place of that; a layer may be missing.
        """
        coefficients = self.coefficients
        with_gradient = [name for name, c in coefficients.items() if c.grad is not None]
        gradients: list[Tensor] = [coefficients[name].grad for name in with_gradient]  # type: ignore[misc]
        with torch.no_grad():
            if decays:
                for name, gradient in zip(with_gradient, gradients, strict=True):
                    gradient.add_(coefficients[name] * decays.get(name, weight_decay))
            elif weight_decay:
                torch._foreach_add_(gradients, [coefficients[name] for name in with_gradient], alpha=weight_decay)
            torch._foreach_mul_(gradients, [self.masks[name] for name in with_gradient])

    def parameter_groups(self, weight_decay: float) -> list[Group]:
        """What SGD treats alike: coefficients (decayed by `mask_gradients`), filter bases, everything else."""
        coefficients = {id(c) for c in self.coefficients.values()}
        bases = {id(basis.matrix) for basis in self.bases.values()}
        parts: tuple[dict[str, nn.Parameter], ...] = ({}, {}, {})
        for name, parameter in self.net.named_parameters():
            parts[0 if id(parameter) in coefficients else 1 if id(parameter) in bases else 2][name] = parameter
        options = self.run.basis
        groups = [
            Group(parts[0], 0.0, 1.0),
            Group(parts[1], options.weight_decay, options.lr),
            Group(parts[2], weight_decay, 1.0),
        ]
        return [group for group in groups if group.parameters]

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers of the net, each once, and nothing else: its state."""
        state: dict[str, Tensor] = dict(self.net.named_parameters())
        state.update(self.net.named_buffers())
        return {name: tensor.detach() for name, tensor in state.items()}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over a state that `tensors` gave."""
        with torch.no_grad():
            for name, tensor in self.tensors().items():
                tensor.copy_(tensors[name])

    def spatial_weights(self) -> list[Tensor]:
        """The weights of all convolutions with K > 1 as the convolution sees them, detached."""
        return [layer.weight.detach() for layer in self.layers.values() if max(layer.kernel, default=1) > 1]
