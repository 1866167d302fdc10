"""What methods that stand side by side have in common: the comparison setups of Wang et al.

Wang, Qin, Bai, Fu: Why is the State of Neural Network Pruning so Confusing? (arXiv:2301.05219), table 2. Each setup
asks for what the one before asks for, and more. The paper's conclusion suggests S3.2 or a stricter one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ipbench.analysis.text import quantity
from ipbench.planning.trainings import Training, Trainings

#: Where they are from, for a caption.
SOURCE = "Wang et al. 2023, arXiv:2301.05219, table 2"
#: What setups ask for, in their order, in the words of a caption.
SETUPS = {
    "S1": "the same data set, net and removed share",
    "S2": "also the same start: the trained dense net, or the initial values",
    "S3.1": "also the same epochs of retraining",
    "S3.2": "the same recipe of retraining",
    "S4.1": "also the same epochs while pruning",
    "S4.2": "the same recipe while pruning",
}
#: Beside one of these, over all trainings, those of the dense net included.
TOTALS = {"SX-A": "the same epochs in all", "SX-B": "the same training FLOPs in all"}
#: No setup: not even data set, net and share are the same.
NONE = "none"
#: From these on methods may be ranked.
RANKED = ("S3.2", "S4.1", "S4.2")
#: Shares that are left, and training FLOPs, are the same if the largest is at most so much more than the smallest.
NEAR = 0.05

#: Names that are listed for a value, and values of one thing, before the others are counted.
_NAMES, _VALUES = 3, 3


@dataclass(frozen=True)
class Facts:
    """What is known of the runs of one cell, as far as a comparison with another cell depends on it.

    Attributes:
        cell: its id.
        name: of the cell in a sentence.
        data: digests of the images that its records tell; empty where none does.
        net: parameters and multiply-accumulates of its dense net; empty where no record tells them.
        left: the share of the budget that is left, the mean over seeds.
        start: what it starts from: equal texts are equal starts.
        started: the same in words.
        trainings: of its runs; None where its method is not known here.
        flops: of training, the mean over seeds; NaN where it is not recorded.
    """

    cell: str
    name: str
    data: frozenset[str]
    net: str
    left: float
    start: str
    started: str
    trainings: Trainings | None
    flops: float


@dataclass(frozen=True)
class Setup:
    """The setup of some cells that stand side by side.

    Attributes:
        label: the strictest of `SETUPS` that holds, or `NONE`.
        totals: those of `TOTALS` that hold.
        differences: what is not the same, each with its values and the methods that have them.
    """

    label: str
    totals: tuple[str, ...]
    differences: tuple[str, ...]

    @property
    def text(self) -> str:
        """'S4.2, SX-A'."""
        return ", ".join((self.label, *self.totals))

    @property
    def ranks(self) -> bool:
        """Whether methods may be ranked."""
        return self.label in RANKED

    @property
    def sentence(self) -> str:
        """What differs, in one sentence."""
        return f"Not the same: {'; '.join(self.differences)}." if self.differences else "Nothing of these differs."


def setup_of(cells: Sequence[Facts]) -> Setup:
    """The setup of cells of one data set, net and planned share, by what is known of their runs."""
    alike = _trained_alike(cells)
    lengths = "" if alike else _epochs(cells, "epochs while pruning", _pruning)
    steps = [
        ("S1", [_data(cells), _net(cells), _left(cells)]),
        ("S2", [_start(cells)]),
        ("S3.1", [] if alike else [_epochs(cells, "epochs of retraining", _retraining)]),
        ("S3.2", [] if alike else _recipes(cells)),
        ("S4.1", [lengths]),
        ("S4.2", [] if alike else [_pruning_recipe(cells)]),
    ]
    label, differences, holds = NONE, list[str](), True
    for name, found in steps:
        told = [text for text in found if text]
        differences += told if name != "S4.2" or not lengths else []  # of other lengths are other recipes
        holds = holds and not told
        label = name if holds else label
    totals = {"SX-A": _total_epochs(cells), "SX-B": _flops(cells)}
    differences += [text for text in totals.values() if text]
    held = tuple(name for name, text in totals.items() if not text) if label != NONE else ()
    return Setup(label, held, tuple(dict.fromkeys(differences)))


def _trained_alike(cells: Sequence[Facts]) -> bool:
    """Whether all have the same trainings in the same order: then it does not matter in which of them masks change."""
    found = {cell.trainings.behind if cell.trainings else None for cell in cells}
    return len(found) == 1 and not any(one.ends_early for trainings in found for one in trainings or ())


def kin(cells: Sequence[Facts]) -> list[list[Facts]]:
    """Cells put together that start alike, and are retrained alike; those whose trainings are not known stay alone."""
    found: dict[object, list[Facts]] = {}
    for cell in cells:
        key = (cell.start, cell.trainings.retraining) if cell.trainings else cell.name
        found.setdefault(key, []).append(cell)
    return list(found.values())


def near(values: Iterable[float]) -> bool:
    """Whether positive numbers are the same, to `NEAR`; False where one is not known."""
    known = list(values)
    return not any(map(math.isnan, known)) and max(known) <= (1 + NEAR) * min(known)


def _data(cells: Sequence[Facts]) -> str:
    digests = [(cell.name, " and ".join(sorted(digest[:12] for digest in cell.data))) for cell in cells if cell.data]
    return _differ("images by their digest", digests)


def _net(cells: Sequence[Facts]) -> str:
    return _differ("dense net", [(cell.name, cell.net) for cell in cells if cell.net])


def _left(cells: Sequence[Facts]) -> str:
    if near(cell.left for cell in cells):
        return ""
    told = [(cell.name, "not recorded" if math.isnan(cell.left) else f"{1 - cell.left:.4g}") for cell in cells]
    return _differ("removed share", told)


def _start(cells: Sequence[Facts]) -> str:
    if len({cell.start for cell in cells}) == 1 and all(cell.trainings for cell in cells):
        return ""
    words = [(cell.name, cell.started if cell.trainings else "not known here") for cell in cells]
    if len({text for _, text in words}) == 1:  # of equal words and other weights
        words = [(cell.name, f"{cell.started}, {cell.start.partition(',')[0][:20]}") for cell in cells]
    return _differ("start", words)


def _retraining(trainings: Trainings) -> tuple[Training, ...]:
    return trainings.retraining


def _pruning(trainings: Trainings) -> tuple[Training, ...]:
    return trainings.pruning


def _epochs(cells: Sequence[Facts], what: str, part: Callable[[Trainings], tuple[Training, ...]]) -> str:
    """What differs in the length of a part of the trainings; of cells whose trainings are known."""
    found = [(cell.name, part(cell.trainings)) for cell in cells if cell.trainings]
    lengths = {tuple(training.length for training in trainings) for _, trainings in found}
    if len(lengths) <= 1 and not any(None in length for length in lengths):
        return ""
    return _differ(what, [(name, _sum(trainings)) for name, trainings in found], always=True)


def _sum(trainings: Sequence[Training]) -> str:
    """The epochs of some trainings, in words."""
    if any(training.ends_early for training in trainings):
        return "as many as its updater takes"
    epochs = [training.epochs for training in trainings]
    told = [f"{number:g}" if number is not None else f"{training.steps} steps"
            for number, training in zip(epochs, trainings, strict=True)]  # fmt: skip
    return " + ".join(told) or "0"


#: Of a recipe: words, and the value of a training.
_PARTS: dict[str, Callable[[Training], str]] = {
    "learning rate": lambda one: f"{one.recipe.lr:.4g}",
    "schedule": lambda one: _schedule(one),
    "warm-up": lambda one: f"{one.recipe.warmup:g}",
    "weight decay": lambda one: f"{one.recipe.weight_decay:g}",
    "batch size": lambda one: str(one.recipe.batch_size),
    "momentum": lambda one: f"{one.recipe.momentum:g}{' nesterov' if one.recipe.nesterov else ''}",
    "label smoothing": lambda one: f"{one.recipe.label_smoothing:g}",
    "augmentation": lambda one: _augmentation(one),
    "precision": lambda one: one.recipe.precision,
}


def _augmentation(one: Training) -> str:
    values = one.recipe.augmentation.differences()
    return " ".join(name if value is True else f"{name} {value}" for name, value in values.items()) or "none"


def _schedule(one: Training) -> str:
    recipe = one.recipe
    told: str = recipe.schedule
    if told == "step":
        told += f" at {', '.join(f'{at:.3g}' for at in recipe.milestones)} by {recipe.gamma:g}"
    return told + (f" from epoch {one.first:g}" if one.first else "")


def _recipes(cells: Sequence[Facts]) -> list[str]:
    """What differs in the recipe of retraining beside its epochs, as far as there is a retraining."""
    found = [(cell.name, cell.trainings.retraining) for cell in cells if cell.trainings]
    if len({trainings for _, trainings in found}) <= 1:
        return []
    trained = [(name, trainings) for name, trainings in found if trainings]
    told = [
        _differ(f"{what} of retraining", [(name, ", ".join(map(value, trainings))) for name, trainings in trained])
        for what, value in _PARTS.items()
    ]
    if any(told):
        return told
    lengths = {tuple(training.length for training in trainings) for _, trainings in found}
    return [] if len(lengths) > 1 else ["other values of the recipe of retraining"]


def _pruning_recipe(cells: Sequence[Facts]) -> str:
    found = [(cell.name, cell.trainings.pruning) for cell in cells if cell.trainings]
    if len({trainings for _, trainings in found}) <= 1:
        return ""
    told = [(name, "; ".join(f"{one.recipe.lr:.4g}, {_schedule(one)}" for one in trainings) or "none")
            for name, trainings in found]  # fmt: skip
    return _differ("recipe while pruning", told, always=True)


def _total_epochs(cells: Sequence[Facts]) -> str:
    found = [(cell.name, cell.trainings.epochs if cell.trainings else None) for cell in cells]
    if None not in (numbers := {epochs for _, epochs in found}) and len(numbers) == 1:
        return ""
    told = [(name, "not known before" if epochs is None else f"{epochs:g}") for name, epochs in found]
    return _differ("epochs in all", told, always=True)


def _flops(cells: Sequence[Facts]) -> str:
    if near(cell.flops for cell in cells):
        return ""
    known = [cell.flops for cell in cells if not math.isnan(cell.flops)]
    if len(known) < len(cells):
        return "training FLOPs (not recorded for all)"
    return f"training FLOPs ({quantity(min(known))} to {quantity(max(known))})"


def _differ(what: str, values: Sequence[tuple[str, str]], always: bool = False) -> str:
    """'start (initial values: snip; the trained dense net: ft)'; '' where all are one, unless that is said `always`."""
    by_value: dict[str, list[str]] = {}
    for name, text in values:
        by_value.setdefault(text, []).append(name)
    if len(by_value) <= 1:
        return f"{what} ({next(iter(by_value))})" if always and by_value else ""
    *rare, (text, most) = sorted(by_value.items(), key=lambda item: len(item[1]))
    told = [f"{value}: {_some(names)}" for value, names in rare[:_VALUES]]
    told += [f"{len(rare) - _VALUES} other values"] if len(rare) > _VALUES else []
    told.append(f"{text}: {_some(most) if len(most) <= _NAMES else 'the others'}")
    return f"{what} ({'; '.join(told)})"


def _some(names: Sequence[str]) -> str:
    if len(names) <= _NAMES + 1:
        return ", ".join(names)
    return f"{', '.join(names[:_NAMES])} and {len(names) - _NAMES} others"
