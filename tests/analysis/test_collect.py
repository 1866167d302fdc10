from __future__ import annotations

import json

import pandas as pd
import pytest

from ipbench.analysis import collect as module
from ipbench.analysis.collect import collect, load, read_parquet, write_parquet, write_runs
from ipbench.cli.main import main
from ipbench.errors import BadInput, BadProduct
from ipbench.store import write_json

from .synthetic import grid, put, record, write


@pytest.fixture
def plan():
    return grid(methods=("snip",), sparsities=("0.9",), seeds=range(3))


@pytest.fixture
def results(tmp_path, plan):
    return write(tmp_path / "small", plan)


def path_of(results, cell, seed):
    return results / "runs" / cell["id"] / f"{seed}.json"


def test_a_row_holds_the_whole_record(results, plan):
    found = collect(results)
    assert len(found.runs) == 9 and not found.missing and not found.unreadable
    row = found.runs[(found.runs["method"] == "snip") & (found.runs["space"] == "ip")].iloc[1]
    source = json.loads(path_of(results, {"id": row["cell"]}, 1).read_text())
    assert row["seed"] == 1 and row["status"] == "done" and pd.isna(row["reason"])
    for name, value in source["outcome"].items():
        if name == "curves":
            assert all(row[f"curves_{curve}"] == numbers for curve, numbers in value.items())
        elif isinstance(value, dict | list):
            assert json.loads(row[name]) == value
        elif value is None:
            assert pd.isna(row[name])
        else:
            assert row[name] == value
    assert row["cost_wall_seconds"] == 11.0
    assert row["provenance_threads"] == "1" and row["provenance_cpu"] == "Test CPU"
    assert row["pair"] == plan["cells"][1]["pair"] and row["family"] == "before training"


