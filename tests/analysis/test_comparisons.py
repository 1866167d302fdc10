from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from ipbench.analysis.collect import collect, load
from ipbench.analysis.comparisons import analyse, compare, family
from ipbench.analysis.flips import max_t, sign_flip
from ipbench.analysis.tables.parts import seeds_note

from .synthetic import cell, grid, put, record, write

REFERENCE = Path(__file__).parents[2] / "results" / "reference"


def accuracies(sp, ip):
    """Outcomes by seed, the same for every sparsity and method."""
    return {"test_accuracy": lambda cell, seed: (ip if cell["space"] == "ip" else sp)[seed]}


def pairs_of(results):
    return list(analyse(collect(results)).pairs.values())


def test_paired_differences_by_hand(tmp_path):
    sp, ip = [0.80, 0.81, 0.82, 0.79, 0.80, 0.78], [0.82, 0.82, 0.85, 0.80, 0.81, 0.79]
    plan = grid(methods=("snip",), sparsities=("0.9",))
    (found,) = pairs_of(write(tmp_path, plan, **accuracies(sp, ip)))
    shown = found.comparison
    assert shown.n == 6 and shown.mean == pytest.approx((2 + 1 + 3 + 1 + 1 + 1) / 600)
    assert (shown.interval.lower, shown.interval.upper) == pytest.approx((0.01, 0.03))  # six seeds: the extremes
    assert shown.p == found.p_adjusted == 2 / 64 and shown.p_kind == "exact"
    assert found.verdict == found.claim == "IP better" and not found.state


def test_five_seeds_make_no_claim_and_have_no_interval(tmp_path):
    plan = grid(methods=("snip",), sparsities=("0.9",), seeds=range(5))
    (found,) = pairs_of(write(tmp_path, plan, **accuracies([0.5] * 5, [0.9, 0.91, 0.93, 0.9, 0.95])))
    assert found.verdict == "undecided" and found.comparison.interval.kind == "none" and found.comparison.p == 2 / 32


def test_one_family_of_the_grid_its_methods_and_its_comparisons(tmp_path):
    """The adjusted p are those of max-T over all of them together; dense references are outside."""
    plan = grid(methods=("snip", "grasp"), sparsities=("0.9", "0.98"), dense=("sp", "ip"), seeds=range(7))
    rng = np.random.default_rng(0)
    noise = {(c["id"], s): rng.normal(0, 0.01) for c in plan["cells"] for s in range(7)}
    gain = {"snip": 0.02, "grasp": 0.005, "dense": 0.03}
    outcome = {"test_accuracy": lambda c, s: 0.8 + noise[c["id"], s] + (gain[c["method"]] if c["space"] == "ip" else 0)}
    found = analyse(collect(write(tmp_path, plan, **outcome)))
    compared = [one for one in found.pairs.values() if one.state != "reference"]
    assert [one.state for one in found.pairs.values()] == ["reference", "", "", "", ""] and found.members == 7
    assert math.isnan(next(iter(found.pairs.values())).p_adjusted)

    def difference(name):
        sp, ip = name.split("/")
        accuracy = outcome["test_accuracy"]
        by = {c["id"]: c for c in plan["cells"]}
        return np.array([accuracy(by[ip], s) - accuracy(by[sp], s) for s in range(7)])

    cells = [difference(one.included[0]) for one in compared]
    nodes = [*cells, (cells[0] + cells[1]) / 2, (cells[2] + cells[3]) / 2, sum(cells) / 4]
    shown = [*compared, *found.methods.values(), found.overall]
    assert [one.p_adjusted for one in shown] == pytest.approx(max_t(nodes))
    assert [one.comparison.p for one in shown] == pytest.approx([sign_flip(x).p for x in nodes])
    assert [one.comparison.mean for one in shown] == pytest.approx([x.mean() for x in nodes])
    assert {key[2]: one.verdict for key, one in found.methods.items()}["snip"] == "IP better"


