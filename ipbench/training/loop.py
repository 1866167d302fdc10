"""The training loop: SGD on what the masks leave; resumable after every epoch, and after the step it is stopped at."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from ipbench import keys, methods
from ipbench.data.loaders import Batch, Data
from ipbench.machine import distributed, stopping
from ipbench.sparse import measure
from ipbench.sparse.net import SparseNet
from ipbench.sparse.patterns import selector
from ipbench.sparse.selection import NotFinite
from ipbench.spec import Recipe
from ipbench.tasks import Measured
from ipbench.tasks.task import Truths
from ipbench.training.updates import Hooks

CURVES = ("train_loss", "validation_loss", "validation_accuracy", "gradient_norm")

#: Steps between two agreements of several processes on whether to stop: each waits for all of them.
AGREEMENT = 16


@dataclass
class Begun:
    """The first steps of an epoch that was cut off.

    Attributes:
        steps: trained of the epoch.
        losses: the sum of the batch losses, of every process.
        norm: of the gradient at the epoch's first batch.
        generator: states of torch's global generators, from which dropout draws.
    """

    steps: int = 0
    losses: list[float] = field(default_factory=list)
    norm: float = 0.0
    generator: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Progress:
    """Where a training stands: all that a resume needs beside the tensors of the net.

    Attributes:
        epoch: epochs finished, those that a rewound training leaves out included.
        flops: of the epochs trained, each with the net as it then was.
        curves: one number per epoch that was trained.
        momentum: SGD's buffers by parameter name.
        best: state of the net at the best validation accuracy so far (the earliest on a tie) of the epochs that end
            within the run's budget; empty before the first, and again when a stage changes the net after the training.
        best_epoch: that epoch, counted from 1; 0 before the first.
        best_accuracy: the validation accuracy then.
        begun: the epoch that comes next, as far as it was trained before a stop.
    """

    epoch: int = 0
    flops: int = 0
    curves: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in CURVES})
    momentum: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_epoch: int = 0
    best_accuracy: float = -1.0
    begun: Begun = field(default_factory=Begun)

    def forget_best(self) -> None:
        """Select the net as it is from now on, for it is not the one that was trained: the last epoch is its own."""
        self.best, self.best_epoch, self.best_accuracy = {}, self.epoch, -1.0


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step, counted from 0 over the whole training.

    A linear warm-up rises to the peak over `recipe.warmup` epochs. The step schedule multiplies by gamma after its
    milestones, fractions of all epochs; the cosine falls to 0 from the end of the warm-up to the end of the training.
    """
    total = recipe.epochs * steps_per_epoch
    warm = recipe.warmup * steps_per_epoch
    if step < warm:
        return recipe.lr * (step + 1) / max(warm, 1)
    if recipe.schedule == "constant":
        return recipe.lr
    if recipe.schedule == "step":
        return recipe.lr * recipe.gamma ** sum(step >= milestone * total for milestone in recipe.milestones)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(total - warm, 1)))


class Fading:
    """How weight decay shrinks coefficients that nothing else trains: W_t = c_t W_0, known without the data.

    SGD's own recursion for a gradient of zero: v <- momentum v + decay c, c <- c - lr v, from c = 1 and v = 0.
    """

    def __init__(self, recipe: Recipe, steps_per_epoch: int) -> None:
        self.recipe, self.steps_per_epoch = recipe, steps_per_epoch
        self.step, self.factor, self.velocity = 0, 1.0, 0.0

    def at(self, step: int) -> float:
        """c after so many steps from the start of the schedule; asked for in any order, quick in rising order."""
        if step < self.step:
            self.step, self.factor, self.velocity = 0, 1.0, 0.0
        recipe = self.recipe
        while self.step < step:
            pull = recipe.weight_decay * self.factor
            self.velocity = recipe.momentum * self.velocity + pull
            move = pull + recipe.momentum * self.velocity if recipe.nesterov else self.velocity
            self.factor -= learning_rate(recipe, self.step, self.steps_per_epoch) * move
            self.step += 1
        return self.factor


