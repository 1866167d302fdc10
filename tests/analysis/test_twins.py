"""Ranks at equal coefficients and at equal multiply-accumulates: by hand, and as table and figure show them."""

from __future__ import annotations

import math
import re
from itertools import permutations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipbench.analysis import style
from ipbench.analysis.collect import collect
from ipbench.analysis.figures.twins import place
from ipbench.analysis.grid import parse
from ipbench.analysis.kept import shares
from ipbench.analysis.plan import plan, plan_tables
from ipbench.analysis.tables import make_tables
from ipbench.analysis.twins import EFFECTIVE, MACS, PARAMETERS, Point, at, level, ranks, turned
from ipbench.store import write_json

from .drawing import figure, panels, points, texts
from .synthetic import cell, grid, put, record, write


def curve(*places: tuple[str, float, float]) -> list[Point]:
    return sorted((Point(p, p, share, accuracy) for p, share, accuracy in places), key=lambda point: point.share)


LINE = curve(("0.9", 0.1, 0.9), ("0.99", 0.01, 0.7))


def test_an_accuracy_between_two_points_by_hand():
    """Half way on a logarithmic axis, 0.1 ** 1.5, it is 0.8; at a point its own; beyond the points there is none."""
    assert at(LINE, 0.1**1.5) == pytest.approx((0.8, 0.7, 0.9))
    assert at(LINE, 0.1) == (0.9, 0.9, 0.9) and at(LINE, 0.01) == (0.7, 0.7, 0.7)
    assert all(math.isnan(value) for share in (0.11, 0.009, 1.0) for value in at(LINE, share))
    assert all(math.isnan(value) for value in at([], 0.1))


def test_of_several_points_the_nearest_two_count():
    bent = curve(("0.9", 0.1, 0.9), ("0.99", 0.01, 0.8), ("0.999", 0.001, 0.2))
    assert at(bent, 0.1**2.5) == pytest.approx((0.5, 0.2, 0.8))
    rising = curve(("0.9", 0.1, 0.5), ("0.99", 0.01, 0.7))  # less kept, and better
    assert at(rising, 0.1**1.5) == pytest.approx((0.6, 0.5, 0.7))


@given(
    st.dictionaries(st.integers(1, 99), st.floats(0, 1), min_size=1, max_size=5),
    st.floats(0.001, 1.1),
)
def test_it_lies_between_its_points_and_is_never_extrapolated(values, share):
    found = curve(*((str(number), number / 100, accuracy) for number, accuracy in values.items()))
    accuracy, lower, upper = at(found, share)
    if math.isnan(accuracy):
        assert share < found[0].share or share > found[-1].share
    else:
        assert found[0].share * (1 - 1e-8) <= share <= found[-1].share * (1 + 1e-8)
        assert lower - 1e-12 <= accuracy <= upper + 1e-12 and {lower, upper} <= set(values.values())


def test_the_level_is_the_geometric_mean_moved_to_where_most_have_points():
    wide = curve(("0.9", 0.16, 0.9), ("0.99", 0.01, 0.7))
    narrow = curve(("0.9", 0.04, 0.9), ("0.99", 0.02, 0.7))
    assert level({"a": wide, "b": wide}, "0.9") == pytest.approx(0.16)
    assert level({"a": wide, "b": narrow}, "0.9") == pytest.approx(0.04)  # the mean is 0.08
    assert level({"a": wide, "b": narrow}, "0.99") == pytest.approx(0.02)  # the mean is 0.0141
    apart = curve(("0.9", 0.4, 0.9), ("0.99", 0.25, 0.7))
    # The mean, 0.253, is between the points of the last one alone; of the first two it is nearest to the upper end.
    assert level({"a": wide, "b": narrow, "c": apart}, "0.9") == pytest.approx(0.04)
    assert level({"a": wide, "b": wide, "c": apart}, "0.9") == pytest.approx(0.16)