def test_unfinished_comparisons_stay_in_the_family_and_impossible_ones_do_not(tmp_path):
    plan = grid(methods=("snip",), sparsities=("0.9", "0.98", "0.99"), seeds=range(9))
    by = {(c["sparsity"], c["space"]): c for c in plan["cells"]}
    write(tmp_path, plan, [(by["0.98", "ip"]["id"], 3)], **accuracies([0.5] * 9, [0.9, 0.91] * 5))
    for seed in range(9):
        put(tmp_path, record(by["0.99", "ip"], seed, "impossible", "FB too large"))
    found = analyse(collect(tmp_path))
    assert [one.state for one in found.pairs.values()] == ["", "incomplete", "impossible"]
    assert found.members == 4  # two comparisons, the method, the grid
    first, second, third = found.pairs.values()
    # Alone it would have 2 / 512; the three members without all of their data add as much each.
    assert first.p_adjusted == pytest.approx(4 * 2 / 512) and first.verdict == "IP better"
    assert second.comparison.p == 2 / 2**8 and math.isnan(second.p_adjusted) and second.verdict == "incomplete"
    assert third.verdict == "impossible" and not third.comparison.n
    assert found.overall.state == "incomplete" and found.overall.included == first.included
    assert set(found.overall.excluded) == {*second.included, *third.included}


def test_what_is_impossible_does_not_keep_an_average_from_being_complete(tmp_path):
    plan = grid(methods=("snip",), sparsities=("0.9", "0.98"))
    write(tmp_path, plan, **accuracies([0.5] * 6, [0.9] * 6))
    for seed in range(6):
        put(tmp_path, record(plan["cells"][-1], seed, "impossible", "FB too large"))
    found = analyse(collect(tmp_path))
    assert found.overall.verdict == "IP better" and len(found.overall.excluded) == 1 and found.members == 3


def test_a_diverged_run_counts_as_a_guess_and_the_rest_stands_beside_it(tmp_path):
    """Left out, it would favour the space that diverges: here IP, which gains wherever it does not."""
    plan = grid(methods=("snip",), sparsities=("0.9",), seeds=range(8))
    _, sp, ip = plan["cells"]
    write(tmp_path, plan, **accuracies([0.8] * 8, [0.81, 0.82] * 4))
    put(tmp_path, record(ip, 3, "diverged", "loss is nan", test_accuracy=0.7))
    put(tmp_path, record(ip, 5, "diverged", "loss is nan", test_accuracy=None))
    (found,) = pairs_of(tmp_path)
    assert found.comparison.n == 8 and found.diverged == 2 and not found.state
    assert found.comparison.mean == pytest.approx((4 * 0.01 + 2 * 0.02 - 2 * 0.7) / 8)  # a guess among ten is 0.1
    assert found.verdict == "undecided"
    assert found.complete_case.n == 6 and found.complete_case.mean == pytest.approx((4 * 0.01 + 2 * 0.02) / 6)
    put(tmp_path, record(sp, 3, "diverged", "loss is nan"))
    (found,) = pairs_of(tmp_path)
    assert found.comparison.n == 8 and found.diverged == 2
    assert found.comparison.mean == pytest.approx((4 * 0.01 + 2 * 0.02 - 0.7) / 8)


def test_of_an_unknown_data_set_a_guess_is_unknown(tmp_path):
    plan = grid(methods=("snip",), sparsities=("0.9",), dataset="pictures", seeds=range(7))
    write(tmp_path, plan, **accuracies([0.5] * 7, [0.9] * 7))
    put(tmp_path, record(plan["cells"][2], 3, "diverged", "loss is nan", test_accuracy=None))
    (found,) = pairs_of(tmp_path)
    assert found.comparison.n == 6 and found.verdict == "incomplete"


