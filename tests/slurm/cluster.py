"""A real SLURM on this machine, for as long as the tests take: a munged, a controller, three nodes on loopback.

Its configuration must be /etc/slurm/slurm.conf, for Snakemake's executor removes SLURM_CONF. Everything else lies in a
folder of its own, with ports and a munge key of its own: no other SLURM or munge is asked, changed or stopped.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "squeue", "scontrol", "scancel", "sinfo")
ETC = Path("/etc/slurm")
FILES = ("slurm.conf", "gres.conf", "slurmdbd.conf")
NODES = ("n1", "n2", "n3")
PORTS = ("controller", *NODES, "accounting", "database")
DAEMONS = {"slurmctld", "slurmd", "slurmdbd"}
HELPERS = {"munged", "mariadbd"}
MARK = "# Written by tests/slurm of ipbench, removed at their end. Process and folder:"

SLURM_CONF = """{mark} {pid} {folder}
ClusterName={name}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
AuthType=auth/munge
# A requeued job waits until its credential has expired, two minutes if nothing else is said.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
# Neither cgroups nor systemd: a container has none.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
# Nodes on one machine, larger than it is.
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=5
KillWait=20
OverTimeLimit=0
MinJobAge={min_job_age}
TaskProlog={folder}/task_prolog
GresTypes=gpu
{accounting}
NodeName=DEFAULT CPUs=64 RealMemory=200000 Gres=gpu:4
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port={ports} Weight=2
NodeName=n3 NodeHostname={host} NodeAddr=127.0.0.1 Port={frail} Weight=1
# The least loaded node first: two jobs are on two nodes.
PartitionName=main Nodes=n[1-2] LLN=YES Default=YES MaxTime=INFINITE State=UP
# The node of the smallest weight first: jobs start on n3, which fails, and go on on n1.
PartitionName=frail Nodes=n[1,3] MaxTime=INFINITE State=UP
"""

#: With the database of tests/slurm/accounting.py, and without.
ACCOUNTING = """AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePass={folder}/munge.socket
AccountingStoragePort={port}"""
NO_ACCOUNTING = "AccountingStorageType=accounting_storage/none"

#: Plain files as GPUs: SLURM counts them and hands them out.
GRES_CONF = """{mark} {pid} {folder}
NodeName=n[1-3] Name=gpu File={folder}/gpu[0-3]
"""

#: A mock of a file system that takes the client's time: with IPBENCH_TEST_CLOCK_n1=7200 in the environment, what Python
#: touches in a job's step on n1 is dated so many seconds ahead. Snakemake touches the declared outputs of every job.
#: (libfaketime, which gives a process another clock, makes Python's threads hang.)
TASK_PROLOG = """#!/bin/bash
clock=IPBENCH_TEST_CLOCK_$SLURMD_NODENAME
[ -n "${{!clock:-}}" ] || exit 0
echo "export IPBENCH_TEST_CLOCK=${{!clock}}"
echo "export PYTHONPATH={folder}/clock${{PYTHONPATH:+:$PYTHONPATH}}"
"""
CLOCK = """
import os, time

real = os.utime


def utime(path, times=None, **options):
    now = time.time() + float(os.environ["IPBENCH_TEST_CLOCK"])
    real(path, (now, now) if times is None else times, **options)