def test_ranks_that_turn():
    """At p = 0.9 b is better, with four times the MACs; at equal MACs, a is."""
    coefficients = {
        "a": curve(("0.9", 0.1, 0.80), ("0.99", 0.01, 0.7)),
        "b": curve(("0.9", 0.1, 0.82), ("0.99", 0.01, 0.6)),
    }
    macs = {
        "a": curve(("0.9", 0.1, 0.80), ("0.99", 0.01, 0.7)),
        "b": curve(("0.9", 0.4, 0.82), ("0.99", 0.04, 0.6)),
    }
    told = ranks({PARAMETERS: coefficients, MACS: macs}, "0.9")
    assert {name: one.rank for name, one in told[PARAMETERS].items()} == {"a": 2, "b": 1}
    assert {name: one.rank for name, one in told[MACS].items()} == {"a": 1, "b": 2}
    b = told[MACS]["b"]
    assert (b.own, b.lower, b.upper) == (0.4, 0.6, 0.82) and b.share == pytest.approx(0.1)
    assert b.accuracy == pytest.approx(0.6 + 0.22 * math.log(2.5) / math.log(10))
    # b lies anywhere between 0.6 and 0.82 there, and so may be better still.
    assert turned(told[PARAMETERS], told[MACS]) == (1, 0, 1)
    steep = {**macs, "b": curve(("0.9", 0.4, 0.82), ("0.95", 0.2, 0.75), ("0.99", 0.04, 0.6))}
    told = ranks({PARAMETERS: coefficients, MACS: steep}, "0.9")
    assert turned(told[PARAMETERS], told[MACS]) == (1, 1, 1)  # at most 0.75, below the 0.80 of a


def test_ranks_are_of_the_same_methods():
    """c has one point alone, and none on the other side of the level: it counts in neither ranking."""
    coefficients = {
        name: curve(("0.9", 0.1, accuracy), ("0.99", 0.01, 0.5)) for name, accuracy in (("a", 0.8), ("b", 0.7))
    }
    coefficients["c"] = curve(("0.9", 0.1, 0.99))
    macs = {name: curve(("0.9", 0.1, found[-1].accuracy), ("0.99", 0.01, 0.5)) for name, found in coefficients.items()}
    macs["c"] = curve(("0.9", 0.9, 0.99))
    told = ranks({PARAMETERS: coefficients, MACS: macs}, "0.9")
    for found in told.values():
        assert {name: one.rank for name, one in found.items()} == {"a": 1, "b": 2, "c": 0}
    assert math.isnan(told[MACS]["c"].accuracy) and turned(told[PARAMETERS], told[MACS]) == (0, 0, 1)


@pytest.mark.parametrize("order", list(permutations("abc")))
def test_equal_accuracies_share_a_rank_whatever_their_order(order):
    accuracy = {"a": 0.8, "b": 0.8, "c": 0.7}
    found = {name: curve(("0.9", 0.1, accuracy[name]), ("0.99", 0.01, 0.5)) for name in order}
    told = ranks({PARAMETERS: found, MACS: found}, "0.9")
    assert {name: one.rank for name, one in told[MACS].items()} == {"a": 1, "b": 1, "c": 3}


def test_a_grid_of_which_nothing_has_run_has_a_table_without_ranks(tmp_path):
    write_json(tmp_path / "grid.json", grid())
    made = make_tables(collect(tmp_path))["twins"]
    assert set(made.printed["rank by MACs"]) == {"–"} and not any("pairs" in note for note in made.notes[2:])


# Shares of records.


