"""What is left of gains under controls as plain text for a terminal: a block for each method and sparsity."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from ipbench.analysis.collect import Collection, load_both
from ipbench.analysis.comparisons import INCOMPLETE, Finding
from ipbench.analysis.figures import draw
from ipbench.analysis.flips import ALPHA, CLAIM_SEEDS
from ipbench.analysis.labels import Labels, labels, metric_name
from ipbench.analysis.panels import panel_title
from ipbench.analysis.plan import nets_with_controls, plan
from ipbench.analysis.reached import reached_by_knob
from ipbench.analysis.style import LABEL
from ipbench.analysis.survival import ORIGIN, Line, Side, Survival, survival
from ipbench.analysis.tables import write_table
from ipbench.analysis.tables.controlled import CLAIMED, sentences, survival_table, told, told_share
from ipbench.analysis.terminal import WIDTH
from ipbench.analysis.text import NOTHING
from ipbench.errors import BadInput
from ipbench.spec import NO_CONTROL, SPACES

_CONTROL, _SIDE = 16, 24


def write(results: Path) -> tuple[str, list[Path]]:
    """Write the table and the figures of controls of `results/runs.parquet`; returns them as text, and the files.

    Raises:
        BadInput: `runs.parquet` is missing, damaged or of another grid, or there are no controls.
    """
    whole, own = load_both(results)
    if not nets_with_controls(whole.grid):
        raise BadInput(
            f"{results}: no run of it is a control of another one; give the experiment `controls: [none, shuffle, ...]`"
        )
    found = survival(whole)
    names = replace(labels(own.grid), reached=reached_by_knob(own))
    files = write_table(results, survival_table(whole, names, found))
    drawn = draw(results, [file for file in plan(whole.grid) if file.figure == "survival"])
    return text(whole, found), [*files, *drawn]


def text(collection: Collection, found: Survival) -> str:
    """The controls of a collection, in lines of at most `WIDTH` characters but for long names."""
    own = collection.without_controls()
    names = replace(labels(own.grid), reached=reached_by_knob(own))
    metric = metric_name(collection.grid.cells)
    lines = textwrap.wrap(
        f"{collection.grid.title}: what is left of a gain over random pruning under controls; test {metric} in"
        " percentage points, [95 % interval], paired by seed", WIDTH,
    )  # fmt: skip
    for net, of_net in groupby(found.lines, lambda line: (line.row.any.dataset, line.row.any.model)):
        lines += ["", ", ".join(net)]
        waiting = []
        for line in of_net:
            if _begun(line):
                lines += ["", *_block(names, line)]
            else:
                waiting.append(_name(names, line))
        if waiting:
            lines += ["", *textwrap.wrap(f"Nothing to compare yet of: {'; '.join(waiting)}.", WIDTH)]
    gains, taken, apart = found.members
    notes = [
        f"{CLAIMED.strip()}: claimed, with 5 % error each over the gains ({gains}), what controls take ({taken}), the"
        f" differences of IP and SP ({apart}); p (max-T) of at most {ALPHA:g}, from {CLAIM_SEEDS} seeds on.",
        "%: the share of the gain that is left. docs/rules.md, Controls, says what each control is.",
    ]
    return "\n".join([*lines, "", *(part for note in notes for part in textwrap.wrap(note, WIDTH)), ""])


def _name(names: Labels, line: Line) -> str:
    """A method, what tells its variant from others, and the sparsity: 'snip, erk, 0.9'."""
    return f"{panel_title(names, line.row)}, {names.row(line.row, 'sparsity')}"


def _columns(line: Line, control: str) -> list[str]:
    """What a row tells of each space, and of IP - SP."""
    columns = [_side(line, space, control) for space in _spaces(line)]
    if line.apart:
        apart = line.apart.get(control)
        columns.append(" ".join(filter(None, (told(apart.difference), apart.verdict))) if apart else NOTHING)
    return columns


def _spaces(line: Line) -> list[str]:
    return [space for space in SPACES if space in line.sides]


def _waits(line: Line, control: str) -> bool:
    """Whether a row has no number yet in any space, and will have one."""
    found = [one for space in _spaces(line) if (one := _shown(line.sides[space], control))]
    numbers = any(one.comparison.n or one.mixed for one in found)
    return not numbers and any(one.state == INCOMPLETE for one in found)


def _begun(line: Line) -> bool:
    return not all(_waits(line, control) for control in (NO_CONTROL, *line.controls))


def _block(names: Labels, line: Line) -> Iterator[str]:
    yield _name(names, line)
    yield _row("", *(LABEL[space] for space in _spaces(line)), *(["IP − SP"] if line.apart else []))
    yield _row("over random", *_columns(line, NO_CONTROL))
    waiting = [control for control in line.controls if _waits(line, control)]
    for control in (name for name in line.controls if name not in waiting):
        yield _row(control, *_columns(line, control))
    if waiting:
        yield f"  not in yet: {', '.join(waiting)}"
    for head, sentence in sentences(line):
        yield from textwrap.wrap(f"{head}: {sentence}", WIDTH, initial_indent="  ", subsequent_indent="    ")


def _row(control: str, *columns: str) -> str:
    return "  ".join([f"  {control:<{_CONTROL}}", *(f"{column:<{_SIDE}}" for column in columns)]).rstrip()


def _shown(side: Side, control: str) -> Finding | None:
    """What of a space stands in a row; None where there is nothing."""
    if control == NO_CONTROL:
        return side.gain
    return side.extra if control == ORIGIN else side.left.get(control)


def _side(line: Line, space: str, control: str) -> str:
    side = line.sides[space]
    if control == ORIGIN:
        return f"dense {told(side.extra)}" if side.extra else NOTHING
    one = side.taken.get(control)
    if one and one.share and not one.share.none:
        return told_share(one.share) + (CLAIMED if one.claimed else "")
    return told(_shown(side, control))
