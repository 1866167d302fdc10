"""Files that the system does not let be read, and what is no file: never taken for damage, never waited for."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ipbench import files
from ipbench.analysis import collect
from ipbench.cli.main import main
from ipbench.data import formats, image_files, tiny_imagenet
from ipbench.store import read_json, read_tensors
from tests.bad_input.refusing import check
from tests.bad_input.test_experiments import GOOD
from tests.bad_input.test_products import TRAIN, YAML

NOBODY = 65534
RUN = f"run --method dense {TRAIN} --out r"


@pytest.fixture(scope="module")
def trained() -> Iterator[Path]:
    """A folder that others can enter: an experiment with a dense run, its end and its parquet."""
    place = Path(tempfile.mkdtemp(prefix="ipbench-"))
    place.chmod(0o755)
    (place / "x.yaml").write_text(YAML)
    assert main(["grid", str(place / "x.yaml"), "--out", str(place / "r/grid.json")]) == 0
    assert main([*shlex.split(RUN)[:-1], str(place / "r"), "--keep"]) == 0
    assert main(["collect", str(place / "r")]) == 0
    yield place
    shutil.rmtree(place)


@contextmanager
def as_nobody() -> Iterator[None]:
    """As a user to whom nothing belongs; permissions do not hold for root."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@contextmanager
def forbidden(path: Path) -> Iterator[None]:
    """A file, or a folder, that only its owner may read."""
    mode = stat.S_IMODE(path.stat().st_mode)
    path.chmod(0o600 if os.geteuid() == 0 else 0)
    try:
        yield
    finally:
        path.chmod(mode)


@pytest.fixture
def work(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(trained)
    return trained


@pytest.mark.parametrize(
    ("pattern", "command"),
    [
        ("r/runs/*/0.json", RUN),
        ("r/runs/*", RUN),
        ("r/runs/*/0.json", "pack {} --out o"),
        ("r/ends/*/0.safetensors", f"run --method ft --sparsity 0.5 {TRAIN} --out r"),
        ("r/grid.json", "tables r"),
        ("x.yaml", "grid x.yaml"),
    ],
)
def test_permission_is_no_damage(pattern, command, work, capfd):
    """Nobody is told to delete a whole file."""
    (path,) = work.glob(pattern)
    place = path.relative_to(work)
    with forbidden(path), as_nobody():
        capfd.readouterr()
        code = main(shlex.split(command.format(place)))
    captured = capfd.readouterr()
    check(code, captured.out, captured.err, [str(place), "cannot be read: Permission denied"])
    assert "delete" not in captured.err and "damaged" not in captured.err and "again" not in captured.err


def test_a_record_that_may_not_be_read_is_listed_as_that(work):
    (path,) = work.glob("r/runs/*/0.json")
    with forbidden(path), as_nobody():
        (record,) = collect.collect(work / "r").unreadable
    assert "Permission denied" in record.message and "delete" not in record.message


READERS = {
    "json": read_json,
    "tensors": read_tensors,
    "parquet": collect.read_parquet,
    "idx": formats.read_idx,
    "idx-gz": formats.read_idx,
    "cifar": lambda path: formats.read_cifar(path, 1),
    "image": image_files.decode,
}


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("what", ["pipe", "folder", "device", "loop", "forbidden"])
def test_what_is_no_readable_file_is_said_and_not_waited_for(kind, what, tmp_path, monkeypatch):
    """A pipe into which nobody writes would be read for ever."""
    path = tmp_path / f"x{'.gz' if kind == 'idx-gz' else ''}"
    says = {"pipe": "a pipe", "folder": "a folder", "device": "a device", "loop": "symbolic", "forbidden": "Permission"}
    match what:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/zero")
        case "loop":
            path.symlink_to(path)
        case "forbidden":
            path.touch()
            monkeypatch.setattr(files.os, "open", refuse)
    with pytest.raises(files.NotRead) as error:
        READERS[kind](path)
    assert str(path) in str(error.value) and says[what] in str(error.value) and "delete" not in str(error.value)


def refuse(path, *rest):
    raise PermissionError(13, os.strerror(13), str(path))


@pytest.mark.parametrize("command", ["grid x.yaml", "methods --method-file m.py"])
def test_pipes_on_the_command_line(command, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    name = command.split()[-1]
    os.mkfifo(name)
    code = main(command.split())
    captured = capfd.readouterr()
    check(code, captured.out, captured.err, [name, "not a file"])


def test_a_table_of_tiny_imagenet_that_may_not_be_read_is_not_missing(tmp_path, monkeypatch):
    (tmp_path / "train").mkdir()
    (tmp_path / "val").mkdir()
    (tmp_path / "val/val_annotations.txt").touch()
    monkeypatch.setattr(files.os, "open", refuse)
    with pytest.raises(files.NotRead, match="Permission denied"):
        tiny_imagenet.read("test", tmp_path, 64)


def test_what_the_system_refuses_is_one_line_anywhere(tmp_path, monkeypatch, capfd):
    """Of whatever command: a path that is too long, a loop of links."""
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    for words in (["tables", "x" * 5000], ["summary", "loop"], ["run", "--out", "loop/x", *TRAIN.split()]):
        code = main(words)
        captured = capfd.readouterr()
        check(code, captured.out, captured.err, [])


def test_a_mistake_of_ours_is_no_answer_of_the_system(monkeypatch):
    """An OSError without a number is none: its place must be seen."""

    def broken(*_):
        raise OSError("a library stumbled")

    monkeypatch.setattr("ipbench.methods.load", broken)
    with pytest.raises(OSError, match="stumbled"):
        main(["methods"])


def test_an_experiment_is_read_up_to_its_limit(tmp_path, capfd):
    path = tmp_path / "x.yaml"
    path.write_text("\n".join([*GOOD.values(), "# " + "x" * 2**18]))
    assert main(["grid", str(path)]) == 2
    assert "at most 262,144 can be right" in capfd.readouterr().err
