"""Executing the stages of a run's method, the finished ones left out."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from ipbench import methods
from ipbench.data.loaders import Data
from ipbench.errors import BadInput
from ipbench.machine.distributed import averaging, from_first, together
from ipbench.machine.precision import full_precision
from ipbench.machine.process_state import method_code
from ipbench.machine.stopping import Stopped
from ipbench.runs.controls import Source, in_length, of_nobody, take
from ipbench.runs.external import masks_of_nobody
from ipbench.runs.outcome import starting_gradient_norm
from ipbench.runs.state import End, State, remembers
from ipbench.runs.trials import check_share
from ipbench.sparse import measure
from ipbench.sparse.inverted import InvertedView
from ipbench.sparse.net import SparseNet
from ipbench.sparse.patterns import selector
from ipbench.sparse.scoring import share_memory
from ipbench.sparse.selection import Impossible
from ipbench.sparse.view import TrainedView, masks_of
from ipbench.spec import Recipe
from ipbench.training.loop import Progress, Sgd, require_finite, require_finite_net, train, train_steps, within_budget
from ipbench.training.pruning import pruned_masks
from ipbench.training.updates import Hooks
from ipbench.updaters.updater import Steps, Updater, overrides


@dataclass(frozen=True)
class Given:
    """What stages take from outside of the run, each made when it is asked for.

    Attributes:
        fresh: the net of the run anew, with its initial values.
        start: the end of the run that this one continues.
        external: the masks of what a program outside of ipbench wrote for the run.
        source: the run that this one is a control of.
        small: the initial values of a net that is cut, drawn for its shapes.
    """

    fresh: Callable[[], SparseNet]
    start: Callable[[], End]
    external: Callable[[SparseNet], dict[str, Tensor]] = masks_of_nobody
    source: Callable[[], Source] = of_nobody
    small: Callable[[SparseNet], dict[str, Tensor]] = SparseNet.tensors


def execute_stages(
    net: SparseNet,
    data: Data,
    state: State,
    given: Given,
    *,
    save: Callable[[], None],
    on_epoch: Callable[[int, int], None],
) -> None:
    """Run the stages of the run's method from where `state` stands; it is saved after each of them, and after
    epochs where it is due.

    Args:
        net: as it was built, or as `state` was loaded into it; changed in place.
        data: what the run reads.
        state: changed in place.
        given: what else they take.
        save: writes `state` and `net`.
        on_epoch: called with the epochs finished and all epochs of a training.

    Raises:
        Impossible: a budget cannot be met, or no update changed a mask.
        NotFinite: a score, a loss, a parameter or a buffer is not finite.
        BadInput: a training would begin behind the last step of its recipe, or end before its update changes a mask;
            or the net that the method leaves is above its budget, or its updater settled at no epoch.
        Stopped: a signal asked for it; `state` is saved.
    """
    method = methods.get(net.run.method)
    method.check_run(net.run, net.run.dataset, data.steps_per_epoch)
    for place, stage in enumerate(method.stages_of(net.run)):
        if place < state.stage:
            continue
        if isinstance(stage, methods.Train):
            _train(net, data, state, stage, place, save, on_epoch)
        else:
            _change(net, data, state, stage, given)
        state.stage = place + 1
        save()
    if not within_budget(net):
        selects = selector(net)
        raise BadInput(
            f"method {method.name}: left the net above its budget: {selects.kept(net.masks):,} {selects.counted} are"
            f" trained, and sparsity {net.run.sparsity} lets {selects.target:,} stay"
        )
    progress = state.progress
    if progress.best_epoch != progress.epoch and not progress.best:
        raise BadInput(
            f"method {method.name}: none of the {progress.epoch} epochs of the last training was settled, so that none"
            " can be selected; train longer"
        )
    wanted = net.run.sparsity != "0" or method.by_knob(net.run.options)
    if method.updates(net.run) and wanted and not state.activity.mask_updates:
        raise Impossible(f"method {method.name} changed no mask at any step of its training")


def _change(net: SparseNet, data: Data, state: State, stage: methods.Stage, given: Given) -> None:
    """Execute a stage that changes the net at once; what is selected from then on is the net as it is."""
    if isinstance(stage, methods.Slice):
        _slice(net, state, stage)
        return
    if isinstance(stage, methods.Continue):
        end = given.start()
        net.restore(end.structure, end.net, end.masks)
        state.point = end.point
        state.epochs = end.facts.get("epochs", math.nan)
        state.facts["inherited_flops"], state.facts["inherited_epochs"] = end.facts["training_flops"], state.epochs
    elif isinstance(stage, methods.Prune):
        with together(), full_precision(), method_code(net.run.method, net.run.seed, state.stage):
            masks = pruned_masks(net, stage, data)
        net.prune(from_first(masks))
        share_memory(net)
    elif isinstance(stage, methods.External):
        net.prune(from_first(given.external(net)))
    elif isinstance(stage, methods.Choose):
        _choose(net, data, state, stage)
    elif isinstance(stage, methods.Take):
        take(net, state, stage, given.source(), given.fresh, given.small)
        from_first(net.tensors())
    else:
        assert isinstance(stage, methods.Rewind)
        state.epochs = stage.epochs
        state.point = state.point or rewinding_point(given.fresh(), data, stage.epochs)
        net.load_tensors(net.cut_from_dense(state.point))
        net.prune(net.masks)
    state.progress.forget_best()


def _choose(net: SparseNet, data: Data, state: State, stage: methods.Choose) -> None:
    """Let a method choose the masks; what it made of the coefficients comes from the first process, too."""
    begin = time.perf_counter()
    batch = () if stage.per_class is None else (data.score_batch(per_class=stage.per_class or None),)
    with together(), full_precision(), torch.no_grad(), method_code(net.run.method, net.run.seed, state.stage):
        view = InvertedView(net) if stage.inverted else TrainedView(net, 0.0)
        masks = masks_of(net, stage.choose(view, *batch, **stage.options), f"{stage} must return")
        if isinstance(view, InvertedView):
            view.require_inverted()
    from_first(net.tensors())
    net.prune(from_first(masks))
    state.choosing += time.perf_counter() - begin


def _slice(net: SparseNet, state: State, stage: methods.Slice) -> None:
    """Cut dead channels. Where there are none, nothing is forgotten; else all that has the shapes of before is."""
    before = net.structure
    with together():
        net.slice(stage.constant, stage.fresh)
    if net.structure != before:
        state.progress.forget_best()
        state.progress.momentum = {}
        net.state.clear()


def rewinding_point(net: SparseNet, data: Data, epochs: float) -> dict[str, Tensor]:
    """Where the dense training of this net stands after so many epochs; keyed as it is, it is simply trained again.

    Args:
        net: with its initial values and nothing pruned; trained in place.
        data: what the run reads.
        epochs: of the recipe; a fraction is rounded to whole steps.

    Raises:
        NotFinite: the training has diverged.
    """
    recipe, steps = net.run.recipe, data.steps_per_epoch
    last = round(epochs * steps)
    optimiser, forward = Sgd(net, recipe, {}), averaging(net)
    for begin in range(0, last, steps):
        train_steps(net, data, recipe, optimiser, begin, min(begin + steps, last), forward=forward)
    require_finite_net(net, f"in the dense training, at epoch {epochs:g}")
    return {name: tensor.clone() for name, tensor in net.tensors().items()}


def _train(
    net: SparseNet,
    data: Data,
    state: State,
    stage: methods.Train,
    place: int,
    save: Callable[[], None],
    on_epoch: Callable[[int, int], None],
) -> None:
    if not state.inside:
        state.progress, state.inside, state.remembered = Progress(), True, None
    if "gradient_norm_start" not in state.facts:
        state.facts["spatial_zeros_start"] = measure.spatial_zeros(net.spatial_weights())
        with together(), full_precision():
            state.facts["gradient_norm_start"] = starting_gradient_norm(net, data)
        require_finite({"gradient norm": state.facts["gradient_norm_start"]}, "before the training")
    recipe = stage.recipe_of(net.run.recipe)
    if stage.recipe:
        data = data.under(recipe)
        check_share(net, data)
    recipe = stage.in_epochs(recipe, data.steps_per_epoch, f"method {net.run.method}")
    recipe = in_length(stage, recipe, net, data, state)
    on_epoch(state.progress.epoch, recipe.epochs)

    def after_epoch(progress: Progress) -> None:
        # After the last epoch, the end of the stage is saved at once.
        if progress.epoch < recipe.epochs and state.due():
            save()
        on_epoch(progress.epoch, recipe.epochs)

    first = round(stage.first * data.steps_per_epoch)
    steps = Steps(recipe.epochs * data.steps_per_epoch, data.steps_per_epoch, first)
    hooks = hooks_of(net, stage, recipe, steps, state)
    try:
        train(
            net, data, recipe, state.progress, hooks=hooks, until_done=stage.until == "done", first=first,
            after_epoch=after_epoch,
        )  # fmt: skip
    except Stopped:
        save()
        raise
    state.flops += state.progress.flops
    state.epochs += state.progress.epoch - stage.first
    state.inside, state.updater = False, None


def hooks_of(net: SparseNet, stage: methods.Train, recipe: Recipe, steps: Steps, state: State) -> Hooks | None:
    """What is done beside the steps of a training; as `state` remembers it, if that was cut off.

    Raises:
        BadInput: it begins as no updater, or decays single coefficients where decay is what masked ones follow.
    """
    if stage.update is None:
        return None
    view = TrainedView(net, recipe.weight_decay)
    resumed, masks = state.remembered is not None, net.masks
    # What beginning does to the net, the file of a resumed training has already.
    with torch.no_grad(), _as_before(net) if resumed else nullcontext(), _code(net, state):
        updater = stage.update.begin(view, steps)
    if not isinstance(updater, Updater):
        raise BadInput(
            f"method {net.run.method}: {type(stage.update).__name__}.begin must return an Updater, not {updater!r:.60}"
        )
    if net.run.off == "decayed" and overrides(updater, "decay"):
        raise BadInput(
            f"method {net.run.method}: {type(updater).__name__} sets the weight decay of single coefficients, so that"
            " off: decayed has no meaning; take zero or frozen"
        )
    if state.remembered is not None:
        with torch.no_grad(), _code(net, state):
            updater.load(state.remembered)
        state.remembered = None
    remembers(updater)  # what cannot be is found now, and not when a signal asks for it
    state.updater = updater
    hooks = Hooks(net, updater, view, state.activity)
    hooks.changed(masks, state.progress.momentum)
    return hooks


def _code(net: SparseNet, state: State) -> AbstractContextManager[None]:
    """Where code of the run's method runs, outside of steps and epochs."""
    return method_code(net.run.method, net.run.seed, state.stage)


@contextmanager
def _as_before(net: SparseNet) -> Iterator[None]:
    """At the end the net, its masks, and what is remembered and noted are as they were."""
    tensors = {name: tensor.clone() for name, tensor in net.tensors().items()}
    masks, notes = dict(net.masks), copy.deepcopy(net.notes)
    memory = copy.deepcopy({owner: dict(values) for owner, values in net.state.items()})
    try:
        yield
    finally:
        net.load_tensors(tensors)
        net.masks, net.notes = masks, notes
        for owner, values in net.state.items():  # views hold these very dicts
            values.clear()
            values.update(memory.get(owner, {}))
