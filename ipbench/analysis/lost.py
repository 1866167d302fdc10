"""Which runs have lost their net: collapsed (a layer with nothing left), at chance level, or diverged.

What the words mean, and why: docs/rules.md, "Statistics and claims".
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from scipy.special import bdtrik

from ipbench.analysis.flips import ALPHA
from ipbench.data.catalog import DETECTION, DataSet, known

if TYPE_CHECKING:
    import pandas as pd

#: A detector is at chance level if its test mAP is at most this: boxes that are guessed have one near zero.
CHANCE_MAP = 0.01
COLLAPSED, CHANCE, DIVERGED = "collapsed", "at chance level", "diverged"


def guess(facts: DataSet) -> float:
    """The primary metric of a net that guesses, which a diverged run counts with."""
    return 0.0 if facts.task == DETECTION else 1 / facts.classes


def chance_bound(facts: DataSet) -> float:
    """The highest primary metric on the test set that is no better than chance.

    A net that always names one class has the share of that class, at most that of the most frequent one. One that
    guesses at random, with that probability of being right, has at most this accuracy in 95 % of cases: the quantile
    of the binomial distribution over the test images. Where their number is not known, the share alone.
    """
    if facts.task == DETECTION:
        return CHANCE_MAP
    share = facts.commonest or 1 / facts.classes
    if facts.test is None:
        return share
    return math.ceil(bdtrik(1 - ALPHA, facts.test, share) - 1e-9) / facts.test


def at_chance(dataset: str, value: float) -> bool:
    """Whether the primary metric of a finished run says no more than chance; unknown data sets have no chance level."""
    facts = known(dataset)
    return facts is not None and value <= chance_bound(facts) + 1e-9


def empty_layers(off: str, collapsed_layers: object) -> list[str]:
    """The layers of a run of which nothing is left; none where masked coefficients keep their values.

    Args:
        off: what a masked coefficient is.
        collapsed_layers: the names as a record or its row writes them: a list, or its JSON; anything else is unknown.
    """
    if isinstance(collapsed_layers, str):
        collapsed_layers = json.loads(collapsed_layers)
    return [str(name) for name in collapsed_layers] if off == "zero" and isinstance(collapsed_layers, list) else []


def fates(runs: pd.DataFrame, primary: str) -> Iterator[tuple[str, int, frozenset[str]]]:
    """(cell, seed, what is said of it) of every run that is done or diverged and of which anything is to be said.

    Args:
        runs: of a `Collection`.
        primary: the column of the primary metric.
    """
    columns = (runs[name] for name in ("cell", "seed", "dataset", "status", "off", "collapsed_layers", primary))
    for cell, seed, dataset, status, off, layers, value in zip(*columns, strict=True):
        found = {DIVERGED} if status == "diverged" else set()
        if status == "done" and empty_layers(off, layers):
            found.add(COLLAPSED)
        if status == "done" and at_chance(dataset, float(value)):
            found.add(CHANCE)
        if found:
            yield cell, int(seed), frozenset(found)
