"""Which version of the numerics a run is of: raised for the runs whose numbers a change touches.

A record holds the number of its run. One that holds another number is stale: its run is trained again, and no table
takes it. Runs that a change does not touch keep their number, and with it their published results.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import ipbench
from ipbench import methods
from ipbench.data.catalog import DATASETS
from ipbench.errors import BadInput
from ipbench.models.catalog import MODELS
from ipbench.spec import PASS_PIXELS, Option, Recipe, Run


@dataclass(frozen=True)
class Change:
    """One change of numbers.

    Attributes:
        since: the version of ipbench that brought it.
        what: changed.
        touches: whether it changes the numbers of a run.
    """

    since: str
    what: str
    touches: Callable[[Run], bool]


def _combines_scores(run: Run) -> bool:
    """Those of one control on a net without norms or dropout come out as before."""
    return run.method == "cops" and ("," in str(run.options.get("controls", "")) or not run.model.startswith("lenet"))


def _has_attention(run: Run) -> bool:
    return run.model.startswith(("vit_", "swin_"))


def _draws_dropout_again(run: Run) -> bool:
    """In later rounds; of our own models none has dropout, and the other scores do not draw from it."""
    rounds = run.options.get("rounds", 1)
    return run.method in ("snip", "freezenet", "grasp") and rounds != 1 and run.model not in MODELS


def _scores_in_passes(run: Run) -> bool:
    """A user's method is told by its code, and need not be there where records are collected."""
    # Nor was there any data set of a user's in versions before.
    if not methods.built_in(run.method) or run.dataset not in DATASETS:
        return False
    return _score_pixels(run.dataset, run.recipe, run.method, tuple(sorted(run.options.items()))) > PASS_PIXELS


def _selects_any_epoch(run: Run) -> bool:
    return run.method == "gmp" and run.sparsity == "0"


def _names_another_net(run: Run) -> bool:
    return run.model == "vgg19"


CHANGES = (
    Change("0.2.0", "COPS: every score sees the net as if it were taken alone; several controls", _combines_scores),
    Change("0.2.0", "attention projections are counted and pruned", _has_attention),
    Change("0.2.0", "every round of a score draws the same dropout", _draws_dropout_again),
    Change("0.2.0", "gradual pruning of nothing: every epoch may be the selected one", _selects_any_epoch),
    Change("0.2.0", "scores of many images are taken in passes", _scores_in_passes),
    Change("0.3.0", "vgg19 is the net for CIFAR, no longer torchvision's", _names_another_net),
)


def numerics(run: Run) -> int:
    """The version of the numerics of a run: that of all runs, and one more for each change that touches it."""
    return ipbench.NUMERICS + sum(change.touches(run) for change in CHANGES)


@lru_cache(maxsize=4096)
def _score_pixels(data: str, recipe: Recipe, method: str, options: tuple[tuple[str, Option], ...]) -> int:
    """The most pixels of images that a score, or the first gradient, of a run is taken on."""
    facts = DATASETS[data]
    try:
        stages = methods.get(method).stages(dict(options))
    except (BadInput, ValueError, TypeError, AttributeError):  # options that the method refuses: no run has them
        stages = []
    per_class = [stage.per_class for stage in stages if isinstance(stage, methods.Prune)]
    images = max([recipe.batch_size, *(number * facts.classes for number in per_class)])
    return images * prod(facts.shape[1:])
