"""The page of an experiment: complete in one file, escaped, equal for equal records, and small for large grids."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from ipbench.analysis import write_runs, write_tables
from ipbench.analysis.collect import Collection, _frame, _table, collect
from ipbench.analysis.figures.scene import Scene
from ipbench.analysis.grid import parse
from ipbench.analysis.records import row
from ipbench.analysis.report import contents, page, write_index, write_report
from ipbench.cli.main import main

from .synthetic import cell, grid, put, record, write

AWFUL = 'A <b>title</b> & "</script><script>alert(1)</script>" \u2028 <!-- -->'


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A grid with one of everything: diverged, impossible, missing, collapsed and at chance."""
    folder = tmp_path_factory.mktemp("all") / "one"
    plan = grid(("snip", "grasp"), ("0.9", "0.98"), dense=("sp", "ip")) | {"title": AWFUL, "name": "one"}
    by = {(c["method"], c["sparsity"], c["space"]): c for c in plan["cells"]}
    write(folder, plan, skip=[(by["snip", "0.98", "ip"]["id"], seed) for seed in range(6)])
    put(folder, record(by["grasp", "0.9", "sp"], 5, "diverged", "loss is nan in epoch 2", test_accuracy=None))
    put(folder, record(by["grasp", "0.9", "ip"], 0, test_accuracy=0.1))
    for seed in range(6):
        put(folder, record(by["grasp", "0.98", "ip"], seed, "impossible", "the FBs alone exceed the budget"))
    write_runs(folder)
    return folder


@pytest.fixture(scope="module")
def text(results):
    return write_report(results).read_text(encoding="utf-8")


def held(text: str) -> dict:
    """What the page holds for its charts."""
    return json.loads(re.search(r'id="contents">(.*?)</script>', text, re.DOTALL)[1])


