"""What a plan says of a cell: every axis of its runs, its seeds, and what it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ipbench.methods import Method
from ipbench.spec import NO_CONTROL, Run, pair_of

#: The family of a method that this process does not know.
OF_A_USER = "of a user"


def cell_of(cell: str, run: Run, method: Method | None, seeds: Sequence[int], code: str | None) -> dict[str, Any]:
    """A cell as `grid.json` has it.

    Args:
        cell: its id, which takes longer to form than all that is said of it.
        run: one of its runs.
        method: theirs; None if this process does not know it.
        seeds: of all of them.
        code: digest of the code of a user's method; None of one that ipbench ships.
    """
    own = run.own.differences()
    unsaid = {"seed", "own"} | ({"control"} if run.control == NO_CONTROL else set())
    return {
        "id": cell,
        **run.model_dump(mode="json", exclude=unsaid),
        "family": method.family if method else OF_A_USER,
        "pair": pair_of(run),
        "seeds": list(seeds),
        **({"code": code} if code else {}),
        **({"own": own} if own else {}),
        **({"knob": method.knob} if method and method.by_knob(run.options) else {}),
    }
