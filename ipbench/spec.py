"""The values an experiment is made of, and their identities: `Recipe`, `Basis`, `Run`.

All are frozen and validated. An identity is a hash of the values that differ from their defaults, so a new field with
a default never renames an old run. Names of methods, models and data sets are only checked for their form here; that
they exist is checked where they are known (`ipbench.planning.experiment`).
"""

from __future__ import annotations

import hashlib
import json
import re
from decimal import Decimal
from fractions import Fraction
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ipbench import numerals
from ipbench.errors import BadInput, valid_choice

Space = Literal["sp", "ip"]
Off = Literal["zero", "frozen", "decayed"]
Allocation = Literal["global", "uniform", "erk"]
Budget = Literal["parameters", "macs", "channels"]
Mode = Literal["strict", "fast"]
#: What is asked of a method's gain: one thing about its run is another one. `docs/rules.md` says what each means.
Control = Literal[
    "none", "shuffle", "reinitialise", "invert", "borrowed-ratios", "scratch-e", "scratch-b", "origin",
    "small-dense", "small-dense-macs",
]  # fmt: skip
SPACES: tuple[str, ...] = get_args(Space)
OFFS: tuple[str, ...] = get_args(Off)
ALLOCATIONS: tuple[str, ...] = get_args(Allocation)
BUDGETS: tuple[str, ...] = get_args(Budget)
MODES: tuple[str, ...] = get_args(Mode)
CONTROLS: tuple[str, ...] = get_args(Control)
NO_CONTROL: Control = "none"
#: Patterns whose units are more than a coefficient, and are ranked in one list; "N:M" is the pattern beside them.
UNIT_PATTERNS = ("filters", "columns", "channels")
COEFFICIENTS = "coefficients"
#: How the score of a unit follows from those of its coefficients.
UnitScore = Literal["sum", "first"]
UNIT_SCORES: tuple[str, ...] = get_args(UnitScore)

#: What may become part of a path or a shell word.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_SMALLEST = Decimal("1e-12")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_N_OF_M = re.compile(r"([1-9][0-9]?):([1-9][0-9]?)")
#: The M of N:M at most: hardware has 4, and what is ranked by 64 is no pattern of hardware any more.
_LARGEST_M = 64
#: Pixels of one pass of a score over many images: 256 images of 32 x 32, 64 of 64 x 64, 5 of 224 x 224. Part of what a
#: score is where norms see a pass alone, so it depends on no machine.
PASS_PIXELS = 2**18


def checked_name(value: str) -> str:
    """`value`, if it may become part of a path; else ValueError."""
    if not NAME.fullmatch(value):
        raise ValueError("not a name: use letters, digits, '_', '-' and '.', at most 64, the first a letter or digit")
    return value


def _sparsity(value: object) -> str:
    """Canonical decimal text of a sparsity: '0.9' for 0.90, '0' for 0.0."""
    try:
        number = Decimal(numerals.decimal(str(value)))
    except ValueError:
        raise ValueError("a sparsity is a number from 0 up to, not including, 1") from None
    if isinstance(value, bool) or not 0 <= number < 1:
        raise ValueError("a sparsity is a number from 0 up to, not including, 1")
    rounded = number.quantize(_SMALLEST)
    if rounded != number:
        raise ValueError("a sparsity has at most 12 decimals")
    return format(abs(rounded).normalize(), "f")  # abs: there is a minus zero


def _pattern(value: object) -> str:
    """The name of a pattern, "2:4" among them."""
    if value == COEFFICIENTS or value in UNIT_PATTERNS:
        return str(value)
    found = _N_OF_M.fullmatch(value) if isinstance(value, str) else None
    if found is None or not int(found[1]) < int(found[2]) <= _LARGEST_M:
        names = ", ".join((COEFFICIENTS, *UNIT_PATTERNS))
        raise ValueError(f"a pattern is one of {names}, or N:M such as 2:4, with N below M and M up to {_LARGEST_M}")
    return str(value)


