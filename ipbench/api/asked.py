"""What scores are taken on: a batch, a loss, and what the net is called with."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from torch import Tensor, nn

from ipbench.api.plan import WHERE
from ipbench.data.loaders import Batch
from ipbench.errors import BadInput
from ipbench.sparse.example import Example, Given
from ipbench.sparse.net import SparseNet
from ipbench.tasks import Task
from ipbench.tasks.classification import Classification
from ipbench.tasks.inputs import Inputs, as_inputs
from ipbench.tasks.own import Labelled, OfInputs, OwnLoss


class NoData(OwnLoss):
    """Of a net that is pruned without data: whoever asks for some is told so."""

    def __init__(self, inputs: Inputs | None, why: str) -> None:
        """`inputs`: what the net can be called with; `why`: the line for who asks for data."""
        super().__init__(self._refuse, inputs)
        self._why = why

    def _refuse(self, *_: Any) -> NoReturn:
        raise BadInput(self._why)

    def outputs(self, net: nn.Module, batch: Any, seed: int, step: int | None = None) -> NoReturn:
        """Raises BadInput: there is no data."""
        self._refuse()

    def parts(self, batch: Any) -> Iterator[tuple[Any, float]]:
        """Raises BadInput, likewise."""
        self._refuse()


class NoInputs:
    """In place of what a net is called with, where that was not told."""

    def one(self, like: Tensor) -> NoReturn:
        """Raises BadInput: it is needed."""
        raise BadInput(
            f"{WHERE}: products are counted, and channels followed, through a call of the net: give inputs=, what it is"
            " called with (a tuple for several arguments)"
        )

    def several(self) -> NoReturn:
        """Raises BadInput, likewise."""
        self.one(Tensor())


def example_of(inputs: Any, trace: Callable[..., Any] | None, batch: Any, loss: Any) -> Example:
    """What the net is called with: `inputs`, or the first part of a batch whose loss is that of classification."""
    if trace is not None and not callable(trace):
        raise BadInput(f"{WHERE}: trace is a function of the net and its inputs (got {trace!r:.60})")
    if inputs is None and loss is None and _is_pair(batch):
        inputs = batch[0]
    if inputs is None:
        return NoInputs()
    return Given(as_inputs(inputs).by(trace))


def task_of(method: str, batch: Any, loss: Callable[..., Tensor] | None, inputs: Any) -> tuple[Task, Any]:
    """What the net is trained for, as far as scores are concerned, and the batch that they get.

    Args:
        method: for messages.
        batch: inputs and labels; or whatever `loss` takes.
        loss: of a net, or of a net and a batch; None: cross entropy.
        inputs: what the net is called with, if told.

    Raises:
        BadInput: the two do not fit each other.
    """
    known = None if inputs is None else as_inputs(inputs)
    if loss is not None:
        takes = _arguments(loss)
        if takes == 2 and batch is None:
            raise BadInput(f"{WHERE}: loss takes a net and a batch, and batch is missing")
        if takes == 1 and batch is not None:
            raise BadInput(f"{WHERE}: loss takes a net alone, so that batch has no meaning; let it take (net, batch)")
        own = loss
        return OwnLoss(lambda net, b: own(_module(net), *([b] if takes == 2 else [])), known), batch
    if batch is None:
        why = f"{WHERE}: method {method} looks at data: give batch=(inputs, labels), or loss= for another task"
        return NoData(known, why), None
    if not _is_pair(batch) or not isinstance(batch[1], Tensor) or batch[1].dim() != 1 or batch[1].is_floating_point():
        raise BadInput(
            f"{WHERE}: without loss=, batch is a pair (inputs, labels) with whole numbers as labels, of shape (N,);"
            " for another task give loss=, a function of the net and the batch"
        )
    given, labels = batch
    if isinstance(given, Tensor) and given.dim() > 1:
        if len(given) != len(labels):
            raise BadInput(f"{WHERE}: batch has {len(given)} inputs and {len(labels)} labels")
        return Classification(), Batch(given, labels)
    return OfInputs(), Labelled(as_inputs(given), labels)


def _is_pair(batch: Any) -> bool:
    return isinstance(batch, tuple | list) and len(batch) == 2


def _module(net: nn.Module) -> nn.Module:
    """The module of the user's class, whose attributes a loss may use."""
    return net.net if isinstance(net, SparseNet) else net


def _arguments(loss: Callable[..., Tensor]) -> int:
    """How many arguments a loss takes, 1 or 2.

    Raises:
        BadInput: it is none.
    """
    try:
        parameters = inspect.signature(loss).parameters.values()
    except (TypeError, ValueError):
        raise BadInput(f"{WHERE}: loss is a function of the net, or of the net and the batch") from None
    needed = [p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    keyword = [p for p in parameters if p.default is p.empty and p.kind is p.KEYWORD_ONLY]
    if len(needed) not in (1, 2) or keyword:
        raise BadInput(f"{WHERE}: loss is a function of the net, or of the net and the batch, not of {len(needed)}")
    return len(needed)
