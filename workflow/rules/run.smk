# The training: one job per block of seeds and sparsities of a cell. A job that continues other jobs' runs (fine-tuning
# the dense nets, the next level of a lottery ticket) waits for them: this rule follows itself.

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
