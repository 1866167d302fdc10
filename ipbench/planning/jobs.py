"""Jobs: what Snakemake schedules. How runs are put together in jobs changes no record, nor where it lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import lru_cache
from typing import Any

from ipbench import methods
from ipbench.data import catalog as datasets
from ipbench.data import own as own_data
from ipbench.models import own as own_models
from ipbench.planning import plain_yaml
from ipbench.spec import NO_CONTROL, Recipe, Run, identity


@dataclass(frozen=True)
class Job:
    """Runs that one process trains one after the other: cells that differ in their sparsity alone, with several seeds.

    Attributes:
        path: where the job's product lies in the experiment's folder.
        cells: a run of each cell, by growing sparsity: a level of a lottery ticket comes after those it continues.
        seeds: of all these cells.
        loader: that reads the images.
        method_files: of Python, that declare methods of the experiment.
        parents: paths of the other jobs whose runs these ones continue, or are controls of.
        keep: whether others need these runs, so that their ends must be kept; the same for all of them.
        rule_file: of rules, where one of them writes what these runs are pruned by; empty if none does.
    """

    path: str
    cells: tuple[Run, ...]
    seeds: tuple[int, ...]
    loader: str
    method_files: tuple[str, ...]
    parents: tuple[str, ...]
    keep: bool
    rule_file: str = ""

    @property
    def runs(self) -> list[Run]:
        """In the order in which they are trained."""
        return [run.model_copy(update={"seed": seed}) for run in self.cells for seed in self.seeds]

    @property
    def dataset(self) -> str:
        """What the runs read."""
        return self.cells[0].dataset

    @property
    def label(self) -> str:
        """What a person reads in a log."""
        sparsities = _ends([run.sparsity for run in self.cells])
        return f"{methods.called(self.cells[0], sparsities)} seeds {_span(self.seeds)}"

    @property
    def arguments(self) -> list[str]:
        """Options of `ipbench run` that say what is trained: what differs from the defaults."""
        run = self.cells[0]
        words = [*own_data.words(run.dataset), *own_models.words(run.model, run.own), "--method", run.method]
        for name, digest in run.own.differences().items():
            words += ["--digest", f"{name}={digest}"] if name != "base" else []
        for cell in self.cells:
            words += ["--sparsity", cell.sparsity]
        words += ["--space", run.space, "--off", run.off, "--allocation", run.allocation, "--mode", run.mode]
        # A method may have a pattern and a budget of its own, which `ipbench run` takes where none is named.
        method = methods.get(run.method)
        own = {"pattern": run.pattern} if method.pattern != run.pattern else {}
        own |= {"budget": run.budget} if method.budget_for(run.pattern) != run.budget else {}
        for axis, chosen in {**own, **_structure(run)}.items():
            words += [f"--{axis}", chosen]
        words += ["--control", run.control] if run.control != NO_CONTROL else []
        for name, value in run.options.items():
            words += ["--option", _pair(name, value)]
        for name, value in run.basis.differences().items():
            words += ["--basis", _pair(name, value)]
        words += _recipe_words(run.dataset, run.recipe)
        for file in (*self.method_files, *([self.rule_file] if self.rule_file else [])):
            words += ["--method-file", file]
        if self.keep:
            words.append("--keep")
        words += ["--loader", self.loader]
        for seed in self.seeds:
            words += ["--seed", str(seed)]
        return words

    @property
    def places(self) -> list[str]:
        """Options of `ipbench run` that say where a user's model and data set lie: no part of what they are."""
        run = self.cells[0]
        return [*own_data.places(run.dataset), *own_models.places(run.model, run.own)]

    def alone(self, cell: Run, seed: int) -> Job:
        """One of its runs, for a program that scores it: another one does not keep its end."""
        return replace(self, cells=(cell,), seeds=(seed,), keep=False)


