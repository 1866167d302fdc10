"""Running a case of bad input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ipbench.cli.main import main
from tests.bad_input.refusing import Case, check, everything, lay


@pytest.fixture
def refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
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