def n_of_m(pattern: str) -> tuple[int, int] | None:
    """N and M of a pattern N:M; None of any other one."""
    found = _N_OF_M.fullmatch(pattern)
    return (int(found[1]), int(found[2])) if found else None


def only_sparsity(pattern: str) -> str | None:
    """The sparsity that a pattern N:M has, 1 - N/M to 12 decimals; None of a pattern that can have any."""
    kept = n_of_m(pattern)
    return _sparsity(round(1 - Decimal(kept[0]) / kept[1], 12)) if kept else None


def pattern_name(value: object, where: str) -> str:
    """The name of a pattern.

    Args:
        value: what somebody wrote.
        where: where, for the message.

    Raises:
        BadInput: it is none.
    """
    try:
        return _pattern(value)
    except ValueError as error:
        raise BadInput(f"{where}: {error} (got {value!r:.60})") from None


def _printable(value: str) -> str:
    """Text on one line: it stands in captions, in tables and, as an option, in a command."""
    if not value.isprintable():
        raise ValueError("a text on one line, without control characters")
    return value


Name = Annotated[str, AfterValidator(checked_name)]
Sparsity = Annotated[str, BeforeValidator(_sparsity)]
Pattern = Annotated[str, BeforeValidator(_pattern)]
Seed = Annotated[int, Field(ge=0, lt=2**32, strict=True)]
Text = Annotated[str, AfterValidator(_printable)]
#: Neither true and false nor texts: "3" and true are mistakes where a number is meant.
Whole = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True)]
Option = bool | int | float | Text


class Value(BaseModel):
    """A frozen value; unknown keys and non-finite numbers are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def differences(self) -> dict[str, Any]:
        """The fields that differ from their defaults, as plain JSON values; fields without a default always."""
        result = {}
        for name, (required, default) in _defaults(type(self)).items():
            value = getattr(self, name)
            if isinstance(value, Value):
                inner = value.differences()
                if inner or required:
                    result[name] = inner
            elif required or value != default:
                result[name] = value
        return result


@cache
def _defaults(kind: type[Value]) -> dict[str, tuple[bool, Any]]:
    """Whether a field must be given, and its default; asked for several times per run of a grid."""
    fields = kind.model_fields.items()
    return {name: (field.is_required(), field.get_default(call_default_factory=True)) for name, field in fields}


class Augmentation(Value):
    """Keyed augmentation of the training images, applied in this order."""

    random_resized_crop: bool = Field(
        False, description="a part of 8 to 100 % of the area, at a ratio of 3/4 to 4/3; for images that vary in size"
    )
    flip: bool = Field(False, description="mirror left-right with probability one half")
    translate: Whole = Field(
        0, ge=0, le=64, description="shift by up to so many pixels in each direction, zeros move in"
    )
    cutout: Whole = Field(0, ge=0, le=256, description="side in pixels of a square set to zero")


class Recipe(Value):
    """How a net is trained. Fractions and epochs are of this run's own training."""

    epochs: Whole = Field(20, ge=1, le=10_000)
    batch_size: Whole = Field(128, ge=2, le=65_536)
    lr: Number = Field(0.1, gt=0, le=1000, description="peak learning rate of SGD")
    momentum: Number = Field(0.9, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: Number = Field(5e-4, ge=0, le=1)
    schedule: Literal["step", "cosine", "constant"] = "step"
    milestones: tuple[Annotated[Number, Field(gt=0, lt=1)], ...] = Field(
        (0.5, 0.75), description="step schedule: the fractions of the training after which lr is multiplied by gamma"
    )
    gamma: Number = Field(0.1, gt=0, le=1)
    warmup: Number = Field(0, ge=0, le=1000, description="epochs of linear warm-up from 0")
    label_smoothing: Number = Field(0, ge=0, lt=1)
    augmentation: Augmentation = Augmentation()
    validation: Number = Field(0.1, ge=0, lt=1, description="fraction of the training images held out by key")
    train_examples: Whole | None = Field(
        None, ge=2, description="a keyed subset of so many training images; all if null"
    )
    init: Literal["kaiming_normal", "kaiming_uniform", "xavier_normal", "signed_kaiming", "signed_xavier"] = (
        "kaiming_normal"
    )
    precision: Literal["float32", "bf16"] = Field("float32", description="bf16: autocast; slow on most CPUs")

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.warmup > self.epochs:
            raise ValueError(f"warmup ({self.warmup:g} epochs) is longer than the training ({self.epochs} epochs)")
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0, and it is 0")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must increase, each above the one before, and {list(self.milestones)} do not")
        return self


