"""Method files of users, outside of the package: loading them, running them again, and the code that they are."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import CodeType, ModuleType

from ipbench.errors import BadInput
from ipbench.methods._method import REGISTRY
from ipbench.methods._rules import SUFFIX as RULES
from ipbench.methods._rules import code_of_rules, declare
from ipbench.user_code import Code, code_of
from ipbench.user_files import Uncached, execute, installed

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
    return getattr(sys.modules[name], "__file__", None) is not None and top not in installed()


def _declared_in(path: Path) -> list[str]:
    return [name for name, entry in REGISTRY.items() if Path(entry.file).resolve() == path.resolve()]


def _execute(label: str, path: Path) -> None:
    """Import a file as the module `label`."""
    execute(label, path, _Remembered(label, str(path)))


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


class _Remembered(Uncached):
    """Runs the code as it was when the file was first run in this process."""

    def get_code(self, fullname: str) -> CodeType | None:
        """Asked by the import system."""
        if fullname not in _CODE_OF:
            _CODE_OF[fullname] = super().get_code(fullname)
        return _CODE_OF[fullname]
