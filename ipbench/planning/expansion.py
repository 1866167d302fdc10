"""What the axes of an experiment expand to: methods with their options and masks, filter bases, and how many cells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from math import prod
from typing import Any, NamedTuple

from ipbench import methods
from ipbench.errors import BadInput, valid_choice
from ipbench.planning.axes import Axes
from ipbench.spec import NO_CONTROL, Basis, Option, build

#: Cells and runs of a grid: ten times what has been planned with it. More can only be a slip, and would take hours.
MOST_CELLS, MOST_RUNS = 200_000, 1_000_000


class Variant(NamedTuple):
    """A method with its options, with what its masks are, as fields of a run, and with the models that it is meant for:
    all if there are none. `asked`: its entry names its control, which must have a meaning then.
    """

    method: methods.Method
    options: dict[str, Option]
    masks: dict[str, Any]
    models: frozenset[str]
    asked: bool


def method_files(axes: Axes) -> tuple[str, ...]:
    """Files outside the package that declare methods of this experiment: Python's, and those of rules."""
    files = (_method_file(entry) for entry in axes.methods)
    return tuple(dict.fromkeys(file for file in files if file))


def check_size(axes: Axes, where: str) -> None:
    """Count a grid before any of it is built; what is folded away afterwards is counted, too.

    Raises:
        BadInput: it has more cells or runs than are planned.
    """
    masks = prod(map(len, (axes.off, axes.allocations, axes.patterns, axes.budgets, axes.controls)))
    variants = sum(masks if isinstance(entry, str) else masks * _size(entry) for entry in axes.methods)
    bases = sum(map(_size, axes.basis)) if "ip" in axes.spaces else 0
    sides = bases + ("sp" in axes.spaces)
    nets = len(axes.datasets) * max(1, len(axes.models)) * len(axes.recipe)
    cells = nets * variants * len(axes.sparsities) * sides
    for number, most, what in ((cells, MOST_CELLS, "cells"), (cells * len(axes.seeds), MOST_RUNS, "runs")):
        if number > most:
            raise BadInput(
                f"{where}: a grid of {number:,} {what}, and at most {most:,} are planned: nets and recipes"
                f" {nets:,} x methods and their options {variants:,} x sparsities {len(axes.sparsities):,} x spaces"
                f" and bases {sides:,} x seeds {len(axes.seeds):,}"
            )


def variants(axes: Axes, models: Sequence[str], where: str) -> Iterator[Variant]:
    """Every method of an experiment with its options and masks; lists of values are axes too.

    Args:
        axes: of the experiment.
        models: those of the experiment, which an entry of a method may name.
        where: how messages name the experiment.

    Raises:
        BadInput: an entry has no meaning, or stands there twice.
    """
    seen = set()
    for method, said in _entries(axes, where):
        place = f"{where}: methods: {method.name}"
        chosen_models = _own_models(said.pop(methods.OF_MODELS, None), models, place)
        for chosen in _product({**_own_axes(method, axes, said, place), **said}, place):
            masks = {name: chosen.pop(name) for name in methods.OWN_AXES}
            if "budget" not in said and method.budget != "parameters":
                masks["budget"] = method.budget_for(masks["pattern"])
            options = method.check_options(chosen, where)
            name = repr((method.name, options, masks, sorted(chosen_models)))
            if name in seen:
                raise BadInput(
                    f"{where}: methods: {method.name} appears twice with the same options, {options or 'its defaults'}"
                )
            seen.add(name)
            yield Variant(method, options, masks, chosen_models, "control" in said)


def filter_bases(axes: Axes, where: str) -> list[Basis]:
    """Every filter basis of an experiment; lists of values are axes too.

    Raises:
        BadInput: one is no filter basis, or stands there twice.
    """
    place = f"{where}: basis"
    found = [build(Basis, values, place) for entry in axes.basis for values in _product(entry, place)]
    if len(set(found)) < len(found):
        raise BadInput(f"{place}: the same filter basis appears twice")
    return found


def _entries(axes: Axes, where: str) -> Iterator[tuple[methods.Method, dict[str, Any]]]:
    """The methods as they were written, one by one: each with what its entry says beside its name."""
    for entry in axes.methods:
        _check_names(entry, f"{where}: methods")
    found = methods.load(method_files(axes))
    for entry in axes.methods:
        if isinstance(entry, str):
            yield from ((methods.get(name, where), {}) for name in found.get(entry, [entry]))
            continue
        name = entry.get("name") or found[entry["rule"]][0]
        if file := entry.get("file", entry.get("rule")):
            valid_choice(name, found[file], f"method of {file}", where)
        own = {key: value for key, value in entry.items() if key not in ("name", "file", "rule")}
        yield methods.get(name, where), own


def _check_names(entry: str | dict[str, Any], place: str) -> None:
    """Raise `BadInput` for an entry that names no method, or in a file that holds none."""
    if isinstance(entry, str):
        return
    if "rule" in entry and ("file" in entry or not str(entry["rule"]).endswith(methods.RULES)):
        raise BadInput(
            f"{place}: rule is the path of a file of rules, which ends in {methods.RULES}, in the place of file; not"
            f" {entry!r:.80}"
        )
    if not isinstance(entry.get("name", entry.get("rule")), str):
        raise BadInput(f"{place}: {entry!r:.60} has no name (write `- name: snip` and its options)")
    if "file" in entry and not str(entry["file"]).endswith(".py"):
        raise BadInput(f"{place}: file is the path of a method file, which ends in .py, not {entry['file']!r:.80}")


def _own_axes(method: methods.Method, axes: Axes, own: Iterable[str], place: str) -> dict[str, list[str]]:
    """What a method's masks are: as it declares, or as the experiment says; its entry may say otherwise.

    Raises:
        BadInput: the entry says so of a method that has no masks.
    """
    if not method.prunes and (vain := {*methods.OWN_AXES} & set(own)):
        raise BadInput(f"{place}: {min(vain)} has no meaning for {method.name}, which does not prune; leave it out")
    return {
        "off": method.offs(axes.off),
        "allocation": method.allocations(axes.allocations),
        "pattern": method.patterns(axes.patterns),
        "budget": method.budgets(axes.budgets),
        "control": list(axes.controls) if method.prunes else [NO_CONTROL],
    }


def _own_models(wanted: Any, known: Sequence[str], place: str) -> frozenset[str]:
    """The models of the experiment that an entry of a method names; none if it names none.

    Raises:
        BadInput: it names one that the experiment does not have.
    """
    if wanted is None:
        return frozenset()
    if wanted == []:
        raise BadInput(f"{place}: model is an empty list; give a value, or leave it out")
    chosen = wanted if isinstance(wanted, list) else [wanted]
    return frozenset(valid_choice(str(name), known, "model of this experiment", place) for name in chosen)


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
