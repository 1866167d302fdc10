"""The end of jobs learned from a real accounting database, on a cluster whose controller soon forgets them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.slurm import accounting
from tests.slurm.calls import Call, Laid, Submit, refused, same_as_undisturbed
from tests.slurm.cluster import Cluster, slurm
from tests.slurm.scenarios import in_the_middle

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
    """One of the jobs fails after a signal, like one that comes to its time limit, and is sent again."""
    refused(submit(laid("forgotten")), "after 2 s (MinJobAge=2)", "set slurm-status-command: sacct there")
    call = submit(
        laid("accounted", slow=True), "--set-threads", "run=1", "--until", "run", "--slurm-status-command", "sacct",
        IPBENCH_TEST_PAUSE="0.3",
    )  # fmt: skip
    in_the_middle(call)
    signalled, other = sorted(call.jobs)
    slurm("scancel", "--signal=TERM", signalled)
    call.finish(seconds=300)
    said = slurm("sacct", "--allocations", "--noheader", "--parsable2", "--format=JobIdRaw,State", "--name", call.name)
    states = dict(line.split("|") for line in said.splitlines())
    assert states.pop(signalled) == "FAILED" and states.pop(other) == "COMPLETED", said
    assert list(states.values()) == ["COMPLETED"], said  # the first, sent again
    same_as_undisturbed(call, undisturbed)
    assert call.steps_of_runs() == undisturbed.steps_of_runs(), "a step was trained twice, or is missing"
