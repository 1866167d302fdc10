"""OrthoReg: filters are made orthonormal first, so that the sum of their importances is that of what is removed."""

from ipbench.methods import Continue, method
from ipbench.methods._filter_rounds import Removal
from ipbench.methods._fine_tuning import retraining
from ipbench.methods._orthonormal import penalised_training


@method(
    family="reference",
    paper="Lubana, Trivedi, Hougen, Dick, Hero: OrthoReg: Robust Network Pruning Using Orthonormality Regularization, "
    "2020, arXiv:2009.05014",
)
def orthonormal(*, strength: float = 0.01, gram: str = "shape", epochs: int = 0, pretrained: bool = False):
    """Train all weights with a penalty on filters that are not orthonormal: what OrthoReg removes filters from.

        L = cross entropy + strength * sum over layers l of a_l * ||G_l - 1||_1

    with the entrywise 1-norm. A row of a layer's matrix W is a filter and its bias. G = W W^T, or W^T W where there are
    at least as many rows as columns. a_l = sqrt(n_l) / (sum over layers of sqrt(n)), n the side of G; of the first
    layer, and of those whose filters read one channel each, the number of filters. Layers are those that make channels
    which can be removed. There is no weight decay meanwhile.

    In the interspace W has the filters, and the penalty pulls at coefficients and filter bases. At a basis all filters
    of its layer pull: at the rate of the net it may not come to rest. On Fashion-MNIST (small-vgg, six seeds,
    `orthoreg-fashion-basis`) layers ended at an orthogonality of 0.98 to 1.00 in `sp`, 0.17 to 1.00 in `ip`, and 0.98
    to 1.00 there with `lr` 0.1 of the basis.

    The record tells of every layer ||diag G||_1 / ||G||_1 at the end (`orthogonality` in its notes), 1 where filters
    are orthogonal.

    Options:
        strength: of the penalty; the paper's code takes 0.001 for MobileNet. 0: none, and the recipe's weight decay
        gram: shape, as above; rows or columns: always W W^T, or always W^T W
        epochs: 0: as many as the recipe has, with its schedule; else so many at the recipe's rate, with a penalty the
            last one at a tenth of it
        pretrained: start from the dense run

    Uncertain: the public code writes down for each layer of its nets whether rows or columns are penalised, and n. The
    rules above give the same for its VGG-13, MobileNet and ResNet-34; of its ResNet-56 it penalises the columns of the
    stem (rows here). It weighs a shortcut like the convolution before it, here by its own n.
    """
    start = [Continue()] if pretrained else []
    return [*start, penalised_training(strength, gram, epochs)]


@method(
    family="after training", pattern="filters", budget="macs", knob="ratio",
    paper="Lubana, Trivedi, Hougen, Dick, Hero: OrthoReg: Robust Network Pruning Using Orthonormality Regularization, "
    "2020, arXiv:2009.05014",
)  # fmt: skip
def orthoreg(
    *, score: str = "fisher", ratio: float = 0.0, rounds: int = 1, strength: float = 0.01, gram: str = "shape",
    before: int = 0, pretrained: bool = False, guard: str = "index", inner: bool = False, whole: str = "",
    per_class: int = 0, between: int = 0, epochs: int = 0, lr: float = 1.0, schedule: str = "recipe",
):  # fmt: skip
    """Train with an orthonormality penalty, remove the filters of the smallest importance of all layers, train again.

    The first training is that of `orthonormal`, shared by all scores, ratios and rounds. Then as `scored-filters`,
    which differs by the penalty alone. Between two rounds what is left is trained without the penalty, then with it.

    Early-Bird tickets of the paper's code are `before=25` and training again as long as from scratch (`epochs=140`,
    `schedule=early`). As its code does it, rounds are `before=25`, `between=80`, `epochs=100`, `schedule=rounds`; as
    the paper does, which starts from a trained net, with `pretrained=true`, too.

    Options:
        score: of a filter: fisher, tfo, rdt, bn, bn-fan-in, l1, sfp or grasp, see `scored-filters`
        ratio: the share of all filters that goes; 0: what the run's budget does not let stay
        rounds: in which they go, see `scored-filters`
        strength: of the penalty; 0.001 for MobileNet in the paper's code
        gram: of the penalty, see `orthonormal`
        before: epochs of a training with the penalty; 0: as many as the recipe has
        pretrained: that training starts from the dense run
        guard: index, score or none, see `scored-filters`
        inner: only layers whose channels no skip connection shares lose filters; the others count
        whole: starts of names of layers that lose none, but count: stem for the ResNets of the paper's code
        per_class: images of each class that scores see; 0: as many as a training batch has
        between: epochs without the penalty after each round but the last; 0: as many as `epochs`
        epochs: of the training after the last round; 0: as many as the recipe has
        lr: of trainings without the penalty, as a factor of the recipe's
        schedule: of these: recipe; early or rounds, those of the paper's code

    Uncertain: the paper's iterative runs took Adam, which its code does not; here it is SGD. On ResNets the code
    multiplies the channels of what it removed on the skip path by zero behind the norm; here the filters are zero, and
    the norm's shift stays. It reports the best test epoch.
    """
    if not strength:
        raise ValueError("strength is above 0; without the penalty it is scored-filters")
    removal = Removal(score, ratio, guard, inner, whole, rounds, per_class)
    train = penalised_training(strength, gram, before)
    middle = retraining(between or epochs, lr, "between" if schedule == "rounds" else schedule)
    last = retraining(epochs, lr, schedule)
    first = Continue(
        of="orthonormal", options={"strength": strength, "gram": gram, "epochs": before, "pretrained": pretrained}
    )
    return [first, *removal.stages([middle, train], last)]
