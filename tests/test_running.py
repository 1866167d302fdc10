"""Runs as a whole: resume, the same run twice, records, golden metrics of a tiny grid."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ipbench import NUMERICS
from ipbench.data.loaders import Data
from ipbench.errors import BadProduct
from ipbench.runs.building import build_net
from ipbench.runs.environment import Environment, channels_last
from ipbench.runs.execute import execute
from ipbench.runs.records import record_path, state_path
from ipbench.spec import Augmentation, Basis, Recipe, Run
from ipbench.store import read_json, write_json

RECIPE = Recipe(
    epochs=3, batch_size=100, schedule="cosine", warmup=1, train_examples=400, augmentation=Augmentation(translate=1)
)
HERE = Environment()
GOLDEN = Path(__file__).parent / "golden" / "digits.json"


def tiny_run(**values: Any) -> Run:
    return Run(
        **{"dataset": "digits", "model": "small-vgg", "method": "snip", "recipe": RECIPE, "sparsity": "0.9", **values}
    )


class Stop(Exception):
    """Stands in for a kill between two epochs."""


@pytest.mark.parametrize(
    "values",
    [
        {"space": "ip", "basis": Basis(init="orthonormal", sharing="network")},
        {"space": "sp", "off": "frozen", "method": "synflow", "options": {"rounds": 5}},
    ],
)
@pytest.mark.usefixtures("every_epoch")
def test_interrupted_equals_uninterrupted_bit_for_bit(tmp_path, values):
    run = tiny_run(**values)
    whole = execute(run, tmp_path / "whole", HERE)

    def stop_after(epochs: int):
        def on_epoch(epoch: int, _: int) -> None:
            if epoch == epochs:
                raise Stop

        return on_epoch

    for epochs in (1, 2):
        with pytest.raises(Stop):
            execute(run, tmp_path / "cut", HERE, on_epoch=stop_after(epochs))
        assert state_path(tmp_path / "cut", run).exists()
    seen: list[int] = []
    cut = execute(run, tmp_path / "cut", HERE, on_epoch=lambda epoch, _: seen.append(epoch))
    assert seen == [2, 3]  # where it stood, and the one epoch that was missing
    assert cut["outcome"] == whole["outcome"]
    assert cut["outcome_sha256"] == whole["outcome_sha256"]
    assert not state_path(tmp_path / "cut", run).exists()


def test_a_finished_run_is_read_not_repeated(tmp_path):
    run = tiny_run()
    first = execute(run, tmp_path, HERE)
    state = state_path(tmp_path, run)
    state.write_bytes(b"of a process killed between its record and the removal of its state")
    again = execute(run, tmp_path, HERE, on_epoch=lambda *_: pytest.fail("trained again"))
    assert again == json.loads(json.dumps(first))
    assert not state.exists()


def test_a_record_of_older_numerics_is_repeated(tmp_path):
    run = tiny_run(recipe=RECIPE.model_copy(update={"epochs": 1, "warmup": 0.0}))
    record = execute(run, tmp_path, HERE)
    path = record_path(tmp_path, run)
    other = {"outcome": {}, "outcome_sha256": hashlib.sha256(b"{}").hexdigest()}
    old = {**record, "provenance": {**record["provenance"], "numerics": NUMERICS - 1}, **other}
    write_json(path, old)
    assert execute(run, tmp_path, HERE)["outcome"] == record["outcome"]


def test_altered_files_are_refused_by_name(tmp_path):
    run = tiny_run(recipe=RECIPE.model_copy(update={"epochs": 1, "warmup": 0.0}))
    execute(run, tmp_path, HERE)
    path = record_path(tmp_path, run)
    path.write_text(path.read_text().replace('"done"', '"gone"'))
    with pytest.raises(BadProduct, match=f"{path}: checksum does not match"):
        execute(run, tmp_path, HERE)
    path.unlink()
    state = state_path(tmp_path, run)
    state.parent.mkdir(parents=True, exist_ok=True)
    state.write_bytes(b"\x00" * 100)
    with pytest.raises(BadProduct, match=str(state)):
        execute(run, tmp_path, HERE)


def test_record_describes_the_run(tmp_path):
    record = execute(tiny_run(space="ip", sparsity="0.95"), tmp_path, HERE)
    outcome = record["outcome"]
    assert record["status"] == "done" and record["run"]["sparsity"] == "0.95"
    assert outcome["coefficients_kept"] == sum(layer["kept"] for layer in outcome["layers"])
    assert outcome["basis_entries"] == 6 * 81
    total = outcome["coefficients_kept"] + outcome["basis_entries"]
    assert total <= 0.05 * outcome["prunable"] < total + 1
    assert outcome["achieved_sparsity"] == pytest.approx(1 - total / outcome["prunable"])
    others = outcome["parameters_dense"] - outcome["prunable"]
    assert outcome["parameters"] == total + others
    assert all(len(values) == RECIPE.epochs for values in outcome["curves"].values())
    assert len(outcome["basis_drift"]) == 6 and all(value > 0 for value in outcome["basis_drift"].values())
    assert outcome["spatial_zeros_end"] < outcome["spatial_zeros_start"]  # interspace filters become spatially dense
    assert 1 <= outcome["selected_epoch"] <= RECIPE.epochs
    assert record["provenance"]["mode"] == "strict" and record["provenance"]["threads"] == 1
    assert read_json(record_path(tmp_path, tiny_run(space="ip", sparsity="0.95"))) == json.loads(json.dumps(record))


def test_an_impossible_cell_says_why(tmp_path):
    record = execute(tiny_run(space="ip", sparsity="0.999"), tmp_path, HERE)
    assert record["status"] == "impossible" and "filter bases alone (486 entries)" in record["reason"]
    assert record["outcome"] == {}


@pytest.mark.parametrize("space", ["sp", "ip"])
def test_bf16_is_autocast_on_every_device(tmp_path, space):
    """The layers' products are in bf16, what is trained stays in float32, and a run repeats to the bit."""
    # Some processors take seconds for an image.
    short = RECIPE.model_copy(update={"epochs": 1, "warmup": 0.0, "train_examples": 200})
    run = tiny_run(space=space, recipe=short.model_copy(update={"precision": "bf16"}))
    rounded = execute(run, tmp_path / "bf16", HERE)["outcome"]
    assert rounded == execute(run, tmp_path / "again", HERE)["outcome"]
    full = execute(tiny_run(space=space, recipe=short), tmp_path / "float32", HERE)["outcome"]
    assert rounded["weights_sha256"] != full["weights_sha256"]
    assert rounded["masks_sha256"] == full["masks_sha256"]  # scores are formed before, in float32
    assert rounded["test_accuracy"] == pytest.approx(full["test_accuracy"], abs=0.1)


