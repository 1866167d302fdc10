"""Where the workflow lies that this package drives: in the clone beside it or, of a wheel, in the package."""

from __future__ import annotations

from pathlib import Path

from ipbench.errors import BadInput, valid_choice

_PACKAGE = Path(__file__).parent


def folder() -> Path:
    """The folder with `Snakefile`, `workflow/`, `profiles/` and `config/`."""
    clone = _PACKAGE.parent
    return clone if (clone / "Snakefile").is_file() and (clone / "pyproject.toml").is_file() else _PACKAGE / "share"


def experiment(word: str) -> Path:
    """The file of an experiment: a path, or a name in `config/` here, or one that comes with ipbench.

    Raises:
        BadInput: there is none of that name.
    """
    if Path(word).suffix in (".yaml", ".yml"):
        return Path(word)
    here, ours = Path("config"), folder() / "config"
    names = {file.stem for place in (here, ours) for file in place.glob("*.yaml")}
    valid_choice(word, names, "experiment")
    mine = here / f"{word}.yaml"
    return mine if mine.is_file() else ours / f"{word}.yaml"


def profile(word: str) -> Path:
    """The folder of a profile of Snakemake: a path, or a name in `profiles/` here, or one that comes with ipbench.

    Raises:
        BadInput: there is none.
    """
    here, ours = Path("profiles") / word, folder() / "profiles" / word
    found = next((place for place in (Path(word), here, ours) if (place / "profile.yaml").is_file()), None)
    if found is None:
        names = sorted(file.parent.name for file in (folder() / "profiles").glob("*/profile.yaml"))
        raise BadInput(
            f"--profile: {word!r:.200} is no folder with a profile.yaml; valid: a folder, {', '.join(names)}"
        )
    return found
