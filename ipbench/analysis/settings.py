"""What has to be the same for all runs behind one mean or one test, and what is not."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from ipbench.analysis.collect import Collection

#: Columns of the runs, and what is said of one that has several values.
_COLUMNS = (
    ("mode", "modes"),
    ("provenance_mode", "modes"),
    ("provenance_numerics", "numerics"),
    ("provenance_processes", "numbers of processes"),
)


class Settings:
    """The settings of the runs of a collection, by cell."""

    def __init__(self, collection: Collection) -> None:
        runs = collection.runs[collection.runs["status"] != "impossible"]
        self._found: dict[str, dict[str, set[str]]] = {}
        for column, _ in _COLUMNS:
            if column not in runs:  # collected before there was such a column
                continue
            for cell, value in zip(runs["cell"], runs[column], strict=True):
                if not pd.isna(value):
                    self._found.setdefault(column, {}).setdefault(cell, set()).add(str(value))

    def mixed(self, cells: Iterable[str]) -> str | None:
        """What differs between the runs of these cells, in a few words ("numerics 1, 2"); None if nothing does."""
        names = list(cells)
        for column, what in _COLUMNS:
            of = self._found.get(column, {})
            values = set().union(*(of.get(cell, set()) for cell in names))
            if len(values) > 1:
                return f"{what} {', '.join(sorted(values))}"
        return None
