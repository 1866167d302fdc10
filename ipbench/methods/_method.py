"""A registered method: what it declares, the stages of its runs, and which options and runs have a meaning for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ipbench.data.catalog import check_recipe, dataset, steps_per_epoch
from ipbench.errors import BadInput, valid_choice
from ipbench.methods._continuing import check_line, parent_of
from ipbench.methods._controls import canonical, controlled, source_of
from ipbench.methods._controls import without_meaning as control_without_meaning
from ipbench.methods._patterns import without_meaning
from ipbench.methods._stages import AT_ONCE, ONE_RANKING, Choose, Continue, External, Prune, Stage, Train, with_slice
from ipbench.spec import (
    COEFFICIENTS,
    UNIT_PATTERNS,
    Allocation,
    Budget,
    Off,
    Option,
    Run,
    n_of_m,
)
from ipbench.updaters.updater import MaskUse, Update

#: Of numbers in options. JSON and YAML have no larger ones on which all readers agree.
_LARGEST = 2**63


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
        return with_slice(controlled(self.stages(run.options), run.control), run)

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


#: Every method that is known, by name.
REGISTRY: dict[str, Method] = {}
