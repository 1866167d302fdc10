"""The same through real processes: nothing that a library prints is added to the one line. And missing permissions."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bad_input import test_command_line, test_experiments, test_products
from tests.bad_input.refusing import check, everything, lay

ROOT = Path(__file__).parents[2]
CHOSEN = (
    "no-such-command",
    "recipe-lr-nan",
    "model-too-large-for-the-images",
    "yaml-name-up",
    "file-bomb",
    "packed-pickle",
)
ALL = (*test_command_line.CASES, *test_experiments.CASES, *test_products.CASES)
CASES = [bad for bad in ALL if bad.id in CHOSEN]


def test_all_of_them_are_there():
    assert {bad.id for bad in CASES} == set(CHOSEN)


@pytest.mark.parametrize("bad", CASES, ids=str)
def test_one_line_and_no_file(bad, tmp_path):
    lay(tmp_path, bad.files)
    before = everything(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "ipbench", *bad.words], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    check(done.returncode, done.stdout, done.stderr, bad.says)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("words", [["methods"], ["run", "--seed", "0"], ["--help"]])
def test_python_without_its_texts_is_one_line(words, tmp_path):
    """What methods and commands say of themselves stands in docstrings."""
    command = [sys.executable, "-OO", "-m", "ipbench", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    check(done.returncode, done.stdout, done.stderr, ["python -OO", "leave it out"])


NOBODY = 65534
#: Calls the command line as a user who may do nothing here; root may read everything. The imports come before.
AS_NOBODY = """
import os, sys
from ipbench import methods, store
from ipbench.cli.main import main
methods.methods()
if os.getuid() == 0:
    os.setgroups([]); os.setgid({nobody}); os.setuid({nobody})
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("words", "closed", "says"),
    [
        (["grid", "x.yaml"], "x.yaml", ["x.yaml", "cannot be read: Permission denied"]),
        (["methods", "--method-file", "m.py"], "m.py", ["m.py", "PermissionError"]),
        (["grid", "good.yaml", "--out", "d/g.json"], "d", ["d/g.json", "not written", "Permission denied"]),
    ],
    ids=["experiment", "method-file", "grid-out"],
)
def test_missing_permissions(words, closed, says, tmp_path):
    good = "\n".join(test_experiments.GOOD.values())
    lay(tmp_path, {"x.yaml": good, "good.yaml": good, "m.py": "", "d": None})
    # pytest's folders are this user's alone: all on the way must be open to the other one, whose files are not.
    opened = [tmp_path, *(folder for folder in tmp_path.parents if folder.owner() == tmp_path.owner())]
    modes = {folder: stat.S_IMODE(folder.stat().st_mode) for folder in opened if folder != Path("/")}
    path = tmp_path / closed
    path.chmod(0o500 if path.is_dir() else 0)
    try:
        for folder, mode in modes.items():
            folder.chmod(mode | 0o055)
        if os.getuid() == 0 and path.is_dir():
            os.chown(path, 0, 0)
        script = AS_NOBODY.format(nobody=NOBODY)
        done = subprocess.run(
            [sys.executable, "-c", script, *words], cwd=tmp_path, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}, timeout=300,
        )  # fmt: skip
    finally:
        for folder, mode in modes.items():
            folder.chmod(mode)
    path.chmod(0o700)
    check(done.returncode, done.stdout, done.stderr, says)
    assert not list((tmp_path / "d").iterdir())
