"""One cluster for all tests, and a Snakemake that submits to it. Run by `make test-slurm`, never by `make test`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait

import pytest

from tests.slurm.calls import SLOW, SLOW_GRID, SOONER, Call, Laid, Submit
from tests.slurm.cluster import Cluster, Refused, check_free, missing
from tests.slurm.scenarios import SCENARIOS, Seen
from tests.workflow.conftest import Checkout, check_out


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "scenario(name): asks for the end of a scenario of tests/slurm/scenarios.py")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster is up."""
    if reason := missing():
        pytest.skip(reason)
    try:
        check_free()
    except Refused as error:
        pytest.exit(f"tests/slurm: {error}", returncode=2)
    cluster = Cluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def submit(cluster: Cluster) -> Iterator[Submit]:
    """Start Snakemake with the profile `slurm` in a checkout; what still runs at the end is killed."""
    calls: list[Call] = []

    def start(checkout: Checkout, *arguments: str, **environment: str) -> Call:
        process = subprocess.Popen(
            checkout.command(*SOONER, *arguments, profile="slurm"),
            cwd=checkout.folder, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        calls.append(Call(checkout, process))
        return calls[-1]

    yield start
    for call in calls:
        if call.process and call.process.poll() is None:
            call.process.kill()


@pytest.fixture(scope="session")
def laid(tmp_path_factory: pytest.TempPathFactory) -> Laid:
    """Lay a fresh checkout; with `slow` the grid whose steps take their time."""

    base = tmp_path_factory.mktemp("checkouts")

    def lay(name: str, slow: bool = False) -> Checkout:
        (base / name).mkdir()
        checkout = check_out(base / name)
        # The cluster's GPUs are empty files: who asks for one trains on the CPU here, and only here.
        rules = checkout.folder / "workflow/rules/experiment.smk"
        text = rules.read_text()
        assert text.count("'cuda' if gpu else 'auto'") == 1
        rules.write_text(text.replace("'cuda' if gpu else 'auto'", "'cpu'"))
        if slow:
            (checkout.folder / "slow.py").write_text(SLOW)
            checkout.write(**SLOW_GRID)
        return checkout

    return lay


@pytest.fixture(scope="session")
def started(
    request: pytest.FixtureRequest, cluster: Cluster, laid: Laid, submit: Submit
) -> Iterator[dict[str, Future[Seen]]]:
    """The scenarios that the collected tests ask for, begun together."""
    wanted = {name for item in request.session.items for mark in item.iter_markers("scenario") for name in mark.args}
    pool = ThreadPoolExecutor(len(SCENARIOS))
    yield {name: pool.submit(run, cluster, laid, submit) for name, run in SCENARIOS.items() if name in wanted}
    pool.shutdown(wait=False, cancel_futures=True)


@pytest.fixture
def seen(request: pytest.FixtureRequest, started: dict[str, Future[Seen]]) -> Seen:
    """The end of the scenario that the test is marked with."""
    mark = request.node.get_closest_marker("scenario")
    return started[mark.args[0]].result()


@pytest.fixture
def alone(cluster: Cluster, started: dict[str, Future[Seen]]) -> Cluster:
    """The cluster, after all scenarios: what such a test changes would disturb them."""
    wait(started.values())
    return cluster


@pytest.fixture(scope="session")
def undisturbed(laid: Laid) -> Call:
    """The slow grid, trained on this machine without SLURM and without waiting."""
    checkout = laid("undisturbed", slow=True)
    checkout.done("--until", "run")
    return Call(checkout)


@pytest.fixture(scope="session")
def local(laid: Laid) -> Callable[..., Checkout]:
    """A grid, trained on this machine without SLURM."""

    def train(name: str, *arguments: str, **changes: object) -> Checkout:
        checkout = laid(name)
        checkout.write(**changes)
        checkout.done(*arguments)
        return checkout

    return train
