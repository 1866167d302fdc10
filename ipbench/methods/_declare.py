"""How a method is declared: the decorator and its options.

A method that prunes before training is a score: a function of a net and a batch that gives a number per coefficient,
larger = keep. Any other method is a function of its options that returns its stages as data.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ipbench.data.catalog import TASKS
from ipbench.errors import BadInput, valid_choice
from ipbench.methods._method import REGISTRY, Method
from ipbench.methods._scores import alone
from ipbench.methods._stages import Prune, Stage, Train
from ipbench.spec import (
    ALLOCATIONS,
    BUDGETS,
    COEFFICIENTS,
    NAME,
    OFFS,
    UNIT_SCORES,
    Allocation,
    Budget,
    Off,
    Option,
    UnitScore,
    pattern_name,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Before", "before_training", "cross_entropy", "method"]


@dataclass(frozen=True)
class Before:
    """Pruning before training; the fields are options of every such method, with these defaults."""

    rounds: int = 1
    per_class: int = 0

    def __call__(self, rounds: int = 1, per_class: int = 0) -> Before:
        """The same with other defaults.

        Args:
            rounds: how often to score and prune.
            per_class: images of each class in the score batch; 0 for as many images as a training batch has.
        """
        return Before(rounds, per_class)


before_training = Before()


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy, so that a method's file needs no import of torch."""
    from torch.nn import functional

    return functional.cross_entropy(logits, labels)


#: Of scoring; more can only be a slip, and would take days.
_MOST_ROUNDS = 100_000
#: Axes of an experiment that an entry of a method may have of its own, beside its options.
OWN_AXES = ("off", "allocation", "pattern", "budget", "control")
#: What such an entry calls the models that it is meant for, where these are not all.
OF_MODELS = "model"


