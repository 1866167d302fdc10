from __future__ import annotations

import math

import pytest
from matplotlib.collections import PolyCollection

from ipbench.analysis import style
from ipbench.analysis.comparisons import compare
from ipbench.analysis.figures.of_basis import of_bases
from ipbench.analysis.grid import parse
from ipbench.analysis.plan import plan
from ipbench.spec import Basis

from .drawing import figure, panels, points, texts
from .synthetic import cell, grid, put, record, write

VARIANTS = ({}, {"init": "orthonormal"}, {"lr": 0.1, "train": False})


def ablated(methods=("snip",), sparsities=("0.9", "0.98"), seeds=range(3)):
    """A grid with one SP cell and one IP cell per variant of the basis, as an experiment writes it."""
    cells = [cell("dense", "sp", "0", seeds=seeds)]
    for method in methods:
        for p in sparsities:
            cells.append(cell(method, "sp", p, seeds=seeds))
            bases = [Basis(**values).model_dump(mode="json") for values in VARIANTS]
            cells += [cell(method, "ip", p, basis=basis, seeds=seeds) for basis in bases]
    return {"name": "ablation", "title": "Ablation", "cells": cells}


def figures(value):
    return {file.figure for file in plan(parse(value))}


def test_an_ablation_is_planned_for_several_bases_only():
    assert "ablation" in figures(ablated()) and "ablation" not in figures(grid())
    # Two bases without the SP cell that they are compared with are no ablation.
    lone = [c for c in ablated()["cells"] if c["space"] == "ip"]
    assert "ablation" not in figures({"name": "g", "cells": lone})


def test_the_basis_figure_needs_ip():
    assert "basis" in figures(grid(spaces=("ip",))) and "basis" not in figures(grid(spaces=("sp",)))


def test_drift_and_condition_by_hand(tmp_path):
    """Two FBs, three seeds: means over both, for the condition number geometric; the band reaches over the FBs."""
    outcomes = {
        "basis_drift": lambda c, s: {"a": 1.0 + s, "b": 3.0 + s} if c["space"] == "ip" else {},
        "basis_condition": lambda c, s: {"a": 2.0, "b": 8.0 * 2**s} if c["space"] == "ip" else {},
    }
    write(tmp_path, grid(("snip",), ("0.9", "0.99"), seeds=range(3)), **outcomes)
    drawn = figure(tmp_path, "basis")
    drift, condition = panels(drawn, "snip")
    places, means = points(drift, style.COLOUR["ip"])
    assert places == pytest.approx([1, 2]) and means == pytest.approx([3, 3])  # (2 + 3 + 4) / 3
    assert points(condition, style.COLOUR["ip"])[1] == pytest.approx([math.sqrt(2 * 16)] * 2)
    for axes, band in ((drift, (2, 4)), (condition, (2, 16))):
        (shape,) = [item for item in axes.collections if isinstance(item, PolyCollection)]
        ends = shape.get_paths()[0].vertices[:, 1]
        assert (ends.min(), ends.max()) == pytest.approx(band)
    assert drift.get_ylim()[0] == 0 and condition.get_yscale() == "log"
    assert "6 of 6 runs." in texts(drawn)


def test_fbs_without_a_finite_number_are_left_out():
    row = {"seed": 4, "basis_condition": '{"a":null,"b":2.5,"c":"inf"}'}
    assert of_bases([row, {"seed": 5, "basis_condition": None}], "basis_condition") == {4: {"b": 2.5}, 5: {}}


def test_a_net_without_fbs_says_so(tmp_path):
    write(tmp_path, grid(("snip",), ("0.9",)), basis_drift=lambda c, s: {}, basis_condition=lambda c, s: {})
    assert all("no filter basis" in texts(axes) for axes in figure(tmp_path, "basis").axes)


def test_an_ablation_is_paired_with_the_one_sp_cell(tmp_path):
    gain = {"standard": 0.01, "orthonormal": 0.03}

    def accuracy(c, seed):
        extra = gain[c["basis"]["init"]] + 0.001 * seed * seed if c["space"] == "ip" else 0
        return 0.8 + 0.02 * seed + extra

    value = ablated(seeds=range(6))
    write(tmp_path, value, test_accuracy=accuracy)
    broken = value["cells"][3]  # snip, 0.9, orthonormal
    assert broken["basis"]["init"] == "orthonormal" and broken["sparsity"] == "0.9"
    put(tmp_path, record(broken, 2, "diverged", "nan", test_accuracy=None))
    for seed in range(6):
        put(tmp_path, record(value["cells"][-1], seed, "impossible", "FB"))
    drawn = figure(tmp_path, "ablation")
    left, right = panels(drawn, "snip, p = 0.9") + panels(drawn, "snip, p = 0.98")
    names = [label.get_text() for label in left.get_yticklabels()]
    assert names == ["default FB", "init=orthonormal", "lr=0.1, train=false"]
    usual = 100 * (0.01 + 0.055 / 6)
    by_hand = {0: usual, 1: 100 * (5 * 0.03 + 0.055 - 0.004 + 0.1 - 0.84) / 6, 2: usual}  # diverged: a guess
    diamonds = [line for line in left.get_lines() if line.get_marker() == "D"]
    assert {round(line.get_ydata()[0]): line.get_xdata()[0] for line in diamonds} == pytest.approx(by_hand)
    assert [text.get_text() for text in left.texts] == ["n = 6", "n = 6", "n = 6"]
    assert "impossible" in texts(right) and "n = 0" in texts(right)
    assert "41 of 48 runs, 1 diverged, 6 impossible." in texts(drawn)
    # The interval is that of the comparison: the bar of the first variant.
    found = compare({seed: 0.01 + 0.001 * seed * seed for seed in range(6)})
    low, high = left.containers[0].lines[2][0].get_segments()[0][:, 0]
    assert (low, high) == pytest.approx((100 * found.interval.lower, 100 * found.interval.upper))


def test_an_ablation_without_runs_is_drawn(tmp_path):
    value = ablated(methods=("snip", "grasp"))
    write(tmp_path, value, [(c["id"], seed) for c in value["cells"] for seed in c["seeds"]])
    drawn = figure(tmp_path, "ablation")
    assert all("no finished pairs" in texts(axes) for axes in drawn.axes)
    assert len(drawn.axes) == 4
