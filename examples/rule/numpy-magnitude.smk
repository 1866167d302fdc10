# |c|: keep the largest coefficients, computed by NumPy outside of ipbench.
#
# `{exchange}` is the folder of one run: ipbench writes net and batch there, and looks for the output.
#
# paper: Frankle et al.: Pruning Neural Networks at Initialization, ICLR 2021, arXiv:2009.08576


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
    shell:
        "python {params.script:q} {wildcards.exchange:q} > {log:q} 2>&1"
