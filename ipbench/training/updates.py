"""The hooks of an updater as the training loop calls them, and what they have done to the masks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ipbench.data.loaders import Batch
from ipbench.errors import BadInput
from ipbench.machine.distributed import agreeing, by_first, from_first
from ipbench.machine.process_state import method_code
from ipbench.sparse.net import SparseNet
from ipbench.sparse.view import TrainedView, recalled
from ipbench.updaters.updater import Updater, overrides

#: Hooks that are called with the generators of numpy and Python keyed; each has numbers of its own.
_PLACES = {
    "after_backward": (),
    "penalty": (1,),
    "decay": (2,),
    "after_epoch": (3,),
    "gates": (4,),
    "after_evaluation": (5,),
}


@dataclass
class Activity:
    """What updates have done to the masks of a run.

    Attributes:
        mask_updates: steps that changed masks.
        coefficients_removed: that masks lost at these steps, in all; of an exchange, as many came in.
    """

    mask_updates: int = 0
    coefficients_removed: int = 0

    def count(self, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> None:
        """Add one step."""
        removed = sum(int((mask & ~after[name]).sum()) for name, mask in before.items())
        self.mask_updates += removed > 0
        self.coefficients_removed += removed


@dataclass
class Hooks:
    """An updater at work in one training.

    Attributes:
        net: that is trained.
        updater: whose hooks are called.
        view: what they see.
        activity: counts changes of masks.
    """

    net: SparseNet
    updater: Updater
    view: TrainedView
    activity: Activity = field(default_factory=Activity)

    def has(self, hook: str) -> bool:
        """Whether the updater has a hook of its own."""
        return overrides(self.updater, hook)

    def gates(self, batch: Batch) -> AbstractContextManager[object]:
        """What a forward pass runs in.

        Raises:
            BadInput: it is no context.
        """
        if not self.has("gates"):
            return nullcontext()
        found = self.updater.gates(batch)
        if not isinstance(found, AbstractContextManager):
            raise BadInput(f"{self._who('gates')} must return a context, not {found!r:.60}")
        return found

    def penalty(self, step: int) -> Tensor | None:
        """What is added to the loss.

        Raises:
            BadInput: it is no scalar.
        """
        if not self.has("penalty"):
            return None
        with self._code("penalty", step):
            found = self.updater.penalty(self.view)
        if found is not None and not (isinstance(found, Tensor) and found.dim() == 0 and found.is_floating_point()):
            what = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise BadInput(f"{self._who('penalty')} must return a scalar tensor or None, not {what}")
        return found

    def after_backward(self, batch: Batch, step: int, momentum: Mapping[str, Tensor]) -> bool:
        """Let masks be revised, and clear the momentum of what is masked; returns whether weights are trained."""
        if not self.has("after_backward") or not self.updater.due(step):
            return True
        before = self.net.masks
        with torch.no_grad(), self._code("after_backward", step):
            trained = self.updater.after_backward(self.view, batch, step)
        if not isinstance(trained, bool):
            raise BadInput(f"{self._who('after_backward')} must return True (weights are trained) or False")
        self.changed(before, momentum)
        return trained

    def after_epoch(self, epoch: int, momentum: Mapping[str, Tensor]) -> None:
        """Let the net be changed at the end of an epoch; what is masked stays off, and all processes have one net."""
        if not self.has("after_epoch"):
            return
        before = self.net.masks
        with torch.no_grad(), self._code("after_epoch", epoch):
            self.updater.after_epoch(self.view, epoch)
        from_first(self.net.tensors())
        self.net.prune(self.net.masks)
        self.changed(before, momentum)

    def after_evaluation(self, epoch: int, accuracy: float, momentum: Mapping[str, Tensor]) -> bool:
        """Let the net be changed by its validation accuracy; returns whether it was.

        Raises:
            BadInput: there is no accuracy, for there is no validation part.
        """
        if not self.has("after_evaluation"):
            return False
        if math.isnan(accuracy):
            raise BadInput(f"{self._who('after_evaluation')} needs a validation accuracy, and no image is held out")
        before, masks = {name: tensor.clone() for name, tensor in self.net.tensors().items()}, self.net.masks
        with torch.no_grad(), self._code("after_evaluation", epoch):
            self.updater.after_evaluation(self.view, epoch, accuracy)
        from_first(self.net.tensors())
        self.net.prune(self.net.masks)
        self.changed(masks, momentum)
        if recalled(self.view):  # what was gathered belongs to another net
            for buffer in momentum.values():
                buffer.zero_()
        return any(not torch.equal(before[name], tensor) for name, tensor in self.net.tensors().items()) or any(
            not torch.equal(mask, masks[name]) for name, mask in self.net.masks.items()
        )

    def decays(self, step: int) -> Mapping[str, Tensor] | None:
        """The weight decay of single coefficients.

        Raises:
            BadInput: it is not by layer, or of another shape.
        """
        if not self.has("decay"):
            return None
        with torch.no_grad(), self._code("decay", step):
            found = self.updater.decay(self.view)
        shapes = self.view.shapes
        if not isinstance(found, Mapping | None):
            raise BadInput(f"{self._who('decay')} must return a dict of tensors by layer or None, not {found!r:.60}")
        for name, factors in (found or {}).items():
            if name not in shapes or not isinstance(factors, Tensor) or not _fits(factors, shapes[name]):
                raise BadInput(f"{self._who('decay')}: what it returns for layer {name} does not fit its coefficients")
        return found

    def finished(self) -> bool:
        """Whether the updater is done; of several processes, the first one's says it."""
        return bool(by_first(lambda: bool(self.updater.done)))

    def settled(self) -> bool:
        """Whether an epoch may be selected."""
        return bool(by_first(lambda: bool(self.updater.settled)))

    def changed(self, before: Mapping[str, Tensor], momentum: Mapping[str, Tensor]) -> None:
        """Count a change of masks.

        Raises:
            BadInput: the updater says that masks stay.
        """
        if all(mask is before[name] or torch.equal(mask, before[name]) for name, mask in self.net.masks.items()):
            return
        if self.updater.masks == "stay":
            raise BadInput(
                f"method {self.net.run.method}: updater {type(self.updater).__name__} changes masks, which its"
                ' attribute `masks` must tell: "exchanged" or "pruned"'
            )
        self.activity.count(before, self.net.masks)
        self.net.clear(momentum)

    @contextmanager
    def _code(self, hook: str, number: int) -> Iterator[None]:
        """Where code of a method runs: what fails in one process fails in all."""
        with agreeing(), method_code(self.net.run.method, self.net.run.seed, number, *_PLACES[hook]):
            yield

    def _who(self, hook: str) -> str:
        return f"method {self.net.run.method}: {type(self.updater).__name__}.{hook}"


def _fits(tensor: Tensor, shape: tuple[int, ...]) -> bool:
    """Whether a tensor broadcasts to exactly this shape."""
    try:
        return torch.broadcast_shapes(tensor.shape, shape) == torch.Size(shape)
    except RuntimeError:
        return False
