"""Controls: what is asked of a method's gain by a run in which one thing is another one.

A control takes the masks of the method's run of the same seed, or what it kept, and changes what else made that run:
nothing of it is written in a method's file. Frankle et al., ICLR 2021 (arXiv:2009.08576): shuffle, reinitialise,
invert. Su et al., NeurIPS 2020 (arXiv:2009.11094): borrowed ratios. Liu et al., ICLR 2019 (arXiv:1810.05270): scratch-e
and scratch-b. Blalock et al., MLSys 2020 (arXiv:2003.03033): origin, small dense nets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ipbench.methods._stages import (
    AT_ONCE,
    Choose,
    Continue,
    External,
    Prune,
    Rewind,
    Stage,
    Take,
    Train,
    changing,
)
from ipbench.spec import COEFFICIENTS, CONTROLS, NO_CONTROL, Run, n_of_m

#: Those that need the end of the method's run, or its record.
FROM_THE_METHOD = frozenset(CONTROLS) - {NO_CONTROL, "invert", "origin"}
#: Those whose initial values are not those of the method's run.
FRESH = ("reinitialise", "scratch-e", "scratch-b")
#: Those that train a whole net: nothing of it is above a budget.
UNPRUNED = ("origin", "small-dense", "small-dense-macs")


@dataclass(frozen=True)
class _Parts:
    """What a method's stages are made of.

    Attributes:
        start: the run that is continued; None if it begins with initial values.
        last: the last stage that changes masks.
        rest: what is done with what the masks leave; without a training of its own, that in which masks change, without
            its changes.
    """

    start: Continue | None
    last: Stage
    rest: tuple[Stage, ...]

    @property
    def rewinds(self) -> bool:
        """Whether values are those of the dense training at an earlier epoch."""
        return any(isinstance(stage, Rewind) for stage in self.rest)

    @property
    def inherits(self) -> bool:
        """Whether what is left begins with values that were trained in another shape."""
        return self.start is not None and not self.rewinds


def _parts(stages: Sequence[Stage]) -> _Parts:
    start = stages[0] if isinstance(stages[0], Continue) else None
    place = changing(stages)[-1]
    rest = tuple(stages[place + 1 :])
    if any(isinstance(stage, Train) for stage in rest):
        return _Parts(start, stages[place], rest)
    before = [stage for stage in stages[: place + 1] if isinstance(stage, Train)]
    plain = [replace(before[-1], update=None, until="end")] if before else []
    return _Parts(start, stages[place], (*rest, *plain))


def without_meaning(stages: Sequence[Stage], run: Run) -> str:
    """Why a run's control has no meaning for its method; empty if it has one, or there is none.

    Args:
        stages: of the method, for the run's options.
        run: whose control.
    """
    if run.control == NO_CONTROL:
        return ""
    if not changing(stages):
        return "needs masks, and the method does not prune"
    if run.control in FRESH and run.own.weights:
        return "draws initial values anew, and those of this model are a file's"
    parts = _parts(stages)
    if not parts.rest:
        return "needs a training behind the masks, and there is none"
    return _BY_CONTROL.get(run.control, _always)(stages, parts, run)


def _always(stages: Sequence[Stage], parts: _Parts, run: Run) -> str:
    return ""


def _of_shuffle(stages: Sequence[Stage], parts: _Parts, run: Run) -> str:
    if n_of_m(run.pattern):
        return f"moves coefficients within layers, which pattern {run.pattern} does not keep"
    if parts.inherits and parts.start is not None and (parts.start.rate or parts.start.sparsity != "0"):
        return "takes the values of the run before, whose own masks leave none where coefficients are moved to"
    return ""


def _of_borrowed(stages: Sequence[Stage], parts: _Parts, run: Run) -> str:
    return f"draws within layers, and pattern {run.pattern} prunes all alike" if n_of_m(run.pattern) else ""


def _of_invert(stages: Sequence[Stage], parts: _Parts, run: Run) -> str:
    if isinstance(parts.last, External) or not isinstance(parts.last, AT_ONCE):
        return "turns a score round, and what prunes here is not one score at once"
    if parts.start and parts.start.rate:
        return "turns one score round, and the levels before have pruned by it as it is"
    if isinstance(parts.last, Prune) and parts.last.whole_ranking:
        return "turns a score round, and the solution of a linear program is none"
    if any(isinstance(stage, Train) and stage.update for stage in stages):
        return "turns one score round, and the method ranks by others while it trains"
    return ""


def _of_scratch(stages: Sequence[Stage], parts: _Parts, run: Run) -> str:
    whole = parts.start is None and sum(isinstance(stage, Train) for stage in stages) == 1
    if whole or parts.rewinds:
        return "is reinitialise here: what is left has the whole training"
    return ""


def _of_compute(stages: Sequence[Stage], parts: _Parts, run: Run) -> str:
    if problem := _of_scratch(stages, parts, run):
        return problem
    changed = parts.start is None or bool(parts.start.rate) or not isinstance(parts.last, AT_ONCE)
    if run.pattern == COEFFICIENTS and changed:
        return "needs the compute of the method's trainings, whose masks change from step to step"
    return ""


def _of_origin(stages: Sequence[Stage], parts: _Parts, run: Run) -> str:
    if not parts.inherits or parts.start is None or parts.start.rate or parts.start.sparsity != "0":
        return "gives the dense net the training that a pruned one has in addition, and here it has none"
    if not isinstance(parts.last, AT_ONCE):
        return "gives the dense net the training behind the masks, and here they change while it trains"
    return ""


_BY_CONTROL = {
    "shuffle": _of_shuffle, "borrowed-ratios": _of_borrowed, "invert": _of_invert, "scratch-e": _of_scratch,
    "scratch-b": _of_compute, "origin": _of_origin,
}  # fmt: skip


def controlled(stages: list[Stage], control: str) -> list[Stage]:
    """The stages of a run under a control.

    Args:
        stages: of the method.
        control: one that has a meaning for them.
    """
    if control == NO_CONTROL:
        return stages
    parts = _parts(stages)
    rest, start = list(parts.rest), [parts.start] if parts.start and parts.inherits else []
    if control == "invert":
        place = changing(stages)[-1]
        assert isinstance(parts.last, Choose | Prune)
        return [*stages[:place], replace(parts.last, inverted=True), *stages[place + 1 :]]
    if control == "shuffle":
        return [*start, Take("shuffled"), *rest]
    if control == "reinitialise":
        return [Take("same"), *rest]
    if control == "borrowed-ratios":
        return [Take("drawn"), Train()]
    if control == "origin":
        return [*start, *(stage for stage in rest if isinstance(stage, Train))]
    if control in ("scratch-e", "scratch-b"):
        return [Take("same"), Train(length="compute" if control == "scratch-b" else "epochs")]
    return [Take("narrow macs" if control == "small-dense-macs" else "narrow"), Train(length="epochs")]


def canonical(run: Run, knob: str = "") -> Run:
    """The run that stands for all those which a control does not tell apart: of `origin`, whatever would be pruned.

    Args:
        run: any.
        knob: the option of its method that says how much is pruned; empty if there is none.
    """
    if run.control != "origin":
        return run
    options = {name: value for name, value in run.options.items() if name != knob}
    return run.model_copy(
        update={
            "sparsity": "0", "off": "zero", "allocation": "global", "pattern": COEFFICIENTS, "budget": "parameters",
            "options": options,
        }
    )  # fmt: skip


def source_of(run: Run) -> Run | None:
    """The method's own run, whose end or record a run takes; None if it takes nothing of it."""
    return run.model_copy(update={"control": NO_CONTROL}) if run.control in FROM_THE_METHOD else None
