"""What a user writes in `config/NAME.yaml`: its keys, which are the axes of a grid, and what each may hold."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from ipbench.spec import (
    COEFFICIENTS,
    NO_CONTROL,
    Allocation,
    Budget,
    Control,
    Mode,
    Name,
    Number,
    Off,
    Pattern,
    Recipe,
    Seed,
    Space,
    Sparsity,
    Text,
    Value,
    build,
    checked_name,
)


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


class Named(Value):
    """The name of an experiment."""

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
