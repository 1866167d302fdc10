"""What an experiment planned: the cells of `grid.json` and which of them are compared (no pandas, quick to import)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ipbench.data import catalog, own
from ipbench.errors import BadInput
from ipbench.spec import COEFFICIENTS, CONTROLS, NAME, NO_CONTROL, SPACES, Run, build, canonical_json, pair_of
from ipbench.store import MOST_GRID, read_json

#: A difference of so many percentage points is small, where an experiment (or an old grid) does not say otherwise.
MARGIN = 0.5
#: The method of the cells that are trained without a mask; they are references, not comparisons.
DENSE = "dense"


@dataclass(frozen=True)
class Cell:
    """One row of a table before its seeds: every axis of a run but the seed, and the seeds that were planned.

    `basis`, `options` and `recipe` are canonical JSON texts, so that a cell is hashable and two are easily compared.
    """

    id: str
    dataset: str
    model: str
    method: str
    family: str
    space: str
    off: str
    sparsity: str
    allocation: str
    basis: str
    options: str
    recipe: str
    mode: str
    seeds: tuple[int, ...]
    pair: str
    code: str | None = None
    """Digest of the code of a user's method, as it was planned (`ipbench.user_code`)."""
    pattern: str = COEFFICIENTS
    budget: str = "parameters"
    own: str = "{}"
    """What its names stand for where ipbench does not ship it: digests, as canonical JSON (`ipbench.spec.Own`)."""
    control: str = NO_CONTROL
    """What is another one than in the method's run; `none` of that run itself."""
    knob: str = ""
    """The option that says how much is pruned, in place of the sparsity (0 then); what is pruned is a result."""

    @property
    def dense(self) -> bool:
        """Whether this is a dense reference."""
        return self.method == DENSE

    @property
    def structure(self) -> tuple[str, str]:
        """Pattern and budget: cells that differ in them are never averaged; nor are controls, which no average has."""
        return self.pattern, self.budget

    @property
    def cut(self) -> bool:
        """Whether its runs end as nets without the channels that are dead."""
        return self.pattern in WHOLE_CHANNELS and self.off == "zero" and not self.dense

    @property
    def setting(self) -> str:
        """The value of the knob, as text; '' of a cell that has none."""
        value = json.loads(self.options)[self.knob] if self.knob else ""
        return value if isinstance(value, str) else json.dumps(value)

    @property
    def others(self) -> str:
        """The options but the knob, as canonical JSON."""
        options = json.loads(self.options)
        return canonical_json({name: value for name, value in options.items() if name != self.knob})

    def run(self, seed: int) -> Run:
        """The run of a seed.

        Raises:
            BadInput: the axes are not those of a run.
        """
        plain = {name: getattr(self, name) for name in _PLAIN}
        structured = {name: json.loads(getattr(self, name)) for name in ("basis", "options", "recipe", "own")}
        return build(Run, {**plain, **structured, "seed": seed}, f"cell {self.id}")


_PLAIN = (
    "dataset",
    "model",
    "method",
    "space",
    "off",
    "sparsity",
    "allocation",
    "pattern",
    "budget",
    "control",
    "mode",
)
#: Patterns whose units are the channels that a net can do without.
WHOLE_CHANNELS = ("filters", "channels")
#: Axes that grids and records of old versions do not have, and their values there.
LATER = {"pattern": COEFFICIENTS, "budget": "parameters", "control": NO_CONTROL}
#: Axes of `Cell.structure`.
STRUCTURE = ("pattern", "budget")
#: Of a cell: what every row of it has in common.
AXES = (*_PLAIN, "pair", "family", "basis", "options", "recipe")


#: Of these, what tells apart two cells of one method, net and recipe; in the order of the tables.
_VARIANT = ("off", "allocation", "pattern", "budget", "options", "control")


@dataclass(frozen=True)
class Row:
    """The SP and the IP side of one line of a table; one of them may not be planned."""

    sp: Cell | None
    ip: Cell | None

    @property
    def any(self) -> Cell:
        """A side that exists; both sides agree on every axis but space and basis."""
        side = self.sp or self.ip
        assert side is not None
        return side

    @property
    def compared(self) -> bool:
        """Whether both sides are planned and this is not a dense reference: one member of the family of tests."""
        return self.sp is not None and self.ip is not None and not self.any.dense


