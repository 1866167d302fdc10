"""What the runs of a method are set beside: random pruning at equal budget, the dense net, the method's controls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ipbench import methods
from ipbench.analysis.grid import DENSE, WHOLE_CHANNELS, Cell, Grid
from ipbench.methods._stages import changing
from ipbench.spec import CONTROLS, NO_CONTROL

#: What a gain is one over, by name; the first of them that there is.
_RANDOM, _RANDOM_FILTERS = "random", "random-filters"
#: The family of methods that prune an untrained net and then train it, as `random` does.
_BEFORE_TRAINING = "before training"
#: Of a net and how it is trained.
_NET = ("dataset", "model", "recipe", "mode", "own", "space", "basis")
#: Of a budget, and what is counted in it.
_BUDGET = ("off", "pattern", "budget", "sparsity")


@dataclass(frozen=True)
class Making:
    """How the runs of a method come about, as far as its controls ask.

    Attributes:
        inherits: they go on from the values of a run that was trained before; None where that is not known.
        changes: something is at work in a training up to their last change of masks: these change, or are soft, or what
            will be pruned is penalised. Their controls train without it.
    """

    inherits: bool | None
    changes: bool

    def like(self, other: Making) -> bool:
        """Whether two methods differ in nothing but in what they prune, as far as is known."""
        return self.inherits is not None and self == other and not self.changes


@dataclass(frozen=True)
class Beside:
    """A cell of a method's own runs, with the cells that these are compared with.

    Attributes:
        cell: itself.
        baseline: random pruning at equal budget; None where there is none.
        remark: why there is none, or in what it is another one.
        dense: the dense net; None where it was not trained.
        controls: by name, in the order of `spec.CONTROLS`.
    """

    cell: Cell
    baseline: Cell | None
    remark: str
    dense: Cell | None
    controls: Mapping[str, Cell]


def beside(grid: Grid) -> dict[str, Beside]:
    """The cells of a grid that have controls, by id, with all that they are compared with."""
    own = [cell for cell in grid.cells if cell.control == NO_CONTROL]
    under: dict[tuple[str, ...], dict[str, Cell]] = {}
    for cell in grid.cells:
        if cell.control != NO_CONTROL:
            under.setdefault(_place(cell, cell.control == "origin"), {})[cell.control] = cell
    nets: dict[tuple[str, ...], list[Cell]] = {}
    for cell in own:
        nets.setdefault(_values(cell, _NET), []).append(cell)
    found = {}
    for cell in own:
        there = under.get(_place(cell, False), {}) | under.get(_place(cell, True), {})
        if there and not cell.dense:
            same = nets[_values(cell, _NET)]
            dense = next((other for other in same if other.method == DENSE), None)
            controls = {name: there[name] for name in CONTROLS if name in there}
            found[cell.id] = Beside(cell, *_baseline(cell, same), dense, controls)
    return found


def alone(grid: Grid, found: Mapping[str, Beside]) -> list[Cell]:
    """The controls of a grid beside which the method's own runs are not planned."""
    known = {cell.id for one in found.values() for cell in one.controls.values()}
    return [cell for cell in grid.cells if cell.control != NO_CONTROL and cell.id not in known]


def making(cell: Cell, mask_updates: bool = False) -> Making:
    """How the runs of a cell come about.

    Of a method that ipbench ships, by its stages; of any other one, whose file is not read here, by its family and by
    what its records tell.

    Args:
        cell: of the method's own runs.
        mask_updates: whether their records tell of masks that changed while they trained.
    """
    if not methods.built_in(cell.method):
        return Making(False if cell.family == _BEFORE_TRAINING and not mask_updates else None, mask_updates)
    stages = methods.get(cell.method).stages(cell.run(cell.seeds[0]).options)
    rewinds = any(isinstance(stage, methods.Rewind) for stage in stages)
    until = stages[: changing(stages)[-1] + 1]
    changes = any(isinstance(stage, methods.Train) and stage.update is not None for stage in until)
    return Making(isinstance(stages[0], methods.Continue) and not rewinds, changes)


def _values(cell: Cell, axes: Iterable[str]) -> tuple[str, ...]:
    return tuple(str(getattr(cell, axis)) for axis in axes)


def _place(cell: Cell, dense: bool) -> tuple[str, ...]:
    """What a control shares with its method's run; one that leaves the net dense shares no budget with it."""
    net = _values(cell, (*_NET, "method"))
    return ("", *net, cell.others) if dense else (*net, *_values(cell, (*_BUDGET, "allocation", "options")))


def _baseline(cell: Cell, same: Iterable[Cell]) -> tuple[Cell | None, str]:
    """Random pruning at the budget of a cell, and what is to be said of it.

    Args:
        cell: of a method.
        same: all cells of its net, trained as it is.
    """
    axes = (*_BUDGET, "knob", "setting")
    equal = [other for other in same if _values(other, axes) == _values(cell, axes)]
    names = (_RANDOM_FILTERS, _RANDOM) if cell.pattern in WHOLE_CHANNELS else (_RANDOM,)
    for name in names:
        found = [other for other in equal if other.method == name]
        if any(other.id == cell.id for other in found):
            return None, "it is what others are compared with"
        if not found:
            continue
        found = [other for other in found if other.allocation == cell.allocation] or found
        found = [other for other in found if other.others == "{}"] or found
        if len(found) > 1:
            return None, f"there are {len(found)} cells of {name}, and none is nearest"
        (one,) = found
        return one, "" if one.allocation == cell.allocation else f"{name} with allocation {one.allocation}"
    equal_to = f"at {cell.knob}={cell.setting}" if cell.knob else "at an equal budget"
    return None, f"no {' or '.join(names)} {equal_to}"
