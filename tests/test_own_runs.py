"""Runs of users' models and data sets: records, what is refused, verifying; and that the page about them is right."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from ipbench import methods
from ipbench.analysis import write_runs
from ipbench.cli.main import main
from ipbench.data import catalog as datasets
from ipbench.models import catalog as models
from ipbench.models.build import build
from ipbench.planning import own as planning
from ipbench.planning.experiment import Experiment
from ipbench.planning.numerics import numerics
from ipbench.runs.environment import Environment
from ipbench.runs.execute import execute
from ipbench.store import write_json

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/own-models-and-data.md").read_text()


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The example with 60 images, in a folder that commands run in."""
    shutil.copytree(ROOT / "examples/own", tmp_path / "examples/own", ignore=shutil.ignore_patterns("digits"))
    drawn = np.random.default_rng(0)
    for number in range(60):
        part, label = ("val" if number % 3 == 0 else "train"), number % 10
        place = tmp_path / "examples/own/digits" / part / str(label)
        place.mkdir(parents=True, exist_ok=True)
        pixels = drawn.integers(0, 128, (8, 8)) + 12 * label
        Image.fromarray(pixels.astype(np.uint8)).save(place / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    datasets.OWN.clear()
    models.OWN.clear()


def experiment(there: Path, place: str = "examples/own", **changes: Any) -> Experiment:
    values = {
        "datasets": [{"folder": "digits", "name": "mine"}], "models": [{"file": "net.py", "name": "small_lenet"}],
        "recipe": {"epochs": 1, "warmup": 0, "batch_size": 8}, "methods": ["random"], "sparsities": ["0.5"],
        "spaces": ["sp"], "seeds": 3, **changes,
    }  # fmt: skip
    return Experiment.from_config(values, "of_mine", folder=there / place)


def trained(one: Experiment) -> Path:
    """Its folder of results, with all records."""
    results = Path("results") / one.name
    write_json(results / "grid.json", one.grid())
    for run in one.runs:
        execute(run, results, Environment(root=Path("data")))
    return results


def test_records_and_results(there, capsys):
    one = experiment(there)
    results = trained(one)
    (cell,) = one.grid()["cells"]
    record = json.loads((results / f"runs/{cell['id']}/0.json").read_text())
    own, told = record["run"]["own"], record["provenance"]
    assert (own["code"], own["data"]) == (told["model"], told["data"]) == tuple(cell["own"].values())
    assert told["numerics"] == numerics(one.runs[0])
    datasets.OWN.clear()  # who reads results has neither the net nor the images
    models.OWN.clear()
    shutil.rmtree("examples")
    write_runs(results)
    assert main(["tables", str(results)]) == 0 and main(["summary", str(results)]) == 0
    table = (results / "tables/accuracy.md").read_text()
    assert "data set mine, model small\\_lenet" in table
    capsys.readouterr()


def test_verify_finds_what_it_is_given_by_digest(there, capsys):
    results = trained(experiment(there))
    shutil.move("examples/own", "moved")
    datasets.OWN.clear()
    models.OWN.clear()
    words = ["verify", str(results), "--sample", "1"]
    for more, code, says in (
        ([], 3, "model small_lenet is a user's: give --model-file with the file of SHA-256"),
        (["--model-file", "moved/net.py"], 3, "data set mine is a user's: give --dataset-folder"),
        (["--model-file", "moved/net.py", "--dataset-folder", "moved"], 2, "moved: no folder train"),
        (["--model-file", "moved/net.py", "--dataset-folder", "moved/digits"], 0, "1 equal"),
    ):
        assert main(words + more) == code or code == 2
        out, err = capsys.readouterr()
        assert says in out + err, (out, err)


def test_a_job_refuses_what_was_not_planned(there, capsys):
    (job,) = experiment(there).jobs()
    words = ["run", *job.arguments, *job.places, "--out", "results/x"]
    net, image = Path("examples/own/net.py"), next(Path("examples/own/digits/train/1").iterdir())
    for file, what in ((net, "code of the model"), (image, "content of the data set")):
        content = file.read_bytes()
        if file is net:
            file.write_bytes(content + b"# more\n")
        else:
            Image.fromarray(np.eye(8, dtype=np.uint8) * 200).save(file)
        assert main(words) == 2
        line = capsys.readouterr().err
        assert f"the {what} is not what was planned" in line and line.count("\n") == 1
        assert not Path("results").exists()
        file.write_bytes(content)
    assert main(words) == 0
    assert len(list(Path("results/x").glob("runs/*/*.json"))) == 3
    assert main(words) == 0 and "already done" in capsys.readouterr().out


def test_a_file_that_changes_between_two_runs_of_a_job(there, capsys, monkeypatch):
    (job,) = experiment(there).jobs()
    renew = methods.renew

    def change_after_the_first() -> None:
        if list(Path("results").glob("x/runs/*/0.json")):
            Path("examples/own/net.py").write_text("# other\n")
        renew()

    monkeypatch.setattr(methods, "renew", change_after_the_first)
    assert main(["run", *job.arguments, *job.places, "--out", "results/x"]) == 2
    assert "net.py: not the code that model small_lenet was planned with" in capsys.readouterr().err
    assert len(list(Path("results/x").glob("runs/*/*.json"))) == 1


def test_an_interrupted_run_goes_on_to_the_same_bits(there, every_epoch):
    (run,) = experiment(there, recipe={"epochs": 3, "warmup": 0, "batch_size": 8}, spaces=["ip"], seeds=1).runs
    here, seen = Environment(root=Path("data")), []

    def stop(epoch: int, _: int) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(run, Path("cut"), here, on_epoch=stop)
    assert list(Path("cut/state").glob("*/0.safetensors"))
    cut = execute(run, Path("cut"), here, on_epoch=lambda epoch, _: seen.append(epoch))
    assert 1 not in seen
    assert cut["outcome_sha256"] == execute(run, Path("whole"), here)["outcome_sha256"]


def test_ids_are_of_content_alone(there):
    before = {run.id for run in experiment(there).runs}
    shutil.move("examples/own", "elsewhere")
    one = experiment(there, "elsewhere")
    assert {run.id for run in one.runs} == before
    Path("elsewhere/net.py").write_text(Path("elsewhere/net.py").read_text() + "\n")
    one = experiment(there, "elsewhere")
    assert not {run.id for run in one.runs} & before


def test_weights_are_where_a_run_starts(there):
    one = experiment(there)
    run = one.runs[0]
    net = build(run.model, (1, 8, 8), 10, 7, told=run.own)
    save_file(net.state_dict(), "examples/own/trained.safetensors")
    entries = [
        {"file": "net.py", "name": "small_lenet"},
        {"file": "net.py", "name": "small_lenet", "weights": "trained.safetensors", "label": "warm"},
    ]
    two = experiment(there, models=entries, seeds=1)
    cold, warm = (execute(run, Path("results"), Environment(root=Path("data"))) for run in two.runs)
    assert cold["id"] == run.id and warm["run"]["own"]["base"] == "small_lenet"
    assert warm["provenance"]["weights"] == warm["run"]["own"]["weights"]
    assert cold["outcome"]["masks_sha256"] == warm["outcome"]["masks_sha256"]  # random: of the seed alone
    assert cold["outcome"]["weights_sha256"] != warm["outcome"]["weights_sha256"]


def blocks(kind: str) -> list[str]:
    """What stands in the fenced blocks of a kind; those of commands have none."""
    parts = re.split(r"^```(.*)\n", PAGE, flags=re.MULTILINE)[1:]  # a fence's word, then the text up to the next one
    return [text for word, text in zip(parts[::4], parts[1::4], strict=True) if word == kind]


def test_the_page(there, capsys):
    """Its commands run, but for what needs the network or Snakemake; its net and its entries are taken."""
    (code,) = blocks("python")
    Path("mine.py").write_text(code)
    assert main(["count", "small_net", "--model-file", "mine.py", "--input", "3x9x9"]) == 0
    assert main(["models", "--model-file", "examples/own/net.py"]) == 0
    assert "small_lenet" in capsys.readouterr().out
    lines = [line for text in blocks("") for line in text.replace("\\\n", "").splitlines()]
    own = [shlex.split(line)[1:] for line in lines if line.startswith(".venv/bin/ipbench")]
    commands = [words for words in own if words[:2] != ["data", "weights"] and words[0] != "verify"]
    assert len(commands) == 4 and len(own) == 7
    for words in commands:
        more = ["--recipe", "batch_size=8"] if words[0] == "run" else []
        assert main([*words, *more]) == 0, words
    nets, sets = blocks("yaml")
    run = experiment(there).runs[0]
    save_file(build(run.model, (1, 8, 8), 10, 7, told=run.own).state_dict(), "examples/own/trained.safetensors")
    Path("examples/own/page.yaml").write_text(
        f"{nets.replace('  - timm/resnet18', '')}{sets}methods: snip\nsparsities: 0.5\nrecipe: {{batch_size: 8}}\n"
    )
    assert main(["grid", "examples/own/page.yaml"]) == 0
    assert Path("data") == planning.ROOT and len(list(Path("data/own").glob("my-digits*.json"))) == 2
    capsys.readouterr()


def test_the_lists(there, capsys):
    experiment(there)
    assert main(["datasets", "--json"]) == 0
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert {*datasets.DATASETS, "mine"} == {*listed}
    assert listed["mine"]["place"] == str(there / "examples/own/digits") and listed["mine"]["kind"] == "images"
    assert main(["models", "--json"]) == 0
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert {*models.MODELS, *models.DETECTORS} == {*listed}
    assert listed["small-vgg"]["parameters"] == 288_170 and listed["small-vgg"]["input"] == "1x28x28"
    assert main(["models"]) == 0 and main(["datasets"]) == 0
    out = capsys.readouterr().out
    assert "288,170 parameters" in out and "mine  (yours)" in out
