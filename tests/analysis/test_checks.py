"""Whatever is compared is computed again: records, grids and parquet files that contradict themselves."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ipbench.analysis import collect as collecting
from ipbench.analysis.collect import collect, load, write_runs
from ipbench.errors import BadInput, BadProduct
from ipbench.spec import canonical_json
from ipbench.store import read_json, write_json

from .synthetic import grid, put, record, write


@pytest.fixture
def plan():
    return grid(methods=("snip",), sparsities=("0.9",), seeds=range(2))


@pytest.fixture
def results(tmp_path, plan):
    return write(tmp_path / "small", plan)


def outcome(**values):
    """A record of the second cell whose outcome has these values, and whose hash fits."""

    def make(cell):
        found = record(cell, 0)
        new = {**found["outcome"], **values}
        return {**found, "outcome": new, "outcome_sha256": hashlib.sha256(canonical_json(new).encode()).hexdigest()}

    return make


def whole(**values):
    return lambda cell: {**record(cell, 0), **values}


def curves(**values):
    return lambda cell: record(cell, 0, curves={**record(cell, 0)["outcome"]["curves"], **values})


def layers(change):
    return lambda cell: record(cell, 0, layers=change(record(cell, 0)["outcome"]["layers"]))


def within(key, **values):
    return lambda cell: {**record(cell, 0), key: {**record(cell, 0)[key], **values}}


ODD = {
    "cell replaced": (outcome(cell="0" * 12), "has the key 'cell'"),
    "seed replaced": (outcome(seed=1), "has the key 'seed'"),
    "status replaced": (outcome(status="done"), "has the key 'status'"),
    "cost replaced": (outcome(cost_wall_seconds=1.0), "has the key 'cost_wall_seconds'"),
    "provenance replaced": (outcome(provenance_torch="9"), "has the key 'provenance_torch'"),
    "curve replaced": (outcome(curves_train_loss=[1.0]), "has the key 'curves_train_loss'"),
    "hash": (whole(outcome_sha256="0" * 64), "it was altered"),
    "outcome": (whole(outcome={}), "it was altered"),
    "id": (whole(id="0" * 12), "says that it is the run"),
    "cell": (whole(cell="0" * 12), "says that it is the run"),
    "options": (within("run", options={"rounds": 7}), "holds the run"),
    "sparsity": (within("run", sparsity="0.98"), "holds the run"),
    "unknown axis": (within("run", colour="red"), "colour"),
    "numerics": (within("provenance", numerics=99), "stale: made with numerics 99"),
    "mode": (within("provenance", mode="fast"), "made in mode 'fast'"),
    "status": (whole(status="fine"), "status 'fine' is none of"),
    "status a list": (whole(status=["done"]), "status"),
    "accuracy above 1": (outcome(test_accuracy=97.3), "test_accuracy is 97.3"),
    "accuracy below 0": (outcome(validation_accuracy=-0.1), "validation_accuracy is -0.1"),
    "accuracy missing": (outcome(test_accuracy=None), "test_accuracy is not there"),
    "accuracy a text": (outcome(test_accuracy="0.9"), "test_accuracy is not a number"),
    "accuracy true": (outcome(test_accuracy=True), "test_accuracy is not a number"),
    "loss": (outcome(test_loss=-1.0), "test_loss is -1"),
    "loss missing": (outcome(train_loss=None), "train_loss is not there"),
    "count": (outcome(prunable=1.5), "prunable is not a whole number"),
    "count beyond 64 bits": (outcome(macs_dense=2**63), "macs_dense is not a whole number"),
    "time": (within("cost", wall_seconds=-3.0), "cost_wall_seconds is -3"),
    "kept": (outcome(coefficients_kept=5), "coefficients_kept is 5"),
    "sparsity reached": (outcome(achieved_sparsity=0.5), "achieved_sparsity is 0.5"),
    "parameters": (outcome(parameters=9), "parameters does not follow"),
    "collapsed": (outcome(collapsed_layers=["conv1"]), "collapsed_layers"),
    "kept above size": (layers(lambda some: [{**some[0], "kept": 10**6}, *some[1:]]), "more is kept"),
    "size": (layers(lambda some: [{**some[0], "size": 7}, *some[1:]]), "not that of its shape"),
    "layer twice": (layers(lambda some: [*some, some[0]]), "a name comes twice"),
    "layers of texts": (layers(lambda some: ["conv1"]), "not a list of layers"),
    "layers a number": (outcome(layers=3), "not a list of layers"),
    "curve short": (curves(gradient_norm=[1.0]), "differ in their numbers of epochs"),
    "curve accuracy": (curves(validation_accuracy=[90.0] * 8), "curve validation_accuracy is 90"),
    "curve texts": (curves(train_loss=["a"] * 8), "not a list of numbers"),
    "curves too short": (
        lambda cell: record(cell, 0, curves={"train_loss": [1.0, 0.5]}), "end at epoch 2, its training at epoch 8",
    ),
    "curves a list": (outcome(curves=[1, 2]), "not a record"),
    "impossible with numbers": (lambda cell: {**record(cell, 0), "status": "impossible"}, "yet it has an outcome"),
    "half a character": (outcome(note="\ud800"), "surrogates not allowed"),
    "odd key": (outcome(**{"a b": 1}), "'a b' is not the name of a value"),
    "a list for the run": (whole(run=[1]), "run"),
    "nothing for the cost": (whole(cost=None), "not a record"),
    "nothing for the provenance": (whole(provenance=None), "not a record"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "said"), ODD.values(), ids=ODD)
def test_a_record_that_cannot_be_right_is_listed_and_the_others_stand(results, plan, make, said):
    planned = plan["cells"][1]
    write_json(results / "runs" / planned["id"] / "0.json", make(planned))
    found = collect(results)
    (odd,) = found.unreadable
    assert len(found.runs) == 5 and found.missing == ((planned["id"], 0),)
    assert odd.message.startswith(f"runs/{planned['id']}/0.json: ") and said in odd.message, odd.message
    assert "\n" not in odd.message
    write_runs(results)
    assert len(load(results).runs) == 5


def folder(path: Path) -> None:
    path.mkdir()


def loop(path: Path) -> None:
    path.symlink_to(path)


def nowhere(path: Path) -> None:
    path.symlink_to("nowhere")


def content(text: str | bytes):
    return lambda path: path.write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize(
    "lay",
    [
        folder, loop, nowhere, content(""), content("[]"), content("null"), content('{"checksum": NaN}'),
        content("[" * 100_000), content(b"\xff\xfe{}"), content('{"a": 1, "a": 2}'), content('{"checksum": "x"}'),
    ],
    ids=["folder", "loop", "nowhere", "empty", "list", "null", "nan", "deep", "utf-16", "twice", "checksum"],
)  # fmt: skip
def test_odd_files_are_listed_and_the_others_stand(results, plan, lay):
    path = results / "runs" / plan["cells"][1]["id"] / "0.json"
    path.unlink()
    lay(path)
    found = collect(results)
    assert len(found.runs) == 5 and [record.seed for record in found.unreadable] == [0]
    assert "\n" not in found.unreadable[0].message


def test_the_whole_range_of_what_is_right(results, plan):
    """A diverged run whose numbers are missing, an impossible one, a rewound one, and one without weights."""
    cells = plan["cells"]
    put(results, record(cells[1], 0, "diverged", "nan", test_accuracy=None, test_loss=None, train_loss=None, curves={}))
    put(results, record(cells[1], 1, "impossible", "no room"))
    late = {"train_loss": [1.0, 0.5], "epoch": [7.0, 8.0]}
    put(results, record(cells[2], 0, curves=late))
    none = record(cells[2], 1)["outcome"]
    empty = [{**layer, "kept": 0} for layer in none["layers"]]
    others = none["parameters_dense"] - none["prunable"]
    put(results, record(cells[2], 1, layers=empty, coefficients_kept=0, basis_entries=0, achieved_sparsity=1.0,
                        parameters=others, collapsed_layers=[layer["name"] for layer in empty]))  # fmt: skip
    assert not collect(results).unreadable


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sparsity": "0.5"}, "holds the axes of cell"),
        ({"recipe": {"epochs": 3}}, "holds the axes of cell"),
        ({"pair": "0" * 12}, "with pair 000000000000"),
        ({"recipe": {"epochs": "many"}}, "epochs"),
        ({"recipe": "{"}, "is no JSON"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [0, 0]}, "seeds"),
        ({"seeds": [0.5]}, "seeds"),
        ({"seeds": [True]}, "seeds"),
        ({"seeds": [-1]}, "seeds"),
        ({"code": 3}, "is not a digest"),
    ],
)
def test_a_grid_that_contradicts_itself_is_one_line(results, plan, change, said):
    cells = [plan["cells"][0], {**plan["cells"][1], **change}, plan["cells"][2]]
    write_json(results / "grid.json", {**plan, "cells": cells})
    with pytest.raises(BadInput) as error:
        collect(results)
    assert said in str(error.value) and str(results / "grid.json") in str(error.value) and "\n" not in str(error.value)


def forged(path: Path, change) -> None:
    """Change the table or the facts of a parquet file, and let its checksum fit."""
    with pq.ParquetFile(path) as file:
        table = file.read()
    facts = json.loads(table.schema.metadata[b"ipbench"])
    table, facts = change(table.replace_schema_metadata(None), facts)
    text = canonical_json(facts)
    digest = collecting._checksum(table, text)
    pq.write_table(table.replace_schema_metadata({"ipbench": text, "checksum": digest}), path)


def column(name, values):
    def change(table, facts):
        index = table.column_names.index(name)
        old = table.column(name).to_pylist()
        new = pa.array([*values, *old[len(values) :]], table.schema.field(name).type)
        return table.set_column(index, name, new), facts

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (column("seed", [5]), "not planned"),
        (lambda table, facts: (pa.concat_tables([table, table.slice(0, 1)]).combine_chunks(), facts), "there twice"),
        (column("cell", ["x"]), "not planned"),
        (column("id", ["0" * 12]), "another run"),
        (column("sparsity", ["0.5"]), "another run"),
        (column("pair", ["0" * 12]), "another run"),
        (column("test_accuracy", [1.5]), "test_accuracy is 1.5"),
        (column("status", ["fine"]), "status 'fine'"),
        (column("layers", ["{"]), "collect the records again"),
        (column("coefficients_kept", [1]), "coefficients_kept is 1"),
        (lambda table, facts: (table.drop_columns("status"), facts), "not a collection"),
        (lambda table, facts: (table.set_column(
            table.column_names.index("seed"), "seed", table.column("seed").cast(pa.string())), facts), "column seed"),
        (lambda table, facts: (table.slice(1), facts), "list of missing runs"),
        (lambda table, facts: (table, {**facts, "missing": [["a", 1]]}), "list of missing runs"),
        (lambda table, facts: (table, {**facts, "missing": 3}), "not a collection"),
        (lambda table, facts: (table, {**facts, "unreadable": [{"a": 1}]}), "not a collection"),
        (lambda table, facts: (table, {**facts, "grid": {**facts["grid"], "cells": [
            {**cell, "sparsity": "0.7"} for cell in facts["grid"]["cells"]]}}), "holds the axes of"),
    ],
)  # fmt: skip
def test_a_parquet_file_that_contradicts_itself_is_one_line(results, change, said):
    path = write_runs(results)
    forged(path, lambda table, facts: (table, facts))
    assert len(load(results).runs) == 6
    forged(path, change)
    with pytest.raises(BadInput) as error:
        load(results)
    assert said in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_record_of_another_cell_copied_here_is_listed(results, plan):
    one, other = (results / "runs" / plan["cells"][place]["id"] / "0.json" for place in (1, 2))
    one.replace(other)
    found = collect(results)
    assert len(found.runs) == 4 and len(found.unreadable) == 1
    assert read_json(other)["cell"] in found.unreadable[0].message


def test_damage_is_a_bad_product(results):
    path = write_runs(results)
    forged(path, column("test_accuracy", [2.0]))
    with pytest.raises(BadProduct, match="collect the records again"):
        load(results)
