"""Patterns and budgets in tables and figures: never averaged, never confused, and unsaid where there are none."""

from __future__ import annotations

import pandas as pd
import pytest

from ipbench.analysis import style
from ipbench.analysis.cells import all_cells
from ipbench.analysis.collect import collect, read_parquet, write_parquet
from ipbench.analysis.comparisons import analyse
from ipbench.analysis.grid import parse, to_json
from ipbench.analysis.labels import labels
from ipbench.analysis.panels import panels
from ipbench.analysis.plan import plan
from ipbench.analysis.published import Published
from ipbench.analysis.shares import share_heading, share_name
from ipbench.analysis.tables import make_tables
from ipbench.analysis.tradeoffs import tradeoffs
from ipbench.errors import BadProduct

from . import drawing
from .synthetic import cell, grid, write

#: Pattern and budget of cells that agree in everything else; the accuracy of each tells it from the others.
KINDS = {
    ("coefficients", "parameters"): 0.9, ("filters", "parameters"): 0.8, ("filters", "macs"): 0.7,
    ("channels", "macs"): 0.6, ("columns", "channels"): 0.5, ("2:4", "parameters"): 0.4,
}  # fmt: skip


def cells(kinds=KINDS, sparsities=("0.5",), seeds=range(2)):
    return [cell("dense", "sp", "0", seeds=seeds)] + [
        cell("snip", space, p, pattern=pattern, budget=budget, seeds=seeds)
        for pattern, budget in kinds
        for p in sparsities
        for space in ("sp", "ip")
    ]


def accuracy(planned, seed):
    """By kind; IP is better by a point."""
    kind = planned.get("pattern", "coefficients"), planned.get("budget", "parameters")
    return 0.95 if planned["method"] == "dense" else KINDS[kind] + 0.01 * (planned["space"] == "ip")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    return write(folder, grid() | {"cells": cells()}, test_accuracy=accuracy)


def test_kinds_are_cells_of_their_own(results):
    found = collect(results)
    assert len(found.grid.rows()) == 1 + len(KINDS) and not found.missing
    means = all_cells(found)
    assert {c.structure: means[c.id].mean for c in found.grid.cells if c.space == "sp" and not c.dense} == KINDS
    assert all(row.sp.structure == row.ip.structure for row in found.grid.rows() if row.compared)


def test_no_average_mixes_them(results):
    found = analyse(collect(results))
    assert {key[3:]: len(one.included) for key, one in found.methods.items()} == dict.fromkeys(KINDS, 1)
    assert found.overall is None and found.members == 2 * len(KINDS)
    tables = make_tables(collect(results))
    assert "No average is formed over several patterns or budgets." in tables["global"].notes
    assert list(tables["methods"].printed.columns[:3]) == ["method", "pattern", "budget"]
    (only,) = {key[3:] for key in analyse(collect(results)).methods if key[3:] == ("channels", "macs")}
    assert only == ("channels", "macs")


def test_one_kind_alone_is_averaged(tmp_path):
    plan = grid() | {"cells": cells([("channels", "macs")], ("0.5", "0.7"))}
    found = analyse(collect(write(tmp_path, plan, test_accuracy=accuracy)))
    assert found.overall is not None and len(found.overall.included) == 2


def test_tables_say_what_a_share_is_of(results, tmp_path):
    table = make_tables(collect(results))["accuracy"]
    assert list(table.printed.columns[:4]) == ["method", "pattern", "budget", "removed share p"]
    assert table.printed["pattern"].tolist() == ["–", *(pattern for pattern, _ in KINDS)]
    assert {"pattern", "budget"} <= set(table.data.columns)
    one = grid() | {"cells": cells([("channels", "macs")])}
    table = make_tables(collect(write(tmp_path, one, test_accuracy=accuracy)))["accuracy"]
    assert any("pattern channels, budget macs" in note for note in table.notes)


def test_nothing_is_said_where_all_are_usual(tmp_path):
    collection = collect(write(tmp_path, grid(), test_accuracy=lambda c, seed: 0.9))
    names = labels(collection.grid)
    assert {"pattern", "budget"}.isdisjoint({*names.varying, *names.constant}) and names.heading(
        "sparsity"
    ) == "sparsity p"
    for table in make_tables(collection).values():
        assert {"pattern", "budget"}.isdisjoint({*table.data.columns, *table.printed.columns})
        assert not any("pattern" in note or "budget macs" in note for note in table.notes)
    assert {"pattern", "budget"}.isdisjoint(collection.runs.columns)
    assert not any("pattern" in one or "budget" in one for one in to_json(collection.grid)["cells"])


def test_collections_keep_them_and_old_ones_are_read(results, tmp_path):
    found = collect(results)
    write_parquet(found, tmp_path / "new.parquet")
    again = read_parquet(tmp_path / "new.parquet")
    pd.testing.assert_frame_equal(again.runs, found.runs)
    assert again.grid == found.grid == parse(to_json(found.grid))
    usual = collect(write(tmp_path / "old", grid(methods=("snip",), sparsities=("0.9",))))
    write_parquet(usual, tmp_path / "old.parquet")
    assert read_parquet(tmp_path / "old.parquet").grid == usual.grid
    altered = found.runs.copy()
    altered.loc[altered["pattern"] == "channels", "pattern"] = "filters"
    write_parquet(type(found)(found.grid, altered, found.missing, found.unreadable), tmp_path / "altered.parquet")
    with pytest.raises(BadProduct, match="holds the axes of another run"):
        read_parquet(tmp_path / "altered.parquet")


