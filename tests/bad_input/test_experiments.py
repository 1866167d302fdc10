"""Mistakes in an experiment's YAML, as `ipbench grid FILE` reads it; Snakemake reads it by the same code."""

from __future__ import annotations

import re

import pytest

from tests.bad_input.refusing import Case, case

GOOD = {
    "datasets": "datasets: digits",
    "methods": "methods: [dense, snip]",
    "sparsities": "sparsities: [0.9]",
    "seeds": "seeds: 2",
}
NAME = "not a name: use letters, digits, '_', '-' and '.', at most 64, the first a letter or digit"
RANGE = "a number from 0 up to, not including, 1"
KEYS = (
    "valid: allocations, basis, budgets, controls, datasets, loader, margin, methods, mode, models, off, patterns,"
    " recipe, seeds"
)


def changed(id: str, lines: str, *says: str) -> Case:
    """The good experiment with these lines in place of those of the same keys."""
    keys = set(re.findall(r"^(\w+):", lines, re.MULTILINE))
    text = "\n".join([*(line for key, line in GOOD.items() if key not in keys), lines, ""])
    return case(f"yaml-{id}", "grid x.yaml", "x.yaml", *says, files={"x.yaml": text})


def whole(id: str, content: str | bytes, *says: str) -> Case:
    """A file with this content."""
    return case(f"file-{id}", "grid x.yaml", "x.yaml", *says, files={"x.yaml": content})


def without(key: str) -> Case:
    lines = [line for name, line in GOOD.items() if name != key]
    return case(f"yaml-without-{key}", "grid x.yaml", key, "must be given", files={"x.yaml": "\n".join(lines)})


