"""SET: drop by magnitude, grow at random; as published, and with the intervals of ITOP."""

from ipbench.methods import DropAndGrow, Prune, Train, method
from ipbench.methods.random import random


def at_random(net, layer, gradient, step):
    """Keyed uniform numbers, new ones at every step."""
    return net.uniform(layer, "growth", step)


@method(family="during training", paper="Mocanu et al.: SET, Nature Communications 2018, arXiv:1707.04780")
def set_(*, every: int = 100, fraction: float = 0.3, end: float = 0.3, until: float = 1.0, scaled: bool = False):
    """Drop the smallest coefficients, grow as many at random; a random start (sec. Methods).

    Options:
        every: steps between two exchanges
        fraction: the share of the kept coefficients that is exchanged at the first
        end: that share at the last; it falls along a cosine
        until: the share of the training after which masks stay
        scaled: compare |c| * ||g||, with the norm of the coefficient's basis filter g, in place of |c|
    """
    return [Prune(random, "random"), Train(DropAndGrow(at_random, every, fraction, end, until, scaled))]


@method(
    name="set-itop",
    family="during training",
    paper="Liu et al.: Do We Actually Need Dense Over-Parameterization?, ICML 2021, arXiv:2102.02887",
)
def set_itop(*, every: int = 1500, fraction: float = 0.5, end: float = 0.005, until: float = 1.0, scaled: bool = False):
    """SET with the long intervals of ITOP: new coefficients get time to grow.

    Options:
        every: steps between two exchanges
        fraction: the share of the kept coefficients that is exchanged at the first
        end: that share at the last; it falls along a cosine
        until: the share of the training after which masks stay
        scaled: compare |c| * ||g||, with the norm of the coefficient's basis filter g, in place of |c|
    """
    return set_(every=every, fraction=fraction, end=end, until=until, scaled=scaled)
