"""What a method sees of a net: `NetView` in a score or a growth, `TrainedView` in an updater.

Neither shows in which space the net is, nor the run: a method that cannot ask is the same on both sides of a
comparison.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from ipbench import keys
from ipbench.data.loaders import Batch
from ipbench.errors import BadInput
from ipbench.machine import distributed
from ipbench.sparse.channels import Groups
from ipbench.sparse.gates import Gates
from ipbench.sparse.inputs import input_norms
from ipbench.sparse.net import Gradient, SparseNet
from ipbench.sparse.patterns import selector
from ipbench.sparse.plain import PlainNet, bias_names, plain_net
from ipbench.sparse.removal import ChannelUnits
from ipbench.sparse.selection import Rounding
from ipbench.sparse.structure import restricted
from ipbench.sparse.trial import returned
from ipbench.sparse.unit_selector import OfUnits
from ipbench.sparse.unit_tensors import UnitTensors, unit_tensors

#: What a method may remember: tensors and plain numbers by name.
Memory = dict[str, Tensor | int | float | bool]
#: Who remembers nets in a net's state: no name that a score has.
_NETS = "nets that are kept"


class NetView:
    """A net as a method sees it; layers are in the order of the net everywhere.

    Attributes:
        state: what the method remembers from one call to the next, in this run alone: it may put in tensors and
            numbers by name. It lies in the run's state file, so that a resumed run knows it, too.
    """

    def __init__(self, net: SparseNet, state: Memory | None = None) -> None:
        """A view of `net`; `state`: what is remembered."""
        self._net = net
        self._units: ChannelUnits | None = None
        self.state: Memory = {} if state is None else state

    def __call__(self, images: Tensor) -> Tensor:
        """What the net makes of images (N, C, H, W): logits (N, classes); of a detector, see `outputs`."""
        result: Tensor = self._net(images)
        return result

    def outputs(self, images: Tensor) -> tuple[Tensor, ...]:
        """All that the net gives of images (N, C, H, W): logits (N, classes), or the raw outputs of a detector's heads.

        Faster R-CNN looks at fixed proposals then, as many as it keeps of an image at most.
        """
        found = self._net(images)
        return found if isinstance(found, tuple) else (found,)

    def loss(self, batch: Batch) -> Tensor:
        """The mean loss of the task over a batch, a scalar with a graph; what is drawn for an image is keyed by it."""
        return self._net.task.loss_of(self._net, batch, self._net.run.seed)

    def logits(self, batch: Batch) -> Tensor:
        """Logits (N, classes) of a batch; of nets for classification."""
        found: Tensor = self._net.task.outputs(self._net, batch, self._net.run.seed)
        return found

    def flow(self, batch: Batch) -> Tensor:
        """The sum of all numbers that the net gives for ones in place of one image, a scalar with a graph.

        Raises:
            BadInput: it gives none that depend on its weights.
        """
        inputs = self._net.task.ones(batch).like(next(self._net.parameters()))
        found = [part.sum() for part in returned(inputs.of(self._net)) if part.requires_grad]
        if not found:
            raise BadInput("the net gives nothing of ones that depends on its weights")
        return sum(found[1:], found[0])

    @property
    def task(self) -> str:
        """What the net is trained for: "classification" or "detection"."""
        return self._net.task.name

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"a method does not see {name!r} of a net; docs/adding-a-method.md tells what it sees")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the prunable layers."""
        return tuple(self._net.masks)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the coefficients by layer: (out, in / groups, height, width) of convolutions, (out, in) of linear
        layers.
        """
        return {name: tuple(mask.shape) for name, mask in self._net.masks.items()}

    @property
    def coefficients(self) -> dict[str, nn.Parameter]:
        """The prunable tensors by layer."""
        return self._net.coefficients

    @property
    def weights(self) -> dict[str, Tensor]:
        """What the units of the run's pattern are measured by, in the shapes of the coefficients, detached.

        Of filters and channels these are the weights that the layers compute with, in the interspace the filters: their
        norms and distances do not depend on the filter basis. Of single coefficients and columns, the coefficients.
        """
        if self._net.run.pattern in ("filters", "channels"):
            return {name: layer.weight.detach() for name, layer in self._net.layers.items()}
        return {name: c.detach() for name, c in self._net.coefficients.items()}

    @property
    def filters(self) -> dict[str, Tensor]:
        """The weights that the layers compute with, in the shapes of the coefficients, with their graph.

        A loss on them has gradients in all that makes them: in the interspace in coefficients and filter bases.
        """
        weights = {name: layer.weight for name, layer in self._net.layers.items()}
        return {name: weight.view_as(weight) for name, weight in weights.items()}  # never the parameters themselves

    @property
    def biases(self) -> dict[str, nn.Parameter]:
        """Biases by layer, a number per filter, of the layers that have them."""
        return self._parameters(bias_names(self._net))

    @property
    def norms(self) -> dict[str, nn.Parameter]:
        """Scales of batch norms by layer: of the norm behind a layer whose channels are exactly the layer's filters."""
        return self._parameters({name: f"{path}.weight" for name, path in self._net.norms.items()})

    def _parameters(self, names: Mapping[str, str]) -> dict[str, nn.Parameter]:
        held = dict(self._net.net.named_parameters())
        return {layer: held[name] for layer, name in names.items()}

    def plain(self) -> PlainNet:
        """A copy of the net as a plain module in evaluation mode, of which all parameters can be differentiated by."""
        return plain_net(self._net)

    @property
    def masks(self) -> dict[str, Tensor]:
        """Boolean tensors in the shapes of the coefficients; True = trained."""
        return dict(self._net.masks)

    @property
    def budget(self) -> int:
        """How many coefficients the run's sparsity lets stay.

        Raises:
            Impossible: there is no such budget.
        """
        return self._net.budget

    @property
    def groups(self) -> Groups:
        """Groups of coupled channels of the net as it is now: which filters make each channel, and which read it."""
        return restricted(self._net.groups, self._net.structure)

    @property
    def channels(self) -> ChannelUnits:
        """The units of these groups in one list, as pattern `channels` numbers them in the dense net."""
        if self._units is None:
            self._units = ChannelUnits(self._net)
        return self._units

    def gates(self) -> Gates:
        """Gates of value 1 on the channels of single images: `with gates(batch): ...`, then `gates.gradients()`."""
        return Gates(self._net)

    @property
    def notes(self) -> dict[str, object]:
        """Plain values by name that are written into the record."""
        return self._net.notes

    def gradients(self, loss: Tensor, *, create_graph: bool = False) -> list[Gradient]:
        """Name, coefficients and dense gradient of a scalar loss for every layer, masked entries included."""
        return self._net.gradients(loss, create_graph=create_graph)

    def averaged(self, gradients: Callable[[Batch], list[Gradient]], batch: Batch) -> list[Gradient]:
        """The mean of what `gradients(part)` gives for parts of a batch, in passes of bounded size."""
        return self._net.averaged(gradients, batch)

    def mean(self, values: Callable[[Batch], Mapping[str, Tensor]], batch: Batch) -> dict[str, Tensor]:
        """The mean of tensors by name that `values(part)` gives for parts of a batch, in the same passes."""
        return self._net.mean(values, batch)

    def input_norms(self, batch: Batch) -> dict[str, Tensor]:
        """By layer, in the shapes of the coefficients, the norm over images and places of what each is multiplied with:
        of an input, in the interspace of the response of a basis filter.

        Raises:
            BadInput: a layer that is neither linear nor a plain convolution over two dimensions; its name is told.
        """
        return input_norms(self._net, batch)

    def uniform(self, layer: str, purpose: keys.Purpose = "score", *parts: int) -> Tensor:
        """Keyed uniform numbers in [0, 1) in the shape of a layer's coefficients; see `SparseNet.uniform`."""
        return self._net.uniform(layer, purpose, *parts)

    def magnitudes(self, scaled: bool = False) -> dict[str, Tensor]:
        """Absolute coefficients by layer; `scaled`: times the norm of their basis filter."""
        return self._net.magnitudes(scaled)

    @contextmanager
    def linearised(self) -> Iterator[NetView]:
        """The net with absolute values, in double precision and evaluation mode; at the end all is as before."""
        with self._net.linearised():
            yield self

    @property
    def kept(self) -> int:
        """What the masks keep, in the unit of the run's budget: coefficients, units of a pattern, ..."""
        return self.kept_by(self._net.masks)

    def kept_by(self, masks: Mapping[str, Tensor]) -> int:
        """What such masks would keep, in the same unit."""
        return selector(self._net).kept(masks)

    @property
    def target(self) -> int:
        """What the run's budget lets stay, in the same unit.

        Raises:
            Impossible: there is no such budget.
        """
        return selector(self._net).target

    @property
    def blocks(self) -> dict[str, int]:
        """By name, the layers or groups of channels that the run's pattern is of, and how many units each has."""
        return selector(self._net).blocks

    @property
    def inner(self) -> frozenset[str]:
        """Names of the blocks whose units are all that makes their channels: no skip connection adds others."""
        return selector(self._net).inner

    @property
    def units(self) -> UnitTensors:
        """The units of the run's pattern as tensors, made anew at every call: their sums, ranks and masks.

        Raises:
            BadInput: the pattern is N:M, or channels have been cut.
        """
        return unit_tensors(self._net)

    def budget_at(self, share: float) -> int:
        """How much may stay when this share, 0 to 1, of what is to be pruned is pruned.

        In the unit of the run's budget. Rounded up, so that nothing is pruned too early. What is paid for beside
        coefficients is paid at share 0.
        """
        selects = selector(self._net)
        start, target = selects.start, selects.target
        return max(target, math.ceil(start - share * (start - target)))

    def select(
        self, scores: Mapping[str, Tensor], keep: int, *parts: int, blocks: Collection[str] | None = None
    ) -> dict[str, Tensor]:
        """Masks of the best by their scores among what is trained, by the run's pattern and allocation.

        Args:
            scores: a number per coefficient, by layer.
            keep: how much stays, in the unit of the run's budget.
            parts: which of several selections this is, e.g. the step: equal scores are decided by key.
            blocks: names of those that may lose units; all if left out.

        Raises:
            NotFinite: a score is not finite.
            Impossible: a layer's share, or the budget, cannot be met.
        """
        tie_key = keys.key(self._net.run.seed, "ties", *parts)
        return selector(self._net).select(scores, keep, tie_key=tie_key, among=self._net.masks, blocks=blocks)

    def select_each(
        self,
        scores: Mapping[str, Tensor],
        rates: Mapping[str, Fraction | float | str],
        *parts: int,
        rounding: Rounding = "int",
        among: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Masks that leave out a share of the units of each block, those with the smallest scores; one stays.

        Args:
            scores: a number per coefficient, by layer.
            rates: the share that goes, by block; blocks that are left out keep theirs.
            parts: which of several selections this is.
            rounding: of what is no whole number of units.
            among: masks of what can be kept; those of the net if left out.

        Raises:
            NotFinite: a score is not finite.
        """
        return selector(self._net).without_weakest(
            scores, rates, rounding, tie_key=keys.key(self._net.run.seed, "ties", *parts),
            among=self._net.masks if among is None else among,
        )  # fmt: skip

    def unit_scores(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The sums of scores over the units of each block, those of the dense net, in double precision on the CPU.

        Raises:
            NotFinite: a score is not finite.
            BadInput: the run's pattern is none of filters, columns and channels.
        """
        return self._of_units().unit_scores(scores)

    def standing(self, masks: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Which units of each block stand under masks, those of the net if left out.

        Raises:
            BadInput: as `unit_scores`.
        """
        return self._of_units().standing(self._net.masks if masks is None else masks)

    def select_units(
        self,
        scores: Mapping[str, Tensor],
        *parts: int,
        keep: int = 0,
        share: Fraction | float | None = None,
        blocks: Collection[str] | None = None,
    ) -> dict[str, Tensor]:
        """Masks of the best units among those that stand, as `select`.

        Args:
            scores: a number per unit by block, as `unit_scores` gives them.
            parts: which of several selections this is.
            keep: how much stays, in the unit of the run's budget.
            share: in its place: of the n filters that stand, int(share * n) go, of whichever blocks; a channel is as
                many filters as make it.
            blocks: names of those that may lose units; all if left out.

        Raises:
            NotFinite: a score is not finite.
            Impossible: so little cannot be kept.
            BadInput: as `unit_scores`.
        """
        tie_key = keys.key(self._net.run.seed, "ties", *parts)
        return self._of_units().select_units(
            scores, keep=keep, share=share, tie_key=tie_key, among=self._net.masks, blocks=blocks
        )

    def _of_units(self) -> OfUnits:
        found = selector(self._net)
        if not isinstance(found, OfUnits):
            run = self._net.run
            raise BadInput(
                f"method {run.method}: ranks filters, columns or channels, and pattern {run.pattern} has none of them"
            )
        return found


class TrainedView(NetView):
    """The net that is trained, as an updater sees it: what it changes stays changed."""

    def __init__(self, net: SparseNet, weight_decay: float) -> None:
        """A view of `net`; `weight_decay`: of this training's recipe."""
        super().__init__(net, net.state.setdefault("", {}))
        self._weight_decay = weight_decay
        self._recalled = False

    @property
    def masks(self) -> dict[str, Tensor]:
        """Boolean tensors in the shapes of the coefficients; True = trained. Copies: `prune` changes the net's."""
        return {name: mask.clone() for name, mask in self._net.masks.items()}

    @property
    def weight_decay(self) -> float:
        """Of this training, for all coefficients."""
        return self._weight_decay

    def prune(self, masks: Mapping[str, Tensor]) -> None:
        """Take over masks, and set all that they leave out to its off-value. Of several processes, the first decides.

        A coefficient that comes in starts at its off-value, without momentum.

        Args:
            masks: for every layer, boolean and in the shape of its coefficients.

        Raises:
            BadInput: they are not that.
        """
        taken = masks_of(self._net, masks, "net.prune takes")
        distributed.meet()
        self._net.prune(distributed.from_first(taken))

    def remove(self, units: Tensor) -> None:
        """Mask units of `channels` in all layers that make or read them; of several processes, the first decides.

        Without them the net computes what it computes after they are cut: nothing reads the constant that norms and
        biases still make of an empty channel. Only layers that lose something are touched.

        Args:
            units: their numbers.

        Raises:
            BadInput: one is not there, or a group would have none left.
        """
        flags = self.channels.flags(units).to(next(self._net.parameters()).device)
        distributed.meet()
        flags = distributed.from_first({"units": flags})["units"]
        gone = flags.nonzero().flatten()
        self._net.prune(self.channels.masks_without(gone))
        self.channels.note_removed(flags)

    def remember(self, name: str) -> None:
        """Keep a copy of the net and its masks under a name, in place of what was kept there; a resumed run has it."""
        net, kept = self._net, self._net.state.setdefault(_NETS, {})
        self.forget(name)
        kept |= {f"{name} mask {layer}": mask.clone() for layer, mask in net.masks.items()}
        kept |= {f"{name} tensor {key}": tensor.clone() for key, tensor in net.tensors().items()}

    def recall(self, name: str) -> None:
        """Take back the net that was kept under a name, in all processes that of the first; momentum begins anew.

        Raises:
            BadInput: none is kept there; or channels have been cut since.
        """
        net, kept = self._net, self._net.state.get(_NETS, {})
        parts: dict[str, dict[str, Tensor]] = {
            kind: {
                key.removeprefix(start): tensor.clone()
                for key, tensor in kept.items()
                if key.startswith(start := f"{name} {kind} ") and isinstance(tensor, Tensor)
            }
            for kind in ("mask", "tensor")
        }
        if not parts["mask"]:
            raise BadInput(f"method {net.run.method}: net.recall: no net is kept under {name!r:.40}")
        self.prune(parts["mask"])
        net.load_tensors(distributed.from_first(parts["tensor"]))
        self._recalled = True

    def forget(self, name: str) -> None:
        """Keep no net under a name any more."""
        kept = self._net.state.get(_NETS, {})
        for key in [key for key in kept if key.startswith((f"{name} mask ", f"{name} tensor "))]:
            del kept[key]

    def summed(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The sums of these tensors over all processes, formed in double precision; all of them must ask for it."""
        world = distributed.processes()
        if world == 1:
            return dict(tensors)
        distributed.meet()
        return {
            name: distributed.summed(tensor.detach().to(torch.float64, copy=True)).to(tensor.dtype)
            for name, tensor in tensors.items()
        }


def masks_of(net: SparseNet, masks: Any, what: str) -> dict[str, Tensor]:
    """Copies of the masks that a method gives, on the net's device.

    Args:
        net: of which they are to be.
        masks: what the method gave.
        what: it was given for, with a verb.

    Raises:
        BadInput: it is no dict with a boolean tensor for each layer, in the shape of its coefficients.
    """
    who = f"method {net.run.method}: {what} a dict with a boolean mask for each layer"
    if not isinstance(masks, Mapping) or set(masks) != set(net.masks):
        raise BadInput(f"{who}: {', '.join(net.masks)}")
    taken = {}
    for name, like in net.masks.items():
        mask = masks[name]
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != like.shape:
            raise BadInput(f"{who}, and that of layer {name} is none of shape {tuple(like.shape)}")
        taken[name] = mask.detach().to(like.device, copy=True).contiguous()
    return taken


def recalled(view: TrainedView) -> bool:
    """Whether `view.recall` was called since this was asked last: then momentum is that of another net."""
    found, view._recalled = view._recalled, False
    return found


def sparse_net(net: NetView | SparseNet) -> SparseNet:
    """What is behind a view: for files of this package that no method is written in."""
    return net._net if isinstance(net, NetView) else net