AXES = [
    without("datasets"),
    without("methods"),
    without("sparsities"),
    changed("unknown-key", "seed: 3", "'seed'", "did you mean 'seeds'", KEYS),
    changed("unknown-key-2", "sparsity: 0.5", "'sparsity'", "did you mean 'sparsities'"),
    changed("job-setting", "seeds_per_job: 3", "'seeds_per_job'", KEYS),
    changed("sparsity-arabic", "sparsities: ['\u0660.\u0665']", "sparsities", RANGE),
    changed("sparsity-underscore", "sparsities: ['0.9_0']", "sparsities", RANGE),
    changed("seeds-none", "seeds: 0", "seeds", "from 1 to 100000 (got 0)"),
    changed("seeds-negative", "seeds: -3", "seeds", "from 1 to 100000 (got -3)"),
    changed("seeds-many", "seeds: 100001", "from 1 to 100000 (got 100001)"),
    changed("seeds-of-5000-digits", f"seeds: {'9' * 5000}", "seeds", "from 1 to 100000, or a list"),
    changed("seeds-fraction", "seeds: 1.5", "seeds", "from 1 to 100000, or a list (got 1.5)"),
    changed("seeds-bool", "seeds: true", "seeds", "from 1 to 100000, or a list (got True)"),
    changed("seeds-word", "seeds: six", "seeds", "(got 'six')"),
    changed("seeds-octal", "seeds: 010", "seeds", "(got '010')"),
    changed("seeds-null", "seeds:", "seeds", "(got None)"),
    changed("seeds-mapping", "seeds: {a: 1}", "seeds", "or a list"),
    changed("seeds-empty", "seeds: []", "seeds", "at least 1 item"),
    changed("seeds-twice", "seeds: [1, 2, 1]", "seeds: 1 appears twice"),
    changed("seed-text", 'seeds: ["3"]', "seeds.0", "valid integer (got '3')"),
    changed("seed-bool", "seeds: [true]", "seeds.0", "valid integer (got True)"),
    changed("seed-negative", "seeds: [-1]", "seeds.0", "greater than or equal to 0"),
    changed("seed-large", "seeds: [4294967296]", "seeds.0", "less than 4294967296"),
    changed("sparsities-empty", "sparsities: []", "sparsities", "at least 1 item"),
    changed("sparsities-twice", "sparsities: [0.9, 0.5, 0.90]", "sparsities: 0.9 appears twice"),
    changed("sparsities-null", "sparsities:", "sparsities", RANGE),
    changed("sparsity-nan", "sparsities: [.nan]", RANGE, "(got nan)"),
    changed("sparsity-inf", "sparsities: [-.inf]", RANGE, "(got -inf)"),
    changed("sparsity-1e400", "sparsities: 1e400", RANGE),
    changed("sparsity-bool", "sparsities: [true]", RANGE, "(got True)"),
    changed("sparsity-one", "sparsities: [1.0]", RANGE, "(got 1.0)"),
    changed("sparsity-nested", "sparsities: [[0.5]]", RANGE, "(got [0.5])"),
    changed("sparsity-percent", "sparsities: 90%", RANGE, "(got '90%')"),
    changed("datasets-typo", "datasets: digit", "'digit'", "did you mean 'digits'"),
    changed("datasets-twice", "datasets: [digits, digits]", "datasets: digits appears twice"),
    changed("datasets-empty", "datasets: []", "datasets", "at least 1 item"),
    changed("datasets-path", "datasets: ../digits", "datasets.0", NAME, "'../digits'"),
    changed("datasets-number", "datasets: 3", "datasets.0", "a data set is a name, or a mapping", "(got 3)"),
    changed("models-twice", "models: [small-vgg, small-vgg]", "models: small-vgg appears twice"),
    changed("models-number", "models: [3]", "models.0", "a model is a name, or a mapping", "(got 3)"),
    changed("models-path", "models: [/etc/passwd]", "models.0", NAME),
    changed("spaces-twice", "spaces: [sp, ip, sp]", "spaces: sp appears twice"),
    changed("spaces-unknown", "spaces: xp", "spaces.0", "'sp' or 'ip' (got 'xp')"),
    changed("spaces-empty", "spaces: []", "spaces", "at least 1 item"),
    changed("off-unknown", "off: half", "off.0", "'zero', 'frozen' or 'decayed' (got 'half')"),
    changed("off-twice", "off: [zero, zero]", "off: zero appears twice"),
    changed("off-empty", "off: []", "off", "at least 1 item"),
    changed("allocations-unknown", "allocations: local", "'global', 'uniform' or 'erk' (got 'local')"),
    changed(
        "patterns-unknown", "patterns: filter", "patterns.0", "one of coefficients, filters, columns, channels, or N:M"
    ),
    changed("patterns-n-of-m", "patterns: [4:4]", "patterns.0", "with N below M", "(got '4:4')"),
    changed("patterns-number", "patterns: 24", "patterns.0", "(got 24)"),
    changed("patterns-twice", "patterns: [2:4, 2:4]", "patterns: 2:4 appears twice"),
    changed("patterns-sparsity", "patterns: 2:4", "pattern 2:4 has sparsity 0.5", "not 0.9"),
    changed("budgets-unknown", "budgets: flops", "budgets.0", "'parameters', 'macs' or 'channels' (got 'flops')"),
    changed("budgets-without-pattern", "budgets: macs", "budget macs has no meaning for pattern coefficients"),
    changed(
        "own-budget", "methods: [{name: snip, budget: macs}]", "budget macs has no meaning for pattern coefficients"
    ),
    changed("own-pattern-of-dense", "methods: [{name: dense, pattern: filters}]", "pattern has no meaning for dense"),
    changed("pattern-erk", "patterns: filters\nallocations: erk", "allocation erk is a rule for coefficients"),
    changed("pattern-frozen", "patterns: filters\nbudgets: macs\nmethods: freezenet", "budget macs needs off zero"),
    changed("pattern-cops", "patterns: filters\nmethods: cops", "method cops", "a mask of single coefficients"),
    changed("pattern-rigl", "patterns: columns\nmethods: rigl", "method rigl", "exchanges single coefficients"),
    changed(
        "pattern-set", "patterns: 1:2\nsparsities: 0.5\nmethods: set", "method set", "exchanges single coefficients"
    ),
    changed("pattern-lt", "patterns: channels\nmethods: lt", "method lt", "its levels prune a share of the coeff"),
    changed("allocations-twice", "allocations: [erk, erk]", "allocations: erk appears twice"),
    changed("mode", "mode: exact", "mode", "'strict' or 'fast' (got 'exact')"),
    changed("mode-list", "mode: [strict]", "mode", "'strict' or 'fast'"),
    changed("loader", "loader: magic", "loader", "'memory' or 'ffcv' (got 'magic')"),
]

