"""SNIP: connection sensitivity."""

from ipbench.methods import before_training, cross_entropy, method


@method(when=before_training, paper="Lee, Ajanthan, Torr: SNIP, ICLR 2019, arXiv:1810.02340")
def snip(net, batch):
    """|c * dL/dc|: how much the loss reacts to removing each coefficient (sec. 4.1)."""
    loss = cross_entropy(net(batch.images), batch.labels)
    return {name: (c * g).abs() for name, c, g in net.gradients(loss)}
