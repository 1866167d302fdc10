"""The blocks of code in the documents, and what stands before them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", "config/README.md", *sorted(f"docs/{p.name}" for p in ROOT.glob("docs/*.md")))
#: A comment in the line before a block says what it is, where it is not to be run as it stands.
_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
#: What a line of a block begins with that is a command.
PROGRAMS = ("ipbench ", ".venv/bin/", "make ", "snakemake ", "python ", "pip ", "uv ")


@dataclass(frozen=True)
class Block:
    """A block of a page.

    Attributes:
        page: relative to the root.
        line: where it begins.
        language: as its fence says; empty for commands and for what is no code.
        text: the block itself.
        mark: of the comment before it; empty if there is none.
    """

    page: str
    line: int
    language: str
    text: str
    mark: str

    @property
    def commands(self) -> list[str]:
        """Its command lines, without comments behind them."""
        if self.language not in ("", "sh", "bash"):
            return []
        text = self.text.replace("\\\n", " ")  # a command on several lines
        lines = [line.split("  #")[0].strip() for line in text.splitlines()]
        return [line for line in lines if line.startswith(PROGRAMS)]


def blocks(page: str) -> list[Block]:
    """All blocks of a page, in order."""
    text = (ROOT / page).read_text()
    return [
        Block(page, text[: found.start()].count("\n") + 1, found["language"], found["text"], found["mark"] or "")
        for found in _BLOCK.finditer(text)
    ]
