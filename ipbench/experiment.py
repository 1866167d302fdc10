"""An experiment: one YAML, resolved against what exists, and the grid it expands to (floor 5).

Cells are the product of all axes; what has no meaning is folded away (`sp` has no filter basis, a method that does not
prune has sparsity 0), so that no run appears twice.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field

from ipbench import methods, plain_yaml
from ipbench.data import catalog as datasets
from ipbench.errors import BadInput
from ipbench.models import catalog as models
from ipbench.spec import Allocation, Basis, Mode, Name, Off, Recipe, Run, Seed, Space, Sparsity, Value, build, identity


def _listed(value: object) -> object:
    return value if isinstance(value, list | tuple) else [value]


def _seeds(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= 100_000:
            raise ValueError("a number of seeds is from 1 to 100000")
        return list(range(value))
    return value


class Axes(Value):
    """What a user writes in `config/NAME.yaml`. Every axis is one value or a list."""

    title: str = Field("", max_length=200)
    datasets: Annotated[tuple[Name, ...], BeforeValidator(_listed), Field(min_length=1)]
    models: Annotated[tuple[Name, ...], BeforeValidator(_listed)] = Field(
        (), description="empty: each data set's default"
    )
    recipe: Annotated[tuple[dict[str, Any], ...], BeforeValidator(_listed), Field(min_length=1)] = Field(
        ({},), description="changes to each data set's default recipe; several mappings are an axis"
    )
    methods: Annotated[tuple[str | dict[str, Any], ...], BeforeValidator(_listed), Field(min_length=1)]
    sparsities: Annotated[tuple[Sparsity, ...], BeforeValidator(_listed), Field(min_length=1)]
    spaces: Annotated[tuple[Space, ...], BeforeValidator(_listed), Field(min_length=1)] = ("sp", "ip")
    basis: Annotated[tuple[dict[str, Any], ...], BeforeValidator(_listed), Field(min_length=1)] = ({},)
    off: Annotated[tuple[Off, ...], BeforeValidator(_listed), Field(min_length=1)] = ("zero",)
    allocations: Annotated[tuple[Allocation, ...], BeforeValidator(_listed), Field(min_length=1)] = ("global",)
    seeds: Annotated[tuple[Seed, ...], BeforeValidator(_seeds), Field(min_length=1)] = tuple(range(6))
    mode: Mode = "strict"
    loader: Literal["memory", "ffcv"] = "memory"


@dataclass(frozen=True)
class Job:
    """What Snakemake schedules: one cell, several seeds.

    Attributes:
        runs: of the cell, in the order of their seeds.
        loader: that reads the images.
        method_files: that declare methods of the experiment.
        parent: path of the job whose runs these ones continue; None if they start from initial values.
        keep: whether others continue these runs, so that their ends must be kept.
    """

    runs: tuple[Run, ...]
    loader: str
    method_files: tuple[str, ...]
    parent: str | None = None
    keep: bool = False

    @property
    def label(self) -> str:
        """What a person reads in a log."""
        first = self.runs[0]
        return f"{first.dataset} {first.model} {first.method} {first.space} p={first.sparsity} seeds {self.seeds}"

    @property
    def seeds(self) -> str:
        """First and last seed, as they stand in the path."""
        return f"{self.runs[0].seed}-{self.runs[-1].seed}"

    @property
    def path(self) -> str:
        """Where the job's product lies in the experiment's folder."""
        return _job_path(self.runs[0], self.seeds)

    @property
    def arguments(self) -> list[str]:
        """Axis options of `ipbench run`: what differs from the defaults."""
        run = self.runs[0]
        words = ["--dataset", run.dataset, "--model", run.model, "--method", run.method, "--sparsity", run.sparsity]
        words += ["--space", run.space, "--off", run.off, "--allocation", run.allocation, "--mode", run.mode]
        for name, value in run.options.items():
            words += ["--option", f"{name}={_word(value)}"]
        for name, value in run.basis.differences().items():
            words += ["--basis", f"{name}={_word(value)}"]
        default = datasets.dataset(run.dataset).recipe
        for name, value in _flat(run.recipe.model_dump(mode="json")).items():
            if value != _flat(default.model_dump(mode="json"))[name]:
                words += ["--recipe", f"{name}={_word(value)}"]
        for file in self.method_files:
            words += ["--method-file", file]
        if self.keep:
            words.append("--keep")
        return [*words, "--loader", self.loader, *(word for r in self.runs for word in ("--seed", str(r.seed)))]


def _job_path(run: Run, seeds: str) -> str:
    cell = f"{run.dataset}/{run.model}/{run.method}/{run.space}-{run.off}/{run.sparsity}/{run.cell}"
    return f"jobs/{cell}.{seeds}.json"


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots."""
    result = {}
    for name, value in values.items():
        result.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
    return result


