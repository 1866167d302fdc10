"""Fonts in PDFs: embedding them takes two thirds of the time that a figure takes, most of it for what no PDF needs."""

from __future__ import annotations

from fontTools import subset


def without_layout() -> None:
    """From now on matplotlib's fonts are cut without their tables of layout: the same text in the same places."""
    subset.Options._drop_tables_default = [*subset.Options._drop_tables_default, "GDEF", "GPOS", "GSUB"]
