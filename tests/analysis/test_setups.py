"""Setups of comparisons: each of Wang et al.'s by records made for it, and rankings only where they allow one."""

from __future__ import annotations

import hashlib

import pytest

from ipbench.analysis.collect import collect
from ipbench.analysis.grid import parse
from ipbench.analysis.places import places
from ipbench.analysis.plan import plan_tables
from ipbench.analysis.rankings import in_short, rankings, same_winner
from ipbench.analysis.setups import near
from ipbench.analysis.tables import make_tables
from ipbench.analysis.terminal import summarise
from ipbench.planning.trainings import trainings_of
from ipbench.spec import Run

from .synthetic import EPOCHS, cell, put, record, write

pytestmark = pytest.mark.usefixtures("unchecked")

#: SHA-256 of the outcome of a run that has none.
EMPTY = hashlib.sha256(b"{}").hexdigest()
#: Of a grid: as of `write`, what every record says unless a test says otherwise.
ALIKE = {"achieved_sparsity": lambda c, s: 0.9, "reached": lambda c, s: 0.3}
FILTERS = {"pattern": "filters", "budget": "macs", "allocation": "uniform"}


def filters(method, **options):
    return cell(method, "sp", "0.3", options=options, **FILTERS)


def found(tmp_path, *cells, skip=(), **outcomes):
    """The rankings of some cells, the collection too."""
    plan = {"name": "small", "title": "Small", "cells": list(cells)}
    collection = collect(write(tmp_path, plan, skip, **{**ALIKE, **outcomes}))
    assert not collection.unreadable
    return rankings(collection), collection


def setup(tmp_path, *cells, **outcomes):
    """The setup of all of some cells."""
    whole = found(tmp_path, *cells, **outcomes)[0][0]
    assert whole.whole and len(whole.cells) == len([c for c in cells if c["method"] not in ("dense", "orthonormal")])
    return whole.setup


FT, SLOW = cell("ft", "sp", "0.9"), cell("ft", "sp", "0.9", options={"lr": 0.01})


@pytest.mark.parametrize(
    ("cells", "text", "named"),
    [
        # The start: initial values against the trained dense net of EPOCHS epochs more.
        ((cell("snip", "sp", "0.9"), FT), "S1", "start (the initial values: snip; the trained dense net: ft)"),
        # 8 epochs behind the dense net against 4: 16 and 12 in all.
        ((FT, cell("ft", "sp", "0.9", options={"epochs": 4})), "S2", "epochs of retraining (8:"),
        # As many epochs, and another learning rate: 0.1 and 0.01 of the recipe's 0.1.
        ((FT, SLOW), "S3.1, SX-A, SX-B", "learning rate of retraining (0.01:"),
        # Retrained alike, behind a training whose length its updater decides.
        ((filters("l1-filters"), filters("greg-1", rise=0.02, every=2, stabilise=40)), "S3.2, SX-B", "while pruning"),
        # Pruned while they train, as long, at another rate; then retrained alike.
        ((filters("sfp", tune=2), filters("asfp", tune=2, lr=0.5)), "S4.1, SX-A, SX-B", "recipe while pruning (0.1"),
        ((filters("sfp", tune=2), filters("asfp", tune=2)), "S4.2, SX-A, SX-B", "Nothing of these differs"),
        # One training each; that the masks of one change in it makes no other recipe.
        ((cell("snip", "sp", "0.9"), cell("gmp", "sp", "0.9")), "S4.2, SX-A, SX-B", "Nothing of these differs"),
        # 16 epochs from initial values, or 8 of the dense net and 8 behind it.
        ((filters("sfp", epochs=16), filters("l1-filters")), "S1, SX-A, SX-B", "start ("),
        # A method that is not known here: nothing is said of its trainings.
        ((cell("snip", "sp", "0.9"), cell("mine", "sp", "0.9")), "S1, SX-B", "start (the initial values: snip"),
    ],
    ids=["S1", "S2", "S3.1", "S3.2", "S4.1", "S4.2", "S4.2-one-training", "SX-A", "unknown"],
)  # fmt: skip
def test_each_setup_is_reached(tmp_path, cells, text, named):
    flops = {cells[0]["id"]: 1e12, cells[1]["id"]: 1e12 if "SX-B" in text else 1.06e12}
    got = setup(tmp_path, *cells, training_flops=lambda c, s: flops[c["id"]])
    assert (got.text, got.ranks) == (text, text[:4] in ("S3.2", "S4.1", "S4.2"))
    assert named in got.sentence


def test_shares_that_differ_are_no_setup(tmp_path):
    cells = cell("snip", "sp", "0.9"), cell("random", "sp", "0.9")
    share = {"snip": 0.9, "random": 0.906}  # 0.1 and 0.094 are left, 6 % apart
    got = setup(tmp_path, *cells, achieved_sparsity=lambda c, s: share[c["method"]])
    assert got.label == "none" and not got.totals
    assert got.sentence == "Not the same: removed share (0.9: snip; 0.906: random)."
    assert near([0.1, 0.0953]) and not near([0.1, 0.094]) and not near([0.1, float("nan")])


