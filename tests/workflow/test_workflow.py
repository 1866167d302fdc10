"""Real Snakemake on a tiny grid: what runs, what does not run again, and what a mistake looks like."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from ipbench.analysis.plan import plan, plan_tables
from tests.workflow.conftest import TINY, Checkout

pytestmark = pytest.mark.workflow

#: What follows every change of a record.
RESULTS = {"collect": 1, "tables": 1, "figures": 1, "report": 1, "snakemake_report": 1, "all": 1}


def test_one_call_makes_everything(first_call: Checkout) -> None:
    results = first_call.results
    grid = json.loads((results / "grid.json").read_text())
    assert len(first_call.files("jobs/**/*.json")) == 2
    assert len(first_call.files("runs/*/*.json")) == 4
    for path in [figure.path for figure in plan(grid)] + plan_tables(grid):
        assert (results / path).stat().st_size > 0, path
    page = (results / "report.html").read_text()
    assert "IP against SP" in page and TINY["title"] in page
    report = (results / "snakemake-report.html").read_text()
    assert "difference.digits-small-vgg.all.both.svg" in report
    assert "paired by seed" in report  # a caption
    assert TINY["title"] in report


def test_a_second_call_has_nothing_to_do(finished: Checkout) -> None:
    before = finished.files("**/*")
    assert "Nothing to be done" in finished.done()
    assert finished.files("**/*") == before


def test_a_touched_or_commented_experiment_changes_nothing(finished: Checkout) -> None:
    path = finished.folder / "config/tiny.yaml"
    path.write_text("# a comment\n" + path.read_text())
    assert finished.planned() == {}


def test_a_lost_job_trains_only_its_lost_run(finished: Checkout) -> None:
    job = next(finished.results.glob("jobs/**/*.json"))
    cell = job.name.split(".")[0]
    records = finished.files("runs/*/*.json")
    lost = f"runs/{cell}/1.json"
    text = json.loads((finished.results / lost).read_text())
    (finished.results / lost).unlink()
    job.unlink()
    assert finished.planned() == {"run": 1, **RESULTS}
    finished.done("--", str(job.relative_to(finished.folder)))
    after = finished.files("runs/*/*.json")
    assert {name for name in after if after[name] != records[name]} == {lost}
    assert json.loads((finished.results / lost).read_text())["outcome"] == text["outcome"]


def test_a_deleted_record_is_trained_again(finished: Checkout) -> None:
    """As it is told to whoever has a damaged one; the file of its job is still there."""
    records = finished.files("runs/*/*.json")
    lost = finished.results / min(records)
    outcome = json.loads(lost.read_text())["outcome"]
    lost.unlink()
    before = finished.files("**/*")
    assert finished.planned() == {"run": 1, **RESULTS}
    assert finished.planned("--", "partial") == {"partial": 1}  # another Snakemake may be at work
    assert finished.files("**/*") == before
    finished.done("--", "results/tiny/runs.parquet")
    assert json.loads(lost.read_text())["outcome"] == outcome
    after = finished.files("runs/*/*.json")
    assert {name for name in after if after[name] != records[name]} == {min(records)}
    assert "run" not in finished.planned()


def test_a_lost_figure_is_drawn_again(finished: Checkout) -> None:
    next(finished.results.glob("figures/*.pdf")).unlink()
    assert finished.planned() == {"figures": 1, "snakemake_report": 1, "all": 1}


def test_a_new_sparsity_trains_only_its_cells(finished: Checkout) -> None:
    finished.write(sparsities=[0.5, 0.8])
    assert finished.planned() == {"grid": 1, "run": 2, **RESULTS}


def test_shared_training_happens_once(checkout: Checkout) -> None:
    """Fine-tuning and lottery tickets at two sparsities: one dense job, levels on top of each other, none repeated."""
    lottery = {"name": "lt", "rate": 0.5}
    checkout.write(methods=["ft", lottery], sparsities=[0.5, 0.75], spaces=["sp"])
    jobs = {"ft": 2, "lt": 2, "dense": 1}
    assert checkout.planned()["run"] == sum(jobs.values())
    checkout.done("--until", "tables")
    records = checkout.files("runs/*/*.json")
    assert len(records) == 2 * sum(jobs.values())
    for method, count in jobs.items():
        assert len(checkout.files(f"jobs/digits/small-vgg/{method}/**/*.json")) == count
    assert "dense" not in (checkout.results / "tables/accuracy.csv").read_text()  # the grid does not ask for it
    checkout.write(methods=["dense", "ft", lottery, "random"], sparsities=[0.5, 0.75], spaces=["sp"])
    assert checkout.planned() == {"grid": 1, "run": 2, **RESULTS}  # random alone
    assert checkout.files("runs/*/*.json") == records


def test_several_processes_train_one_run(checkout: Checkout) -> None:
    """A setting of the profile: torchrun starts them, and the record tells how many there were."""
    checkout.write(spaces=["ip"], seeds=1)
    checkout.done("--config", "processes=2", "--until", "run")
    (record,) = checkout.results.glob("runs/*/*.json")
    assert json.loads(record.read_text())["provenance"]["processes"] == 2
    refused = checkout.snakemake("--config", "processes=0", "--dry-run")
    assert refused.returncode == 2 and "--config processes=0: a whole number from 1 up is needed" in refused.stdout


def test_smaller_blocks_of_seeds_train_nothing(finished: Checkout) -> None:
    """They are other jobs, but all their records are there."""
    records = finished.files("runs/*/*.json")
    assert finished.planned("--config", "seeds_per_job=1") == {"run": 4, **RESULTS}
    finished.done("--config", "seeds_per_job=1", "--until", "run")
    assert finished.files("runs/*/*.json") == records


def test_new_numerics_train_again(finished: Checkout) -> None:
    (finished.folder / "sitecustomize.py").write_text("import ipbench\nipbench.NUMERICS = 1_000_000\n")
    counts = finished.planned(
        env={"PYTHONPATH": os.pathsep.join([str(finished.folder), os.environ.get("PYTHONPATH", "")])}
    )
    assert counts["run"] == 2


def test_a_change_of_what_a_method_file_imports_trains_again(checkout: Checkout) -> None:
    (checkout.folder / "of_mine.py").write_text("SIGN = 1\n")
    (checkout.folder / "mine.py").write_text(
        "import sys\nsys.path.insert(0, '.')\nimport of_mine\nfrom ipbench.methods import before_training, method\n\n"
        "@method(when=before_training, paper='Nobody, 2026')\ndef mine(net, batch):\n    return net.magnitudes()\n"
    )
    checkout.write(methods=["mine.py"], spaces=["sp"], seeds=1)
    checkout.done("--until", "run")
    assert "run" not in checkout.planned("--until", "run")
    (checkout.folder / "of_mine.py").write_text("SIGN = -1\n")
    assert checkout.planned("--until", "run")["run"] == 1


def test_partial_results_of_what_is_there(finished: Checkout) -> None:
    finished.write(seeds=3)
    finished.done("--", "partial")
    assert "2" in (finished.results / "tables/missing.csv").read_text()
    assert finished.planned() == {"run": 2, **RESULTS}


def test_a_killed_call_goes_on_where_it_was(checkout: Checkout) -> None:
    checkout.write(seeds=4, spaces=["sp"])
    with subprocess.Popen(
        checkout.command("--until", "run"), cwd=checkout.folder, start_new_session=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 120
        while not checkout.files("runs/*/[0-9].json"):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    records = checkout.files("runs/*/[0-9].json")
    assert len(records) < 4
    assert not checkout.files("jobs/**/*.json")
    assert "--unlock" in checkout.snakemake("--until", "run").stdout  # Snakemake says what to do
    checkout.done("--unlock")
    checkout.done("--until", "run")
    after = checkout.files("runs/*/[0-9].json")
    assert len(after) == 4
    assert records.items() <= after.items()


#: Counts what grows with the square of a graph if a path is compared with many others.
COUNTING = """
import atexit, collections
from pathlib import Path
from snakemake.io import _IOFile

