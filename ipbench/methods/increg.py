"""IncReg: the weight decay of every group grows, or falls, with its rank, and what has enough of it goes."""

from __future__ import annotations

from math import ceil
from typing import Any

from ipbench.methods import Continue, Stage, Train, method
from ipbench.methods._floor import FloorDecay
from ipbench.methods._increments import FIRST_INCREMENT, limit_of, multiplier_of
from ipbench.methods._ranked import RankedDecay
from ipbench.methods._ratios import ratios as read_ratios


def _trainings(grow: Train, settle: int, prune_lr: float, recipe: dict[str, Any], after: dict[str, Any]) -> list[Stage]:
    """The dense net, a training with growing factors, `settle` steps with the masks as they are, and fine-tuning.

    Args:
        grow: the training with growing factors.
        settle: steps; 0: none.
        prune_lr: a factor of the recipe's learning rate.
        recipe: values of a recipe that are others in all trainings.
        after: epochs, lr and schedule of fine-tuning.

    Raises:
        ValueError: an option has no meaning.
    """
    if after["schedule"] not in ("decays", "recipe"):
        raise ValueError(f"schedule is decays or recipe, not {after['schedule']!r:.40}")
    calm = [Train(lr=prune_lr, recipe={**recipe, "schedule": "constant", "warmup": 0}, steps=settle)] if settle else []
    falling = {"schedule": "step", "milestones": (0.2, 0.4, 0.6, 0.8), "gamma": 0.1, "warmup": 0}
    tuned = {**recipe, **(falling if after["schedule"] == "decays" else {})}
    return [Continue(), grow, *calm, Train(epochs=after["epochs"], lr=after["lr"], recipe=tuned)]


def _check(above_zero: dict[str, float], not_below: dict[str, float]) -> None:
    """Whether options have a meaning.

    Raises:
        ValueError: one has none.
    """
    for name, value in above_zero.items():
        if not value > 0:
            raise ValueError(f"{name} is above 0")
    for name, value in not_below.items():
        if value < 0:
            raise ValueError(f"{name} is 0 or more")


@method(
    family="after training", pattern="columns", allocation="uniform", knob="ratios",
    paper="Wang, Zhang, Wang, Yu, Hu: Structured Pruning for Efficient ConvNets via Incremental Regularization, IJCNN"
    " 2019, arXiv:1804.09461",
)  # fmt: skip
def increg(
    *,
    rise: float = 2.5e-4,
    target: float = 2.5,
    multiplier: float = 0.0,
    ratios: str = "",
    first: bool = True,
    settle: int = 20_000,
    limit: int = 0,
    prune_lr: float = 0.05,
    batch: int = 0,
    weight_decay: float = 0.0,
    epochs: int = 0,
    lr: float = 0.05,
    schedule: str = "decays",
):
    """Let the weight decay of each column rise or fall at every step by its averaged rank, prune what has enough.

    At every step the groups of a layer are ranked by their L1 norm, and the ranks averaged over all steps so far. A
    group has a factor, which is added to the recipe's weight decay, and grows by an increment: `rise` for the group
    with the smallest average; less for the next ones; nothing for the first one that may stay; and less than nothing,
    but never below a factor of 0, for those behind it. Increments are exponentials of the place, symmetric about a
    point at a quarter of `rise`. A group whose factor has come to `target` times `multiplier` is removed for good;
    until then any group may still be spared. A layer that has lost its share goes on with the recipe's weight decay
    alone. Then follow `settle` steps with these masks, and fine-tuning.

    Groups are units of the pattern. With columns, as in the reference's experiments, a group is one kernel position of
    one input channel over all filters; masks stay masks, and nothing is cut. In the interspace it is one basis index of
    one input channel: all filters lose the share of that basis filter in that channel. That is a choice of ours, for a
    column of coefficients is no column of the filter that is convolved. With filters, the reference's mode of rows, and
    channels, norms are those of the filters. When all columns of an input channel are gone, the filter that makes it
    goes, too; when a filter is gone, the columns that read it; both not across a skip connection, and only where
    masked weights are zero.

    Options:
        rise: the largest increment; the reference takes the weight decay
        target: the factor at which a group goes, before it is multiplied; 5,000 to 10,000 times `rise`
        multiplier: of `target`, the product at most 10; 0: 2.452, which the reference takes here, too, though it is
            meant for `increg-accuracy`, of a first increment of 0.2. The first group of a layer goes at step 24,521,
            and with 1 at step 10,000
        ratios: the share of groups by the start of a layer's name, such as layer1=0.5,layer2=0.3, rounded up; empty:
            what the run's budget does not let stay, at one share for all layers. One group of a layer stays; with
            filters and channels, of layers whose channels no skip connection shares
        first: without ratios, whether the first layer is pruned, too; it is not in the reference's VGG-16
        settle: steps with the masks before fine-tuning
        limit: steps until all groups are gone that are to go, at most, else the run is impossible; 0: 20 times as many
            as the first one takes. With ranks that never change a layer of 5,000 groups needs 11 times as many
        prune_lr: until fine-tuning, as a factor of the recipe's
        batch: images per step until the groups are gone; 0: as many as the recipe has
        weight_decay: of all trainings; 0: the recipe's. The reference takes half of what the net was trained with
        epochs: of fine-tuning; 0: as many as the recipe has
        lr: of fine-tuning, as a factor of the recipe's
        schedule: of fine-tuning: decays, a tenth after each fifth of it; recipe

    Uncertain: the paper's text was not at hand; all of this is from the public code. Factors are of double precision
    here and of single precision there, where the first group goes at step 24,523. The reference's mode of rows writes
    the mark of a removed filter to another place than it reads it from; here filters are ranked as columns are. The
    reference fine-tunes with learning rates that fall when the test accuracy no longer rises.
    """
    _check(
        {"rise": rise, "target": target},
        {"multiplier": multiplier, "settle": settle, "limit": limit, "batch": batch, "weight_decay": weight_decay},
    )
    read_ratios(ratios)
    factor = limit_of(target, multiplier or multiplier_of(FIRST_INCREMENT))
    recipe = {"weight_decay": weight_decay} if weight_decay else {}
    grow = Train(
        RankedDecay.spec(rise=rise, limit=factor, ratios=ratios, first=first),
        lr=prune_lr,
        recipe={**recipe, "schedule": "constant", "warmup": 0, **({"batch_size": batch} if batch else {})},
        until="done",
        steps=limit or 20 * ceil(factor / rise),
    )
    return _trainings(grow, settle, prune_lr, recipe, {"epochs": epochs, "lr": lr, "schedule": schedule})


