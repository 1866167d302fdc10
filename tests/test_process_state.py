"""A run depends on nothing that ran before it in its process, and no method's code ends the runs of others."""

from __future__ import annotations

import ast
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ipbench import methods
from ipbench.cli.main import main
from ipbench.errors import BadInput
from ipbench.machine import stopping
from ipbench.machine.process_state import method_code

#: Every kind of state that a module can keep, one beside the file, and torch's own, all of it in the score.
NASTY = '''
import random
import sys
from functools import cache
from pathlib import Path

import numpy as np
import torch

from ipbench.methods import before_training, method

sys.path.insert(0, str(Path(__file__).parent))
import kept_beside

torch.set_default_dtype(torch.float64)
torch.set_grad_enabled(False)
COUNT = 0
AT_IMPORT = [torch.rand(()).item(), random.random(), np.random.rand()]


class Kept:
    count = 0


@cache
def first(device):
    first.calls = getattr(first, "calls", 0) + 1
    return [torch.rand(()).item()]


@method(when=before_training, paper="Nobody, 2026")
def nasty(net, batch):
    """Random numbers of every kind of generator and a count in every place."""
    import kept_late

    global COUNT
    COUNT += 1
    Kept.count += 1
    kept_late.COUNT += 1
    kept_beside.COUNT.append(1)
    first("cpu").append(COUNT)
    state = [COUNT, Kept.count, kept_late.COUNT, len(kept_beside.COUNT), *first("cpu"), *AT_IMPORT]
    draws = [random.random(), np.random.rand(), torch.rand(()).item()]
    here = [torch.get_num_threads(), torch.get_default_dtype() == torch.float32, torch.is_grad_enabled()]
    net.notes["state"] = [float(value) for value in [*state, *draws, *here]]
    torch.set_num_threads(2)
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    torch.set_deterministic_debug_mode("default")
    torch.manual_seed(COUNT)
    scale = 1 + net.notes["state"][-7]
    return {name: (c.detach() * scale * net.uniform(name)).float().abs() for name, c in net.coefficients.items()}
'''
FILES = {"nasty.py": NASTY, "kept_beside.py": "COUNT = []\n", "kept_late.py": "COUNT = 0\n"}
WORDS = (
    "run --method-file nasty.py --method nasty --model lenet-300-100 --recipe epochs=1 --recipe warmup=0"
    " --recipe train_examples=200 --sparsity 0.5 --sparsity 0.9"
)