METHODS = [
    changed("method-typo", "methods: snap", "'snap'", "did you mean 'snip'", "valid: asfp, asrfp, cops, dense"),
    changed("method-path", "methods: ../../etc/passwd", "'../../etc/passwd'", "valid: asfp, asrfp, cops, dense"),
    changed("method-nul", 'methods: "snip\\0"', "'snip\\x00'", "did you mean 'snip'"),
    case(
        "yaml-method-file-gone", "grid x.yaml", "gone.py: no such file", "a method file",
        files={"x.yaml": "datasets: digits\nmethods: gone.py\nsparsities: 0.5\n"},
    ),
    changed("methods-empty", "methods: []", "methods", "at least 1 item"),
    changed("methods-null", "methods:", "methods", "a name, or a mapping"),
    changed("methods-number", "methods: [3]", "methods.0", "a name, or a mapping", "(got 3)"),
    changed("methods-twice", "methods: [snip, snip]", "snip appears twice", "its defaults"),
    changed("methods-twice-in-other-words", "methods: [{name: snip, rounds: 1}, snip]", "snip appears twice"),
    changed("method-without-name", "methods: [{rounds: 1}]", "has no name", "- name: snip"),
    changed("method-name-list", "methods: [{name: [snip]}]", "has no name", "- name: snip"),
    changed("option-unknown", "methods: [{name: snip, round: 1}]", "'round'", "did you mean 'rounds'"),
    changed("option-empty", "methods: [{name: snip, rounds: []}]", "snip: rounds is an empty list"),
    changed("option-twice", "methods: [{name: snip, rounds: [2, 2]}]", "snip appears twice", "'rounds': 2"),
    changed("option-range", "methods: [{name: snip, rounds: 0}]", "rounds is 1 or more", "rounds=0"),
    changed("option-nan", "methods: [{name: grasp, temperature: .nan}]", "of type float, not nan"),
    changed("own-off", "methods: [{name: snip, off: half}]", "off", "'zero', 'frozen' or 'decayed' (got 'half')"),
    changed("own-off-nan", "methods: [{name: snip, off: .nan}]", "off", "'zero', 'frozen' or 'decayed' (got nan)"),
    changed("own-allocation-empty", "methods: [{name: snip, allocation: []}]", "allocation is an empty list"),
    changed("controls-without-a-run", "methods: [snip]\ncontrols: origin", "controls: origin has no meaning for any"),
    changed("off-of-dense", "methods: [{name: dense, off: frozen}]", "off has no meaning for dense"),
    changed("allocation-of-dense", "methods: [{name: dense, allocation: erk}]", "allocation has no meaning for dense"),
    changed("file-number", "methods: [{name: snip, file: 3}]", "file", "ends in .py, not 3"),
    changed("file-text", "methods: [{name: snip, file: x.txt}]", "ends in .py, not 'x.txt'"),
    changed("rewind", "methods: [{name: lt, rewind: 8.0}]", "rewinding to epoch 8", "a training of 8 epochs"),
]  # fmt: skip

