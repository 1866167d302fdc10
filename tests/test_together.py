"""Processes that train together never wait for each other for ever: one of them slowed, broken or killed at any place.

A hang is a code of None in these tests: the processes have a time limit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ipbench.data.loaders import Data
from ipbench.errors import BadInput
from ipbench.machine import stopping
from ipbench.runs import trials
from ipbench.runs.building import build_net
from ipbench.runs.environment import Environment
from ipbench.spec import Recipe
from ipbench.store import read_json, read_tensors
from tests.several import Several
from tests.tiny import make_run

WORDS = [
    "run", "--device", "cpu", "--model", "lenet-300-100", "--space", "ip", "--out", "out", "--recipe", "epochs=2",
    "--recipe", "train_examples=60", "--recipe", "batch_size=6", "--recipe", "warmup=0", "--sparsity", "0.9",
]  # fmt: skip
FT = [*WORDS, "--method", "ft", "--keep"]
GMP = [*WORDS, "--method", "gmp", "--option", "every=3"]

#: Every place where a process reads or writes a file, or begins what others begin too.
PLACES = [
    "ipbench.runs.execute:finished",
    "ipbench.runs.building:Data",
    "ipbench.runs.execute:build_net",
    "ipbench.runs.state:State.load",
    "ipbench.runs.state:read_tensors",
    "ipbench.runs.execute:read_end",
    "ipbench.runs.state:State.due",
    "ipbench.runs.state:State.save",
    "ipbench.runs.stages:pruned_masks",
    "ipbench.runs.stages:train",
    "ipbench.training.loop:evaluate",
    "ipbench.runs.execute:describe",
    "ipbench.runs.execute:write_end",
    "ipbench.runs.execute:write_json",
]


def slow(rank: int) -> list[list[Any]]:
    """One process comes late to every place."""
    return [[rank, place, ["sleep", 0.15], 0] for place in PLACES]


def records(folder: Path) -> dict[str, Any]:
    """The record of every run, by its method."""
    found = map(read_json, sorted((folder / "out/runs").rglob("*.json")))
    return {record["run"]["method"]: record for record in found}


@pytest.fixture(scope="module")
def undisturbed(processes: Several, tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """What comes out, by the number of processes."""
    found = {}
    for world in (2, 3):
        folder = tmp_path_factory.mktemp("undisturbed")
        ended = processes.run(world, FT, folder)
        assert ended.codes == [0] * world, ended.lines
        found[world] = records(folder)
    return found


@pytest.mark.parametrize(("world", "late"), [(2, 1), (3, 0)])
def test_one_is_late_everywhere(processes, undisturbed, tmp_path, world, late):
    """A dense run, one that continues it, states after every epoch; stopped, and called again in the end."""
    stop = [world - 1, "ipbench.training.loop:gradient_norm", ["stop"], 2]  # in the second epoch of the first training
    ended = processes.run(world, FT, tmp_path, *slow(late), stop)
    assert ended.codes == [stopping.EXIT_STATUS] * world, ended.lines
    (state,) = (tmp_path / "out/state").rglob("*.safetensors")
    assert len(read_tensors(state)[1]["begun"]["losses"]) == world
    for _ in range(2):  # the second time all is there
        ended = processes.run(world, FT, tmp_path, *slow(late))
        assert ended.codes == [0] * world, ended.lines
    for method, record in records(tmp_path).items():
        whole = undisturbed[world][method]["outcome"]
        if world == 2:  # of three terms the order counts, and torch changes it after the first step
            assert record["outcome"] == whole
        assert record["outcome"]["curves"]["train_loss"] == pytest.approx(whole["curves"]["train_loss"], rel=1e-3)
    assert not list((tmp_path / "out/state").rglob("*.safetensors"))


def test_a_signal_to_one_process_stops_all(processes, tmp_path):
    """torchrun hands signals to all; a scheduler, or a person, may not."""
    ended = processes.run(2, GMP, tmp_path, [1, "ipbench.training.loop:gradient_norm", ["stop"], 1])
    assert ended.codes == [stopping.EXIT_STATUS] * 2
    assert ended.lines == [
        "ipbench: stopped by a signal to another process; what is trained is saved: the same call goes on there"
    ]


NAN = ["raise", "ipbench.sparse.selection.NotFinite", "no number"]
FEW = ["raise", "ipbench.sparse.selection.Impossible", "too few"]
RIGL = [*WORDS, "--method", "rigl", "--option", "every=3"]


@pytest.mark.parametrize(
    ("words", "fault", "status", "reason"),
    [
        (GMP, [1, "ipbench.sparse.scoring:as_scores", NAN, 2], "diverged", "no number"),
        (GMP, [0, "ipbench.sparse.selection:select", FEW, 2], "impossible", "too few"),
        (FT, [1, "ipbench.runs.stages:pruned_masks", NAN, 1], "diverged", "no number"),
        (RIGL, [1, "ipbench.updaters.exchange:as_score", NAN, 1], "diverged", "no number"),
    ],
    ids=["score", "selection", "stage", "growth"],
)
def test_what_only_one_finds_is_the_status_of_all(processes, tmp_path, words, fault, status, reason):
    ended = processes.run(2, words, tmp_path, fault)
    assert ended.codes == [0, 0] and not ended.lines
    found = records(tmp_path)
    method = words[words.index("--method") + 1]
    assert found[method]["status"] == status and reason in found[method]["reason"]


FULL = ["raise", "ipbench.store.NotWritten", "x.json: not written: No space left on device"]
GONE = ["raise", "ipbench.errors.BadInput", "digits: a file is missing"]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ([0, "ipbench.runs.state:write_tensors", FULL, 1], FULL[2]),
        ([0, "ipbench.runs.state:write_tensors", FULL, 3], FULL[2]),  # the end of the dense run
        ([0, "ipbench.runs.execute:write_json", FULL, 1], FULL[2]),
        ([1, "ipbench.runs.building:Data", GONE, 1], GONE[2]),
        ([1, "ipbench.runs.stages:starting_gradient_norm", GONE, 2], GONE[2]),
    ],
    ids=["state", "end", "record", "data", "score"],
)
def test_bad_input_of_one_process_ends_all_with_one_line(processes, tmp_path, fault, message):
    ended = processes.run(2, FT, tmp_path, fault)
    assert ended.codes == [2, 2], ended.lines
    assert ended.lines == [f"ipbench: {message}"]


def test_a_damaged_state_ends_all_with_one_line(processes, tmp_path):
    stop = [0, "ipbench.training.loop:gradient_norm", ["stop"], 1]
    assert processes.run(2, GMP, tmp_path, stop).codes == [stopping.EXIT_STATUS] * 2
    (state,) = (tmp_path / "out/state").rglob("*.safetensors")
    state.write_bytes(b"\x00" * 100)
    ended = processes.run(2, GMP, tmp_path)
    assert ended.codes == [2, 2] and len(ended.lines) == 1 and state.name in ended.lines[0]


def test_a_mistake_in_one_process_is_told_by_that_one(processes, tmp_path):
    ended = processes.run(2, FT, tmp_path, [1, "ipbench.runs.stages:pruned_masks", ["raise", "KeyError", "oops"], 1])
    assert ended.codes[0] == 1 and ended.codes[1] not in (0, None)
    assert not ended.errors[0] and "KeyError: 'oops'" in ended.errors[1]


@pytest.mark.parametrize("world", [2, 3])
def test_a_process_that_dies_is_missed(processes, tmp_path, world):
    """In the middle of a step, where no agreement is near: the others notice, and say so in a line each."""
    ended = processes.run(world, GMP, tmp_path, [1, "ipbench.training.loop:gradient_norm", ["exit", 9], 2])
    assert ended.codes == [2, 9, 2][:world]
    for rank in (0, 2)[: world - 1]:
        (line,) = ended.errors[rank].splitlines()
        assert line.startswith(
            f"ipbench: process {rank}: another process of this training has ended or does not answer"
        )


@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 1)])
def test_resumed_in_mid_epoch_with_another_number_of_processes(processes, undisturbed, tmp_path, before, after):
    """The loss of the epoch is still the mean over its batches."""
    words = [*WORDS, "--method", "dense"]
    words.remove("--sparsity")
    words.remove("0.9")
    stop = [0, "ipbench.training.loop:_asked_to_stop", ["stop"], 16]
    assert processes.run(before, words, tmp_path, stop).codes == [stopping.EXIT_STATUS] * before
    ended = processes.run(after, words, tmp_path)
    assert ended.codes == [0] * after, ended.lines
    whole = processes.run(1, words, tmp_path / "whole")
    assert whole.codes == [0]
    (cut,), (one,) = (
        [*map(read_json, (folder / "out/runs").rglob("*.json"))] for folder in (tmp_path, tmp_path / "whole")
    )
    assert cut["provenance"]["processes"] == f"{before} then {after}"
    assert one["provenance"]["processes"] == 1
    assert cut["outcome"]["curves"]["train_loss"] == pytest.approx(one["outcome"]["curves"]["train_loss"], rel=1e-4)


SLICED = [*WORDS, "--method", "snip", "--pattern", "filters", "--sparsity", "0.5", "--keep"]
SLICE = "ipbench.sparse.net:SparseNet.slice"


def test_all_cut_the_same_channels(processes, tmp_path):
    """One is late to the cut; one is stopped when it trains the small net, and both go on in it."""
    stop = [1, "ipbench.training.loop:gradient_norm", ["stop"], 2]
    for folder, faults in (("whole", []), ("cut", [[1, SLICE, ["sleep", 0.5], 0], stop])):
        ended = processes.run(2, SLICED, tmp_path / folder, *faults)
        assert ended.codes == ([stopping.EXIT_STATUS] * 2 if faults else [0, 0]), ended.lines
    (state,) = (tmp_path / "cut/out/state").rglob("*.safetensors")
    assert read_tensors(state)[1]["structure"]
    assert processes.run(2, SLICED, tmp_path / "cut").codes == [0, 0]
    whole, cut = (records(tmp_path / folder)["snip"] for folder in ("whole", "cut"))
    assert whole["outcome"]["sliced"] and cut["outcome"] == whole["outcome"]
    assert cut["cost"]["latency"]["sliced"]["seconds"] > 0


def test_what_only_one_cannot_cut_ends_all_with_one_line(processes, tmp_path):
    ended = processes.run(2, SLICED, tmp_path, [1, SLICE, GONE, 1])
    assert ended.codes == [2, 2] and ended.lines == [f"ipbench: {GONE[2]}"]
    assert not list((tmp_path / "out").rglob("*.json"))


def test_gradual_scores_are_those_of_the_whole_batch(processes, tmp_path):
    """A score of the images themselves: half of the batch would prune other weights."""
    (tmp_path / "own.py").write_text(
        """
