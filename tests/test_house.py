"""The house: a file imports only from floors below its own."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "ipbench"
#: Rooms of floor five that may look into one another, in this order only.
ORDER = [
    "pruning", "updates", "training", "resume", "outcome", "stages", "trials", "running", "packed_file", "packing",
]  # fmt: skip
FLOORS = [
    {"errors", "files", "keys", "numerals", "output"},
    {
        "spec", "store", "provenance", "progress", "distributed", "stopping", "sparse_code", "plain_yaml", "lease",
        "layers", "arguments", "process_state",
    },
    {"precision"},
    {"data", "models", "spaces", "masks", "measure", "combination"},
    {"sparse_net", "scoring"},
    {"methods", "jobs"},
    {"numerics"},
    {"experiment", "analysis", *ORDER},
    {"verifying"},
    {"packing_commands", "results_commands", "run_command"},
    {"cli"},
    {"__main__"},
]  # fmt: skip


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def floor(name: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if name in rooms)


def imported_rooms(path: Path) -> set[str]:
    """Rooms that a file imports, those that only type checkers see left out."""
    tree = ast.parse(path.read_text())
    hidden = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for node in ast.walk(branch)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ipbench":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("ipbench.")}
    return {name for name in found if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists()}


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downwards(path):
    here = room(path)
    for other in imported_rooms(path) - {here}:
        lower = floor(other) < floor(here)
        beside = here in ORDER and other in ORDER and ORDER.index(other) < ORDER.index(here)
        below_in_floor = (here, other) in {("store", "spec"), ("files", "errors"), ("process_state", "stopping")}
        assert lower or beside or below_in_floor, f"{here} (floor {floor(here)}) imports {other} (floor {floor(other)})"


def test_every_process_of_a_test_has_a_time_limit():
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "subprocess.run":
                assert "timeout" in [word.arg for word in node.keywords], f"{path}:{node.lineno}"


def test_methods_never_ask_for_the_space():
    for path in set((PACKAGE / "methods").glob("*.py")) - {PACKAGE / "methods" / "declare.py"}:
        assert not re.search(r"\.space\b|\.bases\b|\.off\b|\.sparsity\b", path.read_text()), path