class Sgd:
    """SGD with momentum: torch's own step on groups of parameters, with buffers by name.

    Not `torch.optim.SGD`: its first step imports torch's compiler, four seconds in every process; and buffers by name
    are what a resume stores and what a method clears.

    Attributes:
        momentum: the buffers by parameter name; those that start at a parameter's first step are missing until then.
    """

    def __init__(self, net: SparseNet, recipe: Recipe, momentum: Mapping[str, Tensor]) -> None:
        self.groups = net.parameter_groups(recipe.weight_decay)
        self.recipe = recipe
        parameters = dict(net.net.named_parameters())
        # In the parameter's own memory format: a step on two formats is slow, and sums in another order.
        self.momentum = {name: torch.empty_like(parameters[name]).copy_(buffer) for name, buffer in momentum.items()}

    def forget_gradients(self) -> None:
        """What `net.zero_grad()` does, without a walk through all modules in every step."""
        for group in self.groups:
            for parameter in group.parameters.values():
                parameter.grad = None

    def step(self, lr: float) -> None:
        """One step at this learning rate along the gradients; parameters without one stay."""
        for group in self.groups:
            named = {name: p for name, p in group.parameters.items() if p.grad is not None}
            gradients = [p.grad for p in named.values() if p.grad is not None]
            buffers = [self.momentum.get(name) for name in named]
            with torch.no_grad():
                sgd(
                    list(named.values()),
                    gradients,
                    buffers,
                    foreach=True,
                    weight_decay=group.weight_decay,
                    momentum=self.recipe.momentum,
                    lr=lr * group.factor,
                    dampening=0.0,
                    nesterov=self.recipe.nesterov,
                    maximize=False,
                )
            self.momentum.update({name: b for name, b in zip(named, buffers, strict=True) if b is not None})


