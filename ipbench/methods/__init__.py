"""Methods: what decides the masks, and when. One file per method, found by scanning this folder.

To declare one, see `ipbench.methods._declare` and docs/adding-a-method.md. Files outside this folder are registered by
`load`. Nothing here imports torch, unless a method's file does.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from ipbench.errors import valid_choice
from ipbench.methods._continuing import line_of
from ipbench.methods._controls import FRESH, UNPRUNED, controlled, source_of
from ipbench.methods._declare import OF_MODELS, OWN_AXES, before_training, cross_entropy, method
from ipbench.methods._files import code_in, renew
from ipbench.methods._files import load as load_files
from ipbench.methods._filter_scores import filter_score
from ipbench.methods._method import REGISTRY, Method
from ipbench.methods._rules import SUFFIX as RULES
from ipbench.methods._rules import rule_file, rule_files, rule_names, scores_of
from ipbench.methods._stages import Choose, Continue, External, Prune, Rewind, Slice, Stage, Take, Train
from ipbench.methods._updates import DropAndGrow, Gradual
from ipbench.spec import Run
from ipbench.updaters import Steps, Update, Updater
from ipbench.user_code import Code

__all__ = [
    "FRESH",
    "OF_MODELS",
    "OWN_AXES",
    "RULES",
    "UNPRUNED",
    "Choose",
    "Code",
    "Continue",
    "DropAndGrow",
    "External",
    "Gradual",
    "Method",
    "Prune",
    "Rewind",
    "Slice",
    "Stage",
    "Steps",
    "Take",
    "Train",
    "Update",
    "Updater",
    "before_training",
    "built_in",
    "called",
    "code",
    "controlled",
    "cross_entropy",
    "filter_score",
    "get",
    "line",
    "load",
    "method",
    "methods",
    "needs",
    "parent",
    "renew",
    "rule_file",
    "rule_files",
    "rule_names",
    "scores_of",
    "source_of",
]


@cache
def _scan() -> None:
    for module in pkgutil.iter_modules(__path__):
        if module.name.startswith("_"):
            continue
        importlib.import_module(f"{__name__}.{module.name}")


def methods() -> dict[str, Method]:
    """All registered methods by name: those of this folder, and those of files that were loaded."""
    _scan()
    return dict(sorted(REGISTRY.items()))


def get(name: str, where: str = "") -> Method:
    """The method of that name.

    Raises:
        BadInput: there is none; the message names the nearest and all valid ones.
    """
    known = methods()
    return known[valid_choice(name, known, "method", where)]


def parent(run: Run) -> Run | None:
    """The run of whose end this one is a continuation; None if it starts from initial values."""
    return get(run.method).parent(run)


def needs(run: Run) -> list[Run]:
    """The runs that must be finished before this one: that which it continues, and that which it is a control of."""
    return [before for before in (parent(run), source_of(run)) if before is not None]


def line(run: Run) -> list[Run]:
    """The runs that a run continues, the nearest first.

    Raises:
        BadInput: one of them cannot be, or they have no beginning.
    """
    return list(line_of(get(run.method), run, methods()))


def called(run: Run, amount: str = "") -> str:
    """What a person reads of a run in a log: data set, net, method, control, space, structure, how much is pruned.

    Control, pattern and budget are named where they are not the usual ones. The seed is left to the caller.

    Args:
        run: of any method, one that nobody has registered too.
        amount: the sparsities of several runs, in place of that of the run.
    """
    told = run.differences()
    control = [run.control] if "control" in told else []
    structure = [told[name] for name in ("pattern", "budget") if name in told]
    known = methods().get(run.method)
    knob = known.knob if known else ""
    much = f"{knob}={run.options[knob]}" if knob in run.options else f"p={amount or run.sparsity}"
    return " ".join([run.dataset, run.model, run.method, *control, run.space, *structure, much])


def built_in(name: str) -> bool:
    """Whether this is a method of this folder; False for names that nobody has registered."""
    _scan()
    return name in REGISTRY and Path(REGISTRY[name].file).resolve().parent == Path(__file__).resolve().parent


def code(name: str) -> Code | None:
    """The code of a user's method, as it was when its file was loaded; None for a method of this folder.

    Raises:
        BadInput: its code lies in no file that can be read.
    """
    entry = get(name)
    return None if built_in(name) else code_in(Path(entry.file).resolve())


def load(files: Iterable[str | Path]) -> dict[str, list[str]]:
    """Run method files that live outside this folder, and read those of rules; returns the names that each registered.

    Raises:
        BadInput: no such file, it does not import, or what it declares is no method.
    """
    _scan()  # no file takes the name of a method of this folder
    return load_files(files)
