# The data sets, before any training.


localrules:
    fetch,


# Where Snakemake runs: the nodes of a cluster often reach no other machine.
rule fetch:
    output:
        touch("data/{dataset}.fetched"),
    log:
        "data/{dataset}.log",
    conda:
        "../envs/ipbench.yaml"
    message:
        "fetch {wildcards.dataset}"
    shell:
        "python -m ipbench data fetch {wildcards.dataset:q} > {log:q} 2>&1"


rule beton:
    input:
        ancient("data/{dataset}.fetched"),
    output:
        train="data/beton/{dataset}-train.beton",
        test="data/beton/{dataset}-test.beton",
    log:
        "data/beton/{dataset}.log",
    conda:
        "../envs/ipbench.yaml"
    message:
        "beton: {wildcards.dataset}"
    shell:
        "python -m ipbench data beton {wildcards.dataset:q} > {log:q} 2>&1"
