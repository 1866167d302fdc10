from __future__ import annotations

import math

import pytest

from ipbench.analysis import style
from ipbench.analysis.grid import parse
from ipbench.analysis.plan import plan

from .drawing import figure, points, texts
from .synthetic import grid, put, record, write

COLOUR = style.METHOD_COLOURS[0]


def timed(results, plan_of, seconds, device="cpu"):
    """Write a grid whose records tell these seconds: a function of (cell, seed) to the parts of `cost`."""
    write(results, plan_of)
    for c in plan_of["cells"]:
        for seed in c["seeds"]:
            value = record(c, seed)
            value["cost"] |= seconds(c, seed)
            value["provenance"]["device"] = device
            put(results, value)
    return results


def test_cost_is_planned_where_both_spaces_are():
    assert "cost" in {file.figure for file in plan(parse(grid()))}
    for space in ("sp", "ip"):
        assert "cost" not in {file.figure for file in plan(parse(grid(spaces=(space,))))}


@pytest.mark.usefixtures("unchecked")
def test_ratios_are_paired_by_seed(tmp_path):
    """IP takes 2, 4 and 8 times as long as SP of the same seed: 4 times, whatever the seed itself costs."""

    def outcome(c, seed):
        return (10.0 ** (seed + 1)) * (2.0 ** (seed + 1) if c["space"] == "ip" else 1)

    write(
        tmp_path,
        grid(("snip",), ("0.9", "0.99"), seeds=range(3)),
        parameters=lambda c, s: int(1000 * outcome(c, s)),
        macs_sparse=lambda c, s: 100,
        macs_sparse_two_stage=lambda c, s: 150 if c["sparsity"] == "0.9" else 250,
    )
    time, parameters, macs = figure(tmp_path, "cost").axes
    assert points(time, COLOUR, "o")[1] == pytest.approx([1, 1])
    assert points(parameters, COLOUR, "o")[1] == pytest.approx([4, 4])
    assert points(macs, COLOUR, "o")[1] == pytest.approx([1.5, 2.5])
    assert points(time, COLOUR, "o")[0] == pytest.approx([1, 2])


def test_cpu_seconds_are_used_where_every_run_has_them_on_a_cpu(tmp_path):
    plan_of = grid(("snip",), ("0.9",), seeds=range(3))
    timed(tmp_path, plan_of, lambda c, s: {"cpu_seconds": 3.0 if c["space"] == "ip" else 2.0, "wall_seconds": 9.0})
    drawn = figure(tmp_path, "cost")
    assert drawn.axes[0].get_title() == "CPU time of a run"
    assert points(drawn.axes[0], COLOUR, "o")[1] == pytest.approx([1.5])
    assert "Hardware: cpu, Test CPU; threads: 1." in texts(drawn) and "6 of 6 runs." in texts(drawn)


@pytest.mark.parametrize("what", ["older record", "GPU"])
def test_else_wall_seconds(tmp_path, what):
    plan_of = grid(("snip",), ("0.9",), seeds=range(3))
    device = "A GPU" if what == "GPU" else "cpu"
    timed(
        tmp_path,
        plan_of,
        lambda c, s: {"cpu_seconds": 3.0, "wall_seconds": 8.0 if c["space"] == "ip" else 2.0},
        device=device,
    )
    if what == "older record":
        value = record(plan_of["cells"][1], 0)
        value["cost"] |= {"wall_seconds": 2.0}
        put(tmp_path, value)
    time = figure(tmp_path, "cost").axes[0]
    assert time.get_title() == "wall time of a run"
    assert points(time, COLOUR, "o")[1] == pytest.approx([4])


def test_pairs_without_a_ratio_are_counted_and_large_ratios_are_on_a_logarithm(tmp_path):
    """A net of which nothing is left has no MACs; diverged and missing runs have no cost to compare."""
    plan_of = grid(("snip",), ("0.9", "0.99"), seeds=range(4))
    sp, ip = (next(c for c in plan_of["cells"][1:] if c["space"] == space) for space in ("sp", "ip"))
    write(
        tmp_path,
        plan_of,
        [(ip["id"], 3)],
        macs_sparse=lambda c, s: 0 if (c["id"], s) == (sp["id"], 0) else 100,
        macs_sparse_two_stage=lambda c, s: 150 if c["sparsity"] == "0.9" else 2000,
    )
    put(tmp_path, record(ip, 2, "diverged", "nan", test_accuracy=None))
    drawn = figure(tmp_path, "cost")
    macs = drawn.axes[2]
    assert points(macs, COLOUR, "o")[1] == pytest.approx([1.5, 20]) and macs.get_yscale() == "log"
    assert "1 pair with a number of zero left out. 14 of 16 runs, 1 diverged, 1 missing." in texts(drawn)


def test_every_method_has_a_line_and_a_name(tmp_path):
    names = [f"method-{number:02d}-x" for number in range(12)]
    write(tmp_path, grid(names, ("0.9", "0.98", "0.99"), seeds=range(3)))
    drawn = figure(tmp_path, "cost")
    (legend,) = drawn.legends
    assert [text.get_text() for text in legend.get_texts()] == names
    looks = [(line.get_color(), line.get_marker()) for line in legend.get_lines()]
    assert len(set(looks)) == 12
    width, _ = drawn.get_size_inches() * drawn.dpi
    box = legend.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= width and not math.isnan(box.y0)
    assert all(axes.get_window_extent().y1 < box.y0 for axes in drawn.axes)