@dataclass(frozen=True)
class Grid:
    """A planned experiment; cells are in the order of the tables (see `parse`), `margin` is in percentage points."""

    name: str
    title: str
    cells: tuple[Cell, ...]
    margin: float = MARGIN
    datasets: str = "{}"
    """Facts about users' data sets, by name, as canonical JSON (`ipbench.data.own.to_json`)."""

    @property
    def nets(self) -> list[tuple[str, str]]:
        """The pairs (data set, model), in order."""
        return list(dict.fromkeys((cell.dataset, cell.model) for cell in self.cells))

    @property
    def planned(self) -> int:
        """Number of runs."""
        return sum(len(cell.seeds) for cell in self.cells)

    def plans_the_same(self, other: Grid) -> bool:
        """Whether another grid has the same cells, in whatever order, and the same facts beside them."""
        return replace(self, cells=()) == replace(other, cells=()) and set(self.cells) == set(other.cells)

    def without_controls(self) -> Grid:
        """The cells of the methods themselves."""
        return replace(self, cells=tuple(cell for cell in self.cells if cell.control == NO_CONTROL))

    def rows(self) -> list[Row]:
        """SP and IP side by side, in the order of the cells.

        Cells with the same `pair` differ in the space only. Where several filter bases share one SP cell, every IP
        cell gets a row of its own, beside the same SP cell.
        """
        sides: dict[str, dict[str, list[Cell]]] = {}
        for cell in self.cells:
            sides.setdefault(cell.pair, {space: [] for space in SPACES})[cell.space].append(cell)
        rows = []
        nothing: list[Cell | None] = [None]
        for side in sides.values():
            rows += [Row(sp, ip) for sp in side["sp"] or nothing for ip in side["ip"] or nothing]
        return rows


def options_vary(rows: Sequence[Row]) -> bool:
    """Whether the comparisons of a method differ in its options or in filter bases: a search, not a sample."""
    return len({row.any.options for row in rows}) > 1 or len({row.ip.basis for row in rows if row.ip}) > 1


def parse(value: Mapping[str, Any], where: str = "grid") -> Grid:
    """Make a `Grid` of the plain JSON value that `grid.json` holds; this process knows its users' data sets then.

    Cells are ordered by data set, model, method (dense first), variant and sparsity (`_in_order`).

    Raises:
        BadInput: a key is missing or of the wrong kind, a name is not a name, or a cell is listed twice.
    """
    try:
        cells = [_cell(cell) for cell in value["cells"]]
        name, title = str(value["name"]), str(value.get("title") or value["name"])
        margin = float(value.get("margin", MARGIN))
        sets = _datasets(value.get("datasets", {}), where)
        if not 0 < margin <= 100:
            raise ValueError(f"margin {margin} is not above 0 and at most 100")
    except KeyError as error:
        raise BadInput(f"{where}: key {error} is missing") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"{where}: not a grid of cells ({error})") from None
    if not cells:
        raise BadInput(f"{where}: a grid without cells")
    if len({cell.id for cell in cells}) != len(cells):
        raise BadInput(f"{where}: a cell is listed twice")
    return Grid(name, title, tuple(_in_order(cells)), margin, sets)


def _in_order(cells: Sequence[Cell]) -> list[Cell]:
    """Cells in the order of the tables: axis by axis, the values of an axis as they first appear among the cells that
    agree on all axes before it. Not among all cells: cells in this order must be in order, or a grid that is written
    and read would be another one.
    """
    appeared: dict[tuple[Any, ...], dict[Any, int]] = {}

    def place(cell: Cell) -> tuple[Any, ...]:
        before: tuple[Any, ...] = ()
        for axis in ("dataset", "model", "method", "recipe", *_VARIANT, "sparsity", "space", "basis"):
            value = getattr(cell, axis)
            if axis == "sparsity":
                rank: Any = float(value)
            elif axis == "space":
                rank = value != "sp"
            else:
                known = appeared.setdefault(before, {})
                rank = (axis == "method" and not cell.dense, known.setdefault(value, len(known)))
            before = (*before, rank)
        return before

    places = {cell.id: place(cell) for cell in cells}
    return sorted(cells, key=lambda cell: places[cell.id])


