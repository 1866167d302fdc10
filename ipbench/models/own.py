"""Models of users: a function of a file, or a known model with weights. They are digested here, and not imported."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path

from ipbench import files
from ipbench.errors import BadInput
from ipbench.models import catalog
from ipbench.models.catalog import OWN, OwnModel
from ipbench.spec import NAME, Own
from ipbench.user_code import Code, code_of
from ipbench.user_files import beside

#: How a file of weights is called; anything else names weights of torchvision's or timm's.
SUFFIX = ".safetensors"


def model(
    name: str, *, file: Path | None, weights: str | None, label: str | None, root: Path, folder: Path, where: str
) -> str:
    """Make a model known to this process by what a user says of it.

    Args:
        name: the function in `file`, or a known model.
        file: a Python file; None for a known model.
        weights: a file (it ends in .safetensors), or the name of weights that were fetched.
        label: what tables call it; `name` if None.
        root: the data folder, below which fetched weights lie.
        folder: that the path of a file of weights is relative to.
        where: how a user would find it.

    Returns:
        The name of the model in runs.

    Raises:
        BadInput: a file is missing, or cannot be read; a name is taken or is none.
    """
    base = _function(name, where) if file else known(name, where)
    if file is None and weights is None and label is None:
        return base
    called = base if label is None else label
    if not NAME.fullmatch(called):
        raise BadInput(f"{where}: {called!r:.80} is not a name: use letters, digits, '_', '-' and '.', at most 64")
    if catalog.shipped(called) and (file or called != base):
        raise BadInput(f"{where}: {called} is a model of ipbench's; give this one another name with `label`")
    if called.startswith(catalog.TIMM) and (file or called != base):
        raise BadInput(f"{where}: {called}: names that begin with {catalog.TIMM} are timm's; take another `label`")
    path = _weights_file(weights, base, bool(file), root, folder, where) if weights is not None else None
    OWN[called] = OwnModel(
        called, base, file, code(file).sha256 if file else "", path, sha256(path) if path is not None else ""
    )
    return called


def known(name: str, where: str) -> str:
    """A model by its name alone, which is never a user's, whatever this process was told before.

    Raises:
        BadInput: there is none of that name.
    """
    OWN.pop(name, None)
    return catalog.check(name, where)


def own_of(name: str, data: str = "") -> Own:
    """What a run of this model says beside its name.

    Args:
        name: of the model.
        data: digest of the content of the data set, where it is a user's.
    """
    found = OWN.get(name)
    if found is None:
        return Own(data=data)
    base = found.base if found.base != name else ""
    return Own(base=base, code=found.code, weights=found.weights_sha256, data=data)


def check(name: str, own: Own) -> None:
    """Whether a model is still what a run says that it is.

    Raises:
        BadInput: this command was not told of it, or a file has changed; one line says what is needed.
    """
    if not (own.base or own.code or own.weights):
        if name in OWN and OWN[name].file:
            raise BadInput(f"model {name}: this command knows another model of that name, of {OWN[name].file}")
        return
    found = OWN.get(name)
    if found is None:
        raise BadInput(f"model {name} is a user's: {needed(name, own)}")
    now = code(found.file).sha256 if found.file else ""
    if now != own.code:
        raise BadInput(
            f"{found.file}: not the code that model {name} was planned with (SHA-256 {now:.12} now, {own.code:.12}"
            " then): it, or what it imports, has changed; put it back, or plan anew"
        )
    if own.weights and found.weights is None:
        raise BadInput(f"model {name} starts with weights: {needed(name, own)}")
    now = sha256(found.weights) if found.weights else ""
    if now != own.weights:
        raise BadInput(
            f"{found.weights}: not the weights that model {name} was planned with (SHA-256 {now:.12} now,"
            f" {own.weights:.12} then); put that file back, or plan anew"
        )
    if found.base != (own.base or name):
        raise BadInput(f"model {name} is {own.base or name}, and this command was told that it is {found.base}")


def needed(name: str, own: Own) -> str:
    """What a command has to be given to build a user's model."""
    words = []
    if own.code:
        words.append(f"--model-file with the file of SHA-256 {own.code:.12}")
    if own.weights:
        words.append(f"--weights with the file of SHA-256 {own.weights:.12}")
    words.append(f"--model {own.base or name}" + (f" --label {name}" if own.base else ""))
    return f"give {', '.join(words)}"


def code(file: Path) -> Code:
    """The code of a model file as it is now: nothing of it is run.

    Raises:
        BadInput: there is no such file, or it is not one of Python's.
    """
    if not str(file).isprintable() or file.suffix != ".py":
        raise BadInput(f"{str(file)!r:.200}: not the path of a model file, which ends in .py")
    try:
        files.opened(file).close()
    except files.Missing:
        raise BadInput(f"{file}: no such file (a model file)") from None
    try:
        with beside(file):
            return code_of(file.resolve())
    except OSError as error:
        raise BadInput(f"{files.refusal(error)}: part of a model, whose code could not be told") from None


def words(name: str, own: Own) -> list[str]:
    """Options of `ipbench run` that tell it of a model, known or a user's, but for where its files lie."""
    return ["--model", own.base or name, *(["--label", name] if own.base else [])]


def places(name: str, own: Own) -> list[str]:
    """Options of `ipbench run` that tell it where the files of a user's model lie."""
    found = OWN.get(name) if own.code or own.weights else None
    if found is None:
        return []
    file, weights = ([option, str(path)] if path else [] for option, path in
                     (("--model-file", found.file), ("--weights", found.weights)))  # fmt: skip
    return [*file, *weights]


def paths() -> list[Path]:
    """The files that the models of users in this process come from."""
    return [path for one in OWN.values() for path in (one.file, one.weights) if path is not None]


def sha256(path: Path) -> str:
    """Of a file's bytes; read once for as long as it looks unchanged.

    Raises:
        BadInput: there is no such file, or it is not a regular one.
    """
    with files.opened(path) as file:
        stat = os.fstat(file.fileno())
    return _sha256(path.resolve(), stat.st_size, stat.st_mtime_ns, stat.st_ino)


@lru_cache(maxsize=64)
def _sha256(path: Path, size: int, mtime_ns: int, inode: int) -> str:
    with files.opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_path(base: str, name: str, root: Path) -> Path:
    """Where fetched weights of a known model lie."""
    return root / "weights" / f"{base}.{name}{SUFFIX}"


def _function(name: str, where: str) -> str:
    if not name.isidentifier() or not name.isascii():
        raise BadInput(f"{where}: {name!r:.80} is not the name of a function in a model file")
    return name


def _weights_file(weights: str, base: str, of_file: bool, root: Path, folder: Path, where: str) -> Path:
    if weights.endswith(SUFFIX):
        return folder / weights
    if of_file:
        raise BadInput(
            f"{where}: weights of a model of a file are a safetensors file, which ends in {SUFFIX}, not {weights!r:.80}"
        )
    if not NAME.fullmatch(weights):
        raise BadInput(
            f"{where}: {weights!r:.80} is neither a safetensors file, which ends in {SUFFIX}, nor the name of weights"
        )
    path = weights_path(base, weights, root)
    if not path.exists():
        raise BadInput(
            f"{where}: the weights {weights} of {base} are not there ({path}): fetch them with `ipbench data weights"
            f" {base.replace(catalog.TIMM, 'timm/', 1)} {weights}`, or give a file, which ends in {SUFFIX}"
        )
    return path