def test_parquet_round_trip_is_exact_and_its_bytes_depend_on_the_content_only(results, tmp_path, plan):
    put(results, record(plan["cells"][2], 0, "impossible", "the FB alone exceeds the budget"))
    put(results, record(plan["cells"][2], 1, "diverged", "loss is nan", test_accuracy=None, train_loss=None))
    path_of(results, plan["cells"][2], 2).unlink()
    path_of(results, plan["cells"][0], 2).write_text("{")
    found = collect(results)
    write_parquet(found, tmp_path / "a.parquet")
    again = read_parquet(tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(again.runs, found.runs)
    assert (again.grid, again.missing, again.unreadable) == (found.grid, found.missing, found.unreadable)
    write_parquet(again, tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_whole_numbers_stay_whole_beside_missing_ones(results, plan):
    big = 2**53 + 1
    put(results, record(plan["cells"][1], 0, macs_dense=big))
    put(results, record(plan["cells"][1], 1, "impossible", "why"))
    write_runs(results)
    assert big in set(load(results).runs["macs_dense"].dropna())


def test_damaged_records_are_listed_and_count_as_missing(results, plan):
    altered, truncated, stranger, wrong = (
        path_of(results, plan["cells"][i], s) for i, s in ((0, 0), (0, 1), (1, 0), (1, 2))
    )
    altered.write_text(altered.read_text().replace('"test_loss": 0.2', '"test_loss": 0.1'))
    truncated.write_text(truncated.read_text()[:500])
    stranger.write_text(path_of(results, plan["cells"][2], 0).read_text())
    put(results, record(plan["cells"][1], 2, test_accuracy="high"))
    found = collect(results)
    assert len(found.runs) == 5 and len(found.missing) == 4
    messages = {message.message.split(":")[0]: message.message for message in found.unreadable}
    assert set(messages) == {path.relative_to(results).as_posix() for path in (altered, truncated, stranger, wrong)}
    assert all("\n" not in message for message in messages.values())
    assert "checksum does not match" in messages[altered.relative_to(results).as_posix()]
    assert "holds the run" in messages[stranger.relative_to(results).as_posix()]
    assert "test_accuracy is not a number" in messages[wrong.relative_to(results).as_posix()]


def test_a_record_of_another_plan_is_left_alone(results, plan):
    put(results, record(plan["cells"][0] | {"id": "0" * 12}, 0))
    put(results, record(plan["cells"][0], 99))
    assert len(collect(results).runs) == 9


def test_rows_are_in_the_order_of_the_grid_whatever_the_disk_says(tmp_path, plan):
    first = collect(write(tmp_path / "a", plan)).runs
    turned = plan | {"cells": [cell | {"seeds": list(reversed(cell["seeds"]))} for cell in plan["cells"]]}
    pd.testing.assert_frame_equal(collect(write(tmp_path / "b", turned)).runs, first)


def test_fields_of_newer_records_are_kept(results, plan):
    put(results, record(plan["cells"][0], 0, new_number=3, new_text="x", new_thing={"a": 1}))
    write_runs(results)
    row = load(results).runs.iloc[0]
    assert row["new_number"] == 3.0 and row["new_text"] == "x" and row["new_thing"] == '{"a":1}'


def test_a_grid_without_cells_is_refused_and_one_without_runs_is_empty(tmp_path, plan):
    write_json(tmp_path / "none" / "grid.json", plan | {"cells": []})
    with pytest.raises(BadInput, match=r"none/grid\.json: a grid without cells"):
        write_runs(tmp_path / "none")
    assert not (tmp_path / "none" / "runs.parquet").exists()
    write_json(tmp_path / "early" / "grid.json", plan)
    write_runs(tmp_path / "early")
    assert len(load(tmp_path / "early").missing) == 9


def test_a_complete_collection_has_every_run(results, capsys):
    """What the workflow asks for: of a grid with a run missing, no figure is called finished."""
    assert main(["collect", str(results)]) == 0
    before = (results / "runs.parquet").read_bytes()
    record = sorted(results.glob("runs/*/*.json"))[0]
    for damaged in (b"{}", None):
        record.write_bytes(damaged) if damaged else record.unlink()
        capsys.readouterr()
        assert main(["collect", "--complete", str(results)]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and f"runs/{record.parent.name}/{record.name}: " in err
        assert "1 of 9 planned runs have no usable record" in err and ("; delete what" in err) == bool(damaged)
        assert (results / "runs.parquet").read_bytes() == before


@pytest.mark.parametrize("limit", ["MOST_RUNS", "MOST_BYTES"])
def test_a_parquet_that_claims_too_much_is_not_read(results, monkeypatch, limit):
    write_runs(results)
    monkeypatch.setattr(module, limit, 8)
    monkeypatch.setattr(module.pq.ParquetFile, "read", None)
    with pytest.raises(BadProduct, match=r"runs\.parquet: claims 9 runs"):
        read_parquet(results / "runs.parquet")


def test_altered_and_truncated_parquet_is_refused(results):
    path = write_runs(results)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadProduct, match=r"runs.parquet: .*collect the records again"):
        load(results)
    for place in range(100, len(whole), len(whole) // 25):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            found = load(results)
        except BadProduct as error:
            assert "\n" not in str(error)
        else:  # a bit that carries nothing, such as the name of the writer
            path.write_bytes(whole)
            pd.testing.assert_frame_equal(found.runs, load(results).runs)
    path.unlink()
    with pytest.raises(BadProduct, match="no such file"):
        load(results)


def test_a_changed_number_is_refused(results):
    import pyarrow.parquet as pq

    path = write_runs(results)
    table = pq.read_table(path)
    index = table.column_names.index("test_accuracy")
    pq.write_table(table.set_column(index, "test_accuracy", [[0.99] * len(table)]), path)
    with pytest.raises(BadProduct, match="checksum does not match"):
        load(results)


def test_a_grid_that_changed_since_is_refused(results, plan):
    write_runs(results)
    write_json(results / "grid.json", plan | {"cells": plan["cells"][:2]})
    with pytest.raises(BadInput, match=r"grid.json has changed since"):
        load(results)


def test_a_parquet_file_alone_is_enough(results, tmp_path):
    carried = tmp_path / "home" / "runs.parquet"
    carried.parent.mkdir()
    carried.write_bytes(write_runs(results).read_bytes())
    assert len(load(carried.parent).runs) == 9
