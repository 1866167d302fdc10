"""ipbench: a reproducibility benchmark for neural-network pruning.

Importing this package, or anything that only plans or reads results, does not import torch.
"""

__version__ = "0.2.0"

#: Raised by one whenever a change gives all runs other numbers under the same identity. A change that touches some of
#: them stands in `ipbench.planning.numerics`, which gives the number that a record holds.
NUMERICS = 1
