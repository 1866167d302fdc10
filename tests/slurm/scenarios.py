"""What happens to a grid on the cluster: calls of Snakemake that run at the same time, for they mostly wait.

Each is a function that starts a call, does what its name says, waits for the end and returns what it has seen.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.slurm.calls import SLOW_GRID, Call, Laid, Submit
from tests.slurm.cluster import Cluster, slurm, until

#: Seconds by which a clock is wrong.
SKEW = 7200


@dataclass
class Seen:
    """A call that has ended. SLURM forgets its jobs some minutes later, so they are looked at here.

    Attributes:
        call: the call.
        before: its jobs in SLURM when the disturbance came, by id.
        jobs: its jobs in the end.
        saved: resume states that were seen while it ran.
    """

    call: Call
    before: dict[str, dict[str, str]] = field(default_factory=dict)
    jobs: dict[str, dict[str, str]] = field(default_factory=dict)
    saved: set[str] = field(default_factory=set)


def quiet(cluster: Cluster, laid: Laid, submit: Submit) -> Seen:
    """Nothing happens: the profile as it is, to the report."""
    call = submit(laid("quiet"))
    call.finish()
    return Seen(call, jobs=call.jobs)


def clock_ahead(cluster: Cluster, laid: Laid, submit: Submit) -> Seen:
    """Both clocks are ahead by hours: a dense net, and its fine-tuning after it. GPUs are spelled `gres`."""
    checkout = laid("ahead")
    checkout.write(methods=["ft"], spaces=["sp"])
    given = ("--set-threads", "run=1", "--set-resources", "run:gres=gpu:1", "run:runtime=30", "run:mem_mb=2000")
    clocks = {"IPBENCH_TEST_CLOCK_n1": str(SKEW), "IPBENCH_TEST_CLOCK_n2": str(2 * SKEW)}
    call = submit(checkout, *given, "--until", "collect", **clocks)
    call.finish()
    return Seen(call, jobs=call.jobs)


def clock_behind(cluster: Cluster, laid: Laid, submit: Submit) -> Seen:
    """All jobs are on n2, whose clock is behind by hours."""
    call = submit(
        laid("behind", slow=True), "--set-threads", "run=1", "--until", "run", "--retries", "1", "--default-resources",
        "slurm_extra='--exclude=n1'", "runtime=60", "mem_mb=8000", IPBENCH_TEST_CLOCK_n2=str(-SKEW),
    )  # fmt: skip
    call.finish(code=1)
    return Seen(call, jobs=call.jobs)


def requeued(cluster: Cluster, laid: Laid, submit: Submit) -> Seen:
    """Each job is requeued in the middle of its first training, by the administrator's command."""
    call = submit(laid("requeued", slow=True), "--set-threads", "run=1", "--until", "run", IPBENCH_TEST_PAUSE="0.3")
    in_the_middle(call)
    before = call.jobs
    for job in before:
        slurm("scontrol", "requeue", job)
    call.finish()
    return Seen(call, before, call.jobs)


def node_failed(cluster: Cluster, laid: Laid, submit: Submit) -> Seen:
    """Both jobs are on one node, which dies with all of its processes in the middle of a training, and comes back."""
    call = submit(
        laid("failed", slow=True), "--set-threads", "run=1", "--until", "run", "--default-resources",
        "slurm_partition=frail", "runtime=60", "mem_mb=8000", IPBENCH_TEST_PAUSE="0.3",
    )  # fmt: skip
    in_the_middle(call)
    before = call.jobs
    cluster.kill_node("n3")
    until(lambda: cluster.node_state("n3") == "DOWN", 120, "the controller did not notice")
    call.finish()
    seen = Seen(call, before, call.jobs)
    cluster.start_node("n3")
    return seen


def timed_out(cluster: Cluster, laid: Laid, submit: Submit) -> Seen:
    """A job of two minutes whose training takes longer, asked by SLURM to stop some seconds before."""
    checkout = laid("limit", slow=True)
    checkout.write(**SLOW_GRID, spaces=["sp"])
    # A slow machine may need several tries more than the profile has.
    call = submit(
        checkout, "--set-threads", "run=1", "--until", "run", "--retries", "9",
        "--set-resources", "run:runtime=2", "run:mem_mb=2000", "run:gpu=1",
        "--default-resources", "slurm_extra='--signal=TERM@5'", "runtime=60", "mem_mb=8000", IPBENCH_TEST_PAUSE="2.2",
    )  # fmt: skip
    saved: set[str] = set()
    while call.process and call.process.poll() is None:
        saved |= checkout.files("state/*/*.safetensors").keys()
        time.sleep(0.5)
    call.finish()
    return Seen(call, jobs=call.jobs, saved=saved)


SCENARIOS: dict[str, Callable[[Cluster, Laid, Submit], Seen]] = {
    each.__name__: each for each in (timed_out, node_failed, requeued, quiet, clock_ahead, clock_behind)
}


def in_the_middle(call: Call) -> None:
    """Wait until each job of the call has trained some steps of its first run."""

    def trained() -> bool:
        by_job = [line.split()[0] for line in call.steps()]
        return len(set(by_job)) == 2 and all(by_job.count(job) >= 4 for job in set(by_job))

    call.until(trained, "training steps of both jobs")
    assert not call.checkout.files("runs/*/*.json"), "too late: a run is finished already"
    shutil.copy(call.checkout.folder / "steps.txt", call.checkout.folder / "steps-before.txt")
