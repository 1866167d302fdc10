"""What an experiment's lint finds, on small files."""

from __future__ import annotations

import json

import pytest
import yaml

from ipbench.cli.main import main
from ipbench.planning.experiment import Experiment
from ipbench.planning.lint import lint

SOUND = """
datasets: [digits, fashion-mnist]
models: [small-vgg, lenet5-caffe]
methods: [dense, random, magnitude, snip]
sparsities: ["0.5", "0.9", "0.95"]
seeds: 6
recipe: {epochs: 20}
"""


def findings(**changes):
    """What is found in `SOUND` with some keys changed."""
    config = {**yaml.safe_load(SOUND), **changes}
    return [finding.what for finding in lint(Experiment.from_config(config, "small"))]


def test_a_sound_experiment_has_no_findings():
    assert findings() == []


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"methods": ["dense", "magnitude", "snip"]}, ["no random baseline"]),
        ({"methods": ["dense", "random", "snip"]}, ["no magnitude baseline"]),
        ({"methods": ["random", "gmp"]}, []),
        ({"sparsities": ["0.5", "0.9"]}, ["two operating points alone"]),
        ({"sparsities": "0.9"}, ["one operating point alone"]),
        ({"seeds": 5}, ["5 seeds"]),
        ({"seeds": [7]}, ["1 seed"]),
        ({"datasets": "digits"}, ["one data set, digits"]),
        ({"models": "small-vgg"}, ["one net, small-vgg"]),
        ({"methods": ["dense"]}, []),
        ({"controls": ["none", "shuffle", "scratch-b"], "methods": ["dense", "random", "magnitude"]}, []),
    ],
)
def test_each_finding_alone(changes, what):
    assert findings(**changes) == what


def test_patterns_have_baselines_of_their_own():
    methods = ["random", "magnitude", {"name": "snip", "pattern": "filters"}]
    expected = ["no random baseline for pattern filters", "no magnitude baseline for pattern filters"]
    assert findings(methods=methods) == expected
    assert findings(methods=[*methods, {"name": "random", "pattern": "filters"}]) == expected[1:]
    of_filters = ["random-filters", "l1-filters"]
    assert findings(methods=of_filters) == []
    both = findings(methods=[*of_filters, "random", "magnitude"])
    assert both == ["unequal epochs in all (20: random, magnitude; 40: random-filters, l1-filters)"]


def test_points_are_those_of_a_knob_and_name_the_method():
    methods = [
        "random",
        "magnitude",
        {"name": "random-filters", "ratios": ["features=0.1", "features=0.2"], "epochs": 0},
    ]
    told = findings(methods=methods, sparsities=["0.5", "0.9", "0.95"])
    assert "two operating points alone of random-filters" in told


def test_unequal_epochs_are_told_and_those_that_are_not_known():
    told = findings(methods=["random", "magnitude", "ft"], datasets=["digits", "fashion-mnist"])
    assert told == ["unequal epochs in all (20: random, magnitude; 40: ft)"]
    told = findings(methods=["random-filters", "l1-filters", "greg-1"])
    assert told == ["epochs in all that no plan tells (greg-1), beside 40"]
    # Half of the recipe's before and behind: as many as the others.
    half = [{"name": "sfp", "epochs": 20, "tune": 20}, {"name": "l1-filters"}, {"name": "random-filters"}]
    assert findings(methods=half) == []


def test_a_line_says_what_why_and_what_to_add():
    config = {**yaml.safe_load(SOUND), "seeds": 5}
    (line,) = map(str, lint(Experiment.from_config(config, "small")))
    assert "0.0625, above 0.05" in line and "docs/rules.md" in line and line.endswith("take seeds: 6 or more")
    assert "\n" not in line


def test_grid_prints_it_and_refuses_nothing(tmp_path, capsys):
    file = tmp_path / "small.yaml"
    file.write_text(SOUND.replace("seeds: 6", "seeds: 2"))
    assert main(["grid", str(file)]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1].startswith("lint: 2 seeds: the least p") and out.count("lint:") == 1 and not err
    assert main(["grid", str(file), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [finding["what"] for finding in told["lint"]] == ["2 seeds"]
    assert set(told["lint"][0]) == {"what", "why", "add"}
