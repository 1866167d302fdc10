"""What a case of bad input is, and what every one of them must give: one line, exit code 2, and no file."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

#: A file's content; None for a folder.
Content = str | bytes | None


@dataclass(frozen=True)
class Case:
    """One mistake.

    Attributes:
        id: unique in all tables.
        words: of the command line.
        says: what the message must contain: the word that is wrong, and what is valid.
        files: laid into the working folder before.
    """

    id: str
    words: tuple[str, ...]
    says: tuple[str, ...]
    files: Mapping[str, Content] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.id


def case(id: str, words: str | Sequence[str], *says: str, files: Mapping[str, Content] | None = None) -> Case:
    """A case; a command line in one string is split as a shell does."""
    return Case(id, tuple(shlex.split(words) if isinstance(words, str) else words), says, files or {})


def lay(folder: Path, files: Mapping[str, Content]) -> None:
    """Write files below a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir()
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)


def everything(folder: Path) -> dict[str, bytes | str]:
    """All that lies below a folder: the bytes of files, "folder" for folders."""
    return {
        path.relative_to(folder).as_posix(): "folder" if path.is_dir() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }


def check(code: int, out: str, err: str, says: Sequence[str]) -> None:
    """Exit code 2, nothing on stdout, one line on stderr that has these words."""
    assert code == 2, (code, out, err)
    assert out == ""
    assert err.startswith("ipbench: ") and err.endswith("\n") and err.count("\n") == 1, err
    assert "Traceback" not in err and len(err) < 1000, err
    for word in says:
        assert word in err, (word, err)
