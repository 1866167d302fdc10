from __future__ import annotations

import math
import subprocess
import sys

import pytest

from ipbench.analysis.collect import collect
from ipbench.analysis.grid import parse, read_grid, to_json
from ipbench.analysis.labels import labels
from ipbench.analysis.panels import ablations, panels
from ipbench.analysis.plan import plan, plan_tables
from ipbench.analysis.tables.parts import common_notes
from ipbench.errors import BadInput
from ipbench.spec import Basis, canonical_json
from ipbench.store import write_json

from .synthetic import cell, grid, write


def of(*cells, **rest):
    return parse({"name": "g", "title": "G", "cells": list(cells), **rest})


def test_a_grid_round_trips(tmp_path):
    write_json(tmp_path / "grid.json", grid())
    found = read_grid(tmp_path)
    assert parse(to_json(found)) == found
    assert found.margin == 0.5  # of a grid that does not tell
    assert parse(to_json(found) | {"margin": 0.25}).margin == 0.25
    for margin in (0, -1, 101, math.nan, "half"):
        with pytest.raises(BadInput, match=r"margin|could not convert"):
            parse(to_json(found) | {"margin": margin})
    assert found.planned == 9 * 6


def test_a_grid_is_ordered_dense_first_then_by_sparsity():
    found = parse(grid(methods=("snip",), sparsities=("0.98", "0.9")))
    assert [(c.method, c.space, c.sparsity) for c in found.cells] == [
        ("dense", "sp", "0"),
        ("snip", "sp", "0.9"), ("snip", "ip", "0.9"), ("snip", "sp", "0.98"), ("snip", "ip", "0.98"),
    ]  # fmt: skip


def test_cells_in_order_are_in_order():
    """Of a method off frozen comes first; of dense, which is listed last and stands first, it is zero."""
    frozen, zero = (cell("snip", "sp", "0.9") | {"off": off} for off in ("frozen", "zero"))
    asked = [frozen | {"id": "aaaaaaaaaaaa"}, zero, cell("random", "sp", "0.9"), cell("dense", "sp", "0")]
    found = of(*asked)
    assert [(c.method, c.off) for c in found.cells] == [
        ("dense", "zero"), ("snip", "frozen"), ("snip", "zero"), ("random", "zero"),
    ]  # fmt: skip
    assert parse(to_json(found)) == found
    assert found.plans_the_same(of(*asked[::-1])) and of(*asked[::-1]) != found
    assert not found.plans_the_same(of(*asked[1:])) and not found.plans_the_same(of(*asked, margin=0.25))


def test_rows_pair_spaces_and_share_an_sp_cell_between_bases():
    sp = cell("snip", "sp", "0.9")
    standard, orthonormal = (cell("snip", "ip", "0.9", basis={"init": init}) for init in ("standard", "orthonormal"))
    rows = of(sp, standard, orthonormal).rows()
    assert [(row.sp.id, row.ip.id) for row in rows] == [(sp["id"], ip["id"]) for ip in (standard, orthonormal)]
    (lone,) = of(sp).rows()
    assert lone.ip is None and not lone.compared


def test_dense_references_are_no_comparison():
    rows = parse(grid(methods=("snip",), sparsities=("0.9",), dense=("sp", "ip"))).rows()
    assert [row.compared for row in rows] == [False, True]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "../etc"}, "is not a name"),
        ({"id": "a/b"}, "is not a name"),
        ({"space": "xp"}, "is none of sp, ip"),
        ({"sparsity": "1.0"}, r"not in \[0, 1\)"),
        ({"sparsity": "much"}, "could not convert"),
        ({"seeds": 3}, "not iterable"),
    ],
)
def test_bad_cells_are_one_line(change, message):
    with pytest.raises(BadInput, match=message) as error:
        of(cell("snip", "sp", "0.9") | change)
    assert "\n" not in str(error.value)


def test_a_grid_without_cells():
    with pytest.raises(BadInput, match="without cells"):
        of()


def test_a_missing_key_and_a_double_cell():
    broken = cell("snip", "sp", "0.9")
    del broken["pair"]
    with pytest.raises(BadInput, match="key 'pair' is missing"):
        of(broken)
    twice = cell("snip", "sp", "0.9")
    with pytest.raises(BadInput, match="listed twice"):
        of(twice, twice)


