"""SFP and ASFP: filters are set to zero after every epoch, and go on training."""

from ipbench.methods import Continue, method
from ipbench.methods._soft import Schedule, Weakest, stages


@method(
    family="during training", pattern="filters", allocation="uniform", budget="macs", knob="rate",
    paper="He, Kang, Dong, Fu, Yang: Soft Filter Pruning for Accelerating Deep CNNs, IJCAI 2018, arXiv:1808.06866",
)  # fmt: skip
def sfp(*, rate: float = 0.0, inner: bool = False, pretrained: bool = False, epochs: int = 0, lr: float = 1.0):
    """After every epoch set each layer's filters of the smallest L2 norm to zero; all keep training."""
    return stages(Weakest(rate, inner), Schedule(), [Continue()] if pretrained else [], epochs, lr)


@method(
    family="during training", pattern="filters", allocation="uniform", budget="macs", knob="rate",
    paper="He, Dong, Kang, Fu, Yan, Yang: Asymptotic Soft Filter Pruning, IEEE T-Cyb 2019, arXiv:1808.07471",
)  # fmt: skip
def asfp(*, rate: float = 0.0, inner: bool = False, pretrained: bool = False, epochs: int = 0, lr: float = 1.0):
    """As SFP, of a share that rises: three quarters of it after an eighth of the training."""
    return stages(Weakest(rate, inner), Schedule(grow="exp"), [Continue()] if pretrained else [], epochs, lr)
