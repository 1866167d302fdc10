"""The reference: nothing is pruned."""

from ipbench.methods import Stage, Train, method


@method(family="reference", paper="none: the unpruned net, trained by the same recipe")
def dense() -> list[Stage]:
    """Train all weights; in `ip` all coefficients and the filter bases.

    What every other method is measured against.
    """
    return [Train()]
