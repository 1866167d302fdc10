"""Two experiments beside each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipbench.analysis.between import between
from ipbench.analysis.collect import collect
from ipbench.cli.main import main
from ipbench.errors import BadInput
from tests.analysis.synthetic import EPOCHS, grid, put, record, write


def accuracy(gain: float = 0.0):
    return lambda cell, seed: 0.7 + 0.01 * seed + gain * (1 + seed / 10)


def experiment(folder: Path, gain: float = 0.0, **axes):
    return collect(write(folder, {**grid(dense=(), **axes), "name": folder.name}, test_accuracy=accuracy(gain)))


def lines(text: str, word: str) -> list[str]:
    return [line for line in text.splitlines() if word in line]


def test_the_same_experiment_is_equal_to_the_bit(tmp_path: Path) -> None:
    text = between(experiment(tmp_path / "one"), experiment(tmp_path / "two"))
    found = lines(text, "snip ")
    assert len(found) == 4 and all("0.00" in line and "6 of 6" in line and " 1.000 " in line for line in found)
    assert not lines(text, "iffers") and not lines(text, "without a partner")


def test_a_gain_is_the_mean_of_paired_differences(tmp_path: Path) -> None:
    text = between(experiment(tmp_path / "one"), experiment(tmp_path / "two", gain=0.04))
    # 4 points times 1 + 0.25, the mean over seeds 0 to 5; at six seeds the interval is the range, and p is 2 / 2^6.
    assert all("+5.00 [+4.00, +6.00]" in line and "0.031" in line and "0 of 6" in line for line in lines(text, "snip "))


def test_fewer_seeds_than_a_claim_needs(tmp_path: Path) -> None:
    two = experiment(tmp_path / "two", gain=0.04, seeds=range(2, 5))
    found = lines(between(experiment(tmp_path / "one"), two), "snip ")
    assert all("undecided" in line and "0 of 3" in line for line in found)


def test_another_recipe_is_matched_with_a_warning(tmp_path: Path) -> None:
    two = experiment(tmp_path / "two", recipe={"epochs": EPOCHS, "lr": 0.5})
    text = between(experiment(tmp_path / "one"), two)
    assert lines(text, "Warning") == ["Warning, differs: recipe: lr default in A, 0.5 in B."]
    assert len(lines(text, "snip ")) == 4


def test_numerics_and_machines_that_differ_are_told(tmp_path: Path, unchecked: None) -> None:
    one, two = experiment(tmp_path / "one"), experiment(tmp_path / "two")
    two.runs["provenance_numerics"] = "99"
    two.runs["provenance_cpu"] = "Another CPU"
    text = between(one, two)
    assert lines(text, "Warning") == ["Warning, differs: numerics: 1 in A, 99 in B."]
    assert lines(text, "Differs") == ["Differs: processor: Test CPU in A, Another CPU in B."]


def test_cells_of_one_alone_are_counted(tmp_path: Path) -> None:
    two = experiment(tmp_path / "two", methods=("snip", "synflow"))
    text = between(experiment(tmp_path / "one"), two)
    assert "Cells without a partner: 4 of A, 4 of B." in text
    assert not lines(text, "grasp") and not lines(text, "synflow")


def test_nothing_in_common_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no cell in common"):
        between(experiment(tmp_path / "one"), experiment(tmp_path / "two", methods=("synflow",)))


def test_what_is_missing_or_impossible_makes_no_claim(tmp_path: Path) -> None:
    plan = {**grid(("snip",), ("0.9",), ("sp",), dense=()), "name": "two"}
    (cell,) = plan["cells"]
    write(tmp_path / "half", plan, skip=[(cell["id"], 5)], test_accuracy=accuracy())
    one = experiment(tmp_path / "one", methods=("snip",), sparsities=("0.9",), spaces=("sp",))
    assert "incomplete" in between(one, collect(tmp_path / "half"))
    plan = {**plan, "name": "none"}
    write(tmp_path / "none", plan, skip=[(cell["id"], seed) for seed in range(6)])
    for seed in range(6):
        put(tmp_path / "none", record(cell, seed, "impossible", "no room"))
    assert "impossible" in between(one, collect(tmp_path / "none"))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment(tmp_path / "one")
    experiment(tmp_path / "two")
    assert main(["compare", str(tmp_path / "one"), str(tmp_path / "two")]) == 0
    assert "A: one, B: two" in capsys.readouterr().out
    assert main(["compare", str(tmp_path / "one"), str(tmp_path / "three")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
