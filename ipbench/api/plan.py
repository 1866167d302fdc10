"""What is asked for, checked: the run that a call of `prune` stands for, and what of its method is done when."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ipbench import methods
from ipbench.errors import BadInput
from ipbench.methods import Choose, Continue, DropAndGrow, Gradual, Method, Prune, Slice, Stage, Train
from ipbench.spec import Basis, Option, Recipe, Run, build, only_sparsity

#: Where a user finds what is wrong.
WHERE = "ipbench.prune"
#: In place of a data set and a model, which a net of a user's own has not.
OWN = "own"


class Plan(NamedTuple):
    """What is done of a method.

    Attributes:
        at_once: stages that choose masks, in this order.
        update: how masks change while the user trains; None: they stay.
    """

    at_once: list[Prune | Choose]
    update: DropAndGrow | Gradual | None


def plan_of(stages: list[Stage]) -> Plan | None:
    """What of a method's stages fits around a training loop of somebody else; None if they do not.

    A method that starts from the dense run starts from the net as it is given. Its last training is the user's; one in
    between, a rewinding, or an updater that needs the loop of ipbench, is nothing that this loop would do.
    """
    rest = list(stages)
    if rest and rest[0] == Continue():
        rest.pop(0)
    at_once: list[Prune | Choose] = []
    while rest and isinstance(rest[0], Prune | Choose | Slice):
        stage = rest.pop(0)
        if isinstance(stage, Prune | Choose):
            at_once.append(stage)
        elif isinstance(stage, Slice) and stage.fresh:
            return None
    if not rest:
        return Plan(at_once, None)
    last = rest.pop(0)
    if rest or not isinstance(last, Train) or not isinstance(last.update, DropAndGrow | Gradual | None):
        return None
    return Plan(at_once, last.update)


def supported() -> list[str]:
    """Names of the methods that work in a loop of a user's own."""
    return [name for name, entry in methods.methods().items() if plan_of(entry.stages({}))]


def run_of(
    method: str, sparsity: float | str | None, options: Mapping[str, Any], axes: Mapping[str, Any], seed: int
) -> tuple[Run, Plan]:
    """The run that the arguments stand for, and what is done of its method.

    Args:
        method: its name.
        sparsity: None where the pattern or an option says it.
        options: of the method.
        axes: `space`, `pattern`, `budget`, `allocation`, `off` and `basis`; None where the method decides.
        seed: of all that is drawn.

    Raises:
        BadInput: something is not valid, or has no meaning together.
    """
    entry = methods.get(method, WHERE)
    given = entry.check_options(options, WHERE)
    pattern = axes["pattern"] or entry.pattern
    values = {
        "dataset": OWN,
        "model": OWN,
        "method": method,
        "recipe": Recipe(),
        "space": axes["space"],
        "basis": build(Basis, dict(axes["basis"] or {}), f"{WHERE}: basis"),
        "off": axes["off"] or entry.off,
        "pattern": pattern,
        "allocation": axes["allocation"] or entry.allocation,
        "budget": axes["budget"] or entry.budget_for(str(pattern)),
        "sparsity": _sparsity(entry, sparsity, given, str(pattern)),
        "options": given,
        "seed": seed,
    }
    run = build(Run, values, WHERE)
    plan = plan_of(entry.stages(given))
    if plan is None:
        raise BadInput(
            f"{WHERE}: method {method} needs trainings of ipbench's own (`ipbench run`); in a loop of your own work"
            f" {', '.join(supported())}"
        )
    if run.off == "decayed":
        raise BadInput(
            f"{WHERE}: off decayed follows the weight decay of SGD in ipbench's own trainings; take zero or frozen"
        )
    entry.check_meaning(run, WHERE)
    return run, plan


def _sparsity(entry: Method, sparsity: float | str | None, options: Mapping[str, Option], pattern: str) -> float | str:
    """The sparsity of the run.

    Raises:
        BadInput: it is missing, or there is nothing that it could be of.
    """
    if not entry.prunes:
        if sparsity not in (None, 0, 0.0, "0"):
            raise BadInput(f"{WHERE}: method {entry.name} prunes nothing; its sparsity is 0 (got {sparsity!r:.40})")
        return "0"
    if sparsity is not None:
        return sparsity
    if (only := only_sparsity(pattern)) is not None:
        return only
    if entry.by_knob(options):
        return "0"
    knob = f" (or {entry.knob}=, the method's own)" if entry.knob else ""
    raise BadInput(f"{WHERE}: sparsity is missing: the share that goes, from 0 up to, not including, 1{knob}")


def check_steps(run: Run, plan: Plan, steps: int) -> None:
    """Whether the length of the training is told where masks change in it, and is enough.

    Raises:
        BadInput: it is not; or it is told and nothing changes.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise BadInput(f"{WHERE}: steps is a whole number of the optimiser's steps, 0 or more (got {steps!r:.40})")
    if plan.update is None:
        if steps:
            raise BadInput(f"{WHERE}: steps={steps}: method {run.method} changes nothing while you train; leave it out")
        return
    if not steps:
        raise BadInput(
            f"{WHERE}: method {run.method} changes masks while you train: give steps=, how many steps the optimiser"
            " will make in all"
        )
    if problem := plan.update.idle(0, steps):
        raise BadInput(f"{WHERE}: method {run.method}: {problem}")
