"""The table of controls: what each leaves of a method's gain over random pruning, and of IP - SP."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pandas as pd

from ipbench.analysis.collect import Collection
from ipbench.analysis.comparisons import INCOMPLETE, Finding
from ipbench.analysis.flips import ALPHA, CLAIM_SEEDS
from ipbench.analysis.labels import Labels, guess_text, metric_name
from ipbench.analysis.render import Table
from ipbench.analysis.style import LABEL
from ipbench.analysis.survival import ORIGIN, Line, Side, Survival
from ipbench.analysis.tables.parts import DIFFERENCES, axes, column_names, common_notes, raw_axes, table
from ipbench.analysis.text import NOTHING
from ipbench.analysis.verdicts import Share, told_points
from ipbench.spec import NO_CONTROL, SPACES

#: Behind a number that is claimed not to be zero.
CLAIMED = " *"
#: How columns of the CSV begin that are none of the axes, in their order.
_STARTS = ("sp_", "ip_", "difference_")
_OVER, _TAKEN, _LEFT, _IN = "over random", "taken", "left", "gain is in"


def survival_table(collection: Collection, names: Labels, found: Survival) -> Table:
    """A row for a method's own runs, and one for each of their controls; of both spaces, and IP - SP.

    Args:
        collection: with its controls.
        names: of the cells without controls.
        found: what they tell.
    """
    spaces = [space for space in SPACES if any(space in line.sides for line in found.lines)]
    data: list[dict[str, Any]] = []
    printed: list[dict[str, str]] = []
    for line in found.lines:
        for control in (NO_CONTROL, *line.controls):
            raw, texts = raw_axes(line.row) | {"control": control}, axes(names, line.row) | {"control": control}
            for space in spaces:
                raw |= {f"{space}_{name}": value for name, value in _raw(line.sides.get(space), control).items()}
                side = _texts(line.sides.get(space), control)
                texts |= {f"{LABEL[space]} {name}": text for name, text in side.items()}
            if len(spaces) > 1:
                raw |= _raw_apart(line, control)
                texts |= _texts_apart(line, control)
            data.append(raw)
            printed.append(texts | {"n": _seeds(line, control)})
    columns = [*column_names(names), "control"]
    columns += [f"{LABEL[space]} {name}" for space in spaces for name in (_OVER, _TAKEN, _LEFT, _IN)]
    columns += ["IP − SP", "IP − SP taken", "IP − SP: what of it"] if len(spaces) > 1 else []
    notes = (*_notes(collection, found), *common_notes(collection, names))
    title = "what is left of a gain under controls"
    made = table(collection, "survival", title, data, printed, notes, [*columns, "n"])
    return replace(made, data=_ordered(made.data))


def _ordered(raw: pd.DataFrame) -> pd.DataFrame:
    """Axes, SP, IP, IP - SP; numbers of seeds are whole, also where some rows have none."""
    order = [next((rank for rank, start in enumerate(_STARTS, 1) if name.startswith(start)), 0) for name in raw.columns]
    columns = [name for _, name in sorted(zip(order, raw.columns, strict=True), key=lambda pair: pair[0])]
    return raw[columns].astype({name: "Int64" for name in columns if name.endswith(("_n", "_planned", "_diverged"))})


def _notes(collection: Collection, found: Survival) -> list[str]:
    gains, taken, apart = found.members
    notes = [
        f"Test {metric_name(collection.grid.cells)} after the last epoch, in percentage points, paired by seed over the"
        " seeds that all runs behind a number have. over random: a method, or its control, less random pruning at equal"
        " budget, trained as it is by itself. taken: the method less its control. left: the share of the gain that the"
        " control has, where the interval of the gain is above zero; none where that of the share is below. Row origin:"
        " what the additional training gives the dense net, and beside it the method less the dense net.",
        DIFFERENCES,
        "Interval of a share: 95 %, all ratios of the two means that the sign-flip test does not reject (Fieller's, by"
        " flips of sign).",
        f"*: claimed, with a p (max-T) of at most {ALPHA:g}, for which at least {CLAIM_SEEDS} seeds are needed. Three"
        f" families, each with one level of 5 %: gains ({gains}), what controls take ({taken}), IP − SP under controls"
        f" ({apart}). How much is left, in a share, is the interval of each row for itself.",
        "gain is in: see docs/rules.md, Controls; survival.csv has a sentence for each.",
    ]
    sides = [side for line in found.lines for side in line.sides.values()]
    remarks: dict[str, list[str]] = {}
    for side in sides:
        if side.beside.remark:
            remarks.setdefault(side.beside.remark, []).append(side.beside.cell.method)
    notes += [f"Baseline of {', '.join(dict.fromkeys(of))}: {remark}." for remark, of in remarks.items()]
    if any(one.state == INCOMPLETE for side in sides for one in _all(side)):
        notes.append("incomplete: planned runs are not in yet. There is no claim before they are.")
    if any(one.diverged for side in sides for one in _all(side)):
        guess = guess_text(collection.grid.cells)
        notes.append(f"A diverged run counts as {guess}; survival.csv has the numbers without its seed.")
    if found.alone:
        of = ", ".join(dict.fromkeys(f"{cell.control} of {cell.method}" for cell in found.alone))
        notes.append(f"Left out, for the method's own runs are not planned beside them: {of}.")
    return notes


def _all(side: Side) -> list[Finding]:
    found = [*side.left.values(), *(one.loss for one in side.taken.values())]
    return [one for one in (side.gain, side.extra, *found) if one]


def _numbers(name: str, found: Finding | None) -> dict[str, Any]:
    """The numbers of a difference as columns, in points."""
    if found is None:
        return {}
    shown, rest = found.comparison, found.complete_case
    ends = {"lower": shown.interval.lower, "upper": shown.interval.upper}
    ends |= {"lower90": shown.narrow.lower, "upper90": shown.narrow.upper}
    raw: dict[str, Any] = {f"{name}_n": shown.n, f"{name}_planned": found.planned, f"{name}_diverged": found.diverged}
    raw |= {f"{name}_pp": 100 * shown.mean} | {f"{name}_{end}_pp": 100 * value for end, value in ends.items()}
    raw |= {f"{name}_p": shown.p, f"{name}_p_adjusted": found.p_adjusted, f"{name}_claim": bool(found.claim)}
    raw |= {f"{name}_state": found.state, f"{name}_mixed": found.mixed}
    return raw | {f"{name}_complete_n": rest.n, f"{name}_complete_pp": 100 * rest.mean}


def _raw(side: Side | None, control: str) -> dict[str, Any]:
    """The columns of one space of a row."""
    if side is None or (control != NO_CONTROL and control not in side.beside.controls):
        return {}
    one = side.beside
    cell = one.controls.get(control, one.cell)
    raw: dict[str, Any] = {"cell": cell.id, "baseline": one.baseline.id if one.baseline else "", "remark": one.remark}
    if control == NO_CONTROL:
        said = {"gain_is_in": side.verdict.short, "sentence": side.verdict.sentence}
        return raw | _numbers("over_random", side.gain) | _numbers("over_dense", side.over_dense) | said
    if control == ORIGIN:
        return raw | _numbers("over_dense", side.extra)
    share = side.taken[control].share
    ends = (share.ratio, share.interval.lower, share.interval.upper) if share else (math.nan,) * 3
    left = dict(zip(("left_percent", "left_lower_percent", "left_upper_percent"), (100 * x for x in ends), strict=True))
    return raw | _numbers("over_random", side.left.get(control)) | _numbers("taken", side.taken[control].loss) | left


def _raw_apart(line: Line, control: str) -> dict[str, Any]:
    apart = line.apart.get(control)
    if apart is None:
        return {}
    raw = _numbers("difference", apart.difference) | _numbers("difference_taken", apart.taken)
    return raw | {"difference_verdict": apart.verdict}


def told(found: Finding | None) -> str:
    """A difference for a reader: with its interval, marked where it is claimed; or why there is none."""
    if found is None:
        return NOTHING
    if found.mixed:
        return f"not formed: {found.mixed}"
    if not found.comparison.n:
        return found.state or NOTHING
    state = f" ({found.state})" if found.state else ""
    return told_points(found.comparison) + (CLAIMED if found.claim and not found.state else "") + state


def told_share(share: Share | None) -> str:
    """A share for a reader; how far behind random pruning something is, no share tells."""
    if share is None:
        return NOTHING
    return "none" if share.none else str(share)


def sentences(line: Line) -> Iterator[tuple[str, str]]:
    """What is said of a line: of each space, and of IP - SP."""
    for space, side in line.sides.items():
        yield LABEL[space], side.verdict.sentence
    if line.apart:
        by: dict[str, list[str]] = {}
        for name, one in line.apart.items():
            if name != NO_CONTROL:
                by.setdefault(one.verdict, []).append(name)
        own = told_points(line.apart[NO_CONTROL].difference.comparison)
        yield "IP − SP", "; ".join([f"{own} points", *(f"{said}: {', '.join(of)}" for said, of in by.items())]) + "."


def verdicts_table(names: Labels, found: Survival) -> Table:
    """A sentence for every method, sparsity and space, and one for IP - SP."""
    rows = [(line, of, said) for line in found.lines for of, said in sentences(line)]
    data = [raw_axes(line.row) | {"of": of, "sentence": said} for line, of, said in rows]
    printed = [axes(names, line.row) | {"of": of, "what controls tell": said} for line, of, said in rows]
    notes = ("What the words mean, and by which rules they are said: docs/rules.md, Controls.",)
    return Table("verdicts", "In what gains are, by their controls", pd.DataFrame(data), pd.DataFrame(printed), notes)


def _texts(side: Side | None, control: str) -> dict[str, str]:
    texts = dict.fromkeys((_OVER, _TAKEN, _LEFT, _IN), NOTHING)
    if side is None or (control != NO_CONTROL and control not in side.beside.controls):
        return texts
    if control == NO_CONTROL:
        return texts | {_OVER: told(side.gain), _IN: side.verdict.short}
    if control == ORIGIN:
        return texts | {_OVER: f"dense net {told(side.extra)}", _TAKEN: f"method {told(side.over_dense)}"}
    one = side.taken[control]
    return texts | {_OVER: told(side.left.get(control)), _TAKEN: told(one.loss), _LEFT: told_share(one.share)}


def _texts_apart(line: Line, control: str) -> dict[str, str]:
    apart = line.apart.get(control)
    if apart is None:
        return dict.fromkeys(("IP − SP", "IP − SP taken", "IP − SP: what of it"), NOTHING)
    return {
        "IP − SP": told(apart.difference), "IP − SP taken": told(apart.taken),
        "IP − SP: what of it": apart.verdict or NOTHING,
    }  # fmt: skip


def _seeds(line: Line, control: str) -> str:
    """How many seeds are behind the numbers of a row: '6', or '4 of 6'; of the spaces if they differ."""
    found = []
    for side in line.sides.values():
        one: Finding | None = side.gain or side.over_dense
        if control == ORIGIN:
            one = side.extra
        elif control != NO_CONTROL:
            one = side.taken[control].loss if control in side.taken else None
        if one:
            n = one.comparison.n
            found.append(str(n) if n == one.planned else f"{n} of {one.planned}")
    return ", ".join(dict.fromkeys(found)) or NOTHING
