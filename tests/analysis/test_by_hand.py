"""Results of runs that no experiment planned."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipbench.analysis.collect import collect, load
from ipbench.cli.main import main
from ipbench.errors import BadInput
from tests.analysis.synthetic import grid, write


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Records of twelve seeds of two pairs and a dense net, without a plan."""
    write(tmp_path, grid(("snip",), seeds=range(12)))
    (tmp_path / "grid.json").unlink()
    return tmp_path


def test_what_is_there_is_the_plan(runs: Path, tmp_path: Path) -> None:
    found = collect(runs)
    planned = grid(("snip",), seeds=range(12))
    assert {cell.id: cell.seeds for cell in found.grid.cells} == {
        cell["id"]: tuple(range(12)) for cell in planned["cells"]
    }
    assert not found.missing and len(found.runs) == 60
    assert [row.compared for row in found.grid.rows()] == [False, True, True]


def test_a_broken_record_is_left_out_and_named(runs: Path) -> None:
    path = next(runs.glob("runs/*/3.json"))
    path.write_text("{")
    found = collect(runs)
    assert len(found.runs) == 59 and found.missing == ((path.parent.name, 3),)
    assert [record.message.partition(": ")[0] for record in found.unreadable] == [f"runs/{path.parent.name}/3.json"]


def test_without_a_whole_record_a_cell_is_refused(runs: Path) -> None:
    path = runs / "runs/0123456789ab/0.json"
    path.parent.mkdir()
    path.write_text("{}")
    with pytest.raises(BadInput, match=r"runs/0123456789ab/0\.json"):
        collect(runs)


@pytest.mark.parametrize("command", ["summary", "tables"])
def test_commands(command: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, str(runs)]) == 0
    assert capsys.readouterr().err == ""
    assert load(runs).grid.planned == 60


def test_nothing_to_tell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs").mkdir()
    assert main(["summary", str(tmp_path)]) == 2
    assert "no record of a run" in capsys.readouterr().err