def outcomes(folder: Path) -> dict[str, str]:
    """Hashes of records by the run."""
    return {
        path.parent.name + path.name: json.loads(path.read_text())["outcome_sha256"] for path in folder.rglob("*.json")
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("kept_beside", "kept_late"):
        sys.modules.pop(name, None)


def test_runs_are_the_same_whatever_ran_before(folder: Path) -> None:
    """Two seeds and two sparsities in both orders in one process, and one of them in a process of its own."""
    for out, seeds in (("a", "01"), ("b", "10")):
        assert main([*WORDS.split(), *(word for seed in seeds for word in ("--seed", seed)), "--out", out]) == 0
    alone = [sys.executable, "-m", "ipbench", *WORDS.split(), "--seed", "1", "--out", "c"]
    environment = {**os.environ, "PYTHONPATH": str(Path(methods.__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    subprocess.run(alone, check=True, timeout=300, cwd=folder, env=environment, capture_output=True)
    first, second, third = (outcomes(folder / out) for out in "abc")
    assert len(first) == 4 and first == second
    assert len(third) == 2 and third.items() <= first.items()


def test_the_code_is_that_of_the_first_time(folder: Path) -> None:
    methods.load(["nasty.py"])
    path = str(folder / "nasty.py")
    module = next(one for one in [*sys.modules.values()] if getattr(one, "__file__", None) in (path, "nasty.py"))
    (folder / "nasty.py").write_text("raise SystemExit('changed meanwhile')\n")
    assert module.COUNT == 0
    module.COUNT = 5
    methods.renew()
    fresh = sys.modules[module.__name__]
    assert fresh is not module and fresh.COUNT == 0 and methods.get("nasty").summary


def test_a_file_that_declares_others_when_run_again_is_refused(folder: Path) -> None:
    (folder / "fickle.py").write_text(
        "import os\nfrom ipbench.methods import Train, method\n"
        "os.environ['FICKLE'] = str(int(os.environ.get('FICKLE', 0)) + 1)\n"
        "@method(paper='Nobody, 2026', name='fickle' + os.environ['FICKLE'])\ndef fickle(): return [Train()]\n"
    )
    methods.load(["fickle.py"])
    with pytest.raises(BadInput, match=r"fickle.py: declares other methods"):
        methods.renew()
    assert "fickle1" in methods.methods() and "fickle2" not in methods.methods()
    os.environ.pop("FICKLE")


def test_the_methods_of_this_package_keep_no_state() -> None:
    """They are not run again: a file holds functions, and what they are made of, alone."""
    for path in Path(methods.__file__).parent.glob("*.py"):
        if path.name.startswith("_"):
            continue
        for node in ast.parse(path.read_text()).body:
            text = ast.unparse(node)
            docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            kinds = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef
            assert docstring or isinstance(node, kinds), (path.name, text)
            for part in node.body if isinstance(node, ast.ClassDef) else ():  # an updater: functions, and constants
                constant = isinstance(part, ast.Assign | ast.AnnAssign) and isinstance(
                    part.value, ast.Constant | ast.Name
                )
                described = isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant)
                assert isinstance(part, ast.FunctionDef) or constant or described, (path.name, ast.unparse(part))
            assert "global " not in text and "cache" not in text, path.name


def test_what_a_methods_code_changes_is_undone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2), torch.get_default_dtype(), torch.is_grad_enabled()
    mode = torch.get_deterministic_debug_mode()
    torch.manual_seed(3)
    first = torch.rand(1)
    random.seed(1)
    drawn = []
    for _ in range(2):
        with method_code("mine", 0, 7):
            drawn.append((random.random(), np.random.rand()))
            torch.set_default_dtype(torch.float64)
            torch.set_grad_enabled(False)
            torch.set_default_device("meta")
            torch.set_deterministic_debug_mode(1)
            torch.manual_seed(8)
    assert drawn[0] == drawn[1]
    assert torch.equal(torch.cat([first, torch.rand(1)]), expected[0])
    assert (torch.get_default_dtype(), torch.is_grad_enabled()) == expected[1:]
    assert torch.get_default_device().type == "cpu" and torch.get_deterministic_debug_mode() == mode
    following = random.random()
    random.seed(1)
    assert following == random.random()


# A method's code that ends the process.

ENDS = {
    "exit": "import sys; sys.exit(0)", "interrupt": "raise KeyboardInterrupt", "generator": "raise GeneratorExit",
    "base": "raise BaseException('x')", "error": "raise ValueError('x')",
}  # fmt: skip


@pytest.mark.parametrize("ends", ENDS)
def test_a_run_that_a_score_ends_is_a_failure_and_the_others_go_on(folder, capfd, ends):
    (folder / "mine.py").write_text(
        "from ipbench.methods import before_training, method\nfrom ipbench.sparse.view import sparse_net\n\n\n"
        "@method(when=before_training, paper='Nobody, 2026')\ndef mine(net, batch):\n"
        f"    if sparse_net(net).run.seed == 0:\n        {ENDS[ends]}\n    return net.magnitudes()\n"
    )
    words = WORDS.replace("nasty", "mine").split()[:-4]
    code = main([*words, "--sparsity", "0.5", "--seed", "0", "--seed", "1", "--out", "out", "--done", "done.json"])
    captured = capfd.readouterr()
    assert code == 1 and "1 of 2 runs failed: p=0.5 seed 0" in captured.err
    assert [path.name for path in (folder / "out").glob("runs/*/*.json")] == ["1.json"]
    assert not (folder / "done.json").exists()
    assert ends == "error" or "method mine: its code ended with" in captured.err
    assert main([*words, "--sparsity", "0.5", "--seed", "0", "--out", "out"]) == 1  # alone, too


def test_a_users_interrupt_stays_one() -> None:
    """Where no signal is handled it is the user's; where they are, only the second one is."""
    with pytest.raises(KeyboardInterrupt), method_code("mine", 0):
        raise KeyboardInterrupt
    with stopping.on_signals(), pytest.raises(RuntimeError, match="KeyboardInterrupt"), method_code("mine", 0):
        raise KeyboardInterrupt
