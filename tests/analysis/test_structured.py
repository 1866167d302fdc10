"""Nets whose channels were cut: accuracy against MACs and time, channels by layer, a table; where there are some."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from matplotlib.colors import same_color

from ipbench.analysis import style, write_runs, write_tables
from ipbench.analysis.collect import collect
from ipbench.analysis.grid import parse
from ipbench.analysis.plan import plan, plan_tables
from ipbench.analysis.sliced import channels_left, latency, macs_left, parameters_left, ratio_statistics
from ipbench.analysis.tables import make_tables

from . import drawing, synthetic
from .synthetic import cell, grid, put, record, sliced, write

NEW = {"macs", "latency", "channels"}
COLOURS = style.METHOD_COLOURS
SEEDS = range(3)
RATES = (0.25, 0.5)


def planned(seeds=SEEDS):
    """SNIP at two budgets of MACs, and a method with a knob, in both spaces."""
    shared = {"pattern": "filters", "budget": "macs", "seeds": seeds}
    cells = [cell("dense", "sp", "0", seeds=seeds)]
    cells += [cell("snip", space, p, **shared) for p in ("0.25", "0.5") for space in ("sp", "ip")]
    cells += [
        cell("mine", space, "0", options={"rate": rate}, knob="rate", **shared)
        for rate in RATES
        for space in ("sp", "ip")
    ]
    return {"name": "small", "title": "A small grid", "cells": cells}


def left(c, seed):
    """The share of channels; that of the method with a knob varies with the seed."""
    if c["method"] == "snip":
        return 1 - float(c["sparsity"])
    return 1 - c["options"]["rate"] - 0.05 * (seed - 1)


def accuracy(c, seed):
    return 0.9 if c["method"] == "dense" else 0.5 + 0.4 * left(c, 1) + 0.02 * (c["space"] == "ip") + 0.01 * (seed - 1)


def filled(folder, device=lambda c, seed: ("cpu", 1), ratio=lambda c, seed: left(c, seed) + 0.1, skip=()):
    """Write all records, with what is left and how long it takes."""
    plan_of = planned()
    write(folder, plan_of, [(c["id"], seed) for c in plan_of["cells"] for seed in SEEDS])
    for c in plan_of["cells"]:
        for seed in SEEDS:
            if (c["id"], seed) in skip:
                continue
            cut = {} if c["method"] == "dense" else sliced(c, seed, left(c, seed))
            value = record(c, seed, test_accuracy=accuracy(c, seed), **cut)
            name, threads = device(c, seed)
            if c["method"] != "dense":
                kind = "cpu" if name == "cpu" else "cuda"
                value["cost"]["latency"] = synthetic.latency(ratio(c, seed), kind, threads)
            value["provenance"] |= {"device": name, "threads": threads}
            put(folder, value)
    return folder


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return filled(tmp_path_factory.mktemp("cut"))


def test_they_are_planned_only_where_channels_are_cut():
    assert {file.figure for file in plan(planned())} >= NEW
    assert "tables/structured.csv" in plan_tables(planned())
    kinds = [
        {}, {"pattern": "columns"}, {"pattern": "2:4"}, {"pattern": "filters", "off": "frozen"},
        {"pattern": "channels", "off": "decayed"},
    ]  # fmt: skip
    for axes in kinds:
        found = grid() | {"cells": [cell("dense", "sp", "0"), cell("snip", "sp", "0.5", **axes)]}
        assert NEW.isdisjoint({file.figure for file in plan(found)})
        assert len(plan_tables(found)) == 24 and not any("structured" in path for path in plan_tables(found))


def test_what_is_written_is_what_is_planned(results):
    write_runs(results)
    assert [path.relative_to(results).as_posix() for path in write_tables(results)] == plan_tables(planned())
    assert set(make_tables(collect(results))) == {path.split("/")[1].split(".")[0] for path in plan_tables(planned())}


def line_at_100(axes):
    """Whether a vertical line stands at the dense net."""
    return any(list(line.get_xdata()) == [100, 100] and line.get_marker() == "None" for line in axes.get_lines())


def test_accuracy_against_macs_stands_at_what_is_left(results):
    drawn = drawing.figure(results, "macs")
    assert [axes.get_title() for axes in drawn.axes] == ["SP", "IP"]
    for axes, more in zip(drawn.axes, (0, 2), strict=True):
        for number, method in enumerate(("snip", "mine")):
            places, means = drawing.points(axes, COLOURS[number], style.METHOD_MARKERS[number])
            assert places == pytest.approx([50, 75], abs=0.01), method
            assert means == pytest.approx([70 + more, 80 + more])
        low, high = axes.get_xlim()
        assert 30 < low < 37 and 88 < high < 95  # intervals go from 37.6 to 87.4: the axis is for what was found
        assert not line_at_100(axes)
    assert drawing.points(drawn.axes[0], style.DENSE_COLOUR["sp"])[1] == pytest.approx([90, 90])
    assert "MACs left (% of the dense net)" in drawing.texts(drawn) and "27 of 27 runs." in drawing.texts(drawn)
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == ["snip", "mine", "dense (SP)"]


def test_more_methods_than_colours_are_told_apart_by_dashes_and_open_markers(tmp_path):
    """Twelve methods; the last two have the colours of the first two. One has another pattern, which the note says."""
    names = [f"method-{number}" for number in range(12)]
    cells = [
        cell(name, "sp", "0.5", pattern="channels" if name == names[2] else "filters", budget="macs", seeds=SEEDS)
        for name in names
    ]
    write(tmp_path, {"name": "small", "title": "A small grid", "cells": cells}, [])
    for number, c in enumerate(cells):
        for seed in SEEDS:
            put(tmp_path, record(c, seed, test_accuracy=0.5 + 0.01 * number, **sliced(c, seed, 0.5)))
    drawn = drawing.figure(tmp_path, "macs")
    (axes,) = drawn.axes
    assert axes.get_xlim() == pytest.approx((40, 60), abs=0.01)  # all have 50 %: an axis is never shorter
    lines = {float(line.get_ydata()[0]): line for line in axes.get_lines() if len(line.get_ydata()) == 1}
    for number in range(12):
        line = next(line for y, line in lines.items() if y == pytest.approx(50 + number))
        assert same_color(line.get_color(), COLOURS[number % 10])
        assert same_color(line.get_markerfacecolor(), "white") == (number >= 10)
        assert (line.get_linestyle() == "--") == (number >= 10)
    legend = drawn.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == names
    assert [line.get_linestyle() for line in legend.get_lines()] == ["-"] * 10 + ["--"] * 2
    assert "Methods: pattern filters (method-2: channels)." in drawing.texts(drawn)


def bars(axes, colour):
    """The intervals of a colour: how far each goes along x and y."""
    segments = [path for one in axes.collections for path in getattr(one, "get_segments", list)()
                if same_color(one.get_edgecolor()[0], colour)]  # fmt: skip
    return [(float(np.ptp(path[:, 0])), float(np.ptp(path[:, 1]))) for path in segments]


@pytest.mark.parametrize(("mean", "far"), [(0.7, True), (0.745, True), (0.76, False)])
def test_a_mean_far_from_others_that_are_close_stands_at_the_edge(tmp_path, monkeypatch, mean, far):
    """All others at 80.1: what is more than five points below is far."""

    def close(c, seed):
        return mean if (c["space"], c["sparsity"], c["method"]) == ("sp", "0.5", "snip") else 0.8 + 0.001 * seed

    monkeypatch.setattr(f"{__name__}.accuracy", close)
    drawn = drawing.figure(filled(tmp_path), "macs")
    axes = drawn.axes[0]
    assert [text.get_text() for text in axes.texts] == [f"{100 * mean:.1f}"] * far
    assert (axes.get_ylim()[0] > 100 * mean) == far
    assert ("below the median of all by more than five points" in drawing.texts(drawn)) == far


def test_intervals_go_along_both_axes_where_both_vary(results):
    """t = 4.303 for n = 3: of accuracies 1 point apart 2.48 points up and down; of shares 5 per cent apart 12.4."""
    axes = drawing.figure(results, "macs").axes[0]
    assert len(bars(axes, COLOURS[0])) == 2  # what SNIP reached does not vary
    assert all(x == 0 and y == pytest.approx(2 * 4.302653 / math.sqrt(3)) for x, y in bars(axes, COLOURS[0]))
    along = [x for x, y in bars(axes, COLOURS[1]) if x]
    assert len(bars(axes, COLOURS[1])) == 4 and along == pytest.approx([10 * 4.302653 / math.sqrt(3)] * 2, abs=0.01)


def test_time_is_a_geometric_mean_of_ratios_of_one_record(tmp_path):
    """1/2, 1 and 2 have the mean 1."""
    filled(tmp_path, ratio=lambda c, seed: 2.0 ** (seed - 1))
    drawn = drawing.figure(tmp_path, "latency")
    for axes in drawn.axes:
        assert drawing.points(axes, COLOURS[0], "o")[0] == pytest.approx([100, 100])
        assert line_at_100(axes)
    assert "Measured on: cpu, Test CPU; 1 thread; batches of 64." in drawing.texts(drawn)
    found = ratio_statistics({0: 0.5, 1: 1.0, 2: 2.0})
    assert found.mean == pytest.approx(1) and found.lower * found.upper == pytest.approx(1) and found.n == 3


def test_devices_never_share_a_curve(tmp_path):
    """Two GPUs and two numbers of threads: rows of panels of their own, each with the runs that were measured there."""
    places = {0: ("NVIDIA H100", 1), 1: ("NVIDIA H200", 1), 2: ("NVIDIA H200", 4)}
    filled(tmp_path, device=lambda c, seed: places[seed], ratio=lambda c, seed: 0.2 * (seed + 1))
    drawn = drawing.figure(tmp_path, "latency")
    titles = [axes.get_title().replace("\n", " ") for axes in drawn.axes]
    assert titles == [
        f"{space}, {device}; batches of 64"
        for device in ("NVIDIA H100; 1 thread", "NVIDIA H200; 1 thread", "NVIDIA H200; 4 threads")
        for space in ("SP", "IP")
    ]
    for number, axes in enumerate(drawn.axes):
        assert drawing.points(axes, COLOURS[0], "o")[0] == pytest.approx([20 * (number // 2 + 1)] * 2)
    boxes = [axes.title.get_window_extent() for axes in drawn.axes]
    assert all(box.x0 >= 0 and box.x1 <= drawn.bbox.width for box in boxes)
    table = make_tables(collect(tmp_path))["structured"]
    assert len(table.printed) == 3 * 8 and table.printed["measured on"].nunique() == 3
    assert table.printed["time n"].tolist() == ["1"] * 24


def test_runs_that_were_not_measured_are_counted(tmp_path):
    filled(tmp_path)
    one = next(c for c in planned()["cells"] if c["method"] == "snip")
    put(tmp_path, record(one, 0, **sliced(one, 0, 0.75)))
    drawn = drawing.figure(tmp_path, "latency")
    assert "1 run of which nothing was cut, or measured, left out." in drawing.texts(drawn)


def test_channels_of_every_layer(results):
    """conv1 has 6 channels, conv2 16; the others keep theirs. A panel per space and level, SP above IP."""
    drawn = drawing.figure(results, "channels")
    titles = [axes.get_title().replace("\N{NO-BREAK SPACE}", " ") for axes in drawn.axes]
    levels = ["p = 0.25", "p = 0.5", "rate = 0.25 (p = 0.25)", "rate = 0.5 (p = 0.50)"]
    assert titles == [f"{space}, {level}" for space in ("SP", "IP") for level in levels]
    places, shares = drawing.points(drawn.axes[1], COLOURS[0], "o")
    assert places == [1, 2, 3, 4, 5] and shares == pytest.approx([50, 50, 100, 100, 100])
    # 0.55, 0.5 and 0.45 of 6 channels are 3; of 16 they are 9, 8 and 7: their range is a band.
    _, shares = drawing.points(drawn.axes[3], COLOURS[1], "s")
    assert shares == pytest.approx([50, 50, 100, 100, 100])
    (band,) = drawn.axes[3].collections
    corners = band.get_paths()[0].vertices
    second = sorted({round(float(y), 4) for x, y in corners if x == 2})
    assert second == [43.75, 56.25]
    assert "36 of 36 runs." not in drawing.texts(drawn) and "24 of 24 runs." in drawing.texts(drawn)


def test_levels_of_several_budgets_say_of_what(tmp_path):
    cells = [
        cell("snip", "sp", "0.5", pattern="filters", budget=budget, seeds=SEEDS) for budget in ("macs", "parameters")
    ]
    write(tmp_path, grid() | {"cells": [cell("dense", "sp", "0", seeds=SEEDS), *cells]})
    titles = [axes.get_title().replace("\N{NO-BREAK SPACE}", " ") for axes in drawing.figure(tmp_path, "channels").axes]
    assert titles == ["SP, p = 0.5 of MACs", "SP, p = 0.5 of parameters"]


def test_many_levels_are_spread(tmp_path):
    shares = [f"0.{number}" for number in range(1, 10)] + ["0.95", "0.99"]
    cells = [cell("snip", "sp", p, pattern="filters", budget="macs", seeds=[0]) for p in shares]
    write(tmp_path, grid() | {"cells": [cell("dense", "sp", "0", seeds=[0]), *cells]})
    drawn = drawing.figure(tmp_path, "channels")
    titles = [axes.get_title().replace("\N{NO-BREAK SPACE}", " ") for axes in drawn.axes]
    assert len(titles) == 8 and titles[0] == "SP, p = 0.1" and titles[-1] == "SP, p = 0.99"
    assert "Panels are those of 8 of 11 levels." in drawing.texts(drawn)


@pytest.mark.parametrize("name", sorted(NEW))
def test_nothing_finished_is_said(tmp_path, name):
    write(tmp_path, planned(), [(c["id"], seed) for c in planned()["cells"] for seed in SEEDS])
    drawn = drawing.figure(tmp_path, name)
    assert {text.get_text() for axes in drawn.axes for text in axes.texts} == {"no finished runs"}


def test_what_methods_were_asked_for_by_layer_is_one_level_whatever_the_knob(tmp_path):
    """A text of shares by layer means the same to both; a number does not."""
    shared = {"pattern": "filters", "budget": "macs", "seeds": SEEDS}
    text = "stage1=0.5,stage2=0.5"
    cells = [
        cell("mine", "sp", "0", options={"ratios": text}, knob="ratios", **shared),
        cell("yours", "sp", "0", options={"layers": text}, knob="layers", **shared),
        cell("mine", "sp", "0", options={"ratios": 0.5}, knob="ratios", **shared),
        cell("yours", "sp", "0", options={"layers": 0.5}, knob="layers", **shared),
    ]
    write(tmp_path, grid() | {"cells": [cell("dense", "sp", "0", seeds=SEEDS), *cells]}, reached=lambda c, s: 0.4)
    drawn = drawing.figure(tmp_path, "channels")
    lines = [[line for line in axes.get_lines() if len(line.get_xdata()) == 5] for axes in drawn.axes]
    assert sorted(map(len, lines)) == [1, 1, 2]
    (both,) = [some for some in lines if len(some) == 2]
    assert [round(float(line.get_xdata()[0]), 2) for line in both] == [0.85, 1.15]


def test_names_say_what_tells_cut_nets_apart(tmp_path):
    """Their pattern and budget are the same; those of the other methods of the grid do not count."""
    shared = {"pattern": "filters", "budget": "macs", "seeds": SEEDS}
    cells = [cell(name, "sp", "0.5", **shared) for name in ("mine", "yours")] + [cell("snip", "sp", "0.9", seeds=SEEDS)]
    write(tmp_path, grid() | {"cells": [cell("dense", "sp", "0", seeds=SEEDS), *cells]}, macs_now=lambda c, s: 200_000)
    for name in ("macs", "latency", "channels"):
        (legend,) = drawing.figure(tmp_path, name).legends
        assert [text.get_text() for text in legend.get_texts()][:2] == ["mine", "yours"]
    assert next(axes.get_title() for axes in drawing.figure(tmp_path, "accuracy").axes) == "mine, filters, macs"


def test_many_methods_stay_on_the_page(tmp_path):
    shared = {"pattern": "filters", "budget": "macs", "seeds": SEEDS}
    names = [f"method-{number:02d}-x" for number in range(10)]
    cells = [cell(name, space, "0.5", **shared) for name in names for space in ("sp", "ip")]
    plan_of = grid() | {"cells": [cell("dense", "sp", "0", seeds=SEEDS), *cells]}
    write(tmp_path, plan_of, macs_now=lambda c, s: 200_000)
    for name in ("macs", "channels"):
        drawn = drawing.figure(tmp_path, name)
        (legend,) = drawn.legends
        box = legend.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= drawn.bbox.width
        assert all(axes.title.get_window_extent().y1 <= box.y0 + 1 for axes in drawn.axes)


def test_the_table_tells_what_is_left(results):
    table = make_tables(collect(results))["structured"]
    assert list(table.printed.columns) == [
        "method", "removed share p", "space", "n", "MACs left", "parameters left", "accuracy", "time",
    ]  # fmt: skip
    assert len(table.printed) == 8 and "dense" not in table.printed["method"].tolist()
    first = table.printed.iloc[1]  # SNIP at p = 0.25 in IP
    assert (first["space"], first["n"], first["MACs left"]) == ("IP", "3", "75.00")
    assert first["parameters left"].startswith("45.0 k (") and first["accuracy"] == "82.00 [79.52, 84.48]"
    assert first["time"] == "85.00 [85.00, 85.00]"
    raw = table.data
    knob = raw[(raw["knob"] == "rate") & (raw["space"] == "sp")]
    assert knob["macs_left_percent"].tolist() == pytest.approx([75, 50], abs=0.01)
    assert knob["measured_on"].unique().tolist() == ["cpu, Test CPU; 1 thread; batches of 64"]
    assert any("Times measured on: cpu, Test CPU; 1 thread; batches of 64." in note for note in table.notes)
    text = table.printed["removed share p"].tolist()
    assert text[:2] == ["0.25", "0.25"] and text[-1] == "rate=0.5 (0.500)"


def test_a_cell_without_runs_is_a_row_without_numbers(tmp_path):
    gone = [c["id"] for c in planned()["cells"] if c["method"] == "mine"]
    filled(tmp_path, skip=[(name, seed) for name in gone for seed in SEEDS])
    table = make_tables(collect(tmp_path))["structured"]
    last = table.printed.iloc[-1]
    assert last[["n", "MACs left", "parameters left", "accuracy", "time"]].tolist() == ["0 of 3", "–", "–", "–", "–"]


def test_what_single_records_tell():
    layers = json.dumps([{"name": "a", "kept": 9}, {"name": "b", "kept": 9}])
    run = {"layers": layers, "macs_dense": 200.0, "macs_now": 50.0, "macs_sliced": 60.0, "parameters_now": 7.0}
    assert (macs_left(run), parameters_left(run)) == (0.25, 7)
    cut = json.dumps([{"name": "b", "channels": 8, "kept": 2}])
    assert channels_left(run | {"sliced": cut}) == {"a": 1.0, "b": 0.25}
    whole = {"layers": layers, "macs_dense": 200.0, "macs_sliced": 200.0, "macs_now": None, "parameters_dense": 90.0}
    assert (macs_left(whole), parameters_left(whole), latency(whole)) == (1, 90, None)
    assert math.isnan(macs_left({"macs_dense": 200.0})) and math.isnan(parameters_left({"macs_dense": 200.0}))
    gpu = {"cost_latency": json.dumps(synthetic.latency(0.5, "cuda")), "provenance_device": "NVIDIA H100",
           "provenance_cpu": "Test CPU"}  # fmt: skip
    assert latency(gpu).where == "NVIDIA H100; 1 thread; batches of 64" and latency(gpu).ratio == 0.5


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        ({"sliced": [{"name": "conv9", "channels": 6, "kept": 3}]}, "sliced: a layer is none of the net"),
        ({"sliced": [{"name": "conv1", "channels": 6, "kept": 6}]}, "sliced: a layer is none of the net"),
        ({"sliced": [{"name": "conv1", "channels": 6, "kept": 0}]}, "sliced: a layer is none of the net"),
        ({"sliced": [{"name": "conv1", "channels": 6}]}, "sliced is not a list of layers"),
        ({"sliced": 3}, "sliced is not a list of layers"),
        ({"macs_now": -1}, "macs_now is -1"),
    ],
)
def test_records_that_cannot_be_right_are_refused(tmp_path, outcome, message):
    plan_of = planned(seeds=[0])
    write(tmp_path, plan_of)
    put(tmp_path, record(plan_of["cells"][1], 0, **outcome))
    (found,) = collect(tmp_path).unreadable
    assert message in found.message


@pytest.mark.parametrize(
    "change",
    [{"dense": {"seconds": 0}}, {"sliced": {"seconds": -1.0}}, {"threads": "one"}, {"sliced": None}, {"device": 3}],
)
def test_a_time_that_cannot_be_right_is_refused(tmp_path, change):
    plan_of = planned(seeds=[0])
    write(tmp_path, plan_of)
    value = record(plan_of["cells"][1], 0)
    value["cost"]["latency"] = synthetic.latency(0.5) | change
    put(tmp_path, value)
    (found,) = collect(tmp_path).unreadable
    assert "cost_latency" in found.message


def test_a_net_of_its_own_has_its_figures():
    """A grid over two nets of which one has no cut channels."""
    cells = [cell("snip", "sp", "0.5", model="lenet"), cell("snip", "sp", "0.5", model="vgg", pattern="channels")]
    found = plan(parse(grid() | {"cells": cells}))
    assert {file.model for file in found if file.figure in NEW} == {"vgg"}
