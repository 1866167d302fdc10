"""An experiment: one YAML, resolved against what exists, and the grid it expands to.

Cells are the product of all axes; what has no meaning is folded away (`sp` has no filter basis, a method that does not
prune has sparsity 0), so that no run appears twice.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from ipbench import files, methods
from ipbench.data import catalog as datasets
from ipbench.errors import BadInput
from ipbench.models import catalog as models
from ipbench.planning import expansion, own, plain_yaml
from ipbench.planning.axes import Axes, Named, merged_recipe
from ipbench.planning.cells import cell_of
from ipbench.planning.expansion import Variant
from ipbench.planning.jobs import Job, fuse
from ipbench.spec import Basis, Run, build

#: Bytes of an experiment's file: a hundred times those of config/, and still read in seconds.
MOST_BYTES = 2**18


@dataclass(frozen=True)
class Experiment:
    """A named, validated grid."""

    name: str
    axes: Axes
    where: str
    folder: Path = Path()
    trust: bool = False

    @classmethod
    def from_config(
        cls, config: dict[str, Any], name: str, where: str | None = None, folder: Path = Path(), trust: bool = False
    ) -> Experiment:
        """Validate what a user wrote, completely: every cell of the grid is built.

        Args:
            config: the YAML's content; a key `name` in it takes the place of `name`.
            name: names the folder results/NAME.
            where: how messages name the source.
            folder: that the paths of models and data sets are relative to.
            trust: take what was found of users' data sets last time without a look at their files.

        Raises:
            BadInput: one line with the place, the problem and what is valid.
        """
        place = where or f"experiment {name}"
        if not isinstance(config, dict):
            raise BadInput(f"{place}: not a mapping of keys to values")
        values = {key: value for key, value in config.items() if key != "name"}
        label = config.get("name", name)
        if isinstance(label, int) and not isinstance(label, bool):
            label = str(label)  # `name: 2026`
        build(Named, {"name": label}, place)
        experiment = cls(label, build(Axes, values, place), place, folder, trust)
        if not experiment.cells:
            asked = ", ".join(experiment.axes.controls)
            raise BadInput(
                f"{place}: controls: {asked} has no meaning for any of the methods; list 'none', too, to run these"
            )
        own.keep()
        return experiment

    @classmethod
    def load(cls, path: Path, *, trust: bool = False) -> Experiment:
        """Read an experiment from a YAML file; its stem is its name. `trust`: as of `from_config`."""
        try:
            config = plain_yaml.read(files.read(path, MOST_BYTES).decode())
        except files.Missing:
            near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.yaml")], n=1)
            raise BadInput(f"{path}: no such file" + (f" (did you mean {near[0]}?)" if near else "")) from None
        except (UnicodeDecodeError, plain_yaml.NotPlain) as error:
            raise BadInput(f"{path}: not readable as YAML: {' '.join(str(error).split())[:200]}") from None
        return cls.from_config(config, path.stem, str(path), path.parent, trust)

    @cached_property
    def datasets(self) -> list[str]:
        """Names of the data sets; those of users are looked at, if they were not before."""
        return own.data_sets(self.axes.datasets, self.folder, f"{self.where}: datasets", trust=self.trust)

    @cached_property
    def models(self) -> list[str]:
        """Names of the models, as the file lists them; none where each data set's default is meant."""
        return own.models(self.axes.models, self.folder, f"{self.where}: models")

    @property
    def own_paths(self) -> list[Path]:
        """Files and folders of users' models and data sets."""
        return own.paths()

    @property
    def loader(self) -> str:
        """ "memory" or "ffcv"."""
        return self.axes.loader

    @cached_property
    def cells(self) -> dict[str, Run]:
        """A run of every cell, by the cell's id: that of the first seed."""
        axes, where = self.axes, self.where
        if "ip" not in axes.spaces and any(axes.basis):
            raise BadInput(
                f"{where}: basis: it belongs to space ip, and spaces has {axes.spaces[0]} alone; leave it out"
            )
        expansion.check_size(axes, where)
        known = self.models or [datasets.dataset(data, where).model for data in self.datasets]
        variants = list(expansion.variants(axes, known, where))
        bases = expansion.filter_bases(axes, where)
        sides = [(space, basis) for space in axes.spaces for basis in (bases if space == "ip" else [Basis()])]
        found: dict[str, Run] = {}
        for shared in self._nets():
            for variant in (one for one in variants if not one.models or shared["model"] in one.models):
                for run in self._of_variant(variant, shared, sides):
                    found.setdefault(run.cell, run)
        return found

    def _nets(self) -> Iterator[dict[str, Any]]:
        """Data set, model, recipe and what else the runs of a net have in common, as fields of a run."""
        axes, where = self.axes, self.where
        for data in self.datasets:
            facts = datasets.dataset(data, where)
            datasets.check_loader(facts, axes.loader, where)
            recipes = [merged_recipe(facts.recipe, changes, f"{where}: recipe") for changes in axes.recipe]
            if len(set(recipes)) < len(recipes):
                raise BadInput(f"{where}: recipe: two of its {len(recipes)} entries are the same recipe for {data}")
            for recipe in recipes:
                datasets.check_recipe(facts, recipe, f"{where}: recipe")
            for model in self.models or (facts.model,):
                models.check_task(model, data, facts.task, where)
                for recipe in recipes:
                    yield {
                        "dataset": data, "model": model, "recipe": recipe, "mode": axes.mode, "seed": axes.seeds[0],
                        "own": own.own_of(data, model),
                    }  # fmt: skip

    def _of_variant(
        self, variant: Variant, shared: dict[str, Any], sides: Sequence[tuple[str, Basis]]
    ) -> Iterator[Run]:
        """The runs of a method on a net: all sparsities, and spaces with their bases."""
        method = variant.method
        values = {**shared, "method": method.name, "options": variant.options}
        values |= variant.masks if method.prunes else {}
        fixed = not method.prunes or method.by_knob(variant.options)
        sparsities = ("0",) if fixed else self.axes.sparsities
        for place, (p, (space, basis)) in enumerate(product(sparsities, sides)):
            run = build(Run, {**values, "sparsity": p, "space": space, "basis": basis}, self.where)
            if not variant.asked and method.without_control(run):
                continue
            run = method.canonical(run)
            if place < len(sides):  # space, recipe and the stages of a method: the same for all that follow
                method.check_run(run, self.where)
            yield run

    @property
    def runs(self) -> list[Run]:
        """Every run once, cell by cell, seeds innermost."""
        return [run.model_copy(update={"seed": seed}) for run in self.cells.values() for seed in self.axes.seeds]

    @cached_property
    def needs(self) -> dict[str, tuple[str, ...]]:
        """For every cell whose runs continue another cell's, or are controls of it, the ids of those; levels of lottery
        tickets in between are such cells, too.
        """
        return self._lineage[1]

    @cached_property
    def trained(self) -> dict[str, Run]:
        """A run of every cell that is trained: those of the grid, then those that only others need."""
        return self._lineage[0]

    @cached_property
    def _lineage(self) -> tuple[dict[str, Run], dict[str, tuple[str, ...]]]:
        trained, needs = dict(self.cells), dict[str, tuple[str, ...]]()
        left = list(self.cells.items())[::-1]
        while left:
            cell, run = left.pop()
            if cell in needs or not (before := methods.needs(run)):
                continue
            needs[cell] = tuple(other.cell for other in before)
            left += [(other.cell, trained.setdefault(other.cell, other)) for other in before[::-1]]
            if len(trained) > expansion.MOST_CELLS:
                raise BadInput(
                    f"{self.where}: with the levels that its cells continue, more than {expansion.MOST_CELLS:,} cells;"
                    " a larger rate has fewer levels"
                )
        return trained, needs

    def jobs(self, seeds_per_job: int = 6, sparsities_per_job: int = 1) -> list[Job]:
        """All runs in blocks that one process trains; the sizes of the blocks change no record."""
        for name, number in (("seeds_per_job", seeds_per_job), ("sparsities_per_job", sparsities_per_job)):
            if number < 1:
                raise BadInput(f"{self.where}: {name} is 1 or more, not {number}")
        return fuse(
            self.trained,
            self.needs,
            self.axes.seeds,
            seeds_per_job=seeds_per_job,
            sparsities_per_job=sparsities_per_job,
            loader=self.loader,
            method_files=tuple(file for file in self.method_files if not file.endswith(methods.RULES)),
            rule_files={Path(file).stem: file for file in self.rule_files},
        )

    @property
    def method_files(self) -> tuple[str, ...]:
        """Files outside the package that declare methods of this experiment: Python's, and those of rules."""
        return expansion.method_files(self.axes)

    @property
    def rule_files(self) -> tuple[str, ...]:
        """Those of rules alone: the stem of each is the name of its method."""
        return tuple(file for file in self.method_files if file.endswith(methods.RULES))

    @property
    def helper_files(self) -> list[str]:
        """The user's modules that Python's method files import: a change of one is a change of the method."""
        rules = {Path(file).stem for file in self.rule_files}
        codes = [methods.code(name) for name in {run.method for run in self.cells.values()} - rules]
        found = {str(file) for code in codes if code for file in code.files}
        return sorted(found - {str(Path(file).resolve()) for file in self.method_files})

    def grid(self) -> dict[str, Any]:
        """What `results/NAME/grid.json` holds: the cells with their axes, runs and SP/IP partners."""
        known = methods.methods()
        found = {name: methods.code(name) for name in {run.method for run in self.cells.values()}}
        codes = {name: code.sha256 if code else None for name, code in found.items()}
        cells = [
            cell_of(cell, run, known[run.method], self.axes.seeds, codes[run.method])
            for cell, run in self.cells.items()
        ]
        sets = own.facts(self.datasets)
        return {
            "name": self.name, "title": self.axes.title, "margin": self.axes.margin, "cells": cells,
            **({"datasets": sets} if sets else {}),
        }  # fmt: skip
