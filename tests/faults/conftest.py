"""What the tests on faults share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.commands import Experiment, Server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Starts commands without their imports."""
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="session")
def trained(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """The small experiment, all jobs run and collected, nothing drawn; not to be changed."""
    experiment = Experiment(server, tmp_path_factory.mktemp("trained"))
    experiment.write()
    experiment.train()
    experiment.run("collect", "results/tiny").ok()
    return experiment


@pytest.fixture
def copied(trained: Experiment, tmp_path: Path) -> Experiment:
    """A copy of it for each test."""
    return trained.copy(tmp_path / "copy")
