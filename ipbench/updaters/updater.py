"""`Updater`: what a training does beside its steps, with a memory; and `Update`, which describes one as data.

A method returns an `Update`, which is frozen and needs no torch. When the training begins, `Update.begin` gives the
`Updater` that works in it.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

if TYPE_CHECKING:
    from torch import Tensor

    from ipbench.data.loaders import Batch
    from ipbench.sparse.view import TrainedView

#: How near a name is to that of a hook, of difflib's 0 to 1, if it can only be a slip: "after_epochs".
_NEAR = 0.8
#: What becomes of masks in a training: they stay, coefficients are exchanged, or it ends at the run's budget.
MaskUse = Literal["stay", "exchanged", "pruned"]


@dataclass(frozen=True)
class Steps:
    """The steps of a training.

    Attributes:
        total: of the whole schedule; steps are counted from 0 up to, not including, this number. Of a training that
            ends when its updater is done, the most there can be.
        per_epoch: of an epoch.
        first: the step at which the training begins, above 0 where it leaves out the start of the schedule.
    """

    total: int
    per_epoch: int
    first: int = 0

    @property
    def epochs(self) -> int:
        """Epochs of the whole schedule."""
        return self.total // self.per_epoch


class Update:
    """What a training does beside its steps, as data: a base for frozen dataclasses.

    Attributes:
        masks: "stay": the training leaves the masks as they are, and it is an error if they change. "exchanged": it
            takes coefficients in for others; a stage before has pruned. "pruned": it ends at the run's budget.
        patterns: those of a run that it can keep; all if none is named.
    """

    masks: MaskUse = "stay"
    patterns: tuple[str, ...] = ()

    def begin(self, net: TrainedView, steps: Steps) -> Updater:
        """What works in a training.

        Args:
            net: as the training begins, or as it stands where it is resumed; `Updater.load` follows then.
            steps: of the training.
        """
        raise NotImplementedError

    def idle(self, first: int, total: int) -> str:
        """Why nothing would happen in the steps `first` up to `total`; empty if something does, or nothing is known."""
        return ""


@dataclass(frozen=True)
class Own(Update):
    """An updater of a method's own file, with its options; made by `Updater.spec`.

    Attributes:
        kind: the class.
        options: its keyword arguments.
    """

    kind: type[Updater]
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind.masks not in get_args(MaskUse):
            raise ValueError(
                f"updater {self.kind.__name__}: masks is one of {', '.join(get_args(MaskUse))}, not"
                f" {self.kind.masks!r:.40}"
            )
        object.__setattr__(self, "masks", self.kind.masks)
        object.__setattr__(self, "patterns", self.kind.patterns)

    def begin(self, net: TrainedView, steps: Steps) -> Updater:
        """An instance of the class."""
        return self.kind(net, steps, **self.options)

    def __str__(self) -> str:
        options = ", ".join(f"{name} {value}" for name, value in self.options.items())
        return f"with {self.kind.__name__}" + (f" ({options})" if options else "")


class Updater:
    """What works beside the steps of one training. Every hook is optional; a hook that is left out costs nothing.

    The order in a step: `gates` around the forward pass, `penalty` and the backward pass; then `after_backward`,
    `decay`, and the step of SGD. At the end of an epoch `after_epoch` comes before the evaluation. Hooks that change
    coefficients do it in place; gradients are not recorded in any hook but `penalty`. Random numbers come from
    `net.uniform` alone.

    With several processes all hooks run in each of them. Gradients are those of the whole batch; what a hook adds up
    over the images of its own batch goes through `net.summed`. Masks, and coefficients after an epoch, are those of the
    first process, and so is what a state holds.

    Attributes:
        masks: what becomes of masks, see `Update`.
        patterns: those of a run that it can keep, likewise.
        done: whether the work is finished; ends a training with `Train(until="done")` at the end of the epoch.
        settled: whether the net is one that may be selected as the best; a net above its budget never is.
    """

    masks: ClassVar[MaskUse] = "stay"
    patterns: ClassVar[tuple[str, ...]] = ()
    done: bool = False
    settled: bool = True

    def __init__(self, net: TrainedView, steps: Steps) -> None:
        """A beginning.

        Args:
            net: as the training begins, or as it stands where it is resumed.
            steps: of the training.
        """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse what is nearly the name of a hook: it would never be called, and the method would do nothing.

        Raises:
            ValueError: a public attribute of the class is called so.
        """
        super().__init_subclass__(**kwargs)
        hooks = {name for name in vars(Updater) if not name.startswith("_")}
        for name in vars(cls):
            if name.startswith("_") or name in hooks:
                continue
            if near := difflib.get_close_matches(name, hooks, 1, cutoff=_NEAR):
                raise ValueError(
                    f"updater {cls.__name__}: {name} is no hook (did you mean {near[0]}?); what is the class's own"
                    " begins with an underscore, or is called otherwise"
                )

    @classmethod
    def spec(cls, **options: Any) -> Own:
        """This updater as data, for `Train`; the options are keyword arguments of its `__init__`.

        Raises:
            ValueError: it does not take these options.
        """
        try:
            inspect.signature(cls).bind(None, None, **options)
        except TypeError as error:
            raise ValueError(f"updater {cls.__name__}: {error}") from None
        return Own(cls, options)

    def penalty(self, net: TrainedView) -> Tensor | None:
        """A scalar that is added to the loss at every step; the loss of the record is without it."""
        return None

    def gates(self, batch: Batch) -> AbstractContextManager[object]:
        """A context around the forward and backward pass of a step, for gates on channels of single images."""
        return nullcontext()

    def due(self, step: int) -> bool:
        """Whether `after_backward` has anything to do at this step; where it has not, it is not called."""
        return True

    def after_backward(self, net: TrainedView, batch: Batch, step: int) -> bool:
        """Called when the dense gradients are at hand, as `c.grad` of the coefficients.

        Args:
            net: may be changed, its masks by `net.prune`.
            batch: of this step; of several processes, this one's part.
            step: counted from 0, from the start of the schedule.

        Returns:
            Whether weights are trained at this step.
        """
        return True

    def after_epoch(self, net: TrainedView, epoch: int) -> None:
        """Called at the end of an epoch, counted from 0, before the net is evaluated. Masked coefficients stay off."""

    def decay(self, net: TrainedView) -> Mapping[str, Tensor] | None:
        """The weight decay of each coefficient at this step, in place of the recipe's (`net.weight_decay`).

        Returns:
            By layer, tensors that broadcast to the shape of its coefficients; layers that are left out, or None for
            all, have the recipe's.
        """
        return None

    def tensors(self) -> Mapping[str, Tensor | int | float | bool]:
        """All that a resumed training must know again: tensors and plain numbers by name."""
        return {}

    def load(self, tensors: Mapping[str, Any]) -> None:
        """Take over what `tensors` gave: numbers of the same types, tensors on the device of the net."""


def overrides(updater: Updater, hook: str) -> bool:
    """Whether an updater has a hook of its own."""
    return getattr(type(updater), hook) is not getattr(Updater, hook)