def test_divergence_is_a_status(tmp_path):
    recipe = RECIPE.model_copy(
        update={"lr": 1000.0, "momentum": 0.99, "warmup": 0.0, "epochs": 6, "schedule": "constant"}
    )
    record = execute(tiny_run(recipe=recipe, model="lenet-300-100", method="random", sparsity="0"), tmp_path, HERE)
    assert record["status"] == "diverged" and "not finite" in record["reason"]
    assert record["outcome"]["coefficients_kept"] > 0


def test_dense_is_the_unpruned_net(tmp_path):
    record = execute(tiny_run(method="dense", sparsity="0"), tmp_path, HERE)
    assert record["outcome"]["achieved_sparsity"] == 0 and not record["outcome"]["collapsed_layers"]


def test_the_selected_epoch_is_the_first_of_the_best(tmp_path):
    outcome = execute(tiny_run(), tmp_path, HERE)["outcome"]
    accuracies = outcome["curves"]["validation_accuracy"]
    assert outcome["selected_epoch"] == accuracies.index(max(accuracies)) + 1


#: The methods of the golden test and their options, fit for nine steps.
GOLDEN_METHODS: dict[str, dict[str, Any]] = {
    "dense": {}, "random": {}, "magnitude": {}, "snip": {}, "grasp": {}, "synflow": {},
    "ft": {"epochs": 2}, "lt": {"rate": 0.7, "rewind": 1.0},
    "gmp": {"every": 2}, "rigl": {"every": 2}, "set": {"every": 2},
}  # fmt: skip


@pytest.fixture(scope="module")
def golden_results(tmp_path_factory) -> Path:
    """One folder for all golden runs: those that continue the dense one share it."""
    return tmp_path_factory.mktemp("golden")


