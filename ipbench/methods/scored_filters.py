"""Filters removed by one ranking over all layers, by any of the scores that OrthoReg is compared with."""

from ipbench.methods import Continue, method
from ipbench.methods._filter_rounds import Removal
from ipbench.methods._fine_tuning import retraining


@method(
    name="scored-filters", family="after training", pattern="filters", budget="macs", knob="ratio",
    paper="as compared in Lubana et al.: OrthoReg, 2020, arXiv:2009.05014; tfo: Molchanov et al., CVPR 2019, "
    "arXiv:1906.10771; bn: Liu et al., ICCV 2017, arXiv:1708.06519; l1: Li et al., ICLR 2017, arXiv:1608.08710; sfp: "
    "He et al., IJCAI 2018, arXiv:1808.06866; grasp: Wang et al., ICLR 2020, arXiv:2002.07376",
)  # fmt: skip
def scored_filters(
    *, score: str = "fisher", ratio: float = 0.0, rounds: int = 1, before: int = 0, guard: str = "index",
    inner: bool = False, whole: str = "", per_class: int = 0, between: int = 0, epochs: int = 0, lr: float = 1.0,
    schedule: str = "recipe",
):  # fmt: skip
    """Train dense, remove the filters of the smallest score of all layers, at once or in rounds, train again.

    Scores of a filter, in evaluation mode and with the mean loss L over the score batch, as the public code of OrthoReg
    has them:

    * `fisher`: (sum of w * dL/dw over its weights and its bias)^2, no sum over images of squares;
    * `tfo`: (g * dL/dg)^2 of the scale g of the batch norm behind it; `bn`: |g|; `bn-fan-in`: |g| divided by the number
      of its weights, which is the code's `bn` for VGG. A layer without such a norm is refused;
    * `rdt`: sum over classes of p (d log p / dw)^2, with means over the images of a pass; each tensor is divided by its
      mean;
    * `l1`, `sfp`: L1 and L2 norm of its weights;
    * `grasp`: sum of w * (H g), logits divided by 200.

    In the interspace w are the weights of the filters. With the pattern `channels` a channel's score is the sum over
    the filters that make it; a convolution of single channels follows what it reads, and counts.

    All filters are in one ranking. A guard leaves int(0.05 n) + 1 filters to each layer of n: `index`, as the public
    code, those with the highest indices, wherever they stand in the ranking; `score`, the best ones.

    With R rounds and a share p in the end, round k removes p / (k p + R (1 - p)) of what is left: of p = 1/2 in two
    rounds a third and a quarter. Under a budget the shares are those of the budget's unit.

    Options:
        score: of a filter
        ratio: the share of all filters that goes, rounded down; 0: what the run's budget does not let stay
        rounds: in which they go, with a training after each
        before: 0: start from the dense run; else from a training of so many epochs at the recipe's rate, shared by all
            scores and ratios: an Early-Bird ticket of a fixed epoch (25 in OrthoReg's code)
        guard: index, score or none
        inner: only layers whose channels no skip connection shares lose filters; the others count
        whole: starts of names of layers that lose none, but count; with commas between them
        per_class: images of each class that scores see; 0: as many as a training batch has
        between: epochs after each round but the last; 0: as many as `epochs`
        epochs: of the training after the last round; 0: as many as the recipe has
        lr: of these trainings, as a factor of the recipe's
        schedule: of these: recipe; a tenth after 60 and 100 of 140 epochs (early), or after 40 and 80 of 100 (rounds),
            as OrthoReg's code

    Uncertain: the public code takes scores on augmented images in batches of 128, here they are plain, in passes of
    bounded size.
    """
    removal = Removal(score, ratio, guard, inner, whole, rounds, per_class)
    if before < 0:
        raise ValueError("before is 0 or more")
    start = Continue(of="orthonormal", options={"strength": 0.0, "epochs": before}) if before else Continue()
    middle, last = retraining(between or epochs, lr, schedule), retraining(epochs, lr, schedule)
    return [start, *removal.stages([middle], last)]
