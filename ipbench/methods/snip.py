"""SNIP: connection sensitivity."""

from ipbench.methods import before_training, cross_entropy, method


@method(when=before_training, paper="Lee, Ajanthan, Torr: SNIP, ICLR 2019, arXiv:1810.02340")
def snip(net, batch):
    """|c * dL/dc|: how much the loss reacts to removing each coefficient (sec. 4.1)."""
    gradients = net.averaged(lambda part: net.gradients(cross_entropy(net(part.images), part.labels)), batch)
    return {name: (c * g).abs() for name, c, g in gradients}
