"""How a method is declared: the decorator and its options.

A method that prunes before training is a score: a function of a net and a batch that gives a number per coefficient,
larger = keep. Any other method is a function of its options that returns its stages as data.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ipbench.data.catalog import TASKS, check_recipe, dataset, steps_per_epoch
from ipbench.errors import BadInput, valid_choice
from ipbench.methods._continuing import check_line, parent_of
from ipbench.methods._controls import canonical, controlled, source_of
from ipbench.methods._controls import without_meaning as control_without_meaning
from ipbench.methods._patterns import without_meaning
from ipbench.methods._scores import alone
from ipbench.methods._stages import AT_ONCE, ONE_RANKING, Choose, Continue, External, Prune, Stage, Train, with_slice
from ipbench.spec import (
    ALLOCATIONS,
    BUDGETS,
    COEFFICIENTS,
    NAME,
    OFFS,
    UNIT_PATTERNS,
    UNIT_SCORES,
    Allocation,
    Budget,
    Off,
    Option,
    Run,
    UnitScore,
    n_of_m,
    pattern_name,
)
from ipbench.updaters.updater import MaskUse, Update

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Before", "Method", "before_training", "cross_entropy", "method"]


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


@dataclass(frozen=True)
class Method:
    """A registered method; `method` tells what its fields mean."""

    name: str
    family: str
    paper: str
    summary: str
    options: Mapping[str, Option]
    file: str
    line: int
    build: Callable[..., list[Stage]]
    off: Off = "zero"
    pattern: str = COEFFICIENTS
    allocation: Allocation = "global"
    budget: Budget = "parameters"
    knob: str = ""
    task: str = ""
    doc: str = ""

    @property
    def prunes(self) -> bool:
        """False for `dense`: a method none of whose stages changes masks has sparsity 0 only."""
        return any(isinstance(stage, AT_ONCE) or _masks(stage) != "stay" for stage in self.stages({}))

    def by_knob(self, options: Mapping[str, Option]) -> bool:
        """Whether these options say how much is pruned; then a run has no sparsity to meet: what it prunes is a result.

        Args:
            options: those that differ from the defaults.
        """
        return bool(self.knob) and self.knob in options

    def parent(self, run: Run) -> Run | None:
        """The run of whose end this run of the method is a continuation; None if it starts from initial values."""
        return parent_of(self, run, REGISTRY)

    def offs(self, wanted: Sequence[str]) -> list[str]:
        """The off-values of an experiment for this method: a method that says its own is not meant with another one."""
        return list(wanted) if self.off == "zero" else [self.off]

    def patterns(self, wanted: Sequence[str]) -> list[str]:
        """The patterns of an experiment for this method, by the same rule."""
        return list(wanted) if self.pattern == COEFFICIENTS else [self.pattern]

    def allocations(self, wanted: Sequence[str]) -> list[str]:
        """The allocations of an experiment for this method, by the same rule."""
        return list(wanted) if self.allocation == "global" else [self.allocation]

    def budgets(self, wanted: Sequence[str]) -> list[str]:
        """The budgets of an experiment for this method, by the same rule."""
        return list(wanted) if self.budget == "parameters" else [self.budget]

    def budget_for(self, pattern: str) -> str:
        """The budget that the method means under a pattern: a count of MACs or channels is one of whole channels."""
        return self.budget if pattern in UNIT_PATTERNS and pattern != "columns" else "parameters"

    def stages(self, options: Mapping[str, Option]) -> list[Stage]:
        """The stages of a run; `options` are those that differ from the defaults."""
        return self.build(**{**self.options, **options})

    def stages_of(self, run: Run) -> list[Stage]:
        """What is executed for a run: its stages under its control, with the `Slice` that its pattern asks for."""
        return with_slice(controlled(self.stages(run.options), run), run)

    def check_options(self, given: Mapping[str, Any], where: str) -> dict[str, Option]:
        """The given options that differ from the defaults, converted to the types of the defaults.

        Raises:
            BadInput: an unknown option, a value of another type, or one that the method refuses.
        """
        result: dict[str, Option] = {}
        for name, value in given.items():
            valid_choice(name, self.options, f"option of method {self.name}", where)
            default = self.options[name]
            converted = _convert(value, default)
            if converted is None:
                kind = type(default).__name__
                raise BadInput(
                    f"{where}: option {name} of method {self.name} is of type {kind}, not {value!r:.60}"
                    f" (its default is {default!r:.60})"
                )
            if converted != default:
                result[name] = converted
        try:
            self.stages(result)
        except BadInput:
            raise
        except (Exception, SystemExit) as error:
            got = ", ".join(f"{name}={value!r:.60}" for name, value in result.items()) or "the defaults"
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            raise BadInput(f"{where}: method {self.name}: {kind}{' '.join(str(error).split())} (got {got})") from None
        return result

    def check(self, where: str) -> None:
        """Whether what was declared is a method.

        Raises:
            BadInput: its function, called with the defaults of its options, gives no stages.
        """
        self.check_options({}, where)
        stages = self.stages({})
        if not isinstance(stages, list) or not stages or not all(isinstance(stage, Stage) for stage in stages):
            raise BadInput(
                f"{where}: method {self.name!r} must return a list of stages (Prune, Choose, Train, Continue, Rewind,"
                f" Slice),"
                f" not {stages!r:.60}; a score is declared by `when=before_training`"
            )
        if any(isinstance(stage, Continue) for stage in stages[1:]):
            raise BadInput(f"{where}: method {self.name!r}: Continue is the first stage, or none")
        if self.prunes and not any(isinstance(stage, AT_ONCE) or _masks(stage) == "pruned" for stage in stages):
            raise BadInput(
                f"{where}: method {self.name!r}: exchanges coefficients of a net that it does not prune to the run's"
                " sparsity; put a Prune before"
            )

    def check_run(self, run: Run, where: str, steps: int | None = None) -> None:
        """Whether the stages fit the run's recipe, allocation and pattern.

        Args:
            run: of this method.
            where: where the user wrote it, for the message.
            steps: of an epoch; left out: what the data set's images give, unless their number is known only later.

        Raises:
            BadInput: rewinding leaves nothing to train, a training ends before its update changes a mask, or a score
                means another allocation or pattern; or the run continues others that cannot be trained, or have no
                beginning.
        """
        if problem := self.without_control(run):
            raise BadInput(f"{where}: method {self.name}: control {run.control} {problem}")
        if source := source_of(run):
            self.check_run(source, where, steps)
        check_line(self, run, REGISTRY, where)
        if problem := self._not_for(run):
            raise BadInput(f"{where}: method {self.name}: {problem}")
        self.check_meaning(run, where)
        for stage in self.stages_of(run):
            if isinstance(stage, Train) and (problem := _misfit(stage, run, f"{where}: method {self.name}", steps)):
                raise BadInput(f"{where}: method {self.name}: {problem}")

    def without_control(self, run: Run) -> str:
        """Why a run's control has no meaning for the method; empty if it has one, or there is none."""
        return control_without_meaning(self.stages(run.options), run)

    def canonical(self, run: Run) -> Run:
        """The run that stands for all those of the method which its control does not tell apart."""
        return canonical(run, self.knob)

    def check_meaning(self, run: Run, where: str) -> None:
        """Whether the stages have a meaning for the run's allocation and pattern, whatever is trained on what.

        Args:
            run: of this method.
            where: where the user wrote it, for the message.

        Raises:
            BadInput: they have none.
        """
        if problem := self._twice(run) or self._nothing_to_choose(run):
            raise BadInput(f"{where}: method {self.name}: {problem}")
        for stage in self.stages_of(run):
            if isinstance(stage, Prune) and stage.whole_ranking and run.allocation != "global":
                raise BadInput(f"{where}: method {self.name}: {ONE_RANKING}")
            if isinstance(stage, Choose) and stage.one_ranking and run.allocation != "global":
                raise BadInput(
                    f"{where}: method {self.name}: chooses {stage.name} in one ranking over all layers, which is"
                    f" allocation global, not {run.allocation}"
                )
            if isinstance(stage, External) and stage.spaces and run.space not in stage.spaces:
                raise BadInput(
                    f"{where}: method {self.name}: its rule is for space {' and '.join(stage.spaces)}, not {run.space}"
                )
            if problem := without_meaning(stage, run.pattern):
                raise BadInput(f"{where}: method {self.name}: {problem}")

    def _not_for(self, run: Run) -> str:
        """Why a run's data set is not for the method; empty if it is."""
        task = dataset(run.dataset).task
        if self.task and self.task != task:
            return f"it is for {self.task}, and data set {run.dataset} is of {task}"
        if task == "detection" and any(isinstance(stage, Prune) and stage.per_class for stage in self.stages_of(run)):
            return f"per_class has no meaning for {run.dataset}, whose images have no one class; leave it out"
        return ""

    def _twice(self, run: Run) -> str:
        """Why a run says twice how much is pruned; empty if it does not."""
        if not self.by_knob(run.options) or run.sparsity == "0":
            return ""
        return (
            f"{self.knob}={run.options[self.knob]} says how much is pruned, and sparsity {run.sparsity} does, too;"
            " leave one of them out"
        )

    def _nothing_to_choose(self, run: Run) -> str:
        """Why a method that chooses by layer has no meaning for the run's pattern; empty if it has one."""
        chooses = self.knob or any(isinstance(stage, Choose) for stage in self.stages(run.options))
        if not chooses or not n_of_m(run.pattern):
            return ""
        return f"pattern {run.pattern} prunes all layers alike, and leaves nothing to choose; take another pattern"

    def updates(self, run: Run) -> list[Update]:
        """How the masks of a run change while it trains; updates that leave them alone are not among them."""
        stages = self.stages_of(run)
        updates = [stage.update for stage in stages if isinstance(stage, Train) and stage.update]
        return [update for update in updates if update.masks != "stay"]

    def describe(self) -> dict[str, Any]:
        """What `ipbench methods --json` prints of it."""
        options = {name: {"type": type(value).__name__, "default": value} for name, value in self.options.items()}
        return {
            "name": self.name,
            "family": self.family,
            "paper": self.paper,
            "summary": self.summary,
            "off": self.off,
            "pattern": self.pattern,
            "allocation": self.allocation,
            "budget": self.budget,
            "knob": self.knob,
            "options": options,
            "stages": [str(stage) for stage in self.stages({})],
        }


