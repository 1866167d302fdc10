"""Whether runs may meet in one number: what they were made with must be the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

import pandas as pd

from ipbench.analysis.collect import Collection
from ipbench.analysis.grid import Cell
from ipbench.data import catalog
from ipbench.models.catalog import MODELS
from ipbench.planning.numerics import numerics

#: In place of a digest of a user's method that is not recorded, where that of another run is.
_UNKNOWN = "not recorded"


@dataclass(frozen=True)
class _Fact:
    """One thing that has to be the same.

    Attributes:
        column: of the runs; a value that is missing there, or a column, is held against nobody.
        plural: how to say it.
        group: of a cell: within a group of cells the values must agree; None where the thing does not matter.
        as_said: the part of a value that matters.
    """

    column: str
    plural: str
    group: Callable[[Cell], str | None] = lambda cell: ""
    as_said: Callable[[str], str] = lambda value: value


def _each(said: Callable[[str], str]) -> Callable[[str], str]:
    """The same for a run that continues one which was made by something else: "2.14.1 then 2.15.0"."""
    return lambda value: " then ".join(dict.fromkeys(map(said, value.split(" then "))))


#: A version without its build: 2.14.1 of 2.14.1+cpu.
_release = _each(lambda version: version.partition("+")[0])
#: The kind of a device, which a record names by the GPU's model.
_kind = _each(lambda device: device if device == "cpu" else "cuda")


def _decoded(cell: Cell) -> str | None:
    """Folders of images are decoded in every run."""
    facts = catalog.known(cell.dataset)
    if facts is None:
        return None
    return "" if facts.shorter_side is not None or (facts.own is not None and facts.own.kind == "images") else None


@lru_cache(maxsize=100_000)
def _numerics(cell: Cell) -> str:
    return str(numerics(cell.run(cell.seeds[0])))


FACTS = (
    _Fact("mode", "modes"),
    _Fact("provenance_numerics", "versions of the numerics", _numerics),
    _Fact("provenance_torch", "versions of torch", as_said=_release),
    _Fact("provenance_device", "kinds of device", as_said=_kind),
    _Fact("provenance_processes", "numbers of processes"),
    _Fact("provenance_data", "sets of images", lambda cell: cell.dataset, lambda value: value[:12]),
    _Fact("provenance_method", "versions of a method's code", lambda cell: cell.method, lambda value: value[:12]),
    # What decides a number for some cells alone: their models, their linear programs, their decoders.
    _Fact(
        "provenance_torchvision", "versions of torchvision", lambda cell: None if cell.model in MODELS else "", _release
    ),
    _Fact("provenance_timm", "versions of timm"),
    _Fact("provenance_scipy", "versions of scipy", lambda cell: "" if cell.method == "cops" else None),
    _Fact("provenance_pillow", "versions of Pillow", _decoded),
)


class Settings:
    """What the runs of a collection were made with.

    Only runs that are done or diverged count: the others hold no number.
    """

    def __init__(self, collection: Collection) -> None:
        runs = collection.runs[collection.runs["status"].isin(["done", "diverged"])]
        cells = {cell.id: cell for cell in collection.grid.cells}
        there = [cells[name] for name in dict.fromkeys(runs["cell"])]
        self._found: dict[str, dict[tuple[_Fact, str], set[str]]] = {}
        for fact in (fact for fact in FACTS if fact.column in runs):
            groups = {cell.id: fact.group(cell) for cell in there}
            for name, value in zip(runs["cell"], runs[fact.column], strict=True):
                group = groups[name]
                if group is None:
                    continue
                if not pd.isna(value):
                    said = fact.as_said(str(value))
                elif fact.column == "provenance_method":
                    said = _UNKNOWN  # of a built-in method: the same for all of its runs
                else:
                    continue
                self._found.setdefault(name, {}).setdefault((fact, group), set()).add(said)

    def mixed(self, cells: Iterable[str]) -> str | None:
        """What differs between the runs of some cells.

        Args:
            cells: ids of cells whose runs are to meet in one mean or comparison.

        Returns:
            A short text, such as "2 versions of torch (2.14.1, 2.15.0)"; None if they may meet.
        """
        found: dict[tuple[_Fact, str], set[str]] = {}
        for cell in cells:
            for key, values in self._found.get(cell, {}).items():
                found.setdefault(key, set()).update(values)
        texts = [
            f"{len(values)} {fact.plural} ({', '.join(sorted(values))})"
            for (fact, _), values in sorted(found.items(), key=lambda item: (FACTS.index(item[0][0]), item[0][1]))
            if len(values) > 1
        ]
        return "; ".join(texts) or None
