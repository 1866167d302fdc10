"""Files of users that are run: the file itself, never a compiled one, and with the modules that lie beside it."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from ipbench.errors import BadInput


class Uncached(SourceFileLoader):
    """Runs the file itself: it leaves no compiled one beside it, and trusts none that lies there."""

    def path_stats(self, path: str) -> Mapping[str, Any]:
        """Asked by the import system before it looks for a compiled file."""
        raise OSError


def execute(label: str, path: Path, loader: SourceFileLoader | None = None) -> ModuleType:
    """Import a file as the module `label`.

    Args:
        label: the name of the module, in `sys.modules` afterwards.
        path: the file.
        loader: that reads it; `Uncached` if left out.

    Raises:
        BadInput: it does not import; the module is left in `sys.modules` for the caller to remove.
    """
    spec = importlib.util.spec_from_file_location(label, path, loader=loader or Uncached(label, str(path)))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[label] = module
    folder = Path.cwd()
    try:
        spec.loader.exec_module(module)
    except BadInput:
        raise
    except (Exception, SystemExit) as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise BadInput(f"{path}: does not import: {said:.300}") from error
    finally:
        os.chdir(folder)  # all paths of a command line are relative to it
    return module


@cache
def installed() -> Mapping[str, list[str]]:
    """Names that can be imported from installed packages, of all folders that are searched."""
    from importlib.metadata import packages_distributions  # here, for planning a grid does not need it

    return packages_distributions()


class _Beside:
    """Finds the modules of one folder, but for those that have the name of an installed or a standard one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As the import system asks."""
        if path is not None or name in sys.stdlib_module_names:
            return None
        found = PathFinder.find_spec(name, [str(self._folder)])
        if found is None or not found.has_location or name == "ipbench" or name in installed():
            return None
        if isinstance(found.loader, SourceFileLoader) and found.origin:
            found.loader = Uncached(name, found.origin)
        return found


@contextmanager
def beside(file: Path) -> Iterator[None]:
    """Within the block, modules in the folder of a file can be imported by name; afterwards they are forgotten.

    So two files of different folders may each have a `blocks.py` of their own.
    """
    folder = file.resolve().parent
    finder = _Beside(folder)
    stems = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()}
    own = {stem for stem in stems if stem.isidentifier() and finder.find_spec(stem) is not None}

    def taken() -> dict[str, ModuleType]:
        names = [name for name in sys.modules if name.partition(".")[0] in own]
        return {name: sys.modules.pop(name) for name in names}

    before = taken()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        taken()
        sys.modules.update(before)
