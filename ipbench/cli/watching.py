"""How far an experiment is while it runs, from its files: a line for every cell that is finished, and the time left."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from ipbench import output
from ipbench.analysis.grid import Cell, parse
from ipbench.analysis.labels import labels
from ipbench.analysis.text import percent, seconds
from ipbench.errors import BadInput
from ipbench.output import Lenient
from ipbench.planning.experiment import Experiment
from ipbench.spec import NO_CONTROL
from ipbench.store import read_json

#: Seconds between two looks at the files, and the largest share of the time that looking may take.
_INTERVAL, _SHARE = 0.5, 0.05


class Watch:
    """Looks at the records of an experiment again and again.

    Attributes:
        planned: how many runs there will be, those that only others continue included.
    """

    def __init__(self, results: Path, experiment: Experiment) -> None:
        self._results = results
        self._name = experiment.name
        self._seeds = len(experiment.axes.seeds)
        self._cells = {cell.id: cell for cell in parse(experiment.grid()).cells}
        self._labels = labels(parse(experiment.grid()))
        self._several = len({(cell.dataset, cell.model) for cell in self._cells.values()}) > 1
        #: Of the column of names, so that what stands behind it lies below each other.
        self._width = max(12, *(min(40, len(self._name_of(cell))) for cell in self._cells.values()))
        self._folders = {cell: results / "runs" / cell for cell in experiment.trained}
        self.planned = self._seeds * len(self._folders)
        self._counts = self._look()
        self._first = self._done

    @property
    def _done(self) -> int:
        return sum(self._counts.values())

    def opening(self) -> str:
        """What is begun, in a line."""
        there = f", {self._first:,} of them there already" if self._first else ""
        return f"{self._name}: {self.planned:,} trainings{there}; results in {self._results}/"

    def standing(self) -> str:
        """How much is finished."""
        return f"{self._done:,} of {self.planned:,} trainings are done"

    def until(self, process: subprocess.Popen[str]) -> Iterator[None]:
        """Show progress until the process has ended; yields after each look."""
        console = Console(file=cast(IO[str], Lenient(sys.stderr)))
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
        )
        begin = time.monotonic()
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task(self._name, total=self.planned, completed=self._done, left="")
            pause = 0.0
            while True:
                ended = _ended(process, pause)
                before = time.monotonic()
                for line in self._news():
                    told = self._left(before - begin)
                    bar.console.print(line, markup=False, highlight=False) if console.is_terminal else output.progress(
                        f"{self._done:>6} of {self.planned:<6} {told:18} {line}"
                    )
                bar.update(task, completed=self._done, left=self._left(before - begin))
                yield
                if ended:
                    return
                pause = max(_INTERVAL, (time.monotonic() - before) / _SHARE)

    def _left(self, passed: float) -> str:
        """The time that is left at the pace of this call, once it has finished something."""
        new, missing = self._done - self._first, self.planned - self._done
        if not missing:
            return "tables and figures"
        return f"{seconds(math.ceil(passed / new * missing))} left".replace(".0 s", " s") if new else ""

    def _look(self) -> dict[str, int]:
        return {cell: min(self._seeds, _records(folder)) for cell, folder in self._folders.items()}

    def _news(self) -> list[str]:
        """Look again; a line for every cell whose last run has finished since."""
        before, self._counts = self._counts, self._look()
        full = [cell for cell, count in self._counts.items() if count == self._seeds > before[cell]]
        return [self._line(self._cells[cell]) for cell in full if cell in self._cells]

    def _line(self, cell: Cell) -> str:
        """Which cell, and how accurate its nets are."""
        level = "" if cell.dense else f"p = {self._labels.text(cell, 'sparsity')}"
        name = f"{self._name_of(cell):{self._width}}"
        return f"{name}  {cell.space.upper()}  {level:9}  {self._result(cell)}".rstrip()

    def _name_of(self, cell: Cell) -> str:
        """Method, what tells its variant from others, and control; the net where there are several."""
        control = "" if cell.control == NO_CONTROL else cell.control
        name = ", ".join(filter(None, (cell.method, self._labels.variant(cell), control)))
        return f"{cell.dataset} {cell.model}  {name}" if self._several else name

    def _result(self, cell: Cell) -> str:
        """The mean accuracy of the runs that are done, and how many are not."""
        found, other = [], 0
        for seed in cell.seeds:
            try:
                record = read_json(self._folders[cell.id] / f"{seed}.json")
                found += [record["outcome"]["test_accuracy"]] if record["status"] == "done" else []
                other += record["status"] != "done"
            except (BadInput, OSError, KeyError, TypeError):  # `ipbench collect` says what is wrong with it
                other += 1
        mean = f"{percent(sum(found) / len(found))} %" if found else ""
        return "  ".join(filter(None, (mean, f"{other} without a result" if other else "")))


def _records(folder: Path) -> int:
    try:
        return sum(file.suffix == ".json" for file in folder.iterdir())
    except OSError:
        return 0


def _ended(process: subprocess.Popen[str], timeout: float) -> bool:
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        return False
    return True
