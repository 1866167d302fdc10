"""Every command, Python block and experiment in the documents is run, or says in a comment before it why it is not."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ipbench.cli.main import app
from ipbench.planning.experiment import Experiment
from tests.docs.blocks import PAGES, ROOT, Block, blocks

#: What the mark of a block begins with that is not run; then comes why.
NOT_RUN = "not run in tests: "


def kind(block: Block) -> str:
    if block.commands:
        return "commands"
    return block.language if block.language in ("python", "yaml") else "text"


def chosen(*kinds: str) -> list[Any]:
    found = [block for page in PAGES for block in blocks(page) if kind(block) in kinds]
    return [pytest.param(block, id=f"{block.page}:{block.line}") for block in found]


@pytest.mark.parametrize("block", chosen("commands", "python", "yaml", "text"))
def test_a_mark_is_one_that_is_known(block: Block) -> None:
    assert not block.mark or block.mark.startswith(NOT_RUN), block.mark


@pytest.mark.parametrize("block", [p for p in chosen("commands") if p.values[0].mark.startswith(NOT_RUN)])
def test_what_is_not_run_names_what_exists(block: Block) -> None:
    names = {command.name or command.callback.__name__ for group in groups() for command in group.registered_commands}
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for command in block.commands:
        words = shlex.split(command)
        program = Path(words[0]).name
        assert program in ("ipbench", "make", "snakemake", "python", "pip", "uv", "tmux"), command
        if program == "ipbench":
            assert words[1] in {*names, "data"}, command
        if program == "make":
            assert words[1] in targets, command
        for file in re.findall(r"config/[\w-]+\.yaml", command):
            assert "NAME" in file or (ROOT / file).is_file(), command


def groups() -> list[Any]:
    return [app, *(group.typer_instance for group in app.registered_groups if group.typer_instance)]


@pytest.fixture(scope="module", params=[page for page in PAGES if blocks(page)])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A page, and a folder like a clone in which all of its blocks are run, one after the other."""
    folder = tmp_path_factory.mktemp("clone")
    for name in (".venv", "config", "docs", "profiles", "workflow", "Snakefile", "tests", "benchmarks"):
        if (ROOT / name).exists():
            (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "examples", folder / "examples")
    (folder / "slurm").symlink_to("profiles/slurm")
    (folder / "results").mkdir()
    (folder / "results/reference").symlink_to(ROOT / "results/reference")
    return request.param, folder


@pytest.mark.docs
def test_what_a_page_says_works(page: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    name, folder = page
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(name):
        if block.mark:
            continue
        if block.language == "python":
            run_python(block, folder, names)
        elif block.language == "yaml":
            file = folder / "example.yaml"
            file.write_text(block.text)
            Experiment.load(file)
        for command in block.commands:
            run_command(command, folder, f"{name}:{block.line}")


def run_python(block: Block, folder: Path, names: dict[str, Any]) -> None:
    """A first line like `# mine/gradient.py` is the name of a file, which the commands behind it run."""
    if found := re.match(r"# ([\w/]+\.py)\n", block.text):
        (folder / found[1]).parent.mkdir(exist_ok=True)
        (folder / found[1]).write_text(block.text)
        return
    exec(compile(block.text, f"{block.page}:{block.line}", "exec"), names)


def run_command(command: str, folder: Path, where: str) -> None:
    """CELL and SEED are those of the last record, NAME is the quickstart's."""
    command = command.replace("NAME", "quickstart")
    if "CELL" in command:
        records = sorted(folder.glob("results/single/runs/*/*.json"), key=lambda file: file.stat().st_mtime)
        command = command.replace("CELL", records[-1].parent.name).replace("SEED", records[-1].stem)
    environment = {**os.environ, "PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        shlex.split(command), cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )  # fmt: skip
    assert done.returncode == 0, f"{where}: {command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
