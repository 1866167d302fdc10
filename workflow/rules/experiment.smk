# The experiment of this call: read from the one --configfile, planned by ipbench, asked for by the rules.

import gc
import inspect
import io
import os
import shlex
import sys
from contextlib import redirect_stderr
from functools import cache
from pathlib import Path

from snakemake.cli import parse_args
from snakemake_interface_executor_plugins.settings import ExecMode


# Commands find the Python that runs Snakemake, in the jobs of a cluster too, whether or not its environment is active;
# but not those of a user's rule with a container, modules or a conda environment of its own, which bring theirs. Beside
# an environment that it makes, Snakemake keeps the file that it made it of.
def prefix(python, ours):
    """What goes before every command; variables may be unset. Snakemake formats it: no braces of the shell's."""
    modules, conda = (shlex.quote(os.environ.get(name, "")) for name in ("LOADEDMODULES", "CONDA_PREFIX"))
    at_home = (
        '[ -z "$APPTAINER_CONTAINER$SINGULARITY_CONTAINER" ]'
        f' && [ "$LOADEDMODULES" = {modules} ]'
        f' && ( [ "$CONDA_PREFIX" = {conda} ] || cmp -s "$CONDA_PREFIX.yaml" {shlex.quote(ours)} )'
    )
    path = f"export PATH={shlex.quote(str(Path(python).parent))}:$PATH"
    return f"if {at_home}; then {path}; fi; set -euo pipefail; ".replace("{", "{{").replace("}", "}}")


shell.prefix(prefix(sys.executable, f"{workflow.basedir}/workflow/envs/ipbench.yaml"))


def refuse(message):
    """End with one line. A WorkflowError would add the place in this file, which is not where the mistake is."""
    print(f"Error: {message}", file=sys.stderr)
    sys.exit(2)


try:
    from ipbench.analysis.plan import ALL, BOTH, plan, plan_tables
    from ipbench.errors import BadInput, valid_choice
    from ipbench.planning.axes import Axes
    from ipbench.planning.experiment import Experiment
    from ipbench.files import refusal
    from ipbench.machine.lease import check, parse_gpus
    from ipbench.methods import code, rule_names
    from ipbench.methods import scores_of as method_scores
    from ipbench.planning.numerics import numerics
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
        if key == "name" or key in Axes.model_fields:
            refuse(f"--config {key}: the keys of an experiment are set in its file, {files[0]}")
        try:
            valid_choice(key, MACHINE, "key", "--config, or in `config:` of the profile")
        except BadInput as error:
            refuse(error)
    return Path(os.path.relpath(files[0]))


def of_the_machine(key):
    """A number of the profile's `config:`, or of --config."""
    number = workflow.config_settings.config.get(key, MACHINE[key])
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        refuse(f"--config {key}={number}: a whole number from 1 up is needed")
    return number


def gpus_of_the_machine():
    """The GPUs of the profile's `config:`, or of --config; none if it names none."""
    given = workflow.config_settings.config.get("gpus", MACHINE["gpus"])
    text = ",".join(map(str, given)) if isinstance(given, list) else str(given)
    if not text:
        return []
    try:
        gpus = parse_gpus(text)
        check(gpus, JOBS_PER_GPU, PROCESSES)
    except BadInput as error:
        refuse(f"--config gpus={text}: {error}")
    if sends_jobs_away():
        refuse(
            f"--config gpus={text}: only for jobs on this machine; a cluster gives GPUs to its jobs, see docs/slurm.md"
        )
    return gpus


def sends_jobs_away():
    """Whether this call hands jobs to a cluster."""
    if workflow.resource_settings.nodes is None:
        return False
    try:
        with redirect_stderr(io.StringIO()):  # it would say once more which profile it reads
            _, call = parse_args(sys.argv[1:])
    except SystemExit:  # Snakemake is called as a library
        return True
    return call.executor not in (None, "local", "dryrun", "touch")


# What a profile may set, with its defaults; none of it is part of an experiment. How many seeds, and how many
# sparsities, of a cell share a job: changes no number. How many processes train one run: every record tells theirs.
# Which GPUs of this machine the jobs take in turn, and how many share one; none: each job sees what there is.
MACHINE = {"seeds_per_job": 6, "sparsities_per_job": 1, "processes": 1, "gpus": "", "jobs_per_gpu": 1}

EXPERIMENT_FILE = experiment_file()
SEEDS_PER_JOB = of_the_machine("seeds_per_job")
SPARSITIES_PER_JOB = of_the_machine("sparsities_per_job")
PROCESSES = of_the_machine("processes")
JOBS_PER_GPU = of_the_machine("jobs_per_gpu")
GPUS = gpus_of_the_machine()

try:
    # A user's data set is looked at once, when the grid is planned; whoever runs a job of it compares sizes and dates.
    EXPERIMENT = Experiment.load(EXPERIMENT_FILE, trust=workflow.exec_mode != ExecMode.DEFAULT)
    RESULTS = f"results/{EXPERIMENT.name}"
    GRID = EXPERIMENT.grid()
    JOBS = {job.path: job for job in EXPERIMENT.jobs(SEEDS_PER_JOB, SPARSITIES_PER_JOB)}
    JOB_FILES = [f"{RESULTS}/{path}" for path in JOBS]
    FIGURES = plan(GRID)
    TABLES = plan_tables(GRID)
    HELPER_FILES = EXPERIMENT.helper_files if EXPERIMENT.method_files else []
except BadInput as error:
    refuse(error)
except OSError as error:
    refuse(refusal(error))

for path in map(str, (workflow.basedir, EXPERIMENT_FILE, *EXPERIMENT.method_files, *EXPERIMENT.own_paths)):
    if set(path) & set("{}<>") or not path.isprintable():
        refuse(f"{ascii(path)}: Snakemake has a use of its own for {{, }}, < and > in a path on one line; rename it")


