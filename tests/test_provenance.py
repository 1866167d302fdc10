"""Where a number came from, as git tells it, or why it does not."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ipbench.machine import provenance


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A repository with the package's file in it."""
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)
    file = tmp_path / "provenance.py"
    file.touch()
    monkeypatch.setattr(provenance, "__file__", str(file))
    return tmp_path


def commit_all(checkout: Path) -> None:
    for words in ("init -q", "add .", "-c user.name=a -c user.email=a@b commit -q -m x"):
        subprocess.run(["git", *words.split()], cwd=checkout, check=True, timeout=60)


def test_no_repository_is_no_commit(checkout):
    assert provenance.commit() is None


def test_a_commit(checkout):
    commit_all(checkout)
    assert len(provenance.commit() or "") == 40
    (checkout / "provenance.py").write_text("changed")
    assert (provenance.commit() or "").endswith("+changes")


def test_a_checkout_of_another_user_is_said(checkout):
    """git knows the commit, and does not tell it."""
    if os.geteuid():
        pytest.skip("only root can give files to another user")
    commit_all(checkout)
    for path in [checkout, *checkout.rglob("*")]:
        os.chown(path, 65534, 65534)
    said = provenance.commit() or ""
    assert "dubious ownership" in said and "safe.directory" in said and str(checkout) not in said
