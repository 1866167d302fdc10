from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ipbench.analysis import published, write_runs, write_tables
from ipbench.analysis.grid import parse
from ipbench.analysis.published import Published, find
from ipbench.planning.experiment import Experiment

from .synthetic import cell, grid, write

ROOT = Path(__file__).parents[2]


@pytest.fixture
def known(monkeypatch):
    """A number for the setting of one cell of the synthetic grid."""
    plan = grid(methods=("snip",), sparsities=("0.9",))
    cell = next(c for c in parse(plan).cells if c.method == "snip" and c.space == "sp")
    setting = {
        axis: getattr(cell, axis) for axis in ("dataset", "model", "method", "space", "off", "sparsity", "allocation")
    }
    name, value = next(iter(json.loads(cell.recipe).items()))
    entry = Published(setting, {name: value}, 0.875, "Somebody, table 1")
    monkeypatch.setattr(published, "published", lambda: (entry,))
    return plan, cell, name


def test_the_file_is_whole():
    for entry in published.published():
        assert 0 < entry.accuracy < 1 and entry.source and entry.setting["sparsity"]


def test_only_the_same_setting_matches(known):
    _, cell, name = known
    assert find(cell) is not None and find(None) is None
    assert find(replace(cell, own='{"weights":"..."}')) is None
    others = [{"space": "ip"}, {"sparsity": "0.95"}, {"options": '{"rounds":2}'}, {"off": "frozen"}]
    recipe = {**json.loads(cell.recipe), name: -1}
    assert not any(find(replace(cell, **other)) for other in [*others, {"recipe": json.dumps(recipe)}])


def test_options_are_those_of_the_method(known, monkeypatch):
    _, cell, _ = known
    entry = published.published()[0]
    monkeypatch.setattr(published, "published", lambda: (replace(entry, options={"rounds": 2}),))
    assert find(cell) is None and find(replace(cell, options='{"rounds":2}')) is not None


def test_it_stands_beside_ours(known, tmp_path):
    write(tmp_path, known[0])
    write_runs(tmp_path)
    write_tables(tmp_path)
    text = (tmp_path / "tables/accuracy.md").read_text()
    assert "SP published" in text and "87.50" in text and "Published: Somebody, table 1." in text


def test_without_a_match_there_is_no_column(tmp_path):
    write(tmp_path, grid(methods=("snip",), sparsities=("0.9",)))
    write_runs(tmp_path)
    write_tables(tmp_path)
    assert "published" not in (tmp_path / "tables/accuracy.md").read_text().lower()


def test_every_structured_number_stands_beside_a_cell_of_an_experiment():
    cells = [
        cell
        for name in ("sfp", "greg", "epruner", "orthoreg", "group-fisher")
        for path in (ROOT / "config").glob(f"{name}-*.yaml")
        for cell in parse(Experiment.load(path).grid()).cells
    ]
    rows = [entry for entry in published.published() if entry.setting["dataset"] != "imagenet" or entry.options]
    alone = [entry for entry in rows if not any(entry.matches(cell) for cell in cells)]
    assert len(rows) > 60 and [(entry.setting, entry.options) for entry in alone] == []


def test_rows_tell_options_pattern_and_budget(monkeypatch, tmp_path):
    """A row of an old file has none of these columns' values: the usual pattern and budget, the default options."""
    rows = (
        "dataset,model,method,options,space,off,sparsity,pattern,budget,allocation,recipe,accuracy_percent,source",
        'digits,lenet,sfp,"{""rate"": 0.4}",sp,zero,0,filters,macs,uniform,{},80.5,"Somebody, table 2"',
        "digits,lenet,snip,,sp,zero,0.9,,,global,{},90.5,Somebody else",
    )
    (tmp_path / "published.csv").write_text("\n".join(rows) + "\n")
    monkeypatch.setattr(published.resources, "files", lambda package: tmp_path)
    published.published.cache_clear()
    try:
        first, second = published.published()
    finally:
        published.published.cache_clear()
    shared = {"pattern": "filters", "budget": "macs", "allocation": "uniform"}
    plan = grid() | {
        "cells": [
            cell("sfp", "sp", "0", options={"rate": 0.4}, knob="rate", **shared),
            cell("sfp", "sp", "0", options={"rate": 0.2}, knob="rate", **shared),
            cell("sfp", "sp", "0", options={"rate": 0.4, "inner": True}, knob="rate", **shared),
            cell("sfp", "sp", "0", options={"rate": 0.4}, knob="rate", **{**shared, "budget": "parameters"}),
            cell("sfp", "ip", "0", options={"rate": 0.4}, knob="rate", **shared),
            cell("snip", "sp", "0.9"),
            cell("snip", "sp", "0.9", options={"rounds": 2}),
            cell("snip", "sp", "0.9", pattern="filters"),
        ]
    }
    cells = {c["id"]: c for c in plan["cells"]}
    found = parse(plan).cells
    assert [cells[one.id]["options"] for one in found if first.matches(one)] == [{"rate": 0.4}]
    assert sum(first.matches(one) for one in found) == sum(second.matches(one) for one in found) == 1
    assert (first.accuracy, second.options) == (0.805, {})