def test_averages_are_over_complete_comparisons_and_tell_their_signs(tmp_path):
    plan = grid(methods=("snip", "random"), sparsities=("0.9", "0.98"), seeds=range(7))
    gain = {("snip", "0.9"): 0.01, ("snip", "0.98"): 0.03, ("random", "0.9"): 0.02, ("random", "0.98"): -0.02}

    def accuracy(c, s):
        if c["space"] == "sp" or c["method"] == "dense":
            return 0.5
        return 0.5 + gain[c["method"], c["sparsity"]] + (0.001 * (s - 3) if c["method"] == "random" else 0.001 * s)

    found = analyse(collect(write(tmp_path, plan, test_accuracy=accuracy)))
    methods = {key[2]: one for key, one in found.methods.items()}
    assert list(methods) == ["snip", "random"]  # dense is a reference
    assert methods["snip"].comparison.mean == pytest.approx(0.02 + 0.003) and methods["snip"].comparison.n == 7
    assert methods["snip"].verdict == "IP better" and not methods["snip"].several_signs
    assert methods["random"].comparison.mean == pytest.approx(0.0) and methods["random"].several_signs
    assert methods["random"].signs == (1, 1) and found.overall.signs == (3, 1)


def test_small_differences_are_within_the_margin(tmp_path):
    ip = [0.501, 0.499, 0.502, 0.498, 0.5, 0.501, 0.499]
    for margin, verdict in ((None, "within ±0.5"), (0.1, "undecided")):
        plan = grid(methods=("snip",), sparsities=("0.9",), seeds=range(7)) | ({"margin": margin} if margin else {})
        (found,) = pairs_of(write(tmp_path / str(margin), plan, **accuracies([0.5] * 7, ip)))
        assert found.verdict == verdict and found.within == (margin is None) and found.claim == ""
    claimed = grid(methods=("snip",), sparsities=("0.9",), seeds=range(7))
    (found,) = pairs_of(write(tmp_path / "claimed", claimed, **accuracies([0.5] * 7, [0.501, 0.502] * 4)))
    assert found.verdict == "IP better" and found.within  # a claim comes first


def test_no_average_over_options_or_bases(tmp_path):
    """A search over options is no sample of anything: its cells are the family."""
    bases = [{"init": init} for init in ("standard", "orthonormal")]
    cells = [cell("snip", "sp", "0.9"), *(cell("snip", "ip", "0.9", basis=basis) for basis in bases)]
    options = [cell("cops", space, "0.9", options={"beta": b}) for b in (0.5, 0.9) for space in ("sp", "ip")]
    for name, some, shared in (("basis", cells, True), ("options", options, False)):
        found = analyse(collect(write(tmp_path / name, grid() | {"cells": some})))
        assert found.overall is None and not found.methods and found.members == 2 and found.shared == shared
        assert [key[2] for key in found.not_averaged] == [some[0]["method"]]
    assert not analyse(collect(write(tmp_path / "usual", grid()))).shared


def test_seeds_differ_between_cells(tmp_path):
    """An average has the seeds that all of its cells have; flips are joint over the seeds of all."""
    plan = grid(methods=("snip",), sparsities=("0.9", "0.98"), seeds=range(8))
    for one in plan["cells"]:
        if one["sparsity"] == "0.98":
            one["seeds"] = [2, 3, 4, 5, 6, 7, 8]
    found = analyse(collect(write(tmp_path, plan)))
    assert [one.comparison.n for one in found.pairs.values()] == [8, 7] and found.overall.comparison.n == 6
    by_seed = [{0: 1.0, 1: 2.0, 2: 1.5}, {1: 3.0, 2: -1.0, 3: 2.0}]
    assert family(by_seed) == max_t([[1, 2, 1.5, 0], [0, 3, -1, 2]])


