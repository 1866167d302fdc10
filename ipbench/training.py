"""The training loop: SGD on what the masks leave; resumable after every epoch (floor 5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.sgd import sgd

from ipbench import distributed, keys
from ipbench.data.loaders import Batch, Data
from ipbench.masks import NotFinite
from ipbench.methods import Gradual, Update
from ipbench.sparse_net import SparseNet
from ipbench.spec import Recipe
from ipbench.updates import revise

CURVES = ("train_loss", "validation_loss", "validation_accuracy", "gradient_norm")


@dataclass
class Progress:
    """Where a training stands after a whole number of epochs: all that a resume needs beside the tensors of the net.

    Attributes:
        epoch: epochs finished, those that a rewound training leaves out included.
        steps: steps trained.
        curves: one number per epoch that was trained.
        momentum: SGD's buffers by parameter name.
        best: state of the net at the best validation accuracy so far (the earliest on a tie).
        best_epoch: that epoch, counted from 1; 0 before the first.
        best_accuracy: the validation accuracy then.
    """

    epoch: int = 0
    steps: int = 0
    curves: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in CURVES})
    momentum: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_epoch: int = 0
    best_accuracy: float = -1.0


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
        self.momentum = {name: buffer.to(parameters[name]) for name, buffer in momentum.items()}

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
    update: Update | None = None,
    first: int = 0,
    after_epoch: Callable[[Progress], None] = lambda progress: None,
) -> None:
    """Train from where `progress` stands to the recipe's last epoch; `net` and `progress` are changed in place.

    Args:
        net: on the device where it trains.
        data: what the run reads.
        recipe: optimiser, schedule, epochs.
        progress: fresh, or as a former process left it.
        update: how the masks change meanwhile.
        first: the step of the recipe at which a fresh training begins.
        after_epoch: called after every epoch, when `net` and `progress` may be saved.

    Raises:
        NotFinite: a training loss is not finite.
    """
    optimiser, forward = Sgd(net, recipe, progress.momentum), distributed.averaging(net)
    steps = data.steps_per_epoch
    # A net that is still being pruned is above its budget: the epoch that is selected comes after that.
    settled = update.window(recipe.epochs * steps)[1] if isinstance(update, Gradual) else 0
    for epoch in range(max(progress.epoch, first // steps), recipe.epochs):
        begin = max(first, epoch * steps)
        end = (epoch + 1) * steps
        total, norm = train_steps(net, data, recipe, optimiser, begin, end, update=update, forward=forward)
        trained = end - begin
        if not math.isfinite(total):
            raise NotFinite(f"the training loss of epoch {epoch + 1} is not finite")
        accuracy, loss = evaluate(net, data.validation(), recipe)
        for name, value in zip(CURVES, (total / trained, loss, accuracy, norm), strict=True):
            progress.curves[name].append(value)
        # Without a validation part (accuracy nan) the last epoch is the selected one.
        if end > settled and (math.isnan(accuracy) or accuracy > progress.best_accuracy):
            progress.best_epoch, progress.best_accuracy = epoch + 1, accuracy
            progress.best = {name: tensor.clone() for name, tensor in net.tensors().items()}
        progress.epoch, progress.momentum = epoch + 1, optimiser.momentum
        progress.steps += trained
        after_epoch(progress)


def train_steps(
    net: SparseNet,
    data: Data,
    recipe: Recipe,
    optimiser: Sgd,
    begin: int,
    end: int,
    *,
    update: Update | None = None,
    forward: nn.Module | None = None,
) -> tuple[float, float]:
    """Train from step `begin` up to, not including, step `end` of one epoch.

    Args:
        net: changed in place.
        data: what the run reads.
        recipe: schedule and loss.
        optimiser: of `net`.
        begin: the first step, counted from the start of the recipe.
        end: the step after the last one.
        update: how the masks change meanwhile.
        forward: what is called in place of `net`: the wrapper that averages gradients over processes.

    Returns:
        The sum of the batch losses, and the norm of the gradient in the trained coefficients at the first batch.
    """
    steps = data.steps_per_epoch
    epoch, skip = divmod(begin, steps)
    # Dropout draws from the global generator: keyed here, so that a resumed epoch drops the same units.
    torch.manual_seed(keys.key(net.run.seed, "dropout", epoch) >> 1)
    net.train()
    total = torch.zeros((), dtype=torch.float64, device=next(net.parameters()).device)
    norm = torch.zeros(())
    fading = Fading(recipe, steps) if net.run.off == "decayed" else None
    if fading:
        net.fade(fading.at(begin))
    for step, batch in enumerate(islice(data.train(epoch, skip), end - begin), begin):
        net.zero_grad(set_to_none=True)
        with _precision(recipe, batch.images):
            logits = (forward or net)(batch.images)
            loss = functional.cross_entropy(logits, batch.labels, label_smoothing=recipe.label_smoothing)
        loss.backward()
        trained = revise(net, update, batch, step, recipe.epochs * steps, optimiser.momentum) if update else True
        net.mask_gradients(recipe.weight_decay)
        if step == begin:
            norm = gradient_norm(net)
        if trained:
            optimiser.step(learning_rate(recipe, step, steps))
        if fading:
            net.fade(fading.at(step + 1))
        total += loss.detach()
    distributed.from_first(dict(net.named_buffers()))
    return float(distributed.summed(total)) / distributed.processes(), float(norm)


def gradient_norm(net: SparseNet) -> Tensor:
    """Euclidean norm of the gradient in the coefficients, as `mask_gradients` left it; a scalar."""
    gradients = [c.grad for c in net.coefficients.values() if c.grad is not None]
    return torch.stack(torch._foreach_norm(gradients)).norm() if gradients else torch.zeros(())


@torch.no_grad()
def evaluate(net: SparseNet, batches: Iterable[Batch], recipe: Recipe) -> tuple[float, float]:
    """Accuracy and mean cross entropy (without label smoothing) over `batches`; both nan if there are none."""
    net.eval()
    sums = torch.zeros(3, dtype=torch.float64)
    for images, labels in batches:
        with _precision(recipe, images):
            logits = net(images)
        logits = logits.float()
        right = float((logits.argmax(1) == labels).sum())
        loss = float(functional.cross_entropy(logits, labels, reduction="sum"))
        sums += torch.tensor([right, loss, len(labels)], dtype=torch.float64)
    correct, loss, count = distributed.summed(sums.to(next(net.parameters()).device)).tolist()
    return (correct / count, loss / count) if count else (math.nan, math.nan)


def _precision(recipe: Recipe, images: Tensor) -> AbstractContextManager[object]:
    """bf16 autocast on GPUs where the recipe asks for it."""
    if recipe.precision == "bf16" and images.device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()
