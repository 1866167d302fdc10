"""What is refused before anything is submitted to SLURM. Its programs are mocks here: tests/slurm has real ones."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.workflow.conftest import Checkout

pytestmark = pytest.mark.workflow

NEEDED = ("bash", "sh", "which", "env", "cat", "date", "uname", "git")


class MockSlurm:
    """A folder of pretended programs that is all there is on PATH but for the shell's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for name in NEEDED:
            if found := shutil.which(name):
                (folder / name).symlink_to(found)
        self.program("sbatch", "exit 1")
        self.program("squeue", "exit 0")
        self.program("sinfo", "exit 0")
        self.cluster()

    def program(self, name: str, script: str) -> None:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\necho {name} >> {self.folder}/calls\n{script}\n")
        path.chmod(0o755)

    def cluster(self, age: str = "300 sec", storage: str = "accounting_storage/none") -> None:
        """What `scontrol show config` says."""
        self.program("scontrol", f"echo 'AccountingStorageType   = {storage}'\necho 'MinJobAge               = {age}'")

    @property
    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text().split() if path.exists() else []

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": str(self.folder)}


@pytest.fixture
def mock_slurm(tmp_path: Path) -> MockSlurm:
    return MockSlurm(tmp_path / "mocks")


def submit(checkout: Checkout, mock: MockSlurm, *arguments: str) -> subprocess.CompletedProcess[str]:
    return checkout.snakemake(*arguments, profile="slurm", env=mock.environment)


def refused(process: subprocess.CompletedProcess[str], *words: str) -> None:
    lines = [line for line in process.stdout.splitlines() if not line.startswith("Using profile")]
    assert process.returncode == 2, process.stdout
    assert len(lines) == 1, process.stdout
    assert all(word in lines[0] for word in ("slurm/profile.yaml", *words)), lines[0]


def test_without_sbatch(checkout: Checkout, mock_slurm: MockSlurm) -> None:
    (mock_slurm.folder / "sbatch").unlink()
    refused(submit(checkout, mock_slurm), "no sbatch", "login node", "profiles/local")


def test_a_controller_that_does_not_answer(checkout: Checkout, mock_slurm: MockSlurm) -> None:
    mock_slurm.program("scontrol", "echo 'Unable to contact slurm controller (connect failure)' >&2; exit 1")
    refused(submit(checkout, mock_slurm), "scontrol show config", "Unable to contact slurm controller")


def test_sacct_without_a_database(checkout: Checkout, mock_slurm: MockSlurm) -> None:
    mock_slurm.program("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    refused(
        submit(checkout, mock_slurm, "--slurm-status-command", "sacct"),
        "sacct needs an accounting database", "accounting_storage/none", "set slurm-status-command: squeue",
    )  # fmt: skip


def test_sacct_with_a_database_that_is_down(checkout: Checkout, mock_slurm: MockSlurm) -> None:
    mock_slurm.cluster(storage="accounting_storage/slurmdbd")
    mock_slurm.program("sacct", "echo 'sacct: error: Problem talking to the database' >&2; exit 1")
    refused(submit(checkout, mock_slurm, "--slurm-status-command", "sacct"), "does not answer", "Problem talking")


@pytest.mark.parametrize("age", ["0", "239"])
def test_squeue_where_jobs_are_soon_forgotten(checkout: Checkout, mock_slurm: MockSlurm, age: str) -> None:
    """Zero means never; the executor takes it for a small number and asks sacct."""
    mock_slurm.program("sacct", "exit 1")
    mock_slurm.cluster(age=f"{age} sec")
    refused(submit(checkout, mock_slurm), f"(MinJobAge={age})", "MinJobAge in slurm.conf must be 240 or more")


def test_squeue_where_sacct_would_do(checkout: Checkout, mock_slurm: MockSlurm) -> None:
    mock_slurm.program("sacct", "exit 0")
    mock_slurm.cluster(age="2 sec", storage="accounting_storage/slurmdbd")
    refused(submit(checkout, mock_slurm), "after 2 s (MinJobAge=2)", "set slurm-status-command: sacct there")


def test_squeue_with_long_intervals(checkout: Checkout, mock_slurm: MockSlurm) -> None:
    seconds = ("--slurm-init-seconds-before-status-checks", "101")
    refused(submit(checkout, mock_slurm, *seconds), "303 or more", "or slurm-init-seconds-before-status-checks smaller")
    refused(submit(checkout, mock_slurm, "--seconds-between-status-checks", "300"), "360 or more")


@pytest.mark.parametrize(
    ("command", "storage", "age"),
    [
        ("squeue", "accounting_storage/none", "240 sec"),
        ("sacct", "accounting_storage/slurmdbd", "2 sec"),
    ],
)
def test_a_cluster_that_is_as_it_should_be(
    finished: Checkout, mock_slurm: MockSlurm, command: str, storage: str, age: str
) -> None:
    mock_slurm.cluster(age, storage)
    mock_slurm.program("sacct", "exit 0")
    process = submit(finished, mock_slurm, "--slurm-status-command", command)
    assert process.returncode == 0, process.stdout
    assert "Nothing to be done" in process.stdout
    assert "scontrol" in mock_slurm.calls


def test_only_calls_that_submit_are_checked(finished: Checkout, mock_slurm: MockSlurm) -> None:
    """Looking at the plan, unlocking and local execution need no cluster."""
    (mock_slurm.folder / "sbatch").unlink()
    for argument in ("--dry-run", "--unlock"):
        process = submit(finished, mock_slurm, argument)
        assert process.returncode == 0, process.stdout
    assert "Nothing to be done" in finished.done(env=mock_slurm.environment)
    refused(submit(finished, mock_slurm), "no sbatch")