INSIDE = [
    changed("recipe-unknown", "recipe: {epoch: 1}", "'epoch'", "did you mean 'epochs'"),
    changed("recipe-empty", "recipe: []", "recipe", "at least 1 item"),
    changed("recipe-null", "recipe:", "recipe.0", "a mapping of keys to values (got None)"),
    changed("recipe-number", "recipe: 3", "recipe.0", "a mapping of keys to values (got 3)"),
    changed("recipe-twice", "recipe: [{}, {epochs: 8}]", "recipe: two of its 2 entries", "digits"),
    changed("recipe-bool", "recipe: {epochs: true}", "epochs", "valid integer (got True)"),
    changed("recipe-text", "recipe: {epochs: '3'}", "epochs", "valid integer (got '3')"),
    changed("recipe-nan", "recipe: {lr: .nan}", "lr", "finite number"),
    changed("recipe-milestones-nan", "recipe: {milestones: [0.5, .nan]}", "milestones.1", "finite number"),
    changed("recipe-list", "recipe: {epochs: [1, 2]}", "epochs", "valid integer (got [1, 2])"),
    changed("recipe-key-number", "recipe: {1: 2}", "line 5", "the key '1' is not a word"),
    changed("recipe-augmentation-null", "recipe: {augmentation: }", "augmentation", "a mapping of keys"),
    changed("recipe-warmup", "recipe: {warmup: 30}", "warmup (30 epochs)", "(8 epochs)"),
    changed("recipe-translate", "recipe: {augmentation: {translate: 8}}", "translate is 8", "8 x 8"),
    changed("recipe-crop", "recipe: {augmentation: {random_resized_crop: true}}", "random_resized_crop"),
    changed("recipe-batch-size", "recipe: {batch_size: 65000}", "batch_size is 65000", "only 1350 images"),
    changed("recipe-train-examples", "recipe: {train_examples: 1501}", "train_examples is 1501", "only 1500"),
    changed("basis-unknown", "basis: {shared: layer}", "'shared'", "valid: init, large_kernels"),
    changed("basis-value", "basis: {sharing: all}", "sharing", "'layer', 'stage' or 'network'"),
    changed("basis-empty", "basis: []", "basis", "at least 1 item"),
    changed("basis-value-empty", "basis: {sharing: []}", "basis: sharing is an empty list"),
    changed("basis-twice", "basis: [{}, {lr: 1}]", "basis", "appears twice"),
    changed("basis-value-twice", "basis: {sharing: [layer, layer]}", "basis", "appears twice"),
    changed("basis-number", "basis: 3", "basis.0", "a mapping of keys to values (got 3)"),
    changed("basis-without-ip", "spaces: sp\nbasis: {lr: 2}", "basis", "space ip", "sp alone"),
    changed("margin-zero", "margin: 0", "margin", "greater than 0"),
    changed("margin-large", "margin: 101", "margin", "100"),
    changed("margin-nan", "margin: .nan", "margin"),
    changed("margin-word", 'margin: "0.5"', "margin"),
    changed("margin-list", "margin: [0.5, 1]", "margin"),
    changed("title-list", "title: [a]", "title", "a word or a text"),
    changed("title-long", f"title: {'a' * 201}", "title", "at most 200 characters"),
    changed("title-newline", 'title: "a\\nb"', "title", "on one line", "'a\\nb'"),
    changed("title-nul", 'title: "a\\0b"', "title", "without control characters"),
    changed("title-half-a-character", 'title: "\\ud800"', "title"),
]

#: The name is a folder below results/ and a word in commands.
NAMES = [
    changed(f"name-{id}", f"name: {written}", "name", NAME)
    for id, written in [
        ("up", "../../x"),
        ("inside", "x/../../y"),
        ("absolute", "/tmp/x"),
        ("slash", "a/b"),
        ("backslash", 'a\\b'),
        ("empty", "''"),
        ("dot", "."),
        ("dots", ".."),
        ("hidden", ".x"),
        ("option", "-x"),
        ("blank", "'a b'"),
        ("umlaut", "übung"),
        ("digits-of-others", "'٣'"),
        ("newline", '"a\\nb"'),
        ("trailing-newline", '"a\\n"'),
        ("nul", '"a\\0b"'),
        ("long", "a" * 65),
        ("command", "$(touch x)"),
        ("backquotes", "'`touch x`'"),
        ("semicolon", "x;touch x"),
        ("wildcard", "'{x}'"),
        ("star", "'*a'"),
        ("quote", '"a\'b"'),
    ]
] + [
    changed("name-null", "name:", "name", "a word or a text (got None)"),
    changed("name-bool", "name: true", "name", "a word or a text (got True)"),
    changed("name-list", "name: [a]", "name", "a word or a text (got ['a'])"),
    case("file-name-with-a-blank", ["grid", "a b"], "a b", NAME, files={"a b": "\n".join(GOOD.values())}),
]  # fmt: skip

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)

