# From records to numbers, figures and the report. All of it takes seconds and stays where Snakemake runs. What fails
# here fails again: no retries, whatever the profile has for the trainings.


localrules:
    grid,
    collect,
    tables,
    figures,
    report,
    snakemake_report,
    partial,


# The plan changes when the experiment or a default changes, not when its file gets a new comment or date. No training
# depends on it: a larger grid trains its new cells alone.
rule grid:
    input:
        ancient(str(EXPERIMENT_FILE)),
    output:
        f"{RESULTS}/grid.json",
    log:
        f"{RESULTS}/logs/grid.log",
    retries: 0
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
        rules.grid.output,
        JOB_FILES,
    output:
        f"{RESULTS}/runs.parquet",
    log:
        f"{RESULTS}/logs/collect.log",
    retries: 0
    conda:
        "../envs/ipbench.yaml"
    params:
        experiment=EXPERIMENT.name,
    message:
        "collect the records of {EXPERIMENT.name}"
    shell:
        "python -m ipbench collect --complete results/{params.experiment:q} > {log:q} 2>&1"


rule tables:
    input:
        rules.collect.output,
    output:
        [f"{RESULTS}/{path}" for path in TABLES if not path.endswith(".html")],
        [
            report(
                f"{RESULTS}/{path}",
                category="Tables",
                caption=f"../report/tables/{Path(path).stem}.rst",
                labels={"table": Path(path).stem},
            )
            for path in TABLES
            if path.endswith(".html")
        ],
    log:
        f"{RESULTS}/logs/tables.log",
    retries: 0
    conda:
        "../envs/ipbench.yaml"
    params:
        experiment=EXPERIMENT.name,
    message:
        "tables of {EXPERIMENT.name}"
    shell:
        "python -m ipbench tables results/{params.experiment:q} > {log:q} 2>&1"


# Thousands of files, where there are many nets, all drawn at once: what needs them names one of them, for Snakemake
# compares every file that is named with every output of a rule.
rule figures:
    input:
        rules.collect.output,
    output:
        [f"{RESULTS}/{figure.path}" for figure in FIGURES if figure.format != "svg"],
        [report(f"{RESULTS}/{figure.path}", **in_report(figure)) for figure in FIGURES if figure.format == "svg"],
    log:
        f"{RESULTS}/logs/figures.log",
    retries: 0
    conda:
        "../envs/ipbench.yaml"
    params:
        experiment=EXPERIMENT.name,
    message:
        "figures of {EXPERIMENT.name}"
    shell:
        "python -m ipbench figures results/{params.experiment:q} > {log:q} 2>&1"


rule report:
    input:
        rules.collect.output,
    output:
        f"{RESULTS}/report.html",
    log:
        f"{RESULTS}/logs/report.log",
    retries: 0
    conda:
        "../envs/ipbench.yaml"
    params:
        experiment=EXPERIMENT.name,
    message:
        "report of {EXPERIMENT.name}"
    shell:
        "python -m ipbench report results/{params.experiment:q} > {log:q} 2>&1"


# A second Snakemake writes its own report, so that one call ends with it, whatever the profile. It only reads what this
# one has finished: it needs no lock, and no profile of the environment may change what it does.
rule snakemake_report:
    input:
        rules.tables.output,
        rules.figures.output[0],
    output:
        f"{RESULTS}/snakemake-report.html",
    log:
        f"{RESULTS}/logs/snakemake-report.log",
    retries: 0
    conda:
        "../envs/ipbench.yaml"
    params:
        snakefile=os.path.relpath(workflow.main_snakefile),
        experiment=str(EXPERIMENT_FILE),
        blocks=f"seeds_per_job={SEEDS_PER_JOB} sparsities_per_job={SPARSITIES_PER_JOB} processes={PROCESSES}",
    message:
        "Snakemake's report of {EXPERIMENT.name}"
    shell:
        "python -m snakemake --profile none --nolock --snakefile {params.snakefile:q} --configfile {params.experiment:q}"
        " --config {params.blocks} --report {output:q} -- {input:q} > {log:q} 2>&1"


# Tables and figures of what is finished so far:  snakemake partial --nolock ...  (no lock: another one may be at work)
rule partial:
    input:
        rules.grid.output,
    log:
        f"{RESULTS}/logs/partial.log",
    retries: 0
    conda:
        "../envs/ipbench.yaml"
    params:
        experiment=EXPERIMENT.name,
    message:
        "tables and figures of what {EXPERIMENT.name} has finished"
    shell:
        "(python -m ipbench collect results/{params.experiment:q} && python -m ipbench tables results/{params.experiment:q}"
        " && python -m ipbench figures results/{params.experiment:q}) > {log:q} 2>&1"
