"""Forest plots of IP - SP: a row per method and one for the whole grid; of one experiment, or of several."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ipbench.analysis import style
from ipbench.analysis.collect import load
from ipbench.analysis.comparisons import Finding, Method, method_of, pair_name
from ipbench.analysis.figures.edge import lost_pairs
from ipbench.analysis.figures.layout import empty, label, page, ticks
from ipbench.analysis.figures.marks import difference_axis, difference_handles, interval, marker, verdict_fill
from ipbench.analysis.figures.scene import Scene, title
from ipbench.analysis.grid import Row
from ipbench.analysis.plan import FIGURE_FORMATS, FigureFile
from ipbench.analysis.text import points, with_interval

#: Inches: of a row, of a character of a name and of a number, of a digit's column on the right.
_ROW, _CHARACTER, _NUMBERS = 0.2, 0.062, 1.75
_NOTE = (
    "Large: mean paired difference of a method over its comparisons, or of the grid over all, with 95 % interval by"
    " inversion of the sign-flip test, over seeds, not test images; small: single comparisons (sparsities, variants)."
    " Filled: claimed, at one level of 5 % for all of a grid. Right: mean, interval and number of seeds."
)
WHOLE = "whole grid"


@dataclass(frozen=True)
class Line:
    """A row of a forest plot.

    Attributes:
        name: what stands on its left.
        average: the large diamond; None where no average is formed, or of a heading.
        singles: the small ones.
        heading: whether it is only a name.
        method: whose row it is; None of the whole grid.
    """

    name: str
    average: Finding | None = None
    singles: tuple[Finding, ...] = ()
    heading: bool = False
    method: Method | None = None


def lines_of(scene: Scene, net: tuple[str, str] | None = None) -> list[Line]:
    """The rows of an experiment: the whole grid, then its methods in order; of one net, or of all, then named."""
    analysis, of = scene.analysis, {pair_name(row): method_of(row) for row in _rows(scene)}
    keys = [key for key in (*analysis.methods, *analysis.not_averaged) if net in (None, key[:2])]
    found = [Line(WHOLE, analysis.overall)] if analysis.overall and keys else []
    for key in keys:
        average = analysis.methods.get(key)
        singles = [one for name, one in analysis.pairs.items() if of.get(name) == key and one.comparison.n]
        found.append(Line(_name(key, keys), average, tuple(singles), method=key))
    return found


def _name(key: Method, keys: Sequence[Method]) -> str:
    """A method, and what tells it from other rows: data set, model, pattern and budget, where there are several."""
    dataset, model, method, *structure = key
    nets = [text for place, text in enumerate((dataset, model)) if len({other[place] for other in keys}) > 1]
    several = len({other[3:] for other in keys}) > 1
    return ", ".join([method, *nets, *(structure if several else [])])


def forest(scene: Scene, file: FigureFile) -> Figure:
    """IP - SP of every method of a net, and over the grid: means with intervals, filled where claimed."""
    rows = _rows(scene, (file.dataset, file.model))
    return _figure(
        lines_of(scene, (file.dataset, file.model)),
        title(file),
        scene.note((side for row in rows for side in (row.sp, row.ip) if side), lost_pairs(scene, _NOTE, rows), rows),
        scene.collection.grid.margin,
    )


def across(folders: Iterable[Path], stem: Path) -> list[Path]:
    """Draw one forest plot over several experiments, each a family of claims of its own.

    Args:
        folders: with `runs.parquet` each.
        stem: of the files: `STEM.svg` and `STEM.pdf`.

    Returns:
        The files.

    Raises:
        BadInput: a `runs.parquet` is missing, damaged or of another grid.
    """
    lines: list[Line] = []
    without, margins, lost = [], set(), []
    for folder in folders:
        scene = Scene(load(folder))
        grid = scene.collection.grid
        own = lines_of(scene)
        if not own:
            without.append(grid.name)
            continue
        margins.add(grid.margin)
        rows = _rows(scene)
        ended = [scene.counts[side.id] for row in rows for side in (row.sp, row.ip) if side]
        done, planned = sum(count.done for count in ended), sum(count.planned for count in ended)
        lines += [Line(f"{grid.name}: {done} of {planned} runs", heading=True), *own]
        lost += [f"{grid.name}: {number}" for number in [sum(count.lost for count in ended)] if number]
    note = f"{_NOTE} Each grid is one family."
    note += f" Lost runs (collapsed, at chance or diverged), which count like all others: {', '.join(lost)}." * bool(
        lost
    )
    note += f" Without SP/IP comparisons: {', '.join(without)}." * bool(without)
    paths = [stem.with_name(f"{stem.name}.{suffix}") for suffix in FIGURE_FORMATS]
    with style.styled():
        drawn = _figure(lines, "IP against SP, all grids", note, min(margins, default=0.5))
        for path in paths:
            style.save(drawn, path)
    return paths


def _rows(scene: Scene, net: tuple[str, str] | None = None) -> list[Row]:
    """The comparisons of the grid, of one net or of all."""
    rows = [row for row in scene.collection.grid.rows() if row.compared]
    return [row for row in rows if net in (None, (row.any.dataset, row.any.model))]


def _figure(lines: Sequence[Line], heading: str, note: str, margin: float) -> Figure:
    names = [textwrap.shorten(line.name, 44, placeholder="…") for line in lines]
    widest = max([10, *(len(name) for name, line in zip(names, lines, strict=True) if not line.heading)])
    numbers = max([0, *(len(_numbers(line)) for line in lines if not line.heading)])
    sheet = page(
        [1], [""], note, height=_ROW * (len(lines) + 0.4), left=0.2 + _CHARACTER * widest,
        right=max(_NUMBERS, _CHARACTER * numbers), legend_rows=2,
    )  # fmt: skip
    (axes,) = sheet.panels
    drawn = [_line(axes, at, line) for at, line in enumerate(lines)]
    axes.set_ylim(len(lines) - 0.4, -0.7)  # the first on top
    axes.set_yticks(range(len(lines)), ["" if line.heading else name for name, line in zip(names, lines, strict=True)])
    axes.tick_params(axis="y", length=0)
    for text, line in zip(axes.get_yticklabels(), lines, strict=True):
        text.set_fontweight("bold" if line.name == WHOLE else "normal")
    for at, (name, line) in enumerate(zip(names, lines, strict=True)):
        if line.heading:
            axes.annotate(
                name, (0, at + 0.1), xycoords=axes.get_yaxis_transform(), xytext=(-72 * _CHARACTER * widest, 0),
                textcoords="offset points", va="center", weight="bold", size=style.FONT,
            )  # fmt: skip
    if not any(drawn):
        axes.set_xlim(-1, 1)
        empty(axes, "no finished comparisons")
    else:
        axes.margins(x=0.06)
        axes.autoscale_view(scaley=False)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    more = difference_axis(sheet, "x", margin)
    ticks(sheet)
    handles: list[Artist] = [*difference_handles(margin)]
    handles.insert(3, marker("single comparison", style.DIFFERENCE_COLOUR, "D", "white"))
    handles[3].set(markersize=2.4, linestyle="none")
    label(sheet, heading, f"IP − SP (points{f'; {more}' if more else ''})", "", handles, legend_columns=3)
    return sheet.figure


def _line(axes: Axes, at: int, line: Line) -> bool:
    """Draw one row; says whether there was anything to draw."""
    colour = style.DIFFERENCE_COLOUR
    look = {"markersize": 2.4, "markeredgewidth": 0.5, "linestyle": "none", "zorder": 4}
    for single in line.singles:
        mean = 100 * single.comparison.mean
        axes.plot(mean, at + 0.26, marker="D", color=colour, markerfacecolor=verdict_fill(single), **look)  # type: ignore[arg-type]
    if line.heading:
        return False
    found = line.average
    if found and found.comparison.n:
        shown, whole = found.comparison, line.name == WHOLE
        mean, bar = 100 * shown.mean, shown.interval
        interval(axes, at, mean, 100 * bar.lower, 100 * bar.upper, colour, along="x")
        axes.plot(
            mean, at, marker="D", color=colour, markerfacecolor=verdict_fill(found), markersize=6.5 if whole else 5,
            zorder=5,
        )  # fmt: skip
    axes.annotate(
        _numbers(line), (1.03, at), xycoords=axes.get_yaxis_transform(), va="center", size=style.FONT_SMALL,
        color=style.GREY,
    )  # fmt: skip
    return bool(line.singles) or bool(found and found.comparison.n)


def _numbers(line: Line) -> str:
    """What stands on the right of a row: its average, or why there is none."""
    found = line.average
    if found is None:
        return "no average: options or FBs vary"
    shown, bar = found.comparison, found.comparison.interval
    if not shown.n:
        return found.state or "no complete comparison"
    numbers = with_interval(points(shown.mean), points(bar.lower), points(bar.upper))
    return f"{numbers}, n = {shown.n}" + (f", {found.state}" if found.state else "")
