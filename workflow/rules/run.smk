# The training: one job per cell and block of seeds. A job that continues another one's runs (fine-tuning the dense nets,
# the next level of a lottery ticket) waits for it: this rule follows itself.


# The only declared output is the list of finished runs. Snakemake deletes the declared outputs of a job that fails;
# the records in runs/ and the resume states in state/ must outlive it, for they are where the next try goes on.
rule run:
    input:
        data_of,
        parent=parent_of,
        methods=list(EXPERIMENT.method_files),
    output:
        "results/{experiment}/jobs/{dataset}/{model}/{method}/{setting}/{sparsity}/{cell}.{seeds}.json",
    log:
        "results/{experiment}/logs/{dataset}/{model}/{method}/{setting}/{sparsity}/{cell}.{seeds}.log",
    conda:
        "../envs/ipbench.yaml"
    params:
        arguments=job_arguments,
        numerics=ipbench.NUMERICS,
        launch=LAUNCH,
    message:
        "{wildcards.dataset} {wildcards.model} {wildcards.method} {wildcards.setting} p={wildcards.sparsity} seeds {wildcards.seeds}"
    shell:
        "python {params.launch} -m ipbench run {params.arguments:q} --threads {threads} --workers {threads}"
        " --out results/{wildcards.experiment:q} --done {output:q} > {log:q} 2>&1"