# The ids of cells, by their runs: to form one anew takes longer than to look for its records.
CELLS = {id(run): cell for cell, run in EXPERIMENT.trained.items()}


def lost_runs(job):
    """Whether records are missing of a job that has ended: deleted by hand, as a damaged one should be, or moved."""
    wanted = {f"{seed}.json" for seed in job.seeds}
    if all(wanted <= records_of(CELLS[id(run)]) for run in job.cells):
        return False
    return os.path.exists(f"{RESULTS}/{job.path}")


@cache
def records_of(cell):
    """The names of the records of a cell that are there: one look at its folder, not one at each."""
    try:
        return set(os.listdir(f"{RESULTS}/runs/{cell}"))
    except OSError:  # there are none, or what trains them will say what is wrong
        return set()


# The graph is made of millions of objects that live to its end. Searching them for garbage, again and again as they grow
# in number, takes a fifth of the time of planning.
gc.freeze()
gc.set_threshold(100_000, 20, 100)


def asked_often(function):
    """Let its signature be looked up: Snakemake asks for it several times per job, and to find it takes a while."""
    function.__signature__ = inspect.signature(function)
    return function


def job_of(wildcards):
    """What `run` trains for a file that it is asked for."""
    path = f"jobs/{wildcards.job}.json"
    if path not in JOBS:  # a job on a cluster plans the grid again
        refuse(
            f"{RESULTS}/{path}: no job of {EXPERIMENT_FILE} as it is now: it, or a file of its methods, models or data"
            " sets, has changed since; put that back, or call Snakemake again"
        )
    return JOBS[path]


@cache
def data_files(dataset):
    """What a training reads. A newer copy holds the same images: its date is no reason to train again.

    Nothing of a user's data set: its digest is an argument of the training, which looks whether the files are the same.
    """
    if dataset in GRID.get("datasets", {}):
        return []
    files = list(rules.fetch.output) + (list(rules.beton.output) if EXPERIMENT.loader == "ffcv" else [])
    return ancient(expand(files, dataset=dataset))


def scores_of(job):
    """What the rule of a method writes for the runs of a job; nothing, where the method is no rule."""
    if not job.rule_file:
        return []
    places = [f"{CELLS[id(run)]}/{seed}/{run.method}" for run in job.cells for seed in job.seeds]
    return [f"{RESULTS}/exchange/{place}.safetensors" for place in places]


@asked_often
def inputs_of(wildcards):
    """Its data set, the files of its methods and what those import, the jobs whose runs it continues, and scores."""
    job = job_of(wildcards)
    if workflow.exec_mode == ExecMode.DEFAULT and lost_runs(job):
        # Snakemake sees the file of a job, not the records behind it: as with files that it knows to be incomplete, the
        # job has to run. Nothing is deleted for it: this may be a dry run, and another Snakemake may be at work here.
        workflow.dag.forcefiles.add(f"{RESULTS}/{job.path}")
    parents = [f"{RESULTS}/{parent}" for parent in job.parents]
    return [*data_files(job.dataset), *job.method_files, *HELPER_FILES, *parents, *scores_of(job)]


@asked_often
def arguments_of(wildcards):
    """What `ipbench run` is told: the axes that differ from their defaults, sparsities and seeds."""
    return shlex.join(job_of(wildcards).arguments)


@asked_often
def numerics_of(wildcards):
    """The version of the numerics of a job's runs: a change of theirs trains them again."""
    return max(numerics(run) for run in job_of(wildcards).cells)


# The lease waits for GPUs that another Snakemake of this user has taken. This one asks for no more than there are: its
# own `gpu_slots`, which it therefore need not be told. torchrun gives every process a GPU; without, they share the cores.
LEASE = ["python", *f"-m ipbench lease --gpus {','.join(GPUS)} --per-gpu {JOBS_PER_GPU} --count {PROCESSES} --".split()]
# torchrun kills its processes 30 s after it has handed on a SIGTERM: in a pass over many validation images no state is
# saved by then. The variable is that of its option --shutdown-timeout; where a torch does not know it, it does nothing.
TORCHRUN = (
    "env TORCH_ELASTIC_SHUTDOWN_TIMEOUT=300"
    f" python -m torch.distributed.run --standalone --nproc-per-node {PROCESSES}"
)


@cache
def start(gpu, threads):
    """How `ipbench run` is started. Where a GPU is asked for, it is not the CPU that trains if that cannot be used."""
    return shlex.join(
        [
            *(LEASE if GPUS else []),
            *(TORCHRUN if PROCESSES > 1 else "python").split(),
            *f"-m ipbench run --device {'cuda' if gpu else 'auto'} --threads {threads} --workers {threads}".split(),
        ]
    )


@asked_often
def start_of(wildcards, output, threads, resources):
    """How `ipbench run` is started. It takes `output` only so that Snakemake sees no parameter of the training in it.

    The threads of the job are shared by its processes. Where a user's model and data set lie is no parameter either:
    their digests are among the arguments.
    """
    asked = [resources.get("gpu"), resources.get("gpu_model"), "gpu" in str(resources.get("gres", ""))]
    first, places = start(bool(GPUS) or any(asked), max(1, threads // PROCESSES)), job_of(wildcards).places
    return f"{first} {shlex.join(places)}" if places else first


def a_figure(wildcards):
    """The first figure that is missing, so that it is drawn again and with it all others; else any."""
    paths = [f"{RESULTS}/{figure.path}" for figure in FIGURES]
    return next((path for path in paths if not os.path.exists(path)), paths[0])


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
    dataset="[A-Za-z0-9][A-Za-z0-9_.-]*",
    job="[A-Za-z0-9_./-]+",
