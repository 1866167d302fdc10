"""Magnitude pruning before training; its score is that of every method that prunes what is small."""

from ipbench.methods import before_training, method


@method(
    when=before_training, paper="Frankle et al.: Pruning Neural Networks at Initialization, ICLR 2021, arXiv:2009.08576"
)
def magnitude(net, batch, *, scaled: bool = False):
    """|c|: keep the largest coefficients; scaled: |c| * ||g||, with the norm of the coefficient's basis filter g.

    Of the untrained net: a control for scores that look at data.

    Options:
        scaled: compare |c| * ||g||, with the norm of the coefficient's basis filter g, in place of |c|
    """
    return net.magnitudes(scaled)
