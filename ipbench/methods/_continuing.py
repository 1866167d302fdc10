"""Runs that continue other runs: which one, and whether there is one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ipbench.errors import BadInput, valid_choice
from ipbench.methods._stages import Continue
from ipbench.spec import Run

if TYPE_CHECKING:
    from ipbench.methods._method import Method

#: Runs that one may continue, one after the other: lottery tickets of the smallest rate have some hundreds of levels.
_MOST = 1000


def parent_of(method: Method, run: Run, known: Mapping[str, Method], where: str = "") -> Run | None:
    """The run of whose end a run is a continuation; None if it starts from initial values.

    Args:
        method: of the run.
        run: which.
        known: all methods by name.
        where: where the user wrote it, for the message.

    Raises:
        BadInput: it continues a method that there is none of, that has no such options or sparsity, or whose code its
            record would not tell.
    """
    first = method.stages_of(run)[0]
    if not isinstance(first, Continue):
        return None
    if first.of == "dense" and not first.options:
        return first.parent(run)
    who = f"{where}: method {method.name}" if where else f"method {method.name}"
    other = known[valid_choice(first.of, known, "method", f"{who}: Continue")]
    shipped = Path(other.file).resolve().parent == Path(__file__).resolve().parent
    if not shipped and Path(other.file).resolve() != Path(method.file).resolve():
        raise BadInput(
            f"{who}: continues {other.name} of another file, {other.file}, whose code its records would not tell; it"
            " continues methods of its own file, or those that ipbench ships"
        )
    if first.sparsity != "0" and not other.prunes:
        raise BadInput(f"{who}: continues {other.name} at a sparsity of {first.sparsity}, which does not prune")
    return first.parent(run, other.check_options(first.options, f"{who}: Continue"))


def line_of(method: Method, run: Run, known: Mapping[str, Method], where: str = "") -> Iterator[Run]:
    """The runs that a run continues, the nearest first.

    Raises:
        BadInput: one of them comes again, or there is no end of them in sight; or as `parent_of` says.
    """
    seen, current = {run.id}, run
    while (parent := parent_of(known.get(current.method, method), current, known, where)) is not None:
        if parent.id in seen or len(seen) > _MOST:
            place = f"{where}: method {method.name}" if where else f"method {method.name}"
            raise BadInput(
                f"{place}: has no beginning: a run at sparsity {current.sparsity} continues one of {parent.method} at"
                f" {parent.sparsity}, and that continues others without end"
            )
        yield parent
        seen.add(parent.id)
        current = parent


def check_line(method: Method, run: Run, known: Mapping[str, Method], where: str) -> None:
    """Whether the runs that a run continues can be trained.

    Raises:
        BadInput: they cannot, or have no beginning.
    """
    first = method.stages_of(run)[0]
    if not isinstance(first, Continue) or (first.of == "dense" and not first.options):
        return
    for before in list(line_of(method, run, known, where)):
        if before.method != method.name:
            known[before.method].check_run(before, f"{where}: method {method.name}: Continue")
            return
