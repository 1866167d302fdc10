"""Method files of users, outside of the package: loading them, running them again, and the code that they are."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from ipbench.errors import BadInput
from ipbench.methods._code import Code, code_of
from ipbench.methods._declare import REGISTRY
from ipbench.methods._rules import SUFFIX as RULES
from ipbench.methods._rules import code_of_rules, declare

#: The code of methods, by file, as it was when the file was loaded.
_CODE: dict[Path, Code] = {}
#: Of every file that was run, by its module's name: its path, and the modules that were there before.
_LOADED: dict[str, tuple[Path, frozenset[str]]] = {}
_CODE_OF: dict[str, CodeType | None] = {}


def code_in(file: Path) -> Code:
    """The code of a method file, as it was when it was loaded.

    Raises:
        BadInput: it lies in no file that can be read.
    """
    if file not in _CODE:  # declared by a module that was imported, not loaded
        _CODE[file] = _read_code(file)
    return _CODE[file]


def _read_code(file: Path, module: ModuleType | None = None) -> Code:
    try:
        return code_of(file, module)
    except OSError as error:
        raise BadInput(f"{error.filename}: cannot be read, so that no record could tell the code of a method") from None


def load(files: Iterable[str | Path]) -> dict[str, list[str]]:
    """Run method files that live outside this folder, and read those of rules; returns the names that each registered.

    Raises:
        BadInput: no such file, it does not import, or what it declares is no method.
    """
    found = {}
    for file in files:
        path = Path(file)
        if not str(file).isprintable() or path.suffix not in (".py", RULES):
            raise BadInput(f"{str(file)!r:.200}: not the path of a method file, which ends in .py or {RULES}")
        if not path.is_file():
            missing = "not a file" if path.exists() else "no such file"
            raise BadInput(f"{path}: {missing} (a method file, relative to the folder that the command runs in)")
        if path.suffix == RULES:
            found[str(file)] = [_load_rules(path)]
            continue
        label = f"ipbench_method_{sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
        if label not in sys.modules:
            with _all_or_none(label):
                _CODE_OF.pop(label, None)
                before = frozenset(sys.modules)  # `set` is a method here
                _execute(label, path)
                _LOADED[label] = path, before
                names = _declared_in(path)
                if not names:
                    raise BadInput(f"{path}: declares no method (decorate a function with ipbench.methods.method)")
                for name in names:
                    REGISTRY[name].check(str(path))
                _CODE[path.resolve()] = _read_code(path.resolve(), sys.modules[label])
        found[str(file)] = _declared_in(path)
    return found


def _load_rules(path: Path) -> str:
    """Register the method of a file of rules, with its code as it is now; a second time changes nothing."""
    known = path.stem in REGISTRY
    name = declare(path)
    if not known:
        try:
            _CODE[path.resolve()] = code_of_rules(path)
        except BadInput:
            del REGISTRY[name]
            raise
    return name


def renew() -> None:
    """Run all method files again, so that a run finds nothing in them that another one left: caches, counters.

    The code is that of the first time, whatever has become of the file. Modules that such a file imported are imported
    again, unless they are installed.

    Raises:
        BadInput: a file does not run again, or declares other methods than before.
    """
    for label, (path, before) in _LOADED.items():
        names = _declared_in(path)
        if label not in sys.modules or not names:
            continue
        with _all_or_none(label):
            for name in names:
                del REGISTRY[name]
            for name in sys.modules.keys() - before:
                if _own(name):
                    del sys.modules[name]
            _execute(label, path)
            if sorted(names) != sorted(_declared_in(path)):
                raise BadInput(f"{path}: declares other methods when it is run again; a run begins with a fresh one")


def _own(name: str) -> bool:
    """Whether a module is a file of the user's: neither installed nor of Python, of this package or another method."""
    top = name.partition(".")[0]
    if top == "ipbench" or top.startswith("ipbench_method_") or top in sys.stdlib_module_names:
        return False
    return getattr(sys.modules[name], "__file__", None) is not None and top not in _installed()


@cache
def _installed() -> Mapping[str, list[str]]:
    """Names that can be imported from installed packages, of all folders that are searched."""
    from importlib.metadata import packages_distributions  # here, for planning a grid does not need it

    return packages_distributions()


def _declared_in(path: Path) -> list[str]:
    return [name for name, entry in REGISTRY.items() if Path(entry.file).resolve() == path.resolve()]


def _execute(label: str, path: Path) -> None:
    """Import a file as the module `label`."""
    spec = importlib.util.spec_from_file_location(label, path, loader=_Uncached(label, str(path)))
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


@contextmanager
def _all_or_none(label: str) -> Iterator[None]:
    """Forget a file's methods if it is refused."""
    before = dict(REGISTRY)
    try:
        yield
    except BaseException:
        sys.modules.pop(label, None)
        REGISTRY.clear()
        REGISTRY.update(before)
        raise


class _Uncached(SourceFileLoader):
    """Runs the file itself: it leaves no compiled one beside it, and trusts none that lies there."""

    def path_stats(self, path: str) -> Mapping[str, Any]:
        """Asked by the import system before it looks for a compiled file."""
        raise OSError

    def get_code(self, fullname: str) -> CodeType | None:
        """The code as it was when the file was first run in this process."""
        if fullname not in _CODE_OF:
            _CODE_OF[fullname] = super().get_code(fullname)
        return _CODE_OF[fullname]
