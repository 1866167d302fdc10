"""The tests' own cluster: a SLURM that is not theirs is left alone, and nothing of theirs is left behind."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.slurm.cluster import MARK, Cluster, Refused, check_free, clear_left, missing, until

pytestmark = pytest.mark.slurm


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_CONF", raising=False)


@pytest.mark.parametrize("name", ["slurm.conf", "gres.conf", "slurmdbd.conf"])
def test_a_configuration_of_others_is_refused(tmp_path: Path, name: str) -> None:
    text = "ClusterName=production\n" if name == "slurm.conf" else f"{MARK} 1 /\n"
    (tmp_path / name).write_text(text)
    with pytest.raises(Refused, match=name):
        check_free(tmp_path)
    assert (tmp_path / name).read_text() == text


def test_a_variable_that_names_another_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", "/opt/slurm/slurm.conf")
    with pytest.raises(Refused, match=r"/opt/slurm/slurm\.conf"):
        check_free(tmp_path)


def test_daemons_of_others_are_refused(tmp_path: Path, cluster: Cluster) -> None:
    """Seen from a folder that is not that of the running cluster, its daemons are those of somebody else."""
    with pytest.raises(Refused, match="is running"):
        check_free(tmp_path)
    assert cluster.daemons["slurmctld"].poll() is None


def test_a_second_run_of_these_tests_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "ipbench-slurm-second"
    folder.mkdir()
    (tmp_path / "slurm.conf").write_text(f"{MARK} 1 {folder}\n")  # process 1 always lives
    with pytest.raises(Refused, match="process 1 is running tests/slurm"):
        check_free(tmp_path)
    assert folder.exists()


def test_what_a_killed_run_has_left_is_cleared(tmp_path: Path) -> None:
    if reason := missing():
        pytest.skip(reason)
    folder, etc = tmp_path / "ipbench-slurm-killed", tmp_path / "etc"
    for path in (folder, etc):
        path.mkdir()
    with subprocess.Popen(["sleep", "0"]) as dead:
        dead.wait()
    (etc / "slurm.conf").write_text(f"{MARK} {dead.pid} {folder}\n")
    (folder / "munge.key").write_bytes(b"k" * 128)
    (folder / "munge.key").chmod(0o400)
    command = ["munged", "-F", "--force", f"--socket={folder}/socket", f"--key-file={folder}/munge.key"]
    command += [f"--pid-file={folder}/pid", f"--seed-file={folder}/seed"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as left:
        try:
            until(lambda: (folder / "socket").exists(), 20, "munged made no socket")
            clear_left(etc)
            assert left.wait(timeout=10) == -9
        finally:
            left.kill()
    assert not folder.exists()
    assert not list(etc.iterdir())
