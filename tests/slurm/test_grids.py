"""Grids on a real SLURM: what is asked of it, and that what comes out equals a local call or an undisturbed one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

import pytest

from ipbench.analysis.plan import plan_tables
from tests.slurm.calls import Call, left_over, outcomes, same_as_undisturbed
from tests.slurm.scenarios import Seen
from tests.workflow.conftest import Checkout

pytestmark = pytest.mark.slurm

STEPS_OF_AN_EPOCH = 9


@pytest.mark.scenario("quiet")
def test_a_grid_equals_that_of_a_local_call(seen: Seen, local: Callable[..., Checkout]) -> None:
    results = seen.call.checkout.results
    assert all((results / path).stat().st_size for path in plan_tables(json.loads((results / "grid.json").read_text())))
    assert "paired by seed" in (results / "snakemake-report.html").read_text()
    assert "IP against SP" in (results / "report.html").read_text()
    records = outcomes(seen.call.checkout)
    assert len(records) == 4
    assert records == outcomes(local("local", "--set-threads", "run=4", "--until", "run"))


@pytest.mark.scenario("quiet")
def test_what_the_profile_asks_for(seen: Seen) -> None:
    assert len(seen.jobs) == 2
    for job in seen.jobs.values():
        assert job["JobState"] == "COMPLETED"
        assert job["TimeLimit"] == "04:00:00"
        assert job["MinMemoryNode"] in ("16000M", "15.62G")
        assert job["CPUs/Task"] == "4"
        assert job["Requeue"] == "1"
        assert job["TresPerJob"] == "gres:gpu:1" and "TresPerNode" not in job
        assert job["Comment"].startswith("rule_run")
    assert {job["NodeList"] for job in seen.jobs.values()} <= {"n1", "n2"}


@pytest.mark.scenario("clock_ahead")
def test_the_other_spelling_of_gpus(seen: Seen) -> None:
    assert len(seen.jobs) == 2
    for job in seen.jobs.values():
        assert job["TresPerNode"] == "gres:gpu:1" and "TresPerJob" not in job
        assert (job["TimeLimit"], job["CPUs/Task"]) == ("00:30:00", "1")


@pytest.mark.scenario("requeued")
def test_a_requeued_job_goes_on_where_it_was(seen: Seen, undisturbed: Call) -> None:
    assert {job["JobState"] for job in seen.before.values()} == {"RUNNING"}
    assert seen.jobs.keys() == seen.before.keys()  # the same jobs: nothing was submitted again
    assert {job["Restarts"] for job in seen.jobs.values()} == {"1"}
    same_as_undisturbed(seen.call, undisturbed)
    assert seen.call.steps_of_runs() == undisturbed.steps_of_runs(), "a step was trained twice, or is missing"


@pytest.mark.scenario("node_failed")
def test_a_failed_node_costs_what_was_not_saved(seen: Seen, undisturbed: Call) -> None:
    assert {job["NodeList"] for job in seen.before.values()} == {"n3"}
    assert seen.jobs.keys() == seen.before.keys()
    assert {(job["Restarts"], job["NodeList"]) for job in seen.jobs.values()} == {("1", "n1")}
    same_as_undisturbed(seen.call, undisturbed)
    assert 0 < len(seen.call.steps()) - len(undisturbed.steps()) <= 2 * 3 * STEPS_OF_AN_EPOCH  # less than a minute


@pytest.mark.scenario("timed_out")
def test_a_time_limit_loses_no_step(seen: Seen, undisturbed: Call) -> None:
    """SIGTERM some seconds before: the state is saved, the job ends with 75, and Snakemake sends it again."""
    assert seen.saved
    ended = Counter((job["JobState"], job["ExitCode"]) for job in seen.jobs.values())
    assert ended["COMPLETED", "0:0"] == 1
    assert ended["FAILED", "1:0"] == ended.total() - 1 >= 1
    assert "Trying to restart job" in seen.call.text
    assert "ipbench: stopped by SIGTERM; what is trained is saved: the same call goes on there" in seen.call.text
    same_as_undisturbed(seen.call, undisturbed, cells=1)
    assert seen.call.steps_of_runs().items() <= undisturbed.steps_of_runs().items(), "a step was trained twice"


@pytest.mark.scenario("clock_ahead")
def test_a_clock_ahead_changes_nothing(seen: Seen, local: Callable[..., Checkout]) -> None:
    checkout = seen.call.checkout
    assert {job["JobState"] for job in seen.jobs.values()} == {"COMPLETED"}
    assert len(seen.jobs) == 2  # each was sent once
    assert outcomes(checkout) == outcomes(local("clocks", "--until", "collect", methods=["ft"], spaces=["sp"]))
    assert checkout.planned("--until", "collect") == {}
    assert not left_over(checkout)


@pytest.mark.scenario("clock_behind")
def test_a_clock_behind_stops_its_jobs_and_loses_nothing(seen: Seen, undisturbed: Call) -> None:
    """Snakemake refuses outputs that seem older than their inputs. The records are there: no other call trains them."""
    assert [(job["JobState"], job["NodeList"]) for job in seen.jobs.values()] == 4 * [("FAILED", "n2")]
    assert "could indicate a clock skew problem in your network" in seen.call.text
    checkout = seen.call.checkout
    checkout.done("--until", "run")
    assert checkout.planned("--until", "run") == {}
    same_as_undisturbed(seen.call, undisturbed)
    assert seen.call.steps_of_runs() == undisturbed.steps_of_runs(), "a step was trained twice, or is missing"
