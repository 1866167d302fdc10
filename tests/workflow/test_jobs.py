"""Real Snakemake: jobs of several shapes, jobs that fail in part, and jobs that take turns on GPUs."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest

from ipbench.machine import lease
from tests.workflow.conftest import Checkout
from tests.workflow.test_workflow import RESULTS, one_line

pytestmark = pytest.mark.workflow

#: A method that fails in one run until a file says that it is repaired.
FAILING = '''
from pathlib import Path

from ipbench.methods import before_training, method
from ipbench.sparse.view import sparse_net


@method(when=before_training, paper="Nobody: It fails, 2026")
def failing(net, batch):
    """-|c|: keep what starts smallest."""
    run = sparse_net(net).run
    if (run.seed, run.sparsity) == (1, "0.5") and not Path("repaired").exists():
        raise RuntimeError("this run breaks")
    return {name: -c.abs() for name, c in net.coefficients.items()}
'''
#: A method's file that tells which GPU a job was given, and when it had it. It is read before anything is trained.
GPUS = '''
import os, sys, time
from pathlib import Path

from ipbench.methods import before_training, method

if sys.argv[1:2] == ["run"]:
    begin = time.monotonic()
    time.sleep(0.5)
    path = Path("stamps") / str(os.getpid())
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{os.environ['CUDA_VISIBLE_DEVICES']} {begin} {time.monotonic()}")


@method(when=before_training, paper="Nobody: On GPUs, 2026")
def anywhere(net, batch):
    """-|c|: keep what starts smallest."""
    return {name: -c.abs() for name, c in net.coefficients.items()}
'''


def test_larger_blocks_train_nothing_and_change_nothing(finished: Checkout) -> None:
    finished.write(sparsities=[0.5, 0.8])
    blocks = ("--config", "sparsities_per_job=2")
    before = finished.files("runs/*/*.json")
    assert finished.planned(*blocks) == {"grid": 1, "run": 2, **RESULTS}
    finished.done(*blocks, "--until", "run")
    after = finished.files("runs/*/*.json")
    assert len(after) == 8 and before.items() <= after.items()
    (fused,) = finished.files("jobs/digits/small-vgg/random/sp-zero/0.5-0.8/*.json")
    assert len(json.loads((finished.results / fused).read_text())["runs"]) == 4
    assert finished.planned(*blocks, "--until", "run") == {}
    assert finished.planned("--until", "run") == {"run": 2}  # single again: the job files of 0.5 are still there


def test_a_failing_run_costs_no_other_one(checkout: Checkout) -> None:
    (checkout.folder / "failing.py").write_text(FAILING)
    checkout.write(methods=["failing.py"], sparsities=[0.5, 0.8], spaces=["sp"])
    blocks = ("--config", "sparsities_per_job=2", "--until", "run")
    process = checkout.snakemake(*blocks)
    assert process.returncode == 1
    assert "1 of 4 runs failed: p=0.5 seed 1" in process.stdout  # the log of a failed job is shown
    (log,) = checkout.results.glob("logs/**/*.0-1.log")
    assert log.read_text().splitlines()[-1] == "ipbench: 1 of 4 runs failed: p=0.5 seed 1"
    before = checkout.files("runs/*/*.json")
    assert len(before) == 3 and not checkout.files("jobs/**/*.json")
    (checkout.folder / "repaired").touch()
    checkout.done(*blocks)
    after = checkout.files("runs/*/*.json")
    assert len(after) == 4 and before.items() <= after.items()
    assert checkout.planned(*blocks) == {}


def test_jobs_take_turns_on_gpus(checkout: Checkout, tmp_path: Path) -> None:
    """Four jobs for two pretend GPUs, cores for all: two at a time, each on its own, and none on the CPU instead."""
    (checkout.folder / "anywhere.py").write_text(GPUS)
    checkout.write(methods=["anywhere.py"], spaces=["sp"], seeds=4)
    config = ("--config", "gpus=8,9", "seeds_per_job=1", "--cores", "4", "--until", "run")
    process = checkout.snakemake(*config, env={lease.FOLDER: str(tmp_path / "locks")})
    jobs = [path.read_text().split() for path in checkout.folder.glob("stamps/*")]
    assert len(jobs) == 4, process.stdout
    assert {gpu for gpu, _, _ in jobs} == {"8", "9"}
    for gpu in "89":
        own = sorted((float(begin), float(end)) for name, begin, end in jobs if name == gpu)
        assert all(end <= begin for (_, end), (begin, _) in pairwise(own))
    assert process.returncode == 1 and "device 'cuda' is not here: torch sees 0 GPUs" in process.stdout
    assert "waiting for" not in process.stdout  # Snakemake itself starts no more jobs than there are GPUs
    assert not checkout.files("runs/*/*.json")


def test_the_start_of_a_job_is_no_reason_to_train_again(finished: Checkout) -> None:
    assert finished.planned("--config", "gpus=0,1", "jobs_per_gpu=2") == {}
    assert finished.planned("--config", "processes=2", "--", "results/tiny/runs.parquet") == {}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (["gpus=0,x"], ["gpus=0,x", "'x' is no GPU", "0,1"]),
        (["gpus=0,0"], ["GPU 0 is given twice"]),
        (["gpus=[0, 1.5]"], ["'1.5' is no GPU"]),
        (["gpus=$(touch pwned)"], ["is no GPU"]),
        (["gpus=0", "processes=2"], ["2 GPUs for one job", "from 1 to 1"]),
        (["gpus=0", "jobs_per_gpu=0"], ["jobs_per_gpu=0", "a whole number from 1 up"]),
        (["gpus=0", "jobs_per_gpu=65"], ["65 jobs per GPU", "from 1 to 64"]),
        (["sparsities_per_job=0"], ["sparsities_per_job=0", "a whole number from 1 up"]),
        (["sparsities_per_job=true"], ["sparsities_per_job", "a whole number from 1 up"]),
    ],
)
def test_a_mistake_in_the_profile_is_one_line(checkout: Checkout, config: list[str], words: list[str]) -> None:
    one_line(checkout.snakemake("--dry-run", "--config", *config), words)
    assert not (checkout.folder / "pwned").exists()


def test_gpus_are_not_leased_on_a_cluster(checkout: Checkout) -> None:
    process = checkout.snakemake("--config", "gpus=0", "--executor", "slurm", "--jobs", "2")
    one_line(process, ["--config gpus=0", "only for jobs on this machine"])


def test_a_job_is_one_line_of_the_shell(checkout: Checkout) -> None:
    """What the shell runs: nothing but the training, in its own place, so that signals reach it."""
    text = checkout.done("--dry-run", "--printshellcmds", "--config", "gpus=0,1", "processes=2", "jobs_per_gpu=3")
    commands = re.findall(r"^Shell command: exec (.*)$", text, re.MULTILINE)
    assert len(commands) == 2
    assert all(
        command.startswith(
            "python -m ipbench lease --gpus 0,1 --per-gpu 3 --count 2 -- env TORCH_ELASTIC_SHUTDOWN_TIMEOUT=300"
            " python -m torch.distributed.run --standalone --nproc-per-node 2"
            " -m ipbench run --device cuda --threads 1 --workers 1 --dataset digits"
        )
        for command in commands
    )


@pytest.mark.parametrize(
    ("resources", "device"), [("gpu=1", "cuda"), ("gres='gpu:2'", "cuda"), ("gpu=0", "auto"), ("mem_mb=9", "auto")]
)
def test_who_asks_for_a_gpu_does_not_get_the_cpu(checkout: Checkout, resources: str, device: str) -> None:
    """And the threads of the job are shared by its processes."""
    options = ("--set-resources", f"run:{resources}", "--set-threads", "run=9", "--cores", "9")
    text = checkout.done("--dry-run", "--printshellcmds", "--config", "processes=4", *options)
    commands = re.findall(r"^Shell command: exec (.*)$", text, re.MULTILINE)
    assert commands and all(f"-m ipbench run --device {device} --threads 2 --workers 2 " in one for one in commands)