def fuse(
    cells: Mapping[str, Run],
    needs: Mapping[str, Sequence[str]],
    seeds: Sequence[int],
    *,
    seeds_per_job: int,
    sparsities_per_job: int,
    loader: str,
    method_files: tuple[str, ...],
    rule_files: Mapping[str, str],
) -> list[Job]:
    """Put every cell and seed into one job.

    Args:
        cells: a run of every cell that is trained, by the cell's id.
        needs: for every cell whose runs continue those of others, or are controls of them, the ids of those.
        seeds: of every cell.
        seeds_per_job: at most so many seeds share a job.
        sparsities_per_job: at most so many cells that differ in their sparsity alone share a job.
        loader: of all jobs.
        method_files: of all jobs.
        rule_files: by the name of the method that is a rule; of its jobs alone.
    """
    needed = {cell for cells in needs.values() for cell in cells}
    groups: dict[str, list[str]] = {}
    for cell, run in cells.items():
        alone = sparsities_per_job == 1
        groups.setdefault(cell if alone else _but_sparsity(run, cell in needed), []).append(cell)
    blocks = [tuple(seeds[start : start + seeds_per_job]) for start in range(0, len(seeds), seeds_per_job)]
    shared: dict[str, list[str]] = {}  # for every cell, all cells of its jobs
    for group in groups.values():
        group.sort(key=lambda cell: Decimal(cells[cell].sparsity))
        for start in range(0, len(group), sparsities_per_job):
            part = group[start : start + sparsities_per_job]
            shared |= dict.fromkeys(part, part)
    folders = {part[0]: _folder(cells, part) for part in shared.values()}
    jobs = []
    for cell, part in shared.items():
        if cell != part[0]:
            continue
        others = dict.fromkeys(shared[other][0] for one in part for other in needs.get(one, ()))
        for block in blocks:
            jobs.append(
                Job(
                    path=_path(folders[cell], block),
                    cells=tuple(cells[one] for one in part),
                    seeds=block,
                    loader=loader,
                    method_files=method_files,
                    parents=tuple(_path(folders[other], block) for other in others if other != cell),
                    keep=cell in needed,
                    rule_file=rule_files.get(cells[cell].method, ""),
                )
            )
    return jobs


def _structure(run: Run) -> dict[str, str]:
    """Pattern and budget, where they are not the usual ones."""
    return {name: value for name, value in run.differences().items() if name in ("pattern", "budget")}


def _but_sparsity(run: Run, keep: bool) -> str:
    """What cells of one job have in common. Whether ends are kept, too: no run is to be kept for another one's sake."""
    return identity({**run.differences(), "sparsity": None, "seed": None, "keep": keep})


def _folder(cells: Mapping[str, Run], part: Sequence[str]) -> str:
    """Where the job files of these cells lie, and how they begin: with the id of the cell, or one of all of them."""
    run = cells[part[0]]
    name = part[0] if len(part) == 1 else identity({"cells": list(part)})
    sparsities = _ends([cells[cell].sparsity for cell in part])
    return f"jobs/{run.dataset}/{run.model}/{run.method}/{run.space}-{run.off}/{sparsities}/{name}"


def _path(folder: str, seeds: Sequence[int]) -> str:
    return f"{folder}.{_span(seeds)}.json"


def _span(seeds: Sequence[int]) -> str:
    return f"{seeds[0]}-{seeds[-1]}"


def _ends(sparsities: Sequence[str]) -> str:
    return sparsities[0] if len(sparsities) == 1 else f"{sparsities[0]}-{sparsities[-1]}"


@datasets.cached_by_name(128)
def _recipe_words(dataset: str, recipe: Recipe) -> tuple[str, ...]:
    """What differs from the data set's default recipe."""
    usual = _flat(datasets.dataset(dataset).recipe.model_dump(mode="json"))
    values = _flat(recipe.model_dump(mode="json"))
    return tuple(
        word
        for name, value in values.items()
        if value != usual[name]
        for word in ("--recipe", f"{name}={plain_yaml.write(value)}")
    )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots."""
    result = {}
    for name, value in values.items():
        result.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
    return result


@lru_cache(typed=True)  # 1, 1.0 and true are equal, and not the same word
def _pair(name: str, value: bool | int | float | str) -> str:
    return f"{name}={plain_yaml.write(value)}"
