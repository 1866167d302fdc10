"""What a long experiment tells of its progress, from files that are laid there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from ipbench.cli.watching import Watch
from ipbench.planning.experiment import Experiment
from ipbench.store import write_json

CONFIG = {
    "datasets": "digits", "models": "small-vgg", "recipe": {"epochs": 1}, "sparsities": [0.9], "spaces": "sp",
    "seeds": 2, "methods": ["dense", {"name": "magnitude", "control": ["none", "reinitialise"]}],
}  # fmt: skip


def watched(folder: Path, **changes: Any) -> Watch:
    """The progress of an experiment, one run of every cell finished; the second one of each follows."""
    experiment = Experiment.from_config({**CONFIG, **changes}, "small")
    put(folder, experiment, 0)
    watch = Watch(folder, experiment)
    put(folder, experiment, 1)
    return watch


def put(folder: Path, experiment: Experiment, seed: int) -> None:
    for cell in experiment.trained:
        record = {"status": "done", "outcome": {"test_accuracy": 0.5 + seed / 4}}
        write_json(folder / "runs" / cell / f"{seed}.json", record)


def lines_of(watch: Watch, capsys) -> list[str]:
    with subprocess.Popen([sys.executable, "-c", ""], text=True) as process:
        for _ in watch.until(process):
            pass
    return capsys.readouterr().out.splitlines()


def test_every_cell_has_a_line_in_columns(tmp_path, capsys):
    watch = watched(tmp_path)
    assert watch.opening() == f"small: 6 trainings, 3 of them there already; results in {tmp_path}/"
    assert lines_of(watch, capsys) == [
        "     6 of 6      tables and figures dense                    SP             62.50 %",
        "     6 of 6      tables and figures magnitude                SP  p = 0.9    62.50 %",
        "     6 of 6      tables and figures magnitude, reinitialise  SP  p = 0.9    62.50 %",
    ]
    assert watch.standing() == "6 of 6 trainings are done"


def test_nets_are_named_where_there_are_several(tmp_path, capsys):
    lines = lines_of(watched(tmp_path, models=["small-vgg", "lenet-300-100"], methods="dense"), capsys)
    assert [line[36:] for line in lines] == [
        "digits small-vgg  dense      SP             62.50 %",
        "digits lenet-300-100  dense  SP             62.50 %",
    ]
