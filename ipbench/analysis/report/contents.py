"""What a page tells, as plain values: rows of the charts, tables, and what is said of their making.

Accuracies are in per cent, differences in percentage points. Every number comes from where the tables have it from.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ipbench.analysis import style
from ipbench.analysis.cells import PRIMARY
from ipbench.analysis.comparisons import Finding, method_of, pair_name
from ipbench.analysis.figures.edge import least
from ipbench.analysis.figures.of_comparisons import WHOLE, Line, lines_of
from ipbench.analysis.figures.scene import Scene
from ipbench.analysis.figures.spots import level
from ipbench.analysis.grid import Cell, Row
from ipbench.analysis.labels import labels
from ipbench.analysis.panels import Panel
from ipbench.analysis.plan import ALL, BOTH, FIGURES, FigureFile, nets_with_controls, plan
from ipbench.analysis.rankings import in_short, rankings
from ipbench.analysis.reached import reached_by_knob
from ipbench.analysis.render import Table
from ipbench.analysis.setting import hardware, software
from ipbench.analysis.shares import SHARES_OF, budgets_of, share_name
from ipbench.analysis.tables import make_tables
from ipbench.analysis.tables.controlled import survival_table, verdicts_table
from ipbench.analysis.text import NOTHING, percent, points, probability, ranges, with_interval

#: What can be switched off in a page: name in the rows, heading.
FACETS = {
    "experiment": "experiment", "dataset": "data set", "model": "model", "method": "method", "space": "space",
    "off": "off", "pattern": "pattern",
}  # fmt: skip

#: Of the span of all places: over how much of it the methods of one place are spread.
_SPREAD = 0.06

#: A row of a chart.
Values = dict[str, Any]


@dataclass(frozen=True)
class Contents:
    """What stands on a page.

    Attributes:
        title: of the page.
        opening: sentences below it: the result.
        cells: rows of the chart of accuracies; None where there is no such chart.
        differences: rows of the forest plot.
        tables: in order.
        links: by the text of a first column, where it leads to.
        provenance: sentences on how the numbers came about.
        commands: what is made, and by which command.
        margin: in percentage points.
        x: the name of the axis of sparsities.
        metric: what the primary metric is called.
    """

    title: str
    opening: tuple[str, ...]
    cells: list[Values] | None
    differences: list[Values]
    tables: tuple[Table, ...]
    links: Mapping[str, str]
    provenance: tuple[str, ...]
    commands: tuple[tuple[str, str], ...]
    margin: float
    x: str
    metric: str


def of_experiment(scene: Scene, planned: bool = True) -> Contents:
    """The page of one experiment; `planned`: by a file, so that one call makes all of it, and not run by run."""
    collection = scene.collection
    grid = collection.grid
    made = [*make_tables(collection, scene.analysis).values(), *_controls(scene)]
    drawn = dict.fromkeys(file.figure for file in plan(scene.whole.grid))
    commands = [("this page", "ipbench report RESULTS"), ("the tables", "ipbench tables RESULTS")]
    commands += [(f"figure {name}", "ipbench figures RESULTS") for name in FIGURES if name in drawn]
    if planned:
        commands.append(("all of it", f"snakemake --profile profiles/local --configfile config/{grid.name}.yaml"))
    return Contents(
        title=grid.title,
        opening=(*_result(scene), _state(scene), *in_short(rankings(collection))),
        cells=_cells(scene),
        differences=_differences(scene),
        tables=tuple(made),
        links={},
        provenance=(hardware(collection), software(collection), *_versions(scene)),
        commands=tuple(commands),
        margin=grid.margin,
        x=share_name(cell for cell in grid.cells if not cell.dense),
        metric=scene.metric,
    )


def of_several(scenes: Mapping[str, Scene]) -> Contents:
    """The page over several experiments, by the name of their folder."""
    data, printed, differences, provenance = [], [], [], []
    for name, scene in scenes.items():
        whole = scene.analysis.overall
        counts = list(scene.counts.values())
        done, lost = sum(count.done for count in counts), sum(count.lost for count in counts)
        told = _numbers(whole)[0] if whole and whole.comparison.n else NOTHING
        claims = [found.claim for found in scene.analysis.pairs.values() if found.claim]
        row = {
            "experiment": name,
            "title": scene.collection.grid.title,
            "runs": f"{done} of {scene.collection.grid.planned}",
            "lost": str(lost),
            "IP − SP": told,
            "verdict": whole.verdict if whole else NOTHING,
            "claims": f"{len(claims)} of {len(scene.analysis.pairs)} comparisons" if scene.analysis.pairs else NOTHING,
        }
        data.append({"experiment": name, "n": whole.comparison.n if whole else 0})
        printed.append(row)
        differences += [one | {"name": f"{name}: {one['name']}", "experiment": name} for one in _differences(scene)]
        provenance.append(f"{name}: {hardware(scene.collection)} {software(scene.collection)}")
    import pandas as pd

    notes = (
        "IP − SP: over the whole grid, in percentage points, with its interval of 95 %; each experiment is one family"
        " of claims. lost: runs that collapsed, are at chance or diverged.",
    )
    table = Table("experiments", "All experiments", pd.DataFrame(data), pd.DataFrame(printed), notes)
    return Contents(
        title="All experiments",
        opening=("IP against SP in every experiment of this folder; below, each of them with its page.",),
        cells=None,
        differences=differences,
        tables=(table,),
        links={name: f"{name}/report.html" for name in scenes},
        provenance=tuple(provenance),
        commands=(("these pages", "ipbench report --index FOLDER"),),
        margin=min((scene.collection.grid.margin for scene in scenes.values()), default=0.5),
        x="",
        metric="accuracy",
    )


def _controls(scene: Scene) -> list[Table]:
    """What the controls tell, in sentences and in numbers; nothing where there are none."""
    if not nets_with_controls(scene.whole.grid):
        return []
    names = replace(labels(scene.collection.grid), reached=reached_by_knob(scene.collection))
    return [verdicts_table(names, scene.survival), survival_table(scene.whole, names, scene.survival)]


def _result(scene: Scene) -> list[str]:
    """What came out, in sentences."""
    analysis = scene.analysis
    if not analysis.pairs:
        return ["No comparison of IP with SP is planned: what follows are accuracies."]
    whole = analysis.overall
    told = [f"IP − SP over the whole grid: {_numbers(whole)[0]} points, n = {whole.comparison.n}, p (max-T) ="
            f" {probability(whole.p_adjusted)}: {whole.verdict}."] if whole and whole.comparison.n else []  # fmt: skip
    for claim in ("IP better", "SP better"):
        ahead = [key[2] for key, found in analysis.methods.items() if found.claim == claim]
        single = sum(found.claim == claim for found in analysis.pairs.values())
        if ahead or single:
            told.append(f"{claim}: {', '.join(ahead) or 'no method as a whole'}; single comparisons: {single}.")
    unfinished = sum(found.state == "incomplete" for found in analysis.pairs.values())
    told += [f"Incomplete comparisons, of which nothing is claimed yet: {unfinished}."] if unfinished else []
    return told or ["Nothing is claimed of a difference between IP and SP."]


def _state(scene: Scene) -> str:
    """How many runs there are, and what was lost of them."""
    counts = list(scene.counts.values())
    kinds = {"collapsed": "collapsed", "chance": "at chance", "diverged": "diverged", "impossible": "impossible",
             "missing": "missing"}  # fmt: skip
    numbers = {what: sum(getattr(count, field) for count in counts) for field, what in kinds.items()}
    told = "".join(f", {number} {what}" for what, number in numbers.items() if number)
    return f"{sum(count.done for count in counts)} of {scene.collection.grid.planned} planned runs are finished{told}."


def _versions(scene: Scene) -> list[str]:
    """The values of what records tell of versions, each once."""
    told = []
    for column in sorted(name for name in map(str, scene.runs) if name.startswith("provenance_")):
        name = column.removeprefix("provenance_")
        if name in ("finished", "commit", "method", "boxes", "jobs_per_gpu"):
            continue
        values = sorted({str(value) for value in scene.runs[column].dropna()})
        told += [f"{name}: {', '.join(values[:6])}{', …' if len(values) > 6 else ''}"] if values else []
    return told


def _cells(scene: Scene) -> list[Values]:
    """A row per cell: where it stands, mean and interval, and what became of its runs."""
    rows: list[Values] = []
    for dataset, model in scene.collection.grid.nets:
        panels = scene.panels(FigureFile("accuracy", dataset, model, ALL, BOTH, "svg"))
        cells = [cell for panel in panels for row in panel.rows for cell in (row.sp, row.ip) if cell]
        dense = {cell.id: cell for panel in panels for cell in panel.dense.values()}
        floor = least(scene, [*(cell.id for cell in cells), *dense])
        several = len(budgets_of(cells)) > 1
        done = set()
        shifts = _shifts(scene, panels)
        for panel in panels:
            for row in panel.rows:
                for cell in (row.sp, row.ip):
                    if cell and (panel.title, cell.id) not in done:
                        done.add((panel.title, cell.id))
                        budget = f", p of {SHARES_OF[cell.budget]}" if several and not cell.dense else ""
                        rows.append(_cell(scene, cell, panel.title, budget, floor, shifts[panel.title]))
        for cell in dense.values():  # a net that is not pruned has no pattern, and nothing is off
            rows.append(_cell(scene, cell, "dense", "", floor) | {"kind": "dense", "off": None, "pattern": None})
    return rows


def _shifts(scene: Scene, panels: Sequence[Panel]) -> dict[str, float]:
    """By title, how far a method stands beside its place, so that methods do not cover each other."""
    titles = list(dict.fromkeys(panel.title for panel in panels))
    span = [place for panel in panels for place in scene.places(panel)] or [0.0]
    step = _SPREAD * (max(span) - min(span) or 1.0) / max(1, len(titles) - 1)
    return {name: step * (number - (len(titles) - 1) / 2) for number, name in enumerate(titles)}


def _cell(scene: Scene, cell: Cell, label: str, budget: str, floor: float, shift: float = 0.0) -> Values:
    """One row of the chart of accuracies; None where there is nothing to tell."""
    found, ended = scene.cells(PRIMARY)[cell.id], scene.counts[cell.id]
    place = scene.position(cell)
    space = style.LABEL[cell.space]
    axes = {"dataset": cell.dataset, "model": cell.model, "method": cell.method, "space": space}
    axes |= {"off": cell.off, "pattern": cell.pattern}
    told: Values = axes | {
        "kind": "cell", "net": f"{cell.dataset}, {cell.model}", "label": label, "panel": f"{space}{budget}",
        "level": level(cell), "x": _rounded(place + shift, 5), "n": found.n, "runs": _records(cell),
        "state": _told(ended, found.mixed), "tick": None if cell.knob else _rounded(place, 8),
    }  # fmt: skip
    if not found.n:
        return told | {"kind": "nothing"}
    edge = found.mean < floor
    told |= {"mean": percent(found.mean), "interval": _interval(found.lower, found.upper, percent)}
    told |= {"edge": edge, "lost": bool(ended.lost)}
    if not edge:
        ends = [None if math.isnan(end) else _rounded(100 * max(end, floor)) for end in (found.lower, found.upper)]
        told |= {"y": _rounded(100 * found.mean), "lower": ends[0], "upper": ends[1]}
    return told


def _records(cell: Cell) -> str:
    """Where the runs of a cell are, in the folder of results."""
    return f"runs/{cell.id}/{{{ranges(cell.seeds)}}}.json"


def _told(ended: Any, mixed: str) -> str:
    """What became of the runs of a cell."""
    parts = [f"not formed: mixed {mixed}"] if mixed else []
    kinds = {"done": "done", "collapsed": "collapsed", "chance": "at chance", "diverged": "diverged",
             "impossible": "impossible", "missing": "missing"}  # fmt: skip
    parts += [f"{getattr(ended, field)} {what}" for field, what in kinds.items() if getattr(ended, field)]
    return ", ".join([*parts, *([ended.reason] if ended.reason else [])])


def _differences(scene: Scene) -> list[Values]:
    """A row per average and per single comparison of the forest plot."""
    grid = scene.collection.grid
    names, rows = labels(grid), {pair_name(row): row for row in grid.rows() if row.compared}
    nets = len(grid.nets) > 1
    told: list[Values] = []
    for line in lines_of(scene):
        row = next((rows[name] for name in _names(scene, line)), None)
        axes = _axes(row) if row and line.name != WHOLE else {}
        name = line.name
        if line.average is None:
            told.append(axes | {"name": name, "kind": "none", "text": "no average is formed"})
        else:
            told.append(axes | {"name": name, "kind": "average", **_finding(line.average)})
        for key in _names(scene, line) if line.name != WHOLE else []:
            found, row = scene.analysis.pairs[key], rows[key]
            if found.comparison.n:
                variant = names.variant(row.ip or row.any)
                net = f"{row.any.dataset}, {row.any.model}" if nets else ""
                what = ", ".join(filter(None, (row.any.method, variant, net, level(row.any))))
                sides = [side for side in (row.sp, row.ip) if side]
                more = {"what": what, "state": "; ".join(
                    f"{side.space.upper()} {_told(scene.counts[side.id], '')}" for side in sides)}  # fmt: skip
                more["runs"] = ", ".join(map(_records, sides))
                told.append(axes | {"name": name, "kind": "single", **_finding(found), **more})
    return told


def _names(scene: Scene, line: Line) -> list[str]:
    """The comparisons behind a row of the forest plot."""
    if line.name == WHOLE or line.method is None:
        return list(line.average.included) if line.average else []
    rows = (row for row in scene.collection.grid.rows() if row.compared)
    return [pair_name(row) for row in rows if method_of(row) == line.method]


def _axes(row: Row) -> Values:
    cell = row.any
    return {"dataset": cell.dataset, "model": cell.model, "method": cell.method, "pattern": cell.pattern}


def _finding(found: Finding) -> Values:
    """The numbers of a comparison or an average."""
    shown = found.comparison
    text, interval = _numbers(found)
    fill = "claim" if found.claim else "within" if found.within else "undecided"
    told: Values = {"n": shown.n, "verdict": found.verdict, "fill": fill, "text": text if shown.n else found.verdict}
    told |= {"p": probability(shown.p), "adjusted": probability(found.p_adjusted), "interval": interval}
    told |= {"comparisons": len(found.included)}
    if shown.n:
        told |= {"mean": _rounded(100 * shown.mean), "difference": points(shown.mean)}
        told |= {"lower": _rounded(100 * shown.interval.lower), "upper": _rounded(100 * shown.interval.upper)}
    return told


def _numbers(found: Finding) -> tuple[str, str]:
    """Mean with interval, and the interval alone, as texts."""
    shown = found.comparison
    lower, upper = points(shown.interval.lower), points(shown.interval.upper)
    return with_interval(points(shown.mean), lower, upper), _interval(
        shown.interval.lower, shown.interval.upper, points
    )


def _interval(lower: float, upper: float, text: Any) -> str:
    return NOTHING if math.isnan(lower) or math.isnan(upper) else f"{text(lower)} to {text(upper)}"


def _rounded(value: float, digits: int = 4) -> float | None:
    """Enough digits for a picture: pages of large grids stay small."""
    return round(value, digits) if math.isfinite(value) else None


def facets_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """What can be switched: the values of every facet that has several, in order of appearance."""
    found = {name: list(dict.fromkeys(str(row[name]) for row in rows if row.get(name))) for name in FACETS}
    return {name: values for name, values in found.items() if len(values) > 1}