def test_other_images_under_one_name_are_no_setup(tmp_path):
    cells = [cell(method, "sp", "0.9", seeds=[0]) for method in ("snip", "random")]
    write(tmp_path, {"name": "small", "title": "Small", "cells": cells})
    for planned, digest in zip(cells, "ab", strict=True):
        value = record(planned, 0, achieved_sparsity=0.9)
        put(tmp_path, value | {"provenance": value["provenance"] | {"data": digest * 64}})
    got = rankings(collect(tmp_path))[0].setup
    assert got.label == "none" and "images by their digest (aaaaaaaaaaaa: snip; bbbbbbbbbbbb: random)" in got.sentence


@pytest.mark.parametrize(("other", "label"), [("1", "S4.2"), ("2", "S1")])
def test_the_dense_start_is_its_weights_where_they_are_recorded(tmp_path, other, label):
    # Trained without a penalty, `orthonormal` gives a dense net under another name: the same one, or not.
    one, two = filters("l1-filters", lr=1.0), filters("scored-filters", before=EPOCHS)
    starts = [trainings_of(Run(**record(c, 0)["run"])).start for c in (one, two)]
    assert [start.method for start in starts] == ["dense", "orthonormal"]
    dense = cell("dense", "sp", "0")
    penalised = cell("orthonormal", "sp", "0", options=starts[1].options)
    assert [dense["id"], penalised["id"]] == [start.cell for start in starts]
    digest = {dense["id"]: "1", penalised["id"]: other}
    got = setup(
        tmp_path, dense, penalised, one, two,
        weights_sha256=lambda c, s: f"{digest.get(c['id'], '3')}{s}" * 32,
    )  # fmt: skip
    # The recipe of the penalised training has no weight decay: that is the start's, and its weights are what counts.
    assert got.label == label
    without = setup(tmp_path / "without", one, two)
    assert without.label == "S1" and "the trained net of orthonormal: scored-filters" in without.sentence


def test_the_start_is_the_trained_net_of_levels_too():
    run = Run(**record(cell("lt", "sp", "0.9", options={"rate": 0.5}), 0)["run"])
    levels = trainings_of(run)
    assert levels.start.method == "dense" and len(levels.before) == 1
    # 0.5, 0.75 and 0.875 are pruned before 0.9: three trainings, then that of the run.
    assert [len(levels.pruning), len(levels.retraining), levels.epochs] == [3, 1, 5 * EPOCHS]


def accuracy(means, spread=0.0):
    """A method's accuracy: its mean, and seeds that go up and down by turns."""
    return lambda c, s: means[c["method"]] + (spread * (-1) ** s if c["method"] == min(means) else 0)


def test_a_ranking_tells_neighbours_apart_by_paired_seeds(tmp_path):
    cells = [cell(method, "sp", "0.9") for method in ("snip", "random", "synflow")]
    means = {"snip": 0.9, "random": 0.8, "synflow": 0.81}
    # `random` differs from `synflow` by -0.01 and five points more or less by turns: of either sign.
    (one,), _ = found(tmp_path, *cells, test_accuracy=accuracy(means, 0.05))
    assert one.whole and one.winner == "snip" and one.told == "snip 90.00 > synflow 81.00 ≈ random 80.00"


def test_a_ranking_and_the_table_print_one_mean(tmp_path):
    """A mean of 0.80855, whose last bit depends on how it is summed: 80.85, and never 80.86 beside it."""
    of_seeds = [0.8041, 0.8, 0.8098, 0.8171, 0.8081, 0.8122]
    cells = [cell(method, "sp", "0.9") for method in ("snip", "random")]
    (one,), collection = found(
        tmp_path, *cells, test_accuracy=lambda c, s: of_seeds[s] if c["method"] == "snip" else 0.7
    )
    assert one.told == "snip 80.85 > random 70.00"
    printed = make_tables(collection)["accuracy"].printed
    assert printed["SP"][printed["method"] == "snip"].item().startswith("80.85 ")


def test_five_seeds_tell_nothing_apart(tmp_path):
    cells = [cell(method, "sp", "0.9", seeds=range(5)) for method in ("snip", "random")]
    (one,), _ = found(tmp_path, *cells, test_accuracy=accuracy({"snip": 0.9, "random": 0.8}))
    assert one.told == "snip 90.00 ≈ random 80.00"


def test_a_ranking_is_withheld_where_the_recipe_differs(tmp_path):
    got, collection = found(tmp_path, FT, SLOW)
    assert [(one.told, one.why_not) for one in got] == [("", "withheld: setup S3.1")]
    text = summarise(collection)
    assert "Methods side by side: setup S3.1, SX-A, SX-B" in text and "Ranked" not in text
    assert "No ranking of all methods, for which S3.2 is the least; not the same: learning rate" in " ".join(
        text.split()
    )
    printed = make_tables(collection)["setups"].printed
    assert list(printed["ranking"]) == ["withheld: setup S3.1"] and "learning rate" in printed["what differs"][0]


