from __future__ import annotations

import math

import pytest

from ipbench.analysis.collect import collect
from ipbench.analysis.comparisons import GAP, all_cells, by_method, counts, metric_values, overall, paired, seeds_note
from ipbench.errors import BadInput

from .synthetic import grid, put, record, write


def accuracies(sp, ip):
    """Outcomes by seed, the same for every sparsity and method."""
    return {"test_accuracy": lambda cell, seed: (ip if cell["space"] == "ip" else sp)[seed]}


def test_paired_differences_by_hand(tmp_path):
    sp, ip = [0.80, 0.81, 0.82, 0.79, 0.80, 0.78], [0.82, 0.82, 0.85, 0.80, 0.81, 0.79]
    plan = grid(methods=("snip",), sparsities=("0.9",))
    pairs = paired(collect(write(tmp_path, plan, **accuracies(sp, ip))))
    (row,) = pairs.to_dict("records")
    assert row["n"] == 6 and row["mean"] == pytest.approx((2 + 1 + 3 + 1 + 1 + 1) / 600)
    assert row["lower"] < row["mean"] < row["upper"] and row["lower"] == pytest.approx(0.01, abs=0.002)
    assert row["p"] == row["p_holm"] == 2 / 64
    assert row["claim"] == "IP better" and row["p_kind"] == "exact"


def test_five_seeds_make_no_claim_and_two_no_interval(tmp_path):
    for seeds, kind in ((5, "BCa"), (2, "none")):
        plan = grid(methods=("snip",), sparsities=("0.9",), seeds=range(seeds))
        ip = [0.9, 0.91, 0.93, 0.9, 0.95]
        (row,) = paired(collect(write(tmp_path / kind, plan, **accuracies([0.5] * 5, ip)))).to_dict("records")
        assert row["claim"] == "no claim" and row["interval"] == kind and row["p"] == 2 / 2**seeds


def test_holm_runs_over_the_whole_grid_and_leaves_references_out(tmp_path):
    plan = grid(methods=("snip", "grasp"), sparsities=("0.9", "0.98"), dense=("sp", "ip"), seeds=range(7))
    shift = {"snip": 0.02, "grasp": 0.01, "dense": 0.03}
    outcome = {
        "test_accuracy": lambda c, s: 0.8 + 0.001 * s + (shift[c["method"]] + 0.001 * s if c["space"] == "ip" else 0)
    }
    pairs = paired(collect(write(tmp_path, plan, **outcome)))
    assert list(pairs["reference"]) == [True, False, False, False, False]
    assert list(pairs["p"]) == [2 / 128] * 5
    assert math.isnan(pairs["p_holm"][0]) and list(pairs["p_holm"][1:]) == [4 * 2 / 128] * 4
    assert set(pairs["claim"]) == {"no claim"}
    assert "over 4 comparisons needs 8 seeds; planned: 7" in seeds_note(pairs)


def test_unfinished_comparisons_stay_in_the_family_and_impossible_ones_do_not(tmp_path):
    plan = grid(methods=("snip",), sparsities=("0.9", "0.98", "0.99"))
    by = {(c["sparsity"], c["space"]): c for c in plan["cells"]}
    skip = [(by["0.98", "ip"]["id"], seed) for seed in range(6)]
    ip = [0.9, 0.91, 0.93, 0.9, 0.95, 0.94]
    write(tmp_path, plan, skip, **accuracies([0.5] * 6, ip))
    for seed in range(6):
        put(tmp_path, record(by["0.99", "ip"], seed, "impossible", "FB too large"))
    pairs = paired(collect(tmp_path))
    assert list(pairs["impossible"]) == [False, False, True]
    assert pairs["p_holm"][0] == 2 * 2 / 64  # two in the family, one of them without data yet
    assert math.isnan(pairs["p_holm"][1]) and math.isnan(pairs["p_holm"][2])
    assert list(pairs["claim"]) == ["no claim"] * 3


def test_diverged_pairs_are_left_out_and_counted(tmp_path):
    plan = grid(methods=("snip",), sparsities=("0.9",), seeds=range(8))
    sp, ip = plan["cells"][1:]
    write(tmp_path, plan)
    put(tmp_path, record(sp, 0, "diverged", "loss is nan", test_accuracy=None))
    put(tmp_path, record(ip, 0, "diverged", "loss is nan", test_accuracy=None))
    put(tmp_path, record(ip, 3, "diverged", "loss is nan", test_accuracy=0.1))
    collection = collect(tmp_path)
    (row,) = paired(collection).to_dict("records")
    assert row["n"] == 6 and row["diverged"] == 2 and row["planned"] == 8
    ended = counts(collection)
    assert (ended[sp["id"]].diverged, ended[ip["id"]].diverged, ended[ip["id"]].done) == (1, 2, 6)
    assert all_cells(collection)[ip["id"]].n == 6


