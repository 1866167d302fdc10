"""Fixtures that several test files share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ipbench import methods
from ipbench.data import catalog as datasets
from ipbench.data.loaders import Batch
from ipbench.methods._method import REGISTRY
from ipbench.models import catalog as models
from ipbench.runs import building
from ipbench.runs import state as resume
from ipbench.sparse.net import SparseNet
from tests.several import Several, several
from tests.tiny import builder, make_run, tiny_conv

#: The files that take longest. They come first, so that of several workers none has a long one left for the end.
LONGEST_FIRST = (
    "workflow/test_workflow.py", "faults/test_snakemake.py", "test_distributed.py", "faults/test_killed_trainings.py",
    "faults/test_full_disk.py", "test_together.py", "workflow/test_jobs.py", "faults/test_damaged_products.py",
    "faults/test_divergence.py", "test_stopping.py", "analysis/test_figures.py", "test_running.py", "test_cli.py",
    "workflow/test_cluster_check.py", "test_lease.py", "structured/test_group_fisher.py", "structured/test_soft.py",
    "test_detectors.py", "test_detection_runs.py", "test_detection.py", "workflow/test_own.py",
)  # fmt: skip


#: Files whose tests start, kill or join processes; with those that drive Snakemake they are `make test-processes`.
OF_PROCESSES = (
    "faults/test_damaged_products.py", "faults/test_divergence.py", "faults/test_full_disk.py",
    "faults/test_killed_trainings.py", "test_distributed.py", "test_together.py", "test_updaters_together.py",
    "api/test_together.py", "test_stopping.py", "test_lease.py", "bad_input/test_processes.py",
)  # fmt: skip


@pytest.hookimpl(tryfirst=True)  # before -m looks at marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    apart, structured = {Path(__file__).parent / name for name in OF_PROCESSES}, Path(__file__).parent / "structured"
    for item in items:
        if item.path.parent == structured:
            item.add_marker("structured")
        if item.path in apart or item.get_closest_marker("workflow"):
            item.add_marker("processes")
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--method-file", action="append", default=[], help="put the methods of this file under the contract test too"
    )
    parser.addoption("--write-golden", action="store_true", help="write tests/golden anew instead of comparing")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "registered_method" in metafunc.fixturenames:
        methods.load(metafunc.config.getoption("--method-file"))
        metafunc.parametrize("registered_method", list(methods.methods().values()), ids=lambda entry: entry.name)


@pytest.fixture(scope="session")
def processes() -> Iterator[Several]:
    """Starts processes that train together."""
    with several() as found:
        yield found


@pytest.fixture(scope="module", autouse=True)
def nothing_of_users() -> Iterator[None]:
    """The models and data sets of users that the tests of a file have named are known to no other file."""
    yield
    datasets.OWN.clear()
    models.OWN.clear()


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """The methods that a test registers are gone afterwards, and the modules of their files."""
    before, modules = methods.methods(), set(sys.modules)
    yield
    REGISTRY.clear()
    REGISTRY.update(before)
    for name in set(sys.modules) - modules:
        if name.startswith("ipbench_method_"):
            del sys.modules[name]


@pytest.fixture
def tiny_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model is `tiny_conv`: 224 weights, in `ip` two FBs with 162 entries."""
    monkeypatch.setattr(building, "build_model", builder(tiny_conv))


@pytest.fixture
def every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A state is saved after every epoch, however quick it was."""
    monkeypatch.setattr(resume, "SECONDS_BETWEEN_STATES", 0.0)


@pytest.fixture
def pair() -> Callable[..., tuple[SparseNet, SparseNet]]:
    """Builds the same net in sp and in ip."""

    def build(net: Callable[[], nn.Module] = tiny_conv, shape: tuple[int, int, int] = (2, 6, 6), **values: Any):
        basis = {"basis": values.pop("basis")} if "basis" in values else {}
        return (
            SparseNet(net(), make_run(space="sp", **values), shape),
            SparseNet(net(), make_run(space="ip", **basis, **values), shape),
        )

    return build


@pytest.fixture
def batch() -> Batch:
    """Eight random images of shape (2, 6, 6) and labels of three classes."""
    generator = torch.Generator().manual_seed(1)
    return Batch(torch.randn(8, 2, 6, 6, generator=generator), torch.arange(8) % 3)
