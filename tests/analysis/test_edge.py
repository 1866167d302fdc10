"""The axis of accuracies is that of the nets that live; what is far below stands at its edge, with its value."""

from __future__ import annotations

import pytest

from ipbench.analysis import style

from .drawing import figure, panels, texts
from .synthetic import grid, write


def drawn(tmp_path, name, values):
    """A figure of two methods in SP: `values` by method, sparsity and seed; else 0.8."""
    outcome = {"test_accuracy": lambda c, s: values.get((c["method"], c["sparsity"]), [0.8] * 6)[s]}
    return figure(write(tmp_path, grid(("snip", "grasp"), spaces=("sp",)), **outcome), name)


def written(axes):
    return [text.get_text() for text in axes.texts]


def crosses(axes):
    return [line for line in axes.lines if line.get_marker() == "x"]


@pytest.mark.parametrize(("name", "title"), [("accuracy", "snip"), ("methods", "SP")])
def test_a_lost_net_does_not_press_the_others_together(tmp_path, name, title):
    sheet = drawn(tmp_path, name, {("snip", "0.98"): [0.1] * 6})
    (axes,) = panels(sheet, title)
    low, high = axes.get_ylim()
    assert low > 70 and high < 90
    assert written(axes) == ["10.0 (6 of 6)"]
    (cross,) = crosses(axes)
    assert cross.get_ydata()[0] == low
    assert "At the lower edge" in texts(sheet) and "Cross: a mean with lost runs" in texts(sheet)


def test_a_poor_net_that_is_not_lost_has_no_cross(tmp_path):
    sheet = drawn(tmp_path, "methods", {("snip", "0.98"): [0.3] * 6})
    (axes,) = panels(sheet, "SP")
    assert written(axes) == ["30.0"] and not crosses(axes)
    assert [line.get_marker() for line in axes.lines].count("v") == 1
    assert "At the lower edge" in texts(sheet) and "lost runs" not in texts(sheet)


def test_a_mean_with_one_lost_seed_stays_where_it_is(tmp_path):
    sheet = drawn(tmp_path, "methods", {("snip", "0.98"): [0.8, 0.8, 0.1, 0.8, 0.8, 0.8]})
    (axes,) = panels(sheet, "SP")
    cross = [line for line in crosses(axes) if line.get_color() == style.CROSS_COLOUR]
    assert [float(line.get_ydata()[0]) for line in cross] == pytest.approx([100 * (0.8 * 5 + 0.1) / 6])
    assert not written(axes) and axes.get_ylim()[0] < 10  # nothing is far below: the axis shows all


def test_where_nothing_is_lost_nothing_is_marked(tmp_path):
    sheet = drawn(tmp_path, "methods", {("snip", "0.98"): [0.7] * 6})
    (axes,) = panels(sheet, "SP")
    assert not written(axes) and not crosses(axes)
    assert "lower edge" not in texts(sheet) and "ross" not in texts(sheet)


def test_where_everything_is_lost_the_axis_shows_it(tmp_path):
    everything = {(method, p): [0.1] * 6 for method in ("snip", "grasp", "dense") for p in ("0", "0.9", "0.98")}
    (axes,) = panels(drawn(tmp_path, "methods", everything), "SP")
    low, high = axes.get_ylim()
    assert low < 10 < high and len(crosses(axes)) == 4
