"""Forest plots: planned where an average may be formed, and nothing in them that the tables do not say."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from ipbench.analysis import style, write_runs, write_tables
from ipbench.analysis.comparisons import method_of
from ipbench.analysis.figures.of_comparisons import WHOLE, _name, across
from ipbench.analysis.grid import parse
from ipbench.analysis.plan import plan
from ipbench.cli.main import main

from .drawing import figure, texts
from .synthetic import cell, grid, write

GAIN = {"snip": 0.02, "grasp": 0.0, "random": -0.03}


def known(c, seed):
    """SNIP gains, random pruning loses, GraSP does neither; seeds differ a little."""
    gain = GAIN.get(c["method"], 0.0) if c["space"] == "ip" else 0.0
    return 0.8 + gain + 0.001 * (seed % 3) * (c["space"] == "ip")


@pytest.fixture
def results(tmp_path):
    return write(tmp_path / "one", grid(tuple(GAIN), seeds=range(9)), test_accuracy=known)


def planned(value):
    return "forest" in {file.figure for file in plan(parse(value))}


def test_it_is_planned_where_an_average_may_be_formed():
    assert planned(grid()) and not planned(grid(spaces=("sp",)))
    bases = [{"sharing": "layer"}, {"sharing": "stage"}]
    cells = [cell("snip", "sp", "0.9")] + [cell("snip", "ip", "0.9", basis=basis) for basis in bases]
    assert not planned(grid() | {"cells": cells})


def test_it_says_what_the_tables_say(results):
    drawn = figure(results, "forest")
    write_tables(results)
    (axes,) = drawn.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [WHOLE, *GAIN]
    large = {round(float(line.get_ydata()[0]), 2): line for line in axes.lines if line.get_markersize() > 4
             and len(line.get_ydata()) == 1}  # fmt: skip
    tables = [read(results, "global")[0], *read(results, "methods")]
    for at, row in enumerate(tables):
        marker = large[at]
        assert float(marker.get_xdata()[0]) == pytest.approx(float(row["difference_pp"]))
        filled = {True: style.DIFFERENCE_COLOUR, False: "#B0B0B0" if row["within"] == "True" else "white"}
        assert marker.get_markerfacecolor() == filled[bool(row["claim"])]
    assert {row["verdict"] for row in tables} >= {"IP better", "SP better"}
    told = [text.get_text() for text in axes.texts]
    assert f"{float(tables[1]['difference_pp']):+.2f} [" in told[1] and "n = 9" in told[1]
    assert sum(line.get_markersize() < 3 for line in axes.lines) == len(read(results, "paired")) - 0


def test_a_partial_grid_draws_no_average(tmp_path):
    plan_of = grid(("snip",), ("0.9", "0.98"))
    lost = [(c["id"], 5) for c in plan_of["cells"][1:]]
    drawn = figure(write(tmp_path, plan_of, skip=lost), "forest")
    assert [text.get_text() for text in drawn.axes[0].texts] == ["incomplete", "incomplete"]


def test_several_experiments_share_one_figure(results, tmp_path):
    other = write(tmp_path / "two", grid(("snip",), spaces=("sp",)) | {"name": "alone"})
    third = write(tmp_path / "three", grid(("grasp",), ("0.9",)) | {"name": "third"}, test_accuracy=known)
    for folder in (results, other, third):
        write_runs(folder)
    paths = across([results, other, third], tmp_path / "all")
    assert [path.name for path in paths] == ["all.svg", "all.pdf"] and all(path.stat().st_size for path in paths)
    first = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in across([results, other, third], tmp_path / "all")] == first


def test_a_row_is_named_by_what_tells_it_from_others():
    shared = {"dataset": "digits", "pattern": "filters", "budget": "macs"}
    planned = [cell("snip", space, "0.5", model=model, **shared) for model in ("a", "b") for space in ("sp", "ip")]
    planned += [cell("snip", space, "0.5", dataset="digits", model="b") for space in ("sp", "ip")]
    rows = parse({"name": "x", "title": "X", "cells": planned}).rows()
    keys = [method_of(row) for row in rows]
    assert [_name(key, keys) for key in keys] == [
        "snip, a, filters, macs", "snip, b, filters, macs", "snip, b, coefficients, parameters",
    ]  # fmt: skip
    assert [_name(key, keys[:2]) for key in keys[:2]] == ["snip, a", "snip, b"]


def test_the_command_refuses_what_it_cannot_draw(results, tmp_path, capsys):
    assert main(["figures", str(results), "--across", str(tmp_path / "all.svg")]) == 2
    assert "leave out .svg" in capsys.readouterr().err
    assert main(["figures", str(results), "--across", str(tmp_path / "all"), "--overview"]) == 2
    assert "leave one of them out" in capsys.readouterr().err
    assert not list(tmp_path.glob("all*"))


def test_lost_runs_are_said(tmp_path):
    outcome = {"test_accuracy": lambda c, s: 0.1 if (c["space"], s) == ("ip", 2) else 0.8}
    drawn = figure(write(tmp_path, grid(("snip",), ("0.9",)), **outcome), "forest")
    assert "Cross: with lost runs" in texts(drawn) or "1 at chance" in texts(drawn)


def read(results: Path, table: str) -> list[dict[str, str]]:
    with (results / "tables" / f"{table}.csv").open(encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row.get("method") != "dense"]
