"""GReg-1 and GReg-2: what is to go is squeezed by a weight decay that grows, before it goes."""

from __future__ import annotations

from typing import Any

from ipbench.methods import Continue, Stage, Train, method
from ipbench.methods._fine_tuning import fine_tuning
from ipbench.methods._growing import RECOVERIES, GrowDecay, updates_to
from ipbench.methods._ratios import ratios


def _stages(growing: dict[str, Any], prune_lr: float, batch: int, after: Train) -> list[Stage]:
    """The dense net, a training with growing factors, and one of what is left.

    The first has as many steps as its options say: so many updates, one every `every` steps, then `stabilise` steps.

    Raises:
        ValueError: an option has no meaning.
    """
    positive = ("rise", "every", "ceiling", "ratio_limit", *(("pick", "pick_ceiling") if "pick" in growing else ()))
    if small := [name for name in positive if not growing[name] > 0]:
        raise ValueError(f"{small[0]} is above 0")
    if growing["stabilise"] < 0 or batch < 0:
        raise ValueError("stabilise and batch are 0 or more")
    if growing.get("recovery", "code") not in RECOVERIES:
        raise ValueError(f"recovery is one of {', '.join(RECOVERIES)}")
    ratios(growing["ratios"])
    picks, start = updates_to(0.0, growing["pick"], growing["pick_ceiling"], False) if "pick" in growing else (0, 0.0)
    updates = picks + updates_to(start, growing["rise"], growing["ceiling"], True)[0]
    recipe = {"schedule": "constant", "warmup": 0, **({"batch_size": batch} if batch else {})}
    steps = (updates - 1) * growing["every"] + 1 + growing["stabilise"]
    grow = Train(GrowDecay.spec(**growing), lr=prune_lr, recipe=recipe, until="done", steps=steps)
    return [Continue(), grow, after]


@method(
    name="greg-1", family="after training", pattern="filters", allocation="uniform", budget="macs", knob="ratios",
    paper="Wang, Qin, Zhang, Fu: Neural Pruning via Growing Regularization, ICLR 2021, arXiv:2012.09243",
)  # fmt: skip
def greg_1(
    *,
    rise: float = 1e-4,
    every: int = 10,
    ceiling: float = 1.0,
    stabilise: int = 10_000,
    ratio_limit: float = 1000.0,
    ratios: str = "",
    prune_lr: float = 0.01,
    batch: int = 0,
    epochs: int = 0,
    lr: float = 0.1,
    schedule: str = "recipe",
):
    """Let the weight decay of each layer's smallest filters grow until they are nearly zero, remove them, fine-tune.

    Filters are chosen by their mean magnitude when the training begins. At every update the weight decay of those that
    go rises by `rise`; that of the others is the recipe's. The decay is added in single precision, as in the reference:
    with the defaults it is above 1 after 10,000 updates. Then nothing changes for `stabilise` steps and up to the end
    of the epoch, and the filters are removed.

    With pattern channels the filters that make a channel decay with all that reads it. With pattern coefficients single
    coefficients do, and ratios of magnitudes are not looked at, as in the reference.

    Options:
        rise: what the added decay grows by at an update
        every: steps between two updates; the paper takes 5 on ImageNet
        ceiling: a layer's decay stays as it is when it is above it
        stabilise: steps with all decays as they are; 40,000 on ImageNet
        ratio_limit: a layer's decay stays as it is, too, when in all layers what stays is so many times larger in
            the mean than what goes
        ratios: the share of units by the start of a layer's name, such as stage1=0.5,stage2=0.3, rounded up; empty:
            what the run's budget does not let stay, at one share for all layers. Either way of layers whose channels
            no skip connection shares
        prune_lr: of this training, as a factor of the recipe's
        batch: images per step of this training; 0: as many as the recipe has. 64 on ImageNet
        epochs: of fine-tuning; 0: as many as the recipe has
        lr: of fine-tuning, as a factor of the recipe's
        schedule: of fine-tuning: recipe, or wang, a tenth after a third, two thirds and five sixths of it

    Uncertain: `stabilise` of the paper for CIFAR; its README has 10,000, and a reader of the appendix tells of 5,000.
    """
    growing = {
        "rise": rise, "every": every, "ceiling": ceiling, "stabilise": stabilise, "ratio_limit": ratio_limit,
        "ratios": ratios,
    }  # fmt: skip
    return _stages(growing, prune_lr, batch, fine_tuning(epochs, lr, schedule))


@method(
    name="greg-2", family="after training", pattern="filters", allocation="uniform", budget="macs", knob="ratios",
    paper="Wang, Qin, Zhang, Fu: Neural Pruning via Growing Regularization, ICLR 2021, arXiv:2012.09243",
)  # fmt: skip
def greg_2(
    *,
    rise: float = 1e-4,
    every: int = 10,
    ceiling: float = 1.0,
    pick: float = 1e-5,
    pick_ceiling: float = 1e-2,
    recovery: str = "code",
    stabilise: int = 10_000,
    ratio_limit: float = 1000.0,
    ratios: str = "",
    prune_lr: float = 0.01,
    batch: int = 0,
    epochs: int = 0,
    lr: float = 0.1,
    schedule: str = "recipe",
):
    """Let the weight decay of all filters grow, pick those that are then the smallest, go on with these as `greg-1`.

    Where the loss is flat a filter shrinks faster under the same decay: what is picked has been asked by the curvature,
    too. The decay of all filters rises by `pick` at every update, up to `pick_ceiling` (with the defaults, at update
    1,001). Then that of the smallest goes on rising, by `rise`, and the others recover.

    Options:
        rise: what the added decay grows by at an update
        every: steps between two updates; the paper takes 5 on ImageNet
        ceiling: a layer's decay stays as it is when it is above it
        pick: what the decay of all grows by at an update, before it is picked
        pick_ceiling: the added decay at which it is picked
        recovery: what is added to the decay of what stays from then on: code, -0.0001 as in the reference; paper, minus
            the recipe's weight decay, so that there is none. They are the same at a weight decay of 0.0001
        stabilise: steps with all decays as they are; 40,000 on ImageNet
        ratio_limit: a layer's decay stays as it is, too, when what stays in it is so many times larger in
            the mean than what goes
        ratios: the share of units by the start of a layer's name, such as stage1=0.5,stage2=0.3, rounded up; empty:
            what the run's budget does not let stay, at one share for all layers. Either way of layers whose channels
            no skip connection shares
        prune_lr: of this training, as a factor of the recipe's
        batch: images per step of this training; 0: as many as the recipe has. 64 on ImageNet
        epochs: of fine-tuning; 0: as many as the recipe has
        lr: of fine-tuning, as a factor of the recipe's
        schedule: of fine-tuning: recipe, or wang, a tenth after a third, two thirds and five sixths of it

    Uncertain: the paper has one `rise` and a recovery that cancels the weight decay; the defaults are the reference's.
    """
    growing = {
        "rise": rise, "every": every, "ceiling": ceiling, "stabilise": stabilise, "ratio_limit": ratio_limit,
        "ratios": ratios, "pick": pick, "pick_ceiling": pick_ceiling, "recovery": recovery,
    }  # fmt: skip
    return _stages(growing, prune_lr, batch, fine_tuning(epochs, lr, schedule))
