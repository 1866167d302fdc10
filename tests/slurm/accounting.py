"""An accounting database for the tests' cluster: a mariadbd and a slurmdbd, with files and ports of their own."""

from __future__ import annotations

import subprocess

from tests.slurm.cluster import Cluster, program, slurm

PROGRAMS = ("slurmdbd", "mariadbd", "mariadb-install-db", "my_print_defaults", "sacct")

#: The database has no grants: whoever reaches its port on loopback, while the tests last, may use it.
SLURMDBD_CONF = """{mark} {pid} {folder}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser=root
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={storage}
StorageUser=root
StorageLoc=slurm
"""


def start(cluster: Cluster, min_job_age: int) -> None:
    """Give a running cluster an accounting database; back when the controller writes to it."""
    folder = cluster.folder
    database = folder / "database"
    user = ["--no-defaults", "--user=root", f"--datadir={database}"]
    install = ["mariadb-install-db", *user, "--auth-root-authentication-method=normal", "--skip-test-db"]
    subprocess.run(install, check=True, capture_output=True, timeout=300)
    cluster.daemon(
        "mariadbd", *user, f"--socket={folder}/mariadb.socket", f"--pid-file={folder}/mariadb.pid",
        "--bind-address=127.0.0.1", f"--port={cluster.ports['database']}", "--skip-grant-tables", "--skip-name-resolve",
    )  # fmt: skip
    cluster.until(lambda: (folder / "mariadb.socket").exists(), "mariadbd made no socket")
    cluster.write(
        "slurmdbd.conf", SLURMDBD_CONF, port=cluster.ports["accounting"], storage=cluster.ports["database"], mode=0o600
    )
    cluster.daemon("slurmdbd", "-D")
    cluster.stop_daemon("slurmctld")
    cluster.configure(min_job_age, accounting=True)
    cluster.until(lambda: "Cluster" in slurm("sacctmgr", "show", "cluster", check=False), "slurmdbd did not come up")
    cluster.start_controller()
    cluster.until(
        lambda: cluster.name in slurm("sacctmgr", "--parsable2", "show", "cluster"), "the cluster is not registered"
    )


def stop(cluster: Cluster) -> None:
    """Take it away again; what was in it is lost."""
    for name in ("slurmctld", "slurmdbd", "mariadbd"):
        cluster.stop_daemon(name)
    (cluster.etc / "slurmdbd.conf").unlink()
    cluster.configure()
    cluster.start_controller()


def missing() -> str | None:
    """Why there can be no accounting database here; None if there can."""
    if absent := [name for name in PROGRAMS if not program(name)]:
        packages = "slurmdbd mariadb-server-core mariadb-client-core"
        return f"no accounting database: no {', '.join(absent)} (Debian: apt-get install {packages})"
    return None
