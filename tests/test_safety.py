"""Nothing read from disk is executed; names never become commands; archives stay in their folder."""

from __future__ import annotations

import ast
import hashlib
import io
import os
import pickle
import re
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from ipbench import store
from ipbench.cli.main import main
from ipbench.data import beton, sources
from ipbench.planning import plain_yaml
from tests.bad_input.refusing import check, everything, lay
from tests.bad_input.test_products import TRAIN, YAML
from tests.workflow.conftest import Checkout, check_out

ROOT = Path(__file__).parents[1]
PYTHON = [*sorted((ROOT / "ipbench").rglob("*.py")), *sorted((ROOT / "benchmarks").glob("*.py"))]
WORKFLOW = [ROOT / "Snakefile", *sorted((ROOT / "workflow").rglob("*.smk"))]
SHELL = [ROOT / "Makefile", ROOT / ".ci/run"]
YAMLS = [*sorted((ROOT / "config").glob("*.yaml")), *sorted((ROOT / "profiles").glob("*/*.yaml"))]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


#: Python's own (`net.eval()` is another one), and functions that run or unpickle what they are given, of any module.
BUILTINS = {"eval", "exec", "compile", "__import__"}
CALLS = {
    "system", "popen", "getoutput", "getstatusoutput", "unsafe_load",
    "unsafe_load_all", "full_load", "read_pickle", "to_pickle", "runpy", "run_path",
}  # fmt: skip
#: Those of modules whose other functions of that name are harmless.
LOADS = {"torch.load", "torch.jit.load", "torch.hub.load", "yaml.load", "yaml.load_all", "np.load", "numpy.load"}
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "runpy", "pty"}


@pytest.mark.parametrize("path", PYTHON, ids=relative)
def test_no_python_unpickles_evaluates_or_calls_a_shell(path):
    tree = ast.parse(path.read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for call in calls:
        name = ast.unparse(call.func)
        assert name not in BUILTINS | LOADS, f"line {call.lineno}: {name}"
        assert name.rpartition(".")[2] not in CALLS, f"line {call.lineno}: {name}"
        for keyword in call.keywords:
            assert keyword.arg not in ("shell", "allow_pickle"), f"line {call.lineno}: {keyword.arg}="
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
    }
    assert not imported & MODULES


@pytest.mark.parametrize("path", [*WORKFLOW, *SHELL, *YAMLS], ids=relative)
def test_no_other_file_unpickles_evaluates_or_calls_a_shell(path):
    code = re.sub(r"(^|\s)#.*", "", path.read_text())
    words = (
        r"pickle|torch\.load|\beval\b|\bexec\(|yaml\.(unsafe_|full_)?load\b|shell=True|os\.system|os\.popen|!!python"
    )
    assert not re.search(words, code)


#: What stands in a command without quotes, and what in the workflow makes that right.
UNQUOTED = {
    "threads": r"\{threads\}",  # Snakemake's own number
    "params.arguments": r"shlex\.join\(job_of\(wildcards\)\.arguments\)",
    "params.places": r"def exchange_places\(wildcards, output\):\n.*\n    return shlex\.join\(",
    "params.start": r"def start\(gpu, threads\):\n.*\n    return shlex\.join\(",
    "params.blocks": r"blocks=f\"seeds_per_job=\{SEEDS_PER_JOB\}",  # whole numbers, checked
}


def test_job_scripts_quote_everything():
    found = set()
    for path in WORKFLOW:
        for block in re.findall(r'^    shell:\n((?:        ".*"\n|        f".*"\n)+)', path.read_text(), re.MULTILINE):
            found |= set(re.findall(r"\{([^{}]+)\}", block))
    bare = {name for name in found if not name.endswith(":q")}
    assert bare <= set(UNQUOTED)
    text = "".join(path.read_text() for path in WORKFLOW)
    for name in bare:
        assert re.search(UNQUOTED[name], text), name
    assert len(found) >= 8  # it does read them
    shells = sum(len(re.findall(r"^    shell:", path.read_text(), re.MULTILINE)) for path in WORKFLOW)
    blocks = sum(len(re.findall(r'^    shell:\n        f?"', path.read_text(), re.MULTILINE)) for path in WORKFLOW)
    assert shells == blocks > 5


def test_yaml_makes_plain_values_only():
    assert issubclass(plain_yaml._Loader, yaml.SafeLoader)
    for text in ("!!python/object/apply:os.system ['touch pwned']", "!!python/name:os.system", "!!map {a: b}", "&a 1"):
        with pytest.raises(plain_yaml.NotPlain):
            plain_yaml.read(text)