class Basis(Value):
    """The filter basis (FB) of space `ip`; has no meaning in `sp`."""

    init: Literal["standard", "orthonormal"] = Field("standard", description="one-pixel basis or random orthonormal")
    sharing: Literal["layer", "stage", "network"] = Field(
        "layer", description="which layers share one FB per kernel size"
    )
    train: bool = Field(True, description="false: the FB stays at its start and costs nothing of the budget")
    lr: Number = Field(1.0, gt=0, le=1000, description="learning rate of the FB as a factor of the recipe's")
    weight_decay: Number = Field(0.0, ge=0, le=1, description="weight decay of the FB")
    large_kernels: bool = Field(True, description="kernels larger than 3 have an FB of their own size; false: none")


def _digest(value: str) -> str:
    if value and not _SHA256.fullmatch(value):
        raise ValueError("not the 64 hexadecimal digits of a SHA-256")
    return value


Digest = Annotated[str, AfterValidator(_digest)]


class Own(Value):
    """What the names of a run stand for where ipbench does not ship it: digests, so that no name stands for two things.

    All are empty where the model and the data set are those that ipbench, torchvision and timm know by name.
    """

    base: Annotated[str, AfterValidator(lambda value: value and checked_name(value))] = Field(
        "", description="the function of the file, or the known model, where the model has another name in tables"
    )
    code: Digest = Field("", description="of the file that the model comes from, with the user's modules it imports")
    weights: Digest = Field("", description="of the file of the weights that the model starts with")
    data: Digest = Field("", description="of the content of the data set, and of how its images are brought to size")


class Run(Value):
    """One training: everything that decides its numbers."""

    dataset: Name
    model: Name
    method: Name
    recipe: Recipe
    space: Space = "sp"
    basis: Basis = Basis()
    off: Off = "zero"
    sparsity: Sparsity = "0"
    allocation: Allocation = "global"
    pattern: Pattern = Field(COEFFICIENTS, description="what is kept or removed as one")
    budget: Budget = Field("parameters", description="what the sparsity is the removed share of")
    options: dict[Name, Option] = Field(
        default_factory=dict, description="the method's options that differ from its defaults"
    )
    control: Control = Field(NO_CONTROL, description="what is another one than in the method's run")
    seed: Seed = 0
    mode: Mode = "strict"
    own: Own = Own()

    @model_validator(mode="after")
    def _canonical(self) -> Run:
        if self.space == "sp" and self.basis != Basis():
            raise ValueError("basis: the filter basis belongs to space ip; leave it out in sp")
        if problem := _without_meaning(self):
            raise ValueError(problem)
        return self

    @property
    def net(self) -> str:
        """The model by the name that ipbench knows it by, whatever tables call it."""
        return self.own.base or self.model

    def to_json(self) -> dict[str, Any]:
        """All values, as plain JSON; `own` and `control` only where they say something, as in versions without them."""
        unsaid = {"own"} if self.own == Own() else set[str]()
        unsaid |= {"control"} if self.control == NO_CONTROL else set()
        return self.model_dump(mode="json", exclude=unsaid)

    @property
    def density(self) -> Fraction:
        """1 - sparsity, exactly."""
        return 1 - Fraction(self.sparsity)

    @property
    def id(self) -> str:
        """12 hex digits naming this run."""
        return identity(self.differences())

    @property
    def cell(self) -> str:
        """12 hex digits naming this run without its seed: a cell of a table."""
        return identity({name: value for name, value in self.differences().items() if name != "seed"})


