"""A hook of MkDocs: the site has the repository's documents under their own paths, so that their links hold in both."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
#: What pages link to, as patterns of paths from the root.
PATTERNS = (
    "*.md", "LICENSE", "CITATION.cff", "Makefile", "constraints.txt", "docs/**/*.md", "docs/figures/*", "config/*",
    "profiles/*/*", "results/*.md", "results/reference/*.py", "results/reference/*/*.md",
    "results/reference/*/tables/*.md", "results/reference/*/figures/*", "benchmarks/*.py", "examples/**/*",
    "ipbench/**/*.py", "tests/**/*.py",
)  # fmt: skip


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Take the documents from the whole repository; of what the theme brings, everything stays."""
    found = [file for file in files if not Path(file.abs_src_path or "").is_relative_to(ROOT / "docs")]
    paths = sorted({path for pattern in PATTERNS for path in ROOT.glob(pattern) if path.is_file()})
    ours = [File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)) for path in paths]
    return Files([*found, *ours])
