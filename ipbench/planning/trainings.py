"""The trainings behind a run, in order: those of the dense net that it starts from, while it is pruned, and afterwards.

From the stages of its method and of the methods that it continues, without a record; what an experiment's lint and the
setup of a comparison ask for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ipbench import methods
from ipbench.data import catalog
from ipbench.errors import BadInput
from ipbench.methods import Method, Train
from ipbench.methods._stages import AT_ONCE, updating
from ipbench.spec import Recipe, Run


@dataclass(frozen=True)
class Training:
    """One training.

    Attributes:
        recipe: its own, with the epochs it has.
        first: epochs of the schedule that are left out at its start.
        steps: its length, where that is told in steps and the number of images is not known; else 0.
        ends_early: it ends when its updater is done; what stands here is the most it may have.
    """

    recipe: Recipe
    first: float = 0.0
    steps: int = 0
    ends_early: bool = False

    @property
    def epochs(self) -> float | None:
        """How many are trained; None where its updater decides, or images do whose number is not known here."""
        return None if self.steps or self.ends_early else self.recipe.epochs - self.first

    @property
    def length(self) -> tuple[float, ...] | None:
        """What two trainings of equal length have in common; None where it is not known before."""
        if self.ends_early:
            return None
        return (float(self.steps), self.recipe.batch_size) if self.steps else (self.recipe.epochs - self.first,)


@dataclass(frozen=True)
class Trainings:
    """What a run is trained by.

    Attributes:
        start: the run that gave the trained dense net it starts from; None: it starts from initial values.
        before: the trainings of that net.
        pruning: those up to the last change of masks.
        retraining: those behind it. Where masks change until the last training ends, that training alone.
    """

    start: Run | None
    before: tuple[Training, ...]
    pruning: tuple[Training, ...]
    retraining: tuple[Training, ...]

    @property
    def behind(self) -> tuple[Training, ...]:
        """All that follow the start."""
        return self.pruning + self.retraining

    @property
    def epochs(self) -> float | None:
        """Of all trainings, those of the start included; None where one is not known."""
        return epochs_of(self.before + self.behind)


def epochs_of(trainings: Iterable[Training]) -> float | None:
    """Sum of the epochs; None where one is not known."""
    found = [training.epochs for training in trainings]
    return None if None in found else float(sum(epochs for epochs in found if epochs is not None))


def trainings_of(run: Run) -> Trainings | None:
    """The trainings of a run and of all that it continues.

    Returns:
        None if the run's method is not known here, as one of a user's file that was not read, or has other options now.
    """
    known = methods.methods()
    if run.method not in known:
        return None
    try:
        line = [run, *methods.line(run)]
        start = line.pop() if len(line) > 1 and not known[line[-1].method].prunes else None
        before = _trained([start], known)[0] if start else ()
        behind, last = _trained(list(reversed(line)), known)
    except (BadInput, KeyError, TypeError, ValueError):
        return None
    return Trainings(start, before, behind[:last], behind[last:])


def _trained(runs: list[Run], known: dict[str, Method]) -> tuple[tuple[Training, ...], int]:
    """The trainings of some runs, one after the other, and how many of these belong to pruning."""
    found: list[Training] = []
    pruning, within = 0, False
    for run in runs:
        for stage in known[run.method].stages(run.options):
            if isinstance(stage, AT_ONCE):
                pruning, within = len(found), False
            elif isinstance(stage, Train):
                found.append(_training(stage, run))
                if updating(stage):
                    pruning, within = len(found), True
    # Pruned while it is trained, and nothing behind it: that training is the one that makes the net what it is.
    return tuple(found), pruning - 1 if within and pruning == len(found) else pruning


def _training(stage: Train, run: Run) -> Training:
    recipe = stage.recipe_of(run.recipe)
    early = stage.until == "done"
    if not stage.steps:
        return Training(recipe, stage.first, ends_early=early)
    facts = catalog.known(run.dataset)
    per_epoch = catalog.steps_per_epoch(facts, recipe) if facts else None
    if not per_epoch:
        return Training(recipe, steps=stage.steps, ends_early=early)
    return Training(stage.in_epochs(recipe, per_epoch), ends_early=early)