def test_shares_of_runs():
    """Means over finished runs; of IP the MACs of two stages; effective only where all runs of the cell tell it."""
    rows = [
        # cell, space, status, achieved, dense, sparse, two stages, effective
        ("a", "sp", "done", 0.9, 100, 10, 70, 0.92),
        ("a", "sp", "done", 0.8, 100, 30, 70, 0.84),
        ("a", "sp", "diverged", 0.1, 100, 99, 99, 0.1),
        ("b", "ip", "done", 0.9, 100, 10, 25, None),
        ("b", "ip", "done", 0.9, 100, 10, 25, 0.95),
    ]
    names = (
        "cell", "space", "status", "achieved_sparsity", "macs_dense", "macs_sparse", "macs_sparse_two_stage",
        "effective_sparsity",
    )  # fmt: skip
    found = shares(pd.DataFrame(rows, columns=names))
    assert found[PARAMETERS] == pytest.approx({"a": 0.15, "b": 0.1})
    assert found[MACS] == pytest.approx({"a": 0.2, "b": 0.25})
    assert found[EFFECTIVE] == pytest.approx({"a": 0.12})
    assert EFFECTIVE not in shares(pd.DataFrame(rows, columns=names).drop(columns="effective_sparsity"))


# As planned, as a table, as a figure.


def test_it_is_planned_where_ranks_can_turn():
    def planned(value):
        found = parse(value)
        table = any("twins" in path for path in plan_tables(found))
        assert table == ("twins" in {file.figure for file in plan(found)})
        return table

    assert planned(grid())
    assert not planned(grid(methods=("snip",)))
    assert not planned(grid(sparsities=("0.9",)))
    assert not planned(grid(pattern="channels", budget="macs"))
    assert not planned(grid(off="frozen"))


def accuracy(c, seed):
    """snip is better at one p; grasp has half of its MACs, and so is better at equal ones."""
    return {"dense": 0.9, "snip": 0.8, "grasp": 0.79}[c["method"]] - 0.2 * (c["sparsity"] == "0.98")