def test_labels_drop_what_is_constant():
    names = labels(parse(grid()))
    assert names.varying == ("method", "sparsity")
    assert names.constant["dataset"] == "digits" and names.constant["recipe"] == "epochs=8"


def test_labels_tell_variants_apart():
    cells = [cell("lt", "ip", "0.9", options={"levels": n}, basis={"init": i}) for n in (2, 5) for i in ("a", "b")]
    cells.append(cell("imp", "sp", "0.9", options={"other": 1}, off="frozen"))
    found = of(*cells)
    names = labels(found)
    # The option of another method is no axis; neither is what the dense nets would have.
    assert names.varying == ("method", "off", "options", "basis", "sparsity")
    assert [names.variant(c) for c in found.cells] == [
        "levels=2, init=a", "levels=2, init=b", "levels=5, init=a", "levels=5, init=b", "frozen",
    ]  # fmt: skip


def test_options_are_told_of_their_own_method(tmp_path):
    given = ({"tune": 4, "lr": 0.3}, {"epochs": 8, "lr": 0.3})
    cells = [cell("sfp", "sp", "0.5", options=options) for options in given]
    cells += [cell("asfp", "sp", "0.5", options={"tune": 4}), cell("l1-filters", "sp", "0.5")]
    found = of(cell("dense", "sp", "0"), *cells)
    names = labels(found)
    # What varies within sfp is no name of asfp, which has it too, but the same everywhere.
    assert [names.text(c, "options") for c in found.cells] == ["–", "tune=4", "epochs=8", "–", "–"]
    assert names.fixed == {"sfp": "lr=0.3", "asfp": "tune=4"}
    collection = collect(write(tmp_path, {"name": "g", "title": "G", "cells": cells}))
    assert "Options of all rows of a method: sfp: lr=0.3; asfp: tune=4." in common_notes(collection, names)


def test_a_usual_value_is_named_only_beside_another_of_the_same_method():
    cells = [cell("snip", "sp", "0.9"), cell("rigl", "sp", "0.9", allocation="erk")]
    cells += [cell("gmp", "sp", "0.9", allocation=name) for name in ("global", "uniform")]
    found = of(*cells)
    assert [labels(found).variant(c) for c in found.cells] == ["", "erk", "global", "uniform"]


def test_a_filter_basis_is_named_by_what_is_unusual_about_it():
    bases = [Basis(**values) for values in ({}, {"init": "orthonormal"}, {"sharing": "network", "train": False})]
    cells = [cell("snip", "ip", "0.9", basis=basis.model_dump(mode="json")) for basis in bases]
    found = of(cell("snip", "sp", "0.9"), *cells)
    names = labels(found)
    assert [names.text(c, "basis") for c in found.cells] == [
        "–", "default FB", "init=orthonormal", "sharing=network, train=false",
    ]  # fmt: skip
    # What all have in common is no name; then the default value of a key is one.
    slow = [Basis(lr=0.1, init=init).model_dump(mode="json") for init in ("standard", "orthonormal")]
    found = of(*(cell("snip", "ip", "0.9", basis=basis) for basis in slow))
    assert [labels(found).text(c, "basis") for c in found.cells] == ["init=standard", "init=orthonormal"]


def test_ablations_are_the_sp_cells_with_several_bases():
    sp, other = cell("snip", "sp", "0.9"), cell("snip", "sp", "0.98")
    ips = [cell("snip", "ip", "0.9", basis={"init": init}) for init in ("standard", "orthonormal")]
    dense = [cell("dense", "sp", "0"), *(cell("dense", "ip", "0", basis={"init": init}) for init in ("a", "b"))]
    ((first, second),) = ablations(of(*dense, sp, other, cell("snip", "ip", "0.98"), *ips), "digits", "lenet")
    assert (first.sp, second.sp) == (first.sp, first.sp) and first.sp.id == sp["id"]
    assert [row.ip.id for row in (first, second)] == [ip["id"] for ip in ips]
    assert ablations(of(sp, *ips), "mnist", "lenet") == []


def test_a_panel_is_measured_against_the_dense_net_of_its_basis():
    bases = ({"init": "standard"}, {"init": "orthonormal"})
    cells = [cell("dense", "sp", "0"), *(cell("dense", "ip", "0", basis=basis) for basis in bases)]
    cells += [cell("snip", "sp", "0.9"), *(cell("snip", "ip", "0.9", basis=basis) for basis in bases)]
    found = panels(of(*cells), "digits", "lenet")
    assert [panel.dense["ip"].basis for panel in found] == [canonical_json(basis) for basis in bases]
    assert all(panel.dense["sp"].id == cells[0]["id"] for panel in found)


