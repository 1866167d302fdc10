"""FreezeNet: train the weights that matter, keep all others at their seeded initial value."""

from ipbench.methods import before_training, method
from ipbench.methods.snip import snip


@method(
    when=before_training,
    off="frozen",
    paper="Wimmer, Mehnert, Condurache: FreezeNet, ACCV 2020, arXiv:2011.14087",
)
def freezenet(net, batch):
    """|c * dL/dc|, as SNIP; what is left out keeps its initial value (off: decayed lets weight decay shrink it).

    A frozen coefficient costs no storage, since its value follows from the seed, and keeps the gradient flowing through
    layers of which almost nothing is trained.
    """
    return snip(net, batch)
