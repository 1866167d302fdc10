"""What records tell of effective coefficients: of finished runs, of impossible ones, and where it is unknown."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ipbench.analysis.checks import check_values
from ipbench.analysis.grid import parse
from ipbench.analysis.records import row
from ipbench.runs import effective as counting
from ipbench.runs.effective import describe_effective
from ipbench.runs.environment import Environment
from ipbench.runs.execute import execute
from ipbench.sparse.net import SparseNet
from ipbench.spec import Recipe, Run, pair_of
from tests.tiny import make_run

RECIPE = Recipe(epochs=1, batch_size=100, train_examples=200)


def tiny_run(**values) -> Run:
    return Run(**{"dataset": "digits", "model": "small-vgg", "method": "random", "recipe": RECIPE, **values})


def flat(record: dict, run: Run) -> dict:
    """The record as a row of `runs.parquet`."""
    cell = {"id": run.cell, "pair": pair_of(run), "family": "before training", "seeds": [run.seed]}
    axes = {name: value for name, value in run.to_json().items() if name not in ("seed", "own")}
    grid = parse({"name": "one", "title": "one", "cells": [{**axes, **cell}]})
    return row(record, grid.cells[0], run.seed)


@pytest.mark.parametrize(("space", "sparsity"), [("sp", "0.995"), ("ip", "0.98")])
def test_a_finished_run(tmp_path, space, sparsity):
    """Few coefficients at random: some lead nowhere. All numbers follow from the counts by layer."""
    run = tiny_run(space=space, sparsity=sparsity)
    record = execute(run, tmp_path, Environment())
    told, outcome = record["effective"], record["outcome"]
    kept = {layer["name"]: layer["kept"] for layer in outcome["layers"]}
    assert told["layers"] and all(0 <= number < kept[name] for name, number in told["layers"].items())
    counts = {**kept, **told["layers"]}
    assert told["coefficients"] == sum(counts.values())
    entries = outcome["basis_entries"]
    assert told["sparsity"] == 1 - (sum(counts.values()) + entries) / outcome["prunable"] > outcome["achieved_sparsity"]
    assert told["macs"] < outcome["macs_sparse"]
    lost = outcome["macs_sparse"] - told["macs"]
    assert outcome["macs_sparse_two_stage"] - told["macs_two_stage"] == lost
    assert not {"reason", "mixing", "whole_layers"} & set(told)
    assert flat(record, run)["effective_sparsity"] == told["sparsity"]


def test_a_dense_net_is_effective_as_a_whole(tmp_path):
    told = execute(tiny_run(method="dense", sparsity="0"), tmp_path, Environment())["effective"]
    assert told["sparsity"] == 0 and told["layers"] == {}


def test_an_impossible_run_tells_nothing(tmp_path):
    record = execute(tiny_run(space="ip", sparsity="0.9999"), tmp_path, Environment())
    assert record["status"] == "impossible" and "effective" not in record


def test_a_net_that_cannot_be_followed_has_a_reason(capsys):
    class Remembering(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(2, 2)
            self.register_buffer("last", torch.zeros(1, 2))

        def forward(self, x):
            self.last.copy_(self.a(x) + self.last)
            return self.last * 1

    told = describe_effective(SparseNet(Remembering(), make_run(), (2,)))
    assert set(told) == {"reason"} and "writes into a tensor of the net" in told["reason"]
    assert not capsys.readouterr().err  # nothing is wrong here


def test_a_mistake_of_ours_is_told_and_costs_no_training(monkeypatch, capsys):
    def broken(net: SparseNet) -> None:
        raise IndexError("no such node")

    monkeypatch.setattr(counting, "effective", broken)
    assert describe_effective(SparseNet(nn.Linear(2, 2), make_run(), (2,))) == {"reason": "IndexError: no such node"}
    assert "effective coefficients could not be counted: IndexError: no such node" in capsys.readouterr().err


def test_operators_that_are_not_known_are_told():
    class Sorted(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 3)

        def forward(self, x):
            return self.a(x)[:, torch.tensor([2, 0, 1])]

    assert describe_effective(SparseNet(Sorted(), make_run(), (3,)))["mixing"] == ["index"]


def test_a_record_without_it_stays_valid(tmp_path):
    run = tiny_run(sparsity="0.9")
    record = execute(run, tmp_path, Environment())
    found = flat({name: value for name, value in record.items() if name != "effective"}, run)
    check_values(found)
    assert not any(name.startswith("effective") for name in found)