class Page(HTMLParser):
    """Scripts and rows of a page, as a browser takes it apart."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_texts_are_escaped(text):
    found = [tag for tag, _ in Page(text).tags]
    assert found.count("script") == 3 and "b" not in found
    assert "&lt;/script&gt;" in text and "<script>alert" not in text
    assert "\u2028" not in text


def test_it_loads_nothing(text):
    for tag, attributes in Page(text).tags:
        assert tag not in ("link", "img", "iframe", "object") and "src" not in attributes
        assert not (attributes.get("href") or "").startswith("http")
    assert "default-src 'none'" in text


def test_charts_hold_the_numbers_of_the_tables(results, text):
    write_tables(results)
    rows = held(text)["charts"]["accuracy"]["rows"]
    table = pd.read_csv(results / "tables/accuracy.csv")
    pruned = [one for one in rows if one["kind"] == "cell"]
    assert len(pruned) == 6 and all(one["runs"].endswith("/{0–5}.json") for one in pruned)
    for one in pruned:
        cell_id = one["runs"].split("/")[1]
        column = f"{one['space'].lower()}_"
        (mean,) = table.loc[table[f"{column}cell"] == cell_id, f"{column}mean_percent"]
        assert one["mean"] == f"{mean:.2f}" and one["n"] == 6
    forest = held(text)["charts"]["forest"]["rows"]
    methods = pd.read_csv(results / "tables/methods.csv").set_index("method")
    averages = {one["name"]: one for one in forest if one["kind"] == "average"}
    assert averages["snip"]["verdict"] == methods.loc["snip", "verdict"] == "incomplete"
    assert averages["grasp"]["difference"] == f"{methods.loc['grasp', 'difference_pp']:+.2f}".replace("-", "−")


def test_what_is_missing_or_lost_is_told(text):
    rows = held(text)["charts"]["accuracy"]["rows"]
    states = {(one["method"], one["level"][-4:].strip("\xa0= "), one["space"]): one for one in rows}
    assert states["snip", "0.98", "IP"]["state"] == "6 missing" and states["snip", "0.98", "IP"]["kind"] == "nothing"
    assert states["grasp", "0.98", "IP"]["state"] == "6 impossible, the FBs alone exceed the budget"
    assert states["grasp", "0.9", "SP"]["state"] == "5 done, 1 diverged, loss is nan in epoch 2"
    assert states["grasp", "0.9", "IP"]["state"] == "6 done, 1 at chance" and states["grasp", "0.9", "IP"]["lost"]
    assert "40 of 60" not in text and "47 of 60 planned runs are finished, 1 at chance, 1 diverged" in text


@pytest.mark.long
def test_equal_records_give_equal_bytes(results, text, tmp_path):
    """In another process too, and beside charts that were made before."""
    call = [sys.executable, "-m", "ipbench", "report", str(results), "--to", str(tmp_path / "again.html")]
    subprocess.run(call, check=True, timeout=120, capture_output=True)
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == text
    assert page.whole(contents.of_experiment(Scene(collect(results))), tmp_path / "x.html") == text


@pytest.mark.long
def test_the_index_leads_to_every_page(results):
    other = write(results.parent / "two", grid(("snip",), ("0.9",), spaces=("sp",)) | {"name": "two"})
    write_runs(other)
    paths = write_index(results.parent)
    assert [path.relative_to(results.parent).as_posix() for path in paths] == [
        "one/report.html", "two/report.html", "index.html",
    ]  # fmt: skip
    links = [attributes["href"] for tag, attributes in Page(paths[-1].read_text()).tags if tag == "a"]
    assert links == ["one/report.html", "two/report.html"]
    assert {one["name"] for one in held(paths[-1].read_text())["charts"]["forest"]["rows"]} == {
        "one: whole grid", "one: snip", "one: grasp",
    }  # fmt: skip


def test_a_page_in_the_checkout_links_to_the_rules():
    root = Path(__file__).parents[2]
    inside = page._words(root / "results/reference/one/report.html")
    (link, *_) = re.findall(r'href="([^"#]+)#spaces"', inside)
    assert (root / "results/reference/one" / link).resolve() == root / "docs/rules.md"
    anchors = {re.sub(r"[^a-z -]", "", line[3:].lower()).replace(" ", "-")
               for line in (root / "docs/rules.md").read_text().splitlines() if line.startswith("## ")}  # fmt: skip
    assert {section for _, _, section in page._WORDS} <= anchors
    assert str(root) not in page._words(Path("/nowhere/report.html"))


def test_bad_calls_are_one_line(results, tmp_path, capsys):
    for words, told in (
        ([], "name one experiment's folder"),
        ([str(results), "--index", str(results.parent)], "name one experiment's folder"),
        (["--index", str(tmp_path)], "no folder in it holds runs.parquet"),
        ([str(results), "--to", str(tmp_path)], "is a folder; name a file"),
        ([str(tmp_path)], "not an experiment's folder"),
    ):
        assert main(["report", *words]) == 2
        message = capsys.readouterr().err
        assert told in message and message.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_a_large_grid_stays_small(tmp_path):
    """10,000 runs: 1,000 cells of ten seeds."""
    names, sparsities = [f"method-{number}" for number in range(50)], [f"0.{number}" for number in range(500, 510)]
    plan = grid(names, sparsities, dense=(), seeds=range(10))
    whole = parse(plan)
    template = row(
        record(cell("snip", "sp", "0.9"), 0), parse({**plan, "cells": [cell("snip", "sp", "0.9")]}).cells[0], 0
    )
    rows = []
    for number, one in enumerate(whole.cells):
        for seed in one.seeds:
            own = {name: getattr(one, name) for name in ("dataset", "model", "method", "space", "off", "sparsity")}
            own |= {"cell": one.id, "pair": one.pair, "seed": seed, "id": f"{one.id}{seed}"}
            rows.append(template | own | {"test_accuracy": 0.8 + (number * 7 + seed * 13) % 100 / 1000})
    collection = Collection(whole, _frame(_table(rows)), (), ())
    assert len(collection.runs) == 10_000
    page._library()  # is the same for every page
    begun = time.process_time()
    text = page.whole(contents.of_experiment(Scene(replace(collection))), tmp_path / "report.html")
    assert time.process_time() - begun < 60
    assert len(text.encode()) < 5_000_000
