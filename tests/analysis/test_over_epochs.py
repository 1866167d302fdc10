from __future__ import annotations

import pytest

from ipbench.analysis import style
from ipbench.analysis.figures.over_epochs import by_epoch

from .drawing import figure, panels, points, texts
from .synthetic import grid, put, record, write


def curves(values):
    return dict.fromkeys(("train_loss", "validation_loss", "validation_accuracy", "gradient_norm"), values)


def run(curve, **rest):
    return {"curves_train_loss": curve, **rest}


def test_curves_are_averaged_over_the_epochs_that_all_seeds_have():
    epochs, values = by_epoch([run([3.0, 2.0, 1.0]), run([4.0, 2.5])], "curves_train_loss")
    assert epochs.tolist() == [1, 2] and values.tolist() == [[3.0, 2.0], [4.0, 2.5]]


def test_a_curve_may_start_late_or_tell_its_epochs():
    epochs, values = by_epoch([run([None, None, 2.0, 1.0]), run([None, None, 3.0, 1.5])], "curves_train_loss")
    assert epochs.tolist() == [3, 4] and values.tolist() == [[2.0, 1.0], [3.0, 1.5]]
    epochs, values = by_epoch([run([2.0, 1.0], curves_epoch=[7.0, 8.0])], "curves_train_loss")
    assert epochs.tolist() == [7, 8] and values.tolist() == [[2.0, 1.0]]


def test_seeds_without_a_curve_are_left_out():
    assert by_epoch([run(None), run([]), run([None]), run([1.0])], "curves_train_loss")[1].tolist() == [[1.0]]
    for nothing in ([], [run(None)], [run([1.0, None]), run([None, 1.0])]):
        epochs, values = by_epoch(nothing, "curves_train_loss")
        assert not epochs.size and not values.size


@pytest.mark.usefixtures("unchecked")
def test_the_gradient_norm_is_the_mean_over_seeds(tmp_path):
    norm = {"sp": lambda seed: [2.0 + seed, 1.0], "ip": lambda seed: [4.0 + 2 * seed, 3.0]}
    write(tmp_path, grid(("snip",), ("0.9",), seeds=range(3)), curves=lambda c, s: curves(norm[c["space"]](s)))
    drawn = figure(tmp_path, "gradient-norm")
    (axes,) = panels(drawn, "snip, p = 0.9")
    assert points(axes, style.COLOUR["sp"]) == ([1, 2], [3.0, 1.0])
    assert points(axes, style.COLOUR["ip"]) == ([1, 2], [6.0, 3.0])
    assert axes.get_yscale() == "log" and "6 of 6 runs." in texts(drawn)


@pytest.mark.usefixtures("unchecked")
def test_methods_with_other_epochs_share_the_axis(tmp_path):
    """A rewound training starts late, a fine-tuning goes on for longer; diverged and missing runs are counted."""
    plan = grid(("snip", "rewound", "tuned"), ("0.9",), seeds=range(3))
    lengths = {
        "snip": [1.0] * 4, "rewound": [None, None, 3.0, 2.0], "tuned": [2.0] * 6, "dense": [1.0] * 4,
    }  # fmt: skip
    lost = next(c for c in plan["cells"] if (c["method"], c["space"]) == ("tuned", "ip"))
    write(tmp_path, plan, [(lost["id"], 1)], curves=lambda c, s: curves(lengths[c["method"]]))
    put(tmp_path, record(lost, 0, "diverged", "nan", test_accuracy=None, curves=curves([None])))
    drawn = figure(tmp_path, "training-loss")
    found = [points(panels(drawn, f"{name}, p = 0.9")[0], style.COLOUR["sp"]) for name in ("snip", "rewound", "tuned")]
    assert [x for x, _ in found] == [[1, 2, 3, 4], [3, 4], [1, 2, 3, 4, 5, 6]]
    assert len({axes.get_xlim() for axes in drawn.axes}) == 1
    assert "16 of 18 runs, 1 diverged, 1 missing." in texts(drawn)


@pytest.mark.parametrize("name", ["training-loss", "gradient-norm"])
@pytest.mark.usefixtures("unchecked")
def test_zeros_stand_at_the_lower_end_and_do_not_stretch_the_axis(tmp_path, name):
    dead = {0: [0.0, 0.0], 1: [0.5, 0.4], 2: [1.0, 0.8]}
    write(tmp_path, grid(("snip",), ("0.9",), seeds=range(3)), curves=lambda c, s: curves(dead[s]))
    drawn = figure(tmp_path, name)
    (axes,) = panels(drawn, "snip, p = 0.9")
    assert points(axes, style.COLOUR["ip"])[1] == pytest.approx([0.5, 0.4])
    assert 0.05 < axes.get_ylim()[0] < 0.4 and "at the lower end" in texts(drawn)


def test_panels_of_one_sparsity_follow_each_other(tmp_path):
    write(tmp_path, grid([f"m{number}" for number in range(6)], ("0.9",), seeds=range(1)))
    heights = [round(axes.get_position().y0, 6) for axes in figure(tmp_path, "training-loss").axes]
    assert len(set(heights[:4])) == 1 and len(set(heights[4:])) == 1 and heights[0] > heights[4]
