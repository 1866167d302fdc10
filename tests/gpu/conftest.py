"""Tests that need a GPU. Run by `make test-gpu`, never by `make test`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from ipbench.runs.environment import Environment, set_mode

GPU = Environment(device="cuda")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if __package__ in item.nodeid.replace("/", "."):
            item.add_marker(pytest.mark.gpu)
            item.add_marker(pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"))


@pytest.fixture(autouse=True)
def switches() -> Iterator[None]:
    """Back to what strict runs on a CPU have."""
    yield
    set_mode("strict", Environment())
