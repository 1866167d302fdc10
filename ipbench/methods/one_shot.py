"""Filters removed at once from the trained net, then fine-tuning: what structured methods are compared with."""

from ipbench.methods import Choose, Continue, _ratios, method
from ipbench.methods._fine_tuning import fine_tuning


def _stages(score, name, ratios, inner, epochs, lr, schedule):
    _ratios.ratios(ratios)

    def choose(net):
        scores, blocks = score(net), net.inner if inner else net.blocks
        if ratios:
            return net.select_each(scores, _ratios.rates_of(ratios, blocks), rounding="ceil")
        return net.select(scores, net.target, blocks=blocks)

    return [Continue(), Choose(choose, name), fine_tuning(epochs, lr, schedule)]


@method(
    name="l1-filters", family="after training", pattern="filters", allocation="uniform", budget="macs", knob="ratios",
    paper="Li, Kadav, Durdanovic, Samet, Graf: Pruning Filters for Efficient ConvNets, ICLR 2017, arXiv:1608.08710; "
    "schedule wang: Wang, Qin, Bai, Fu, arXiv:2301.05219",
)  # fmt: skip
def l1_filters(*, ratios: str = "", inner: bool = True, epochs: int = 0, lr: float = 0.1, schedule: str = "recipe"):
    """Train dense, remove each layer's filters of the smallest L1 norm at once, fine-tune.

    What every structured method has to beat at equal multiply-accumulates and equal fine-tuning.

    Options:
        ratios: the share of the filters by the start of a layer's name, such as stage1=0.5,stage2=0.3; empty: what the
            run's budget does not let stay, at one share for all layers
        inner: prune only layers whose channels no skip connection shares
        epochs: of fine-tuning; 0: as many as the recipe has
        lr: of fine-tuning, as a factor of the recipe's
        schedule: of fine-tuning: recipe, or wang, a tenth after a third, two thirds and five sixths of it
    """
    return _stages(
        lambda net: {name: w.abs() for name, w in net.weights.items()}, "filters by L1 norm",
        ratios, inner, epochs, lr, schedule,
    )  # fmt: skip


@method(
    name="random-filters", family="after training", pattern="filters", allocation="uniform", budget="macs",
    knob="ratios", paper="the control: any filters instead of the weakest",
)  # fmt: skip
def random_filters(*, ratios: str = "", inner: bool = True, epochs: int = 0, lr: float = 0.1, schedule: str = "recipe"):
    """Train dense, remove random filters of each layer at once, fine-tune.

    Options:
        ratios: the share of the filters by the start of a layer's name, such as stage1=0.5,stage2=0.3; empty: what the
            run's budget does not let stay, at one share for all layers
        inner: prune only layers whose channels no skip connection shares
        epochs: of fine-tuning; 0: as many as the recipe has
        lr: of fine-tuning, as a factor of the recipe's
        schedule: of fine-tuning: recipe, or wang, a tenth after a third, two thirds and five sixths of it
    """
    return _stages(
        lambda net: {name: net.uniform(name) for name in net.names}, "filters at random",
        ratios, inner, epochs, lr, schedule,
    )  # fmt: skip
