"""Imports go downwards, from package to package and from file to file; docs/design.md tells the same order."""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "ipbench"
DESIGN = PACKAGE.parent / "docs" / "design.md"
#: From the lowest up: files and packages of `ipbench`; those of one line do not import each other.
ORDER = [
    {"errors", "keys", "numerals", "output", "user_code"},
    {"files", "shipped", "spec", "user_files"},
    {"store"},
    {"data", "machine"},
    {"tasks"},
    {"sparse"},
    {"models", "updaters"},
    {"methods"},
    {"planning", "training"},
    {"analysis"},
    {"runs"},
    {"packing"},
    {"api"},
    {"cli"},
    {"__main__"},
]


def level(name: str) -> int:
    return next(number for number, names in enumerate(ORDER) if name in names)


def imported(path: Path) -> set[Path]:
    """Files of the package that a file imports, those that only type checkers see left out."""
    tree = ast.parse(path.read_text())
    hidden = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for node in ast.walk(branch)
    }
    names = set()
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ipbench":
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names if alias.name.startswith("ipbench.")}
    files = set()
    for name in names:
        place = PACKAGE.joinpath(*name.split(".")[1:])
        files |= {file for file in (place.with_suffix(".py"), place / "__init__.py") if file.exists()}
    return files - {path, PACKAGE / "__init__.py", PACKAGE.with_suffix(".py")}


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downwards(path):
    here = part(path)
    for other in {part(file) for file in imported(path)} - {here}:
        assert level(other) < level(here), f"{here} imports {other}"


def test_no_file_imports_itself_by_way_of_others():
    # What an __init__.py shows of its package, the package's own files may import from there.
    files = {path for path in FILES if path.name != "__init__.py"}
    graph = {path: imported(path) & files for path in files}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(str(path.relative_to(PACKAGE)) for path in error.args[1])) from None


def test_the_order_is_documented():
    rows = re.findall(r"^\| (\d+) \| (.+?) \|", DESIGN.read_text(), re.MULTILINE)
    told = [set(re.findall(r"`(\w+)(?:\.py|/)`", names)) for _, names in rows]
    assert told == ORDER[:-1]


def test_every_process_of_a_test_has_a_time_limit():
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "subprocess.run":
                assert "timeout" in [word.arg for word in node.keywords], f"{path}:{node.lineno}"


def test_methods_never_ask_for_the_space():
    for path in set((PACKAGE / "methods").glob("[!_]*.py")):
        assert not re.search(r"\.space\b|\.bases\b|\.off\b|\.sparsity\b", path.read_text()), path
