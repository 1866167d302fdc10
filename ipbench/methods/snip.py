"""SNIP: connection sensitivity."""

from ipbench.methods import before_training, method


@method(when=before_training, paper="Lee, Ajanthan, Torr: SNIP, ICLR 2019, arXiv:1810.02340")
def snip(net, batch):
    """|c * dL/dc|: how much the loss reacts to removing each coefficient (sec. 4.1).

    The first-order change of the loss L on one batch when a coefficient c is taken away, before any training: a small
    score means that the loss does not notice. The paper divides by the sum over all scores, which changes no ranking.
    """
    gradients = net.averaged(lambda part: net.gradients(net.loss(part)), batch)
    return {name: (c * g).abs() for name, c, g in gradients}
