"""Controls while they run: what they take of the method's own run, and how long they train."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from torch import Tensor

from ipbench import keys, methods
from ipbench.data.loaders import Data
from ipbench.errors import BadInput, BadProduct
from ipbench.methods._stages import MOST_EPOCHS
from ipbench.runs.state import End, State
from ipbench.sparse import measure
from ipbench.sparse.dense_shapes import of_the_dense_net
from ipbench.sparse.net import SparseNet
from ipbench.sparse.rearranging import narrowed, rearranged
from ipbench.sparse.structure import Structure
from ipbench.spec import Recipe, Run


@dataclass(frozen=True)
class Source:
    """The method's own run, which a run is a control of.

    Attributes:
        run: itself.
        record: of it.
        end: where it ended.
    """

    run: Run
    record: Mapping[str, Any]
    end: End


def of_nobody() -> Source:
    """In place of a source, for runs that are no control."""
    raise AssertionError("this run takes nothing of another one")


def initial_seed(run: Run) -> int:
    """What initial values are drawn by: the seed, or a key of it where a control draws them anew."""
    return keys.key(run.seed, "control", "initial values") if run.control in methods.FRESH else run.seed


def take(
    net: SparseNet,
    state: State,
    stage: methods.Take,
    source: Source,
    dense: Callable[[], SparseNet],
    small: Callable[[SparseNet], dict[str, Tensor]],
) -> None:
    """Execute a `Take` stage; what is trained is then what it says.

    A net that has fewer channels from the start is drawn as a net of these widths is: its layers have fewer inputs.

    Args:
        net: as it begins, changed in place.
        state: told how long the method's run was trained.
        stage: what is taken.
        source: of which run.
        dense: makes a net of the run as it is built.
        small: the initial values of a net that is cut, drawn for its shapes.

    Raises:
        Impossible: no narrower net is small enough.
        BadProduct: the end was kept by a version that does not tell what is needed of it.
    """
    end = source.end
    if not math.isfinite(end.facts.get("epochs", math.nan)):
        raise BadProduct(
            f"cell {source.run.cell}, seed {source.run.seed}: its end was kept by a version that does not tell its"
            " epochs; delete it in ends/, and it is trained again"
        )
    if stage.masks in ("narrow", "narrow macs"):
        net.cut(_narrow(net, stage, source))
    elif stage.masks == "same":
        net.cut(end.structure)
    if net.structure:
        net.load_tensors(small(net))
    if stage.masks == "same":
        net.prune(end.masks)
    elif stage.masks in ("shuffled", "drawn"):
        whole = dense()
        whole.restore(end.structure, end.net, end.masks)
        masks = of_the_dense_net(whole, whole.masks)
        net.prune(rearranged(net, masks, "score" if stage.masks == "drawn" else "shuffle"))
    state.facts |= {"taken": {"of": source.run.id}, "source": dict(end.facts)}


def _narrow(net: SparseNet, stage: methods.Take, source: Source) -> Structure:
    outcome = source.record["outcome"]
    if stage.masks == "narrow macs":
        return narrowed(net, outcome.get("macs_now", outcome["macs_sparse"]), "macs")
    return narrowed(net, outcome.get("parameters_now", outcome["parameters"]), "parameters")


def in_length(stage: methods.Train, recipe: Recipe, net: SparseNet, data: Data, state: State) -> Recipe:
    """The recipe of a control's training with the epochs that its length means; written down in the record.

    By compute, (K1 F1 + K2 F2) / F2 (Liu et al., ICLR 2019, Scratch-B): of K1 epochs of the dense net with F1
    multiply-accumulates each and K2 of what was left, with F2. Of masks, F2 counts what they keep; of a net that was
    cut, all of what is left, and each training before as its net was.

    Args:
        stage: the training.
        recipe: as `Train.recipe_of` gives it.
        net: that is trained, whose masks and channels are those that count.
        data: what it is trained on.
        state: told so by `take`.

    Raises:
        BadInput: these are more epochs than a training may have.
    """
    if not stage.length:
        return recipe
    facts: dict[str, float] = state.facts["source"]
    epochs = Fraction(facts["epochs"])
    if stage.length == "compute":
        images = data.steps_per_epoch * recipe.batch_size
        if net.structure:
            epochs = Fraction(int(facts["training_flops"]), measure.training_flops(net.now.macs, images))
        else:
            kept = {name: int(mask.sum()) for name, mask in net.masks.items()}
            sparse = measure.sparse_macs(net.counted.layers, kept)
            epochs -= Fraction(facts["inherited_epochs"])
            epochs += Fraction(int(facts["inherited_flops"]), measure.training_flops(sparse, images))
    number = max(1, round(epochs))
    if number > MOST_EPOCHS:
        raise BadInput(
            f"method {net.run.method}: control {net.run.control} is a training of {number:,} epochs; at most"
            f" {MOST_EPOCHS:,} are valid"
        )
    state.facts["taken"]["epochs"] = number
    return recipe.model_copy(update={"epochs": number, "warmup": min(recipe.warmup, number)})
