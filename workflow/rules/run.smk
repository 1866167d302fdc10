# The training: one job per block of seeds and sparsities of a cell. A job that continues other jobs' runs (fine-tuning
# the dense nets, the next level of a lottery ticket) waits for them: this rule follows itself.

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


if GPUS:
    workflow.register_resource("gpu_slots", len(GPUS) * JOBS_PER_GPU)


# The only declared output is the list of finished runs. Snakemake deletes the declared outputs of a job that fails;
# the records in runs/ and the resume states in state/ must outlive it, for they are where the next try goes on.
# `start` is no parameter of the training: how a job is started, on which GPUs say, is no reason to train again.
# `exec`: signals reach the training, not a shell that waits for it.
rule run:
    input:
        inputs_of,
    output:
        f"{RESULTS}/jobs/{{job}}.json",
    log:
        f"{RESULTS}/logs/{{job}}.log",
    conda:
        "../envs/ipbench.yaml"
    resources:
        **({"gpu_slots": PROCESSES} if GPUS else {}),
    params:
        arguments=arguments_of,
        numerics=numerics_of,
        experiment=EXPERIMENT.name,
        start=start_of,
    message:
        "{wildcards.job}"
    shell:
        "exec {params.start} {params.arguments}" " --out results/{params.experiment:q} --done {output:q} > {log:q} 2>&1"