@pytest.mark.parametrize("space", ["sp", "ip"])
@pytest.mark.parametrize("method", GOLDEN_METHODS)
def test_golden_metrics(golden_results, method, space, request):
    """A refactor leaves these as they are; a change of numbers needs a new NUMERICS and `pytest --write-golden`.

    Counts must agree exactly. Losses are compared with a tolerance: processors round differently, and three epochs
    carry that on.
    """
    sparsity = "0" if method == "dense" else "0.9"
    run = tiny_run(sparsity=sparsity, method=method, space=space, options=GOLDEN_METHODS[method])
    keep = method == "dense"  # for those that continue it
    outcome = execute(run, golden_results, HERE, keep=keep)["outcome"]
    found = {
        "masks_sha256": outcome["masks_sha256"],
        "coefficients_kept": outcome["coefficients_kept"],
        "first_epoch_loss": outcome["curves"]["train_loss"][0],
        "test_loss": outcome["test_loss"],
    }
    label = f"{method}-{space}"
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if request.config.getoption("--write-golden"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps({**golden, "numerics": NUMERICS, label: found}, indent=1, sort_keys=True) + "\n")
        return
    expected = golden[label]
    assert golden["numerics"] == NUMERICS
    assert found["coefficients_kept"] == expected["coefficients_kept"]
    if method in ("dense", "random", "magnitude"):  # the others rank by sums that processors may round differently
        assert found["masks_sha256"] == expected["masks_sha256"]
    assert found["first_epoch_loss"] == pytest.approx(expected["first_epoch_loss"], rel=0.02)
    assert found["test_loss"] == pytest.approx(expected["test_loss"], rel=0.1)


def test_gradual_pruning_selects_among_epochs_at_the_final_sparsity(tmp_path):
    """A net that is still above its budget would win every time."""
    options = {"every": 1, "until": 0.7}  # of 9 steps the last that prunes is the seventh: in the third epoch
    outcome = execute(tiny_run(method="gmp", sparsity="0.97", options=options), tmp_path, HERE)["outcome"]
    assert outcome["selected_epoch"] == 3
    early = execute(tiny_run(method="gmp", sparsity="0.97", options={"every": 1, "until": 0.3}), tmp_path, HERE)[
        "outcome"
    ]
    accuracies = early["curves"]["validation_accuracy"]
    assert early["selected_epoch"] == accuracies.index(max(accuracies)) + 1


def test_sp_and_ip_see_the_same_images(tmp_path):
    """Pairing: the first batch's loss is the same in both spaces when nothing is pruned (the net starts the same)."""
    one = RECIPE.model_copy(update={"epochs": 1, "lr": 1e-30, "warmup": 0.0, "weight_decay": 0.0})
    losses = [
        execute(tiny_run(method="dense", sparsity="0", recipe=one, space=space), tmp_path, HERE)["outcome"]["curves"]
        for space in ("sp", "ip")
    ]
    assert losses[0]["train_loss"] == losses[1]["train_loss"]
    assert torch.isfinite(torch.tensor(losses[0]["train_loss"])).all()


@pytest.mark.parametrize("space", ["sp", "ip"])
def test_fast_is_the_same_net_in_another_memory_format(tmp_path, space):
    """Channels-last on a CPU: sums in another order, and so other bits, but nearly the same numbers."""
    fast = execute(tiny_run(mode="fast", space=space), tmp_path / "fast", HERE)["outcome"]
    strict = execute(tiny_run(space=space), tmp_path / "strict", HERE)["outcome"]
    kept = [[layer["kept"] for layer in outcome["layers"]] for outcome in (fast, strict)]
    assert kept[0] == pytest.approx(kept[1], abs=3)  # scores that are nearly equal may change places
    assert fast["curves"]["train_loss"] == pytest.approx(strict["curves"]["train_loss"], rel=1e-2)
    data = Data("digits", RECIPE, 0, root=HERE.root, channels_last=True)
    net = build_net(tiny_run(mode="fast", space=space), data, HERE)
    assert data.score_batch().images.is_contiguous(memory_format=torch.channels_last)
    filters = [c for c in net.coefficients.values() if c.ndim == 4]
    # Coefficients of a filter basis are the rows of a matrix: in the other format they would be copied in every pass.
    memory = torch.channels_last if space == "sp" else torch.contiguous_format
    assert filters and all(c.is_contiguous(memory_format=memory) for c in filters)
    assert channels_last("fast", HERE) and not channels_last("strict", HERE)
