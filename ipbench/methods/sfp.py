"""SFP and ASFP: filters are set to zero after every epoch, and go on training."""

from ipbench.methods import Continue, method
from ipbench.methods._soft import Schedule, Trainings, Weakest, stages


@method(
    family="during training", pattern="filters", allocation="uniform", budget="macs", knob="rate",
    paper="He, Kang, Dong, Fu, Yang: Soft Filter Pruning for Accelerating Deep CNNs, IJCAI 2018, arXiv:1808.06866",
)  # fmt: skip
def sfp(
    *, rate: float = 0.0, inner: bool = False, pretrained: bool = False, epochs: int = 0, lr: float = 1.0,
    tune: int = 0, tune_lr: float = 0.1,
):  # fmt: skip
    """After every epoch set each layer's filters of the smallest L2 norm to zero; all keep training.

    Which filters are zero is decided anew after every epoch, and once before the first; norms, biases and momentum are
    left alone. At the end the filters that are zero are removed. The number of a layer is int(n * (1 - kept)) as in the
    reference, in floating point: of 10 filters at a kept rate of 0.9 none goes.

    A filter that is zero before a batch norm whose shift is not positive gets no gradient behind a ReLU, and stays
    zero. The record counts such filters, and those that came back (`filters_never_back`, `filters_back` in its notes).

    Options:
        rate: the share of the filters of every layer that is pruned; 0: what the run's budget does not let stay, at one
            share for all layers
        inner: prune only layers whose channels no skip connection shares; the others cannot be cut by themselves
        pretrained: start from the dense run, as the paper does in a part of its tables
        epochs: of the training; 0: as many as the recipe has
        lr: of the training, as a factor of the recipe's; the paper takes 0.1 where it starts from a trained net
        tune: epochs of a training of what is left when the weakest are gone; the paper has none
        tune_lr: of that, as a factor of the recipe's
    """
    return stages(
        Weakest(rate, inner), Schedule(), [Continue()] if pretrained else [], Trainings(epochs, lr, tune, tune_lr)
    )


@method(
    family="during training", pattern="filters", allocation="uniform", budget="macs", knob="rate",
    paper="He, Dong, Kang, Fu, Yan, Yang: Asymptotic Soft Filter Pruning, IEEE T-Cyb 2019, arXiv:1808.07471",
)  # fmt: skip
def asfp(
    *, rate: float = 0.0, inner: bool = False, pretrained: bool = False, epochs: int = 0, lr: float = 1.0,
    tune: int = 0, tune_lr: float = 0.1,
):  # fmt: skip
    """As SFP, of a share that rises: three quarters of it after an eighth of the training.

        P(t) = P (1 - exp(-k t)) with k = ln 4 / (T / 8), and P from 95 % of the T epochs on.

    Options:
        rate: the share of the filters of every layer that is pruned; 0: what the run's budget does not let stay, at one
            share for all layers
        inner: prune only layers whose channels no skip connection shares; the others cannot be cut by themselves
        pretrained: start from the dense run, as the paper does in a part of its tables
        epochs: of the training; 0: as many as the recipe has
        lr: of the training, as a factor of the recipe's; the paper takes 0.1 where it starts from a trained net
        tune: epochs of a training of what is left when the weakest are gone; the paper has none
        tune_lr: of that, as a factor of the recipe's

    Uncertain: code of the authors was never released; the form is that of a port by others, and the end of the rise
    that of a later work of the field.
    """
    return stages(
        Weakest(rate, inner),
        Schedule(grow="exp"),
        [Continue()] if pretrained else [],
        Trainings(epochs, lr, tune, tune_lr),
    )
