"""Random pruning before training."""

from ipbench.methods import before_training, method


@method(
    when=before_training,
    units="first",
    paper="Frankle et al.: Pruning Neural Networks at Initialization, ICLR 2021, arXiv:2009.08576",
)
def random(net, batch):
    """Keep coefficients, or units of a pattern, drawn uniformly at random.

    The control of every method that prunes before training. The numbers are keyed by seed and layer, the same in both
    spaces.
    """
    return {name: net.uniform(name) for name in net.coefficients}
