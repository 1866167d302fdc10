"""What a record, a state or an end must have in common with what is there now, so that it is not made again."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ipbench import methods
from ipbench.analysis.collect import collect
from ipbench.errors import BadProduct
from ipbench.methods._method import REGISTRY
from ipbench.planning.experiment import Experiment
from ipbench.runs.building import content
from ipbench.runs.environment import Environment, versions
from ipbench.runs.execute import execute, handed_on
from ipbench.runs.records import end_path, finished, record_path, state_path
from ipbench.runs.state import State, read_end
from ipbench.spec import Recipe, Run
from ipbench.store import read_json, write_json

HERE = Environment()
METHOD = """
import sys
sys.path.insert(0, {folder!r})
import of_a_user_helper
from ipbench.methods import Continue, Prune, Train, method


def score(net, batch):
    return {{name: values * of_a_user_helper.SIGN for name, values in net.magnitudes().items()}}


@method(paper="Nobody, 2026")
def of_a_user():
    return [Prune(score, "score"), Train()]
"""


@pytest.fixture
def load(tmp_path, monkeypatch) -> Iterator[Any]:
    """Loads a method of a user as a new process does, with this line in the module that it imports."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    path, helper = tmp_path / "mine.py", tmp_path / "of_a_user_helper.py"
    path.write_text(METHOD.format(folder=str(tmp_path)))

    def forget() -> None:
        REGISTRY.pop("of_a_user", None)
        for name in [name for name in sys.modules if name.startswith(("ipbench_method_", "of_a_user"))]:
            del sys.modules[name]

    def load(line: str) -> Path:
        forget()
        helper.write_text(f"{line}\n")
        methods.load([path])
        return path

    yield load
    forget()


def run_of(**values: Any) -> Run:
    recipe = Recipe(epochs=1, batch_size=100, train_examples=200)
    return Run(**{"dataset": "digits", "model": "lenet-300-100", "sparsity": "0.9", "recipe": recipe, **values})


def change(path: Path, **values: Any) -> None:
    record = read_json(path)
    write_json(path, {**record, "provenance": {**record["provenance"], **values}})


def test_other_code_trains_again(load, tmp_path):
    """The module that a method file imports is changed, the file itself is not."""
    run = run_of(method="of_a_user")
    load("SIGN = 1")
    first = execute(run, tmp_path / "r", HERE)
    assert execute(run, tmp_path / "r", HERE) == first
    load("SIGN = -1")
    second = execute(run, tmp_path / "r", HERE)
    assert second["provenance"]["method"] != first["provenance"]["method"]
    assert second["outcome"]["masks_sha256"] != first["outcome"]["masks_sha256"]


@pytest.mark.parametrize(
    ("told", "again"),
    [({"data": "0" * 64}, True), ({"data": None}, False), ({"method": "0" * 64}, True), ({"numerics": 0}, True)],
    ids=["other images", "images not recorded", "once a method of a user", "other numerics"],
)
def test_a_record_of_something_else_is_not_finished(tmp_path, told, again):
    run = run_of(method="snip")
    execute(run, tmp_path, HERE)
    change(record_path(tmp_path, run), **told)
    assert (finished(tmp_path, run, HERE) is None) == again


def test_a_finished_run_needs_no_images(tmp_path, monkeypatch):
    run = run_of(method="snip")
    record = execute(run, tmp_path, HERE)
    changed = {**record, "run": {**record["run"], "dataset": "cifar10"}}
    elsewhere = Run.model_validate(changed["run"])
    write_json(record_path(tmp_path, elsewhere), {**changed, "id": elsewhere.id, "cell": elsewhere.cell})
    assert finished(tmp_path, elsewhere, Environment(root=tmp_path / "no images here")) is not None


