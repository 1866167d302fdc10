"""SRFP and ASRFP: filters shrink after every epoch, by a factor that falls to zero, and go on training."""

from ipbench.methods import Continue, method
from ipbench.methods._soft import Schedule, Weakest, stages

PAPER = "Cai, An, Yang, Xu: Softer Pruning, Incremental Regularization, ICPR 2020, arXiv:2010.09498"


@method(
    family="during training", pattern="filters", allocation="uniform", budget="macs", knob="rate", paper=PAPER
)  # fmt: skip
def srfp(
    *, rate: float = 0.0, alpha: float = 0.5, sigma: float = 1e-5, inner: bool = False, pretrained: bool = False,
    epochs: int = 0, lr: float = 1.0,
):  # fmt: skip
    """After every epoch multiply the weakest filters by alpha_t, which falls exponentially; all keep training."""
    return stages(Weakest(rate, inner), Schedule(alpha, sigma), [Continue()] if pretrained else [], epochs, lr)


@method(
    family="during training", pattern="filters", allocation="uniform", budget="macs", knob="rate", paper=PAPER
)  # fmt: skip
def asrfp(
    *, rate: float = 0.0, alpha: float = 0.5, sigma: float = 1e-5, grow: str = "exp", inner: bool = False,
    pretrained: bool = False, epochs: int = 0, lr: float = 1.0,
):  # fmt: skip
    """As SRFP, of a share that rises: by the exponential of ASFP, or a cubic."""
    schedule = Schedule(alpha, sigma, grow=grow)
    return stages(Weakest(rate, inner), schedule, [Continue()] if pretrained else [], epochs, lr)
