"""Runs of a method with a knob: one curve, placed and told by what was reached, known from the grid alone."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from ipbench.analysis import style, summary, write_runs
from ipbench.analysis.collect import collect
from ipbench.analysis.figures import _DRAWERS
from ipbench.analysis.figures.scene import Scene
from ipbench.analysis.grid import parse, to_json
from ipbench.analysis.labels import labels
from ipbench.analysis.panels import panels
from ipbench.analysis.plan import plan
from ipbench.analysis.reached import reached_by_knob
from ipbench.analysis.tables import make_tables
from ipbench.analysis.tradeoffs import tradeoffs
from ipbench.errors import BadInput
from ipbench.planning.experiment import Experiment

from . import drawing
from .synthetic import cell, grid, put, record, write

#: What was removed at each value of the knob: the largest value did not prune most. IP reaches 0.02 less.
REACHED = {0.2: 0.25, 0.4: 0.6, 0.6: 0.5}


def knobs(method="mine", rates=REACHED, seeds=range(3), **axes):
    """Cells of a method that no registry knows, at several values of its knob, in both spaces."""
    axes = {"pattern": "filters", "budget": "macs", "knob": "rate", "seeds": seeds, **axes}
    options = axes.pop("options", {})
    return [cell(method, space, "0", options={"rate": r, **options}, **axes) for r in rates for space in ("sp", "ip")]


def whole(*cells, seeds=range(3)):
    return {"name": "small", "title": "A small grid", "cells": [cell("dense", "sp", "0", seeds=seeds), *cells]}


def reached(planned, seed):
    """By seed around what the knob gives."""
    rate = planned["options"].get("rate")
    if rate is None:
        return 0.0
    return REACHED[rate] - 0.02 * (planned["space"] == "ip") + 0.01 * (seed - 1)


def accuracy(planned, seed):
    return 0.9 - 0.1 * planned["options"].get("rate", 0)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("knobs")
    plan_of = whole(*knobs(), *(cell("snip", space, "0.9", seeds=range(3)) for space in ("sp", "ip")))
    return write(folder, plan_of, reached=reached, test_accuracy=accuracy)


def test_planning_writes_the_knob_where_it_is_turned():
    config = {
        "datasets": "digits", "models": "small-vgg", "methods": ["dense", {"name": "sfp", "rate": [0.0, 0.4]}],
        "sparsities": ["0.3"], "spaces": "sp", "seeds": 1,
    }  # fmt: skip
    found = parse(Experiment.from_config(config, "x").grid())
    assert [(one.method, one.sparsity, one.knob, one.setting) for one in found.cells] == [
        ("dense", "0", "", ""), ("sfp", "0.3", "", ""), ("sfp", "0", "rate", "0.4"),
    ]  # fmt: skip


def test_a_grid_keeps_it_and_refuses_one_that_is_no_option():
    found = parse(whole(*knobs(rates=[0.2], options={"a": 1})))
    assert parse(to_json(found)) == found and found.cells[1].others == '{"a":1}'
    assert "knob" not in to_json(found)["cells"][0]
    for knob in ("speed", 3, ["rate"]):
        with pytest.raises(BadInput, match="is none of the options"):
            parse(whole({**knobs()[0], "knob": knob}))


def test_values_of_a_knob_are_one_panel_and_pairs_stay_pairs(results):
    found = panels(collect(results).grid, "digits", "lenet")
    assert [(panel.title, len(panel.rows)) for panel in found] == [
        ("mine, filters, macs", 3), ("snip", 1),
    ]  # fmt: skip
    assert (found[0].sparsities, found[1].sparsities) == ([], ["0.9"])
    for row in found[0].rows:
        assert row.sp.options == row.ip.options
    assert len(found[0].side("sp")) == 3


def test_a_budget_and_a_knob_of_one_method_are_two_panels():
    both = whole(*knobs(), cell("mine", "sp", "0.5", pattern="filters", budget="macs"))
    found = parse(both)
    assert {panel.title: len(panel.rows) for panel in panels(found, "digits", "lenet")} == {
        "mine": 1, "mine, by rate": 3,
    }  # fmt: skip
    assert "options" not in labels(found).varying


def test_other_options_tell_panels_apart():
    found = parse(whole(*knobs(), *knobs(options={"soft": True})))
    assert [panel.title for panel in panels(found, "digits", "lenet")] == ["mine", "mine, soft=true"]


def test_curves_stand_at_what_was_reached_in_its_order(results):
    drawn = drawing.figure(results, "accuracy")
    (axes,) = [axes for axes in drawn.axes if axes.get_title().startswith("mine")]
    shift = 0.02
    for space, less in (("sp", 0.0), ("ip", 0.02)):
        places, means = drawing.points(axes, style.COLOUR[space], style.MARKER[space])
        shares = sorted((share, rate) for rate, share in REACHED.items())
        assert places == pytest.approx([style.sparsity_position(str(share - less)) for share, _ in shares], abs=shift)
        assert means == pytest.approx([90 - 10 * rate for _, rate in shares])
        low, high = axes.get_xlim()
        assert all(low < place < high for place in places)
    drawn = drawing.figure(results, "methods")
    (axes,) = [axes for axes in drawn.axes if axes.get_title().startswith("SP") and "MACs" in axes.get_title()]
    assert drawing.points(axes, style.METHOD_COLOURS[0])[0] == pytest.approx(
        [style.sparsity_position(str(share)) for share in sorted(REACHED.values())], abs=0.05
    )


def test_a_pair_stands_in_the_middle_of_its_sides(results):
    scene = Scene(collect(results))
    row = next(row for row in scene.collection.grid.rows() if row.any.setting == "0.4")
    sides = [style.sparsity_position(str(share)) for share in (0.6, 0.58)]
    assert [scene.position(row.sp), scene.position(row.ip)] == pytest.approx(sides)
    assert scene.place(row) == pytest.approx(sum(sides) / 2)
    planned = next(row for row in scene.collection.grid.rows() if row.any.method == "snip")
    assert scene.place(planned) == scene.position(planned.sp) == style.sparsity_position("0.9")


def test_single_coefficients_stand_at_their_sparsity(tmp_path):
    """A threshold that prunes coefficients: the achieved sparsity counts, which the records always tell."""
    write(tmp_path, whole(*knobs(pattern="coefficients", budget="parameters", rates=[0.2])))
    collection = collect(tmp_path)
    for one in collection.grid.cells[1:]:
        runs = collection.runs[collection.runs["cell"] == one.id]
        share = float(runs["achieved_sparsity"].mean())
        assert reached_by_knob(collection)[one.id] == pytest.approx(share)
        assert Scene(collection).position(one) == pytest.approx(style.sparsity_position(str(share)), abs=1e-9)


def test_what_has_not_reached_anything_has_no_place(tmp_path):
    """Of diverged runs an accuracy is known, and no share; without any run there is neither."""
    plan_of = whole(*knobs(rates=[0.2, 0.4]))
    write(tmp_path, plan_of, reached=reached, test_accuracy=accuracy)
    gone = next(c for c in plan_of["cells"] if c["options"].get("rate") == 0.2 and c["space"] == "sp")
    for seed in range(3):
        put(tmp_path, record(gone, seed, "diverged", "nan", test_accuracy=None))
    scene = Scene(collect(tmp_path))
    (lost,) = [one for one in scene.collection.grid.cells if one.id == gone["id"]]
    assert math.isnan(scene.position(lost))
    (panel,) = scene.panels(plan(scene.collection.grid)[0])
    assert [one.setting for one in scene.side(panel, "sp")] == ["0.4"] and len(scene.side(panel, "ip")) == 2
    (axes,) = drawing.figure(tmp_path, "accuracy").axes
    assert len(drawing.points(axes, style.COLOUR["sp"], "o")[0]) == 1


@pytest.mark.parametrize("finished", [True, False])
def test_all_figures_are_drawn(tmp_path, finished):
    plan_of = whole(*knobs(), *knobs("yours", rates=[0.4], pattern="coefficients", budget="parameters"))
    skip = [] if finished else [(c["id"], seed) for c in plan_of["cells"] for seed in range(3)]
    write(tmp_path, plan_of, skip, reached=reached)
    for name in dict.fromkeys(file.figure for file in plan(plan_of)):
        assert name in _DRAWERS and drawing.figure(tmp_path, name).axes


def test_panels_of_single_values_name_them(results):
    titles = [axes.get_title().replace("\N{NO-BREAK SPACE}", " ") for axes in drawing.figure(results, "density").axes]
    assert [title.split(", ")[-1] for title in titles] == ["rate = 0.2", "rate = 0.6", "rate = 0.4", "p = 0.9"]


def test_tables_tell_value_and_share_in_place_of_the_sparsity(results):
    tables = make_tables(collect(results))
    shown = tables["accuracy"].printed
    assert shown["removed share p"].tolist() == [
        "0", "rate=0.2 (SP 0.250, IP 0.230)", "rate=0.4 (SP 0.600, IP 0.580)", "rate=0.6 (SP 0.500, IP 0.480)", "0.9",
    ]  # fmt: skip
    assert "options" not in shown.columns
    raw = tables["accuracy"].data.set_index("options")
    assert raw.loc['{"rate":0.4}', ["knob", "sparsity"]].tolist() == ["rate", "0"]
    assert raw.loc['{"rate":0.4}', ["sp_reached", "ip_reached"]].tolist() == pytest.approx([0.6, 0.58])
    assert {"knob", "sp_reached", "ip_reached"} <= set(tables["paired"].data.columns)
    cost = tables["cost"].printed
    assert cost[cost["space"] == "IP"]["removed share p"].tolist()[:1] == ["rate=0.2 (0.230)"]
    assert any("it says how much is pruned" in note for note in tables["paired"].notes)


def test_one_share_is_told_once_and_none_where_nothing_is_finished():
    found = parse(whole(*knobs(rates=[0.2])))
    (row,) = [row for row in found.rows() if row.compared]
    names = labels(found)
    assert names.row(row, "sparsity") == "rate=0.2"
    same = replace(names, reached={row.sp.id: 0.3, row.ip.id: 0.3})
    assert same.row(row, "sparsity") == "rate=0.2 (0.300)"
    assert replace(names, reached={row.ip.id: 0.3}).row(row, "sparsity") == "rate=0.2 (IP 0.300)"


def test_a_text_as_a_knob_is_shown_as_it_is():
    one = cell("l1-filters", "sp", "0", pattern="filters", budget="macs", options={"ratios": "0.1,0.5"}, knob="ratios")
    found = parse(whole(one))
    assert labels(found).text(found.cells[1], "sparsity") == "ratios=0.1,0.5"


def test_grids_without_a_knob_say_nothing_of_it(tmp_path):
    collection = collect(write(tmp_path, grid(methods=("snip",), sparsities=("0.9",))))
    assert reached_by_knob(collection) == {}
    for table in make_tables(collection).values():
        assert {"knob", "sp_reached", "ip_reached"}.isdisjoint(table.data.columns)
        assert not any("it says how much is pruned" in note for note in table.notes)


def test_the_summary_names_them_and_fits(results, tmp_path):
    write_runs(results)
    text = summary(results)
    assert "rate=0.4" in text and max(map(len, text.splitlines())) <= 100
    long = knobs("layer-collapse-aware-lookahead-magnitude", rates=[0.2], knob="a-long-name-of-a-knob-of-a-method",
                 options={"a-long-name-of-a-knob-of-a-method": 0.125})  # fmt: skip
    write(tmp_path, whole(*long), reached=lambda c, seed: 0.5)
    write_runs(tmp_path)
    text = summary(tmp_path)
    assert "  (0.500)  " in text and max(map(len, text.splitlines())) <= 100


def test_a_knob_is_no_trade_off_but_other_options_are():
    values = [0.1, 0.5, 0.9]
    assert not tradeoffs(parse(whole(*knobs(rates=values))), "digits", "lenet")
    cells = [one for value in values for one in knobs(rates=[0.4], options={"alpha": value})]
    (found,) = tradeoffs(parse(whole(*cells)), "digits", "lenet")
    assert found.option == "alpha" and found.title == "mine, filters, macs, rate = 0.4"
    assert [value for value, _ in found.curves["ip"]] == values


def test_ticks_stand_where_shares_are():
    """With planned sparsities on the axis, ticks at round shares stand outside of these alone."""
    from matplotlib.figure import Figure

    axes = Figure().add_axes((0, 0, 1, 1))
    style.sparsity_axis(axes, ["0.5", "0.9"], 5.0, [style.sparsity_position("0.25"), style.sparsity_position("0.97")])
    shown = {text.get_text() for text in axes.get_xticklabels()}
    assert shown == {"0.1", "0.3", "0.5", "0.9", "0.95"}
    places = sorted(float(tick) for tick in [*axes.get_xticks(), *axes.get_xticks(minor=True)])
    ticks = ("0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.9", "0.95")
    assert places == pytest.approx([style.sparsity_position(text) for text in ticks])
    assert style.share_at(style.sparsity_position("0.37")) == pytest.approx(0.37)
