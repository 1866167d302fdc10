"""The digest of a user's method file: its content and that of the user's modules that it imports."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipbench import methods
from ipbench.methods._method import REGISTRY
from ipbench.runs.environment import Environment
from ipbench.runs.execute import execute
from ipbench.spec import Recipe, Run
from ipbench.user_code import code_of

METHOD = """
import math, json
import numpy as np
from ipbench.methods import before_training, method
{imports}

@method(when=before_training, paper="Nobody, 2026")
def of_a_user(net, batch):
    {inside}
    return net.magnitudes()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Iterator[Path]:
    """A folder that modules are imported from; methods are forgotten at the end."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    REGISTRY.pop("of_a_user", None)


def write(folder: Path, imports: str = "", inside: str = "pass") -> Path:
    path = folder / "mine.py"
    path.write_text(METHOD.format(imports=imports, inside=inside))
    return path


def names(path: Path) -> list[str]:
    return [str(file.relative_to(path.parent)) for file in code_of(path).files]


def test_a_file_alone(folder):
    """numpy, the standard library and ipbench are told by their versions."""
    path = write(folder)
    before = code_of(path)
    assert before.files == (path,) and before == code_of(path)
    path.write_text(path.read_text() + "# more\n")
    assert code_of(path).sha256 != before.sha256


def test_where_it_lies_and_what_it_is_called_do_not_matter(folder):
    path = write(folder)
    other = folder / "elsewhere" / "yours.py"
    other.parent.mkdir()
    other.write_text(path.read_text())
    assert code_of(other).sha256 == code_of(path).sha256


@pytest.mark.parametrize(
    ("imports", "inside", "found"),
    [
        ("import helper", "pass", ["helper.py"]),
        ("from helper import *", "pass", ["helper.py"]),
        ("", "import helper", ["helper.py"]),
        ("import package.inner", "pass", ["package/__init__.py", "package/deep.py", "package/inner.py"]),
        ("from package import inner as x", "pass", ["package/__init__.py", "package/deep.py", "package/inner.py"]),
    ],
)
def test_modules_of_the_user_belong_to_it(folder, imports, inside, found):
    (folder / "helper.py").write_text("import not_there\n")
    (folder / "package").mkdir()
    (folder / "package/__init__.py").write_text("")
    (folder / "package/inner.py").write_text("from . import deep\n")
    (folder / "package/deep.py").write_text("from ..package.inner import nothing\n")
    path = write(folder, imports, inside)
    assert names(path) == ["mine.py", *found]
    before = code_of(path).sha256
    last = folder / found[-1]
    last.write_text(last.read_text() + "OTHER = 3\n")
    assert code_of(path).sha256 != before


def test_a_module_that_is_loaded_by_hand_belongs_to_it(folder):
    """The folder of a method file is not searched for modules: some load theirs in other ways."""
    helper = folder / "elsewhere" / "helper.py"
    helper.parent.mkdir()
    helper.write_text("def two(): return 2\n")
    load = f"spec = spec_from_file_location('by_hand', {str(helper)!r})\nby_hand = module_from_spec(spec)"
    for last in (
        "spec.loader.exec_module(by_hand)",
        "spec.loader.exec_module(by_hand)\ntwo = by_hand.two\ndel by_hand",
    ):
        imports = f"from importlib.util import *\n{load}\n{last}\ndel spec"
        (folder / "mine.py").unlink(missing_ok=True)
        path = write(folder, imports)
        for name in [name for name in sys.modules if name.startswith("ipbench_method_")]:
            del sys.modules[name]
        REGISTRY.pop("of_a_user", None)
        methods._files._CODE.clear()
        methods.load([path])
        code = methods.code("of_a_user")
        assert code is not None and code.files == (path, helper)


def test_a_module_with_a_mistake_that_is_not_imported_yet(folder):
    (folder / "helper.py").write_text("def\n")
    assert names(write(folder, inside="import helper")) == ["mine.py", "helper.py"]


def test_records_tell_images_and_code(folder):
    path = write(folder)
    methods.load([path])
    recipe = Recipe(epochs=1, batch_size=100, train_examples=200)
    for name, expected in (("of_a_user", {"method": code_of(path).sha256}), ("snip", {})):
        run = Run(dataset="digits", model="lenet-300-100", method=name, recipe=recipe, sparsity="0.9", space="sp")
        record = execute(run, folder / "results", Environment())
        told = {key: record["provenance"][key] for key in ("data", "method") if key in record["provenance"]}
        assert len(told.pop("data")) == 64 and told == expected
