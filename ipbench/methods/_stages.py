"""The stages a method's run is made of, as data. The trainer executes them, `ipbench.runs.stages`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, get_args

from ipbench.errors import BadInput
from ipbench.methods._scores import alone
from ipbench.numerals import decimal
from ipbench.spec import COEFFICIENTS, NO_CONTROL, UNIT_SCORES, Option, Recipe, Run, UnitScore, build
from ipbench.updaters import Update

if TYPE_CHECKING:
    from ipbench.methods._scores import Score

#: What becomes of the constant that a channel without filters sends on, when it is cut.
Constant = Literal["drop", "refuse", "fold"]

#: Why a score that is the solution for the whole net takes no other allocation.
ONE_RANKING = (
    "solves for the mask of the whole net, which only allocation global keeps; uniform and erk would keep another one"
)

#: What of the net around the channels that are cut can begin anew.
Fresh = Literal["norms", "biases", "filters", "linear"]

#: Of a training, as in a recipe.
MOST_EPOCHS = 10_000
#: What of a recipe no stage can change: it is decided before the first one.
_OF_THE_RUN = {"init", "train_examples", "validation"}
#: Decimals of a level's sparsity: a round number of a level is a number one can write.
_LEVEL_DECIMALS = 6
#: Of what a level prunes: below it, a lottery ticket would take hundreds of trainings.
_LEAST_RATE = 0.05


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
        units: how the score of a filter, column or channel follows from those of its coefficients: "sum", or "first",
            that of its first coefficient, of scores that are draws: the sum of draws tells how large a unit is.
        inverted: keep what has the smallest scores (control `invert`).
    """

    score: Score
    name: str
    rounds: int = 1
    per_class: int = 0
    options: Mapping[str, Option] = field(default_factory=dict)
    whole_ranking: bool = False
    units: UnitScore = "sum"
    inverted: bool = False

    def __post_init__(self) -> None:
        if self.units not in UNIT_SCORES:
            raise ValueError(f"units is one of {', '.join(UNIT_SCORES)}, not {self.units!r:.40}")
        object.__setattr__(self, "score", alone(self.score, self.name))

    def __str__(self) -> str:
        rounds = f" in {self.rounds} rounds" if self.rounds > 1 else ""
        return f"prune by {self.name}{rounds}" + (", the smallest stay" if self.inverted else "")


@dataclass(frozen=True)
class Choose:
    """Choose what is kept by something else than a ranking of scores.

    Attributes:
        choose: a function (net, **options) to boolean masks, one for each layer; True = kept. It may change
            coefficients in place, where the method means to.
        name: of the choice.
        options: of the function.
        patterns: those of which it can choose what is kept; all if left out.
        per_class: the function is one of (net, batch, **options): images of each class in the score batch, 0 for as
            many images as a training batch has. None: it sees no images.
        one_ranking: it ranks all layers in one list, which only allocation global means.
        inverted: keep what has the smallest scores (control `invert`).
    """

    choose: Callable[..., Any]
    name: str
    options: Mapping[str, Option] = field(default_factory=dict)
    patterns: tuple[str, ...] = ()
    per_class: int | None = None
    one_ranking: bool = False
    inverted: bool = False

    def __str__(self) -> str:
        return f"choose {self.name}" + (", turned round" if self.inverted else "")


@dataclass(frozen=True)
class External:
    """Take scores, or masks, that a program outside of ipbench has written for this run.

    Attributes:
        name: of the method; the file's stem.
        per_class: images of each class in the score batch; 0 for as many images as a training batch has.
        spaces: those that the program is for; both if left out.
        patterns: those that it is for; all if left out.
    """

    name: str
    per_class: int = 0
    spaces: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"prune by what rule {self.name} writes"


