"""Runs that were made in different ways do not meet in one number."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ipbench.analysis.collect import collect
from ipbench.analysis.settings import Settings

from .synthetic import cell, put, record, write

TORCHVISION, COPS, IMAGENET = {"model": "resnet18"}, {"method": "cops"}, {"dataset": "imagenet"}


def settings(folder, *told, status="done", **axes):
    """Of one cell, each of whose seeds has a record that tells this of its provenance."""
    axes = {"method": "snip", "model": "small-vgg", **axes}
    method = axes.pop("method")
    planned = cell(method, "sp", "0.9", seeds=range(len(told)), **axes)
    write(folder, {"name": "x", "title": "x", "cells": [planned]})
    for seed, values in enumerate(told):
        value = record(planned, seed, status if seed else "done")
        value["provenance"] |= values
        put(folder, value)
    return Settings(collect(folder)).mixed([planned["id"]])


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ({"torch": "2.14.1"}, {"torch": "2.15.0+cpu"}, "2 versions of torch (2.14.1, 2.15.0)"),
        ({"device": "cpu"}, {"device": "NVIDIA H100"}, "2 kinds of device (cpu, cuda)"),
        ({"processes": 1}, {"processes": 2}, "2 numbers of processes (1, 2)"),
        ({"data": "a" * 64}, {"data": "b" * 64}, f"2 sets of images ({'a' * 12}, {'b' * 12})"),
        ({"method": "a" * 64}, {}, f"2 versions of a method's code ({'a' * 12}, not recorded)"),
        ({"torch": "2.14.1 then 2.15.0"}, {"torch": "2.15.0"}, "2 versions of torch (2.14.1 then 2.15.0, 2.15.0)"),
        ({"device": "NVIDIA A100 then NVIDIA H100"}, {"device": "NVIDIA H100"}, None),
        ({"torch": "2.15.0+cpu"}, {"torch": "2.15.0"}, None),
        ({"device": "NVIDIA H100"}, {"device": "NVIDIA A100"}, None),
        ({"cpu": "one"}, {"cpu": "other"}, None),
        ({"processes": 1}, {}, None),
        ({"data": "a" * 64}, {}, None),
        ({"torchvision": "0.29"}, {"torchvision": "0.30"}, None),
        ({"pillow": "12"}, {"pillow": "13"}, None),
        ({"scipy": "1.15"}, {"scipy": "1.16"}, None),
    ],
)
def test_what_matters_must_agree(tmp_path, one, other, said):
    assert settings(tmp_path, one, other, other) == said


@pytest.mark.parametrize(
    ("axes", "name", "said"),
    [
        (TORCHVISION, "torchvision", "2 versions of torchvision (1, 2)"),
        (COPS, "scipy", "2 versions of scipy (1, 2)"),
        (IMAGENET, "pillow", "2 versions of Pillow (1, 2)"),
    ],
)
def test_what_decides_some_cells_alone(tmp_path, axes, name, said):
    assert settings(tmp_path, {name: "1"}, {name: "2"}, **axes) == said


@pytest.mark.parametrize(("status", "mixed"), [("diverged", True), ("impossible", False)])
def test_whose_numbers_count(tmp_path, status, mixed):
    found = settings(tmp_path, {"torch": "2.14"}, {"torch": "2.15"}, status=status)
    assert (found is not None) == mixed


def test_cells_meet_or_stand_alone(tmp_path):
    """Images may differ between data sets, code between methods; torch between neither."""
    cells = [cell("snip", "sp", p, seeds=[0], dataset=data) for p in ("0.9", "0.98") for data in ("digits", "mnist")]
    write(tmp_path, {"name": "x", "title": "x", "cells": cells})
    for planned in cells:
        value = record(planned, 0)
        value["provenance"] |= {"data": planned["dataset"], "torch": "1" if planned["sparsity"] == "0.9" else "2"}
        put(tmp_path, value)
    found = Settings(collect(tmp_path))
    ids = [planned["id"] for planned in cells]
    assert found.mixed(ids[:2]) is None and found.mixed(ids[2:]) is None and found.mixed([]) is None
    assert found.mixed(ids) == "2 versions of torch (1, 2)"


def test_columns_that_are_not_there(tmp_path):
    planned = cell("snip", "sp", "0.9", seeds=[0])
    write(tmp_path, {"name": "x", "title": "x", "cells": [planned]})
    collection = collect(tmp_path)
    runs = collection.runs.drop(columns=["provenance_data", "provenance_torch", "provenance_processes"])
    assert Settings(replace(collection, runs=runs)).mixed([planned["id"]]) is None