def _without_meaning(run: Run) -> str:
    """Why a run's pattern, budget, allocation, off-value and sparsity have no meaning together; empty if they have one.

    `docs/rules.md` has the list.
    """
    pattern, units = run.pattern, run.pattern in UNIT_PATTERNS
    if run.budget != "parameters" and not units:
        return f"budget {run.budget} has no meaning for pattern {pattern}, which removes no channels; take parameters"
    if run.budget == "macs" and pattern == "columns":
        return (
            "budget macs has no meaning for pattern columns, which leaves every layer its shape; take parameters or"
            " channels"
        )
    if run.budget == "macs" and run.off != "zero":
        return f"budget macs needs off zero: what is {run.off} is still computed"
    if run.allocation == "erk" and pattern != COEFFICIENTS:
        return f"allocation erk is a rule for coefficients, not for pattern {pattern}; take global or uniform"
    if only := only_sparsity(pattern):
        if run.allocation != "global":
            return f"allocation {run.allocation} has no meaning for pattern {pattern}, which prunes all layers alike"
        if run.sparsity != only:
            return f"pattern {pattern} has sparsity {only}, which is 1 - N/M, and no other one; not {run.sparsity}"
    return ""


def pair_of(run: Run) -> str:
    """12 hex digits naming what a cell and its partner in the other space have in common."""
    left_out = ("seed", "space", "basis")
    return identity({name: value for name, value in run.differences().items() if name not in left_out})


V = TypeVar("V", bound=Value)


def identity(values: dict[str, Any]) -> str:
    """12 hex digits of a SHA-256 over canonical JSON."""
    return hashlib.sha256(canonical_json(values).encode()).hexdigest()[:12]


def canonical_json(value: Any) -> str:
    """JSON text that is the same for equal values: sorted keys, no blanks, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def build(kind: type[V], values: object, where: str) -> V:
    """Validate `values` as a `kind`; raise `BadInput` with the first error as one line that names the place.

    Args:
        kind: `Recipe`, `Run`, ...
        values: what a user wrote.
        where: how a user would find it, e.g. "config/x.yaml: recipe".
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise BadInput(one_line(error, kind, where)) from None


#: Where pydantic speaks of Python.
_MESSAGES = {
    "missing": "this key must be given",
    "tuple_type": "input should be a list",
    "dict_type": "input should be a mapping of keys to values",
    "model_type": "input should be a mapping of keys to values",
    "string_type": "input should be a word or a text",
    "bool_type": "input should be true or false",
    "bool_parsing": "input should be true or false",
    "finite_number": "input should be a finite number",
}


def one_line(error: ValidationError, kind: type[BaseModel], where: str) -> str:
    """The first problem of a pydantic error: where, what is wrong, what is valid."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    place = ": ".join([where, *([".".join(path)] if path else [])])
    if first["type"] == "extra_forbidden":
        owner: Any = kind
        for part in path[:-1]:
            owner = getattr(owner, "model_fields", {}).get(part)
            owner = getattr(owner, "annotation", owner)
        valid = getattr(owner, "model_fields", None)
        if valid:
            try:
                valid_choice(path[-1], valid, "key", ": ".join([where, *([".".join(path[:-1])] if path[:-1] else [])]))
            except BadInput as unknown:
                return str(unknown)
        return f"{place}: unknown key"
    message = _MESSAGES.get(first["type"], first["msg"]).removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    got = "" if isinstance(first["input"], dict) or first["type"] == "missing" else f" (got {first['input']!r:.60})"
    return f"{place}: {message}{got}"
