"""GMP: gradual magnitude pruning."""

from ipbench.methods import Gradual, Train, method
from ipbench.methods.magnitude import magnitude


@method(family="during training", paper="Zhu, Gupta: To prune, or not to prune, 2017, arXiv:1710.01878")
def gmp(*, every: int = 100, start: float = 0.0, until: float = 0.75, scaled: bool = False):
    """Prune the smallest coefficients every so many steps; the sparsity rises along a cubic (eq. 1)."""
    return [Train(Gradual(magnitude, every, start, until, options={"scaled": scaled}))]
