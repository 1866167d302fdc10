"""The tables of an experiment, from its `runs.parquet`; which there are is told by `ipbench.analysis.plan`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ipbench.analysis.collect import Collection, load_both
from ipbench.analysis.comparisons import Analysis, analyse
from ipbench.analysis.labels import labels
from ipbench.analysis.places import places
from ipbench.analysis.plan import TABLE_FORMATS, tables_of
from ipbench.analysis.rankings import in_short, rankings
from ipbench.analysis.reached import reached_by_knob
from ipbench.analysis.render import Table, csv, latex, markdown, page
from ipbench.analysis.survival import survival
from ipbench.analysis.tables.accuracy import accuracy_table
from ipbench.analysis.tables.controlled import survival_table
from ipbench.analysis.tables.paired import global_table, methods_table, paired_table
from ipbench.analysis.tables.runs import cost_table, missing_table
from ipbench.analysis.tables.setups import setups_table
from ipbench.analysis.tables.structured import structured_table
from ipbench.analysis.tables.twins import twins_table
from ipbench.store import write_text

_WRITERS = {"csv": csv, "md": markdown, "tex": latex, "html": page}


def write_tables(results: Path) -> list[Path]:
    """Write every table of `results/runs.parquet` under `results/tables/`; returns the files, as `plan.plan_tables`.

    Raises:
        BadInput: `runs.parquet` is missing, damaged or of another grid.
    """
    whole, own = load_both(results)
    tables = make_tables(own, whole=whole)
    paths: list[Path] = []
    for name in tables_of(whole.grid):
        paths += write_table(results, tables[name])
    return paths


def write_table(results: Path, table: Table) -> list[Path]:
    """Write a table under `results/tables/` in all formats; returns the files."""
    paths = {suffix: results / "tables" / f"{table.name}.{suffix}" for suffix in TABLE_FORMATS}
    for suffix, path in paths.items():
        write_text(path, _WRITERS[suffix](table))
    return list(paths.values())


def make_tables(
    collection: Collection, analysis: Analysis | None = None, whole: Collection | None = None
) -> dict[str, Table]:
    """Every table of a collection, by name.

    Args:
        collection: without controls.
        analysis: its `analyse`, if that is there already.
        whole: the same with its controls, of which there is a table if there are any.
    """
    names = replace(labels(collection.grid), reached=reached_by_knob(collection))
    analysis = analysis or analyse(collection)
    side_by_side = rankings(collection)
    made = [
        _below(accuracy_table(collection, names, analysis), in_short(side_by_side)),
        paired_table(collection, names, analysis),
        methods_table(collection, analysis),
        global_table(collection, analysis),
        cost_table(collection, names),
        missing_table(whole or collection, names),
    ]
    if any(cell.cut for cell in collection.grid.cells):
        made.append(_below(structured_table(collection, names), in_short(side_by_side)))
    if places(collection.grid):
        made.append(setups_table(collection, names, side_by_side))
    if "twins" in tables_of(collection.grid):
        made.append(twins_table(collection, names))
    if whole is not None and "survival" in tables_of(whole.grid):
        made.append(survival_table(whole, names, survival(whole)))
    return {table.name: table for table in made}


def _below(table: Table, lines: list[str]) -> Table:
    """A table with more lines below it."""
    return replace(table, notes=(*table.notes, *lines))
