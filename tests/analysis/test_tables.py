from __future__ import annotations

import csv as reader
import math
import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from ipbench.analysis import summary, write_runs, write_tables
from ipbench.analysis.collect import collect
from ipbench.analysis.grid import read_grid
from ipbench.analysis.plan import plan_tables
from ipbench.analysis.render import Table, csv, escape_latex, latex, markdown, page
from ipbench.analysis.tables import make_tables
from ipbench.analysis.terminal import summarise
from ipbench.analysis.text import points, probability, quantity, ranges, seconds
from ipbench.output import printable

from .synthetic import cell, grid, put, record, write


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A partial grid with one of everything that can go wrong; not to be changed."""
    folder = tmp_path_factory.mktemp("results")
    plan = grid(methods=("snip", "grasp"), sparsities=("0.9", "0.98"), dense=("sp", "ip"))
    by = {(c["method"], c["sparsity"], c["space"]): c for c in plan["cells"]}
    write(folder, plan, skip=[(by["snip", "0.98", "ip"]["id"], seed) for seed in (3, 4)])
    put(folder, record(by["grasp", "0.9", "sp"], 5, "diverged", "loss is nan in epoch 2", test_accuracy=None))
    for seed in range(6):
        put(folder, record(by["grasp", "0.98", "ip"], seed, "impossible", "the FB alone (162 entries) exceeds 100"))
    (folder / "runs" / by["dense", "0", "ip"]["id"] / "0.json").write_text("{}")
    write_runs(folder)
    return folder


@pytest.fixture(scope="module")
def written(results):
    """The paths of its tables."""
    return write_tables(results)


@pytest.fixture(scope="module")
def tables(results):
    """Its tables; not to be changed."""
    return make_tables(collect(results))


def rows(results, name):
    with (results / "tables" / f"{name}.csv").open(encoding="utf-8") as file:
        return list(reader.DictReader(file))


def test_every_planned_file_is_written_and_stays_the_same(results, written):
    assert [path.relative_to(results).as_posix() for path in written] == plan_tables(read_grid(results))
    before = [path.read_bytes() for path in written]
    write_runs(results)
    assert [path.read_bytes() for path in write_tables(results)] == before


def test_csv_holds_raw_numbers(results, written):
    collection = collect(results)
    snip = next(row for row in rows(results, "accuracy") if row["method"] == "snip" and row["sparsity"] == "0.9")
    values = collection.runs[collection.runs["cell"] == snip["sp_cell"]]["test_accuracy"]
    assert float(snip["sp_mean_percent"]) == pytest.approx(100 * values.mean(), rel=1e-14)
    assert float(snip["sp_std_percent"]) == pytest.approx(100 * values.std(), rel=1e-12)
    pair = next(row for row in rows(results, "paired") if row["method"] == "snip" and row["sparsity"] == "0.9")
    expected = float(snip["ip_mean_percent"]) - float(snip["sp_mean_percent"])
    assert float(pair["difference_pp"]) == pytest.approx(expected, rel=1e-9)
    assert float(pair["p"]) == 2 / 64 and pair["verdict"] == "undecided" and not pair["claim"]


def test_diverged_and_impossible_are_told(tables):
    accuracy = tables["accuracy"].printed.set_index(["method", "sparsity p"])
    assert (
        accuracy.loc[("grasp", "0.9"), "SP n"] == "6 (1 diverged)"
        and "SP collapsed" not in accuracy  # diverged, and told as that
    )
    assert accuracy.loc[("grasp", "0.98"), "IP"] == "impossible"
    assert accuracy.loc[("snip", "0.98"), "IP n"] == "4 of 6"
    pairs = tables["paired"].printed.set_index(["method", "sparsity p"])
    assert pairs.loc[("grasp", "0.9"), "n"] == "6 (1 diverged)"
    assert pairs.loc[("grasp", "0.98"), "verdict"] == "impossible"
    assert pairs.loc[("dense", "0"), "verdict"] == "reference"


def test_the_missing_table_lists_each_kind_once(tables):
    missing = tables["missing"].data
    kinds = {what: list(missing[missing["what"] == what]["seeds"]) for what in missing["what"]}
    assert kinds == {"unreadable": ["0"], "missing": ["3–4"], "diverged": ["5"], "impossible": ["0–5"]}
    reasons = dict(zip(missing["what"], missing["reason"], strict=True))
    assert reasons["impossible"] == "the FB alone (162 entries) exceeds 100"
    assert reasons["unreadable"].startswith("runs/") and "not a product" in reasons["unreadable"]


def test_the_global_table_names_what_is_excluded(tables):
    notes = " ".join(tables["global"].notes)
    assert "Excluded as impossible or incomplete: snip 0.98; grasp 0.98." in notes


def test_notes_tell_the_setting_and_the_seeds_that_are_needed(tables):
    notes = " ".join(tables["accuracy"].notes)
    for part in (
        "data set digits",
        "Test CPU",
        "Mode: strict",
        "commit abc1234",
        "Student's t",
        "one of 6; planned: 6",
    ):
        assert part in notes


def test_constant_axes_are_dropped_and_varying_ones_shown(tmp_path):
    plan = grid(methods=("snip",), sparsities=("0.9",))
    assert list(make_tables(collect(write(tmp_path / "a", plan)))["accuracy"].printed.columns)[:3] == [
        "method", "sparsity p", "SP",
    ]  # fmt: skip
    plan["cells"].append(cell("snip", "sp", "0.9", dataset="mnist", off="frozen"))
    columns = list(make_tables(collect(write(tmp_path / "b", plan)))["accuracy"].printed.columns)
    assert columns[:4] == ["data set", "method", "off", "sparsity p"]


def test_costs_are_means(tmp_path):
    plan = grid(methods=("snip",), sparsities=("0.9",), seeds=range(3))
    data = make_tables(collect(write(tmp_path, plan)))["cost"].data.set_index("cell")
    found = data.loc[plan["cells"][2]["id"]]
    assert found["cost_wall_seconds"] == 11.0 and found["basis_entries"] == 162 and found["n"] == 3
    # 4 bytes each of values, the bitmask, and 944 bytes of the rest
    runs = collect(tmp_path).runs
    kept = runs[runs["cell"] == plan["cells"][2]["id"]]["coefficients_kept"].astype(float).mean()
    assert found["bytes_stored_bitmask"] == pytest.approx(4 * (kept + 162) + 59934 // 8 + 944, abs=1)


def test_the_cost_table_tells_what_was_left_out(tmp_path):
    plan = grid(methods=("snip",), sparsities=("0.9",), seeds=range(2))
    told = {"not_prunable": lambda *_: {"token": 768, "table": 10}, "unused_layers": lambda *_: ["aux"]}
    notes = make_tables(collect(write(tmp_path / "a", plan, **told)))["cost"].notes
    assert "Not prunable, dense in every run: lenet: 778 weights in table, token." in notes
    assert "Prunable, but not used by an evaluated image: lenet: aux." in notes
    odd = {"not_prunable": lambda *_: "[1"}
    notes = make_tables(collect(write(tmp_path / "b", plan, **odd)))["cost"].notes
    assert not any("Not prunable" in note for note in notes)


def test_tables_of_a_grid_without_runs_and_without_pairs(tmp_path):
    plan = grid(methods=("snip",), sparsities=("0.9",), spaces=("sp",))
    write(tmp_path, plan, [(c["id"], seed) for c in plan["cells"] for seed in c["seeds"]])
    write_runs(tmp_path)
    for path in write_tables(tmp_path):
        assert path.read_text(encoding="utf-8").strip()
    assert "No SP/IP comparison" in summary(tmp_path)


def test_methods_stand_in_the_order_of_the_config(tmp_path):
    """Dense first, then as written, whatever the order of names or of the cells within a method."""
    plan = grid(methods=("synflow", "random", "grasp"), sparsities=("0.98", "0.9"), seeds=range(3))
    printed = make_tables(collect(write(tmp_path, plan)))["accuracy"].printed
    assert list(dict.fromkeys(printed["method"])) == ["dense", "synflow", "random", "grasp"]
    assert list(printed["sparsity p"]) == ["0", *["0.9", "0.98"] * 3]


def test_latex_escapes():
    assert escape_latex(r"a_b & 50 % \ {x} ~^ #1 $") == (
        r"a\_b \& 50 \% \textbackslash{} \{x\} \textasciitilde{}\textasciicircum{} \#1 \$"
    )
    assert escape_latex("−1.2 ± 3") == r"$-$1.2 $\pm$ 3"
    assert escape_latex("[0.1, 0.2]") == "{[}0.1, 0.2{]}"  # not an optional argument of the \\ before it
    assert escape_latex("two\nlines") == "two lines"


def test_markdown_and_latex_of_a_table():
    table = Table(
        "t_1",
        "A & B",
        pd.DataFrame({"x": [0.1, math.nan]}),
        pd.DataFrame({"name": ["a|b", "c_d"], "x": ["0.1", "–"]}),
        ("n = 2.",),
    )
    assert csv(table) == 'x\n0.1\n""\n'
    assert markdown(table).splitlines()[2:6] == [
        "| name |   x |",
        "| ---- | --: |",
        "| a\\|b | 0.1 |",
        "| c\\_d |   – |",
    ]
    text = latex(table)
    assert r"\caption{A \& B. n = 2.}" in text and r"\label{tab:t-1}" in text and r"c\_d & -- \\" in text
    assert text.count("{") == text.count("}")


def test_latex_tables_are_balanced(written):
    for path in [path for path in written if path.suffix == ".tex"]:
        body = path.read_text(encoding="utf-8")
        columns = len(re.search(r"\\begin\{tabular\}\{([lr]+)\}", body).group(1))
        lines = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert all(len(re.findall(r"(?<!\\)&", line)) == columns - 1 for line in lines)


def test_the_summary_fits_a_terminal(results):
    text = summary(results)
    assert max(map(len, text.splitlines())) <= 100
    assert re.search(r"snip +0\.9 +\d\d\.\d\d ± 0\.\d\d +\d\d\.\d\d ± 0\.\d\d +\+\d\.\d\d \[", text)
    assert "impossible" in text and "Unreadable records: 1" in text and "46 of 60 runs finished" not in text


def test_long_names_do_not_widen_the_summary(tmp_path):
    plan = grid(methods=("a_method_with_quite_a_long_name",), sparsities=("0.9", "0.98"), off="frozen")
    plan["cells"].append(cell("snip", "sp", "0.9", options={"fraction": 0.25, "schedule": "cosine"}))
    plan["cells"].append(cell("snip", "sp", "0.9", options={"fraction": 0.5, "schedule": "constant"}))
    write_runs(write(tmp_path, plan))
    lines = summary(tmp_path).splitlines()
    assert max(map(len, lines)) <= 100
    assert "a_method_with_quite_a_long_name, frozen" in lines


def test_numbers_for_readers():
    assert [quantity(v) for v in (0, 12, 999, 1000, 59_900, 1_234_567, 999_999, 1.5e12)] == [
        "0", "12", "999", "1.00 k", "59.9 k", "1.23 M", "1.00 M", "1.50 T",
    ]  # fmt: skip
    assert quantity(123_456_789, "B") == "123 MB" and quantity(12, "B") == "12 B"
    assert [seconds(v) for v in (4.21, 59.99, 200, 7500, math.nan)] == [
        "4.2 s",
        "1 min 00 s",
        "3 min 20 s",
        "2 h 05 min",
        "–",
    ]
    assert ranges([5, 0, 1, 2]) == "0–2, 5"
    assert [points(v) for v in (0.0123, -0.0123, -0.00001)] == ["+1.23", "−1.23", "0.00"]
    assert [probability(p) for p in (0.03125, 0.0001, math.nan)] == ["0.031", "<0.001", "–"]


def test_a_page_escapes_its_text_and_loads_nothing():
    frame = pd.DataFrame({"method": ["<b>&"], "SP": ["87.50"]})
    text = page(Table("t", "a < b", frame, frame, ("note & more",)))
    assert (
        "<title>a &lt; b</title>" in text and "<td>&lt;b&gt;&amp;</td>" in text and "<li>note &amp; more</li>" in text
    )
    assert '<td class="right">87.50</td>' in text and "http" not in text and "src=" not in text


#: What HTML, LaTeX, Markdown, a spreadsheet or a terminal takes for its own.
NASTY = "a $b_c$ & <b>{x}</b> % #1 ~^ | \\q `z` [u] * \x1b[31m\x07 \u202e end"


@pytest.fixture
def nasty():
    frame = pd.DataFrame({"reason": [NASTY], "n": [1]})
    return Table("missing", NASTY, frame, frame.astype(str), (NASTY,))


class Texts(HTMLParser):
    """The tags of a page, and the texts between them."""

    def __init__(self):
        super().__init__()
        self.tags, self.texts = set(), []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)

    def handle_data(self, data):
        self.texts.append(data)


def test_foreign_texts_are_texts_in_html(nasty):
    parser = Texts()
    parser.feed(page(nasty))
    assert "b" not in parser.tags and "script" not in parser.tags
    assert parser.texts.count(printable(NASTY)) == 4  # title, heading, cell, note


def test_foreign_texts_are_texts_in_latex(nasty):
    """Nothing of them is a command, a formula, an alignment or a comment."""
    written = escape_latex(NASTY)
    left = re.sub(r"\\(text[a-z]+\{\}|[&%$#_{}])|\{[\[\]]\}", "", written)
    assert not set(left) & set("\\&%$#_{}~^<>|[]")
    assert latex(nasty).count(written) == 3


def test_foreign_texts_are_texts_in_markdown(nasty):
    (row,) = [line for line in markdown(nasty).splitlines() if line.startswith("| a ")]
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) == 3  # of two cells
    assert not re.search(r"(?<!\\)[*_<`$&]", row.replace("\\\\", ""))


def test_a_terminal_obeys_nothing_of_a_table(nasty):
    for text in (csv(nasty), markdown(nasty), latex(nasty), page(nasty)):
        assert all(character.isprintable() or character == "\n" for character in text)


def same(value):
    return lambda c, s: value


def test_a_diverged_run_has_its_complete_case_beside_it(tables):
    """As a guess in the mean, and without its seed in columns of their own; nowhere else is there such a column."""
    accuracy = tables["accuracy"].data.set_index(["method", "sparsity"]).loc[("grasp", "0.9")]
    assert accuracy["sp_diverged"] == 1 and accuracy["sp_mean_percent"] == pytest.approx(
        (5 * accuracy["sp_complete_mean_percent"] + 10) / 6
    )
    pair = tables["paired"].data.set_index(["method", "sparsity"]).loc[("grasp", "0.9")]
    assert (pair["n"], pair["complete_n"], pair["diverged"]) == (6, 5, 1)
    for name in ("accuracy", "paired"):
        assert any("without diverged" in column for column in tables[name].printed)
        assert "counts as a guess" in " ".join(tables[name].notes)
    printed = tables["paired"].printed.set_index(["method", "sparsity p"])["without diverged"]
    assert printed.loc[("grasp", "0.9")].endswith(", n = 5") and printed.loc[("snip", "0.9")] == "–"


def test_without_diverged_or_collapsed_runs_there_are_no_such_columns(tmp_path):
    tables = make_tables(collect(write(tmp_path, grid(), test_accuracy=same(0.8))))
    for name in ("accuracy", "paired", "methods", "global"):
        assert not any("diverged" in column or "collapsed" in column for column in tables[name].printed)
    notes = " ".join(tables["accuracy"].notes)
    assert "none of n runs collapsed, is at chance or diverged, the rate of these is below 39 % (n = 6)" in notes


def test_collapsed_runs_and_those_at_chance_are_told_apart(tmp_path, unchecked):
    """Of 6 seeds: one with an empty layer and a good accuracy, one with both, one that guesses."""
    outcome = {
        "collapsed_layers": lambda c, s: ["fc1"] if (c["space"], s) in (("ip", 0), ("ip", 1)) else [],
        "test_accuracy": lambda c, s: 0.1 if c["space"] == "ip" and s in (1, 2) else 0.8,
    }
    collection = collect(write(tmp_path, grid(("snip",), ("0.9",)), **outcome))
    tables = make_tables(collection)
    accuracy = tables["accuracy"].printed.set_index("method").loc["snip"]
    assert (accuracy["IP collapsed"], accuracy["IP at chance"]) == ("2 of 6", "2 of 6")
    assert (accuracy["SP collapsed"], accuracy["SP at chance"]) == ("0 of 6", "0 of 6")
    pair = tables["paired"].printed.set_index("method").loc["snip"]
    assert (pair["collapsed"], pair["at chance"]) == ("IP 2", "IP 2")
    for name in ("accuracy", "paired"):
        assert "nothing is left of a layer" in " ".join(tables[name].notes)
    told = " ".join(summarise(collection).split())
    assert "56.67 ± 37.93 ×" in told and "lost runs, 3 in all (2 collapsed, 2 at chance)" in told


def test_every_table_with_intervals_says_what_they_cover(tables):
    for name in ("accuracy", "paired", "methods", "global"):
        notes = " ".join(tables[name].notes)
        assert "covers the draw of seeds, not that of test images" in notes
        assert ("Student's t" if name == "accuracy" else "sign-flip test") in notes


def test_averages_tell_mixed_signs(tmp_path):
    gain = {"0.9": 0.01, "0.98": -0.01}
    outcome = {"test_accuracy": lambda c, s: 0.8 + (gain[c["sparsity"]] + 0.001 * s if c["space"] == "ip" else 0)}
    tables = make_tables(collect(write(tmp_path, grid(("snip",), tuple(gain), dense=()), **outcome)))
    for name in ("methods", "global"):
        assert tables[name].printed["signs"].item() == "mixed signs (1 +, 1 −)"
        assert tables[name].data["mixed_signs"].item()


def test_no_average_over_filter_bases_is_printed(tmp_path):
    cells = [
        cell("snip", "sp", "0.9"),
        *(cell("snip", "ip", "0.9", basis={"init": init}) for init in ("standard", "orthonormal")),
    ]
    tables = make_tables(collect(write(tmp_path, grid() | {"cells": cells})))
    for name in ("methods", "global"):
        assert tables[name].printed.empty and "No average is formed" in " ".join(tables[name].notes)
    assert "scatter symmetrically" in " ".join(tables["paired"].notes) and len(tables["paired"].printed) == 2


def test_the_table_says_in_place_of_a_number_what_would_be_mixed(tmp_path):
    plan = grid(("snip", "grasp"), ("0.9",))
    write(tmp_path, plan)
    changed = record(plan["cells"][1], 2)
    changed["provenance"]["processes"] = 2
    put(tmp_path, changed)
    tables = make_tables(collect(tmp_path))
    accuracy = tables["accuracy"].printed.set_index("method")
    assert (
        accuracy.loc["snip", "SP"] == "not formed: 2 numbers of processes (1, 2)"
        and accuracy.loc["grasp", "SP"][0].isdigit()
    )
    pairs = tables["paired"].printed.set_index("method")
    assert (
        pairs.loc["snip", "IP − SP"] == "not formed: 2 numbers of processes (1, 2)"
        and pairs.loc["snip", "verdict"] == "not formed"
    )
    assert pairs.loc["grasp", "IP − SP"].startswith(("+", "−", "0"))
    cost = tables["cost"].printed.set_index(["method", "space"])
    assert cost.loc[("snip", "SP"), "achieved p"] == "not formed: 2 numbers of processes (1, 2)"
    write_runs(tmp_path)
    assert re.search(r"snip +0\.9 +mixed ", summary(tmp_path))
