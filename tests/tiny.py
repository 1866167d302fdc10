"""Tiny nets and runs that several test files use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ipbench import methods
from ipbench.data.loaders import Batch
from ipbench.methods import Method
from ipbench.models.initialise import initialise
from ipbench.runs.stages import Given, execute_stages
from ipbench.runs.state import End, State
from ipbench.sparse.net import SparseNet
from ipbench.sparse.view import TrainedView
from ipbench.spec import Recipe, Run
from ipbench.training.updates import Hooks
from ipbench.updaters import Steps, Update


def make_run(**values: Any) -> Run:
    """A run of which only some values matter."""
    defaults = {"dataset": "digits", "model": "small-vgg", "method": "snip", "recipe": Recipe(epochs=2)}
    return Run(**{**defaults, **values})


def tiny_conv(channels: int = 2, classes: int = 3, seed: int = 0) -> nn.Sequential:
    """Two 3 x 3 convolutions (one grouped), a 1 x 1 convolution and a classifier, in a known state."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(channels, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 6, 3, padding=1, groups=2),
            nn.ReLU(),
            nn.Conv2d(6, 5, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(5, classes),
        )


def tiny_stack(channels: int = 2, classes: int = 3, seed: int = 0) -> nn.Sequential:
    """Three convolutions of which any filter can be cut, and a classifier, in a known state: 786 weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(channels, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 6, 1),
            nn.BatchNorm2d(6),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, classes),
        )


class Fixed:
    """Stands in for `Data` where only the score batch is read."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def score_batch(self, size: int | None = None, per_class: int | None = None) -> Batch:
        return self.batch


class TinyData:
    """Stands in for `Data`: random images and labels, every epoch the same batches.

    Attributes:
        before_step: called before every training batch is handed out.
    """

    classes, world, recipe = 3, 1, Recipe()

    def __init__(self, shape: tuple[int, int, int] = (2, 6, 6), batches: int = 3) -> None:
        generator = torch.Generator().manual_seed(1)
        self.shape, self.steps_per_epoch = shape, batches
        self.batches = [
            Batch(torch.randn(8, *shape, generator=generator), torch.arange(8) % self.classes) for _ in range(batches)
        ]
        self.before_step: Callable[[], None] = lambda: None

    def train(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        for batch in self.batches[skip:]:
            self.before_step()
            yield batch

    def under(self, recipe: Recipe) -> TinyData:
        """The same batches, whatever a stage's recipe says."""
        return self

    def train_plain(self) -> Iterator[Batch]:
        return iter(self.batches)

    validation = test = train_plain

    def score_batch(self, size: int | None = None, per_class: int | None = None) -> Batch:
        return self.batches[0]


def builder(make: Callable[[int, int], nn.Module]) -> Callable[..., nn.Module]:
    """In the place of `models.build.build`: a net of `make(channels, classes)`, whatever model is asked for."""

    def build(
        name: str, shape: tuple[int, int, int], classes: int, seed: int, scheme: str, told: object = None
    ) -> nn.Module:
        net = make(shape[0], classes)
        initialise(net, seed, scheme)
        return net

    return build


def hooks_of(net: SparseNet, update: Update, total: int, per_epoch: int | None = None) -> Hooks:
    """An update at work in a training of so many steps."""
    view = TrainedView(net, net.run.recipe.weight_decay)
    return Hooks(net, update.begin(view, Steps(total, per_epoch or total)), view)


def run_stages(
    run: Run,
    data: TinyData,
    net: Callable[[], nn.Module] = tiny_conv,
    watch: Callable[[SparseNet, State], None] = lambda net, state: None,
) -> tuple[SparseNet, State]:
    """The end of a run's stages and, before them, of the runs it continues, all in memory.

    Args:
        run: whose stages.
        data: what it reads.
        net: makes its net.
        watch: called with the net of the stages at work before every training step and at their end.
    """

    def fresh() -> SparseNet:
        return SparseNet(net(), run, data.shape)

    end = End({}, {})
    if parent := methods.parent(run):
        before, was = run_stages(parent, data, net, watch)
        end = End(before.tensors(), before.masks, was.point, {"training_flops": 0.0}, before.structure)
    sparse, state = fresh(), State(Path("nowhere"), run)
    data.before_step = lambda: watch(sparse, state)
    execute_stages(sparse, data, state, Given(fresh, lambda: end), save=lambda: None, on_epoch=lambda *_: None)
    watch(sparse, state)
    return sparse, state


def few_steps(entry: Method) -> dict[str, Any]:
    """Options with which a method does all it does in a training of a few steps."""
    wanted = {"every": 2, "fraction": 0.5, "rounds": 3, "rewind": 0.5, "rate": 0.4}
    wanted |= {"rise": 0.5, "pick": 0.005, "stabilise": 3}
    if "guard" in entry.options:
        wanted |= {"score": "l1", "before": 1}
    if "settle" in entry.options:
        wanted |= {"target": 1.0, "settle": 1, "patience": 0, "limit": 3000}
    return entry.check_options(
        {name: value for name, value in wanted.items() if name in set(entry.options) - {entry.knob}}, "here"
    )
