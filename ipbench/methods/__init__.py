"""Methods: what decides the masks, and when. One file per method, found by scanning this folder (floor 4).

To declare one, see `ipbench.methods.declare` and docs/adding-a-method.md. Files outside this folder are registered by
`load`. Nothing here imports torch, unless a method's file does.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterable
from functools import cache
from hashlib import sha256
from pathlib import Path

from ipbench.errors import BadInput, valid_choice
from ipbench.methods.declare import REGISTRY, Method, before_training, cross_entropy, method
from ipbench.methods.stages import Continue, DropAndGrow, Gradual, Prune, Rewind, Stage, Train, Update
from ipbench.spec import Run

__all__ = [
    "Continue",
    "DropAndGrow",
    "Gradual",
    "Method",
    "Prune",
    "Rewind",
    "Stage",
    "Train",
    "Update",
    "before_training",
    "cross_entropy",
    "get",
    "load",
    "method",
    "methods",
    "parent",
]


@cache
def _scan() -> None:
    for module in pkgutil.iter_modules(__path__):
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


def load(files: Iterable[str | Path]) -> dict[str, list[str]]:
    """Run method files that live outside this folder; returns the names that each file registered.

    Raises:
        BadInput: no such file, it does not import, or it registers nothing.
    """
    _scan()
    found = {}
    for file in files:
        path = Path(file)
        if not path.is_file():
            raise BadInput(f"{path}: no such file (a method file, relative to the folder that the command runs in)")
        label = f"ipbench_method_{sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
        if label not in sys.modules:
            spec = importlib.util.spec_from_file_location(label, path)
            if spec is None or spec.loader is None:
                raise BadInput(f"{path}: not a Python file")
            module = importlib.util.module_from_spec(spec)
            sys.modules[label] = module
            try:
                spec.loader.exec_module(module)
            except BadInput:
                sys.modules.pop(label)
                raise
            except Exception as error:
                sys.modules.pop(label)
                raise BadInput(f"{path}: does not import: {type(error).__name__}: {error}".splitlines()[0]) from error
        found[str(file)] = [name for name, entry in REGISTRY.items() if Path(entry.file).resolve() == path.resolve()]
        if not found[str(file)]:
            raise BadInput(f"{path}: declares no method (decorate a function with ipbench.methods.method)")
    return found
