"""What tests of several methods share: their runs undisturbed, and the same stopped again and again."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from ipbench.machine import stopping
from ipbench.runs import state as states
from ipbench.runs.environment import Environment
from ipbench.runs.execute import execute
from ipbench.runs.records import end_path, record_path
from ipbench.runs.state import read_end
from ipbench.spec import Run
from ipbench.store import read_json
from tests.test_stopping import stop_at


@pytest.fixture(scope="module")
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Records and ends of the runs that the file's `run_of` names, undisturbed."""
    folder = tmp_path_factory.mktemp("whole")

    @cache
    def result(name: str) -> tuple[dict[str, Any], Any]:
        run = request.module.run_of(name)
        return execute(run, folder, Environment(), keep=True), read_end(end_path(folder, run), run)

    return result


@pytest.fixture
def in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Run, int], tuple[dict[str, Any], int]]:
    """Trains a run to its end, stopped each time it asks so often whether to stop; its record, and how many stops."""
    monkeypatch.setattr(states, "SECONDS_BETWEEN_STATES", 0.0)

    def train(run: Run, call: int = 4) -> tuple[dict[str, Any], int]:
        stops = 0
        while not record_path(tmp_path, run).exists():
            torch.manual_seed(0)
            with monkeypatch.context() as patch:
                stop_at(patch, call)
                try:
                    execute(run, tmp_path, Environment())
                except stopping.Stopped:
                    stops += 1
        return read_json(record_path(tmp_path, run)), stops

    return train