def test_nested_recipes_are_named_by_the_key_that_differs():
    recipes = [{"epochs": 8, "augmentation": {"flip": flip, "cutout": 4}} for flip in (True, False)]
    found = of(*(cell("snip", "sp", "0.9", recipe=recipe) for recipe in recipes))
    assert [labels(found).variant(c) for c in found.cells] == ["augmentation.flip=true", "augmentation.flip=false"]


def test_panels_hold_one_variant_each_with_its_dense_net():
    plan = grid(methods=("snip",), off="zero")
    plan["cells"] += grid(methods=("snip",), off="frozen", dense=())["cells"]
    found = panels(parse(plan), "digits", "lenet")
    assert [panel.title for panel in found] == ["snip, zero", "snip, frozen"]
    assert [panel.sparsities for panel in found] == [["0.9", "0.98"]] * 2
    assert all(set(panel.dense) == {"sp"} for panel in found)


def test_panels_of_several_bases_share_the_sp_side():
    sp, lone = cell("snip", "sp", "0.9"), cell("snip", "sp", "0.5")
    ips = [cell("snip", "ip", "0.9", basis={"init": init}) for init in ("standard", "orthonormal")]
    first, second = panels(of(sp, lone, *ips), "digits", "lenet")
    assert [c.id for c in first.side("sp")] == [lone["id"], sp["id"]]
    assert [c.id for c in second.side("sp")] == [sp["id"]]


def test_a_grid_of_dense_nets_has_a_panel_of_them():
    (panel,) = panels(of(cell("dense", "sp", "0"), cell("dense", "ip", "0")), "digits", "lenet")
    assert panel.method == "dense" and panel.sparsities == ["0"]


def test_plan_names_every_file():
    files = plan(grid())
    assert [file.path for file in files if file.format == "svg"] == [
        "figures/forest.digits-lenet.all.both.svg",
        "figures/accuracy.digits-lenet.all.both.svg",
        "figures/methods.digits-lenet.all.both.svg",
        "figures/twins.digits-lenet.all.both.svg",
        "figures/difference.digits-lenet.all.both.svg",
        "figures/training-loss.digits-lenet.all.both.svg",
        "figures/gradient-norm.digits-lenet.all.both.svg",
        "figures/generalisation.digits-lenet.all.both.svg",
        "figures/density.digits-lenet.all.both.svg",
        "figures/spatial-zeros.digits-lenet.all.both.svg",
        "figures/basis.digits-lenet.all.both.svg",
        "figures/cost.digits-lenet.all.both.svg",
        *(
            f"figures/{figure}.digits-lenet.{method}.{space}.svg"
            for method in ("snip", "grasp")
            for figure in ("accuracy", "training-loss", "gradient-norm", "density")
            for space in ("both", "sp", "ip")
        ),
    ]
    assert {file.path.replace(".svg", ".pdf") for file in files} <= {file.path for file in files}
    assert files[0].labels == {
        "figure": "forest", "dataset": "digits", "model": "lenet", "method": "all", "space": "both",
    }  # fmt: skip
    assert len(plan_tables(grid())) == 32  # eight tables in four formats


def test_plan_of_one_space_has_no_difference():
    files = plan(grid(spaces=("ip",)))
    assert {file.space for file in files} == {"both"}
    assert "difference" not in {file.figure for file in files}


def test_plan_refuses_names_that_collide():
    cells = [cell("snip", "sp", "0.9", dataset=d, model=m) for d, m in (("a-b", "c"), ("a", "b-c"))]
    with pytest.raises(BadInput, match="same name"):
        plan(of(*cells))


def test_planning_imports_nothing_heavy():
    code = (
        "import sys, ipbench.analysis.plan; "
        "print([name for name in ('torch', 'pandas', 'matplotlib', 'scipy', 'pyarrow') if name in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300).stdout
        == "[]\n"
    )


def test_the_analysis_imports_no_torch():
    code = (
        "import sys, ipbench.analysis.figures, ipbench.analysis.tables, ipbench.analysis.terminal; "
        "print('torch' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300).stdout
        == "False\n"
    )
