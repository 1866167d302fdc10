"""The workflow's files by themselves: style, and a description of every key an experiment may have."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import yaml
from pydantic import BaseModel

from ipbench.planning.axes import Axes
from ipbench.spec import Augmentation, Basis, Recipe
from tests.workflow.conftest import ROOT

pytestmark = pytest.mark.workflow


def test_snakemake_finds_nothing_to_complain_about() -> None:
    command = [sys.executable, "-m", "snakemake", "--lint", "--configfile", "config/quickstart.yaml"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stdout + process.stderr


def test_snakefiles_are_formatted() -> None:
    command = [sys.executable, "-m", "snakefmt", "--line-length", "120", "--check", "Snakefile", "workflow"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize("kind", [Axes, Recipe, Augmentation, Basis])
def test_the_readme_of_experiments_names_every_key(kind: type[BaseModel]) -> None:
    words = set(re.findall(r"`(\w+)`", (ROOT / "config/README.md").read_text()))
    assert set(kind.model_fields) <= words


def test_constraints_name_versions_only() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert len(lines) > 100
    assert all(re.fullmatch(r"[a-z0-9._-]+==[\w.+!]+( ; .+)?", line) for line in lines)


def test_hooks_are_checks_of_make_lint_and_fetch_nothing() -> None:
    lint = (ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    (place,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert place["repo"] == "local" and len(place["hooks"]) == 4
    for hook in place["hooks"]:
        assert hook["language"] == "system"
        words = hook["entry"].removeprefix(".venv/bin/").removesuffix(" --force-exclude")
        assert f"$(BIN)/{words}" in lint, words


def test_the_link_for_the_profile_is_there() -> None:
    assert (ROOT / "slurm/profile.yaml").samefile(ROOT / "profiles/slurm/profile.yaml")
