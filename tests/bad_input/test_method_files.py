"""Mistakes in a method file of a user, and in how it is named."""

from __future__ import annotations

import json

import pytest

from ipbench.cli.main import main
from tests.bad_input.refusing import Case, Content, case, lay

HEAD = "from ipbench.methods import *\nfrom ipbench.methods import Train, before_training, method\n\n"
SCORE = "@method(when=before_training, paper='Nobody, 2026')\n"
STAGES = "@method(paper='Nobody, 2026')\n"
EXCHANGE = "exchange = DropAndGrow(lambda net, layer, gradient, step: gradient, 1, 0.3, 0.0, 0.75, False)\n" + STAGES
TAKES = "takes (net, batch, *, OPTIONS)"
RUN = "run --method-file m.py --method mine --recipe epochs=1 --recipe warmup=0"


def declared(id: str, content: str | bytes, *says: str) -> Case:
    """`ipbench methods` with a file of this content."""
    body: Content = HEAD + content if isinstance(content, str) else content
    return case(f"method-file-{id}", "methods --method-file m.py", "m.py", *says, files={"m.py": body})


def scored(id: str, result: str, *says: str) -> Case:
    """`ipbench run` with a score that returns this."""
    body = f"{HEAD}{SCORE}def mine(net, batch): return {result}\n"
    return case(f"score-{id}", RUN, "method mine", *says, files={"m.py": body})


IMPORTS = [
    declared("syntax", "def x(:\n", "SyntaxError", "invalid syntax", "line 4"),
    declared("nul", b"\0\1\xff", "SyntaxError", "null bytes"),
    declared("latin-1", "title = 'Übung'".encode("latin-1"), "SyntaxError", "utf-8"),
    declared("raises", "raise ValueError('a\\nb')\n", "does not import: ValueError: a b"),
    declared("exits", "import sys; sys.exit(3)\n", "does not import: SystemExit: 3"),
    declared("needs-a-package", "import no_such_package\n", "No module named 'no_such_package'"),
    declared("without-content", b"", "declares no method", "ipbench.methods.method"),
    declared("no-method", "x = 3\n", "declares no method", "ipbench.methods.method"),
    case("method-file-gone", "methods --method-file gone.py", "gone.py: no such file"),
    case("method-file-folder", "methods --method-file d.py", "d.py: not a file", files={"d.py": None}),
    case("method-file-text", "methods --method-file m.txt", "'m.txt'", "ends in .py", files={"m.txt": SCORE}),
    case("method-file-newline", ["methods", "--method-file", "a\nb.py"], r"'a\nb.py'", "path of a method file"),
    case("verify-method-file", "verify r --method-file gone.py", "gone.py: no such file"),
]

DECLARATIONS = [
    declared("taken-name", f"{SCORE}def snip(net, batch): return {{}}\n", "'snip' already", "another name"),
    declared("twice", f"{SCORE}def a(net, batch): ...\n{SCORE}def a(net, batch): ...\n", "'a' already", "line 4"),
    declared("climbing-name", "@method(when=before_training, paper='x', name='../up')\ndef a(net, batch): ...\n",
             "'../up' cannot be the name", "letters, digits"),
    declared("command-name", "@method(when=before_training, paper='x', name='$(touch x)')\ndef a(net, batch): ...\n",
             "'$(touch x)' cannot be the name", "letters, digits"),
    declared("score-of-one", f"{SCORE}def a(net): ...\n", "'a'", TAKES, "not (net)"),
    declared("score-of-three", f"{SCORE}def a(net, batch, more): ...\n", "'a'", TAKES, "not (net, batch, more)"),
    declared("score-of-any", f"{SCORE}def a(net, batch, **more): ...\n", "'a'", TAKES, "**more"),
    declared("stages-of-two", f"{STAGES}def a(net, batch): ...\n", "'a'", "takes (*, OPTIONS)", "not (net, batch)"),
    declared("option-without-default", f"{SCORE}def a(net, batch, *, x): ...\n", "option 'x'", "needs a default"),
    declared("option-none", f"{SCORE}def a(net, batch, *, x=None): ...\n", "option 'x'", "a bool, number or text"),
    declared("option-rounds", f"{SCORE}def a(net, batch, *, rounds=3): ...\n", "redefines the option 'rounds'"),
    declared("option-name", f"{SCORE}def a(net, batch, *, name='x'): ...\n", "'name'", "rename the option"),
    declared("no-paper", "@method(when=before_training)\ndef a(net, batch): ...\n", "'paper'"),
    declared("paper-number", "@method(when=before_training, paper=3)\ndef a(net, batch): ...\n", "paper", "texts"),
    declared("when-word", "@method(when='before', paper='x')\ndef a(net, batch): ...\n", "`when` is before_training"),
    declared("pattern", "@method(paper='x', pattern='rows')\ndef a(): return [Train()]\n", "'rows'", "coefficients"),
    declared("units", "@method(paper='x', units='mean')\ndef a(): return [Train()]\n", "'mean'", "first, sum"),
    declared("off", "@method(paper='x', off='half')\ndef a(): return [Train()]\n", "'half'", "decayed, frozen, zero"),
    declared("bare", "@method\ndef a(net, batch): ...\n", "TypeError", "positional"),
    declared("class", f"{STAGES}class A: ...\n", "does not import"),
    declared("no-stages", f"{STAGES}def a(): return []\n", "must return a list of stages", "not []"),
    declared("none", f"{STAGES}def a(): pass\n", "must return a list of stages", "not None"),
    declared("stages-of-numbers", f"{STAGES}def a(): return [3]\n", "must return a list of stages", "not [3]"),
    declared("stage-alone", f"{STAGES}def a(): return Train()\n", "must return a list of stages"),
    declared("stages-raise", f"{STAGES}def a(): raise RuntimeError('no\\nway')\n", "RuntimeError: no way"),
    declared("continues-later", f"{STAGES}def a(): return [Train(), Continue()]\n", "Continue is the first stage"),
    declared("stages-exit", f"{STAGES}def a(): raise SystemExit(0)\n", "method a", "SystemExit: 0"),
    declared("never-pruned", f"{EXCHANGE}def a(): return [Train(exchange)]\n", "'a'", "does not prune", "Prune before"),
    declared("stages-range", f"{STAGES}def a(): return [Train(epochs=-1)]\n", "epochs is from 0 to 10000"),
    case(
        "method-not-in-its-file", "grid x.yaml", "method of m.py 'snip'", "valid: mine",
        files={
            "m.py": f"{HEAD}{SCORE}def mine(net, batch): return {{}}\n",
            "x.yaml": "datasets: digits\nsparsities: 0.5\nmethods: [{file: m.py, name: snip}]\n",
        },
    ),
    case(
        "two-files-one-name", "methods --method-file m.py --method-file n.py", "n.py", "'mine' already", "m.py",
        files=dict.fromkeys(["m.py", "n.py"], f"{HEAD}{SCORE}def mine(net, batch): ...\n"),
    ),
]  # fmt: skip

