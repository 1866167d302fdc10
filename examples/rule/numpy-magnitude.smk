# |c|: keep the largest coefficients, computed by NumPy outside of ipbench.
#
# paper: Frankle et al.: Pruning Neural Networks at Initialization, ICLR 2021, arXiv:2009.08576


# The rule is Snakemake's: any program, `conda:`, `container:`, threads, resources. `{exchange}` is the folder of one
# run, in which ipbench writes the two inputs and looks for the output.
rule numpy_magnitude:
    input:
        net="{exchange}/net.safetensors",
        batch="{exchange}/batch.safetensors",
    output:
        "{exchange}/numpy-magnitude.safetensors",
    log:
        "{exchange}/numpy-magnitude.log",
    params:
        script=f"{workflow.current_basedir}/numpy_magnitude.py",
    message:
        "{wildcards.exchange}"
    shell:
        "python {params.script:q} {input.net:q} {output:q} > {log:q} 2>&1"
