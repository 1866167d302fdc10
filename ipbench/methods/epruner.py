"""EPruner: the filters that stay are the exemplars of their layer, found by affinity propagation without any data."""

from __future__ import annotations

from ipbench.methods import Choose, Continue, Rewind, Slice, Train, method
from ipbench.methods._ratios import ratios


@method(
    family="after training", pattern="filters", allocation="uniform", budget="macs", knob="beta",
    paper="Lin et al.: Network Pruning Using Adaptive Exemplar Filters, TNNLS 2021, arXiv:2101.07985",
)  # fmt: skip
def epruner(
    *, beta: float = 0.0, depth: str = "", start: str = "centroids", head: str = "kept", epochs: int = 0,
    lr: float = 0.1,
):  # fmt: skip
    """Keep each layer's exemplar filters, found by affinity propagation; fine-tune the small net with new norms.

    A layer that alone makes its channels (of a ResNet: the first convolutions of each block) is a set of filters with
    similarities and preferences

        s(i, k) = -||w_i - w_k||^2,    p(k) = beta * median over i of s(i, k), s(k, k) = 0 included,

    and affinity propagation (Frey and Dueck, Science 2007; scikit-learn with its defaults and a fixed noise) chooses
    the exemplars among them, as many as it finds. They stay; the larger beta, the fewer. No images are seen. A beta at
    which a layer does not converge is an impossible run.

    With beta = 0 the run's budget is met: beta is enclosed by powers of two and then by halves, to 2^-12, as if the
    cost fell with it, which it does not everywhere; of all that was tried, what comes nearest to the budget from below
    is taken, and its beta stands in the record's notes. Values at which a layer does not converge are passed over.
    What the choice took stands in the record as `choosing_seconds`.

    Norms and biases of layers that lost filters begin anew, all other values are those of the dense net. Of a VGG the
    public code makes the classifier new, too (`head`).

    The public code overrides beta deep in the net. Its values are, as `depth`: VGG-16 (ours)
    `stage4.conv2=0.92,stage4.conv3=0.92,stage5=0.92`; of torchvision ResNet-18 `layer4=0.86`, ResNet-34
    `layer4.1=0.92,layer4.2=0.92`, ResNet-50 `layer4.*.conv2=0.85`, ResNet-101
    `layer3.21.conv2=0.92,layer3.22.conv2=0.92,layer4.*.conv2=0.92`, ResNet-152
    `layer3.34.conv2=0.92,layer3.35.conv2=0.92,layer4.*.conv2=0.92`; none for ResNets on CIFAR. Of our GoogLeNet it
    clusters three convolutions of a block,
    `stem=0,*.branch1x1=0,*.branch_pool=0,*.branch3x3.conv2=0,*.branch5x5.conv3=0`.

    Options:
        beta: of the preferences; 0: what the run's budget asks for
        depth: betas of single layers, `START=BETA` with commas between them: of all layers whose name begins so, the
            longest start counts, a star is one part of a name; with 0 a layer keeps all its filters
        start: of the small net: centroids, the exemplars with the inputs that are left; projection, the filters that
            read them are a sparse random projection onto as many inputs; random, all values are those that the run
            began with
        head: kept, or fresh: linear layers that read cut channels get the run's initial values
        epochs: of fine-tuning; 0: as many as the recipe has
        lr: of fine-tuning, as a factor of the recipe's

    Uncertain: the public code draws a random start and a fresh head anew; here they are the run's initial values. It
    gives new norms to all layers of a VGG, here to those that lost filters. Which filters the authors kept follows from
    their dense nets, which could not be read.
    """
    if beta < 0 or start not in ("centroids", "projection", "random") or head not in ("kept", "fresh"):
        raise ValueError("beta is 0 or more, start is centroids, projection or random, head is kept or fresh")
    if start == "random" and head == "fresh":
        raise ValueError("start=random makes the head fresh, too; leave head out")
    ratios(depth, below=None)
    choose = Choose(
        exemplar_filters, "exemplar filters", {"beta": beta, "depth": depth, "projected": start == "projection"},
        patterns=("filters", "channels"),
    )  # fmt: skip
    if start == "random":
        return [Continue(), choose, Slice(), Rewind(0), Train(epochs=epochs, lr=lr)]
    cut = Slice(fresh=("norms", "biases", "linear") if head == "fresh" else ("norms", "biases"))
    return [Continue(), choose, cut, Train(epochs=epochs, lr=lr)]


def exemplar_filters(net, *, beta, depth, projected):
    """Their masks; the reading filters are projected on what stays, if wanted."""
    from ipbench.methods._exemplars import choose  # here, so that planning a grid does not pay for torch

    return choose(net, beta=beta, depth=depth, projected=projected)