def _word(value: object) -> str:
    """A value as YAML on one line, as the command line reads it."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).partition("\n...")[0].strip()


@dataclass(frozen=True)
class Experiment:
    """A named, validated grid."""

    name: str
    axes: Axes
    where: str

    @classmethod
    def from_config(cls, config: dict[str, Any], name: str, where: str | None = None) -> Experiment:
        """Validate what a user wrote, completely: every cell of the grid is built once.

        Args:
            config: the YAML's content; a key `name` in it takes the place of `name`.
            name: names the folder results/NAME.
            where: how messages name the source.

        Raises:
            BadInput: one line with the place, the problem and what is valid.
        """
        place = where or f"experiment {name}"
        if not isinstance(config, dict):
            raise BadInput(f"{place}: not a mapping of keys to values")
        values = {key: value for key, value in config.items() if key != "name"}
        label = str(config.get("name", name))
        build(_Named, {"name": label}, place)
        experiment = cls(label, build(Axes, values, place), place)
        _ = experiment.runs
        return experiment

    @classmethod
    def load(cls, path: Path) -> Experiment:
        """Read an experiment from a YAML file; its stem is its name."""
        try:
            config = plain_yaml.read(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.yaml")], n=1)
            raise BadInput(f"{path}: no such file" + (f" (did you mean {near[0]}?)" if near else "")) from None
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise BadInput(f"{path}: not readable as YAML: {' '.join(str(error).split())[:200]}") from None
        return cls.from_config(config, path.stem, str(path))

    @property
    def datasets(self) -> list[str]:
        """Names of the data sets."""
        return list(self.axes.datasets)

    @property
    def loader(self) -> str:
        """ "memory" or "ffcv"."""
        return self.axes.loader

    @cached_property
    def runs(self) -> list[Run]:
        """Every run once, cell by cell, seeds innermost."""
        axes, where = self.axes, self.where
        variants = list(self._variants())
        found: dict[str, Run] = {}
        for data in axes.datasets:
            facts = datasets.dataset(data, where)
            recipes = [merged_recipe(facts.recipe, changes, f"{where}: recipe") for changes in axes.recipe]
            for model in axes.models or (facts.model,):
                models.check(model, where)
                for recipe, (name, options, off, allocation), p, space, basis in product(
                    recipes, variants, axes.sparsities, axes.spaces, self._bases()
                ):
                    values: dict[str, Any] = {
                        "dataset": data, "model": model, "recipe": recipe, "method": name, "options": options,
                        "space": space, "mode": axes.mode,
                    }  # fmt: skip
                    if space == "ip":
                        values["basis"] = basis
                    if methods.get(name).prunes:
                        values |= {"sparsity": p, "off": off, "allocation": allocation}
                    first = build(Run, {**values, "seed": axes.seeds[0]}, where)
                    if first.id in found:
                        continue
                    methods.get(name).check_run(first, where)
                    for seed in axes.seeds:
                        run = first.model_copy(update={"seed": seed})
                        if run.id in found:
                            raise BadInput(f"{where}: seeds: {seed} appears twice")
                        found[run.id] = run
        return list(found.values())

    @cached_property
    def cells(self) -> dict[str, list[Run]]:
        """The runs of every cell, by its id."""
        result: dict[str, list[Run]] = {}
        for run in self.runs:
            result.setdefault(run.cell, []).append(run)
        return result

    @cached_property
    def parents(self) -> dict[str, Run]:
        """For every cell whose runs continue another cell's: a run of that one. Levels in between have one, too."""
        result: dict[str, Run] = {}
        for runs in self.cells.values():
            run = runs[0]
            while run.cell not in result and (parent := methods.parent(run)):
                result[run.cell] = parent
                run = parent
        return result

    @cached_property
    def trained(self) -> dict[str, list[Run]]:
        """The runs of every cell that is trained: those of the grid, then those that only others continue."""
        cells = dict(self.cells)
        for parent in self.parents.values():
            if parent.cell not in cells:
                cells[parent.cell] = [parent.model_copy(update={"seed": seed}) for seed in self.axes.seeds]
        return cells

    def jobs(self, seeds_per_job: int = 6) -> list[Job]:
        """The runs in blocks that one process trains; the block size changes no record."""
        if seeds_per_job < 1:
            raise BadInput(f"{self.where}: seeds_per_job is 1 or more, not {seeds_per_job}")
        continued = {parent.cell for parent in self.parents.values()}
        jobs = []
        for cell, runs in self.trained.items():
            for start in range(0, len(runs), seeds_per_job):
                job = Job(tuple(runs[start : start + seeds_per_job]), self.axes.loader, self.method_files)
                parent = self.parents.get(cell)
                path = _job_path(parent, job.seeds) if parent else None
                jobs.append(replace(job, parent=path, keep=cell in continued))
        return jobs

    @property
    def method_files(self) -> tuple[str, ...]:
        """Files outside the package that declare methods of this experiment."""
        entries = (entry.get("file") if isinstance(entry, dict) else entry for entry in self.axes.methods)
        return tuple(dict.fromkeys(str(entry) for entry in entries if entry and str(entry).endswith(".py")))

    def grid(self) -> dict[str, Any]:
        """What `results/NAME/grid.json` holds: the cells with their axes, runs and SP/IP partners."""
        cells = []
        for cell, runs in self.cells.items():
            values = runs[0].model_dump(mode="json")
            del values["seed"]
            partner = {
                key: value for key, value in runs[0].differences().items() if key not in ("seed", "space", "basis")
            }
            cells.append(
                {
                    "id": cell,
                    **values,
                    "family": methods.get(runs[0].method).family,
                    "pair": identity(partner),
                    "seeds": [run.seed for run in runs],
                }
            )
        return {"name": self.name, "title": self.axes.title, "cells": cells}

    def _variants(self) -> Iterable[tuple[str, dict[str, Any], str, str]]:
        """Name, options, off and allocation of every method of the experiment; lists of values are axes too."""
        found = methods.load(self.method_files)
        for entry in self.axes.methods:
            if isinstance(entry, str):
                for name in found.get(entry, [entry]):
                    offs = methods.get(name, self.where).offs(self.axes.off)
                    for off, allocation in product(offs, self.axes.allocations):
                        yield name, {}, off, allocation
                continue
            if not isinstance(entry.get("name"), str):
                raise BadInput(
                    f"{self.where}: methods: {entry!r:.60} has no name (write `- name: snip` and its options)"
                )
            chosen = methods.get(entry["name"], self.where)
            # A method may have its own off-values and allocations in place of the experiment's.
            given = {"off": chosen.offs(self.axes.off), "allocation": list(self.axes.allocations)}
            given |= {key: value for key, value in entry.items() if key not in ("name", "file")}
            values = [value if isinstance(value, list) else [value] for value in given.values()]
            for combination in product(*values):
                options = dict(zip(given, combination, strict=True))
                off, allocation = options.pop("off"), options.pop("allocation")
                yield chosen.name, chosen.check_options(options, self.where), off, allocation

    def _bases(self) -> list[Basis]:
        """Every filter basis of the experiment; lists of values are axes too."""
        result = []
        for entry in self.axes.basis:
            values = [value if isinstance(value, list) else [value] for value in entry.values()]
            for combination in product(*values):
                result.append(build(Basis, dict(zip(entry, combination, strict=True)), f"{self.where}: basis"))
        return result


class _Named(Value):
    name: Name


def merged_recipe(default: Recipe, changes: dict[str, Any], where: str) -> Recipe:
    """A data set's default recipe with some values changed; `augmentation` is merged key by key.

    Raises:
        BadInput: an unknown key or a value out of range.
    """
    values = default.model_dump()
    for name, value in changes.items():
        inner = values.get(name)
        values[name] = {**inner, **value} if isinstance(inner, dict) and isinstance(value, dict) else value
    return build(Recipe, values, where)