def test_a_published_number_is_of_coefficients():
    setting = {"dataset": "digits", "model": "lenet", "method": "snip", "sparsity": "0.5"}
    known = Published(setting, {}, 0.9, "somewhere")
    found = parse(grid() | {"cells": cells()})
    assert [c.structure for c in found.cells if known.matches(c)] == [("coefficients", "parameters")] * 2
    filters = Published({**setting, "pattern": "filters", "budget": "macs"}, {}, 0.9, "somewhere")
    assert [c.structure for c in found.cells if filters.matches(c)] == [("filters", "macs")] * 2


def test_names_of_shares():
    found = parse(grid() | {"cells": cells()}).cells
    by_budget = {budget: [c for c in found if c.budget == budget] for budget in ("parameters", "macs", "channels")}
    assert [share_name(some) for some in by_budget.values()] == [
        "sparsity p", "removed share p of MACs", "removed share p of units",
    ]  # fmt: skip
    assert share_name(found) == "removed share p of parameters, MACs or units"
    assert share_name([c for c in found if c.dense]) == "sparsity p"
    assert (share_heading(by_budget["parameters"]), share_heading(found)) == ("sparsity p", "removed share p")


def test_panels_are_named_and_each_has_one_kind(results):
    found = panels(collect(results).grid, "digits", "lenet")
    assert [panel.title for panel in found] == [f"snip, {pattern}, {budget}" for pattern, budget in KINDS]
    assert all(len(panel.rows) == 1 for panel in found)


def test_shares_of_several_budgets_share_no_panel(results):
    """Each budget has a row, with its own cells at their means; the dense net is a band in all of them."""
    drawn = drawing.figure(results, "methods")
    assert [axes.get_title() for axes in drawn.axes] == [
        f"{space}, p of {what}" for what in ("parameters", "MACs", "units") for space in ("SP", "IP")
    ]
    assert "removed share p of parameters, MACs or units" in drawing.texts(drawn)
    places = list(KINDS)
    for what, budget in (("parameters", "parameters"), ("MACs", "macs"), ("units", "channels")):
        (axes,) = drawing.panels(drawn, f"SP, p of {what}")
        own = [kind for kind in places if kind[1] == budget]
        means = [
            drawing.points(axes, style.METHOD_COLOURS[number], style.METHOD_MARKERS[number])[1]
            for number in (places.index(kind) for kind in own)
        ]
        assert [mean for (mean,) in means] == pytest.approx([100 * KINDS[kind] for kind in own])
        coloured = [
            line
            for line in axes.get_lines()
            if line.get_marker() in style.METHOD_MARKERS and len(line.get_xdata()) and line.get_linestyle() != "None"
        ]  # without marks at the edge
        assert len(coloured) == len(own)
        assert drawing.points(axes, style.DENSE_COLOUR["sp"])[1] == pytest.approx([95, 95])


def test_where_a_share_is_a_result_it_stands_at_what_was_reached(tmp_path):
    kinds = [("2:4", "parameters"), ("coefficients", "parameters")]
    write(tmp_path, grid() | {"cells": cells(kinds)}, test_accuracy=accuracy,
          reached=lambda c, seed: 0.4 if c["space"] == "sp" else 0.3)  # fmt: skip
    drawn = drawing.figure(tmp_path, "accuracy")
    for title, sp, ip in (("snip, 2:4", 0.4, 0.3), ("snip, coefficients", 0.5, 0.5)):
        (axes,) = drawing.panels(drawn, title)
        for space, share in (("sp", sp), ("ip", ip)):
            places, _ = drawing.points(axes, style.COLOUR[space], style.MARKER[space])
            assert places == pytest.approx([style.sparsity_position(str(share))], abs=0.02)
    assert "sparsity p" in drawing.texts(drawn)


@pytest.mark.parametrize(
    "name", ["accuracy", "difference", "cost", "density", "generalisation", "spatial-zeros", "basis"]
)
def test_figures_of_such_grids_are_drawn(results, name):
    drawn = drawing.figure(results, name)
    assert drawn.axes
    if name in ("accuracy", "difference", "cost"):
        assert "removed share p of parameters, MACs or units" in drawing.texts(drawn)


def test_a_tradeoff_is_of_one_kind():
    options = [
        cell("cops", "sp", "0.5", pattern="filters", budget=budget, options={"beta": str(beta)})
        for budget in ("macs", "parameters")
        for beta in (0.1, 0.5, 0.9)
    ]
    found = tradeoffs(parse(grid() | {"cells": options}), "digits", "lenet")
    assert [one.title.split(", ")[1:] for one in found] == [["filters", "macs", "p = 0.5"], ["filters", "p = 0.5"]]
    assert all(len(one.curves["sp"]) == 3 for one in found)
    assert "tradeoff" in {file.figure for file in plan(parse(grid() | {"cells": options}))}
