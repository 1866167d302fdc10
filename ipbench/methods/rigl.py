"""RigL: drop by magnitude, grow by the dense gradient; as published, and with the intervals of ITOP."""

from ipbench.methods import DropAndGrow, Prune, Train, method
from ipbench.methods.random import random


def by_gradient(net, layer, gradient, step):
    """|dL/dc| of the dense coefficient: grow where the loss would fall fastest."""
    return gradient.abs()


@method(family="during training", paper="Evci et al.: RigL, ICML 2020, arXiv:1911.11134")
def rigl(*, every: int = 100, fraction: float = 0.3, end: float = 0.0, until: float = 0.75, scaled: bool = False):
    """Drop the smallest coefficients, grow those with the largest gradients; a random start (alg. 1).

    Options:
        every: steps between two exchanges
        fraction: the share of the kept coefficients that is exchanged at the first
        end: that share at the last; it falls along a cosine
        until: the share of the training after which masks stay
        scaled: compare |c| * ||g||, with the norm of the coefficient's basis filter g, in place of |c|
    """
    return [Prune(random, "random"), Train(DropAndGrow(by_gradient, every, fraction, end, until, scaled))]


@method(
    name="rigl-itop",
    family="during training",
    paper="Liu et al.: Do We Actually Need Dense Over-Parameterization?, ICML 2021, arXiv:2102.02887",
)
def rigl_itop(
    *, every: int = 4000, fraction: float = 0.5, end: float = 0.005, until: float = 1.0, scaled: bool = False
):
    """RigL with the long intervals of ITOP: more of the net is explored in reliable steps.

    Options:
        every: steps between two exchanges
        fraction: the share of the kept coefficients that is exchanged at the first
        end: that share at the last; it falls along a cosine
        until: the share of the training after which masks stay
        scaled: compare |c| * ||g||, with the norm of the coefficient's basis filter g, in place of |c|
    """
    return rigl(every=every, fraction=fraction, end=end, until=until, scaled=scaled)
