"""From records to numbers, tables and figures: knows records and grids, never models or methods.

`grid` -> what was planned; `collect` -> `runs.parquet`; `flips` and `statistics` (pure), `settings`, `cells` and
`comparisons` (on a collection) -> the numbers; `tables`, `terminal` and `figures` -> what is shown; `standing` ->
how far it is; `plan` -> which
files that will be, without making them.

Below is what the command line calls. Each imports what it needs when it is called, so that planning stays quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_runs(results: Path, *, complete: bool = False) -> Path:
    """Gather the records under `results` into its `runs.parquet`; see `ipbench.analysis.collect.write_runs`."""
    from ipbench.analysis import collect

    return collect.write_runs(results, complete=complete)


def unreadable(results: Path) -> list[str]:
    """The records that `results/runs.parquet` had to leave out, a line each with its reason."""
    from ipbench.analysis import collect

    return [record.message for record in collect.load(results, controls=True).unreadable]


def status(results: Path, planned: Mapping[str, Any] | None = None) -> str:
    """How far an experiment is, of which `planned` is the grid if not `grid.json`; see `ipbench.analysis.standing`."""
    from ipbench.analysis import grid, standing

    return "\n".join(standing.told(standing.standing(results, None if planned is None else grid.parse(planned))))


def write_tables(results: Path) -> list[Path]:
    """Write the tables of `results/runs.parquet`; see `ipbench.analysis.tables.write_tables`."""
    from ipbench.analysis import tables

    return tables.write_tables(results)


def write_figures(results: Path, overview: bool = False) -> list[Path]:
    """Draw the figures of `results/runs.parquet`; see `ipbench.analysis.figures.write_figures`."""
    from ipbench.analysis import figures

    return figures.write_figures(results, overview)


def write_across(folders: list[Path], stem: Path) -> list[Path]:
    """Draw one figure over several experiments; see `ipbench.analysis.figures.of_comparisons.across`."""
    from ipbench.analysis.figures.of_comparisons import across

    return across(folders, stem)


def write_report(results: Path, to: Path | None = None) -> Path:
    """Write the interactive page of `results/runs.parquet`; see `ipbench.analysis.report.write_report`."""
    from ipbench.analysis import report

    return report.write_report(results, to)


def write_index(folder: Path, to: Path | None = None) -> list[Path]:
    """Write the pages of all experiments in a folder, and one over them; see `ipbench.analysis.report.write_index`."""
    from ipbench.analysis import report

    return report.write_index(folder, to)


def summary(results: Path) -> str:
    """The result table of `results/runs.parquet` as plain text; see `ipbench.analysis.terminal.summary`."""
    from ipbench.analysis import terminal

    return terminal.summary(results)


def survive(results: Path) -> tuple[str, list[Path]]:
    """What controls leave of gains, as plain text; and the files of its table and figures, which are written."""
    from ipbench.analysis import survival_text

    return survival_text.write(results)


def compare(first: Path, second: Path) -> str:
    """Two experiments beside each other, as plain text; see `ipbench.analysis.between.between`."""
    from ipbench.analysis import between, collect

    return between.between(collect.load(first), collect.load(second))