os.utime = utime
"""


class Refused(Exception):
    """This machine has a SLURM that is not ours."""


def missing() -> str | None:
    """Why no cluster can be started here; None if one can."""
    if absent := [name for name in PROGRAMS if not program(name)]:
        return f"SLURM is not installed: no {', '.join(absent)} (Debian: apt-get install slurm-wlm munge)"
    if os.geteuid():
        return "only root can start a SLURM: its configuration is /etc/slurm/slurm.conf"
    return None


def check_free(etc: Path = ETC) -> None:
    """Whether the machine has no SLURM of its own; what a killed run of these tests has left is cleared away.

    Raises:
        Refused: it has one, or another run of these tests is at work.
    """
    if given := os.environ.get("SLURM_CONF"):
        raise Refused(f"SLURM_CONF={given} names a SLURM of your own; tests/slurm would need {etc}/slurm.conf")
    clear_left(etc)
    for process, name in _alive():
        if name in DAEMONS:
            raise Refused(f"{name} is running (process {process.pid}): this machine has a SLURM of its own")


def clear_left(etc: Path = ETC) -> None:
    """Clear away what a killed run of these tests has left.

    Raises:
        Refused: the configuration is not of these tests, or their process lives.
    """
    paths = [path for path in map(etc.joinpath, FILES) if path.exists() or path.is_symlink()]
    folders = set()
    for path in paths:
        found = re.match(re.escape(MARK) + r" (\d+) (/\S*/ipbench-slurm-\w+)\n", path.read_text(errors="replace"))
        if not found:
            raise Refused(f"{path} is not of tests/slurm: this machine has a SLURM of its own, which is left alone")
        if psutil.pid_exists(int(found[1])) and int(found[1]) != os.getpid():
            raise Refused(f"{path}: process {found[1]} is running tests/slurm; wait for its end")
        folders.add(Path(found[2]))
    for folder in folders:
        _clear(folder)
    for path in paths:
        path.unlink()


class Cluster:
    """The cluster. `start` brings it up, `stop` takes away whatever there is of it."""

    def __init__(self, etc: Path = ETC) -> None:
        self.etc = etc
        self.folder = Path(tempfile.mkdtemp(prefix="ipbench-slurm-"))
        self.folder.chmod(0o711)  # munge's socket must be reachable
        self.name = f"ipbench{os.getpid()}"
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.made_etc = False
        self.ports = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))

    def start(self) -> None:
        """Bring it up; back when all nodes are idle."""
        (self.folder / "munge.key").write_bytes(secrets.token_bytes(128))
        (self.folder / "munge.key").chmod(0o400)
        for name in ("state", *NODES):
            (self.folder / name).mkdir()
        for number in range(4):
            (self.folder / f"gpu{number}").touch()
        (self.folder / "clock").mkdir()
        (self.folder / "clock/sitecustomize.py").write_text(CLOCK)
        prolog = self.folder / "task_prolog"
        prolog.write_text(TASK_PROLOG.format(folder=self.folder))
        prolog.chmod(0o755)
        self.made_etc = not self.etc.exists()
        self.etc.mkdir(exist_ok=True)
        self.configure()
        self.daemon(
            "munged", "-F", f"--socket={self.folder}/munge.socket", f"--key-file={self.folder}/munge.key",
            f"--pid-file={self.folder}/munged.pid", f"--seed-file={self.folder}/munged.seed", "--num-threads=4",
        )  # fmt: skip
        self.until(lambda: (self.folder / "munge.socket").exists(), "munged made no socket")
        self.start_controller()
        for node in NODES:
            self.start_node(node)

    def configure(self, min_job_age: int = 300, accounting: bool = False) -> None:
        """Write the configuration; a controller that is running reads it again."""
        ports = self.ports
        self.write(
            "slurm.conf", SLURM_CONF, name=self.name, host=socket.gethostname().partition(".")[0],
            controller=ports["controller"], ports=f"{ports['n1']}-{ports['n2']}", frail=ports["n3"],
            min_job_age=min_job_age,
            accounting=ACCOUNTING.format(folder=self.folder, port=ports["accounting"]) if accounting else NO_ACCOUNTING,
        )  # fmt: skip
        self.write("gres.conf", GRES_CONF)
        if "slurmctld" in self.daemons:
            slurm("scontrol", "reconfigure")

    def write(self, file: str, template: str, mode: int = 0o644, **facts: object) -> None:
        """Write a file of the configuration, marked as that of these tests."""
        path = self.etc / file
        path.touch(mode=mode)
        path.write_text(template.format(mark=MARK, pid=os.getpid(), folder=self.folder, **facts))

    def start_controller(self) -> None:
        """Start slurmctld; back when it answers."""
        self.daemon("slurmctld", "-D", "-L", f"{self.folder}/slurmctld.log")
        self.until(lambda: "UP" in slurm("scontrol", "ping", check=False), "the controller did not come up")

    def stop_daemon(self, name: str) -> None:
        """End a daemon; what slurmctld knows stays on disk."""
        daemon = self.daemons.pop(name)
        daemon.terminate()
        daemon.wait(timeout=30)

    def start_node(self, node: str) -> None:
        """Start a node's slurmd; back when the node is idle."""
        self.daemon(node, "-D", "-N", node, "-L", f"{self.folder}/{node}.log", executable="slurmd")
        self.until(lambda: self.node_state(node) == "IDLE", f"node {node} did not come up")

    def node_state(self, node: str) -> str:
        """What the controller says of it: IDLE, MIXED, DOWN, ...; with marks such as DOWN*+... left out."""
        found = re.search(r" State=(\w+)", slurm("scontrol", "-o", "show", "node", node, check=False))
        return found[1] if found else ""

    def kill_node(self, node: str) -> None:
        """A node fails: its daemon and all of its jobs' processes are gone, without a word to the controller."""
        self.daemons.pop(node).kill()
        self._kill_jobs(node)

    def stop(self) -> None:
        """Stop every process of this cluster and remove every file that it wrote."""
        for daemon in self.daemons.values():
            daemon.kill()
        for node in NODES:
            self._kill_jobs(node)
        for process, _ in _alive():
            if _environment(process).get("SLURM_CLUSTER_NAME") == self.name:
                _kill(process)
        for daemon in self.daemons.values():
            daemon.wait()
        _clear(self.folder)
        for name in FILES:
            (self.etc / name).unlink(missing_ok=True)
        if self.made_etc:
            self.etc.rmdir()

    def daemon(self, name: str, *arguments: str, executable: str | None = None) -> None:
        """Start a program that runs until `stop`."""
        with (self.folder / f"{name}.out").open("ab") as out:
            self.daemons[name] = subprocess.Popen(
                [program(executable or name) or name, *arguments],
                stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    def until(self, condition: Callable[[], bool], otherwise: str) -> None:
        """Wait for a condition; else fail, with what the daemons have said."""
        try:
            until(condition, 30, otherwise)
        except AssertionError as error:
            said = [path.read_text(errors="replace")[-1000:] for path in sorted(self.folder.glob("*.out"))]
            raise AssertionError("\n".join([str(error), *said])) from None

    def _kill_jobs(self, node: str) -> None:
        """Kill the slurmstepds of a node, which have its log open, then all that they have started."""
        log = str(self.folder / f"{node}.log")
        above = [process for process, name in _alive() if name == "slurmstepd" and log in _open_files(process)]
        below = [child for process in above for child in _children(process)]
        for process in above + below:
            _kill(process)


def slurm(*command: str, check: bool = True) -> str:
    """What a command of SLURM prints."""
    process = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert process.returncode == 0 or not check, process.stdout + process.stderr
    return process.stdout.strip()


def jobs(name: str = "") -> dict[str, dict[str, str]]:
    """What the controller knows of all jobs, finished ones included: their fields by name, by job id.

    Args:
        name: of the jobs' names, if not all.
    """
    result = {}
    for line in slurm("scontrol", "-o", "show", "job", check=False).splitlines():
        fields = dict(re.findall(r"(?:^| )(\w[\w/:]*)=(.*?) *(?= \w[\w/:]*=|$)", line))
        if "JobId" in fields and name in fields.get("JobName", ""):
            result[fields["JobId"]] = fields
    return result


def until(condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, otherwise
        time.sleep(0.1)


def program(name: str) -> str | None:
    """Where it lies. Daemons are in /usr/sbin, which is not on everyone's path."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))


def _free_ports(count: int) -> list[int]:
    """Neighbouring ports that nobody listens on."""
    for base in range(28000, 32000, count):
        with_sockets: list[socket.socket] = []
        try:
            for port in range(base, base + count):
                with_sockets.append(socket.create_server(("127.0.0.1", port)))
        except OSError:
            continue
        finally:
            for each in with_sockets:
                each.close()
        return list(range(base, base + count))
    raise AssertionError("no free ports")


def _alive() -> list[tuple[psutil.Process, str]]:
    """Processes with their names, zombies left out; each may end at any moment."""
    found = psutil.process_iter(["name", "status"])
    return [(each, each.info["name"] or "") for each in found if each.info["status"] != psutil.STATUS_ZOMBIE]


def _open_files(process: psutil.Process) -> list[str]:
    try:
        return [file.path for file in process.open_files()]
    except (psutil.Error, OSError):
        return []


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.Error, OSError):
        return []


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except (psutil.Error, OSError):
        return {}


def _kill(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.kill()


def _clear(folder: Path) -> None:
    """End the daemons whose command line names this folder of ours, and remove it."""
    for process, name in _alive():
        if name in DAEMONS | HELPERS and any(str(folder) in word for word in _command(process)):
            _kill(process)
    shutil.rmtree(folder, ignore_errors=True)
