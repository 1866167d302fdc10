"""Running a case of bad input."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ipbench import methods
from ipbench.cli.main import main
from ipbench.methods._declare import REGISTRY
from tests.bad_input.refusing import Case, check, everything, lay


@pytest.fixture
def registry() -> Iterator[None]:
    """The methods that a test registers are gone afterwards."""
    before, modules = methods.methods(), set(sys.modules)
    yield
    REGISTRY.clear()
    REGISTRY.update(before)
    for name in set(sys.modules) - modules:
        if name.startswith("ipbench_method_"):
            del sys.modules[name]


@pytest.fixture
def refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], registry: None
) -> Callable[[Case], None]:
    """Runs a case in this process, as the command `ipbench` does, and checks what it says and leaves."""

    def run(case: Case) -> None:
        lay(tmp_path, case.files)
        before = everything(tmp_path)
        monkeypatch.chdir(tmp_path)
        capfd.readouterr()
        code = main(case.words)
        captured = capfd.readouterr()
        check(code, captured.out, captured.err, case.says)
        assert everything(tmp_path) == before

    return run
