# The experiment of this call: read from the one --configfile, planned by ipbench, asked for by the rules.

import os
import shlex
import sys
from pathlib import Path

# Commands find the Python that runs Snakemake, in the jobs of a cluster too, whether or not its environment is active.
shell.prefix(f"set -euo pipefail; export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; ")


def refuse(message):
    """End with one line. A WorkflowError would add the place in this file, which is not where the mistake is."""
    print(f"Error: {message}", file=sys.stderr)
    sys.exit(2)


try:
    import ipbench
    from ipbench.analysis.plan import ALL, BOTH, plan, plan_tables
    from ipbench.errors import BadInput
    from ipbench.experiment import Experiment
    from ipbench.spec import identity
except ModuleNotFoundError as error:
    refuse(f"{sys.executable} has no {error.name}: run `make setup`, then .venv/bin/snakemake")


def experiment_file():
    """The one file that says what is run. No key of it is overridden by hand, so that it says all of it."""
    files = workflow.overwrite_configfiles
    if len(files) != 1:
        names = ", ".join(sorted(map(str, Path("config").glob("*.yaml")))) or "none in config/"
        refuse(f"give one experiment with --configfile FILE; there are: {names}")
    for key in workflow.config_settings.config:
        if key not in MACHINE:
            refuse(f"--config {key}: the keys of an experiment are set in its file, {files[0]}")
    return Path(os.path.relpath(files[0]))


def of_the_machine(key):
    """A setting of the profile's `config:`, or of --config."""
    number = workflow.config_settings.config.get(key, MACHINE[key])
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        refuse(f"--config {key}={number}: a whole number from 1 up is needed")
    return number


# What a profile may set, with its defaults: how many seeds of a cell share a job, and how many processes train one run.
# They are no part of an experiment. The seeds of a job change no number; processes do, and every record tells theirs.
MACHINE = {"seeds_per_job": 6, "processes": 1}

EXPERIMENT_FILE = experiment_file()
SEEDS_PER_JOB = of_the_machine("seeds_per_job")
PROCESSES = of_the_machine("processes")
# torchrun gives every process a GPU where there are some; without, they share the processor's cores.
LAUNCH = "" if PROCESSES == 1 else f"-m torch.distributed.run --standalone --nproc-per-node {PROCESSES}"

try:
    EXPERIMENT = Experiment.load(EXPERIMENT_FILE)
    GRID = EXPERIMENT.grid()
    JOBS = {Path(job.path).stem: job for job in EXPERIMENT.jobs(SEEDS_PER_JOB)}
    FIGURES = plan(GRID)
except BadInput as error:
    refuse(error)


def data_of(wildcards):
    """What a training reads. A newer copy holds the same images: its date is no reason to train again."""
    files = list(rules.fetch.output) + (list(rules.beton.output) if EXPERIMENT.loader == "ffcv" else [])
    return ancient(expand(files, dataset=wildcards.dataset))


def parent_of(wildcards):
    """The job whose runs this one continues: the dense training, or the level before."""
    parent = JOBS[f"{wildcards.cell}.{wildcards.seeds}"].parent
    return [f"results/{wildcards.experiment}/{parent}"] if parent else []


def job_arguments(wildcards):
    """What `ipbench run` is told: the axes that differ from their defaults, and the seeds."""
    return JOBS[f"{wildcards.cell}.{wildcards.seeds}"].arguments


def in_report(figure):
    """A figure's place in the report: pictures of one space apart, so that SP and IP become a switch between them."""
    return {
        "category": "SP and IP in one picture" if figure.space == BOTH else "SP or IP",
        "subcategory": f"{figure.dataset}, {figure.model}",
        "labels": {
            "method": "all methods" if figure.method == ALL else figure.method,
            "figure": figure.figure,
            **({} if figure.space == BOTH else {"space": figure.space.upper()}),
        },
        "caption": f"../report/figures/{figure.figure}.rst",
    }


wildcard_constraints:
    experiment=re.escape(EXPERIMENT.name),
    dataset="[A-Za-z0-9][A-Za-z0-9_.-]*",
    model="[A-Za-z0-9][A-Za-z0-9_.-]*",
    method="[A-Za-z0-9][A-Za-z0-9_.-]*",
    setting="(sp|ip)-(zero|frozen|decayed)",
    sparsity=r"0(\.[0-9]+)?",
    cell="[0-9a-f]{12}",
    seeds="[0-9]+-[0-9]+",
