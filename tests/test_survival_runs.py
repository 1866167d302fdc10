"""Gains whose place is known by construction are found there: real trainings, from a method's file to the sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipbench.analysis import write_runs
from ipbench.analysis.collect import load
from ipbench.analysis.survival import survival
from ipbench.cli.main import main
from ipbench.planning.experiment import Experiment
from ipbench.runs.environment import Environment
from ipbench.runs.execute import execute
from ipbench.store import write_json

pytestmark = pytest.mark.processes

METHODS = '''
from ipbench.methods import before_training, method


@method(when=before_training, paper="a test")
def by_ratios(net, batch):
    """Drawn at random within layers, of which small ones keep the larger share."""
    sizes = {name: c.numel() for name, c in net.coefficients.items()}
    return {name: net.uniform(name) ** (size / min(sizes.values()) / 20) for name, size in sizes.items()}


@method(when=before_training, paper="a test")
def by_place(net, batch):
    """The first units of every layer with all that joins them: a narrow net inside of the wide one."""

    def first(c, number, whole):
        ones = c.new_ones(number)
        return ones if number == whole else 1 / (1 + ones.cumsum(0))

    return {
        name: first(c, c.shape[0], 10)[:, None].minimum(first(c, c.shape[1], 64)[None])
        for name, c in net.coefficients.items()
    }
'''


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two methods of a user's file on digits, each with two controls, and random pruning: 42 runs of five epochs."""
    folder = tmp_path_factory.mktemp("chain")
    file = str(folder / "arranged.py")
    Path(file).write_text(METHODS)
    values = {
        "datasets": ["digits"], "models": ["lenet-300-100"], "sparsities": ["0.95"], "spaces": ["sp"], "seeds": 6,
        "recipe": {"epochs": 5, "warmup": 0},
        "methods": [
            "random",
            {"file": file, "name": "by_ratios", "control": ["none", "shuffle", "borrowed-ratios"]},
            {"file": file, "name": "by_place", "control": ["none", "shuffle", "reinitialise"]},
        ],
    }  # fmt: skip
    one = Experiment.from_config(values, "chain", folder=folder)
    results = folder / "results"
    write_json(results / "grid.json", one.grid())
    for run in one.runs:
        execute(run, results, Environment(root=Path("data")))
    write_runs(results, complete=True)
    return results


def test_each_gain_is_found_where_it_was_put(results):
    found = survival(load(results, controls=True))
    sides = {line.row.any.method: line.sides["sp"] for line in found.lines}
    assert sides["by_ratios"].verdict.short == "layer ratios"
    assert sides["by_place"].verdict.short == "positions"
    assert "not in the initial values" in sides["by_place"].verdict.sentence
    for side in sides.values():
        assert side.gain and side.gain.comparison.mean > 0.2 and side.gain.claim
        assert side.beside.baseline and side.beside.baseline.method == "random"


def test_the_command_tells_it(results, capsys):
    assert main(["survive", str(results)]) == 0
    printed = capsys.readouterr().out
    assert "by_place, 0.95" in printed and "it is in the positions (shuffle within layers leaves" in printed
    assert (results / "tables/survival.csv").is_file()
    assert (results / "figures/survival.digits-lenet-300-100.all.both.svg").is_file()
