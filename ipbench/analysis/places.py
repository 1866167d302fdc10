"""Where methods stand side by side: cells that differ in the method, its options and allocation alone (no pandas)."""

from __future__ import annotations

from ipbench.analysis.grid import Cell, Grid

#: What tells methods apart that stand side by side; in all other axes they agree.
_METHOD = ("id", "method", "family", "allocation", "options", "seeds", "pair", "code", "knob")


def place_of(cell: Cell, *without: str) -> tuple[object, ...]:
    """What all cells of a place have in common; some axes can be left out."""
    axes = (value for name, value in vars(cell).items() if name not in (*_METHOD, *without))
    return (*axes, f"{cell.knob}={cell.setting}")


def places(grid: Grid) -> list[list[Cell]]:
    """The cells that stand side by side: they differ in the method, its options and allocation alone.

    Dense references are left out, and so are places with one cell.
    """
    found: dict[tuple[object, ...], list[Cell]] = {}
    for cell in grid.cells:
        if not cell.dense:
            found.setdefault(place_of(cell), []).append(cell)
    return [cells for cells in found.values() if len(cells) > 1]
