"""SynFlow: iterative synaptic flow pruning, without data."""

from ipbench.methods import before_training, method


@method(
    when=before_training(rounds=100),
    positive=True,
    paper="Tanaka et al.: SynFlow, NeurIPS 2020, arXiv:2006.05467",
)
def synflow(net, batch):
    """|c| * dR/d|c| where R is the sum of all paths' absolute weights: ones sent through |net| (alg. 1).

    No image is looked at. R is the sum of the outputs of the net with absolute coefficients for an input of ones, and
    the score of a coefficient is the part of R that flows through it. What flows into a unit flows out of it, so that
    no layer is emptied while others are whole, if one prunes in many rounds.
    """
    with net.linearised() as twin:
        return {name: (c * g).detach() for name, c, g in twin.gradients(twin.flow(batch))}
