"""GMP: gradual magnitude pruning."""

from ipbench.methods import Gradual, Train, method
from ipbench.methods.magnitude import magnitude


@method(family="during training", paper="Zhu, Gupta: To prune, or not to prune, 2017, arXiv:1710.01878")
def gmp(*, every: int = 100, start: float = 0.0, until: float = 0.75, scaled: bool = False):
    """Prune the smallest coefficients every so many steps; the sparsity rises along a cubic (eq. 1).

        s_t = s (1 - (1 - (t - t_0) / (t_1 - t_0))^3) for t_0 <= t <= t_1.

    Options:
        every: steps between two prunings
        start: t_0, as a share of the training
        until: t_1, likewise
        scaled: compare |c| * ||g||, with the norm of the coefficient's basis filter g, in place of |c|
    """
    return [Train(Gradual(magnitude, every, start, until, options={"scaled": scaled}))]
