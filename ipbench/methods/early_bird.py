"""Early-Bird tickets: the net is pruned as soon as it is clear which channels will go."""

from ipbench.methods import Train, method
from ipbench.methods._early_bird import AGAINST, MaskDistance
from ipbench.methods._filter_rounds import Removal
from ipbench.methods._filter_scores import DATA_FREE
from ipbench.methods._fine_tuning import retraining


@method(
    name="early-bird", family="during training", pattern="filters", budget="macs", knob="ratio",
    paper="You et al.: Drawing Early-Bird Tickets: Toward More Efficient Training of Deep Networks, ICLR 2020, "
    "arXiv:1909.11957",
)  # fmt: skip
def early_bird(
    *, score: str = "bn", ratio: float = 0.0, window: int = 5, below: float = 0.1, against: str = "last",
    slimming: float = 0.0, most: int = 0, guard: str = "none", inner: bool = False, whole: str = "", epochs: int = 0,
    lr: float = 1.0, schedule: str = "recipe",
):  # fmt: skip
    """Train until the filters that would go stay nearly the same from epoch to epoch, remove them, train what is left.

    After every epoch it is drawn, for the run's budget or ratio, which filters would go. The distance of two such masks
    is the share of filters in which they differ. When the last `window` distances from one epoch to the next are all
    below `below`, the ticket is there. Nothing is known of it before, so the rate is constant until then. If it does
    not come in `most` epochs, it is drawn then. The record tells how many epochs it took, and all distances
    (`early_bird` in its notes). Weights are kept; what is left is trained by the whole recipe.

    Tickets after a fixed number of epochs are `scored-filters` and `orthoreg` with the option `before`.

    Options:
        score: of a filter: bn, the scale of its batch norm; bn-fan-in, l1 or sfp, see `scored-filters`
        ratio: the share of all filters that goes; 0: what the run's budget does not let stay
        window: how many distances, or masks, are looked at
        below: the limit of distances
        against: last, the epoch before; all: the newest of `window` masks is compared with each of the others, and may
            differ by `below`, as in the public code
        slimming: strength of a penalty on the absolute scales of batch norms meanwhile; 0.0001 in the public code where
            it is asked for
        most: epochs of the first training, at most; 0: as many as the recipe has
        guard: index, score or none, see `scored-filters`
        inner: only layers whose channels no skip connection shares lose filters; the others count
        whole: starts of names of layers that lose none, but count
        epochs: of the training of what is left; 0: as many as the recipe has
        lr: of that, as a factor of the recipe's
        schedule: of that: recipe; early or rounds, see `scored-filters`

    Uncertain: the public code draws before each epoch, and compares a mask with all that it holds; the paper's
    algorithm 1 holds distances of consecutive epochs.
    """
    if score not in DATA_FREE:
        raise ValueError(f"score is one that looks at no image, {', '.join(DATA_FREE)}, not {score!r:.40}")
    if not 2 <= window <= 1000 or not 0 < below <= 1 or against not in AGAINST or not 0 <= slimming <= 1000:
        raise ValueError(
            "window is from 2 to 1000, below above 0 and up to 1, against last or all, slimming from 0 to 1000"
        )
    removal = Removal(score, ratio, guard, inner, whole)
    watch = MaskDistance.spec(
        score=score, ratio=ratio, guard=guard, inner=inner, whole=whole, window=window, below=below, against=against,
        slimming=slimming,
    )  # fmt: skip
    search = Train(watch, epochs=most, recipe={"schedule": "constant", "warmup": 0}, until="done")
    return [search, *removal.stages([], retraining(epochs, lr, schedule))]
