# ipbench: every figure of one experiment.  snakemake --profile slurm --configfile config/NAME.yaml
from snakemake.utils import min_version

min_version("9.19")  # the first to read profile.yaml


report: "workflow/report/experiment.rst"


include: "workflow/rules/experiment.smk"  # which experiment: there is no default one to run by accident
include: "workflow/rules/cluster.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/run.smk"
include: "workflow/rules/results.smk"
include: "workflow/rules/scored.smk"
include: "workflow/rules/external.smk"


localrules:
    all,


# Every product is named, the jobs too: Snakemake does not make a missing file anew while all that follows is there. Of
# the figures one is enough, see there.
rule all:
    default_target: True
    input:
        rules.grid.output,
        JOB_FILES,
        rules.collect.output,
        rules.tables.output,
        a_figure,
        rules.report.output,
        rules.snakemake_report.output,
    message:
        "{EXPERIMENT.name} is complete"
