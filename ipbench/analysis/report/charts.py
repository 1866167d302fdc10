"""The charts of a page as Vega-Lite, checked by Altair; the page puts in rows, sizes and colours.

Names of layers and data are given here, none are counted up by Altair: a page does not depend on what was made before.
"""

from __future__ import annotations

from typing import Any

import altair as alt

from ipbench.analysis.report.contents import Contents, Values

#: The name of the rows in a specification.
DATA = "rows"
#: A cross, as a path.
_CROSS = "M-1,-1L1,1M1,-1L-1,1"
#: From this range of differences on, in points, their axis is logarithmic beyond one point (as in the figures).
_WIDE = 8


def forest(contents: Contents) -> dict[str, Any]:
    """IP - SP: a row per method and one over the grid, with single comparisons below the means."""
    ends = [one[key] for one in contents.differences for key in ("mean", "lower", "upper") if one.get(key) is not None]
    wide = bool(ends) and max(ends) - min(ends) > _WIDE
    scale = alt.Scale(type="symlog", constant=1, nice=True) if wide else alt.Scale(nice=True)
    name = "← SP better · IP − SP in points · IP better →"
    x = alt.X("mean:Q", scale=scale, title=name, axis=alt.Axis(grid=False, tickCount=7))
    y = alt.Y("name:N", sort=None, title=None, axis=alt.Axis(grid=False, labelLimit=230, ticks=False, domain=False))
    fill = alt.Fill("fill:N", scale=alt.Scale(domain=["claim", "within", "undecided"]), title=None)
    average, single = "datum.kind == 'average' && isValid(datum.mean)", "datum.kind == 'single'"
    base = alt.Chart(alt.NamedData(name=DATA))
    tooltip = _tooltips(
        what="comparison", difference="IP − SP (points)", interval="95 % interval", n="pairs of seeds", p="p",
        adjusted="p (max-T)", verdict="verdict", comparisons="comparisons", state="runs", runs="records",
    )  # fmt: skip
    zero = alt.Chart(alt.Data(values=[{"at": 0}])).mark_rule(strokeWidth=1).encode(x="at:Q")
    margins = [{"at": -contents.margin}, {"at": contents.margin}]
    dotted = alt.Chart(alt.Data(values=margins)).mark_rule(strokeDash=[2, 3], opacity=0.6).encode(x="at:Q")
    bars = (
        base.transform_filter(average)
        .mark_rule(strokeWidth=1.5)
        .encode(x=alt.X("lower:Q", title=name), x2="upper:Q", y=y)
    )
    small = base.transform_filter(single).mark_point(shape="diamond", size=22, strokeWidth=0.8, yOffset=7, opacity=1)
    large = base.transform_filter(average).mark_point(shape="diamond", size=120, strokeWidth=1.3, opacity=1)
    numbers = base.transform_filter("datum.kind != 'single'").mark_text(align="left", dx=8, fontSize=11)
    rows = numbers.encode(x=alt.value("width"), y=y, text="text:N").properties(name="numbers")
    chart = alt.layer(
        zero, dotted, bars, small.encode(x=x, y=y, fill=fill, tooltip=tooltip),
        large.encode(x=x, y=y, fill=fill, tooltip=tooltip), rows,
    )  # fmt: skip
    return _plain(chart.properties(height=alt.Step(26)))


def accuracy(contents: Contents) -> dict[str, Any]:
    """Accuracy against sparsity: a panel per space, a line per method; what is far below stands at the edge."""
    label = "1 - pow(10, -datum.value) == 0 ? '0' : format(1 - pow(10, -datum.value), '.6~f')"
    axis = alt.Axis(labelExpr=label, grid=False, labelOverlap="greedy", values=[])
    measure = f"test {contents.metric} (%)"
    x = alt.X("x:Q", title=contents.x, axis=axis, scale=alt.Scale(zero=False, padding=14, nice=False))
    y = alt.Y("y:Q", title=measure, scale=alt.Scale(zero=False, padding=10, nice=False))
    edge, top = alt.Y(value="height"), alt.Y(value=0)
    colour = alt.Color("label:N", title=None, sort=None)
    shape = alt.Shape("label:N", title=None, sort=None)
    cells, below = "datum.kind == 'cell' && isValid(datum.y)", "datum.kind == 'cell' && datum.edge"
    cross = "datum.kind == 'cell' && datum.lost && !datum.edge"
    base = alt.Chart(alt.NamedData(name=DATA))
    tooltip = _tooltips(
        label="method", space="space", level="share", mean=f"mean test {contents.metric} (%)", interval="95 % interval",
        n="seeds", state="runs", runs="records",
    )  # fmt: skip
    dense = base.transform_filter("datum.kind == 'dense' && isValid(datum.y)")
    missing = base.transform_filter("datum.kind == 'nothing' && isValid(datum.x)")
    at_edge = base.transform_filter(below)
    chart = alt.layer(
        dense.mark_rule(strokeDash=[5, 4], strokeWidth=1.3).encode(y=y, tooltip=tooltip),
        base.transform_filter(cells).mark_line(strokeWidth=1.4).encode(x=x, y=y, color=colour),
        base.transform_filter(cells).mark_rule(strokeWidth=1.2).encode(
            x=x, y=alt.Y("lower:Q", title=measure), y2="upper:Q", color=colour),
        base.transform_filter(cells).mark_point(filled=True, size=48, opacity=1).encode(
            x=x, y=y, color=colour, shape=shape, tooltip=tooltip),
        base.transform_filter(cross).mark_point(shape=_CROSS, size=90, strokeWidth=1.6, filled=False, opacity=1).encode(
            x=x, y=y, tooltip=tooltip),
        at_edge.transform_filter("datum.lost").mark_point(
            shape=_CROSS, size=50, strokeWidth=2, filled=False, opacity=1).encode(
            x=x, y=edge, color=colour, tooltip=tooltip),
        at_edge.transform_filter("!datum.lost").mark_point(
            shape="triangle-down", size=50, filled=True, opacity=1).encode(
            x=x, y=edge, color=colour, tooltip=tooltip),
        at_edge.mark_text(align="left", angle=270, dx=8, fontSize=9).encode(x=x, y=edge, text="mean:N", color=colour),
        missing.mark_point(shape="circle", size=26, strokeWidth=1, opacity=0.7).encode(x=x, y=top, tooltip=tooltip),
    ).properties(height=300)  # fmt: skip
    header = alt.Header(labelFontSize=13, labelFontWeight="bold")
    facet = alt.Facet("panel:N", title=None, sort=["SP", "IP"], header=header)
    return _plain(chart.facet(facet=facet, columns=2, data=alt.NamedData(name=DATA)))


def _tooltips(**fields: str) -> list[alt.Tooltip]:
    return [alt.Tooltip(f"{field}:N", title=title) for field, title in fields.items()]


def _plain(chart: Any) -> dict[str, Any]:
    """The specification without a configuration, which is the page's, and without rows."""
    found: dict[str, Any] = chart.to_dict()
    found.pop("config", None)
    for layer in found.get("spec", {}).get("layer", []):
        layer.pop("data", None)  # else every panel would show all rows
    found.get("spec", {}).pop("data", None)
    return found


def charts_of(contents: Contents) -> dict[str, tuple[dict[str, Any], list[Values]]]:
    """The charts of a page by name, each with its rows; those without any are left out."""
    found = {"forest": (forest(contents), contents.differences)} if contents.differences else {}
    if contents.cells:
        found["accuracy"] = (accuracy(contents), contents.cells)
    return found