FILES = [
    whole("empty", "", "not a mapping"),
    whole("list", "- 1\n", "not a mapping"),
    whole("number", "3\n", "not a mapping"),
    whole("unfinished", "a: [", "line 1"),
    whole("tab", "\ta: b", "line 1"),
    whole("two-documents", "a: b\n---\nc: d\n", "line 2", "another document"),
    whole("other-version", "%YAML 3.0\n---\na: b\n", "version"),
    whole("nul", "\0", "special characters"),
    whole("binary", bytes(range(256)), "not readable as YAML"),
    whole("picture", b"\x89PNG\r\n\x1a\n" + bytes(100), "not readable as YAML"),
    whole("utf-16", "datasets: digits".encode("utf-16"), "not readable as YAML"),
    whole("latin-1", "title: Übung".encode("latin-1"), "not readable as YAML"),
    whole("key-twice", "seeds: 1\nmethods: snip\nseeds: 2\n", "line 3", "'seeds' is given twice"),
    whole("bomb", BOMB, "line 1", "anchors (&) and aliases (*)"),
    whole("recursive", "methods: &a [*a]\n", "line 1", "anchors"),
    whole("merge", "base: &x {a: b}\nrecipe:\n  <<: *x\n", "line 1", "anchors"),
    whole("key-list", "? [a]\n: 3\n", "line 1", "is not a word"),
    whole("key-number", "1: 2\n", "line 1", "'1' is not a word"),
    whole("key-null", "null: 2\n", "line 1", "'null' is not a word"),
    whole("deep", "title: " + "[" * 1000, "nested too deeply"),
    whole("tag-object", "title: !!python/object/apply:os.system ['touch pwned']\n", "line 1", "os.system", "tag"),
    whole("tag-name", "title: !!python/name:os.system\n", "line 1", "tag"),
    whole("tag-int", "seeds: !!int x\n", "line 1", "tag"),
    whole("tag-binary", "title: !!binary aGVsbG8=\n", "line 1", "tag"),
    whole("tag-own", "title: !x y\n", "line 1", "'!x'"),
    case("file-folder", "grid x.yaml", "x.yaml: not a file", files={"x.yaml": None}),
    case("file-gone", "grid y.yaml", "y.yaml: no such file", "did you mean x.yaml", files={"x.yaml": ""}),
    case("file-empty-name", ["grid", ""], "an empty path"),
    case("file-endless", "grid /dev/zero", "/dev/zero: not a file"),
    case("file-long-name", ["grid", "x" * 400], "File name too long"),
    case(
        "grid-out-is-a-folder", "grid x.yaml --out d", "d: not written", "Is a directory",
        files={"x.yaml": "\n".join(GOOD.values()), "d": None},
    ),
    case("grid-seeds-per-job", "grid x.yaml --seeds-per-job 0", "--seeds-per-job", "greater than or equal to 1"),
    case("grid-sparsities-per-job", "grid x.yaml --sparsities-per-job x", "--sparsities-per-job", "valid integer"),
]  # fmt: skip


def numbers(count: int) -> str:
    return str([place / 10_000 for place in range(1, count + 1)])


#: Counted before they are built: some of these would not fit into memory.
BOUNDS = [
    changed("bases-many", f"basis: {{lr: {numbers(1000)}, weight_decay: {numbers(1000)}}}", "bases 1,000,001",
            "at most 200,000"),
    changed("bases-more", f"basis: {{lr: {numbers(2000)}, weight_decay: {numbers(2000)}, train: {[True] * 900}}}",
            "a grid of", "cells, and at most 200,000"),
    changed("options-many", "methods: [{name: rigl, " + ", ".join(f"{key}: {numbers(900)}" for key in ("a", "b", "c"))
            + "}]", "729,000,000", "at most 200,000"),
    changed("recipes-many", "recipe: [" + "{}, " * 1000 + f"{{}}]\nsparsities: {numbers(100)}", "400,400 cells"),
    changed("runs-many", f"seeds: 100000\nsparsities: {numbers(10)}", "runs, and at most 1,000,000", "seeds 100,000"),
]  # fmt: skip

CASES = [*BOUNDS, *AXES, *METHODS, *INSIDE, *NAMES, *FILES]


@pytest.mark.parametrize("bad", CASES, ids=str)
def test_one_line_and_no_file(bad, refuses):
    refuses(bad)


def test_the_good_one_is_good(tmp_path, capsys):
    from ipbench.cli.main import main

    path = tmp_path / "x.yaml"
    path.write_text("\n".join(GOOD.values()))
    assert main(["grid", str(path)]) == 0, capsys.readouterr().err
