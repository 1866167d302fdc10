"""Methods that are rules of a user: what is refused, what is exchanged, and that they are methods like all others."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ipbench import methods
from ipbench.cli.main import main
from ipbench.errors import BadInput, BadProduct
from ipbench.methods import _files
from ipbench.methods._method import REGISTRY
from ipbench.methods._rules import code_of_rules
from ipbench.planning.experiment import Experiment
from ipbench.runs.building import build_net, content, open_data
from ipbench.runs.environment import Environment
from ipbench.runs.exchange import write_exchange
from ipbench.runs.execute import execute
from ipbench.runs.external import external_masks, folder, scores_path
from ipbench.runs.records import state_path
from ipbench.sparse.net import SparseNet
from ipbench.spec import Recipe, Run
from tests.workflow.conftest import ROOT, Checkout
from tests.workflow.test_workflow import one_line

EXAMPLE = ROOT / "examples/rule"
RULE = """# What it does.
# paper: Nobody, 2026

rule {rule}:
    input: "{{exchange}}/net.safetensors",
    output: "{{exchange}}/{name}.safetensors",
    shell: "python helper.py"
"""
RECIPE = Recipe(epochs=1, batch_size=20, train_examples=60, warmup=0)


def kept() -> Iterator[None]:
    """The methods that are known afterwards are those from before."""
    methods.methods()
    before, codes = dict(REGISTRY), dict(_files._CODE)
    yield
    REGISTRY.clear()
    REGISTRY.update(before)
    _files._CODE.clear()
    _files._CODE.update(codes)


@pytest.fixture(autouse=True, scope="module")
def of_this_file() -> Iterator[None]:
    yield from kept()


@pytest.fixture(autouse=True)
def of_a_test(of_this_file: None) -> Iterator[None]:
    yield from kept()


def write(path: Path, text: str = RULE, rule: str = "mine") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.format(rule=rule, name=path.stem))
    return path


# Declaring one.


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("mine", "# Only words.\n", ["no rule of it has the output '{exchange}/mine.safetensors'"]),
        ("mine", "# output: x\n" + RULE, ["unknown key 'output'", "valid: continues, paper, patterns"]),
        ("mine", '# "{{exchange}}/mine.safetensors"\n', ["no rule of it has the output"]),
        ("snip", RULE, ["there is a method 'snip' already", "snip.py"]),
        ("net", RULE, ["'net' cannot be the name of a method", "not net or batch"]),
        ("my method", RULE, ["'my method' cannot be the name of a method", "letters, digits"]),
        ("mine", "# per_class: ten\n" + RULE, ["per_class", "a whole number", "'ten'"]),
        ("mine", "# per_class:\n" + RULE, ["per_class is empty"]),
        ("mine", "# spaces: xp\n" + RULE, ["unknown space 'xp'", "ip, sp"]),
        ("mine", "# patterns: rows\n" + RULE, ["rows", "filters"]),
        ("mine", "# continues: snip\n" + RULE, ["unknown run to continue 'snip'", "dense"]),
        ("mine", "# paper: a\n" + RULE, ["paper is given twice"]),
    ],
)
def test_a_file_that_is_no_method_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, words: list[str]
) -> None:
    path = write(tmp_path / f"{name}.smk", text)
    assert main(["methods", "--method-file", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(path) in said and all(word in said for word in words), said
    assert name not in REGISTRY or methods.built_in(name)


def test_what_the_documents_quote_of_the_example_stands_there() -> None:
    page = (ROOT / "docs/adding-a-method.md").read_text()
    quoted = re.findall(r"^<!-- [^\n]* from (examples/\S+), [^\n]*\n```python\n(.*?)^```$", page, re.M | re.S)
    assert {file for file, _ in quoted} == {"examples/rule/numpy-magnitude.smk", "examples/rule/numpy_magnitude.py"}
    assert all(text in (ROOT / file).read_text() for file, text in quoted)


def test_two_of_one_name_are_refused(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a/mine.smk"), write(tmp_path / "b/mine.smk")
    assert methods.load([first, first]) == {str(first): ["mine"]}
    with pytest.raises(BadInput, match=r"there is a method 'mine' already, in .*a/mine\.smk; rename"):
        methods.load([second])


def test_it_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "# One,\n# two.\n#\n# More.\n# continues: dense\n# per_class: 3\n" + RULE.partition("\n")[2]
    path = write(tmp_path / "mine.smk", text)
    assert main(["methods", "--json", "--method-file", str(path)]) == 0
    told = next(entry for entry in json.loads(capsys.readouterr().out) if entry["name"] == "mine")
    assert (told["summary"], told["paper"], told["family"]) == ("One, two.", "Nobody, 2026", "after training")
    assert told["options"] == {"per_class": {"type": "int", "default": 3}}
    assert told["stages"] == ["start from the dense run", "prune by what rule mine writes", "train (lr x 0.1)"]


def test_the_code_is_the_file_and_what_it_names(tmp_path: Path) -> None:
    path = write(tmp_path / "a/mine.smk")
    files = {"helper.py": "import deep\n# data.txt\n", "deep.py": "", "data.txt": "1", "other.txt": "", "mine.py": ""}
    for name, text in files.items():
        (path.parent / name).write_text(text)
    before = code_of_rules(path)
    assert [file.name for file in before.files] == ["mine.smk", "data.txt", "deep.py", "helper.py"]
    for file in before.files:
        kept = file.read_text()
        file.write_text(f"{kept}# more\n")
        assert code_of_rules(path).sha256 != before.sha256
        file.write_text(kept)
    (path.parent / "other.txt").write_text("more")
    shutil.copytree(path.parent, tmp_path / "b")
    assert code_of_rules(tmp_path / "b/mine.smk").sha256 == before.sha256


# In an experiment.


def planned(entries: Sequence[object], **values: object) -> Experiment:
    config = {"datasets": "digits", "methods": list(entries), "sparsities": [0.5], "seeds": 2, **values}
    return Experiment.from_config(config, "tiny")


def test_three_ways_to_name_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("mine.smk", "workflow/rules/methods/found.smk"):
        write(Path(file))
    alone = planned(["snip"]).jobs()
    for entry, file in (
        ("mine.smk", "mine.smk"),
        ({"rule": "mine.smk", "per_class": 2}, "mine.smk"),
        ("found", "workflow/rules/methods/found.smk"),
    ):
        experiment = planned(["snip", entry])
        jobs = experiment.jobs()
        assert [job for job in jobs if not job.rule_file] == alone  # what others are told is as before
        own = [job for job in jobs if job.rule_file]
        assert len(own) == 2 and all(job.rule_file == file and file in job.arguments for job in own)
        assert experiment.helper_files == []
        name = Path(file).stem
        codes = {cell.get("code") for cell in experiment.grid()["cells"] if cell["method"] == name}
        assert codes == {code_of_rules(Path(file)).sha256}


@pytest.mark.parametrize(
    ("entry", "values", "words"),
    [
        ({"rule": "mine.py"}, {}, "rule is the path of a file of rules, which ends in .smk"),
        ({"rule": "mine.smk", "file": "x.py"}, {}, "in the place of file"),
        ({"rule": "mine.smk", "name": "yours"}, {}, "unknown method of mine.smk 'yours'"),
        ({"rule": "mine.smk", "rounds": 3}, {}, "unknown option of method mine 'rounds'"),
        ({"rule": "gone.smk"}, {}, "gone.smk: no such file"),
        ("mine.smk", {"spaces": ["sp", "ip"]}, "method mine: its rule is for space sp, not ip"),
        ({"rule": "mine.smk", "pattern": "channels"}, {"spaces": "sp"}, "its rule is not for pattern channels"),
        ("snip", {}, "there is a method 'snip' already"),
    ],
)
def test_what_it_cannot_do_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: object, values: dict[str, object], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("mine.smk"), "# spaces: sp\n# patterns: coefficients, filters\n" + RULE)
    if entry == "snip":
        write(Path("workflow/rules/methods/snip.smk"))
    with pytest.raises(BadInput, match=re.escape(words)):
        planned([entry], **values)


# What is exchanged.


class Scored:
    """A run of the example whose net and batch are written, and its net."""

    def __init__(self, place: Path, **values: object) -> None:
        methods.load([EXAMPLE / "numpy-magnitude.smk"])
        fixed = {"dataset": "digits", "model": "lenet-300-100", "method": "numpy-magnitude", "recipe": RECIPE}
        self.run = Run.model_validate({**fixed, "sparsity": "0.8", "space": "sp", **values})
        self.results, environment = place, Environment()
        write_exchange(self.run, place, environment)
        self.there = content(self.run, environment)
        self.net: SparseNet = build_net(self.run, open_data(self.run, environment), environment)

    @property
    def facts(self) -> dict[str, object]:
        with safe_open(folder(self.results, self.run) / "net.safetensors", "pt") as file:
            return dict(json.loads(file.metadata()["facts"]))

    def tensors(self, group: str) -> dict[str, Tensor]:
        found = load_file(folder(self.results, self.run) / "net.safetensors")
        return {name.partition("/")[2]: tensor for name, tensor in found.items() if name.startswith(f"{group}/")}

    def masks(self, given: dict[str, Tensor]) -> dict[str, Tensor]:
        """What becomes of what a program writes."""
        save_file(given, scores_path(self.results, self.run))
        return external_masks(self.net, self.results, self.there)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Scored:
    return Scored(tmp_path_factory.mktemp("scored"))


def masks_of(method: str, scored: Scored) -> dict[str, Tensor]:
    from ipbench.training.pruning import pruned_masks

    run = scored.run.model_copy(update={"method": method})
    data = open_data(run, Environment())
    stage = methods.get(method).stages({})[0]
    assert isinstance(stage, methods.Prune)
    return pruned_masks(build_net(run, data, Environment()), stage, data)


@pytest.mark.parametrize("space", ["sp", "ip"])
def test_snip_of_what_is_exchanged_gives_the_masks_of_snip(tmp_path: Path, space: str) -> None:
    scored = Scored(tmp_path, model="small-vgg", space=space, seed=3)
    gradients = scored.tensors("gradients")
    scores = {name: (c * gradients[name]).abs() for name, c in scored.tensors("coefficients").items()}
    found, wanted = scored.masks(scores), masks_of("snip", scored)
    assert all(torch.equal(found[name], mask) for name, mask in wanted.items())
    # Masks are taken as well as the scores that they came of.
    taken = scored.masks(found)
    assert all(torch.equal(taken[name], mask) for name, mask in wanted.items())


def test_what_a_program_is_told(scored: Scored) -> None:
    facts, net = scored.facts, scored.net
    assert facts["layers"] == list(net.masks) and facts["budget"] == net.budget
    assert (facts["model"], facts["sparsity"], facts["pattern"]) == ("lenet-300-100", "0.8", "coefficients")
    assert not scored.tensors("masks")
    plain = net.plain().state_dict()
    filters, weights = scored.tensors("filters"), dict(facts["weights"])  # type: ignore[call-overload]
    told = {weights[name]: filters[name] for name in weights} | scored.tensors("others")
    assert told.keys() == plain.keys() and all(torch.equal(told[name], plain[name]) for name in plain)
    batch = load_file(folder(scored.results, scored.run) / "batch.safetensors")
    assert batch["images"].shape == (20, 1, 8, 8) and batch["labels"].shape == (20,)


def test_its_random_numbers_depend_on_the_seed_alone(tmp_path: Path) -> None:
    changes = [{}, {"space": "ip"}, {"sparsity": "0.5"}, {"off": "frozen"}, {"seed": 1}]
    first, *same, other = (Scored(tmp_path / str(place), **values).facts["key"] for place, values in enumerate(changes))
    assert set(same) == {first} and other != first and 0 <= int(str(first)) < 2**53


def half(scores: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: values.half() for name, values in scores.items()}


def first(change: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """A change of the scores of the first layer."""
    return lambda scores: {
        name: change(values) if place == 0 else values for place, (name, values) in enumerate(scores.items())
    }


def number(value: float) -> Callable[[Tensor], Tensor]:
    def change(values: Tensor) -> Tensor:
        values = values.clone()
        values.view(-1)[3] = value
        return values

    return change


def as_masks(share: float) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda scores: {name: values > values.flatten().quantile(share) for name, values in scores.items()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda scores: dict(list(scores.items())[1:]), "nothing for layer"),
        (lambda scores: {**scores, "more": torch.ones(1)}, "there is no layer 'more'"),
        (first(lambda values: values.flatten()), "has the shape"),
        (first(number(float("nan"))), "1 scores of layer .* are not finite"),
        (first(number(float("-inf"))), "1 scores of layer .* are not finite"),
        (first(lambda values: values.to(torch.int64)), "is of type int64; scores are floating-point"),
        (first(lambda values: values > 0), "some layers have scores and some have masks"),
        (as_masks(0.5), "the masks keep .* asks for exactly"),
        (as_masks(0.9), "the masks keep .* asks for exactly"),
    ],
)
def test_what_does_not_fit_is_one_line(
    scored: Scored, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], words: str
) -> None:
    given = change({name: c.abs() for name, c in scored.tensors("coefficients").items()})
    with pytest.raises(BadProduct, match=f"numpy-magnitude.safetensors: .*{words}"):
        scored.masks(given)


def test_half_precision_is_taken_as_it_is(scored: Scored) -> None:
    scores = half({name: c.abs() for name, c in scored.tensors("coefficients").items()})
    masks = scored.masks(scores)
    assert sum(int(mask.sum()) for mask in masks.values()) == scored.net.budget


@pytest.mark.parametrize("content", [b"", b"\x10", b"\xff" * 100, None], ids=["empty", "short", "no", "cut"])
def test_a_damaged_file_is_one_line(scored: Scored, content: bytes | None) -> None:
    path = scores_path(scored.results, scored.run)
    scored.masks({name: c.abs() for name, c in scored.tensors("coefficients").items()})
    path.write_bytes(path.read_bytes()[:-7] if content is None else content)
    with pytest.raises(BadProduct, match=r"numpy-magnitude.safetensors: not readable as safetensors"):
        external_masks(scored.net, scored.results, scored.there)


def test_scores_of_other_code_or_images_are_not_taken(scored: Scored) -> None:
    scored.masks({name: c.abs() for name, c in scored.tensors("coefficients").items()})
    for name in ("method", "data"):
        with pytest.raises(BadProduct, match="of other numerics, images or code of the rule"):
            external_masks(scored.net, scored.results, {**scored.there, name: "0" * 64})


def test_masks_are_shared_among_layers_as_the_allocation_says(tmp_path: Path) -> None:
    scored = Scored(tmp_path, allocation="uniform")
    scores = {name: c.abs() for name, c in scored.tensors("coefficients").items()}
    uniform = scored.masks(scores)
    assert all(torch.equal(mask, uniform[name]) for name, mask in scored.masks(uniform).items())
    whole = Scored(tmp_path / "global").masks(scores)
    with pytest.raises(BadProduct, match="none of pattern coefficients under allocation uniform"):
        scored.masks(whole)


def test_masks_of_filters_are_of_whole_ones(tmp_path: Path) -> None:
    scored = Scored(tmp_path, pattern="filters", sparsity="0.5")
    filters = scored.masks({name: c.abs() for name, c in scored.tensors("coefficients").items()})
    assert all(torch.equal(mask, filters[name]) for name, mask in scored.masks(filters).items())
    name = next(iter(filters))
    broken = filters[name].clone()
    broken[filters[name].any(1).nonzero()[0], 0] = False
    with pytest.raises(BadProduct, match="none of pattern filters"):
        scored.masks({**filters, name: broken})


# Runs.


def test_a_run_resumes_without_scores(tmp_path: Path) -> None:
    scored = Scored(tmp_path / "a")
    run, scores = scored.run, {name: c.abs() for name, c in scored.tensors("coefficients").items()}
    save_file(scores, scores_path(tmp_path / "a", run))

    def stop(epoch: int, epochs: int) -> None:
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        execute(run, tmp_path / "a", Environment(), on_epoch=stop)
    assert state_path(tmp_path / "a", run).exists()
    shutil.rmtree(folder(tmp_path / "a", run))
    resumed = execute(run, tmp_path / "a", Environment())
    write_exchange(run, tmp_path / "b", Environment())
    save_file(scores, scores_path(tmp_path / "b", run))
    whole = execute(run, tmp_path / "b", Environment())
    assert resumed["outcome_sha256"] == whole["outcome_sha256"]
    magnitude = execute(run.model_copy(update={"method": "magnitude"}), tmp_path / "b", Environment())
    assert whole["outcome"]["weights_sha256"] == magnitude["outcome"]["weights_sha256"]
    assert whole["provenance"]["method"] == code_of_rules(EXAMPLE / "numpy-magnitude.smk").sha256


def test_a_budget_that_cannot_be_met_is_told_by_the_run(tmp_path: Path) -> None:
    scored = Scored(tmp_path, model="small-vgg", space="ip", sparsity="0.999")
    assert scored.facts["budget"] is None
    save_file(scored.tensors("coefficients"), scores_path(tmp_path, scored.run))
    assert execute(scored.run, tmp_path, Environment())["status"] == "impossible"


def test_by_hand_in_three_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--method-file", str(EXAMPLE / "numpy-magnitude.smk"), "--method", "numpy-magnitude", "--space", "ip"]
    words += ["--model", "lenet-300-100", "--recipe", "epochs=1", "--recipe", "train_examples=100"]
    assert main(["run", *words]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "ipbench exchange" in said and "Snakemake" in said
    assert not list(tmp_path.rglob("*.*"))
    assert main(["exchange", *words]) == 0
    place = Path(capsys.readouterr().out.strip())
    scores = place / "numpy-magnitude.safetensors"
    subprocess.run([sys.executable, str(EXAMPLE / "numpy_magnitude.py"), str(place)], check=True, timeout=120)
    with safe_open(scores, "np") as file:
        values = [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118
    assert values and all(isinstance(value, np.ndarray) and (value >= 0).all() for value in values)
    assert main(["run", *words]) == 0
    assert len(list(Path("results/single/runs").rglob("*.json"))) == 1
    assert main(["exchange", *words]) == 0 and not scores.exists()  # they are of what was there before


def test_another_method_has_nothing_to_exchange(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["exchange", "--method", "snip", "--out", str(tmp_path / "out")]) == 2
    assert "method snip: is no rule" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_trained_net_is_scored(tmp_path: Path) -> None:
    path = write(tmp_path / "later.smk", "# continues: dense\n" + RULE)
    methods.load([path])
    scored = Scored(tmp_path / "out", method="later")
    dense = execute(scored.run.model_copy(update={"method": "dense", "sparsity": "0"}), tmp_path / "out", Environment())
    drawn, layer = scored.net.coefficients, next(iter(scored.net.masks))
    trained = scored.tensors("coefficients")
    assert dense["status"] == "done" and not torch.equal(trained[layer], drawn[layer])
    save_file({name: c.abs() for name, c in trained.items()}, scores_path(tmp_path / "out", scored.run))
    record = execute(scored.run, tmp_path / "out", Environment())
    tuned = execute(scored.run.model_copy(update={"method": "ft"}), tmp_path / "out", Environment())
    assert record["outcome"]["weights_sha256"] == tuned["outcome"]["weights_sha256"]


# With Snakemake.


def with_example(checkout: Checkout, **changes: object) -> Path:
    """The example beside the tiny experiment; returns its folder."""
    shutil.copytree(EXAMPLE, checkout.folder / "mine")
    recipe = {"epochs": 1, "train_examples": 200}
    checkout.write(**{"methods": ["magnitude", "mine/numpy-magnitude.smk"], "seeds": 1, "recipe": recipe, **changes})
    return checkout.folder / "mine"


@pytest.mark.workflow
def test_the_example_gives_the_masks_of_magnitude(checkout: Checkout) -> None:
    mine = with_example(checkout)
    checkout.done("--until", "run")
    records = [json.loads(path.read_text()) for path in checkout.results.glob("runs/*/*.json")]
    masks = {(one["run"]["method"], one["run"]["space"]): one["outcome"]["masks_sha256"] for one in records}
    assert len(masks) == 4
    for space in ("sp", "ip"):
        assert masks["numpy-magnitude", space] == masks["magnitude", space]
    assert masks["magnitude", "sp"] != masks["magnitude", "ip"]
    code = code_of_rules(mine / "numpy-magnitude.smk").sha256
    assert {one["run"]["method"]: one["provenance"].get("method") for one in records} == {
        "magnitude": None,
        "numpy-magnitude": code,
    }
    assert not list(checkout.results.glob("exchange/*/*/net.safetensors"))  # temporary
    assert checkout.planned("--until", "run") == {}
    program = mine / "numpy_magnitude.py"
    program.write_text(f"{program.read_text()}# more\n")
    assert checkout.planned("--until", "run") == {"exchange": 2, "numpy_magnitude": 2, "run": 2}


@pytest.mark.workflow
@pytest.mark.parametrize(
    ("rule", "text", "words"),
    [
        ("run", RULE, ["mine/mine.smk", "there is a rule run already"]),
        ("mine", RULE.replace('output: "', 'output: "x",\n    params: "'), ["mine/mine.smk", "no rule of it has the"]),
    ],
)
def test_a_rule_that_does_not_fit_the_workflow_is_one_line(
    checkout: Checkout, rule: str, text: str, words: list[str]
) -> None:
    write(checkout.folder / "mine/mine.smk", text, rule)
    checkout.write(methods=["mine/mine.smk"])
    one_line(checkout.snakemake("--dry-run"), words)


@pytest.mark.parametrize(
    ("variables", "own"),
    [
        ({}, True),
        ({"CONDA_PREFIX": "{folder}/ours"}, True),
        ({"CONDA_PREFIX": "{folder}/theirs"}, False),
        ({"LOADEDMODULES": "python"}, False),
        ({"APPTAINER_CONTAINER": "/x.sif"}, False),
        ({"SINGULARITY_CONTAINER": "/x.sif"}, False),
    ],
)
def test_an_environment_of_a_rule_brings_its_own_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], own: bool
) -> None:
    for name in ("CONDA_PREFIX", "LOADEDMODULES", "APPTAINER_CONTAINER", "SINGULARITY_CONTAINER"):
        monkeypatch.delenv(name, raising=False)
    text = (ROOT / "workflow/rules/experiment.smk").read_text()
    found = re.search(r"^def prefix\(.*?^    return .*?$", text, re.DOTALL | re.MULTILINE)
    assert found
    known: dict[str, Callable[[str, str], str]] = {}
    exec(found[0], {"os": os, "shlex": shlex, "Path": Path}, known)  # type: ignore[arg-type]
    for name in ("file.yaml", "ours.yaml", "theirs.yaml"):
        (tmp_path / name).write_text("theirs" if name == "theirs.yaml" else "ours")
    before = known["prefix"]("/opt/{own}/bin/python", str(tmp_path / "file.yaml")).format()
    said = subprocess.run(
        ["bash", "-c", f"{before} echo $PATH"], timeout=30, capture_output=True, text=True, check=True,
        env={"PATH": os.environ["PATH"], **{key: value.format(folder=tmp_path) for key, value in variables.items()}},
    ).stdout  # fmt: skip
    assert said.startswith("/opt/{own}/bin:") == own
