"""Users' models and data sets in an experiment: entries that are more than a name. Nothing of them is run here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from ipbench.data import catalog, own
from ipbench.errors import BadInput
from ipbench.models import own as own_models
from ipbench.spec import Name, Own, Text, Value, build

#: The data folder of the workflow: it keeps what was found of data sets, and weights that were fetched.
ROOT = Path("data")


class ModelEntry(Value):
    """What an experiment says of a model that is more than a name."""

    name: Text = Field(description="a function of `file`, or a known model")
    file: Text | None = None
    weights: Text | None = Field(None, description="a safetensors file, or the name of weights that were fetched")
    label: Name | None = Field(None, description="what runs and tables call it; the name if left out")


def data_sets(entries: Iterable[str | Mapping[str, Any]], folder: Path, where: str, *, trust: bool) -> list[str]:
    """The names of an experiment's data sets; users' ones are known to this process afterwards.

    Args:
        entries: as they were written.
        folder: that paths are relative to.
        where: for messages.
        trust: as of `own.data_set`.

    Raises:
        BadInput: one is not there, or not as it should be; one is there twice.
    """
    names = []
    for entry in entries:
        if isinstance(entry, str):
            catalog.OWN.pop(entry, None)  # a name alone is never a user's, whatever this process was told before
            names.append(catalog.dataset(entry, where.rpartition(": ")[0]).name)
        else:
            names.append(own.data_set(own.entry(dict(entry), where), folder, ROOT, where, trust=trust))
    return _once(names, where, "data sets", "name")


def models(entries: Iterable[str | Mapping[str, Any]], folder: Path, where: str) -> list[str]:
    """The names of an experiment's models; users' ones are known to this process afterwards.

    Args:
        entries: as they were written.
        folder: that paths are relative to.
        where: for messages.

    Raises:
        BadInput: one is not there; one is there twice.
    """
    names = []
    for entry in entries:
        if isinstance(entry, str):
            names.append(own_models.known(entry, where.rpartition(": ")[0]))
            continue
        told = build(ModelEntry, dict(entry), where)
        names.append(
            own_models.model(
                told.name, file=folder / told.file if told.file is not None else None, weights=told.weights,
                label=told.label, root=ROOT, folder=folder, where=where,
            )
        )  # fmt: skip
    return _once(names, where, "models", "label")


def keep() -> None:
    """Write what was found of users' data sets."""
    own.keep()


def own_of(data: str, model: str) -> Own:
    """What runs of a data set and a model say beside these names."""
    facts = catalog.OWN.get(data)
    return own_models.own_of(model, facts.own.sha256 if facts is not None and facts.own is not None else "")


def facts(names: Iterable[str]) -> dict[str, Any]:
    """What `grid.json` says of those data sets that are users'."""
    return {name: own.to_json(catalog.OWN[name]) for name in names if name in catalog.OWN}


def paths() -> list[Path]:
    """Files and folders of users' models and data sets."""
    return [*own.paths(), *own_models.paths()]


def _once(names: list[str], where: str, what: str, remedy: str) -> list[str]:
    for name in names:
        if names.count(name) > 1:
            raise BadInput(
                f"{where}: {name} appears twice; two {what} of an experiment have two names (give a `{remedy}`)"
            )
    return names
