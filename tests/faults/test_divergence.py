"""A loss that becomes NaN: the run is `diverged`, the tables count it, its pair leaves the comparison visibly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ipbench.methods._method import REGISTRY
from ipbench.store import read_json
from tests.faults.commands import TINY, Experiment, Server, outcomes, temporaries

#: A method whose score is not a number for one of the seeds.
METHOD = '''
from ipbench.methods import before_training, method
from ipbench.sparse.view import sparse_net


@method(when=before_training, paper="Nobody: Not a number, 2026")
def broken(net, batch):
    """Not a number for seed 1."""
    good = sparse_net(net).run.seed != 1
    return {name: c / c.new_tensor(good) * good for name, c in net.coefficients.items()}
'''
#: A recipe whose weight decay multiplies weights by -999 in every step, beside one that trains.
NOT_FINITE = {"batch_size": 10, "lr": 1000, "weight_decay": 1, "schedule": "constant"}
ABSURD = {
    **TINY,
    "recipe": [TINY["recipe"], {**TINY["recipe"], **NOT_FINITE}],
    "methods": ["ft", "broken.py"],
    "basis": {"train": False, "init": "orthonormal"},
}


@pytest.fixture(scope="module")
def diverged(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Experiment]:
    experiment = Experiment(server, tmp_path_factory.mktemp("diverged"))
    lay(experiment)
    experiment.run("tables", "results/tiny").ok()
    yield experiment
    REGISTRY.pop("broken", None)


def lay(experiment: Experiment) -> None:
    """Write and train the experiment."""
    (experiment.folder / "broken.py").write_text(METHOD)
    experiment.write(**ABSURD)
    with chdir(experiment.folder):
        REGISTRY.pop("broken", None)
        experiment.train()


def records(experiment: Experiment) -> list[dict[str, Any]]:
    return [read_json(path) for path in sorted(experiment.results.glob("runs/*/*.json"))]


def absurd(record: dict[str, Any]) -> bool:
    return record["run"]["recipe"]["lr"] == 1000


def scored(record: dict[str, Any]) -> bool:
    return not (record["run"]["method"] == "broken" and record["run"]["seed"] == 1)


def test_status_and_reason(diverged: Experiment) -> None:
    """A diverged run is a finished run; what continues it is diverged, too, and says why."""
    found = records(diverged)
    assert len(found) == 8 * 2 + 4 * 2  # eight cells, and the dense nets that four of them continue
    for record in found:
        ends = not absurd(record) and scored(record)
        assert record["status"] == ("done" if ends else "diverged"), record["run"]
        if not ends:
            assert "not finite" in record["reason"], record["reason"]
        if not ends and record["run"]["method"] == "ft":
            assert record["reason"].startswith("the run that this one continues"), record["reason"]
    assert not temporaries(diverged.results) and not list(diverged.results.glob("state/*/*"))


@pytest.mark.long
def test_it_is_not_trained_again_and_the_same_when_it_is(diverged: Experiment, tmp_path: Path) -> None:
    dates = {path: path.stat().st_mtime_ns for path in diverged.results.glob("runs/*/*")}
    lay(diverged)
    assert {path: path.stat().st_mtime_ns for path in diverged.results.glob("runs/*/*")} == dates
    again = Experiment(diverged.server, tmp_path)
    lay(again)
    assert outcomes(again.results) == outcomes(diverged.results)


def test_the_tables_count_it(diverged: Experiment) -> None:
    """Of 16 runs: the 8 of the absurd recipe, and one of each space whose score is not a number."""
    accuracy = pd.read_csv(diverged.results / "tables/accuracy.csv")
    for space in ("sp", "ip"):
        counted = {
            name: int(accuracy[f"{space}_{name}"].sum()) for name in ("done", "diverged", "impossible", "missing")
        }
        assert counted == {"done": 3, "diverged": 5, "impossible": 0, "missing": 0}
    missing = pd.read_csv(diverged.results / "tables/missing.csv")
    assert set(missing["what"]) == {"diverged"} and missing["runs"].sum() == 10
    assert missing["reason"].str.contains("not finite").all()


def test_its_pairs_count_as_a_guess_visibly(diverged: Experiment) -> None:
    paired = pd.read_csv(diverged.results / "tables/paired.csv")
    lost = paired["recipe"].str.contains('"lr":1000')
    assert set(paired["planned"]) == {2}
    assert paired[lost]["n"].tolist() == [2, 2] and paired[lost]["complete_n"].tolist() == [0, 0]
    assert paired[lost]["diverged"].tolist() == [2, 2]
    by_method = paired[~lost].set_index("method")
    assert by_method["n"].to_dict() == {"ft": 2, "broken": 2}
    assert by_method["complete_n"].to_dict() == {"ft": 2, "broken": 1}
    assert by_method["diverged"].to_dict() == {"ft": 0, "broken": 1}
    assert "diverged" in (diverged.results / "tables/paired.md").read_text()


def test_the_figures_are_drawn(diverged: Experiment) -> None:
    diverged.run("figures", "--overview", "results/tiny").ok()
    drawn = list((diverged.results / "figures").glob("*.svg"))
    assert drawn and all(b"</svg>" in path.read_bytes()[-20:] for path in drawn)
    ended = diverged.run("summary", "results/tiny")
    ended.ok()
    assert "diverged" in ended.out


def test_a_filter_basis_that_is_not_finite(server: Server, tmp_path: Path) -> None:
    """It has no condition number; the run is diverged like any other."""
    experiment = Experiment(server, tmp_path)
    experiment.write(recipe={**TINY["recipe"], **NOT_FINITE}, methods=["dense"], spaces=["ip"], seeds=1)
    experiment.train()
    (record,) = records(experiment)
    assert record["status"] == "diverged" and "not finite" in record["reason"]
