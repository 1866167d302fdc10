# From records to numbers, figures and the report. All of it takes seconds and stays where Snakemake runs.


localrules:
    grid,
    collect,
    tables,
    figures,
    report,
    partial,


# The plan changes when the experiment or a default changes, not when its file gets a new comment or date. No training
# depends on it: a larger grid trains its new cells alone.
rule grid:
    input:
        ancient(str(EXPERIMENT_FILE)),
    output:
        "results/{experiment}/grid.json",
    log:
        "results/{experiment}/logs/grid.log",
    conda:
        "../envs/ipbench.yaml"
    params:
        content=identity(GRID),
    message:
        "grid of {input}"
    shell:
        "python -m ipbench grid {input:q} --out {output:q} > {log:q} 2>&1"


rule collect:
    input:
        grid=rules.grid.output,
        jobs=expand("results/{{experiment}}/{job}", job=[job.path for job in JOBS.values()]),
    output:
        "results/{experiment}/runs.parquet",
    log:
        "results/{experiment}/logs/collect.log",
    conda:
        "../envs/ipbench.yaml"
    message:
        "collect the records of {wildcards.experiment}"
    shell:
        "python -m ipbench collect results/{wildcards.experiment:q} > {log:q} 2>&1"


rule tables:
    input:
        rules.collect.output,
    output:
        [f"results/{{experiment}}/{path}" for path in plan_tables() if not path.endswith(".html")],
        [
            report(
                f"results/{{experiment}}/{path}",
                category="Tables",
                caption=f"../report/tables/{Path(path).stem}.rst",
                labels={"table": Path(path).stem},
            )
            for path in plan_tables()
            if path.endswith(".html")
        ],
    log:
        "results/{experiment}/logs/tables.log",
    conda:
        "../envs/ipbench.yaml"
    message:
        "tables of {wildcards.experiment}"
    shell:
        "python -m ipbench tables results/{wildcards.experiment:q} > {log:q} 2>&1"


rule figures:
    input:
        rules.collect.output,
    output:
        [f"results/{{experiment}}/{figure.path}" for figure in FIGURES if figure.format != "svg"],
        [
            report(f"results/{{experiment}}/{figure.path}", **in_report(figure))
            for figure in FIGURES
            if figure.format == "svg"
        ],
    log:
        "results/{experiment}/logs/figures.log",
    conda:
        "../envs/ipbench.yaml"
    message:
        "figures of {wildcards.experiment}"
    shell:
        "python -m ipbench figures results/{wildcards.experiment:q} > {log:q} 2>&1"


# A second Snakemake writes the report, so that one call ends with it, whatever the profile. It only reads what this
# one has finished: it needs no lock, and no profile of the environment may change what it does.
rule report:
    input:
        rules.tables.output,
        rules.figures.output,
    output:
        "results/{experiment}/report.html",
    log:
        "results/{experiment}/logs/report.log",
    conda:
        "../envs/ipbench.yaml"
    params:
        snakefile=os.path.relpath(workflow.main_snakefile),
        experiment=str(EXPERIMENT_FILE),
        seeds_per_job=SEEDS_PER_JOB,
        processes=PROCESSES,
    message:
        "report of {wildcards.experiment}"
    shell:
        "python -m snakemake --profile none --nolock --snakefile {params.snakefile:q} --configfile {params.experiment:q}"
        " --config seeds_per_job={params.seeds_per_job} processes={params.processes} --report {output:q} -- {input:q} > {log:q} 2>&1"


# Tables and figures of what is finished so far:  snakemake partial --nolock ...  (no lock: another one may be at work)
rule partial:
    input:
        expand(rules.grid.output, experiment=EXPERIMENT.name),
    log:
        f"results/{EXPERIMENT.name}/logs/partial.log",
    conda:
        "../envs/ipbench.yaml"
    params:
        experiment=EXPERIMENT.name,
    message:
        "tables and figures of what {params.experiment} has finished"
    shell:
        "(python -m ipbench collect results/{params.experiment:q}"
        " && python -m ipbench tables results/{params.experiment:q}"
        " && python -m ipbench figures results/{params.experiment:q}) > {log:q} 2>&1"
