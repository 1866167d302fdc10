# Of methods that are rules of the user: which runs their programs score, and whether their files can be used.

# The runs that a program scores, by cell and seed: each with the job that trains it.
SCORED = {
    (CELLS[id(run)], str(seed)): (job, run)
    for job in JOBS.values()
    if job.rule_file
    for run in job.cells
    for seed in job.seeds
}


def scored(wildcards):
    """The run that a program scores, and its job."""
    found = SCORED.get((wildcards.cell, wildcards.seed))
    if found is None:  # a job on a cluster plans the grid again
        refuse(
            f"{RESULTS}/exchange/{wildcards.cell}/{wildcards.seed}: no run of {EXPERIMENT_FILE} as it is now: it, or a"
            " file of its methods, models or data sets, has changed since; put that back, or call Snakemake again"
        )
    return found


def exchange_inputs(wildcards):
    """What the net is made of; the rule, too, and what it names: when they change, the scores are made again."""
    job, run = scored(wildcards)
    parents = [f"{RESULTS}/{parent}" for parent in job.parents]
    return [*data_files(job.dataset), *map(str, code(run.method).files), *parents]


def exchange_arguments(wildcards):
    """What `ipbench exchange` is told: the options of this one run."""
    job, run = scored(wildcards)
    return shlex.join(job.alone(run, int(wildcards.seed)).arguments)


def exchange_places(wildcards, output):
    """Where a user's model and data set lie; it takes `output` only so that Snakemake sees no parameter in it."""
    return shlex.join(scored(wildcards)[0].places)


def exchange_made_of(wildcards):
    """What else changes the files: the version of the numerics, and the code of the rule."""
    _, run = scored(wildcards)
    return f"{numerics(run)} {code(run.method).sha256}"


def check_names(file):
    """Refuse a file of rules with a name that is taken."""
    for name in rule_names(Path(file)):
        if workflow.is_rule(name):
            refuse(f"{file}: there is a rule {name} already, of ipbench or of another file; rename it")


def check_output(file):
    """Refuse a file of rules, none of which writes scores."""
    name = Path(file).stem
    if not any(one.is_producer(f"{RESULTS}/exchange/0/0/{name}.safetensors") for one in workflow.rules):
        refuse(f"{file}: no rule of it has the output {method_scores(name)!r}, in which its scores are to be")