def _datasets(told: Any, where: str) -> str:
    """Take note of users' data sets, unless this process knows where the same ones lie."""
    for name, facts in dict(told).items():
        found = own.from_json(facts, f"{where}: data set {name!s:.60}")
        there = catalog.OWN.get(name)
        if found.name != name:
            raise BadInput(f"{where}: the facts of data set {name!s:.60} are those of {found.name}")
        if there is None or there.own is None or found.own is None or there.own.sha256 != found.own.sha256:
            catalog.register(found)
    return canonical_json(told)


def read_grid(results: Path) -> Grid:
    """Read `results/grid.json`.

    Raises:
        BadProduct: the file is missing, truncated or altered.
        BadInput: it does not hold a grid.
    """
    path = results / "grid.json"
    grid = parse(read_json(path, MOST_GRID), str(path))
    check(grid, str(path))
    return grid


def check(grid: Grid, where: str) -> None:
    """Whether every cell is what its id and its pair say.

    Raises:
        BadInput: one is not; the message names it.
    """
    for cell in grid.cells:
        try:
            run = cell.run(cell.seeds[0])
        except BadInput as error:
            raise BadInput(f"{where}: {error}") from None
        except (ValueError, RecursionError):
            raise BadInput(f"{where}: cell {cell.id}: its basis, options or recipe is no JSON") from None
        if (run.cell, pair_of(run)) != (cell.id, cell.pair):
            raise BadInput(
                f"{where}: cell {cell.id} with pair {cell.pair:.20} holds the axes of cell {run.cell} with pair"
                f" {pair_of(run)}: it was altered, or is of another version; take the commit that wrote it"
            )


def to_json(grid: Grid) -> dict[str, Any]:
    """The plain JSON value of a grid; `parse(to_json(grid)) == grid`."""
    cells = [{**vars(cell), "seeds": list(cell.seeds)} for cell in grid.cells]
    for cell in cells:
        for name, usual in {"code": None, "knob": "", "own": "{}", **LATER}.items():
            if cell[name] == usual:
                del cell[name]
    sets = json.loads(grid.datasets)
    known = {"datasets": sets} if sets else {}
    return {"name": grid.name, "title": grid.title, "margin": grid.margin, "cells": cells, **known}


def _cell(value: Mapping[str, Any]) -> Cell:
    names = {name: str(value[name]) for name in ("id", "dataset", "model", "method")}
    for name, text in names.items():
        if not NAME.fullmatch(text):  # these become parts of file names
            raise ValueError(f"{name} {text!r:.60} is not a name")
    if value["space"] not in SPACES:
        raise ValueError(f"space {value['space']!r:.60} is none of {', '.join(SPACES)}")
    if value.get("control", NO_CONTROL) not in CONTROLS:
        raise ValueError(f"control {value['control']!r:.60} is none of {', '.join(CONTROLS)}")
    if not 0 <= float(value["sparsity"]) < 1:
        raise ValueError(f"sparsity {value['sparsity']!r:.60} is not in [0, 1)")
    texts = {name: str(value[name]) for name in ("family", "space", "off", "sparsity", "allocation", "mode", "pair")}
    texts |= {name: str(value.get(name, usual)) for name, usual in LATER.items()}
    # A text is taken as it is: that is how `to_json` writes these axes.
    values = {
        name: value[name] if isinstance(value[name], str) else canonical_json(value[name])
        for name in ("basis", "options", "recipe")
    }
    own_text = value.get("own", {})
    values["own"] = own_text if isinstance(own_text, str) else canonical_json(own_text)
    seeds = tuple(value["seeds"])
    if not seeds or len(set(seeds)) < len(seeds) or not all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds):
        raise ValueError(f"seeds {str(seeds)!r:.60} are not whole numbers from 0 on, each once")
    code = value.get("code")
    if not isinstance(code, str | None):
        raise ValueError(f"code {code!r:.60} is not a digest")
    knob = value.get("knob", "")
    if knob and (not isinstance(knob, str) or knob not in json.loads(values["options"])):
        raise ValueError(f"knob {knob!r:.60} is none of the options")
    return Cell(**names, **texts, **values, seeds=seeds, code=code, knob=knob)
