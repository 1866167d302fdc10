"""Methods that are rules of Snakemake: a user's file `NAME.smk`, whose program scores a net outside of ipbench.

Of the file, ipbench reads the comment at its top, the names of its rules and whether one of them can write the scores;
Snakemake runs it.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from ipbench import files
from ipbench.errors import BadInput, valid_choice
from ipbench.methods._method import REGISTRY, Method
from ipbench.methods._stages import Continue, External, Stage, Train
from ipbench.spec import NAME, SPACES, pattern_name
from ipbench.user_code import Code

#: The folder in which `NAME.smk` is found by the name of its method alone; relative to that of the command.
FOLDER = Path("workflow/rules/methods")
#: How such files end.
SUFFIX = ".smk"
#: Bytes of a file of rules, and of a file whose words are followed to others.
_MOST = 2**20
#: Names of the files that ipbench writes beside the scores.
_TAKEN = ("net", "batch")
_KEYS = ("paper", "spaces", "patterns", "continues", "per_class")
_KEY = re.compile(r"([a-z_]+):(?: +(.*))?$")
_RULE = re.compile(r"^[ \t]*(?:rule|checkpoint)[ \t]+(\w+)[ \t]*:", re.MULTILINE)
_WORD = re.compile(r"[\w.+-]+(?:/[\w.+-]+)*")


def declare(path: Path) -> str:
    """Register the method of a file of rules, unless it is; returns its name, the file's stem.

    Raises:
        BadInput: the name is none, or that of another method; no rule writes its scores; or what the comment at the top
            says has no meaning.
    """
    name, before = path.stem, REGISTRY.get(path.stem)
    if before is not None and Path(before.file) == path.resolve():
        return name
    if not NAME.fullmatch(name) or name in _TAKEN:
        raise BadInput(
            f"{path}: {name!r:.80} cannot be the name of a method: use letters, digits, '_', '-' and '.', at most 64,"
            f" the first a letter or digit, and not {' or '.join(_TAKEN)}; the file's stem is the name of its method"
        )
    if before is not None:
        raise BadInput(
            f"{path}: there is a method {name!r} already, in {before.file}; rename this file, whose stem is the name of"
            " its method"
        )
    text = _text(path)
    if (output := scores_of(name)) not in _without_comments(text):
        raise BadInput(f"{path}: no rule of it has the output {output!r}, in which the scores of {name} are to be")
    doc, keys = _header(text, str(path))
    REGISTRY[name] = _method(name, path, doc, keys)
    return name


def scores_of(name: str) -> str:
    """The output that a rule writes the scores of a method into, as it stands in the rule."""
    return f"{{exchange}}/{name}.safetensors"


def rule_names(path: Path) -> list[str]:
    """The names of the rules of a file, in its order."""
    return _RULE.findall(_text(path))


def rule_file(name: str) -> str:
    """The file of rules that is found by its name alone; empty if there is none."""
    path = FOLDER / f"{name}{SUFFIX}"
    return path.as_posix() if NAME.fullmatch(name) and path.is_file() else ""


def rule_files() -> list[str]:
    """All such files."""
    return sorted(path.as_posix() for path in FOLDER.glob(f"*{SUFFIX}") if path.is_file())


def _method(name: str, path: Path, doc: str, keys: dict[str, str]) -> Method:
    where = str(path)
    spaces = tuple(valid_choice(word, SPACES, "space", f"{where}: spaces") for word in _words(keys.get("spaces", "")))
    patterns = tuple(pattern_name(word, f"{where}: patterns") for word in _words(keys.get("patterns", "")))
    continues = "continues" in keys
    if continues:
        valid_choice(keys["continues"], ["dense"], "run to continue", f"{where}: continues")
    if not re.fullmatch("[0-9]{1,6}", number := keys.get("per_class", "0")):
        raise BadInput(f"{where}: per_class: a whole number from 0 to 999999 is needed, not {number!r:.40}")

    def build(*, per_class: int) -> list[Stage]:
        if per_class < 0:
            raise ValueError("per_class is 0 or more")
        scored = External(name, per_class, spaces, patterns)
        # As `ft` trains what is left of a trained net.
        return [Continue(), scored, Train(lr=0.1)] if continues else [scored, Train()]

    return Method(
        name=name,
        family="after training" if continues else "before training",
        paper=keys.get("paper", ""),
        summary=" ".join(doc.partition("\n\n")[0].split()),
        options={"per_class": int(number)},
        file=str(path.resolve()),
        line=1,
        build=build,
        task="classification",
        doc=doc,
    )


def _header(text: str, where: str) -> tuple[str, dict[str, str]]:
    """What the comment at the top of a file says: its prose, and its lines of the form `# KEY: VALUE`.

    Raises:
        BadInput: a key is unknown, empty or given twice.
    """
    prose, keys = list[str](), dict[str, str]()
    for line in text.lstrip().splitlines():
        if not line.startswith("#"):
            break
        said = line.lstrip("#").strip()
        if (found := _KEY.match(said)) is None:
            prose.append(said)
            continue
        key, value = valid_choice(found[1], _KEYS, "key", f"the comment at the top of {where}"), found[2] or ""
        if key in keys or not value:
            raise BadInput(f"{where}: {key} is {'given twice' if key in keys else 'empty'} in the comment at the top")
        keys[key] = value
    return "\n".join(prose).strip(), keys


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[,\s]+", text) if word]


def _text(path: Path) -> str:
    try:
        return files.read(path, _MOST).decode()
    except UnicodeDecodeError:
        raise BadInput(f"{path}: not a text in UTF-8, as a file of rules is") from None


def _without_comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))


def code_of_rules(path: Path) -> Code:
    """The code behind a file of rules: the file, what it names, what that names, and so on.

    Named is a file by its path, relative to the folder of the file that names it; or relative to the folder of the
    command, if it lies in the folder of the rules or below. Of Python files, modules beside them that they import are
    named, too. What lies elsewhere (a container's image, an installed program) is told by the words that name it.

    Raises:
        BadInput: one of them cannot be read.
    """
    first = path.resolve()
    found, waiting = {first: ""}, [first]
    digests = {}
    while waiting:
        file = waiting.pop()
        try:
            with files.opened(file) as stream:
                digests[file] = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise files.not_read(file, error) from None
        for named in _named_in(file, first.parent):
            if named not in found:
                found[named] = os.path.relpath(named, first.parent)
                waiting.append(named)
    ordered = sorted(found, key=lambda file: found[file])
    lines = "".join(f"{found[file]} {digests[file]}\n" for file in ordered)
    return Code(hashlib.sha256(lines.encode()).hexdigest(), tuple(ordered))


def _named_in(file: Path, folder: Path) -> Iterator[Path]:
    """The files that a file names; `folder`: that of the rules."""
    if file.stat().st_size > _MOST:
        return
    content = file.read_bytes()
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return
    for word in dict.fromkeys(_WORD.findall(text)):
        beside, here = file.parent / word, Path(word)
        if beside.is_file():
            yield beside.resolve()
        elif here.is_file() and here.resolve().is_relative_to(folder):
            yield here.resolve()
    if file.suffix == ".py":
        yield from _imported_beside(text, file.parent)


def _imported_beside(text: str, folder: Path) -> Iterator[Path]:
    """The modules in the folder of a script that it imports: a script finds them there."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [".".join(filter(None, (node.module, alias.name))) for alias in node.names] + [node.module or ""]
        for name in names:
            parts = name.split(".")
            for end in range(1, len(parts) + 1):
                place = folder.joinpath(*parts[:end])
                for file in (place.with_name(f"{place.name}.py"), place / "__init__.py"):
                    if file.is_file():
                        yield file.resolve()
