from __future__ import annotations

import shutil
import warnings
from dataclasses import replace

import pytest

from ipbench.analysis import style, write_figures, write_runs
from ipbench.analysis.figures import draw
from ipbench.analysis.grid import parse
from ipbench.analysis.plan import plan

from .synthetic import cell, grid, put, record, write


def drawn(results, plan_of, **only):
    """Draw the planned SVGs whose labels are `only`, with every warning an error."""
    files = [file for file in plan(plan_of) if file.format == "svg" and only.items() <= file.labels.items()]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return draw(results, files)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    results = tmp_path_factory.mktemp("small")
    write(results, grid(methods=("snip",), sparsities=("0.9", "0.98")))
    write_runs(results)
    return results


def test_what_is_drawn_is_what_is_planned(small):
    files = write_figures(small)
    planned = [file.path for file in plan(grid(methods=("snip",), sparsities=("0.9", "0.98")))]
    assert [path.relative_to(small).as_posix() for path in files] == planned
    assert sorted(path.relative_to(small).as_posix() for path in (small / "figures").iterdir()) == sorted(planned)
    for path in files:
        start = path.read_bytes()[:100]
        assert start.startswith(b"%PDF" if path.suffix == ".pdf" else b"<?xml")


def test_bytes_depend_on_the_data_only(small, tmp_path):
    planned = plan(parse(grid(methods=("snip",), sparsities=("0.9", "0.98"))))
    files = [file for file in planned if file.method == "all" and file.figure in ("accuracy", "density")]
    first = [path.read_bytes() for path in draw(small, files)]
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(small, elsewhere)
    import matplotlib as mpl

    with mpl.rc_context({"font.size": 20, "axes.grid": True, "savefig.bbox": "tight"}):  # a user's own settings
        second = [path.read_bytes() for path in draw(elsewhere, list(reversed(files)))]
    assert first == list(reversed(second))
    assert not any(b"<dc:date>" in content or b"CreationDate" in content for content in first)


def test_a_partial_grid_is_drawn_with_its_counts(tmp_path):
    plan_of = grid(methods=("snip", "grasp"), sparsities=("0.9", "0.98"), dense=("sp", "ip"))
    by = {(c["method"], c["sparsity"], c["space"]): c for c in plan_of["cells"]}
    skip = [(c["id"], seed) for key, c in by.items() if key[0] == "grasp" for seed in range(6)]
    skip += [(by["snip", "0.9", "sp"]["id"], seed) for seed in range(1, 6)]
    write(tmp_path, plan_of, skip)
    put(tmp_path, record(by["snip", "0.98", "sp"], 0, "diverged", "nan", test_accuracy=None, curves={}, layers=None))
    for seed in range(6):
        put(tmp_path, record(by["snip", "0.98", "ip"], seed, "impossible", "FB"))
    write_runs(tmp_path)
    assert len(drawn(tmp_path, plan_of, method="all")) == 5
    assert len(drawn(tmp_path, plan_of, method="grasp", space="both")) == 3


@pytest.mark.parametrize("spaces", [("sp", "ip"), ("ip",)])
def test_a_grid_without_runs_is_drawn(tmp_path, spaces):
    plan_of = grid(methods=("snip",), sparsities=("0.9",), spaces=spaces)
    write(tmp_path, plan_of, [(c["id"], seed) for c in plan_of["cells"] for seed in c["seeds"]])
    write_runs(tmp_path)
    assert drawn(tmp_path, plan_of)


def test_odd_grids_are_drawn(tmp_path):
    """Dense nets alone; one seed; one epoch; no loss at all; a collapsed net; layers that differ; many sparsities."""
    sparsities = ["0.5", "0.9", "0.95", "0.98", "0.99", "0.999"]
    deep = [{"name": f"block{i}.conv.weight", "shape": [9], "size": 9, "kept": 0} for i in range(30)]
    plan_of = {
        "name": "odd",
        "title": "Odd",
        "cells": [
            cell("dense", "sp", "0", dataset="dense-only"),
            *(cell("snip", space, p, seeds=[7]) for p in sparsities for space in ("sp", "ip")),
            *(cell("snip", "ip", "0.9", seeds=[7], basis={"init": init}) for init in ("standard", "orthonormal")),
        ],
    }
    write(tmp_path, plan_of)
    first, second, third = plan_of["cells"][1:4]
    put(tmp_path, record(first, 7, curves={"train_loss": [0.0]}, layers=deep))
    put(tmp_path, record(second, 7, curves={"train_loss": [None, 1.0]}, layers=[]))
    put(tmp_path, record(third, 7, curves={}, train_accuracy=None))
    write_runs(tmp_path)
    assert drawn(tmp_path, plan_of, method="all") and drawn(tmp_path, plan_of, method="snip", space="sp")


def test_the_sparsity_axis_opens_towards_one():
    assert [round(style.sparsity_position(p), 6) for p in ("0", "0.9", "0.99", "0.999")] == [0, 1, 2, 3]


def test_crowded_sparsities_lose_labels_but_keep_ticks():
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    texts = ["0.9", "0.95", "0.96", "0.97", "0.98", "0.99"]
    style.sparsity_axis(axes, texts, width=1.5)
    shown = [label.get_text() for label in axes.get_xticklabels()]
    assert set(shown) < set(texts) and "0.99" in shown and "0.9" in shown
    assert len(axes.get_xticks()) + len(axes.get_xticks(minor=True)) == len(texts)


def test_png_is_for_looking(small):
    file = replace(plan(grid(methods=("snip",), sparsities=("0.9", "0.98")))[0], format="png")
    (path,) = draw(small, [file])
    assert path.read_bytes().startswith(b"\x89PNG")
    path.unlink()
