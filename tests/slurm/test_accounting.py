"""The end of jobs learned from a real accounting database, on a cluster whose controller soon forgets them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.slurm import accounting
from tests.slurm.calls import Call, Laid, Submit
from tests.slurm.cluster import Cluster, slurm
from tests.slurm.scenarios import Seen, in_the_middle
from tests.slurm.test_grids import same_as_undisturbed
from tests.slurm.test_refusals import refused

pytestmark = pytest.mark.slurm


@pytest.fixture
def accounted(alone: Cluster) -> Iterator[Cluster]:
    """The cluster, with a database; its controller forgets a finished job after some seconds."""
    if reason := accounting.missing():
        pytest.skip(reason)
    accounting.start(alone, min_job_age=2)
    yield alone
    accounting.stop(alone)


def test_sacct_tells_how_jobs_ended(accounted: Cluster, laid: Laid, submit: Submit, undisturbed: Call) -> None:
    """One of the jobs is cancelled by hand: Snakemake learns of that, too, and sends it again."""
    refused(submit(laid("forgotten")), "after 2 s (MinJobAge=2)", "set slurm-status-command: sacct there")
    call = submit(
        laid("accounted", slow=True), "--set-threads", "run=1", "--until", "run", "--slurm-status-command", "sacct",
        IPBENCH_TEST_PAUSE="0.3",
    )  # fmt: skip
    in_the_middle(call)
    cancelled, other = sorted(call.jobs)
    slurm("scancel", cancelled)
    call.finish()
    said = slurm("sacct", "--allocations", "--noheader", "--parsable2", "--format=JobIdRaw,State")
    states = dict(line.split("|") for line in said.splitlines())
    assert states.pop(cancelled).startswith("CANCELLED") and states.pop(other) == "COMPLETED"
    assert list(states.values()) == ["COMPLETED"]  # the cancelled one, sent again
    same_as_undisturbed(Seen(call), undisturbed)
    assert call.steps_of_runs() == undisturbed.steps_of_runs(), "a step was trained twice, or is missing"
