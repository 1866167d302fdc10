"""The stages a method's run is made of, as data. The trainer executes them, `ipbench.runs.stages`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from functools import wraps
from math import ceil, floor
from typing import TYPE_CHECKING, Literal, get_args

from ipbench.spec import COEFFICIENTS, Option, Run

if TYPE_CHECKING:
    from torch import Tensor

    from ipbench.data.loaders import Batch
    from ipbench.sparse.net import SparseNet

    Score = Callable[..., Mapping[str, Tensor]]
    Growth = Callable[[SparseNet, str, Tensor, int], Tensor]

#: What becomes of the constant that a channel without filters sends on, when it is cut.
Constant = Literal["drop", "refuse", "fold"]

#: Why a score that is the solution for the whole net takes no other allocation.
ONE_RANKING = (
    "solves for the mask of the whole net, which only allocation global keeps; uniform and erk would keep another one"
)

#: Decimals of a level's sparsity: a round number of a level is a number one can write.
_LEVEL_DECIMALS = 6
#: Of what a level prunes: below it, a lottery ticket would take hundreds of trainings.
_LEAST_RATE = 0.05


def alone(score: Score, name: str, positive: bool = False) -> Score:
    """A score that sees a copy of the net and the batch, whoever calls it, and whose result is checked.

    Args:
        score: a function (net, batch, **options).
        name: of the score, for messages.
        positive: its promise, see `ipbench.sparse.scoring.take`.
    """
    if getattr(score, "alone", False):
        return score

    @wraps(score)
    def taken(net: SparseNet, batch: Batch, **options: Option) -> Mapping[str, Tensor]:
        from ipbench.sparse.scoring import take  # here, so that planning a grid imports no torch

        return take(score, name, net, batch, options, positive=positive)

    taken.alone = True  # type: ignore[attr-defined]
    return taken


@dataclass(frozen=True)
class Prune:
    """Score all coefficients, keep the best of them.

    With several rounds the density falls exponentially, density^(r / rounds) in round r, and what one round leaves out
    stays out (Tanaka et al., NeurIPS 2020, alg. 1).

    Attributes:
        score: a function (net, batch, **options) to a number per coefficient by layer; larger = keep.
        name: of the score.
        rounds: how often to score and prune.
        per_class: images of each class in the score batch; 0 for as many images as a training batch has.
        options: of the score.
        whole_ranking: the score means one ranking over all layers, and no allocation by layer.
    """

    score: Score
    name: str
    rounds: int = 1
    per_class: int = 0
    options: Mapping[str, Option] = field(default_factory=dict)
    whole_ranking: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "score", alone(self.score, self.name))

    def __str__(self) -> str:
        return f"prune by {self.name}" + (f" in {self.rounds} rounds" if self.rounds > 1 else "")


@dataclass(frozen=True)
class Gradual:
    """Prune while training: the density falls to that of the run along a cubic (Zhu and Gupta, 2017, eq. 1).

    Attributes:
        score: as in `Prune`; its batch is the training batch of that step.
        every: steps between two prunings.
        start: the fraction of the training after which pruning begins.
        until: the fraction after which the run's sparsity is reached.
        options: of the score.
    """

    score: Score
    every: int
    start: float
    until: float
    options: Mapping[str, Option] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.every < 1 or not 0 <= self.start < self.until <= 1:
            raise ValueError("every is 1 or more, and 0 <= start < until <= 1")
        object.__setattr__(self, "score", alone(self.score, getattr(self.score, "__name__", "score")))

    def window(self, total: int) -> tuple[int, int]:
        """First and last step that prune, in a training of `total` steps."""
        last = min(floor(self.until * total), total - 1)
        return min(floor(self.start * total), last), last

    def due(self, step: int, total: int) -> bool:
        """Whether masks are revised at this step, counted from 0."""
        first, last = self.window(total)
        return step == last or (first <= step < last and (step - first) % self.every == 0)

    def idle(self, first: int, total: int) -> str:
        """Why a training of the steps `first` up to `total` is not pruned gradually; empty if it is."""
        begin, last = self.window(total)
        most = last - 1 - begin  # of `every`: a step between the first, which prunes nothing, and the last
        between = begin + most // self.every * self.every
        if between > begin and between >= first:
            return ""
        return (
            f"nothing would be pruned gradually: in a training of {total} steps, pruning every {self.every} steps"
            f" from step {begin} to {last} is pruning once;{_valid(begin + most - max(first, begin + 1) + 1)}"
        )

    def share(self, step: int, total: int) -> float:
        """How much of what is to be pruned is pruned after this step: 1 - (1 - t)^3, with t from 0 to 1."""
        first, last = self.window(total)
        return 1.0 if step >= last else 1 - (1 - (step - first) / (last - first)) ** 3

    def __str__(self) -> str:
        return f"pruning gradually every {self.every} steps"


@dataclass(frozen=True)
class DropAndGrow:
    """Exchange coefficients while training, in every layer as many as were there (Evci et al., ICML 2020, alg. 1).

    The smallest of a layer's trained coefficients are dropped, as many masked ones are grown; what was dropped may come
    back at once and has then not moved. At such a step the weights are not trained.

    Attributes:
        grow: a function (net, layer, dense gradient, step) to a number per coefficient; larger = grow.
        every: steps between two exchanges.
        fraction: of the trained coefficients that is dropped, at the start; a cosine takes it to `end`.
        end: the fraction at the end of the exchanges.
        until: the fraction of the training after which masks stay.
        scaled: drop by |coefficient| times the norm of its basis filter instead of |coefficient|.
    """

    grow: Growth
    every: int
    fraction: float
    end: float
    until: float
    scaled: bool

    def __post_init__(self) -> None:
        fractions = 0 < self.fraction <= 1 and 0 <= self.end <= self.fraction and 0 < self.until <= 1
        if self.every < 1 or not fractions:
            raise ValueError("every is 1 or more, 0 < fraction <= 1, 0 <= end <= fraction, and 0 < until <= 1")

    def due(self, step: int, total: int) -> bool:
        """Whether masks are revised at this step, counted from 0."""
        return step > 0 and step % self.every == 0 and step < self.until * total

    def idle(self, first: int, total: int) -> str:
        """Why a training of the steps `first` up to `total` exchanges nothing; empty if it does."""
        last = min(ceil(self.until * total), total) - 1
        if last - last % self.every >= max(first, 1):
            return ""
        return (
            f"no coefficients would be exchanged: in a training of {total} steps, with exchanges every {self.every}"
            f" steps up to step {last}, there is none;{_valid(last - max(first, 1) + 1)}"
        )

    def __str__(self) -> str:
        return f"exchanging {self.fraction:.0%} every {self.every} steps"


Update = Gradual | DropAndGrow


def _valid(most: int) -> str:
    """What an interval may be, for a message."""
    return f" an interval from 1 to {most} steps is valid" if most > 0 else " train longer, or in a longer part of it"


@dataclass(frozen=True)
class Train:
    """Train what the masks leave.

    Attributes:
        update: how masks change while training; None: they do not.
        epochs: instead of the recipe's, if above 0.
        lr: a factor of the recipe's learning rate.
        first: epochs of the schedule that are left out at its start (rewinding).
    """

    update: Update | None = None
    epochs: int = 0
    lr: float = 1.0
    first: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.epochs <= 10_000 or not 0 < self.lr <= 1000 or self.first < 0:
            raise ValueError("epochs is from 0 to 10000, lr above 0 and up to 1000, first 0 or more")

    def __str__(self) -> str:
        parts = [f"from epoch {self.first:g}"] if self.first else []
        parts += [f"{self.epochs} epochs"] if self.epochs else []
        parts += [f"lr x {self.lr:g}"] if self.lr != 1 else []
        words = ["train", f"({', '.join(parts)})" if parts else "", str(self.update) if self.update else ""]
        return " ".join(word for word in words if word)


@dataclass(frozen=True)
class Continue:
    """Start from the end of another run: the dense one, or the same method's at the level before.

    Several runs that start from the same one share its training. The dense run knows no method, off-value or sparsity.

    Attributes:
        rate: each level prunes this share of what the last one kept, the first of the dense run; 0: there are no
            levels, every run starts from the dense one.
    """

    rate: float = 0.0

    def __post_init__(self) -> None:
        if self.rate and not _LEAST_RATE <= self.rate < 1:
            raise ValueError(f"rate is from {_LEAST_RATE} up to, not including, 1")

    def parent(self, run: Run) -> Run:
        """The run whose end `run` starts from."""
        level = self._level_before(run.density) if self.rate else "0"
        if level != "0":
            return run.model_copy(update={"sparsity": level})
        plain = {"method": "dense", "sparsity": "0", "off": "zero", "allocation": "global", "options": {}}
        return run.model_copy(update=plain | {"pattern": COEFFICIENTS, "budget": "parameters"})

    def _level_before(self, density: Fraction) -> str:
        """Sparsity of the last level that keeps more than `density`, as a run writes it."""
        left, level = Fraction(1), "0"
        while True:
            left *= 1 - Fraction(str(self.rate))
            sparsity = round(Decimal(1) - Decimal(left.numerator) / Decimal(left.denominator), _LEVEL_DECIMALS)
            if 1 - Fraction(sparsity) <= density:
                return level
            level = format(sparsity.normalize(), "f")

    def __str__(self) -> str:
        return f"start from the level before, {self.rate:.0%} less pruned" if self.rate else "start from the dense run"


@dataclass(frozen=True)
class Rewind:
    """Set coefficients, filter bases and everything else back to where the dense training stood; masks stay.

    Attributes:
        epochs: of the dense training; a fraction is a step inside an epoch, 0 the initial values.
    """

    epochs: float = 0.0

    def __post_init__(self) -> None:
        if self.epochs < 0:
            raise ValueError("rewinding is to epoch 0 or later")

    def __str__(self) -> str:
        return f"rewind to epoch {self.epochs:g}"


@dataclass(frozen=True)
class Slice:
    """Cut the channels that are dead: smaller tensors instead of zeros. Never inside a training.

    A channel is dead if the masks leave nothing of the filters that make it, or nothing of what reads it, in all layers
    that share it. What an optimiser holds is dropped; budgets and sparsities stay shares of the dense net.

    Attributes:
        constant: what becomes of the constant that biases and norms still send through a channel without filters:
            "drop" it, "refuse" to cut such a channel (the run ends with the name of the layer that reads it), or "fold"
            it into the biases of the layers that read it, where that is exact.
    """

    constant: Constant = "drop"

    def __post_init__(self) -> None:
        if self.constant not in get_args(Constant):
            raise ValueError(f"constant is one of {', '.join(get_args(Constant))}, not {self.constant!r:.40}")

    def __str__(self) -> str:
        return "cut dead channels" + (f" ({self.constant} their constants)" if self.constant != "drop" else "")


Stage = Continue | Prune | Rewind | Slice | Train

#: Patterns that mask whole channels, so that a net can be cut along them.
_OF_CHANNELS = ("filters", "channels")


def with_slice(stages: list[Stage], run: Run) -> list[Stage]:
    """The stages of a run, with a `Slice` where its pattern asks for one.

    A run whose pattern is of whole channels, and whose off-value is zero, gets a `Slice` right behind the last stage
    that changes masks. If trainings follow, they are those of the small net; if that stage is itself a training, or the
    last one, the net is cut at the end. A method that has a `Slice` of its own says itself where.

    Args:
        stages: of the run's method.
        run: gives pattern and off-value.
    """
    if run.pattern not in _OF_CHANNELS or run.off != "zero" or any(isinstance(stage, Slice) for stage in stages):
        return stages
    changing = [place for place, stage in enumerate(stages) if isinstance(stage, Prune) or _updating(stage)]
    return [*stages[: changing[-1] + 1], Slice(), *stages[changing[-1] + 1 :]] if changing else stages


def _updating(stage: Stage) -> bool:
    return isinstance(stage, Train) and stage.update is not None
