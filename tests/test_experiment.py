"""Experiments: the grid they expand to, what is folded away, and one line for what is wrong."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import ipbench.planning.experiment as experiment_module
from ipbench import methods, spec
from ipbench.cli.main import main
from ipbench.errors import BadInput
from ipbench.methods._method import REGISTRY
from ipbench.methods._patterns import without_meaning
from ipbench.planning.experiment import Experiment

ROOT = Path(__file__).parent.parent
BASE = {"datasets": "digits", "methods": ["dense", "snip"], "sparsities": [0.9, 0.95], "seeds": 3}


def expand(**values) -> Experiment:
    return Experiment.from_config({**BASE, **values}, "test")


def test_the_product_of_all_axes():
    experiment = expand(methods=["snip", "random"], off=["zero", "frozen"], allocations=["global", "erk"])
    assert len(experiment.cells) == 2 * 2 * 2 * 2 * 2  # methods, off, allocations, sparsities, spaces
    assert len(experiment.runs) == 32 * 3 == len({run.id for run in experiment.runs})


def test_what_has_no_meaning_is_folded_away():
    experiment = expand(off=["zero", "frozen"], basis={"init": ["standard", "orthonormal"]})
    dense = [run for run in experiment.runs if run.method == "dense" and run.seed == 0]
    assert [(run.space, run.basis.init) for run in dense] == [
        ("sp", "standard"),
        ("ip", "standard"),
        ("ip", "orthonormal"),
    ]
    assert all(run.sparsity == "0" and run.off == "zero" for run in dense)
    snip = [run for run in experiment.runs if run.method == "snip" and run.seed == 0]
    assert len(snip) == 2 * 2 * (1 + 2)


def test_partners_share_a_pair():
    grid = expand(basis={"sharing": ["layer", "stage"]}).grid()
    cells = grid["cells"]
    assert grid["margin"] == 0.5 and expand(margin=1).grid()["margin"] == 1
    groups: dict[str, list[str]] = {}
    for cell in cells:
        groups.setdefault(cell["pair"], []).append(cell["space"])
    assert sorted(groups.values()) == [["sp", "ip", "ip"]] * 3  # dense and two sparsities


def test_options_are_axes_and_defaults_disappear():
    experiment = expand(methods=[{"name": "synflow", "rounds": [1, 100]}], sparsities=0.9, spaces="sp")
    assert [run.options for run in experiment.runs if run.seed == 0] == [{"rounds": 1}, {}]


#: Grids whose runs continue others: levels of lottery tickets, some of them of the grid itself, and fine-tuned nets.
CONTINUED = {
    "methods": ["ft", {"name": "lt", "rate": 0.5}, {"name": "lt", "rate": 0.3}, "random"],
    "sparsities": [0.9, 0.5, 0.75, 0.95],
    "seeds": [4, 0, 7],
}


def test_jobs_cover_all_runs_once_whatever_the_block():
    experiment = expand(seeds=5)
    for size in (1, 2, 5, 50):
        jobs = experiment.jobs(size)
        assert [run.id for job in jobs for run in job.runs] == [run.id for run in experiment.runs]
        assert len({job.path for job in jobs}) == len(jobs)


@pytest.mark.parametrize("seeds_per_job", [1, 2, 6])
@pytest.mark.parametrize("sparsities_per_job", [1, 2, 3, 50])
def test_blocks_change_no_run_and_no_order(seeds_per_job, sparsities_per_job):
    """Whatever the blocks: every run once, what it continues before it, and kept exactly if something continues it."""
    experiment = expand(**CONTINUED)
    jobs = {job.path: job for job in experiment.jobs(seeds_per_job, sparsities_per_job)}
    single = [run for job in experiment.jobs(1) for run in job.runs]
    assert sorted(run.id for job in jobs.values() for run in job.runs) == sorted(run.id for run in single)
    assert len({run.id for run in single}) == len(single) == 3 * len(experiment.trained)
    parents = {run.id: parent.id for run in single if (parent := methods.parent(run))}
    home = {run.id: path for path, job in jobs.items() for run in job.runs}
    before = {path: set(job.parents) for path, job in jobs.items()}
    assert len(list(TopologicalSorter(before).static_order())) == len(jobs)  # a circle raises
    for path, job in jobs.items():
        assert path == job.path and len(job.cells) <= sparsities_per_job and len(job.seeds) <= seeds_per_job
        ids = [run.id for run in job.runs]
        own = [parents[run] for run in ids if run in parents]
        assert set(job.parents) == {home[parent] for parent in own} - {path}
        assert all(ids.index(parents[run]) < place for place, run in enumerate(ids) if parents.get(run) in ids)
        assert {run in parents.values() for run in ids} == {job.keep}


def test_a_fused_job_is_named_by_what_it_trains():
    (job,) = expand(methods="snip", spaces="sp", sparsities=[0.95, 0.5, 0.9]).jobs(6, 3)
    same = expand(methods=["random", "snip"], spaces=["ip", "sp"], sparsities=[0.5, 0.9, 0.95]).jobs(6, 3)
    assert re.fullmatch(r"jobs/digits/small-vgg/snip/sp-zero/0.5-0.95/[0-9a-f]{12}\.0-2\.json", job.path)
    assert job.path in {other.path for other in same}
    assert [(run.sparsity, run.seed) for run in job.runs[2:4]] == [("0.5", 2), ("0.9", 0)]
    assert job.label == "digits small-vgg snip sp p=0.5-0.95 seeds 0-2"
    (alone,) = (other for other in expand().jobs(6, 1) if other.label == "digits small-vgg snip sp p=0.9 seeds 0-2")
    assert alone.path.endswith(f"/0.9/{alone.cells[0].cell}.0-2.json")


def test_shared_training_is_planned_once():
    """FT and LT at any sparsity continue one dense run per seed and space; a level continues the one before it."""
    experiment = expand(methods=["ft", {"name": "lt", "rate": 0.5}], sparsities=[0.75, 0.9, 0.95], seeds=4)
    jobs = {job.path: job for job in experiment.jobs(2)}
    dense = [job for job in jobs.values() if job.cells[0].method == "dense"]
    assert sorted((job.cells[0].space, job.seeds) for job in dense) == [
        ("ip", (0, 1)), ("ip", (2, 3)), ("sp", (0, 1)), ("sp", (2, 3)),
    ]  # fmt: skip
    assert all(job.keep and not job.parents for job in dense)
    chain, job = (
        [],
        next(
            job
            for job in jobs.values()
            if (job.cells[0].method, job.cells[0].sparsity, job.cells[0].space) == ("lt", "0.95", "ip")
        ),
    )
    while job.parents:
        (parent,) = job.parents
        chain.append((job.cells[0].sparsity, job.keep))
        assert jobs[parent].seeds == job.seeds
        job = jobs[parent]
    assert chain == [("0.95", False), ("0.9375", True), ("0.875", True), ("0.75", True), ("0.5", True)]
    assert job in dense
    fine_tuned = [job for job in jobs.values() if job.cells[0].method == "ft"]
    assert len(fine_tuned) == 3 * 2 * 2 and {job.parents for job in fine_tuned} == {(job.path,) for job in dense}
    # 0.75 is a level of the grid itself; 0.5, 0.875, 0.9375 and dense are not, and no table shows them.
    assert len(experiment.cells) == 2 * 3 * 2 and len(experiment.trained) == 12 + 2 * 4
    assert len({job.path for job in jobs.values()}) == len(experiment.jobs(2))


def test_dense_runs_of_the_grid_are_the_ones_continued():
    with_dense = expand(methods=["dense", "ft"])
    assert len(with_dense.trained) == len(with_dense.cells)
    assert {cell for cells in with_dense.needs.values() for cell in cells} == {
        run.cell for run in with_dense.runs if run.method == "dense"
    }


def test_several_recipes_are_an_axis():
    experiment = expand(
        recipe=[{}, {"init": "xavier_normal", "milestones": [0.5]}], methods="snip", sparsities=0.9, seeds=1
    )
    assert [(run.recipe.init, run.space) for run in experiment.runs] == [
        ("kaiming_normal", "sp"), ("kaiming_normal", "ip"), ("xavier_normal", "sp"), ("xavier_normal", "ip"),
    ]  # fmt: skip
    assert len({cell["pair"] for cell in experiment.grid()["cells"]}) == 2


def test_a_method_may_have_its_own_allocation_and_off():
    experiment = expand(
        methods=["snip", {"name": "rigl", "allocation": "erk", "off": ["zero", "frozen"]}], spaces="sp", sparsities=0.9
    )
    found = [(run.method, run.allocation, run.off) for run in experiment.runs if run.seed == 0]
    assert found == [("snip", "global", "zero"), ("rigl", "erk", "zero"), ("rigl", "erk", "frozen")]


def test_a_method_may_be_meant_for_some_models():
    values = {"spaces": "sp", "sparsities": 0.9, "seeds": 1, "models": ["small-vgg", "resnet20-cifar", "lenet5-caffe"]}
    entries = [
        {"name": "snip", "model": "small-vgg", "rounds": [1, 2]},
        {"name": "snip", "model": ["small-vgg", "lenet5-caffe"]},  # of small-vgg the same run once more
        {"name": "dense", "model": "resnet20-cifar"},
        "random",
    ]
    found = [(run.model, run.method, run.options) for run in expand(**values, methods=entries).runs]
    assert found == [
        ("small-vgg", "snip", {}), ("small-vgg", "snip", {"rounds": 2}), ("small-vgg", "random", {}),
        ("resnet20-cifar", "dense", {}), ("resnet20-cifar", "random", {}),
        ("lenet5-caffe", "snip", {}), ("lenet5-caffe", "random", {}),
    ]  # fmt: skip
    usual = expand(methods={"name": "snip", "model": "small-vgg"}, spaces="sp", sparsities=0.9)
    assert list(usual.cells) == list(expand(methods="snip", spaces="sp", sparsities=0.9).cells)


def test_patterns_and_budgets_are_axes():
    experiment = expand(
        methods=["dense", "snip", {"name": "random", "pattern": "2:4", "budget": "parameters"}],
        patterns=["filters", "channels"], budgets=["parameters", "macs"], sparsities=0.5, seeds=1,
    )  # fmt: skip
    found = [(run.method, run.pattern, run.budget) for run in experiment.runs if run.space == "ip"]
    assert found == [
        ("dense", "coefficients", "parameters"),
        *(("snip", pattern, budget) for pattern in ("filters", "channels") for budget in ("parameters", "macs")),
        ("random", "2:4", "parameters"),
    ]
    cells = experiment.grid()["cells"]
    pairs: dict[str, list[tuple[str, str, str]]] = {}
    for cell in cells:
        pairs.setdefault(cell["pair"], []).append((cell["method"], cell["pattern"], cell["budget"]))
    assert all(len(sides) == 2 and len(set(sides)) == 1 for sides in pairs.values()) and len(pairs) == 6
    same = expand(patterns="coefficients", budgets="parameters")
    assert list(same.cells) == list(expand().cells)


def test_a_method_may_declare_its_pattern(monkeypatch):
    filters = replace(methods.get("magnitude"), name="norms", pattern="filters")
    monkeypatch.setitem(REGISTRY, "norms", filters)
    experiment = expand(methods=["norms", "snip", {"name": "norms", "pattern": "channels"}], seeds=1, sparsities=0.5)
    found = [(run.method, run.pattern) for run in experiment.runs if run.space == "sp"]
    assert found == [("norms", "filters"), ("snip", "coefficients"), ("norms", "channels")]
    assert filters.describe()["pattern"] == "filters"


@pytest.mark.parametrize("method", ["ft", {"name": "gmp", "every": 20}])
def test_what_is_continued_has_no_pattern(method):
    experiment = expand(methods=method, patterns="channels", budgets="macs", spaces="sp", sparsities=0.5)
    (run,) = experiment.cells.values()
    dense = [cell for cell in experiment.trained.values() if cell.method == "dense"]
    assert run.pattern == "channels" and dense == (
        [expand(methods="dense", spaces="sp").runs[0]] if method == "ft" else []
    )


def test_what_is_continued_at_another_sparsity_has_no_n_of_m():
    stage = methods.Continue("magnitude", sparsity="0.3")
    assert "continues a run of sparsity 0.3, which is not that of pattern 2:4" in without_meaning(stage, "2:4")
    assert not without_meaning(stage, "filters")
    assert not without_meaning(methods.Continue("magnitude", sparsity="same"), "2:4")


def test_off_is_a_word_in_a_file(tmp_path):
    """In YAML 1.1 it would be the value false."""
    path = tmp_path / "frozen.yaml"
    path.write_text(
        "datasets: digits\nmethods: [{name: snip, off: [zero, frozen]}]\nsparsities: 0.9\nseeds: 1\nspaces: sp"
    )
    assert [run.off for run in Experiment.load(path).runs] == ["zero", "frozen"]
    path.write_text("datasets: digits\nmethods: snip\nsparsities: 0.9\noff: frozen\nseeds: 1\nspaces: sp\n")
    assert [run.off for run in Experiment.load(path).runs] == ["frozen"]
    path.write_text("datasets: digits\nmethods: snip\nsparsities: 0.9\nmethods: random\n")
    with pytest.raises(BadInput, match="the key 'methods' is given twice") as error:
        Experiment.load(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_experiment_of_the_repository_expands(path):
    experiment = Experiment.load(path)
    assert experiment.runs and len({job.path for job in experiment.jobs()}) == len(experiment.jobs())


def test_a_jobs_command_line_gives_back_its_runs(tmp_path, monkeypatch):
    """The words that Snakemake runs describe exactly the runs that the grid holds."""
    from ipbench.cli import run as run_command

    experiment = expand(
        methods=[
            {"name": "grasp", "temperature": 50.0},
            {"name": "grasp", "pattern": "channels", "budget": "channels", "allocation": "uniform"},
            "dense",
        ],
        basis={"init": "orthonormal", "lr": 0.25, "train": False},
        recipe={"epochs": 7, "train_examples": 500, "augmentation": {"cutout": 2}, "milestones": [0.25, 0.5]},
        allocations="erk",
        off="frozen",
        mode="fast",
    )
    seen = []
    monkeypatch.setattr(run_command, "_train", lambda runs, *_, **__: seen.extend(runs))
    for job in experiment.jobs(2):
        assert main(["run", *job.arguments, "--out", str(tmp_path)]) == 0
    assert seen == experiment.runs
    seen.clear()
    fused = experiment.jobs(2, 2)
    for job in fused:
        assert main(["run", *job.arguments, "--out", str(tmp_path)]) == 0
    assert seen == [run for job in fused for run in job.runs]
    assert len(seen) == len(experiment.runs) and set(map(repr, seen)) == set(map(repr, experiment.runs))


def test_a_jobs_command_line_names_the_usual_pattern_where_the_method_means_another_one(tmp_path, monkeypatch):
    from ipbench.cli import run as run_command

    file = tmp_path / "mine.py"
    file.write_text(
        "from ipbench.methods import Train, before_training, method\n\n\n"
        '@method(when=before_training, paper="You: Yours, 2026", pattern="filters")\n'
        "def meant_for_filters(net, batch):\n"
        '    """Magnitudes."""\n'
        "    return net.magnitudes()\n\n\n"
        '@method(paper="You: Yours, 2026", pattern="filters")\n'
        "def prunes_nothing():\n"
        '    """Only trains: a pattern means nothing."""\n'
        "    return [Train()]\n"
    )
    patterns = ["coefficients", "filters", "2:4"]
    entry = {"name": "meant_for_filters", "file": str(file), "pattern": patterns}
    experiment = expand(methods=[entry], sparsities=[0.5], spaces="sp", seeds=1)
    dense = expand(methods=[{"name": "prunes_nothing", "file": str(file)}], spaces="sp", seeds=1)
    seen: list[spec.Run] = []
    monkeypatch.setattr(run_command, "_train", lambda runs, *_, **__: seen.extend(runs))
    for job in experiment.jobs():
        assert main(["run", *job.arguments, "--out", str(tmp_path)]) == 0
    assert main(["run", "--method", "prunes_nothing", "--method-file", str(file), "--out", str(tmp_path)]) == 0
    assert [run.pattern for run in seen[:-1]] == patterns and seen == [*experiment.runs, *dense.runs]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dataset": "digits"}, "unknown key 'dataset' in test (did you mean 'datasets'?); valid: allocations, basis"),
        ({"datasets": "digit"}, "unknown data set 'digit' in test (did you mean 'digits'?); valid: cifar10"),
        (
            {"methods": {"name": "lt", "rewind": 8.0}},
            "test: method lt: rewinding to epoch 8 leaves nothing of a training of 8 epochs",
        ),
        ({"methods": {"name": "lt", "rate": 0.01}}, "test: method lt: rate is from 0.05 up to, not including, 1"),
        ({"methods": "snap"}, "unknown method 'snap' in test (did you mean 'snip'?); valid: asfp, asrfp, cops, dense"),
        ({"models": "small-vg"}, "unknown model 'small-vg' in test (did you mean 'small-vgg'?)"),
        ({"methods": []}, "test: methods: value should have at least 1 item"),
        ({"methods": [{"rounds": 1}]}, "has no name"),
        ({"methods": [{"name": "snip", "round": 1}]}, "unknown option of method snip 'round' in test (did you mean"),
        ({"methods": [{"name": "snip", "rounds": 0}]}, "method snip: rounds is "),
        ({"methods": [{"name": "snip", "rounds": "x"}]}, "option rounds of method snip is of type int"),
        ({"methods": {"name": "snip", "model": "vgg16"}}, "unknown model of this experiment 'vgg16' in test: methods"),
        ({"methods": {"name": "snip", "model": []}}, "test: methods: snip: model is an empty list"),
        ({"methods": "gone.py"}, "gone.py: no such file"),
        ({"sparsities": [0.9, 1.2]}, "a sparsity is a number from 0 up to, not including, 1 (got 1.2)"),
        ({"seeds": 0}, "a number of seeds is from 1 to 100000"),
        ({"seeds": [1, 1]}, "seeds: 1 appears twice"),
        ({"seeds": "six"}, "test: seeds"),
        ({"recipe": {"epoch": 1}}, "unknown key 'epoch' in test: recipe (did you mean 'epochs'?)"),
        ({"basis": {"sharing": "all"}}, "input should be 'layer', 'stage' or 'network' (got 'all')"),
        ({"name": "../../etc"}, "test: name: not a name"),
        ({"mode": "exact"}, "input should be 'strict' or 'fast' (got 'exact')"),
    ],
)  # fmt: skip
def test_bad_experiments_are_one_line(values, message):
    with pytest.raises(BadInput) as error:
        Experiment.from_config({**BASE, **values}, "test", "test")
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["a: [", "- 1\n", "", "\x00"])
def test_unreadable_files_are_one_line(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(BadInput, match=r"bad\.yaml: not ") as error:
        Experiment.load(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.name)
def test_every_preset_is_valid(path):
    assert Experiment.load(path).runs


@pytest.mark.parametrize("seeds", [1, 100])
def test_what_is_planned_grows_with_the_cells_not_with_the_runs(seeds, monkeypatch):
    """A run's validation, and hashes for its cell and its pair, cost more than all the rest of the plan."""
    counted = Counter()
    real = experiment_module.build, spec.identity
    monkeypatch.setattr(
        experiment_module, "build", lambda kind, *rest: counted.update([kind.__name__]) or real[0](kind, *rest)
    )
    monkeypatch.setattr(spec, "identity", lambda values: counted.update(["identity"]) or real[1](values))
    experiment = expand(seeds=seeds, sparsities=[round(0.5 + 0.01 * step, 2) for step in range(40)])
    experiment.grid(), experiment.jobs()
    assert len(experiment.cells) == 2 + 40 * 2
    assert counted["Run"] == len(experiment.cells) and counted["identity"] == 2 * len(experiment.cells)


def test_planning_imports_no_torch():
    """Snakemake parses the workflow in every job: it must not pay for torch or pandas."""
    code = (
        "import sys; from pathlib import Path; from ipbench.planning.experiment import Experiment;"
        "experiment = Experiment.load(Path('config/quickstart.yaml')); experiment.jobs(2, 2);"
        "from ipbench.analysis.plan import plan; plan(experiment.grid()); import ipbench.cli.main;"
        "print([m for m in ('torch', 'pandas', 'sklearn', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True, timeout=300
    )
    assert done.stdout.strip() == "[]"


def test_levels_are_counted_too(monkeypatch):
    """A small rate has dozens of them between two sparsities."""
    monkeypatch.setattr("ipbench.planning.expansion.MOST_CELLS", 20)
    config = {"datasets": "digits", "methods": [{"name": "lt", "rate": 0.05}], "sparsities": [0.9], "spaces": "sp"}
    with pytest.raises(BadInput, match="with the levels that its cells continue, more than 20 cells"):
        Experiment.from_config(config, "x").jobs()
