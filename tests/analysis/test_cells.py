from __future__ import annotations

import pytest

from ipbench.analysis.cells import GAP, PRIMARY, SELECTED, all_cells, counts, metric_values
from ipbench.analysis.collect import collect

from .synthetic import cell, grid, put, record, write


def test_statistics_of_a_cell_by_hand(tmp_path):
    plan = grid(methods=("snip",), sparsities=("0.9",), seeds=range(3))
    outcome = {"test_accuracy": lambda c, s: [0.5, 0.6, 0.7][s], "train_accuracy": lambda c, s: 0.9}
    collection = collect(write(tmp_path, plan, **outcome))
    found = all_cells(collection)[plan["cells"][1]["id"]]
    assert (found.n, found.mean, found.std) == (3, pytest.approx(0.6), pytest.approx(0.1))
    half = 4.302653 * 0.1 / 3**0.5  # t of two degrees of freedom
    assert (found.lower, found.upper, found.interval) == (pytest.approx(0.6 - half), pytest.approx(0.6 + half), "t")
    gap = metric_values(collection.runs, GAP)[plan["cells"][1]["id"]]
    assert gap == pytest.approx({0: 0.4, 1: 0.3, 2: 0.2})


def test_an_interval_of_accuracies_ends_at_zero_and_one(tmp_path):
    plan = grid(methods=("snip",), sparsities=("0.9",), seeds=range(3))
    collection = collect(write(tmp_path, plan, test_accuracy=lambda c, s: [0.999, 0.8, 0.999][s]))
    assert all_cells(collection)[plan["cells"][1]["id"]].upper == 1.0


def test_diverged_runs_count_as_guesses(tmp_path):
    plan = grid(methods=("snip",), sparsities=("0.9",), seeds=range(3))
    write(tmp_path, plan, test_accuracy=lambda c, s: 0.8, test_accuracy_selected=lambda c, s: 0.8)
    sp = plan["cells"][1]
    put(tmp_path, record(sp, 1, "diverged", "loss is nan", test_accuracy=0.7))
    collection = collect(tmp_path)
    for metric in (PRIMARY, SELECTED):
        assert metric_values(collection.runs, metric)[sp["id"]] == {0: 0.8, 1: 0.1, 2: 0.8}
        assert metric_values(collection.runs, metric, complete_case=True)[sp["id"]] == {0: 0.8, 2: 0.8}
    assert metric_values(collection.runs, GAP)[sp["id"]].keys() == {0, 2}  # what it had learnt is not known
    assert all_cells(collection)[sp["id"]].mean == pytest.approx(1.7 / 3)
    found = counts(collection)[sp["id"]]
    assert (found.done, found.diverged, found.lost, found.collapsed, found.chance) == (2, 1, 1, 0, 0)


def test_runs_at_chance_are_counted_whatever_the_method(tmp_path):
    plan = grid(methods=("snip",), sparsities=("0.9",), dense=("sp",), seeds=range(4))
    collection = collect(write(tmp_path, plan, test_accuracy=lambda c, s: [0.1, 0.15, 0.18, 0.9][s]))
    assert [(found.chance, found.collapsed, found.lost) for found in counts(collection).values()] == [(2, 0, 2)] * 3


def test_a_run_with_an_empty_layer_is_collapsed_whatever_its_accuracy(tmp_path, unchecked):
    """Where masked coefficients keep their values, a layer of which nothing is kept still computes."""
    cells = [cell("snip", "sp", "0.9", off=off, seeds=range(3)) for off in ("zero", "frozen", "decayed")]
    outcome = {
        "collapsed_layers": lambda c, s: ["fc1"] if s else [],
        "test_accuracy": lambda c, s: [0.9, 0.9, 0.1][s],
    }
    collection = collect(write(tmp_path, grid() | {"cells": cells}, **outcome))
    found = [(one.collapsed, one.chance, one.lost) for one in counts(collection).values()]
    assert found == [(2, 1, 2), (0, 1, 1), (0, 1, 1)]


def test_a_cell_of_mixed_settings_has_no_mean(tmp_path):
    plan = grid(methods=("snip",), sparsities=("0.9",))
    write(tmp_path, plan)
    changed = record(plan["cells"][1], 2)
    changed["provenance"]["processes"] = 2
    put(tmp_path, changed)
    found = all_cells(collect(tmp_path))
    assert (
        found[plan["cells"][1]["id"]].n == 0 and found[plan["cells"][1]["id"]].mixed == "2 numbers of processes (1, 2)"
    )
    assert found[plan["cells"][2]["id"]].n == 6
