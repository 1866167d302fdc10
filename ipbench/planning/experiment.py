"""An experiment: one YAML, resolved against what exists, and the grid it expands to.

Cells are the product of all axes; what has no meaning is folded away (`sp` has no filter basis, a method that does not
prune has sparsity 0), so that no run appears twice.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field

from ipbench import files, methods
from ipbench.data import catalog as datasets
from ipbench.errors import BadInput, valid_choice
from ipbench.models import catalog as models
from ipbench.planning import own, plain_yaml
from ipbench.planning.cells import cell_of
from ipbench.planning.jobs import Job, fuse
from ipbench.spec import (
    COEFFICIENTS,
    NO_CONTROL,
    Allocation,
    Basis,
    Budget,
    Control,
    Mode,
    Name,
    Number,
    Off,
    Option,
    Pattern,
    Recipe,
    Run,
    Seed,
    Space,
    Sparsity,
    Text,
    Value,
    build,
    checked_name,
)

#: Bytes of an experiment's file: a hundred times those of config/, and still read in seconds.
MOST_BYTES = 2**18
#: Cells and runs of a grid: ten times what has been planned with it. More can only be a slip, and would take hours.
MOST_CELLS, MOST_RUNS = 200_000, 1_000_000


def _listed(value: object) -> object:
    return value if isinstance(value, list | tuple) else [value]


def _once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if twice := [value for value, count in Counter(values).items() if count > 1]:
        raise ValueError(f"{twice[0]} appears twice")
    return values


def _method(value: object) -> object:
    if not isinstance(value, str | dict):
        raise ValueError("a method is a name, or a mapping with `name` and its options")
    return value


def _set(value: object) -> object:
    if not isinstance(value, str | dict):
        raise ValueError("a data set is a name, or a mapping with `folder`")
    return checked_name(value) if isinstance(value, str) else value


def _model(value: object) -> object:
    if not isinstance(value, str | dict):
        raise ValueError("a model is a name, or a mapping with `name`")
    if isinstance(value, str):
        checked_name(value.removeprefix("timm/"))
    return value


def _seeds(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= 100_000:
            raise ValueError("a number of seeds is from 1 to 100000")
        return list(range(value))
    if not isinstance(value, list | tuple):
        raise ValueError("seeds are a number of them, from 1 to 100000, or a list")
    return value


#: An axis: one value or a list, not empty, none of it twice.
_LISTED, _SOME, _ONCE = BeforeValidator(_listed), Field(min_length=1), AfterValidator(_once)


class Axes(Value):
    """What a user writes in `config/NAME.yaml`. Every axis is one value or a list."""

    title: Text = Field("", max_length=200)
    datasets: Annotated[tuple[Annotated[str | dict[str, Any], BeforeValidator(_set)], ...], _LISTED, _SOME]
    models: Annotated[tuple[Annotated[str | dict[str, Any], BeforeValidator(_model)], ...], _LISTED] = Field(
        (), description="empty: each data set's default"
    )
    recipe: Annotated[tuple[dict[str, Any], ...], _LISTED, _SOME] = Field(
        ({},), description="changes to each data set's default recipe; several mappings are an axis"
    )
    methods: Annotated[tuple[Annotated[str | dict[str, Any], BeforeValidator(_method)], ...], _LISTED, _SOME]
    sparsities: Annotated[tuple[Sparsity, ...], _LISTED, _SOME, _ONCE]
    spaces: Annotated[tuple[Space, ...], _LISTED, _SOME, _ONCE] = ("sp", "ip")
    basis: Annotated[tuple[dict[str, Any], ...], _LISTED, _SOME] = ({},)
    off: Annotated[tuple[Off, ...], _LISTED, _SOME, _ONCE] = ("zero",)
    allocations: Annotated[tuple[Allocation, ...], _LISTED, _SOME, _ONCE] = ("global",)
    patterns: Annotated[tuple[Pattern, ...], _LISTED, _SOME, _ONCE] = (COEFFICIENTS,)
    budgets: Annotated[tuple[Budget, ...], _LISTED, _SOME, _ONCE] = ("parameters",)
    controls: Annotated[tuple[Control, ...], _LISTED, _SOME, _ONCE] = Field(
        (NO_CONTROL,), description="of every method, those that have a meaning for it"
    )
    seeds: Annotated[tuple[Seed, ...], BeforeValidator(_seeds), _SOME, _ONCE] = tuple(range(6))
    margin: Number = Field(0.5, gt=0, le=100, description="percentage points: a difference inside of them is small")
    mode: Mode = "strict"
    loader: Literal["memory", "ffcv"] = "memory"


class _Variant(NamedTuple):
    """A method with its options, with what its masks are, as fields of a run, and with the models that it is meant for:
    all if there are none. `asked`: its entry names its control, which must have a meaning then.
    """

    method: methods.Method
    options: dict[str, Option]
    masks: dict[str, Any]
    models: frozenset[str]
    asked: bool


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
        build(_Named, {"name": label}, place)
        experiment = cls(label, build(Axes, values, place), place, folder, trust)
        _ = experiment.cells
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
        self._check_size()
        variants = list(self._variants())
        sides = [(space, basis) for space in axes.spaces for basis in (self._bases() if space == "ip" else [Basis()])]
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
        self, variant: _Variant, shared: dict[str, Any], sides: Sequence[tuple[str, Basis]]
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

    def _check_size(self) -> None:
        """Count the grid before any of it is built; what is folded away afterwards is counted, too."""
        axes = self.axes
        masks = prod(map(len, (axes.off, axes.allocations, axes.patterns, axes.budgets, axes.controls)))
        variants = sum(masks if isinstance(entry, str) else masks * _size(entry) for entry in axes.methods)
        bases = sum(map(_size, axes.basis)) if "ip" in axes.spaces else 0
        sides = bases + ("sp" in axes.spaces)
        nets = len(axes.datasets) * max(1, len(axes.models)) * len(axes.recipe)
        cells = nets * variants * len(axes.sparsities) * sides
        for number, most, what in ((cells, MOST_CELLS, "cells"), (cells * len(axes.seeds), MOST_RUNS, "runs")):
            if number > most:
                raise BadInput(
                    f"{self.where}: a grid of {number:,} {what}, and at most {most:,} are planned: nets and recipes"
                    f" {nets:,} x methods and their options {variants:,} x sparsities {len(axes.sparsities):,} x spaces"
                    f" and bases {sides:,} x seeds {len(axes.seeds):,}"
                )

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
            if len(trained) > MOST_CELLS:
                raise BadInput(
                    f"{self.where}: with the levels that its cells continue, more than {MOST_CELLS:,} cells; a"
                    " larger rate has fewer levels"
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
        files = (_method_file(entry) for entry in self.axes.methods)
        return tuple(dict.fromkeys(file for file in files if file))

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

    def _variants(self) -> Iterator[_Variant]:
        """Every method of the experiment with its options and masks; lists of values are axes too."""
        where, seen = f"{self.where}: methods", set()
        for method, said in self._entries():
            chosen_models = self._own_models(said.pop(methods.OF_MODELS, None), f"{where}: {method.name}")
            axes = self._own_axes(method, said, where)
            for chosen in _product({**axes, **said}, f"{where}: {method.name}"):
                masks = {name: chosen.pop(name) for name in methods.OWN_AXES}
                if "budget" not in said and method.budget != "parameters":
                    masks["budget"] = method.budget_for(masks["pattern"])
                options = method.check_options(chosen, self.where)
                name = repr((method.name, options, masks, sorted(chosen_models)))
                if name in seen:
                    raise BadInput(
                        f"{where}: {method.name} appears twice with the same options, {options or 'its defaults'}"
                    )
                seen.add(name)
                yield _Variant(method, options, masks, chosen_models, "control" in said)

    def _entries(self) -> Iterator[tuple[methods.Method, dict[str, Any]]]:
        """The methods as they were written, one by one: each with what its entry says beside its name."""
        where = f"{self.where}: methods"
        for entry in self.axes.methods:
            if isinstance(entry, dict):
                if "rule" in entry and ("file" in entry or not str(entry["rule"]).endswith(methods.RULES)):
                    raise BadInput(
                        f"{where}: rule is the path of a file of rules, which ends in {methods.RULES}, in the place of"
                        f" file; not {entry!r:.80}"
                    )
                if not isinstance(entry.get("name", entry.get("rule")), str):
                    raise BadInput(f"{where}: {entry!r:.60} has no name (write `- name: snip` and its options)")
                if "file" in entry and not str(entry["file"]).endswith(".py"):
                    raise BadInput(
                        f"{where}: file is the path of a method file, which ends in .py, not {entry['file']!r:.80}"
                    )
        found = methods.load(self.method_files)
        for entry in self.axes.methods:
            if isinstance(entry, str):
                yield from ((methods.get(name, self.where), {}) for name in found.get(entry, [entry]))
                continue
            name = entry.get("name") or found[entry["rule"]][0]
            if file := entry.get("file", entry.get("rule")):
                valid_choice(name, found[file], f"method of {file}", self.where)
            own = {key: value for key, value in entry.items() if key not in ("name", "file", "rule")}
            yield methods.get(name, self.where), own

    def _own_axes(self, method: methods.Method, own: Iterable[str], where: str) -> dict[str, list[str]]:
        """What a method's masks are: as it declares, or as the experiment says; its entry may say otherwise.

        Raises:
            BadInput: the entry says so of a method that has no masks.
        """
        if not method.prunes and (vain := {*methods.OWN_AXES} & set(own)):
            raise BadInput(f"{where}: {min(vain)} has no meaning for {method.name}, which does not prune; leave it out")
        return {
            "off": method.offs(self.axes.off),
            "allocation": method.allocations(self.axes.allocations),
            "pattern": method.patterns(self.axes.patterns),
            "budget": method.budgets(self.axes.budgets),
            "control": list(self.axes.controls) if method.prunes else [NO_CONTROL],
        }

    def _own_models(self, wanted: Any, where: str) -> frozenset[str]:
        """The models of the experiment that an entry of a method names; none if it names none.

        Raises:
            BadInput: it names one that the experiment does not have.
        """
        if wanted is None:
            return frozenset()
        if wanted == []:
            raise BadInput(f"{where}: model is an empty list; give a value, or leave it out")
        known = self.models or [datasets.dataset(data, self.where).model for data in self.datasets]
        chosen = wanted if isinstance(wanted, list) else [wanted]
        return frozenset(valid_choice(str(name), known, "model of this experiment", where) for name in chosen)

    def _bases(self) -> list[Basis]:
        """Every filter basis of the experiment; lists of values are axes too."""
        where = f"{self.where}: basis"
        found = [build(Basis, values, where) for entry in self.axes.basis for values in _product(entry, where)]
        if len(set(found)) < len(found):
            raise BadInput(f"{where}: the same filter basis appears twice")
        return found


def _method_file(entry: str | dict[str, Any]) -> str:
    """The file that declares the method of an entry; empty if it is one that ipbench ships, or there is none."""
    if isinstance(entry, dict):
        word = entry.get("rule", entry.get("file", entry.get("name")))
    else:
        word = entry
    word = str(word)
    return word if word.endswith((".py", methods.RULES)) else methods.rule_file(word)


def _size(entry: dict[str, Any]) -> int:
    """How many choices `_product` makes."""
    return prod(len(value) for name, value in entry.items() if isinstance(value, list) and name != methods.OF_MODELS)


def _product(entry: dict[str, Any], where: str) -> Iterable[dict[str, Any]]:
    """Every choice of one value of each key."""
    values = [value if isinstance(value, list) else [value] for value in entry.values()]
    for key, some in zip(entry, values, strict=True):
        if not some:
            raise BadInput(f"{where}: {key} is an empty list; give a value, or leave it out")
    return (dict(zip(entry, combination, strict=True)) for combination in product(*values))


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
