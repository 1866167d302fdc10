"""What an experiment lacks to be a fair and a sound comparison: findings that refuse nothing.

Sources: Blalock, Gonzalez Ortiz, Frankle, Guttag: What is the State of Neural Network Pruning? (MLSys 2020,
arXiv:2003.03033); Wang, Qin, Bai, Fu: Why is the State of Neural Network Pruning so Confusing? (arXiv:2301.05219).
That no image of the test part selects anything is no finding: there is no way to ask for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ipbench import methods
from ipbench.planning.experiment import Experiment
from ipbench.planning.trainings import trainings_of
from ipbench.spec import NO_CONTROL, Run, n_of_m

_BLALOCK, _WANG = "Blalock et al. 2020", "Wang et al. 2023"
#: Of a pattern: methods that keep at random, and by magnitude.
_RANDOM = {"random", "random-filters"}
_MAGNITUDE = {"magnitude", "ft", "gmp", "lt", "l1-filters"}
#: Fewer of these are a finding. Of five seeds the least p of a two-sided sign-flip test is 2 / 2^5 > 0.05.
_POINTS, _SEEDS = 3, 6
#: Names in a line, before the others are counted.
_NAMES = 4


@dataclass(frozen=True)
class Finding:
    """What is lacking.

    Attributes:
        what: it is.
        why: that matters, with the source.
        add: what would mend it.
    """

    what: str
    why: str
    add: str

    def __str__(self) -> str:
        return f"{self.what}: {self.why}; {self.add}"


def lint(experiment: Experiment) -> list[Finding]:
    """The findings of an experiment, by its plan alone; none of an experiment that prunes nothing.

    Controls are no members of comparisons between methods.
    """
    known = methods.methods()
    cells = [run for run in experiment.cells.values() if run.control == NO_CONTROL]
    pruned = [run for run in cells if known[run.method].prunes]
    if not pruned:
        return []
    return [
        *_baselines(pruned),
        *_points(pruned),
        *_seeds(experiment),
        *_breadth(pruned),
        *_lengths(pruned),
    ]


def _baselines(pruned: list[Run]) -> Iterator[Finding]:
    """Baselines that a pattern lacks; N:M patterns are one."""
    by_pattern: dict[str, set[str]] = {}
    for run in pruned:
        by_pattern.setdefault(_pattern(run), set()).add(run.method)
    for which, of, why, add in (
        ("random", _RANDOM, "what a method gains shows against random masks of the same budget", "random"),
        ("magnitude", _MAGNITUDE, "magnitude is often as good as what is new", "magnitude"),
    ):
        lacking = [pattern for pattern, found in by_pattern.items() if not found & of]
        if lacking:
            place = f" for pattern {', '.join(lacking)}" if len(by_pattern) > 1 or lacking != ["coefficients"] else ""
            names = dict.fromkeys(_baseline(add, pattern) for pattern in lacking)
            yield Finding(f"no {which} baseline{place}", f"{why} ({_BLALOCK})", f"add {' or '.join(names)} to methods")


def _baseline(name: str, pattern: str) -> str:
    filters = {"random": "random-filters", "magnitude": "l1-filters"}
    return f"{name} or {filters[name]}" if pattern in ("filters", "channels") else name


def _pattern(run: Run) -> str:
    return "N:M" if n_of_m(run.pattern) else run.pattern


def _points(pruned: list[Run]) -> Iterator[Finding]:
    """Methods with fewer than three operating points: sparsities, values of their knob, or N:M patterns."""
    known = methods.methods()
    levels: dict[tuple[str, ...], set[str]] = {}
    for run in pruned:
        knob = known[run.method].knob
        options = {name: value for name, value in run.options.items() if name != knob}
        key = (run.dataset, run.model, run.method, str(sorted(options.items())), _pattern(run), run.budget, run.off)
        level = f"{knob}={run.options[knob]}" if known[run.method].by_knob(run.options) else run.sparsity
        levels.setdefault(key, set()).add(level)
    few = {key: len(found) for key, found in levels.items() if len(found) < _POINTS}
    if few:
        names = list(dict.fromkeys(key[2] for key in few))
        whose = "" if len(few) == len(levels) else f" of {_some(names)}"
        number = "fewer than three operating points" if len(set(few.values())) > 1 else _number(min(few.values()))
        why = f"which method is ahead changes with the share; five are advised ({_BLALOCK})"
        yield Finding(f"{number}{whose}", why, "add sparsities, or values of the option that stands in their place")


def _number(points: int) -> str:
    return f"{('one', 'two')[points - 1]} operating point{'s' if points > 1 else ''} alone"


def _seeds(experiment: Experiment) -> Iterator[Finding]:
    number = len(experiment.axes.seeds)
    if number < _SEEDS:
        why = (
            f"the least p that {number} seeds can have in a two-sided sign-flip test is {2 / 2**number:g}, above 0.05,"
            " so nothing can be claimed (docs/rules.md)"
        )
        yield Finding(f"{number} seed{'s' if number > 1 else ''}", why, f"take seeds: {_SEEDS} or more")


def _breadth(pruned: list[Run]) -> Iterator[Finding]:
    """One data set, or one net alone."""
    for what, values, add in (
        ("data set", {run.dataset for run in pruned}, "datasets"),
        ("net", {run.model for run in pruned}, "models"),
    ):
        if len(values) == 1:
            why = f"a result may hold for it alone; three pairs of data set and net are advised ({_BLALOCK})"
            yield Finding(f"one {what}, {min(values)}", why, f"add to {add}, or run another experiment")


def _lengths(pruned: list[Run]) -> Iterator[Finding]:
    """Methods at one net that are trained for unequal numbers of epochs, those of the dense net included."""
    epochs: dict[tuple[str, str, str], dict[float, list[str]]] = {}
    unknown = dict[str, None]()
    for run in pruned:
        trainings = trainings_of(run)
        if trainings is None or trainings.epochs is None:
            unknown[run.method] = None
            continue
        place = (run.dataset, run.model, str(run.recipe.differences()))
        epochs.setdefault(place, {}).setdefault(trainings.epochs, []).append(run.method)
    uneven = [found for found in epochs.values() if len(found) > 1]
    if not uneven and not (unknown and epochs):
        return
    why = f"what is trained longer may be ahead for that alone, and costs more ({_WANG}, setups SX-A and SX-B)"
    add = "set the methods' own epochs so that the sums are equal, or read no ranking but those of the table setups"
    if uneven:
        most = sorted(max(uneven, key=len).items())
        told = [f"{number:g}: {_some(list(dict.fromkeys(names)))}" for number, names in most]
        told += [f"not known before: {_some(list(unknown))}"] if unknown else []
        yield Finding(f"unequal epochs in all ({'; '.join(told)})", why, add)
    else:
        known = ", ".join(f"{number:g}" for number in dict.fromkeys(n for found in epochs.values() for n in found))
        yield Finding(f"epochs in all that no plan tells ({_some(list(unknown))}), beside {known}", why, add)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMES} others" if len(names) > _NAMES + 1 else ""
    return ", ".join(names[:_NAMES] if more else names) + more