@method(
    name="increg-accuracy", family="after training", pattern="columns", allocation="uniform", knob="floor",
    paper="Wang, Zhang, Wang, Yu, Hu: Structured Pruning for Efficient ConvNets via Incremental Regularization, IJCNN"
    " 2019, arXiv:1804.09461",
)  # fmt: skip
def increg_accuracy(
    *,
    floor: float = 0.0,
    rise: float = 2.5e-4,
    target: float = 2.5,
    ratios: str = "",
    pace: str = "",
    first: bool = True,
    settle: int = 20_000,
    patience: int = 6,
    limit: int = 0,
    prune_lr: float = 0.05,
    batch: int = 0,
    weight_decay: float = 0.0,
    epochs: int = 0,
    lr: float = 0.05,
    schedule: str = "decays",
):
    """Prune in rounds as `increg` while the validation accuracy stays above a floor, take back a round that is not.

    In the first epoch nothing is pruned, to know the validation accuracy of the dense net. Every round raises the
    pruned share of all layers, the first one by 0.2, trains `settle` steps with the masks, and evaluates after every
    epoch until there has been no new best for more than `patience` epochs. The mean of the three best accuracies is the
    round's. At 0.0005 below the floor or higher, the net of its best epoch is kept, and the next increment is ten times
    the margin, from 0.01 to 0.2. Else the net, the masks and the averaged ranks of the last good round come back, and
    the next increment is where a straight line between the two rounds meets the floor. It ends when an increment would
    be below 0.01, or when all layers have lost as much as they may. The factor at which a group goes is `target` times
    a sigmoid of the increment, 0.25 at 0.01, 1 at 0.05 and 2.452 at 0.2, at most 10.

    The validation part decides, never the test part. A recipe without one is refused. With the floor 0 every round is
    good, and the run ends at its budget.

    Groups are units of the pattern, as in `increg`; in the interspace a column is one basis index of one input channel.

    Options:
        floor: of the validation accuracy, from 0 up to, not including, 1; 0: none
        rise: the largest increment of a factor; the reference takes the weight decay
        target: the factor at which a group goes, before it is multiplied; 5,000 to 10,000 times `rise`
        ratios: the share of groups that may go at most, by the start of a layer's name; empty: 0.9 of all layers
        pace: by the start of a layer's name, by how much its share grows while that of others grows by 0.5; empty: 0.5.
            The reference takes what gives all layers the same share of multiplications then
        first: without ratios, whether the first layer is pruned, too
        settle: steps of a round with the masks before it is evaluated
        patience: epochs without a new best in which a round goes on
        limit: steps of all rounds, at most, else the run is impossible; 0: 200 times as many as the first group takes
        prune_lr: until fine-tuning, as a factor of the recipe's
        batch: images per step until fine-tuning; 0: as many as the recipe has
        weight_decay: of all trainings; 0: the recipe's. The reference takes half of what the net was trained with
        epochs: of fine-tuning; 0: as many as the recipe has
        lr: of fine-tuning, as a factor of the recipe's
        schedule: of fine-tuning: decays, a tenth after each fifth of it; recipe

    Uncertain: the paper's text was not at hand; all of this is from the public code, which decides by the test images
    and is told the accuracy of the dense net. There the learning rate falls within a round, too, so that its accuracy
    is higher when it is judged; here it is constant until fine-tuning. Ranks are averaged over the steps in which a
    layer was ranked; there, steps between the rounds count in the average, too.
    """
    _check(
        {"rise": rise, "target": target},
        {
            "floor": floor, "settle": settle, "patience": patience, "limit": limit, "batch": batch,
            "weight_decay": weight_decay,
        },
    )  # fmt: skip
    if not floor < 1:
        raise ValueError("floor is below 1")
    if ratios and not floor:
        raise ValueError("ratios are what layers may lose above a floor; with the floor 0 the budget says it")
    read_ratios(ratios)
    read_ratios(pace, below=None)
    growing: dict[str, Any] = {
        "rise": rise, "target": target, "floor": floor, "settle": settle, "patience": patience, "ratios": ratios,
        "pace": pace, "first": first,
    }  # fmt: skip
    recipe = {"weight_decay": weight_decay} if weight_decay else {}
    grow = Train(
        FloorDecay.spec(**growing),
        lr=prune_lr,
        recipe={**recipe, "schedule": "constant", "warmup": 0, **({"batch_size": batch} if batch else {})},
        until="done",
        steps=limit or 200 * ceil(limit_of(target, multiplier_of(FIRST_INCREMENT)) / rise),
    )
    return _trainings(grow, 0, prune_lr, recipe, {"epochs": epochs, "lr": lr, "schedule": schedule})
