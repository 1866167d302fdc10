"""What the numbers called p are shares of: of the parameters (the sparsity), or of what another budget counts."""

from __future__ import annotations

from collections.abc import Iterable

from ipbench.analysis.grid import Cell

#: What is removed, by budget.
SHARES_OF = {"parameters": "parameters", "macs": "MACs", "channels": "units"}
_SPARSITY = "sparsity p"


def share_name(cells: Iterable[Cell]) -> str:
    """The name of an axis on which these cells stand; dense ones have no share."""
    budgets = budgets_of(cells)
    if budgets in ([], ["parameters"]):
        return _SPARSITY
    *first, last = (SHARES_OF[budget] for budget in budgets)
    return f"removed share p of {' or '.join([', '.join(first), last] if first else [last])}"


def budgets_of(cells: Iterable[Cell]) -> list[str]:
    """The budgets of these cells, in a fixed order; dense ones have none."""
    found = {cell.budget for cell in cells if not cell.dense}
    return [budget for budget in SHARES_OF if budget in found]


def share_heading(cells: Iterable[Cell]) -> str:
    """The name of a column in which the shares of these cells stand."""
    return _SPARSITY if share_name(cells) == _SPARSITY else "removed share p"
