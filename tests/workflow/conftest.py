"""A checkout of the workflow in a temporary folder, and a Snakemake that works there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

from tests.workflow import snakemake_server

ROOT = Path(__file__).parents[2]

#: Two cells of two seeds, each trained in a second.
TINY: dict[str, Any] = {
    "title": "A *tiny* `grid_` | of 2",
    "datasets": "digits",
    "recipe": {"epochs": 1, "train_examples": 200},
    "methods": ["random"],
    "sparsities": [0.5],
    "spaces": ["sp", "ip"],
    "seeds": 2,
}


@dataclass(frozen=True)
class Checkout:
    """The workflow's files in a folder of their own."""

    folder: Path

    @property
    def results(self) -> Path:
        return self.folder / "results/tiny"

    def write(self, **changes: Any) -> None:
        """Write config/tiny.yaml."""
        path = self.folder / "config/tiny.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump({**TINY, **changes}))

    def command(
        self, *arguments: str, profile: str = "profiles/local", config: str | None = "config/tiny.yaml"
    ) -> list[str]:
        chosen = ["--configfile", config] if config else []
        return [sys.executable, "-m", "snakemake", "--profile", profile, *chosen, *arguments]

    def snakemake(
        self, *arguments: str, env: dict[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run Snakemake here; stdout and stderr together in `stdout`."""
        command, environment = self.command(*arguments, **options), {**os.environ, **(env or {})}
        if "PYTHONPATH" in (env or {}):  # what is there is imported when Python starts
            return subprocess.run(
                command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                timeout=600,
            )  # fmt: skip
        with tempfile.NamedTemporaryFile("r") as log:
            words = command[command.index("snakemake") + 1 :]
            code = snakemake_server.call(words, self.folder, environment, Path(log.name))
            return subprocess.CompletedProcess(command, code, stdout=log.read())

    def done(self, *arguments: str, **options: Any) -> str:
        """Run Snakemake and expect it to succeed; returns what it printed."""
        process = self.snakemake(*arguments, **options)
        assert process.returncode == 0, process.stdout
        return process.stdout

    def planned(self, *arguments: str, **options: Any) -> dict[str, int]:
        """How many jobs of each rule a dry run lists."""
        text = self.done("--dry-run", "--quiet", "rules", *arguments, **options)
        found = re.search(r"^job +count\n[- ]+\n(.*?)^total", text, re.MULTILINE | re.DOTALL)
        return {name: int(count) for name, count in map(str.split, found[1].splitlines())} if found else {}

    def files(self, pattern: str) -> dict[str, int]:
        """The files of the experiment that match, with their dates."""
        return {str(path.relative_to(self.results)): path.stat().st_mtime_ns for path in self.results.glob(pattern)}


def check_out(folder: Path) -> Checkout:
    """Lay a fresh checkout with the tiny experiment."""
    for name in ("Snakefile", "workflow", "profiles"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, folder / name)
    (folder / "slurm").symlink_to("profiles/slurm")
    checkout = Checkout(folder)
    checkout.write()
    return checkout


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """Nothing has run yet."""
    return check_out(tmp_path)


@pytest.fixture(scope="session")
def first_call(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Checkout:
    """The tiny experiment, run once, for all workers of pytest-xdist together; not to be changed."""
    base = tmp_path_factory.getbasetemp()
    place = (base if worker_id == "master" else base.parent) / "first"
    with FileLock(f"{place}.lock", timeout=600):
        if not (place / "done").exists():
            shutil.rmtree(place, ignore_errors=True)  # of a worker that failed here
            place.mkdir()
            check_out(place).done()
            (place / "done").touch()
    return Checkout(place)


@pytest.fixture
def finished(first_call: Checkout, tmp_path: Path) -> Checkout:
    """The tiny experiment is complete: a copy for each test."""
    shutil.copytree(first_call.folder, tmp_path, symlinks=True, dirs_exist_ok=True)
    return Checkout(tmp_path)