import torch

from ipbench.methods import Gradual, Train, method


def brightness(net, batch):
    sum_of_images = batch.images.double().mean(0).flatten()
    scores = {name: torch.rand_like(c) for name, c in net.coefficients.items()}
    first = next(iter(scores))
    scores[first] = sum_of_images.expand(scores[first].shape[0], -1).float().abs().contiguous()
    return scores


@method(family="during training", paper="none: a method for tests")
def bright():
    return [Train(Gradual(brightness, 3, 0.0, 1.0))]
"""
    )
    words = [*WORDS, "--method-file", str(tmp_path / "own.py"), "--method", "bright"]
    masks = {}
    for world in (1, 2):
        ended = processes.run(world, words, tmp_path / str(world))
        assert ended.codes == [0] * world, ended.lines
        masks[world] = records(tmp_path / str(world))["bright"]["outcome"]["masks_sha256"]
    assert masks[1] == masks[2]


@pytest.mark.parametrize("model", ["small-vgg", "lenet-300-100"])
def test_one_image_per_process_is_refused_where_norms_need_two(tmp_path, model):
    run = make_run(model=model, recipe=Recipe(epochs=1, batch_size=2, train_examples=20))
    data = Data("digits", run.recipe, 0, root=tmp_path, world=2)
    data.shape = (1, 8, 8)
    net = build_net(run, data, Environment())
    if model == "lenet-300-100":
        trials.check_share(net, data)
        return
    net.net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.BatchNorm2d(1), net.net)
    with pytest.raises(
        BadInput, match="one image for each of 2 processes, and batch norm in small-vgg needs two"
    ) as error:
        trials.check_share(net, data)
    assert "it must be 4 or more" in str(error.value) and "\n" not in str(error.value)
