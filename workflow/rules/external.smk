# Methods that are rules of the user: what their programs read, and the files of these rules. Included last, so that no
# rule of a user takes the name of one of ours.


wildcard_constraints:
    exchange=f"{RESULTS}/exchange/[^/]+/[0-9]+",
    cell="[0-9a-f]+",
    seed="[0-9]+",


# On the CPU: gradients do not depend on which jobs get a GPU. Net and batch go when the program has read them.
rule exchange:
    input:
        exchange_inputs,
    output:
        net=temp(f"{RESULTS}/exchange/{{cell}}/{{seed}}/net.safetensors"),
        batch=temp(f"{RESULTS}/exchange/{{cell}}/{{seed}}/batch.safetensors"),
        made_of=f"{RESULTS}/exchange/{{cell}}/{{seed}}/exchange.json",
    log:
        f"{RESULTS}/logs/exchange/{{cell}}/{{seed}}.log",
    conda:
        "../envs/ipbench.yaml"
    params:
        arguments=exchange_arguments,
        made_of=exchange_made_of,
        experiment=EXPERIMENT.name,
        places=exchange_places,
    message:
        "exchange {wildcards.cell} {wildcards.seed}"
    shell:
        "python -m ipbench exchange --device cpu --threads {threads} {params.places} {params.arguments}"
        " --out results/{params.experiment:q} > {log:q} 2>&1"


for rule_file in EXPERIMENT.rule_files:
    check_names(rule_file)

    include: os.path.abspath(rule_file)

    check_output(rule_file)
