from __future__ import annotations

import shutil
import warnings
from dataclasses import replace
from itertools import pairwise

import pytest
from matplotlib.figure import Figure

from ipbench.analysis import style, write_figures, write_runs
from ipbench.analysis.figures import draw, layout
from ipbench.analysis.grid import parse
from ipbench.analysis.plan import plan

from .drawing import figure, panels, texts
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


def test_the_overview_leaves_out_single_methods_and_spaces(small, tmp_path):
    results = tmp_path / "copy"
    shutil.copytree(small, results, ignore=shutil.ignore_patterns("figures"))
    files = write_figures(results, overview=True)
    assert files and all(".all.both." in path.name for path in files)
    assert {path.name for path in (results / "figures").iterdir()} == {path.name for path in files}


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
    assert len(drawn(tmp_path, plan_of, method="all")) == 12
    assert len(drawn(tmp_path, plan_of, method="grasp", space="both")) == 4


@pytest.mark.parametrize("spaces", [("sp", "ip"), ("ip",)])
def test_a_grid_without_runs_is_drawn(tmp_path, spaces):
    plan_of = grid(methods=("snip",), sparsities=("0.9",), spaces=spaces)
    write(tmp_path, plan_of, [(c["id"], seed) for c in plan_of["cells"] for seed in c["seeds"]])
    write_runs(tmp_path)
    assert drawn(tmp_path, plan_of)


@pytest.mark.usefixtures("unchecked")
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
            *(
                cell("snip", "ip", "0.9", seeds=[7], basis=basis)
                for basis in ({"init": "orthonormal"}, {"sharing": "network"})
            ),
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


def test_spatial_zeros_before_and_after_training(tmp_path):
    """IP starts with as many zeros as it has pruned coefficients, and ends with fewer."""
    write(
        tmp_path,
        grid(("snip",), ("0.9", "0.99"), seeds=range(3)),
        spatial_zeros_start=lambda c, s: 0.8 + 0.01 * s,
        spatial_zeros_end=lambda c, s: 0.3 + 0.01 * s if c["space"] == "ip" else 0.8 + 0.01 * s,
    )
    drawn = figure(tmp_path, "spatial-zeros")
    (axes,) = panels(drawn, "snip")
    lines = {
        (line.get_marker(), line.get_linestyle()): list(line.get_ydata())
        for line in axes.get_lines()
        if len(line.get_xdata()) == 2 and line.get_linestyle() != "None"
    }
    assert lines == {
        ("o", ":"): pytest.approx([81, 81]),
        ("s", ":"): pytest.approx([81, 81]),
        ("o", "-"): pytest.approx([81, 81]),
        ("s", "-"): pytest.approx([31, 31]),
    }
    assert "12 of 12 runs." in texts(drawn)


TEN = ("random", "magnitude", "snip", "grasp", "synflow", "rigl", "set", "gmp", "lottery", "freezenet-it")


@pytest.fixture(scope="module")
def ten(tmp_path_factory):
    results = tmp_path_factory.mktemp("ten")
    return write(results, grid(TEN, ("0.9", "0.98", "0.99"), dense=("sp", "ip"), seeds=range(3)))


@pytest.mark.parametrize(
    "name", ["accuracy", "difference", "training-loss", "gradient-norm", "density", "spatial-zeros", "basis", "cost"]
)
def test_ten_methods_fit_on_a_page_and_nothing_overlaps(ten, name):
    drawn = figure(ten, name)
    width, height = drawn.get_size_inches()
    assert width <= style.PAGE_WIDTH + 0.01 and height <= style.PAGE_HEIGHT + 0.01
    titles = [axes.title.get_window_extent() for axes in drawn.axes]
    boxes = [axes.get_window_extent() for axes in drawn.axes]
    for index, title in enumerate(titles):
        assert not any(title.overlaps(box) for box in boxes)
        assert not any(title.overlaps(other) for other in titles[index + 1 :])
    for axes in drawn.axes:
        for axis in (axes.xaxis, axes.yaxis):
            shown = [label for label in axis.get_ticklabels() if label.get_visible() and label.get_text()]
            inside = [label.get_window_extent() for label in shown if _on(axis, label)]
            assert not any(one.overlaps(two) for one, two in pairwise(inside))
    notes = [text.get_window_extent() for text in drawn.texts]
    assert all(box.x0 >= 0 and box.x1 <= width * drawn.dpi for box in notes)


def _on(axis, label):
    """Whether a tick label belongs to a place that is in sight."""
    place = label.get_position()[0 if axis.axis_name == "x" else 1]
    low, high = sorted(axis.get_view_interval())
    return low <= place <= high


def test_panels_stand_in_the_order_of_the_config(ten):
    assert [axes.get_title() for axes in figure(ten, "accuracy").axes] == list(TEN)
    assert [axes.get_title() for axes in figure(ten, "basis").axes] == [*TEN, *TEN]


