"""Numeric options as curves: planned from three values on, defaults filled in, drawn at their numbers."""

from __future__ import annotations

import pytest

from ipbench.analysis.grid import parse
from ipbench.analysis.plan import plan
from ipbench.analysis.tradeoffs import tradeoffs

from .drawing import figure, panels
from .synthetic import cell, grid, write


def cops(betas, **options):
    """COPS at one sparsity in both spaces; its default share is 0.5, which a grid leaves out."""
    cells = []
    for beta in betas:
        given = {**({} if beta == "0.5" else {"beta": beta}), **options}
        cells += [cell("cops", space, "0.9", options=given) for space in ("sp", "ip")]
    single = grid(methods=("snip", "synflow"), sparsities=("0.9",))
    return {**single, "cells": [*single["cells"], *cells]}


def test_three_values_make_a_curve_and_the_default_is_one_of_them():
    (found,) = tradeoffs(parse(cops(["0.9", "0.5", "0.7"])), "digits", "lenet")
    assert (found.method, found.option, found.sparsity) == ("cops", "beta", "0.9")
    assert found.title == "cops snip / synflow, p = 0.9" and found.named == ("snip", "synflow")
    assert {space: [value for value, _ in curve] for space, curve in found.curves.items()} == {
        "sp": [0.5, 0.7, 0.9], "ip": [0.5, 0.7, 0.9],
    }  # fmt: skip


@pytest.mark.parametrize("betas", [["0.5", "0.7"], ["0.5", "0.7", "0.5,0.9"]])
def test_fewer_values_make_none(betas):
    assert not tradeoffs(parse(cops(betas)), "digits", "lenet")
    assert "tradeoff" not in {file.figure for file in plan(parse(cops(betas)))}


def test_other_options_make_curves_of_their_own():
    plain, other = cops(["0.5", "0.7", "0.9"]), cops(["0.5", "0.7", "0.9"], controls="grasp")
    both = {**plain, "cells": [*plain["cells"], *(c for c in other["cells"] if c["method"] == "cops")]}
    assert [found.named for found in tradeoffs(parse(both), "digits", "lenet")] == [
        ("snip", "synflow"),
        ("snip", "grasp"),
    ]


def test_the_curve_is_drawn_at_its_numbers(tmp_path):
    accuracy = {"sp": 0.6, "ip": 0.7}

    def by_beta(c, seed):
        return accuracy[c["space"]] + 0.1 * float(c["options"].get("beta", 0.5)) if c["method"] == "cops" else 0.5

    write(tmp_path, cops(["0.5", "0.7", "0.9"]), test_accuracy=by_beta)
    drawn = figure(tmp_path, "tradeoff")
    (axes,) = panels(drawn, "cops snip / synflow, p = 0.9")
    lines = [line for line in axes.lines if line.get_marker() not in ("", "None", None) and len(line.get_xdata()) == 3]
    assert sorted([list(line.get_xdata()), [round(y, 6) for y in line.get_ydata()]] for line in lines) == [
        [[0.5, 0.7, 0.9], [65.0, 67.0, 69.0]], [[0.5, 0.7, 0.9], [75.0, 77.0, 79.0]],
    ]  # fmt: skip
    assert {text.get_text() for text in axes.texts} == {"snip", "synflow"}