def test_those_that_start_and_are_retrained_alike_are_ranked_among_themselves(tmp_path):
    cells = [*(cell(method, "sp", "0.9") for method in ("snip", "random")), FT, SLOW]
    got, collection = found(tmp_path, *cells, test_accuracy=accuracy({"snip": 0.8, "random": 0.7, "ft": 0.9}))
    assert [(one.whole, one.names, one.told) for one in got[1:]] == [
        (False, ("snip", "random"), "snip 80.00 > random 70.00")
    ]
    assert got[0].why_not == "withheld: setup S1" and len(in_short(got)) == 2
    tables = make_tables(collection)
    assert tables["accuracy"].notes[-2:] == tuple(in_short(got))
    assert list(tables["setups"].printed["methods"]) == ["all 4", "snip, random"]
    assert "Ranked (space SP, sparsity p 0.9; S4.2, SX-A, SX-B, 2 methods): snip 80.00" in summarise(collection)


def test_no_ranking_before_all_runs_are_in(tmp_path):
    cells = [cell(method, "sp", "0.9") for method in ("snip", "random")]
    (one,), _ = found(tmp_path, *cells, skip=[(cells[1]["id"], 3)])
    assert one.setup.label == "S4.2" and (one.told, one.why_not) == ("", "not yet: runs are missing")


@pytest.mark.parametrize(("second", "same"), [(0.7, "yes: snip"), (0.95, "no: snip, random")])
def test_the_same_winner_under_both_recipes(tmp_path, second, same):
    recipes = {"epochs": EPOCHS}, {"epochs": EPOCHS, "lr": 0.01}
    cells = [cell(method, "sp", "0.9", recipe=recipe) for recipe in recipes for method in ("snip", "random")]
    value = lambda c, s: 0.8 if c["method"] == "snip" else second if "lr" in c["recipe"] else 0.7  # noqa: E731
    got, collection = found(tmp_path, *cells, test_accuracy=value)
    assert got[0].winner == "snip" and same_winner(got) == [same, same]
    printed = make_tables(collection)["setups"].printed
    assert list(printed["same winner under both recipes?"]) == [same, same] and "recipe" in printed


def test_one_recipe_has_no_such_column_and_one_method_no_such_table(tmp_path):
    two = [cell(method, "sp", "0.9") for method in ("snip", "random")]
    _, collection = found(tmp_path / "two", *two)
    assert not [name for name in make_tables(collection)["setups"].printed if "winner" in name]
    _, collection = found(
        tmp_path / "one", cell("dense", "sp", "0"), cell("snip", "sp", "0.9"), cell("snip", "ip", "0.9")
    )
    assert "setups" not in make_tables(collection) and not in_short(rankings(collection))
    assert not any("setups" in path for path in plan_tables(collection.grid))


def test_places_hold_what_differs_in_the_method_alone():
    cells = [
        cell("snip", "sp", "0.9"), cell("snip", "ip", "0.9"), cell("random", "sp", "0.9"),
        cell("random", "sp", "0.95"), cell("random", "sp", "0.9", off="frozen"),
        cell("rigl", "sp", "0.9", allocation="erk"), cell("dense", "sp", "0"),
        cell("sfp", "sp", "0", options={"rate": 0.3}, knob="rate", **FILTERS),
        cell("asfp", "sp", "0", options={"rate": 0.3}, knob="rate", **FILTERS),
        cell("asfp", "sp", "0", options={"rate": 0.5}, knob="rate", **FILTERS),
    ]  # fmt: skip
    got = places(parse({"name": "small", "title": "", "cells": cells}))
    assert [[one.method for one in some] for some in got] == [["snip", "random", "rigl"], ["sfp", "asfp"]]


def test_other_seeds_are_other_starts_and_a_diverged_cell_is_held_against_nobody(tmp_path):
    cells = [cell("snip", "sp", "0.9"), cell("random", "sp", "0.9", seeds=range(1, 7))]
    got = setup(tmp_path / "seeds", *cells)
    assert got.label == "S1"
    assert (
        got.sentence
        == "Not the same: start (the initial values, seeds 0–5: snip; the initial values, seeds 1–6: random)."
    )
    cells = [cell(method, "sp", "0.9") for method in ("snip", "random")]
    write(tmp_path / "lost", {"name": "small", "title": "Small", "cells": cells}, achieved_sparsity=lambda c, s: 0.9)
    for seed in range(6):
        value = record(cells[1], seed, "diverged", "loss is nan in epoch 2")
        put(tmp_path / "lost", value | {"outcome": {}, "outcome_sha256": EMPTY})
    (one,) = rankings(collect(tmp_path / "lost"))
    # A diverged run counts as a guess, 1 / classes.
    assert one.setup.text == "S4.2, SX-A" and one.told.endswith("> random 10.00")
