"""Which cells share a panel of a figure: one method, one variant, both spaces, all sparsities or values of its knob."""

from __future__ import annotations

from dataclasses import dataclass

from ipbench.analysis.grid import Cell, Grid, Row
from ipbench.analysis.labels import VARIANTS, Labels, labels


@dataclass(frozen=True)
class Panel:
    """One method (and variant, if an experiment varies more than method, space, sparsity and seed) on one net.

    Attributes:
        method: its name.
        title: the method and what tells the variant from others, e.g. "snip, frozen".
        rows: by sparsity, growing, or as planned by the value of the method's knob: the SP and the IP cell.
        dense: the dense references, by space; a space without one is absent.
    """

    method: str
    title: str
    rows: tuple[Row, ...]
    dense: dict[str, Cell]

    def side(self, space: str) -> list[Cell]:
        """The cells of one space, in the order of the rows."""
        return [cell for cell in (row.sp if space == "sp" else row.ip for row in self.rows) if cell is not None]

    @property
    def sparsities(self) -> list[str]:
        """The sparsities as written, growing; none where a knob stands in their place."""
        return [row.any.sparsity for row in self.rows if not row.any.knob]


def panels(grid: Grid, dataset: str, model: str) -> list[Panel]:
    """The panels of one net, in the order of the grid; the dense nets are a panel only where there is nothing else."""
    names = labels(grid)
    rows = [row for row in grid.rows() if (row.any.dataset, row.any.model) == (dataset, model)]
    references = [row for row in rows if row.any.dense]
    grouped: dict[tuple[str, ...], list[Row]] = {}
    for row in [row for row in rows if not row.any.dense] or references:
        cell = row.any
        # A filter basis belongs to the IP side; an SP cell without a partner is a group of its own only then.
        basis = row.ip.basis if row.ip else ""
        variant = (cell.recipe, cell.off, cell.allocation, *cell.structure, cell.others, cell.knob, cell.mode)
        key = (cell.method, *variant, basis)
        grouped.setdefault(key, []).append(row)
    return [
        Panel(
            group[0].any.method,
            panel_title(names, group[0]),
            tuple(sorted(group, key=lambda row: float(row.any.sparsity))),
            _dense(references, group[0]),
        )
        for group in _merge(grouped)
    ]


def ablations(grid: Grid, dataset: str, model: str) -> list[list[Row]]:
    """The SP cells of one net that several filter bases are compared with: the rows of each."""
    groups: dict[str, list[Row]] = {}
    for row in grid.rows():
        if row.compared and row.sp is not None and (row.sp.dataset, row.sp.model) == (dataset, model):
            groups.setdefault(row.sp.id, []).append(row)
    return [group for group in groups.values() if len(group) > 1]


def _merge(grouped: dict[tuple[str, ...], list[Row]]) -> list[list[Row]]:
    """Put rows without an IP side (a partner not planned) into the first panel of the same method and variant."""
    merged: dict[tuple[str, ...], list[Row]] = {key: list(rows) for key, rows in grouped.items() if key[-1]}
    for key, rows in grouped.items():
        if not key[-1]:
            home = next((other for other in merged if other[:-1] == key[:-1]), key)
            merged.setdefault(home, []).extend(rows)
    order = list(dict.fromkeys(key[:-1] for key in grouped))
    return [merged[key] for key in sorted(merged, key=lambda key: order.index(key[:-1]))]


def panel_title(names: Labels, row: Row, own: bool = False) -> str:
    """The method of a row, and what tells its variant from the others that `names` knows; `own`: of this method."""
    cell = row.ip or row.any
    variant = names.variant(cell, names.axes_within(cell.method) if own else VARIANTS)
    return f"{row.any.method}, {variant}" if variant else row.any.method


def _dense(references: list[Row], row: Row) -> dict[str, Cell]:
    """The dense net of each space that a panel is measured against: of its recipe and filter basis, or the only one."""
    dense = {}
    for space in ("sp", "ip"):
        sides = (reference.sp if space == "sp" else reference.ip for reference in references)
        found = {side.id: side for side in sides if side is not None}
        same = {name: side for name, side in found.items() if side.recipe == row.any.recipe} or found
        if space == "ip" and row.ip is not None:
            basis = row.ip.basis
            same = {name: side for name, side in same.items() if side.basis == basis} or same
        if len(same) == 1:
            (dense[space],) = same.values()
    return dense
