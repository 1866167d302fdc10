"""What controls leave of gains, on records whose answers are known by construction."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from ipbench.analysis import survive, write_report, write_runs, write_tables
from ipbench.analysis.collect import load, load_both
from ipbench.analysis.controls import Making, beside, making
from ipbench.analysis.grid import parse
from ipbench.analysis.plan import nets_with_controls, plan, plan_tables
from ipbench.analysis.survival import Line, Survival, survival
from ipbench.analysis.survival_text import text
from ipbench.analysis.tables import make_tables
from ipbench.cli.main import main

from .drawing import figure, texts
from .synthetic import cell, grid, put, record, write

#: Of random pruning at sparsity 0.9, of every method, and of the dense net.
RANDOM, DENSE = 0.8, 0.9
#: In place of noise: by seed, in points of 1/10,000; two of them have a mean of zero.
WOBBLE = (3, -1, -2, 2, -3, 1)


def accuracy(gains, c, seed):
    """Random pruning plus what `gains` says of (method, control); of these and a space, or a seed, where it does."""
    control = c.get("control", "none")
    base = DENSE if c["method"] == "dense" or control == "origin" else RANDOM
    key = (c["method"], control)
    gain = gains.get((*key, seed), gains.get((*key, c["space"]), gains.get(key, 0.0)))
    shift = sum(map(ord, c["method"] + control + c["space"]))  # another order of the wobble in every cell
    return round(base + 0.01 * WOBBLE[seed % 6] + gain + 1e-4 * WOBBLE[(seed + shift) % 6], 6)


def chain(folder, gains, methods=("snip",), spaces=("sp",), skip=(), baselines=None, **axes) -> Path:
    """Records of methods with the controls that `gains` names, of random pruning and of the dense nets."""
    cells = [cell("dense", space, "0") for space in spaces]
    if baselines is None:
        baselines = [cell("random", space, "0.9", **axes) for space in spaces]
    cells += baselines
    for method in methods:
        controls = dict.fromkeys(["none", *(key[1] for key in gains if key[0] == method)])
        cells += [cell(method, space, "0" if control == "origin" else "0.9", control=control, **axes)
                  for space in spaces for control in controls]  # fmt: skip
    value = {"name": "controlled", "title": "Controlled", "cells": cells}
    lost = [(c["id"], seed) for c in cells for seed in range(6)
            if (c["method"], c.get("control", "none"), seed) in skip]  # fmt: skip
    write(folder, value, lost, test_accuracy=lambda c, seed: accuracy(gains, c, seed))
    write_runs(folder)
    return folder


def told(folder) -> Survival:
    return survival(load(folder, controls=True))


def one(folder) -> Line:
    (line,) = told(folder).lines
    return line


def verdict(tmp_path, gains, method="snip"):
    line = one(chain(tmp_path, {(method, control): gain for control, gain in gains.items()}, (method,)))
    return line.sides["sp"].verdict


def test_a_gain_in_the_layer_ratios(tmp_path):
    found = verdict(tmp_path, {"none": 0.04, "shuffle": 0.039, "borrowed-ratios": 0.039, "reinitialise": 0.04})
    assert found.short == "layer ratios"
    assert "in the layer ratios (shuffle within layers leaves 98" in found.sentence
    assert "not in the initial values" in found.sentence


def test_a_gain_in_the_positions(tmp_path):
    found = verdict(tmp_path, {"none": 0.04, "shuffle": 0.002, "borrowed-ratios": 0.001, "reinitialise": 0.039})
    assert found.short == "positions" and "in the positions (shuffle within layers leaves 5" in found.sentence
    assert "alone make less than half" in found.sentence


def test_a_gain_in_both(tmp_path):
    found = verdict(tmp_path, {"none": 0.04, "shuffle": 0.028})
    assert found.short == "positions and layer ratios" and "leaves 70" in found.sentence


def test_a_gain_in_initial_values(tmp_path):
    found = verdict(tmp_path, {"none": 0.04, "reinitialise": 0.0, "shuffle": 0.039})
    assert found.short == "layer ratios, initial values"


def test_a_gain_in_inherited_values_and_not_in_the_positions(tmp_path):
    gains = {"none": 0.06, "shuffle": 0.058, "borrowed-ratios": 0.001, "scratch-e": 0.003, "origin": 0.0}
    found = verdict(tmp_path, gains, "ft")
    assert found.short == "not in positions, inherited values"
    assert "gives the dense net" in found.sentence and "not in that" in found.sentence


def test_a_gain_in_structure_and_training_and_not_in_values(tmp_path):
    gains = {"none": 0.06, "shuffle": 0.0, "scratch-e": 0.03, "scratch-b": 0.0595, "origin": 0.02}
    found = verdict(tmp_path, gains, "ft")
    assert found.short == "positions, additional training"
    assert "not in the inherited values (fresh ones, scratch-b, leave 99" in found.sentence


def test_fresh_values_without_the_training_do_not_tell_values_from_training(tmp_path):
    found = verdict(tmp_path, {"none": 0.06, "reinitialise": 0.0}, "ft")
    assert found.short == "values and the training that made them"


def test_no_gain_and_a_loss(tmp_path):
    assert verdict(tmp_path / "no", {"none": 0.0, "shuffle": 0.0}).short == "no gain"
    assert verdict(tmp_path / "less", {"none": -0.03, "shuffle": 0.0}).short == "worse than random"


def test_scores_whose_order_does_not_matter_and_narrow_nets(tmp_path):
    found = verdict(tmp_path, {"none": 0.04, "invert": 0.039, "small-dense": 0.06, "small-dense-macs": 0.0399})
    assert "the order of the scores does not make it" in found.sentence and found.short == "undecided"
    assert "equal parameters: better (+2.0" in found.sentence
    assert "equal multiply-accumulates: as good" in found.sentence


def test_methods_whose_masks_change_say_so(tmp_path):
    found = verdict(tmp_path, {"none": 0.04, "shuffle": 0.002}, "rigl")
    assert "Its masks change, or are soft, while it trains" in found.sentence and found.short == "positions"


def test_how_methods_come_about():
    found = {name: making(made(name)) for name in ("snip", "random", "lt", "ft", "l1-filters", "rigl", "gmp", "sfp")}
    assert {name for name, one in found.items() if one.inherits} == {"ft", "l1-filters"}
    assert {name for name, one in found.items() if one.changes} == {"rigl", "gmp", "sfp"}
    assert making(made("greg-1", pattern="filters")) == Making(inherits=True, changes=True)
    assert found["snip"].like(found["random"]) and not found["rigl"].like(found["random"])


def made(method, **axes):
    (one,) = parse({"name": "a", "title": "A", "cells": [cell(method, "sp", "0.9", **axes)]}).cells
    return one


def test_a_method_that_is_not_known_is_taken_for_no_other(tmp_path):
    gains = {("mine", "none"): 0.04, ("mine", "shuffle"): 0.039}
    folder = chain(tmp_path, gains, ("mine",))
    assert one(folder).sides["sp"].verdict.short == "layer ratios"  # it says that it prunes before training
    (found,) = beside(load(folder, controls=True).grid).values()
    assert making(found.cell).inherits is False and making(found.cell, mask_updates=True).inherits is None


def test_numbers_by_hand(tmp_path):
    side = one(chain(tmp_path, {("snip", "none"): 0.04, ("snip", "shuffle"): 0.01})).sides["sp"]
    assert side.gain and side.gain.comparison.mean == pytest.approx(0.04)
    assert side.left["shuffle"].comparison.mean == pytest.approx(0.01)
    assert side.taken["shuffle"].loss.comparison.mean == pytest.approx(0.03)
    share = side.taken["shuffle"].share
    assert share and share.ratio == pytest.approx(0.25) and share.interval.lower < 0.25 < share.interval.upper
    assert side.over_dense and side.over_dense.comparison.mean == pytest.approx(RANDOM + 0.04 - DENSE)
    assert side.gain.comparison.p == 2 / 64 and side.gain.p_adjusted == 2 / 64


def test_families_and_what_is_shared(tmp_path):
    """Gains: two; taken: two shuffles, and the one origin of both sparsities."""
    cells = [cell("dense", "sp", "0"), cell("ft", "sp", "0", control="origin")]
    for p in ("0.9", "0.98"):
        cells += [cell("random", "sp", p), cell("ft", "sp", p), cell("ft", "sp", p, control="shuffle")]
    write(tmp_path, {"name": "two", "title": "Two", "cells": cells})
    write_runs(tmp_path)
    found = told(tmp_path)
    assert found.members == (2, 3, 0) and [line.row.any.sparsity for line in found.lines] == ["0.9", "0.98"]
    assert all(line.controls == ("shuffle", "origin") for line in found.lines)
    assert found.lines[0].sides["sp"].extra == found.lines[1].sides["sp"].extra


def test_an_advantage_of_ip_that_survives_and_one_that_does_not(tmp_path):
    gains = {("snip", "none", "sp"): 0.04, ("snip", "none", "ip"): 0.05, ("snip", "shuffle", "sp"): 0.03,
             ("snip", "shuffle", "ip"): 0.04, ("snip", "reinitialise", "sp"): 0.04,
             ("snip", "reinitialise", "ip"): 0.04, ("snip", "invert", "sp"): 0.01,
             ("snip", "invert", "ip"): 0.015}  # fmt: skip
    line = one(chain(tmp_path, gains, spaces=("sp", "ip")))
    assert {name: one.verdict for name, one in line.apart.items()} == {
        "none": "", "shuffle": "survives", "reinitialise": "does not survive", "invert": "survives in part",
    }  # fmt: skip
    taken = line.apart["reinitialise"].taken
    assert taken and taken.comparison.mean == pytest.approx(0.01)
    none = {("grasp", name, space): 0.04 for name in ("none", "shuffle") for space in ("sp", "ip")}
    line = one(chain(tmp_path / "none", none, ("grasp",), spaces=("sp", "ip")))
    assert line.apart["shuffle"].verdict == "no difference shown"


GAINS = {("snip", "none"): 0.04, ("snip", "shuffle"): 0.039}


def test_without_a_baseline_there_is_no_gain(tmp_path):
    side = one(chain(tmp_path, GAINS, baselines=[])).sides["sp"]
    assert side.gain is None and side.taken["shuffle"].share is None and not side.left
    assert side.taken["shuffle"].loss.comparison.mean == pytest.approx(0.001)
    assert side.verdict.short == "no baseline" and "no random at an equal budget" in side.verdict.sentence
    table = make_tables(*reversed_of(load_both(tmp_path)))["survival"]
    assert any("Baseline of snip: no random at an equal budget" in note for note in table.notes)


def reversed_of(both):
    whole, own = both
    return own, None, whole


@pytest.mark.parametrize(
    ("allocations", "chosen", "remark"),
    [
        (["erk", "global"], "global", ""),
        (["erk"], "erk", "random with allocation erk"),
        (["erk", "uniform"], None, "there are 2 cells of random, and none is nearest"),
    ],
)
def test_which_baseline(tmp_path, allocations, chosen, remark):
    baselines = [cell("random", "sp", "0.9", allocation=name) for name in allocations]
    beside = one(chain(tmp_path, GAINS, baselines=baselines)).sides["sp"].beside
    assert (beside.baseline.allocation if beside.baseline else None, beside.remark) == (chosen, remark)


def test_baselines_of_filters_and_of_other_budgets(tmp_path):
    axes = {"pattern": "filters", "budget": "macs"}
    gains = {("l1-filters", "none"): 0.04, ("l1-filters", "shuffle"): 0.039}
    both = [cell(name, "sp", "0.9", **axes) for name in ("random", "random-filters")]
    found = one(chain(tmp_path / "both", gains, ("l1-filters",), baselines=both, **axes)).sides["sp"]
    assert found.beside.baseline and found.beside.baseline.method == "random-filters"
    assert found.verdict.short == "layer ratios"  # both go on from the dense net
    found = one(chain(tmp_path / "one", gains, ("l1-filters",), baselines=both[:1], **axes)).sides["sp"]
    assert found.beside.baseline and found.beside.baseline.method == "random"
    assert found.verdict.short == "not in positions"  # random is trained from initial values
    other = [cell("random", "sp", "0.9", pattern="filters")]
    assert one(chain(tmp_path / "other", gains, ("l1-filters",), baselines=other, **axes)).sides["sp"].gain is None


def test_random_is_what_others_are_compared_with(tmp_path):
    side = one(chain(tmp_path, {("random", "none"): 0.0, ("random", "reinitialise"): 0.0}, ("random",), baselines=[]))
    assert side.sides["sp"].beside.remark == "it is what others are compared with"


def test_missing_seeds_are_left_out_on_all_sides_and_nothing_is_claimed(tmp_path):
    side = one(chain(tmp_path, GAINS, skip={("snip", "shuffle", 2), ("random", "none", 4)})).sides["sp"]
    assert side.gain and (side.gain.comparison.n, side.gain.state, side.gain.claim) == (5, "incomplete", "")
    loss = side.taken["shuffle"].loss
    assert (loss.comparison.n, loss.planned, loss.state, loss.claim) == (5, 6, "incomplete", "")
    assert side.left["shuffle"].comparison.n == 4 and side.taken["shuffle"].share is None
    assert side.verdict.short == "incomplete"


def test_what_has_no_number_yet_is_named_in_a_line(tmp_path):
    gains = {**GAINS, ("snip", "reinitialise"): 0.04, ("grasp", "none"): 0.03, ("grasp", "shuffle"): 0.01}
    lost = (("snip", "shuffle"), ("grasp", "none"), ("grasp", "shuffle"))
    gone = {(*which, seed) for which in lost for seed in range(6)}
    chain(tmp_path, gains, ("snip", "grasp"), skip=gone)
    said = text(load(tmp_path, controls=True), told(tmp_path))
    assert "\n  not in yet: shuffle\n" in said and "\n  reinitialise  " in said and "\n  shuffle" not in said
    assert "\nNothing to compare yet of: grasp, 0.9.\n" in said and "\ngrasp" not in said


def test_diverged_runs_count_as_a_guess_and_are_told(tmp_path):
    folder = chain(tmp_path, GAINS)
    plan_of = load(folder, controls=True).grid
    (shuffled,) = [c for c in plan_of.cells if c.control == "shuffle"]
    put(folder, record(cell("snip", "sp", "0.9", control="shuffle"), 0, "diverged", "loss is nan", test_accuracy=None))
    write_runs(folder)
    loss = one(folder).sides["sp"].taken["shuffle"].loss
    assert shuffled.id in {c.id for c in plan_of.cells} and loss.diverged == 1 and loss.comparison.n == 6
    assert loss.comparison.mean > 0.1 and loss.complete_case.n == 5
    assert loss.complete_case.mean == pytest.approx(0.001, abs=2e-4)


def test_what_is_impossible_is_no_member(tmp_path):
    folder = chain(tmp_path, GAINS)
    for seed in range(6):
        put(folder, record(cell("random", "sp", "0.9"), seed, "impossible", "no such net"))
    write_runs(folder)
    found = told(folder)
    assert found.members == (0, 1, 0) and found.lines[0].sides["sp"].verdict.short == "impossible"


def test_controls_without_their_method_are_named(tmp_path):
    cells = [cell("random", "sp", "0.9"), cell("snip", "sp", "0.9"), cell("snip", "sp", "0.9", control="shuffle"),
             cell("grasp", "sp", "0.9", control="shuffle")]  # fmt: skip
    write(tmp_path, {"name": "some", "title": "Some", "cells": cells})
    write_runs(tmp_path)
    assert [c.method for c in told(tmp_path).alone] == ["grasp"]
    write_tables(tmp_path)
    assert "shuffle of grasp" in (tmp_path / "tables/survival.md").read_text()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    gains = {("snip", "none", "sp"): 0.04, ("snip", "none", "ip"): 0.05, ("snip", "shuffle", "sp"): 0.002,
             ("snip", "shuffle", "ip"): 0.012, ("snip", "invert", "sp"): -0.2, ("snip", "invert", "ip"): -0.2,
             ("ft", "none"): 0.06, ("ft", "scratch-e"): 0.03, ("ft", "origin"): 0.01}  # fmt: skip
    return chain(tmp_path_factory.mktemp("all") / "controlled", gains, ("snip", "ft"), ("sp", "ip"))


def test_files_are_planned_and_written(results):
    whole, own = load_both(results)
    written = [path.relative_to(results).as_posix() for path in write_tables(results)]
    assert written == plan_tables(whole.grid) and "tables/survival.csv" in written
    assert [file.path for file in plan(whole.grid) if file.figure == "survival"] == [
        f"figures/survival.digits-lenet.all.both.{suffix}" for suffix in ("svg", "pdf")
    ]
    assert set(make_tables(own)) == set(make_tables(own, whole=whole)) - {"survival"}
    assert nets_with_controls(own.grid) == set() and "tables/survival.csv" not in plan_tables(own.grid)
    assert not any(file.figure == "survival" for file in plan(own.grid))
    before = (results / "tables/survival.csv").read_bytes()
    write_tables(results)
    assert (results / "tables/survival.csv").read_bytes() == before


def test_tables_without_controls_do_not_know_of_them(results, tmp_path):
    whole, _ = load_both(results)
    cells = [c for c in whole.grid.cells if c.control == "none"]
    alone = write(
        tmp_path, {"name": "controlled", "title": "Controlled", "cells": [plain(c) for c in cells]},
        test_accuracy=lambda c, seed: values(whole)[c["id"], seed],
    )  # fmt: skip
    write_runs(alone)
    ours, theirs = ({path.name: path.read_text() for path in write_tables(one)} for one in (results, alone))
    of_all = [name for name in ours if name.startswith(("survival", "missing"))]  # what is missing is told of all
    assert {name: text for name, text in ours.items() if name not in of_all} == {
        name: text for name, text in theirs.items() if name not in of_all
    }


def plain(c):
    axes = ("sparsity", "space")
    return cell(c.method, **{name: getattr(c, name) for name in axes})


def values(collection):
    runs = collection.runs
    return {(c, int(s)): v for c, s, v in zip(runs["cell"], runs["seed"], runs["test_accuracy"], strict=True)}


def test_the_csv_holds_what_is_told(results):
    write_tables(results)
    with (results / "tables/survival.csv").open(encoding="utf-8") as file:
        rows = {(row["method"], row["control"]): row for row in csv.DictReader(file)}
    shuffled, origin, own = rows["snip", "shuffle"], rows["ft", "origin"], rows["snip", "none"]
    assert float(shuffled["sp_taken_pp"]) == pytest.approx(3.8) and shuffled["sp_taken_n"] == "6"
    assert float(shuffled["sp_left_percent"]) == pytest.approx(5)
    assert float(shuffled["difference_pp"]) == pytest.approx(1)
    assert shuffled["difference_verdict"] == "survives" and own["sp_gain_is_in"] == "positions"
    assert float(origin["ip_over_dense_pp"]) == pytest.approx(1) and not origin["ip_over_random_pp"]
    assert float(rows["ft", "none"]["ip_over_dense_pp"]) == pytest.approx(-4)


def test_the_figure_shows_what_is_told(results):
    drawn = figure(results, "survival")
    assert [axes.get_title() for axes in drawn.axes] == ["SP", "IP", "IP − SP"]
    assert [label.get_text() for label in drawn.axes[0].get_yticklabels()] == ["snip, 0.9", "ft, 0.9"]
    assert drawn.axes[0].get_xlim() == drawn.axes[1].get_xlim() != drawn.axes[2].get_xlim()
    marks = [float(line.get_xdata()[0]) for line in drawn.axes[0].lines if line.get_marker() in "DovX^" and
             len(line.get_xdata()) == 1]  # fmt: skip
    assert sorted(marks) == pytest.approx([0.2, 1, 3, 4, 6])
    assert [text.get_text() for text in drawn.axes[0].texts] == ["◂ −20.00"]
    assert "96 of 96 runs" in texts(drawn)


def test_intervals_that_end_near_the_edge_are_shown_whole(tmp_path):
    """Three points below random pruning are shown, and half of what is above: an end at -12 would take too much."""

    def lowest(name, mean, spread):
        of_seeds = {("snip", "shuffle", seed): mean + spread * (-1) ** seed for seed in range(6)}
        gains = {("snip", "none"): 0.01, **of_seeds, ("snip", "invert"): -0.3}
        return figure(chain(tmp_path / name, gains), "survival").axes[0].get_xlim()[0]

    assert -4.2 < lowest("near", -0.028, 0.01) < -3.75
    assert -5 < lowest("far", -0.02, 0.1) < -4


def test_methods_of_which_nothing_is_in_have_no_row(tmp_path):
    gains = {("snip", "none"): 0.05, ("snip", "shuffle"): 0.05, ("grasp", "none"): 0.05, ("grasp", "shuffle"): 0.05}
    nothing = [("grasp", control, seed) for control in ("none", "shuffle") for seed in range(6)]
    drawn = figure(chain(tmp_path, gains, methods=("snip", "grasp"), skip=nothing), "survival")
    assert [label.get_text() for label in drawn.axes[0].get_yticklabels()] == ["snip, 0.9"]
    assert "Left out, since nothing is in yet: 1 of 2 rows." in texts(drawn)


def test_the_command(results, capsys):
    text, files = survive(results)
    assert all(file.stat().st_size for file in files) and len(files) == 6
    assert main(["survive", str(results)]) == 0
    printed = capsys.readouterr().out
    assert text in printed and "shuffle" in printed and "IP − SP: +1.00" in printed and "survives: shuffle" in printed
    assert all(len(line) <= 120 for line in printed.splitlines())


def test_the_report_has_a_section(results, tmp_path):
    page = write_report(results, tmp_path / "page.html").read_text(encoding="utf-8")
    assert 'id="table-survival"' in page and 'id="table-verdicts"' in page and "ipbench figures RESULTS" in page
    assert "it is in the positions" in page


def test_an_experiment_without_controls_is_refused_in_a_line(tmp_path, capsys):
    write(tmp_path, grid(("snip",), ("0.9",)))
    assert main(["survive", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and "no run of it is a control" in error
    assert not (tmp_path / "tables").exists() and not (tmp_path / "figures").exists()


def test_a_grid_of_controls_alone_is_refused_in_a_line(tmp_path, capsys):
    write(tmp_path, {"name": "alone", "title": "Alone", "cells": [cell("snip", "sp", "0.9", control="shuffle")]})
    assert parse({"name": "a", "title": "A", "cells": [cell("snip", "sp", "0.9", control="shuffle")]}).cells
    for command in ("survive", "tables", "figures", "report"):
        assert main([command, str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1 and "controls alone" in error


def test_a_control_behind_random_pruning_leaves_none_of_the_gain(tmp_path):
    gains = {("snip", "none"): 0.06, ("snip", "shuffle"): 0.03, ("snip", "invert"): -0.3}
    results = chain(tmp_path, gains)
    said, _ = survive(results)
    rows = {line.split()[0]: line for line in said.splitlines() if line.strip()}
    assert "50 [" in rows["shuffle"] and "%" in rows["shuffle"]
    assert "%" not in rows["invert"] and "−30.00 [" in rows["invert"]
    left = {row["control"]: row["SP left"] for row in rows_of(results / "tables/survival.md")}
    assert left["invert"] == "none" and left["shuffle"].startswith("50 ")


def rows_of(page: Path) -> list[dict[str, str]]:
    """The rows of a table in Markdown."""
    lines = [line for line in page.read_text().splitlines() if line.startswith("|")]
    lines = [[part.strip() for part in line.strip("|").split("|")] for line in lines]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def test_what_an_inverted_score_does_to_ip_and_sp_hides_no_other_difference(tmp_path):
    gains = {
        ("snip", "none"): 0.06, ("snip", "shuffle"): 0.05,
        ("snip", "invert", "sp"): -0.2, ("snip", "invert", "ip"): 0.1,
        ("snip", "reinitialise", "sp"): 0.1, ("snip", "reinitialise", "ip"): -0.3,
    }  # fmt: skip
    axes = figure(chain(tmp_path, gains, spaces=("sp", "ip")), "survival").axes[2]
    low, high = axes.get_xlim()
    assert -2 < low < -0.5 and 0.5 < high < 2
    assert {text.get_text() for text in axes.texts} == {"◂ −40.00", "+30.00 ▸"}