def test_a_grid_without_results_has_no_numbers(tmp_path):
    plan = grid(methods=("snip",), sparsities=("0.9",))
    every = [(one["id"], seed) for one in plan["cells"] for seed in one["seeds"]]
    found = analyse(collect(write(tmp_path, plan, every)))
    assert found.overall.comparison.n == 0 and math.isnan(found.overall.comparison.p)
    (pair,) = found.pairs.values()
    assert pair.comparison.n == 0 and math.isnan(pair.comparison.mean) and pair.verdict == "incomplete"
    assert math.isnan(found.spread) and "planned: 6" in seeds_note(collect(tmp_path), found)


@pytest.mark.parametrize(("seeds", "told"), [(2, "Seeds planned: 2;"), (3, "planned: 3.")])
def test_two_seeds_do_not_say_how_many_to_plan(tmp_path, seeds, told):
    found = analyse(collect(write(tmp_path, grid(methods=("snip",), sparsities=("0.9",), seeds=range(seeds)))))
    assert math.isnan(found.spread) == (seeds < 3) and told in seeds_note(collect(tmp_path), found)


@pytest.mark.parametrize(("place", "key", "value"), [("provenance", "torch", "1.0"), ("provenance", "processes", 7)])
def test_what_would_mix_settings_is_not_formed_and_the_others_stand(tmp_path, place, key, value):
    plan = grid(methods=("snip", "grasp"), sparsities=("0.9",))
    write(tmp_path, plan, **accuracies([0.5] * 6, [0.6] * 6))
    changed = record(plan["cells"][2], 4)
    changed[place][key] = value
    put(tmp_path, changed)
    found = analyse(collect(tmp_path))
    mixed, other = found.pairs.values()
    assert mixed.state == mixed.verdict == "mixed" and str(value) in mixed.mixed and not mixed.comparison.n
    methods = {key[2]: one.verdict for key, one in found.methods.items()}
    assert methods == {"snip": "mixed", "grasp": other.verdict} and found.overall.verdict == "mixed"
    assert other.comparison.p == 2 / 64 and other.p_adjusted == pytest.approx(4 * 2 / 64)  # three are missing


def test_the_settings_of_two_sides_are_not_mixed_either(tmp_path):
    plan = grid(methods=("snip",), sparsities=("0.9",))
    write(tmp_path, plan)
    for seed in range(6):
        changed = record(plan["cells"][2], seed)
        changed["provenance"]["processes"] = 2
        put(tmp_path, changed)
    (found,) = pairs_of(tmp_path)
    assert found.mixed == "2 numbers of processes (1, 2)"


def test_ratios_have_the_interval_of_the_test():
    logarithms = {seed: math.log(ratio) for seed, ratio in enumerate([1.1, 1.2, 1.05, 1.3, 1.15, 1.25])}
    interval = compare(logarithms).interval
    assert (math.exp(interval.lower), math.exp(interval.upper)) == pytest.approx((1.05, 1.3))


#: What the published grids say: the average over the grid (adjusted p), the methods and how many cells with a claim.
PUBLISHED = {
    "ip-fashion": (0.0039, {"magnitude", "snip", "grasp", "set", "gmp", "ft"}, 13, 30),
    "fashion": (0.125, {"synflow"}, 5, 12),
    "ip-fashion-basis": (None, set(), 1, 8),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_grids(name):
    overall, methods, claimed, of = PUBLISHED[name]
    found = analyse(load(REFERENCE / name))
    assert {key[2] for key, one in found.methods.items() if one.claim} == methods
    cells = [one for one in found.pairs.values() if one.state == ""]
    assert (sum(bool(one.claim) for one in cells), len(cells)) == (claimed, of)
    if overall is None:
        assert found.overall is None and found.shared
    else:
        assert found.overall.p_adjusted == pytest.approx(overall, abs=1e-3)
        verdicts = {key[2]: one.verdict for key, one in found.methods.items()}
        if name == "ip-fashion":
            assert {method for method, verdict in verdicts.items() if verdict == "within ±0.5"} == {
                "synflow", "rigl", "lt",
            }  # fmt: skip
            assert verdicts["random"] == "undecided"
