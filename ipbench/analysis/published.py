"""Numbers that others published, each with its source, for the cells whose setting is the same (`published.csv`).

A value without a source does not enter the file. For interspace pruning itself, FreezeNet and COPS no accuracy could be
verified in a source, so there is none.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from ipbench.analysis.grid import LATER, Cell


@dataclass(frozen=True)
class Published:
    """A published test accuracy.

    Attributes:
        setting: axes that a cell must agree with, to the letter; pattern and budget are the usual ones if left out.
        recipe: values of the recipe that a cell must agree with; the others were not stated or do not matter.
        accuracy: a fraction.
        source: where it stands.
        options: of the method, those that differ from its defaults: exactly those of the cell.
    """

    setting: dict[str, str]
    recipe: dict[str, Any]
    accuracy: float
    source: str
    options: dict[str, Any] = field(default_factory=dict)

    def matches(self, cell: Cell) -> bool:
        """Whether the cell has the setting."""
        if cell.own != "{}":  # of a user's model, weights or data the names alone would be the same
            return False
        recipe = json.loads(cell.recipe)
        return (
            all(getattr(cell, axis) == value for axis, value in self.setting.items())
            and all(recipe.get(name) == value for name, value in self.recipe.items())
            and all(getattr(cell, axis) == usual for axis, usual in LATER.items() if axis not in self.setting)
            and json.loads(cell.options) == self.options
        )


@cache
def published() -> tuple[Published, ...]:
    """All of the file, in its order."""
    text = resources.files(__package__).joinpath("published.csv").read_text(encoding="utf-8")
    rows = []
    for row in csv.DictReader(text.splitlines()):
        recipe, options = (json.loads(row.pop(name) or "{}") for name in ("recipe", "options"))
        accuracy, source = float(row.pop("accuracy_percent")) / 100, row.pop("source")
        setting = {axis: value for axis, value in row.items() if value}
        rows.append(Published(setting, recipe, accuracy, source, options))
    return tuple(rows)


def find(cell: Cell | None) -> Published | None:
    """The published number of a cell's setting, if there is one."""
    return next((entry for entry in published() if cell is not None and entry.matches(cell)), None)
