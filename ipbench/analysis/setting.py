"""What the numbers of a collection depend on: hardware, mode, versions, commit."""

from __future__ import annotations

import re

import pandas as pd

from ipbench.analysis.collect import Collection

#: A full commit hash, of which a caption shows the start; the records keep all of it.
_COMMIT, _ABBREVIATED = re.compile(r"\b([0-9a-f]{10})[0-9a-f]{30}\b"), r"\1"


def hardware(collection: Collection) -> str:
    """One sentence: the devices and the number of threads."""
    return f"Hardware: {_found(collection, 'device', 'cpu')}; threads: {_found(collection, 'threads')}."


def software(collection: Collection) -> str:
    """One sentence: mode, versions, commit."""
    commit = _COMMIT.sub(_ABBREVIATED, _found(collection, "commit"))
    modes = "; ".join(sorted(set(collection.runs["mode"].dropna()))) or "unknown"
    numerics, torch = _found(collection, "numerics"), _found(collection, "torch")
    return f"Mode: {modes}; numerics {numerics}; torch {torch}; commit {commit}."


def _found(collection: Collection, *names: str) -> str:
    """What the records tell of their provenance: each combination of the given values once."""
    columns = (collection.runs[f"provenance_{name}"] for name in names)
    texts = {
        ", ".join(str(value) for value in dict.fromkeys(values) if not pd.isna(value))
        for values in zip(*columns, strict=True)
    }
    return "; ".join(sorted(text for text in texts if text)) or "unknown"
