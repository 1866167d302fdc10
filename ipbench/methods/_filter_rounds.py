"""The stages of methods that remove filters by a score, at once or in rounds."""

from __future__ import annotations

from dataclasses import dataclass

from ipbench.methods._filter_ranking import GUARDS, remove
from ipbench.methods._filter_scores import filter_score
from ipbench.methods._stages import Choose, Slice, Stage, Train
from ipbench.spec import Option

#: Of rounds; more can only be a slip.
_MOST = 1000


@dataclass(frozen=True)
class Removal:
    """What goes, in how many rounds; `_filter_ranking.masks` tells what the fields mean.

    Attributes:
        per_class: images of each class that scores see; 0: as many as a training batch has.
    """

    score: str
    ratio: float
    guard: str
    inner: bool
    whole: str
    rounds: int = 1
    per_class: int = 0

    def __post_init__(self) -> None:
        filter_score(self.score)
        if not 0 <= self.ratio < 1 or self.guard not in GUARDS:
            raise ValueError(f"ratio is from 0 up to, not including, 1, and guard one of {', '.join(GUARDS)}")
        if not 1 <= self.rounds <= _MOST or self.per_class < 0:
            raise ValueError(f"rounds is 1 or more, up to {_MOST}, and per_class 0 or more")

    def stages(self, between: list[Train], last: Train) -> list[Stage]:
        """All rounds.

        Args:
            between: trainings after each round but the last.
            last: the training after it.
        """
        found: list[Stage] = []
        for number in range(1, self.rounds + 1):
            options: dict[str, Option] = {
                "score": self.score, "ratio": self.ratio, "guard": self.guard, "inner": self.inner,
                "whole": self.whole, "number": number, "rounds": self.rounds,
            }  # fmt: skip
            choose = Choose(
                remove, f"filters by {self.score}", options, patterns=("filters", "channels"),
                per_class=self.per_class, one_ranking=bool(self.ratio),
            )  # fmt: skip
            found += [choose, Slice(), *(between if number < self.rounds else [last])]
        return found