def test_labels_of_a_logarithmic_axis_are_few_but_never_none():
    for height, low, high, least, most in ((1.3, 0.2, 0.5, 2, 5), (1.3, 0.02, 3, 4, 7), (0.62, 0.02, 3, 2, 4)):
        sheet = layout.page([1], ["a"], "", height=height)
        layout.log_axis(sheet, sheet.panels[0], (low, high))
        sheet.figure.canvas.draw()
        axis = sheet.panels[0].yaxis
        shown = [label for label in axis.get_majorticklabels() if label.get_text() and _on(axis, label)]
        assert least <= len(shown) <= most


def test_blocks_share_their_y_axis_only_within():
    sheet = layout.page([2, 1, 2, 1], list("abcdef"), "", blocks=[0, 0, 1, 1])
    sheet.block(0)[0].set_ylim(0, 5)
    sheet.block(1)[0].set_ylim(2, 3)
    assert {axes.get_ylim() for axes in sheet.block(0)} == {(0, 5)}
    assert {axes.get_ylim() for axes in sheet.block(1)} == {(2, 3)}
    assert [sheet.lowest(index) for index in range(6)] == [False, True, True, False, True, True]


def saved(path, text):
    figure = Figure()
    figure.text(0, 0, text)
    with style.styled():
        style.save(figure, path)
    return path.read_text().count("<use ")


def test_a_dollar_is_no_formula(tmp_path):
    """In a title or in an option: every character is drawn."""
    assert saved(tmp_path / "x.svg", "$b_c$") == 5
    assert saved(tmp_path / "x.svg", r"$\frac{$") == len(r"$\frac{$")  # would be an error


def test_powers_of_ten_on_an_axis_are_formulas_still(tmp_path):
    assert saved(tmp_path / "x.svg", r"$\mathdefault{10^{3}}$") == 3


def test_markers_of_differences_tell_the_verdict(tmp_path):
    """Filled: a claim; grey: within the margin; white: undecided."""
    gain = {"snip": 0.02, "grasp": 0.0, "random": 0.0}
    noise = [0.0, 0.001, -0.001, 0.001, -0.001, 0.0005, -0.0005]

    def accuracy(c, seed):
        scale = 10 if c["method"] == "random" else 1
        return 0.8 + (gain[c["method"]] + scale * noise[seed] if c["space"] == "ip" else 0)

    write(tmp_path, grid(tuple(gain), ("0.9",), dense=(), seeds=range(7)), test_accuracy=accuracy)
    sheet = figure(tmp_path, "difference")
    fills = {}
    for axes in sheet.axes:
        (diamond,) = [line for line in axes.get_lines() if line.get_marker() == "D"]
        fills[axes.get_title()] = diamond.get_markerfacecolor()
    assert fills == {"snip": style.DIFFERENCE_COLOUR, "grasp": "#B0B0B0", "random": "white"}
    assert [text.get_text() for text in sheet.legends[0].get_texts()][:3] == ["claim", "within ±0.5", "undecided"]
    assert "over seeds, not test images" in texts(sheet)


def test_single_seeds_are_shown_where_a_run_collapsed(tmp_path):
    outcome = {"test_accuracy": lambda c, s: 0.1 if (c["method"], c["sparsity"], s) == ("snip", "0.98", 2) else 0.8}
    write(tmp_path, grid(("snip", "grasp"), spaces=("sp",)), **outcome)
    sheet = figure(tmp_path, "methods")
    (axes,) = sheet.axes
    (dots,) = [item for item in axes.collections if item.get_offsets().shape == (6, 2)]
    assert sorted(dots.get_offsets()[:, 1]) == pytest.approx([10, 80, 80, 80, 80, 80])
    assert "30 of 30 runs, 1 at chance." in texts(sheet)


def test_what_would_mix_settings_is_not_drawn(tmp_path):
    plan_of = grid(("snip", "grasp"), ("0.9",))
    write(tmp_path, plan_of)
    changed = record(plan_of["cells"][1], 2)
    changed["provenance"]["processes"] = 2
    put(tmp_path, changed)
    for name in ("accuracy", "training-loss", "density"):
        sheet = figure(tmp_path, name)
        assert "Not formed: 1 mean, mixed 2 numbers of processes (1, 2)." in texts(sheet)
    for name in ("difference", "cost"):
        assert "Not formed: 1 pair, mixed 2 numbers of processes (1, 2)." in texts(figure(tmp_path, name))


@pytest.mark.parametrize("name", ["accuracy", "generalisation", "spatial-zeros", "methods"])
def test_a_space_without_cells_is_in_no_legend(tmp_path, name):
    write(tmp_path, grid(("snip", "grasp"), ("0.9", "0.98"), spaces=("sp",)))
    named = [text.get_text() for text in figure(tmp_path, name).legends[0].get_texts()]
    assert named and not any("IP" in text for text in named)
