"""What a real SLURM is refused for: one line and exit code 2 in place of a call that waits for ever."""

from __future__ import annotations

import pytest

from tests.slurm.calls import Laid, Submit, refused
from tests.slurm.cluster import Cluster

pytestmark = pytest.mark.slurm


def test_sacct_without_an_accounting_database(cluster: Cluster, laid: Laid, submit: Submit) -> None:
    call = submit(laid("sacct"), "--slurm-status-command", "sacct")
    refused(call, "accounting_storage/none", "set slurm-status-command: squeue there")


def test_squeue_where_jobs_are_soon_forgotten(alone: Cluster, laid: Laid, submit: Submit) -> None:
    alone.configure(min_job_age=60)
    try:
        refused(submit(laid("squeue")), "after 60 s (MinJobAge=60)", "must be 240 or more")
    finally:
        alone.configure()


def test_a_controller_that_is_down(alone: Cluster, laid: Laid, submit: Submit) -> None:
    alone.stop_daemon("slurmctld")
    try:
        refused(submit(laid("down")), "SLURM does not answer", "scontrol show config")
    finally:
        alone.start_controller()
