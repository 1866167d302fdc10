"""All methods of a space in one panel: planned from two on, drawn at their means, with the dense net as a band."""

from __future__ import annotations

import pytest

from ipbench.analysis import style
from ipbench.analysis.grid import parse
from ipbench.analysis.plan import plan

from .drawing import figure, panels, points, texts
from .synthetic import cell, grid, write

ACCURACY = {"dense": 0.9, "snip": 0.8, "grasp": 0.7}


def test_one_method_alone_has_no_such_figure():
    assert "methods" not in {file.figure for file in plan(parse(grid(methods=("snip",))))}
    assert "methods" in {file.figure for file in plan(parse(grid(methods=("snip", "grasp"))))}


def test_lines_stand_at_the_means(tmp_path):
    write(tmp_path, grid(), test_accuracy=lambda c, seed: ACCURACY[c["method"]] + 0.05 * (c["space"] == "ip"))
    drawn = figure(tmp_path, "methods")
    for space, more in (("SP", 0), ("IP", 5)):
        (axes,) = panels(drawn, space)
        for number, mean in enumerate((80, 70)):
            places, means = points(axes, style.METHOD_COLOURS[number], style.METHOD_MARKERS[number])
            assert means == pytest.approx([mean + more] * 2)
            assert places == pytest.approx([style.sparsity_position(p) for p in ("0.9", "0.98")], abs=0.03)
    (sp,) = panels(drawn, "SP")
    assert points(sp, style.DENSE_COLOUR["sp"])[1] == pytest.approx([90, 90])
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == ["snip", "grasp", "dense (SP)"]
    assert "54 of 54 runs." in texts(drawn)


def test_one_space_is_one_panel_and_its_legend_stays_on_the_page(tmp_path):
    names = ("snip", "grasp", "synflow", "magnitude", "random", "freezenet")
    write(tmp_path, grid(methods=names, spaces=("sp",)))
    drawn = figure(tmp_path, "methods")
    assert [axes.get_title() for axes in drawn.axes] == ["SP"]
    box = drawn.legends[0].get_window_extent()
    assert box.x0 >= 0 and box.x1 <= drawn.bbox.width


def test_nothing_finished_is_said(tmp_path):
    from ipbench.store import write_json

    write_json(tmp_path / "grid.json", grid())
    drawn = figure(tmp_path, "methods")
    assert [text.get_text() for axes in drawn.axes for text in axes.texts] == ["no finished runs"] * 2


def test_every_recipe_has_its_dense_net(tmp_path):
    """Several initialisations, say: each dense net is a band, and the legend names them once."""
    recipes = [{"epochs": 8, "init": init} for init in ("xavier_normal", "kaiming_normal")]
    cells = [cell("dense", "sp", "0", recipe=recipe) for recipe in recipes]
    cells += [cell("snip", "sp", p, recipe=recipe) for recipe in recipes for p in ("0.9", "0.98")]
    joined = grid() | {"cells": cells}
    write(tmp_path, joined, test_accuracy=lambda c, seed: 0.9 if c["recipe"]["init"] == "xavier_normal" else 0.8)
    drawn = figure(tmp_path, "methods")
    (axes,) = drawn.axes
    lines = [line for line in axes.lines if line.get_color() == style.DENSE_COLOUR["sp"]]
    assert [line.get_ydata()[0] for line in lines] == pytest.approx([90, 80])
    assert [text.get_text() for text in drawn.legends[0].get_texts()].count("dense (SP)") == 1
    assert "36 of 36 runs." in texts(drawn)