def test_the_global_test_averages_over_complete_comparisons(tmp_path):
    plan = grid(methods=("snip",), sparsities=("0.9", "0.98", "0.99"))
    by = {(c["sparsity"], c["space"]): c for c in plan["cells"]}
    gain = {"0.9": 0.01, "0.98": 0.03, "0.99": 0.5}
    outcome = {"test_accuracy": lambda c, s: 0.4 + (gain[c["sparsity"]] + 0.001 * s if c["space"] == "ip" else 0)}
    write(tmp_path, plan, [(by["0.99", "sp"]["id"], 2)], **outcome)
    found = overall(collect(tmp_path))
    assert found.comparison.n == 6 and found.comparison.mean == pytest.approx(0.02 + 0.0025)
    assert found.comparison.p == 2 / 64
    assert len(found.included) == 2
    assert found.excluded == (f"{by['0.99', 'sp']['id']}/{by['0.99', 'ip']['id']}",)


def test_a_method_is_tested_over_its_sparsities(tmp_path):
    """Two methods by hand: one gains at both sparsities, one gains and loses; Holm over the two of them."""
    plan = grid(methods=("snip", "random"), sparsities=("0.9", "0.98"), seeds=range(7))
    gain = {("snip", "0.9"): 0.01, ("snip", "0.98"): 0.03, ("random", "0.9"): 0.02, ("random", "0.98"): -0.02}

    def accuracy(c, s):
        if c["space"] == "sp" or c["method"] == "dense":
            return 0.5
        return 0.5 + gain[c["method"], c["sparsity"]] + (0.001 * (s - 3) if c["method"] == "random" else 0.001 * s)

    collection = collect(write(tmp_path, plan, test_accuracy=accuracy))
    found = {record["method"]: record for record in by_method(collection).to_dict("records")}
    assert list(found) == ["snip", "random"]  # dense is a reference
    assert found["snip"]["mean"] == pytest.approx(0.02 + 0.003) and found["snip"]["n"] == 7
    assert found["snip"]["p"] == 2 / 128 and found["snip"]["p_holm"] == 4 / 128
    assert found["snip"]["claim"] == "IP better" and found["random"]["claim"] == "no claim"
    assert found["random"]["mean"] == pytest.approx(0.0) and found["random"]["comparisons"] == 2


def test_the_global_test_uses_the_seeds_that_all_have(tmp_path):
    plan = grid(methods=("snip",), sparsities=("0.9", "0.98"))
    for cell in plan["cells"]:
        if cell["sparsity"] == "0.98":
            cell["seeds"] = [2, 3, 4, 5, 6]
    assert overall(collect(write(tmp_path, plan))).comparison.n == 4


def test_a_grid_without_results_has_no_numbers(tmp_path):
    plan = grid(methods=("snip",), sparsities=("0.9",))
    every = [(cell["id"], seed) for cell in plan["cells"] for seed in cell["seeds"]]
    collection = collect(write(tmp_path, plan, every))
    found = overall(collection)
    assert found.comparison.n == 0 and math.isnan(found.comparison.p) and len(found.excluded) == 1
    (row,) = paired(collection).to_dict("records")
    assert row["n"] == 0 and math.isnan(row["mean"]) and row["claim"] == "no claim"


def test_numbers_of_processes_never_meet_in_a_test(tmp_path):
    plan = grid(methods=("snip",), sparsities=("0.9",))
    write(tmp_path, plan)
    for seed in (3, 4):
        changed = record(plan["cells"][2], seed)
        changed["provenance"]["processes"] = seed
        put(tmp_path, changed)
    collection = collect(tmp_path)
    for test in (paired, overall):
        with pytest.raises(BadInput, match="one test would mix runs of 2") as error:
            test(collection)
        assert "\n" not in str(error.value)


def test_statistics_of_a_cell_by_hand(tmp_path):
    plan = grid(methods=("snip",), sparsities=("0.9",), seeds=range(3))
    outcome = {"test_accuracy": lambda c, s: [0.5, 0.6, 0.7][s], "train_accuracy": lambda c, s: 0.9}
    collection = collect(write(tmp_path, plan, **outcome))
    found = all_cells(collection)[plan["cells"][1]["id"]]
    assert (found.n, found.mean, found.std) == (3, pytest.approx(0.6), pytest.approx(0.1))
    assert found.lower < 0.6 < found.upper
    gap = metric_values(collection.runs, GAP)[plan["cells"][1]["id"]]
    assert gap == pytest.approx({0: 0.4, 1: 0.3, 2: 0.2})