def method(
    *,
    paper: str,
    when: Before | None = None,
    name: str | None = None,
    family: str | None = None,
    off: Off = "zero",
    pattern: str = COEFFICIENTS,
    allocation: Allocation = "global",
    budget: Budget = "parameters",
    knob: str = "",
    task: str = "",
    positive: bool = False,
    units: UnitScore = "sum",
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a method under the name of the decorated function.

    Args:
        paper: authors, title, venue, arXiv number.
        when: `before_training` makes the function a score, `score(net, batch, *, options)`, that prunes once before
            training, or in `before_training(rounds=...)` rounds. Left out, the function takes options and returns the
            list of stages.
        name: the name, if it differs from the function's.
        family: a heading to list it under.
        off: the off-value that makes the method what it is, taken unless a user names another one.
        pattern: what it keeps or removes as one, likewise.
        allocation: how it divides a budget over layers, likewise.
        budget: what the sparsity is the removed share of, likewise; of patterns that remove no channels, parameters.
        knob: the name of an option that says how much is pruned, where it is not its default: then a run has sparsity
            0, and what it prunes is a result. With its default, the method meets the run's budget.
        task: the one that it is for, "classification" or "detection"; left out: any.
        positive: a score promises that nothing is below zero, and something above it in every layer of a net of which
            nothing is pruned. Where it does not keep that, the run is impossible.
        units: of a score, as in `Prune`.

    Keyword-only parameters with defaults are the method's options; the type of a default is the type of the option. The
    docstring's first line is the method's summary; `ipbench.methods._pages` makes a page of all of it.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        label = name or function.__name__.rstrip("_")
        file = inspect.getsourcefile(inspect.unwrap(function)) or "?"
        _check_label(label, function, file)
        if not isinstance(paper, str) or not isinstance(family, str | None) or not isinstance(when, Before | None):
            raise BadInput(
                f"{file}: method {label!r}: paper and family are texts, `when` is before_training or left out"
            )
        valid_choice(off, OFFS, "off-value", f"{file}: method {label!r}")
        pattern_name(pattern, f"{file}: method {label!r}")
        valid_choice(allocation, ALLOCATIONS, "allocation", f"{file}: method {label!r}")
        valid_choice(budget, BUDGETS, "budget", f"{file}: method {label!r}")
        valid_choice(units, UNIT_SCORES, "rule for units", f"{file}: method {label!r}")
        if task:
            valid_choice(task, TASKS, "task", f"{file}: method {label!r}")
        _check_signature(function, label, file, 0 if when is None else 2)
        options, build = _options(function, label, file, reserved=() if when is None else _OF_A_SCORE), function
        if when is not None:
            function = alone(function, label, positive)
            build = _before(function, label, tuple(options), units)
            options |= {"rounds": when.rounds, "per_class": when.per_class}
        if knob:
            valid_choice(knob, options, "option", f"{file}: method {label!r}: knob")
        REGISTRY[label] = Method(
            name=label,
            family=family or ("before training" if when is not None else "other"),
            paper=paper,
            summary=(inspect.getdoc(function) or "").partition("\n")[0],
            options=options,
            file=file,
            line=_line(function),
            build=build,
            off=off,
            pattern=pattern,
            allocation=allocation,
            budget=budget,
            knob=knob,
            task=task,
            doc=inspect.getdoc(function) or "",
        )
        return function

    return register


#: Options that every method has which prunes before training.
_OF_A_SCORE = ("rounds", "per_class")


def _before(
    score: Callable[..., Any], label: str, own: tuple[str, ...], units: UnitScore
) -> Callable[..., list[Stage]]:
    """The stages of a method that prunes before training, as a function of its options; `own`: those of its score."""

    def build(*, rounds: int, per_class: int, **values: Option) -> list[Stage]:
        if not 1 <= rounds <= _MOST_ROUNDS or per_class < 0:
            raise ValueError(f"rounds is 1 or more, up to {_MOST_ROUNDS}, and per_class 0 or more")
        options = {key: values[key] for key in own}
        return [Prune(score, label, rounds, per_class, options, units=units), Train()]

    return build


def _check_label(label: str, function: Callable[..., Any], file: str) -> None:
    """Whether a method may have this name.

    Raises:
        BadInput: it is none, or that of another method.
    """
    if not NAME.fullmatch(label):
        raise BadInput(
            f"{file}: {label!r:.80} cannot be the name of a method: use letters, digits, '_', '-' and '.', at most"
            " 64, the first a letter or digit"
        )
    if label in REGISTRY and (REGISTRY[label].file, REGISTRY[label].line) != (file, _line(function)):
        raise BadInput(
            f"{file}: there is a method {label!r} already, in {REGISTRY[label].file}, line {REGISTRY[label].line};"
            " give this one another name"
        )


def _line(function: Callable[..., Any]) -> int:
    return inspect.unwrap(function).__code__.co_firstlineno


def _check_signature(function: Callable[..., Any], label: str, file: str, wanted: int) -> None:
    """A score takes (net, batch), any other method nothing; whatever else there is are options, behind a star."""
    parameters = inspect.signature(function).parameters.values()
    before_star = [entry for entry in parameters if entry.kind is not entry.KEYWORD_ONLY]
    plain = all(entry.kind not in (entry.VAR_POSITIONAL, entry.VAR_KEYWORD) for entry in before_star)
    if len(before_star) != wanted or not plain:
        expected = "(net, batch, *, OPTIONS)" if wanted else "(*, OPTIONS)"
        raise BadInput(
            f"{file}: method {label!r}: its function takes {expected}, each option with a default, not"
            f" {inspect.signature(function)}"
        )


def _options(function: Callable[..., Any], label: str, file: str, reserved: Sequence[str] = ()) -> dict[str, Option]:
    """The keyword-only parameters of a method's function and their defaults.

    Raises:
        BadInput: one has no default, or a name that means something else.
    """
    options: dict[str, Option] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            if not isinstance(parameter.default, bool | int | float | str):
                raise BadInput(
                    f"{file}: option {parameter.name!r} of method {label!r} needs a default: a bool, number or text"
                )
            options[parameter.name] = parameter.default
    if taken := {"name", "file", "rule", OF_MODELS, *OWN_AXES} & set(options):
        raise BadInput(
            f"{file}: method {label!r}: an experiment uses the word {min(taken)!r} itself; rename the option"
        )
    if clash := set(reserved) & set(options):
        raise BadInput(f"{file}: method {label!r} redefines the option {min(clash)!r}")
    return options
