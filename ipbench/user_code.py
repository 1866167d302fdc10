"""The code of a user's file, of a method or a model: the file, and the modules of the user that it imports.

The code of what ipbench ships is told by `ipbench.planning.numerics`, that of a user's file by a digest.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import site
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import FunctionType, ModuleType

_PACKAGE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Code:
    """What a user's file is made of.

    Attributes:
        sha256: of the content of all files.
        files: the file itself, then the modules that it imports, by name.
    """

    sha256: str
    files: tuple[Path, ...]


def code_of(file: Path, module: ModuleType | None = None) -> Code:
    """The code behind a file, which need not have been imported.

    It holds what import statements name, those inside functions too, and what those modules import; not the standard
    library, not installed packages and not ipbench, whose versions are in the records. Data files that the code reads
    are not seen.

    Args:
        file: the file.
        module: what it became, if it was imported: modules and functions in it that were found in other ways are
            followed, too.

    Raises:
        OSError: a file cannot be read.
    """
    own = {"": file}
    for name, path in _held(module) if module else ():
        if path != file and _of_the_user(path):
            own.setdefault(name, path)
    waiting = list(own.items())
    digests = {}
    while waiting:
        name, path = waiting.pop()
        content = path.read_bytes()
        digests[name] = hashlib.sha256(content).hexdigest()
        for imported in _imported(content, name, path):
            found = _file_of(imported)
            if imported not in own and found is not None and _of_the_user(found):
                own[imported] = found
                waiting.append((imported, found))
    names = sorted(own)
    lines = "".join(f"{name} {digests[name]}\n" for name in names)
    return Code(hashlib.sha256(lines.encode()).hexdigest(), tuple(own[name] for name in names))


def _imported(content: bytes, name: str, path: Path) -> Iterator[str]:
    """The full names of all modules that import statements may load, packages before what is in them."""
    if path.suffix != ".py":
        return
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):  # of a module that was not imported yet, and will not be
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            targets = [module, *(f"{module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for target in targets:
            parts = target.split(".")
            yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))


def _held(module: ModuleType) -> Iterator[tuple[str, Path]]:
    """The names and files of the modules, and of those of the functions, that a module holds."""
    for value in vars(module).values():
        if isinstance(value, ModuleType) and getattr(value, "__file__", None):
            yield value.__name__, Path(str(value.__file__)).resolve()
        elif isinstance(value, FunctionType):
            yield value.__module__, Path(value.__code__.co_filename).resolve()


def _file_of(name: str) -> Path | None:
    """The file of a module, loaded or not; nothing is imported to find it. None if there is none."""
    spec = _spec(name)
    origin = spec.origin if spec is not None and spec.has_location else None
    return Path(origin).resolve() if origin else None


def _spec(name: str) -> ModuleSpec | None:
    loaded = getattr(sys.modules.get(name), "__spec__", None)
    if isinstance(loaded, ModuleSpec):
        return loaded
    outer, _, _ = name.rpartition(".")
    try:
        if not outer:
            return importlib.util.find_spec(name)
        package = _spec(outer)
        places = package.submodule_search_locations if package is not None else None
        return PathFinder.find_spec(name, list(places)) if places is not None else None
    except (ImportError, ValueError):  # what cannot be found is not imported either
        return None


def _of_the_user(path: Path) -> bool:
    """Whether a file is neither ipbench's, nor the standard library's, nor of an installed package."""
    if not path.is_file() or {"site-packages", "dist-packages"} & set(path.parts):
        return False
    installed = [sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")]
    places = [str(_PACKAGE), *installed, *site.getsitepackages()]
    return not any(path.is_relative_to(Path(place).resolve()) for place in places)
