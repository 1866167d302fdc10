"""SRFP and ASRFP: filters shrink after every epoch, by a factor that falls to zero, and go on training."""

from ipbench.methods import Continue, method
from ipbench.methods._soft import Schedule, Trainings, Weakest, stages


@method(
    family="during training", pattern="filters", allocation="uniform", budget="macs", knob="rate",
    paper="Cai, An, Yang, Xu: Softer Pruning, Incremental Regularization, ICPR 2020, arXiv:2010.09498",
)  # fmt: skip
def srfp(
    *, rate: float = 0.0, alpha: float = 0.5, sigma: float = 1e-5, until: float = 0.9, inner: bool = False,
    pretrained: bool = False, epochs: int = 0, lr: float = 1.0, tune: int = 0, tune_lr: float = 0.1,
):  # fmt: skip
    """After every epoch multiply the weakest filters by alpha_t, which falls exponentially; all keep training.

        alpha_t = alpha exp(-k t) with k = -ln(sigma / (alpha + sigma / 100)) / T, and 0 from 90 % of the T epochs on.

    In less than twenty epochs that leaves no training behind the first zeros, and what is removed in the end was still
    in use: a short training wants a smaller `until`. With alpha = 0 it is SFP, bit for bit. With the pattern
    `coefficients` single weights shrink.

    A filter that is zero before a batch norm whose shift is not positive gets no gradient behind a ReLU, and stays
    zero. The record counts such filters, and those that came back (`filters_never_back`, `filters_back` in its notes).

    Options:
        rate: the share of the filters of every layer that is pruned; 0: what the run's budget does not let stay, at one
            share for all layers
        alpha: the factor before the first epoch
        sigma: about the factor at the last epoch
        until: the share of the training behind which the factor is 0
        inner: prune only layers whose channels no skip connection shares; the others cannot be cut by themselves
        pretrained: start from the dense run, as the paper does in a part of its tables
        epochs: of the training; 0: as many as the recipe has
        lr: of the training, as a factor of the recipe's; the paper takes 0.1 where it starts from a trained net
        tune: epochs of a training of what is left when the weakest are gone; the paper has none
        tune_lr: of that, as a factor of the recipe's

    Uncertain: the paper's own constants and code are not public; alpha and sigma are those of a later work of its first
    author, whose further changes (norms and gradients that shrink, too) are left out.
    """
    return stages(
        Weakest(rate, inner),
        Schedule(alpha, sigma, until),
        [Continue()] if pretrained else [],
        Trainings(epochs, lr, tune, tune_lr),
    )


@method(
    family="during training", pattern="filters", allocation="uniform", budget="macs", knob="rate",
    paper="Cai, An, Yang, Xu: Softer Pruning, Incremental Regularization, ICPR 2020, arXiv:2010.09498",
)  # fmt: skip
def asrfp(
    *, rate: float = 0.0, alpha: float = 0.5, sigma: float = 1e-5, until: float = 0.9, grow: str = "exp",
    inner: bool = False, pretrained: bool = False, epochs: int = 0, lr: float = 1.0, tune: int = 0,
    tune_lr: float = 0.1,
):  # fmt: skip
    """As SRFP, of a share that rises: by the exponential of ASFP, or a cubic.

    Options:
        rate: the share of the filters of every layer that is pruned; 0: what the run's budget does not let stay, at one
            share for all layers
        alpha: the factor before the first epoch
        sigma: about the factor at the last epoch
        until: the share of the training behind which the factor is 0
        grow: exp, as ASFP, or cubic: 1 - (1 - (t + 1) / T)^3
        inner: prune only layers whose channels no skip connection shares; the others cannot be cut by themselves
        pretrained: start from the dense run, as the paper does in a part of its tables
        epochs: of the training; 0: as many as the recipe has
        lr: of the training, as a factor of the recipe's; the paper takes 0.1 where it starts from a trained net
        tune: epochs of a training of what is left when the weakest are gone; the paper has none
        tune_lr: of that, as a factor of the recipe's

    Uncertain: as for SRFP; the reference of the later work takes the cubic where nothing else is said.
    """
    schedule = Schedule(alpha, sigma, until, grow)
    return stages(
        Weakest(rate, inner), schedule, [Continue()] if pretrained else [], Trainings(epochs, lr, tune, tune_lr)
    )