def train(
    net: SparseNet,
    data: Data,
    recipe: Recipe,
    progress: Progress,
    *,
    hooks: Hooks | None = None,
    until_done: bool = False,
    first: int = 0,
    after_epoch: Callable[[Progress], None] = lambda progress: None,
) -> None:
    """Train from where `progress` stands to the recipe's last epoch; `net` and `progress` are changed in place.

    Args:
        net: on the device where it trains.
        data: what the run reads.
        recipe: optimiser, schedule, epochs.
        progress: fresh, or as a former process left it.
        hooks: what is done beside the steps.
        until_done: end with the epoch in which the updater of `hooks` is done, if that is earlier.
        first: the step of the recipe at which a fresh training begins.
        after_epoch: called after every epoch, when `net` and `progress` may be saved.

    Raises:
        NotFinite: at the end of an epoch a loss, the gradient norm, a parameter or a buffer is not finite.
        Stopped: a signal asked for it; `net` and `progress` stand after the last step and may be saved.
    """
    optimiser, forward = Sgd(net, recipe, progress.momentum), distributed.averaging(net)
    steps = data.steps_per_epoch
    for epoch in range(max(progress.epoch, first // steps), recipe.epochs):
        if until_done and hooks and not progress.begun.steps and hooks.finished():
            break  # an epoch that was cut off is trained to its end first
        begin = max(first, epoch * steps)
        end = (epoch + 1) * steps
        progress.momentum = optimiser.momentum
        total, norm = train_steps(
            net, data, recipe, optimiser, begin, end, hooks=hooks, forward=forward, begun=progress.begun
        )
        progress.begun = Begun()
        require_finite({"training loss": total, "gradient norm": norm}, f"of epoch {epoch + 1}")
        images = (end - begin) * recipe.batch_size
        progress.flops += measure.training_flops(net.now.macs, images)  # of what is left of the net
        if hooks:
            hooks.after_epoch(epoch, optimiser.momentum)
        accuracy = _look(
            net, data, recipe, progress, epoch, {"train_loss": total / (end - begin), "gradient_norm": norm}, hooks
        )
        progress.epoch = epoch + 1
        if hooks and hooks.after_evaluation(epoch, accuracy, optimiser.momentum):
            progress.forget_best()
        after_epoch(progress)


def _look(
    net: SparseNet,
    data: Data,
    recipe: Recipe,
    progress: Progress,
    epoch: int,
    values: dict[str, float],
    hooks: Hooks | None,
) -> float:
    """Evaluate the net at the end of an epoch, extend the curves, and select the epoch if it is the best so far.

    Returns:
        The validation accuracy; nan without a validation part.

    Raises:
        NotFinite: the validation loss, a parameter or a buffer is not finite.
    """
    require_finite_net(net, f"after epoch {epoch + 1}")
    accuracy, loss, _ = evaluate(net, data.validation(), recipe, lambda: data.truth("validation"))
    if not math.isnan(accuracy):  # nan: there is no validation part
        require_finite({"validation loss": loss}, f"of epoch {epoch + 1}")
    values |= {"validation_loss": loss, "validation_accuracy": accuracy}
    for name in CURVES:
        progress.curves[name].append(values[name])
    # Only a net within its budget is selected. Without a validation part the last epoch is the selected one.
    eligible = within_budget(net) and (hooks is None or hooks.settled())
    if eligible and (math.isnan(accuracy) or accuracy > progress.best_accuracy):
        progress.best_epoch, progress.best_accuracy = epoch + 1, accuracy
        progress.best = {name: tensor.clone() for name, tensor in net.tensors().items()}
    return accuracy


def require_finite(values: Mapping[str, float], of: str) -> None:
    """Check numbers by name.

    Raises:
        NotFinite: one is not finite; the message says which, and "of" what.
    """
    for name, value in values.items():
        if not math.isfinite(value):
            raise NotFinite(f"the {name} {of} is not finite")


def require_finite_net(net: SparseNet, when: str) -> None:
    """Check parameters and buffers: losses are of the nets before a step, and the last step may break the net.

    Raises:
        NotFinite: one is not finite.
    """
    for name, tensor in net.tensors().items():
        if not bool(torch.isfinite(tensor).all()):
            raise NotFinite(f"{name} is not finite {when}")


def within_budget(net: SparseNet) -> bool:
    """Whether no more is trained than the run's sparsity lets stay, in the unit of its budget.

    What does not prune has no budget.

    Raises:
        Impossible: there is no such budget.
    """
    whole = net.run.sparsity == "0" and not methods.get(net.run.method).prunes
    if whole or net.run.control in methods.UNPRUNED:
        return True
    selects = selector(net)
    return selects.kept(net.masks) <= selects.target


def train_steps(
    net: SparseNet,
    data: Data,
    recipe: Recipe,
    optimiser: Sgd,
    begin: int,
    end: int,
    *,
    hooks: Hooks | None = None,
    forward: nn.Module | None = None,
    begun: Begun | None = None,
) -> tuple[float, float]:
    """Train from step `begin` up to, not including, step `end` of one epoch.

    Args:
        net: changed in place.
        data: what the run reads.
        recipe: schedule and loss.
        optimiser: of `net`.
        begin: the first step, counted from the start of the recipe.
        end: the step after the last one.
        hooks: what is done beside the steps.
        forward: what is called in place of `net`: the wrapper that averages gradients over processes.
        begun: the first of these steps, if a stop cut them off; after a stop, changed to those that are trained.

    Returns:
        The sum of the batch losses, and the norm of the gradient in the trained coefficients at the first batch.

    Raises:
        Stopped: a signal asked for it.
    """
    steps, device = data.steps_per_epoch, next(net.parameters()).device
    begun = begun or Begun()
    start = begin + begun.steps
    epoch, skip = divmod(start, steps)
    norm = torch.tensor(begun.norm)
    total = _begin_epoch(net, begun, epoch, device)
    fading = Fading(recipe, steps) if net.run.off == "decayed" else None
    if fading:
        net.fade(fading.at(start))
    for step, batch in enumerate(islice(data.train(epoch, skip), end - start), start):
        if _asked_to_stop(step, device):
            begun.steps, begun.losses, begun.norm = step - begin, distributed.gathered(total), float(norm)
            begun.generator = _generators(device)
            raise stopping.Stopped
        optimiser.forget_gradients()
        loss, trained = _gradients(net, batch, recipe, step, optimiser.momentum, hooks, forward or net)
        if step == begin:
            norm = gradient_norm(net)
        if trained:
            optimiser.step(learning_rate(recipe, step, steps))
        if fading:
            net.fade(fading.at(step + 1))
        total += loss
    distributed.from_first(dict(net.named_buffers()))
    return float(distributed.summed(total)) / distributed.processes(), float(norm)


def _begin_epoch(net: SparseNet, begun: Begun, epoch: int, device: torch.device) -> Tensor:
    """The net and the generators as the next step needs them; the sum of the losses so far, float64."""
    total = torch.zeros((), dtype=torch.float64, device=device)
    if begun.steps:
        total += _loss_so_far(begun)
        _set_generators(begun.generator, device)
    else:
        # Dropout draws from the global generator: keyed here, so that a resumed epoch drops the same units.
        torch.manual_seed(keys.key(net.run.seed, "dropout", epoch) >> 1)
    net.train()
    return total


def _gradients(
    net: SparseNet,
    batch: Batch,
    recipe: Recipe,
    step: int,
    momentum: Mapping[str, Tensor],
    hooks: Hooks | None,
    forward: nn.Module,
) -> tuple[Tensor, bool]:
    """The gradients of a step, as SGD may use them; the detached loss, and whether weights are trained.

    Parameters have no gradients before.
    """
    task = net.task
    with hooks.gates(batch) if hooks else nullcontext():
        with _precision(recipe, batch.images):
            outputs = task.outputs(forward, batch, net.run.seed, step)
            loss = task.loss(outputs, batch, recipe.label_smoothing)
        penalty = hooks.penalty(step) if hooks else None
        (loss if penalty is None else loss + penalty).backward()
    trained = hooks.after_backward(batch, step, momentum) if hooks else True
    net.mask_gradients(recipe.weight_decay, hooks.decays(step) if hooks else None)
    return loss.detach(), trained


def _loss_so_far(begun: Begun) -> float:
    """This process's sum of the batch losses; each takes an equal part if another number of processes began."""
    if len(begun.losses) == distributed.processes():
        return begun.losses[distributed.rank()]
    return math.fsum(begun.losses) / len(begun.losses)


def _asked_to_stop(step: int, device: torch.device) -> bool:
    """Whether to stop before this step. Several processes agree on it, now and then: a step is of all or of none."""
    if distributed.processes() == 1:
        return stopping.asked()
    if step % AGREEMENT:
        return False
    return bool(distributed.summed(torch.tensor(float(stopping.asked()), device=device)))


def _generators(device: torch.device) -> dict[str, Tensor]:
    """States of the generators that a training on this device may draw from."""
    states = {"cpu": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def _set_generators(states: Mapping[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)


def gradient_norm(net: SparseNet) -> Tensor:
    """Euclidean norm of the gradient in the coefficients, as `mask_gradients` left it; a scalar."""
    gradients = [c.grad for c in net.coefficients.values() if c.grad is not None]
    return torch.stack(torch._foreach_norm(gradients)).norm() if gradients else torch.zeros(())


@torch.no_grad()
def evaluate(net: SparseNet, batches: Iterable[Batch], recipe: Recipe, truth: Truths | None = None) -> Measured:
    """The task's metrics and the mean loss (without label smoothing) over `batches`; nan if there are none.

    Args:
        net: its mode is changed.
        batches: plain images.
        recipe: tells the precision.
        truth: of these images, where the task asks for more than the batches tell.
    """
    net.eval()
    task, device = net.task, next(net.parameters()).device
    metrics = task.metrics(truth)
    for batch in batches:
        with _precision(recipe, batch.images):
            outputs = task.outputs(net, batch, net.run.seed)
        metrics.add(outputs, batch)
    return metrics.measured(device)


def _precision(recipe: Recipe, images: Tensor) -> AbstractContextManager[object]:
    """bf16 autocast where the recipe asks for it: products in bf16; parameters, gradients and sums in float32."""
    return torch.autocast(images.device.type, torch.bfloat16) if recipe.precision == "bf16" else nullcontext()