@dataclass(frozen=True)
class Train:
    """Train what the masks leave.

    Attributes:
        update: what is done beside the steps, such as changing masks; None: nothing.
        epochs: instead of the recipe's, if above 0.
        lr: a factor of the recipe's learning rate.
        first: epochs of the schedule that are left out at its start (rewinding).
        recipe: values of the run's recipe that are others in this training, e.g. `{"weight_decay": 0.0}`; of
            `augmentation`, too, some. Which images are held out, and how the net was initialised, are the run's.
        until: "end": the training has all its epochs, whatever its updater says. "done": it ends with the first epoch
            at whose end the updater is `done`, and its epochs are the most it may have. Nothing is then known of the
            end when the training begins, so the schedule must be constant.
        steps: in place of epochs, so many steps at least: as many whole epochs as they take, a number that depends on
            the images. For an updater that counts steps.
        length: of a control, in place of epochs: "epochs", as many as the values of the method's run were trained for,
            from the initial ones on; "compute", as many as its multiply-accumulates are enough for.
    """

    update: Update | None = None
    epochs: int = 0
    lr: float = 1.0
    first: float = 0.0
    recipe: Mapping[str, Any] = field(default_factory=dict)
    until: Literal["end", "done"] = "end"
    steps: int = 0
    length: Literal["", "epochs", "compute"] = ""

    def __post_init__(self) -> None:
        if not 0 <= self.epochs <= MOST_EPOCHS or self.steps < 0 or not 0 < self.lr <= 1000 or self.first < 0:
            raise ValueError("epochs is from 0 to 10000, steps 0 or more, lr above 0 and up to 1000, first 0 or more")
        if not isinstance(self.update, Update | None):
            raise ValueError(
                "Train takes an update such as Gradual(...), or Mine.spec(...) of an updater's class Mine, not"
                f" {self.update!r:.60}"
            )
        if self.until not in ("end", "done") or (self.until == "done" and self.update is None):
            raise ValueError('until is "end", or "done" in a training with an updater')
        if fixed := _OF_THE_RUN & set(self.recipe):
            raise ValueError(f"the recipe of a training cannot change {min(fixed)}, which is decided for the whole run")
        if sum(map(bool, (self.epochs, self.steps, "epochs" in self.recipe, self.length))) > 1:
            raise ValueError(
                "the length of a training is said twice: by epochs, steps, length, or epochs in its recipe"
            )

    def recipe_of(self, recipe: Recipe, where: str = "") -> Recipe:
        """The recipe of this training; a warm-up is at most as long as the training.

        Args:
            recipe: of the run.
            where: where the user wrote it, for the message.

        Raises:
            BadInput: the values that are others make no recipe.
        """
        if self.recipe:
            values = {**recipe.model_dump(), **self.recipe}
            if isinstance(own := self.recipe.get("augmentation"), Mapping):
                values["augmentation"] = {**recipe.augmentation.model_dump(), **own}
            if "warmup" not in self.recipe and isinstance(values["epochs"], int):
                values["warmup"] = min(recipe.warmup, values["epochs"])
            recipe = build(Recipe, values, f"{where}: recipe of a training" if where else "recipe of a training")
        epochs = self.epochs or recipe.epochs
        return recipe.model_copy(
            update={"epochs": epochs, "lr": recipe.lr * self.lr, "warmup": min(recipe.warmup, epochs)}
        )

    def in_epochs(self, recipe: Recipe, per_epoch: int, where: str = "") -> Recipe:
        """The recipe of this training with the epochs that `steps` are; as it is where they are not given.

        Args:
            recipe: as `recipe_of` gives it.
            per_epoch: steps of an epoch, with this recipe's batches.
            where: where the user wrote it, for the message.

        Raises:
            BadInput: these are too many epochs.
        """
        if not self.steps:
            return recipe
        epochs = -(-self.steps // per_epoch)
        if epochs > MOST_EPOCHS:
            raise BadInput(
                f"{where or 'a training'}: {self.steps:,} steps are {epochs:,} epochs of {per_epoch:,} steps; at most"
                f" {MOST_EPOCHS:,} epochs are valid: fewer steps, smaller batches or more images"
            )
        return recipe.model_copy(update={"epochs": epochs, "warmup": min(recipe.warmup, epochs)})

    def __str__(self) -> str:
        parts = [f"from epoch {self.first:g}"] if self.first else []
        parts += [f"{self.epochs} epochs"] if self.epochs else []
        parts += [f"{self.steps} steps"] if self.steps else []
        parts += [f"the {self.length} of the method's run"] if self.length else []
        parts += [f"lr x {self.lr:g}"] if self.lr != 1 else []
        parts += [f"{name} {value}" for name, value in self.recipe.items()]
        parts += ["until done"] if self.until == "done" else []
        words = ["train", f"({', '.join(parts)})" if parts else "", str(self.update) if self.update else ""]
        return " ".join(word for word in words if word)


@dataclass(frozen=True)
class Continue:
    """Start from the end of another run: of the dense one, of another method, or of the same one's level before.

    Several runs that start from the same one share its training. A run that is continued at sparsity 0 knows no
    off-value, allocation, pattern or budget, so that all runs that prune what it trained share it.

    Attributes:
        of: the method that is continued: one that ipbench ships, or of the same file.
        options: of that method.
        rate: each level prunes this share of what the last one kept, the first of the run of `of`; 0: there are no
            levels, every run starts from that of `of`.
        sparsity: of the run of `of`: a number as text, or "same" for that of the run that continues it.
    """

    of: str = "dense"
    options: Mapping[str, Option] = field(default_factory=dict)
    rate: float = 0.0
    sparsity: str = "0"

    def __post_init__(self) -> None:
        if not isinstance(self.of, str):
            raise ValueError(f"Continue takes the name of a method, not {self.of!r:.60}; levels are Continue(rate=...)")
        if self.rate and not _LEAST_RATE <= self.rate < 1:
            raise ValueError(f"rate is from {_LEAST_RATE} up to, not including, 1")
        if self.sparsity != "same":
            number = Decimal(decimal(str(self.sparsity)))
            if not 0 <= number < 1 or round(number, 12) != number:
                raise ValueError(
                    f'sparsity is a number as text from 0 up to, not including, 1, or "same", not {self.sparsity!r:.40}'
                )
            object.__setattr__(self, "sparsity", format(abs(number).normalize(), "f"))

    def parent(self, run: Run, options: Mapping[str, Option] | None = None) -> Run:
        """The run whose end `run` starts from.

        Args:
            run: that begins with this stage.
            options: those of `options` that differ from the defaults of the method that is continued.
        """
        level = self._level_before(run.density) if self.rate else "0"
        if level != "0":
            return run.model_copy(update={"sparsity": level, "control": NO_CONTROL})
        changes = {"method": self.of, "options": dict(options or {}), "control": NO_CONTROL}
        if self.sparsity == "same":
            return run.model_copy(update=changes)
        changes["sparsity"] = self.sparsity
        if self.sparsity == "0":
            changes |= {"off": "zero", "allocation": "global", "pattern": COEFFICIENTS, "budget": "parameters"}
        return run.model_copy(update=changes)

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
        if self.rate:
            return f"start from the level before, {self.rate:.0%} less pruned"
        options = "".join(f", {name} {value}" for name, value in self.options.items())
        sparsity = {"0": "", "same": " at the same sparsity"}.get(self.sparsity, f" at sparsity {self.sparsity}")
        return f"start from the {self.of} run{options}{sparsity}"


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
    that share it. What an optimiser holds and what scores remember (`net.state`) is dropped. Budgets and sparsities
    stay shares of the dense net.

    Attributes:
        constant: what becomes of the constant that biases and norms still send through a channel without filters:
            "drop" it, "refuse" to cut such a channel (the run ends with the name of the layer that reads it), or "fold"
            it into the biases of the layers that read it, where that is exact.
        fresh: what begins anew around channels that are cut, as in a net that is built: "norms" and "biases" of these
            channels' layers; "filters", the weights of the layers that make the channels, which get the run's initial
            values; "linear", linear layers that read them, likewise.
    """

    constant: Constant = "drop"
    fresh: tuple[Fresh, ...] = ()

    def __post_init__(self) -> None:
        if self.constant not in get_args(Constant):
            raise ValueError(f"constant is one of {', '.join(get_args(Constant))}, not {self.constant!r:.40}")
        if not isinstance(self.fresh, tuple) or set(self.fresh) - set(get_args(Fresh)):
            raise ValueError(f"fresh is a tuple of some of {', '.join(get_args(Fresh))}, not {self.fresh!r:.60}")

    def __str__(self) -> str:
        parts = [f"{self.constant} their constants"] if self.constant != "drop" else []
        parts += [f"fresh {' and '.join(self.fresh)}"] if self.fresh else []
        return "cut dead channels" + (f" ({', '.join(parts)})" if parts else "")


@dataclass(frozen=True)
class Take:
    """Take what the method's own run kept: the stage that makes a run a control of it.

    Attributes:
        masks: "same": its masks. "shuffled": in every layer as many, drawn anew. "drawn": likewise, by the draws that
            `random` keeps the largest of. "narrow", "narrow macs": all of a net whose layers are narrower by one
            factor, with at most as many parameters, or multiply-accumulates.
    """

    masks: Literal["same", "shuffled", "drawn", "narrow", "narrow macs"]

    def __str__(self) -> str:
        return {
            "same": "take the masks of the method's run",
            "shuffled": "take the masks of the method's run, shuffled within layers",
            "drawn": "take random masks with the layer ratios of the method's run",
            "narrow": "take a narrower net with as many parameters as the method's run keeps",
            "narrow macs": "take a narrower net with as many multiply-accumulates as the method's run keeps",
        }[self.masks]


Stage = Choose | Continue | External | Prune | Rewind | Slice | Take | Train

#: Those that change masks at once.
AT_ONCE = (Choose, External, Prune, Take)

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
    places = changing(stages)
    return [*stages[: places[-1] + 1], Slice(), *stages[places[-1] + 1 :]] if places else stages


def changing(stages: Sequence[Stage]) -> list[int]:
    """The places of the stages that change masks."""
    return [place for place, stage in enumerate(stages) if isinstance(stage, AT_ONCE) or updating(stage)]


def updating(stage: Stage) -> bool:
    """Whether masks change while a stage trains."""
    return isinstance(stage, Train) and stage.update is not None and stage.update.masks != "stay"
