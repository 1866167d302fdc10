"""Fixtures of the tests of the analysis."""

import pytest

from tests import fonts

fonts.without_layout()


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are taken as they are: a drawing copes with values that no training writes."""
    for module in ("records", "collect"):
        monkeypatch.setattr(f"ipbench.analysis.{module}.check_values", lambda row: None)
