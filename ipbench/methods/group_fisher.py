"""Group Fisher: channels go one by one while the net trains, those whose gates matter least to single images."""

from __future__ import annotations

from ipbench.methods import method
from ipbench.methods._fine_tuning import fine_tuning
from ipbench.methods._fisher import stages


@method(
    name="group-fisher", family="after training", pattern="channels", budget="macs",
    paper="Liu et al.: Group Fisher Pruning for Practical Network Compression, ICML 2021, arXiv:2108.00708",
)  # fmt: skip
def group_fisher(
    *,
    every: int = 25,
    channels: int = 1,
    normalise: str = "memory",
    internal: bool = False,
    score: str = "fisher",
    prune_lr: float = 0.04,
    batch: int = 0,
    epochs: int = 0,
    lr: float = 1.0,
    schedule: str = "recipe",
):
    """Remove channels while the dense net goes on training, the one with the least Fisher information per cost first.

    All layers that read a channel share one gate m_i = 1, the layers of a residual stream and convolutions with groups,
    too. Over the images n of `every` steps

        s_i = sum over n of (sum over layers x of dL_n/dm_i^x)^2 / cost_i:

    derivatives are summed over the layers that read the channel, over positions and over several calls of a layer
    before the square. Of a convolution with groups whole groups go. The channel with the smallest s_i of the whole net
    is masked in all layers that make or read it, so that nothing reads the constant of its norm, and sums begin anew;
    so until the budget is met. One channel of every group stays. The rest of that epoch is trained without removals.
    Then the channels are cut, and what is left is fine-tuned.

    The loss is the one that is trained, whatever the task; derivatives are those of the training's own passes, norms in
    training mode.

    Options:
        every: steps from one removal to the next; the paper takes 25 for classification, 10 for detection
        channels: how many go at a removal; more than 1 is a shortcut of this suite, not the paper's: scores and costs
            are not taken again between them
        normalise: what scores are divided by: memory, the numbers that are made in the channel; flops, the
            multiply-accumulates that go with it, with the widths that are left; none
        internal: remove only channels that no skip connection shares, each of one layer
        score: fisher, or gradient: the size of the sum of all derivatives
        prune_lr: learning rate while channels go, as a factor of the recipe's; constant
        batch: images per step of this training; 0: as many as the recipe has
        epochs: of fine-tuning; 0: as many as the recipe has
        lr: of fine-tuning, as a factor of the recipe's
        schedule: of fine-tuning: recipe, or wang, a tenth after a third, two thirds and five sixths of it

    Uncertain: the authors' code for classification is not public, and the paper's appendix could not be read; rates
    are those of another public implementation, which gives 0.004 where the recipe has 0.1. There, a convolution
    with groups counts twice in flops, here once; groups whose scores are all zero are passed over, here they go
    first; and a channel goes behind the step that completes its score, here before it. How the paper sums the
    first-order gradient is not known.
    """
    removal = {
        "every": every, "channels": channels, "normalise": normalise, "internal": internal, "score": score,
    }  # fmt: skip
    return stages(removal, prune_lr, batch, fine_tuning(epochs, lr, schedule))
