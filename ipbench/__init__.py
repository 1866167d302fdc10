"""ipbench: a reproducibility benchmark for neural-network pruning.

Importing this package, or anything that only plans or reads results, does not import torch.
"""

__version__ = "0.2.0"

#: Raised by one whenever a change makes a run with the same identity give other numbers. It is part of every record,
#: and Snakemake repeats runs whose record holds an older one.
NUMERICS = 1