class Evil:
    """Makes a file named `pwned` where it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch pwned",)


def a_checkpoint() -> bytes:
    file = io.BytesIO()
    torch.save({"state_dict": Evil()}, file)
    return file.getvalue()


def an_array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([Evil()], dtype=object), allow_pickle=True)
    return file.getvalue()


EVIL = {"pickle": lambda: pickle.dumps(Evil()), "torch": a_checkpoint, "npy": an_array}


def test_the_evil_ones_are_evil(tmp_path, monkeypatch):
    """Or the tests below could not fail."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pt").write_bytes(a_checkpoint())
    (tmp_path / "x.npy").write_bytes(an_array())
    for load in (
        lambda: pickle.loads(pickle.dumps(Evil())),
        lambda: torch.load("x.pt", weights_only=False),
        lambda: np.load("x.npy", allow_pickle=True),
    ):
        load()
        (tmp_path / "pwned").unlink()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A results folder with a dense run and its end."""
    place = tmp_path_factory.mktemp("trained")
    lay(place, {"x.yaml": YAML})
    assert main(["grid", str(place / "x.yaml"), "--out", str(place / "r/grid.json")]) == 0
    assert main(["run", "--method", "dense", *TRAIN.split(), "--keep", "--out", str(place / "r")]) == 0
    return place / "r"


PLACES = {
    # what it is given as: where it lies, and the command that reads it
    "record": ("r/runs/{cell}/0.json", f"run --method dense {TRAIN} --out r"),
    "state": ("r/state/{cell}/0.safetensors", f"run --method dense {TRAIN} --out r"),
    "end": ("r/ends/{cell}/0.safetensors", f"run --method ft --sparsity 0.5 {TRAIN} --out r"),
    "end-packed": ("r/ends/{cell}/0.safetensors", "pack r/runs/{cell}/0.json --out o"),
    "grid": ("r/grid.json", "collect r"),
    "parquet": ("r/runs.parquet", "summary r"),
    "packed-net": ("p", "unpack p --out o"),
    "experiment": ("x.yaml", "grid x.yaml"),
    "idx": ("data/MNIST/raw/train-images-idx3-ubyte", "run --dataset mnist"),
    "cifar": ("data/cifar-10-batches-bin/data_batch_1.bin", "run --dataset cifar10"),
    # The official Python version of CIFAR is made of pickles, and old torchvisions made one of MNIST: neither is read.
    "cifar-py": ("data/cifar-10-batches-py/data_batch_1", "run --dataset cifar10"),
    "mnist-processed": ("data/MNIST/processed/training.pt", "run --dataset mnist"),
    "tiny-imagenet": ("data/tiny-imagenet-200/train/n0/images/a.JPEG", "run --dataset tiny-imagenet"),
    "beton": ("data/beton/digits-train.beton", "run --loader ffcv"),
}


@pytest.mark.parametrize("kind", EVIL)
@pytest.mark.parametrize("place", PLACES)
def test_a_malicious_file_is_not_executed(place, kind, trained, tmp_path, monkeypatch, capfd):
    if place == "beton" and beton.available() is not None:
        pytest.skip("FFCV is not installed")
    monkeypatch.chdir(tmp_path)
    if "r/" in PLACES[place][0]:
        shutil.copytree(trained, "r")
    cell = next(trained.glob("runs/*")).name
    path, command = (text.format(cell=cell) for text in PLACES[place])
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(EVIL[kind]())
    if place == "state":
        Path(f"r/runs/{cell}/0.json").unlink()
    if place == "beton":  # even if somebody gives it the checksum that it needs
        facts = {"dataset": "digits", "split": "train", "count": 1500, "shape": [1, 8, 8]}
        store.write_json(Path(path).with_suffix(".json"), {**facts, "sha256": "0" * 64})
    before = everything(tmp_path)
    capfd.readouterr()
    data = ["--data", str(tmp_path / "data")] if command.startswith("run --") and path.startswith("data") else []
    code = main([*command.split(), *data])
    captured = capfd.readouterr()
    check(code, captured.out, captured.err, [])
    assert everything(tmp_path) == before and not Path("pwned").exists()


def tar_of(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for entry in ("good.bin", name):
            info = tarfile.TarInfo(entry)
            info.size, info.type, info.linkname = 0, kind if entry == name else tarfile.REGTYPE, target
            tar.addfile(info)
    return file.getvalue()


def zip_of(name: str, mode: int = 0o100644) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("good.bin", "x")
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, "/etc/passwd")
    return file.getvalue()


ARCHIVES = {
    "tar-up": ("a.tar.gz", tar_of("../pwned"), "../pwned"),
    "tar-inside-up": ("a.tar.gz", tar_of("x/../../pwned"), "x/../../pwned"),
    "tar-absolute": ("a.tar.gz", tar_of("/tmp/ipbench-pwned"), "/tmp/ipbench-pwned"),
    "tar-link": ("a.tar.gz", tar_of("link", tarfile.SYMTYPE, "/etc"), "link"),
    "tar-hard-link": ("a.tar.gz", tar_of("link", tarfile.LNKTYPE, "../x"), "link"),
    "tar-device": ("a.tar.gz", tar_of("device", tarfile.CHRTYPE), "device"),
    "tar-cut": ("a.tar.gz", tar_of("x" * 90)[:-30], "a.tar.gz"),
    "tar-none": ("a.tar.gz", b"hello", "a.tar.gz"),
    "zip-up": ("a.zip", zip_of("../pwned"), "../pwned"),
    "zip-absolute": ("a.zip", zip_of("/tmp/ipbench-pwned"), "/tmp/ipbench-pwned"),
    "zip-backslash": ("a.zip", zip_of("..\\pwned"), "pwned"),
    "zip-link": ("a.zip", zip_of("link", 0o120777), "link"),
    "zip-none": ("a.zip", b"hello", "a.zip"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_that_climbs_out_is_not_unpacked(name, tmp_path, monkeypatch, capfd):
    """Even one with the right checksum: that is the first of two locks."""
    file, content, says = ARCHIVES[name]
    lay(tmp_path, {f"work/data/{file}": content})
    download = sources.Download(file, hashlib.md5(content).hexdigest(), (f"http://127.0.0.1:9/{file}",), "")
    monkeypatch.setattr(sources, "downloads", lambda name: [download])
    monkeypatch.chdir(tmp_path / "work")
    before = everything(tmp_path)
    capfd.readouterr()
    code = main(["data", "fetch", "cifar100"])
    captured = capfd.readouterr()
    check(code, captured.out, captured.err, [file, says, "delete"])
    assert everything(tmp_path) == before and not Path("/tmp/ipbench-pwned").exists()


def test_a_link_in_a_results_folder_is_replaced_not_followed(trained, tmp_path):
    results = tmp_path / "r"
    shutil.copytree(trained, results)
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (results / "tables").mkdir()
    for path in ("tables/accuracy.csv", "runs.parquet"):
        (results / path).symlink_to(precious)
    assert main(["tables", str(results)]) == 0
    assert precious.read_text() == "mine"
    assert not (results / "tables/accuracy.csv").is_symlink() and not (results / "runs.parquet").is_symlink()


METHOD = '''
from ipbench.methods import before_training, method


@method(when=before_training, paper="Nobody, 2026")
def mine(net, batch, *, note: str = "none"):
    """Random, with a word that does nothing."""
    return {name: net.uniform(name) for name in net.coefficients}
'''
NASTY = """it's "quoted"; $(touch pwned1) `touch pwned2` & touch pwned3 | {wildcards} \\ * ~ #"""