EACH = "for name, c in net.coefficients.items()"
SCORES = [
    scored("none", "None", "a dict with an entry for each of net.coefficients"),
    scored("list", "[]", "a dict with an entry for each of net.coefficients"),
    scored("nothing", "{}", "a dict with an entry for each of net.coefficients"),
    scored("other-layers", "{'x': 1}", "a dict with an entry for each of net.coefficients"),
    scored("order", f"dict(reversed([(name, c) {EACH}]))", "in that order"),
    scored("one-filter", f"{{name: c[0] {EACH}}}", "stage1.conv1", "of shape (32, 1, 3, 3)"),
    scored("scalar", f"{{name: c.sum() {EACH}}}", "stage1.conv1", "of shape (32, 1, 3, 3)"),
    scored("number", f"{{name: 1.0 {EACH}}}", "stage1.conv1", "a tensor of shape", "not float"),
    scored("true-or-false", f"{{name: c > 0 {EACH}}}", "stage1.conv1", "floating-point numbers, not torch.bool"),
    scored("whole-numbers", f"{{name: c.long() {EACH}}}", "stage1.conv1", "floating-point numbers, not torch.int64"),
    case(
        "growth-of-one-filter", RUN, "method mine", "the growth score of layer stage1.conv1", "of shape (32, 1, 3, 3)",
        files={
            "m.py": f"{HEAD}from ipbench.methods import DropAndGrow, Prune\nfrom ipbench.methods.random import random\n"
            "def grow(net, layer, gradient, step): return gradient[0]\n"
            f"{STAGES}def mine(): return [Train(DropAndGrow(grow, 1, 0.3, 0.0, 0.75, False)), Prune(random, 'r')]\n"
        },
    ),
]  # fmt: skip

CASES = [*IMPORTS, *DECLARATIONS, *SCORES]


@pytest.mark.parametrize("bad", CASES, ids=str)
def test_one_line_and_no_file(bad, refuses):
    refuses(bad)


def test_a_score_that_is_not_finite_is_a_divergence(tmp_path, monkeypatch):
    """Which coefficients it concerns is known only when it is taken: the run is marked, and the tables count it."""
    result = f"{{name: c * float('nan') {EACH}}}"
    lay(tmp_path, {"m.py": f"{HEAD}{SCORE}def mine(net, batch): return {result}\n"})
    monkeypatch.chdir(tmp_path)
    assert main(RUN.split()) == 0
    (record,) = tmp_path.glob("results/single/runs/*/0.json")
    assert json.loads(record.read_text())["status"] == "diverged"


def test_a_refused_file_registers_nothing(tmp_path, monkeypatch, capsys):
    lay(tmp_path, {"m.py": f"{HEAD}{SCORE}def mine(net, batch): ...\nraise ValueError\n"})
    monkeypatch.chdir(tmp_path)
    assert main(["methods", "--method-file", "m.py"]) == 2
    assert main(["run", "--method", "mine"]) == 2
    assert "unknown method 'mine'" in capsys.readouterr().err


def test_the_file_itself_is_run_not_a_compiled_one_beside_it(tmp_path, monkeypatch, capsys):
    import importlib.util
    import py_compile

    lay(tmp_path, {"m.py": f"{HEAD}{SCORE}def mine(net, batch): ...\n", "e.py": "raise SystemExit('pwned')\n"})
    compiled = importlib.util.cache_from_source(str(tmp_path / "m.py"))
    py_compile.compile(
        str(tmp_path / "e.py"), cfile=compiled, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
    )
    monkeypatch.chdir(tmp_path)
    assert main(["methods", "--method-file", "m.py"]) == 0
    assert "mine" in capsys.readouterr().out


@pytest.mark.parametrize("when", ["at import", "in a score"])
def test_a_method_may_change_the_working_directory(when, tmp_path, monkeypatch):
    """All paths of a command line are relative to the folder that it is given in."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    move = "__import__('os').chdir('../elsewhere')"
    first, inside = (move, "0") if when == "at import" else ("", move)
    body = f"{HEAD}{first}\n{SCORE}def mine(net, batch): return ({inside}, net.magnitudes())[-1]\n"
    lay(tmp_path / "here", {"m.py": body})
    assert main([*RUN.split(), "--recipe", "train_examples=100", "--out", "r", "--done", "done.json"]) == 0
    assert list((tmp_path / "here").glob("r/runs/*/0.json")) and (tmp_path / "here/done.json").exists()
    assert not list((tmp_path / "elsewhere").iterdir())
