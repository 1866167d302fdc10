"""`prune`: masks for a net of a user's own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ipbench import methods
from ipbench.api.asked import NoData, example_of, task_of
from ipbench.api.left_out import left_out
from ipbench.api.plan import WHERE, Plan, check_steps, run_of
from ipbench.api.pruned import OF_CHANNELS, Pruned
from ipbench.api.updating import Updating
from ipbench.errors import BadInput
from ipbench.machine.distributed import from_first, together
from ipbench.machine.precision import full_precision
from ipbench.machine.process_state import method_code
from ipbench.methods import Choose, Prune
from ipbench.sparse.example import Given
from ipbench.sparse.net import SparseNet
from ipbench.sparse.selection import Impossible, NotFinite
from ipbench.sparse.view import TrainedView, masks_of
from ipbench.training.pruning import pruned_masks


class _Given:
    """Stands in for a data set where only the score batch is read."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch

    def score_batch(self, size: int | None = None, per_class: int | None = None) -> Any:
        """The batch that the user gave, whatever the method would choose."""
        return self._batch


def prune(
    model: nn.Module,
    method: str = "magnitude",
    sparsity: float | str | None = None,
    *,
    space: str = "sp",
    pattern: str | None = None,
    budget: str | None = None,
    allocation: str | None = None,
    off: str | None = None,
    basis: Mapping[str, Any] | None = None,
    batch: Any = None,
    loss: Callable[..., Tensor] | None = None,
    inputs: Any = None,
    trace: Callable[..., Any] | None = None,
    skip: Iterable[str] = (),
    steps: int = 0,
    seed: int = 0,
    **options: Any,
) -> Pruned:
    """A copy of a net with masks, to be trained in any loop; docs/own-nets.md has examples.

    Of several processes (`torch.distributed`), all call it, and all get the masks of the first.

    Args:
        model: any module, trained before or not, on any device; it stays as it is.
        method: a name of `ipbench methods` that needs no training of ipbench's own.
        sparsity: the share of the budget that goes, 0 <= p < 1; N:M patterns have their own.
        space: "sp", or "ip": coefficients of small filter bases in place of K x K filters.
        pattern: what goes as one: "coefficients", "filters", "columns", "channels" or N:M such as "2:4"; left out: what
            the method means, mostly coefficients.
        budget: what the sparsity is a share of: "parameters", "macs" or "channels".
        allocation: "global", "uniform" or "erk".
        off: what a masked coefficient is: "zero", or "frozen" at its present value.
        basis: of `ip`: `init`, `sharing`, `train`, `lr`, `weight_decay`, `large_kernels`.
        batch: what scores look at: a pair (inputs, labels) for classification, or what `loss` takes.
        loss: another loss: a function of the net, or of the net and `batch`, that returns a scalar tensor.
        inputs: what the net is called with, a tuple for several arguments (`ipbench.Inputs` for named ones): two
            examples or more, through which channels are followed and products counted. Left out: those of `batch`.
        trace: what is called with the net and these inputs in place of its forward, where that cannot be followed.
        skip: names of layers, or of modules that hold some, that are not pruned.
        steps: steps of the optimiser in the whole training, for methods that change masks in it.
        seed: of all that is drawn.
        options: of the method.

    Returns:
        The net with its masks.

    Raises:
        BadInput: something is not valid, has no meaning together, or cannot be done with this net: one line.
    """
    if not isinstance(model, nn.Module) or isinstance(model, Pruned):
        kind = "is pruned already" if isinstance(model, Pruned) else f"is a {type(model).__name__}, no nn.Module"
        raise BadInput(f"{WHERE}: the model {kind}")
    axes = {
        "space": space, "pattern": pattern, "budget": budget, "allocation": allocation, "off": off, "basis": basis,
    }  # fmt: skip
    run, plan = run_of(method, sparsity, options, axes, seed)
    check_steps(run, plan, steps)
    task, given = task_of(method, batch, loss, inputs)
    entry = methods.get(method)
    if entry.task and entry.task != task.name and not isinstance(task, NoData):
        raise BadInput(f"{WHERE}: method {method} is for {entry.task}, and takes no loss of your own")
    own = copy.deepcopy(model)
    reasons = left_out(own, run, skip)
    masked = SparseNet(own, run, example_of(inputs, trace, batch, loss), task=task, left_out=reasons)
    masked.train(model.training)
    for module, before in zip(masked.net.modules(), _modes(model, masked.net), strict=True):
        module.training = before
    if run.pattern in OF_CHANNELS and isinstance(masked.example, Given):
        _follow(masked)
    try:
        _choose(masked, plan, given)
    except (Impossible, NotFinite) as error:
        raise BadInput(f"{WHERE}: method {method}: {error}") from None
    masked.task = NoData(None, f"{WHERE}: method {method} gets no data while you train")
    result = Pruned(masked, reasons, Updating(masked, plan.update, steps) if plan.update else None)
    result.remove_dead()
    return result


def _follow(net: SparseNet) -> None:
    """Find the channels that belong together.

    Raises:
        BadInput: the net cannot be followed.
    """
    try:
        _ = net.groups
    except BadInput as error:
        raise BadInput(
            f"{WHERE}: {error}; for a forward that cannot be followed, trace= names a function of the net and inputs="
            " that calls the same layers"
        ) from None


def _modes(model: nn.Module, net: nn.Module) -> list[bool]:
    """The mode of every module of the net in its space: that of the user's module of this name, or of what holds it."""
    modes = {name: module.training for name, module in model.named_modules()}
    found = []
    for name, _ in net.named_modules():
        while name not in modes:
            name = name.rpartition(".")[0]
        found.append(modes[name])
    return found


def _choose(net: SparseNet, plan: Plan, batch: Any) -> None:
    """Choose the masks of the stages that are done at once, one after the other."""
    for place, stage in enumerate(plan.at_once):
        with together(), full_precision(), method_code(net.run.method, net.run.seed, place):
            masks = _masks(net, stage, batch)
        net.prune(from_first(masks))


def _masks(net: SparseNet, stage: Prune | Choose, batch: Any) -> dict[str, Tensor]:
    if isinstance(stage, Prune):
        return pruned_masks(net, stage, _Given(batch))  # type: ignore[arg-type]
    with torch.no_grad():
        given = () if stage.per_class is None else (batch,)
        return masks_of(net, stage.choose(TrainedView(net, 0.0), *given, **stage.options), f"{stage} must return")
