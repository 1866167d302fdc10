"""Documentation can be read: no line of prose above 120 characters, no words that only its writers understand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "config/*.md", "results/*.md", "results/reference/*/*.md", ".github/**/*.md")
    for path in ROOT.glob(pattern)
)


def prose(page: Path) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, without code, tables and pictures."""
    code = False
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if line.startswith("```"):
            code = not code
        elif not code and not line.startswith(("|", "![", "    ")):
            yield number, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_are_short(page):
    assert [f"{page.name}:{number}" for number, line in prose(page) if len(line) > 120] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_building_of_words(page):
    words = re.compile(r"\b(floors?(?!\()|rooms|houses?)\b", re.IGNORECASE)
    assert [f"{page.name}:{number}: {line}" for number, line in prose(page) if words.search(line)] == []