def _masks(stage: Stage) -> MaskUse:
    """What becomes of masks while a stage trains, or has become of them in the run that it continues."""
    if isinstance(stage, Continue) and stage.sparsity == "same":
        return "pruned"
    return stage.update.masks if isinstance(stage, Train) and stage.update else "stay"


def _misfit(stage: Train, run: Run, where: str, steps: int | None) -> str:
    """What is wrong with a training of a run; empty if nothing.

    Args:
        stage: the training.
        run: whose.
        where: for messages.
        steps: of an epoch of the run's recipe, if the caller knows it.

    Raises:
        BadInput: what it changes of the recipe makes none, or none for the data set.
    """
    recipe, facts = stage.recipe_of(run.recipe, where), dataset(run.dataset, where)
    if stage.update and stage.update.evaluates and not recipe.validation:
        return (
            "decides by the validation accuracy, and this recipe holds out no images; give recipe.validation a share"
            " above 0"
        )
    if stage.recipe:
        check_recipe(facts, recipe, where)
    if steps is None or recipe.batch_size != run.recipe.batch_size:
        steps = steps_per_epoch(facts, recipe)
    if steps:  # none: the images are not known, or too few for a batch, which is found where they are opened
        recipe = stage.in_epochs(recipe, steps, where)
    if stage.until == "done" and recipe.schedule != "constant":
        return (
            f"a training that ends when its updater is done has a constant schedule, not {recipe.schedule}: its length"
            ' is not known before (recipe={"schedule": "constant"})'
        )
    # Where it is not known, a step a thousandth of an epoch long will do to see whether anything is left.
    first, total = round(stage.first * (steps or 1000)), recipe.epochs * (steps or 1000)
    if first >= total:
        return f"rewinding to epoch {stage.first:g} leaves nothing of a training of {recipe.epochs} epochs"
    return stage.update.idle(first, total) if stage.update and steps else ""


#: Of scoring; more can only be a slip, and would take days.
_MOST_ROUNDS = 100_000
#: Of numbers in options. JSON and YAML have no larger ones on which all readers agree.
_LARGEST = 2**63


def _convert(value: object, default: Option) -> Option | None:
    """`value` in the type of `default`; None if it is of another kind, or not finite."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not abs(value) < _LARGEST:
            return None
        if isinstance(default, str):
            value = str(value)  # "0.5" is a number to whoever reads YAML
        elif isinstance(default, float):
            value = float(value)
    if type(value) is not type(default) or (isinstance(value, str) and not value.isprintable()):
        return None
    return value


REGISTRY: dict[str, Method] = {}
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
