"""The table of runs whose channels were cut: what was asked for, what is left of the net, its accuracy and its time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ipbench.analysis.cells import CellStatistics, all_cells, counts
from ipbench.analysis.collect import Collection
from ipbench.analysis.grid import Row
from ipbench.analysis.labels import Labels, guess_text, metric_name
from ipbench.analysis.render import Table
from ipbench.analysis.settings import Settings
from ipbench.analysis.sliced import COLUMNS, latency, macs_left, parameters_left, ratio_statistics, share_statistics
from ipbench.analysis.tables.parts import MEANS, axes, column_names, common_notes, lost_text, raw_axes, table
from ipbench.analysis.text import NOTHING, percent, quantity, with_interval

_NOTES = (
    "Of the net without the channels that were cut. MACs left: multiply-accumulates of one image, in per cent of the"
    " dense net's; parameters left: all stored trained numbers, FBs included, masks inside the net not; both are means"
    " over the finished runs.",
    "{metric}: on the test set after the last epoch, in per cent. A diverged run counts as {guess}, and tells nothing"
    " of what is left.",
    "Time: seconds of a forward pass over those of the dense net, in per cent, both measured in turns in one run;"
    " geometric mean over seeds. What was measured on different hardware has rows of its own.",
    f"{MEANS} Of times it is that of the mean logarithm.",
)


def structured_table(collection: Collection, names: Labels) -> Table:
    """One row per cell whose channels are cut, and hardware on which its nets were timed."""
    data: list[dict[str, Any]] = []
    printed: list[dict[str, str]] = []
    cells = collection.grid.cells
    metric = metric_name(cells)
    told_metric = metric if metric.startswith("mAP") else metric.capitalize()
    accuracies, ended, settings = all_cells(collection), counts(collection), Settings(collection)
    runs = _runs(collection)
    # An SP cell that several filter bases are compared with is listed once.
    sides = dict.fromkeys(side for row in collection.grid.rows() for side in (row.sp, row.ip) if side and side.cut)
    for cell in sides:
        count, accuracy = ended[cell.id], accuracies[cell.id]
        mixed = settings.mixed([cell.id])
        own = {} if mixed else runs.get(cell.id, {})
        macs = share_statistics({seed: macs_left(run) for seed, run in own.items()})
        parameters = [found for run in own.values() if math.isfinite(found := parameters_left(run))]
        share = share_statistics({seed: parameters_left(run) / run["parameters_dense"] for seed, run in own.items()})
        numbers: dict[str, Any] = {"n": count.done + count.diverged, "planned": count.planned, "mixed": mixed}
        numbers |= {"collapsed": count.collapsed, "chance": count.chance}
        numbers |= _raw("accuracy", accuracy) | _raw("macs_left", macs) | _raw("parameters_left", share)
        numbers["parameters_left"] = sum(parameters) / len(parameters) if parameters else math.nan
        texts = axes(names, Row(cell, None)) | {
            "space": cell.space.upper(),
            "n": str(accuracy.n) if accuracy.n == count.planned else f"{accuracy.n} of {count.planned}",
            "MACs left": f"not formed: {mixed}" if mixed else percent(macs.mean),
            "parameters left": _parameters(numbers["parameters_left"], share),
            "collapsed": str(count.collapsed),
            "at chance": str(count.chance),
            metric: "impossible" if count.impossible and not accuracy.n else _with_interval(accuracy),
        }
        for where, ratios in (_times(own) or {"": {}}).items():
            time = ratio_statistics(ratios)
            raw = {"time_n": time.n, "measured_on": where or None} | _raw("time", time)
            data.append({"cell": cell.id, "space": cell.space} | raw_axes(Row(cell, None)) | numbers | raw)
            printed.append(
                texts | {"time": _with_interval(time), "time n": str(time.n), "measured on": where or NOTHING}
            )
    lost = [what for what in ("collapsed", "at chance") if any(texts[what] != "0" for texts in printed)]
    order = [*column_names(names), "space", "n", *lost, "MACs left", "parameters left", metric, "time"]
    several = {texts["measured on"] for texts in printed} - {NOTHING}
    told = (f"Times measured on: {', '.join(several)}.",) if len(several) == 1 else ()
    order += ["time n", "measured on"] if len(several) > 1 else []
    printed = [{name: texts[name] for name in order} for texts in printed]
    notes = (
        *(note.format(metric=told_metric, guess=guess_text(cells)) for note in _NOTES),
        *told,
        *([lost_text(cells)] if lost else []),
        *common_notes(collection, names),
    )
    return table(collection, "structured", "nets whose channels were cut", data, printed, notes, order)


def _runs(collection: Collection) -> dict[str, dict[int, dict[str, Any]]]:
    """The finished runs, by cell and seed: the columns that tell what is left."""
    done = collection.runs[collection.runs["status"] == "done"]
    columns = ["cell", "seed", *(name for name in COLUMNS if name in done)]
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for values in done[columns].itertuples(index=False, name=None):
        run = dict(zip(columns, values, strict=True))
        found.setdefault(run["cell"], {})[int(run["seed"])] = run
    return found


def _times(runs: Mapping[int, Mapping[str, Any]]) -> dict[str, dict[int, float]]:
    """Ratios by seed, by what they were measured on."""
    found: dict[str, dict[int, float]] = {}
    for seed, run in runs.items():
        if told := latency(run):
            found.setdefault(told.where, {})[seed] = told.ratio
    return dict(sorted(found.items()))


def _raw(name: str, found: CellStatistics) -> dict[str, float]:
    """Mean and ends of an interval, in per cent."""
    return {
        f"{name}_{what}percent": 100 * value
        for what, value in (("", found.mean), ("lower_", found.lower), ("upper_", found.upper))
    }


def _with_interval(found: CellStatistics) -> str:
    return with_interval(percent(found.mean), percent(found.lower), percent(found.upper))


def _parameters(number: float, share: CellStatistics) -> str:
    """'81.4 k (30.00 %)'."""
    return NOTHING if math.isnan(number) else f"{quantity(number)} ({percent(share.mean)} %)"