@pytest.mark.workflow
def test_names_with_blanks_quotes_and_commands_are_words_only(tmp_path):
    """A real grid whose checkout, results, experiment, method file and option all look like commands."""
    folder = tmp_path / "a check'out; $(touch pwned4)"
    folder.mkdir()
    checkout: Checkout = check_out(folder)
    disk = tmp_path / "a disk $(touch pwned5)"
    disk.mkdir()
    (folder / "results").symlink_to(disk)
    file = Path("my methods") / "it's; $(touch pwned6) `touch pwned7`.py"
    lay(folder, {str(file): METHOD})
    (folder / "config").mkdir(exist_ok=True)
    experiment = "config/an experiment's $(touch pwned8).yaml"
    settings = {
        "name": "tiny", "datasets": "digits", "models": "lenet-300-100", "sparsities": 0.5, "spaces": "sp", "seeds": 1,
        "recipe": {"epochs": 1, "train_examples": 200, "warmup": 0},
        "methods": [{"name": "mine", "file": str(file), "note": NASTY}],
    }  # fmt: skip
    (folder / experiment).write_text(yaml.safe_dump(settings))
    done = subprocess.run(
        checkout.command("--until", "run", "grid", config=experiment),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = (disk / "tiny/runs").glob("*/0.json")
    read = store.read_json(record)
    assert read["status"] == "done" and read["run"]["options"] == {"note": NASTY}
    assert record.parent.name in (disk / "tiny/grid.json").read_text()  # the job trained what was planned
    assert not list(tmp_path.rglob("pwned*"))