def test_a_user_method_without_a_digest_is_not_finished(load, tmp_path):
    run = run_of(method="of_a_user")
    load("SIGN = 1")
    execute(run, tmp_path / "r", HERE)
    change(record_path(tmp_path / "r", run), method=None)
    assert finished(tmp_path / "r", run, HERE) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda record: {**record, "outcome": {**record["outcome"], "test_accuracy": 1.0}},
        lambda record: {**record, "run": {**record["run"], "seed": 5}},
        lambda record: {**record, "status": "well done"},
        lambda record: {**record, "provenance": None},
        lambda record: {"id": record["id"]},
    ],
    ids=["altered outcome", "another run", "status", "no provenance", "nothing else"],
)
def test_an_odd_record_is_named(tmp_path, change):
    run = run_of(method="snip")
    execute(run, tmp_path, HERE)
    path = record_path(tmp_path, run)
    write_json(path, change(read_json(path)))
    with pytest.raises(BadProduct, match="not the record of run") as error:
        finished(tmp_path, run, HERE)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("key", ["data", "method", "torch", "device"])
def test_a_state_of_something_else_is_not_continued(tmp_path, key):
    from ipbench.sparse.net import SparseNet
    from tests.tiny import tiny_conv

    run = run_of(method="snip")
    net = SparseNet(tiny_conv(), run, (2, 6, 6))
    here = {**content(run, HERE), **versions(HERE)}
    path = state_path(tmp_path, run)
    state = State(path, run, here)
    state.flops = 7
    state.save(net, 1.0, 1.0)
    for told, flops in ((here, 7), ({**here, key: "another"}, 0)):
        again = State(path, run, told)
        again.load(net)
        assert again.flops == flops


def test_an_end_of_other_images_is_refused(tmp_path):
    run = run_of(method="dense", sparsity="0")
    execute(run, tmp_path, HERE, keep=True)
    path = end_path(tmp_path, run)
    read_end(path, run, content(run, HERE))
    with pytest.raises(BadProduct, match="on other images or of other code"):
        read_end(path, run, {"data": "0" * 64})


def test_an_end_of_what_was_before_is_made_again(load, tmp_path):
    """Trained and kept, trained again with other code and not kept, then continued: the end is that of the old code."""
    path = load("SIGN = 1")
    results = tmp_path / "r"
    run = run_of(method="of_a_user", sparsity="0.9")
    execute(run, results, HERE, keep=True)
    load("SIGN = 2")
    execute(run, results, HERE)
    assert path.exists() and finished(results, run, HERE) and finished(results, run, HERE, keep=True) is None
    execute(run, results, HERE, keep=True)
    read_end(end_path(results, run), run, content(run, HERE))
    assert finished(results, run, HERE, keep=True)


def test_a_record_tells_what_the_run_that_it_continues_was_made_with(tmp_path):
    run = run_of(method="ft")
    dense = methods.parent(run)
    assert dense is not None
    now = execute(dense, tmp_path, HERE, keep=True)["provenance"]
    change(record_path(tmp_path, dense), torch="1.0", device="NVIDIA H100", processes=2)
    told = execute(run, tmp_path, HERE)["provenance"]
    assert told["torch"] == f"1.0 then {now['torch']}" and told["device"] == "NVIDIA H100 then cpu"
    assert told["processes"] == "2 then 1" and told["torchvision"] == now["torchvision"]
    assert handed_on({"torch": "3"}, {"provenance": {"torch": "2 then 3"}}) == {"torch": "2 then 3"}


def test_a_record_of_other_code_than_planned_is_stale(load, tmp_path):
    path = load("SIGN = 1")
    config = {
        "datasets": "digits", "models": "lenet-300-100", "methods": ["snip", str(path)], "sparsities": 0.9,
        "spaces": "sp", "seeds": 1, "recipe": {"epochs": 1, "batch_size": 100, "train_examples": 200},
    }  # fmt: skip
    experiment = Experiment.from_config(config, "x")
    assert experiment.helper_files == [str(tmp_path / "of_a_user_helper.py")]
    results = tmp_path / "x"
    write_json(results / "grid.json", experiment.grid())
    for run in experiment.runs:
        execute(run, results, HERE)
    found = collect(results)
    assert len(found.runs) == 2 and not found.missing
    load("SIGN = 2")
    write_json(results / "grid.json", Experiment.from_config(config, "x").grid())
    found = collect(results)
    (stale,) = found.unreadable
    assert list(found.runs["method"]) == ["snip"]
    assert "stale: made by other code of method of_a_user" in stale.message
    for run in experiment.runs:  # built-in methods are left alone
        execute(run, results, HERE)
    assert not collect(results).missing
