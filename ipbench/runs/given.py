"""Users' models and data sets of recorded runs: found among the files that a command is given, by their digests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ipbench.data import catalog as datasets
from ipbench.data import own as own_data
from ipbench.data.own_index import Options
from ipbench.errors import BadInput
from ipbench.models import catalog as models
from ipbench.models import own as own_models
from ipbench.spec import Run


@dataclass(frozen=True)
class Given:
    """What a command was given.

    Attributes:
        model_files: Python files with models.
        weights: safetensors files.
        folders: data sets.
    """

    model_files: Sequence[Path] = ()
    weights: Sequence[Path] = ()
    folders: Sequence[Path] = ()

    def check(self) -> None:
        """Make sure that all of them are there.

        Raises:
            BadInput: one is not, or cannot be read.
        """
        for file in self.model_files:
            own_models.code(file)
        for file in self.weights:
            own_models.sha256(file)
        for folder in self.folders:
            if not folder.exists():
                raise BadInput(f"{folder}: no such folder (a data set)")

    def know(self, run: Run, root: Path) -> None:
        """Let this process know what a run's names stand for.

        Args:
            run: that is to be trained.
            root: the data folder.

        Raises:
            BadInput: nothing that was given is it; the line says what is needed.
        """
        own = run.own
        if own.code or own.weights or own.base:
            file = next((one for one in self.model_files if own.code and own_models.code(one).sha256 == own.code), None)
            weights = next((one for one in self.weights if own.weights == own_models.sha256(one)), None)
            if (own.code and file is None) or (own.weights and weights is None):
                raise BadInput(f"model {run.model} is a user's: {own_models.needed(run.model, own)}")
            models.OWN[run.model] = models.OwnModel(run.model, run.net, file, own.code, weights, own.weights)
        if own.data:
            self._know_data(run, root)

    def _know_data(self, run: Run, root: Path) -> None:
        """Raise `BadInput` if no folder holds the data set of a run."""
        known = datasets.known(run.dataset)
        options = Options(**known.own.options) if known is not None and known.own is not None else Options()
        for folder in self.folders:
            facts = own_data.look(run.dataset, folder, options, root)
            if facts.own is not None and facts.own.sha256 == run.own.data:
                datasets.register(facts)
                return
        others = f" ({', '.join(map(str, self.folders))}: of other content)" if self.folders else ""
        raise BadInput(own_data.needed(run.dataset, run.own.data) + others)