def macs(c, seed):
    dense = 416_520
    return {"0": dense, "0.9": dense // 10, "0.98": dense // 50}[c["sparsity"]] // (1 + (c["method"] == "grasp"))


@pytest.fixture
def results(tmp_path):
    return write(tmp_path, grid(spaces=("sp",)), test_accuracy=accuracy, macs_sparse=macs)


def test_the_table(results):
    made = make_tables(collect(results))["twins"]
    rows = {(row["method"], row["sparsity"]): row for row in made.data.to_dict("records")}
    snip, grasp = rows["snip", "0.9"], rows["grasp", "0.9"]
    assert (snip["coefficients_rank"], grasp["coefficients_rank"]) == (1, 2)
    assert (snip["macs_rank"], grasp["macs_rank"]) == (2, 1)
    assert snip["macs_kept_percent"] == pytest.approx(10, abs=1e-3) and snip["n"] == 6
    assert snip["macs_at_percent"] == grasp["macs_at_percent"] == pytest.approx(5, abs=1e-3)
    assert grasp["macs_accuracy_percent"] == pytest.approx(79)
    assert snip["macs_accuracy_percent"] == pytest.approx(80 - 20 * math.log(2) / math.log(5), abs=1e-2)
    assert (snip["macs_lower_percent"], snip["macs_upper_percent"]) == pytest.approx((60, 80))
    text = " ".join(made.notes)
    assert "SP, p = 0.9: 1 of 1 pairs of methods stand in another order by MACs as interpolated, 0 of them" in text
    assert "effective kept" not in made.printed.columns and math.isnan(snip["effective_rank"] or math.nan)


def test_no_ranks_of_runs_that_may_not_meet(results):
    plan_ = grid(spaces=("sp",))
    for planned in plan_["cells"]:
        if (planned["method"], planned["sparsity"]) == ("snip", "0.98"):
            for seed in planned["seeds"]:
                made = record(planned, seed, test_accuracy=accuracy(planned, seed), macs_sparse=macs(planned, seed))
                made["provenance"]["torch"] = "2.12.0"
                put(results, made)
    made = make_tables(collect(results))["twins"]
    assert set(made.data["sparsity"]) == {"0.9"}
    assert any(note.startswith("SP, p = 0.98: no ranks, mixed 2 versions of torch") for note in made.notes)


def test_the_figure_shows_the_same_runs_twice(results):
    drawn = figure(results, "twins")
    assert [axes.get_title() for axes in drawn.axes] == ["SP, coefficients kept", "SP, MACs kept"]
    first, second = drawn.axes
    assert {tick.get_text() for tick in first.get_xticklabels()} == {"1", "2", "5", "10"}
    for number, factor in ((0, 1), (1, 2)):
        places, means = points(second, style.METHOD_COLOURS[number], style.METHOD_MARKERS[number])
        assert places == pytest.approx([place(0.02 / factor), place(0.1 / factor)], abs=1e-3)
        assert means == pytest.approx(points(first, style.METHOD_COLOURS[number], style.METHOD_MARKERS[number])[1])
    assert "30 of 30 runs." in texts(drawn)


def test_effective_coefficients_are_a_third_panel_where_records_tell_them(results):
    plan_ = grid(spaces=("sp",))
    for planned in plan_["cells"]:
        for seed in planned["seeds"]:
            made = record(planned, seed, test_accuracy=accuracy(planned, seed), macs_sparse=macs(planned, seed))
            put(results, made | {"effective": effective(made, fewer=planned["method"] == "grasp")})
    drawn = figure(results, "twins")
    (axes,) = panels(drawn, "SP, effective coefficients kept")
    usual, _ = points(panels(drawn, "SP, coefficients kept")[0], style.METHOD_COLOURS[1], style.METHOD_MARKERS[1])
    places, _ = points(axes, style.METHOD_COLOURS[1], style.METHOD_MARKERS[1])
    assert all(one > other for one, other in zip(places, usual, strict=True))  # less is kept: further on the right
    printed = make_tables(collect(results))
    assert "rank by effective coefficients" in printed["twins"].printed
    cost = printed["cost"].data.set_index(["method", "sparsity"])
    assert cost.loc[("grasp", "0.9"), "effective_sparsity"] > cost.loc[("grasp", "0.9"), "achieved_sparsity"]
    assert cost.loc[("snip", "0.9"), "effective_sparsity"] == cost.loc[("snip", "0.9"), "achieved_sparsity"]


def effective(made, fewer: bool) -> dict:
    """What a record tells; `fewer`: nothing of the first layer is on a path."""
    outcome = made["outcome"]
    first = outcome["layers"][0]
    total = outcome["coefficients_kept"] - (first["kept"] if fewer else 0)
    return {
        "sparsity": 1 - (total + outcome["basis_entries"]) / outcome["prunable"], "coefficients": total,
        "macs": outcome["macs_sparse"], "macs_two_stage": outcome["macs_sparse_two_stage"],
        "layers": {first["name"]: 0} if fewer else {},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"coefficients": 3}, "not the total"),
        ({"layers": {"conv1": 10**6}}, "more is effective than is kept"),
        ({"layers": {"conv9": 0}}, "not a count by layer"),
        ({"layers": [1]}, "not a count by layer"),
        ({"sparsity": 0.5}, "does not follow from what is effective"),
        ({"macs": 10**9}, "effective_macs is 1e.09"),
    ],
)
def test_records_that_contradict_themselves_are_listed(results, change, why):
    (planned,) = [c for c in grid(spaces=("sp",))["cells"] if (c["method"], c["sparsity"]) == ("grasp", "0.9")]
    made = record(planned, 0)
    put(results, made | {"effective": {**effective(made, fewer=True), **change}})
    (found,) = collect(results).unreadable
    assert re.search(why, found.message)


def test_a_reason_in_place_of_numbers_is_kept(results):
    planned = cell("grasp", "sp", "0.9")
    put(results, record(planned, 0) | {"effective": {"reason": "the net's channels cannot be followed"}})
    runs = collect(results).runs
    assert runs["effective_reason"].notna().sum() == 1 and "effective_sparsity" not in runs