counted = collections.Counter()


def counting(name):
    real = getattr(_IOFile, name)

    def method(self, *given):
        counted[name] += 1
        return real(self, *given)

    setattr(_IOFile, name, method)


for name in ("match", "__eq__", "__hash__"):
    counting(name)
atexit.register(lambda: Path("counted").write_text(str(counted.total())))
"""


def test_planning_grows_with_the_jobs(checkout: Checkout) -> None:
    """Four times the nets: as many comparisons of paths for each job."""
    (checkout.folder / "sitecustomize.py").write_text(COUNTING)
    per_job = []
    for models in (["small-vgg"], ["small-vgg", "vgg16", "resnet20-cifar", "resnet56-cifar"]):
        checkout.write(methods=["dense", "random", "snip", "ft"], sparsities=["0.5", "0.8", "0.9"], models=models)
        counts = checkout.planned(env={"PYTHONPATH": str(checkout.folder)})
        assert counts["run"] == 2 * (3 * 3 + 1) * len(models)
        per_job.append(int((checkout.folder / "counted").read_text()) / counts["run"])
    assert per_job[1] < 1.2 * per_job[0]


@pytest.mark.parametrize("profile", ["profiles/local", "slurm"])
def test_both_profiles_are_read(checkout: Checkout, profile: str) -> None:
    assert checkout.planned(profile=profile)["run"] == 2


def test_the_loader_ffcv_writes_betons_first(checkout: Checkout) -> None:
    checkout.write(loader="ffcv")
    assert checkout.planned()["beton"] == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sparsitys": [0.5]}, ["config/tiny.yaml", "sparsitys", "sparsities"]),
        ({"sparsities": [1.5]}, ["config/tiny.yaml", "sparsities", "1.5"]),
        ({"methods": ["snap"]}, ["config/tiny.yaml", "snap", "snip"]),
        ({"seeds_per_job": 3}, ["config/tiny.yaml", "seeds_per_job"]),
    ],
)
def test_a_mistake_in_an_experiment_is_one_line(
    checkout: Checkout, changes: dict[str, object], words: list[str]
) -> None:
    checkout.write(**changes)
    one_line(checkout.snakemake("--dry-run"), words)


def test_no_experiment_is_one_line_that_lists_them(checkout: Checkout) -> None:
    one_line(checkout.snakemake("--dry-run", config=None), ["--configfile", "config/tiny.yaml"])


def test_keys_are_not_overridden_on_the_command_line(checkout: Checkout) -> None:
    one_line(checkout.snakemake("--dry-run", "--config", "seeds=3"), ["seeds", "config/tiny.yaml"])


@pytest.mark.parametrize("number", ["0", "many"])
def test_seeds_per_job_is_a_number(checkout: Checkout, number: str) -> None:
    one_line(checkout.snakemake("--dry-run", "--config", f"seeds_per_job={number}"), ["seeds_per_job", number])


def one_line(process: subprocess.CompletedProcess[str], words: list[str]) -> None:
    """Exit code 2 and a single line of ours; Snakemake says beforehand which profile it reads."""
    lines = [
        line for line in process.stdout.splitlines() if not line.startswith(("Using profile", "Assuming unrestricted"))
    ]
    assert process.returncode == 2, process.stdout
    assert len(lines) == 1, process.stdout
    assert all(word in lines[0] for word in words), lines[0]


def test_every_figure_and_table_has_a_caption() -> None:
    from ipbench.analysis.plan import FIGURES, TABLES

    folder = Path(__file__).parents[2] / "workflow/report"
    assert {path.stem for path in folder.glob("figures/*.rst")} == set(FIGURES)
    assert {path.stem for path in folder.glob("tables/*.rst")} == set(TABLES)
