"""Magnitude pruning before training."""

from ipbench.methods import before_training, method


@method(
    when=before_training, paper="Frankle et al.: Pruning Neural Networks at Initialization, ICLR 2021, arXiv:2009.08576"
)
def magnitude(net, batch):
    """|c|: keep the coefficients that start largest."""
    return {name: c.abs() for name, c in net.coefficients.items()}
