"""Updaters in several processes: they decide together, fail together, and are resumed bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ipbench.store import read_json
from tests.several import Several, several

METHOD_FILE = Path(__file__).with_name("own_updaters.py")


@pytest.fixture(scope="module")
def processes() -> Iterator[Several]:
    with several() as found:
        yield found


BRIGHT = '''
import torch

from ipbench.methods import Train, Updater, method


class Bright(Updater):
    """Prunes by the sum over all images that it has seen: the first layer by pixels."""

    masks = "pruned"

    def __init__(self, net, steps):
        self.steps, self.seen = steps, torch.zeros(64, dtype=torch.float64)

    def after_backward(self, net, batch, step):
        summed = net.summed({"seen": batch.images.double().sum(0).flatten()})
        self.seen += (summed["seen"] * 8).round()
        if step == self.steps.total - 4:
            first, *rest = net.names
            scores = {name: net.uniform(name) for name in rest}
            scores[first] = self.seen.abs().expand(net.shapes[first]).contiguous()
            net.prune(net.select({name: scores[name] for name in net.names}, net.budget))
        return True

    def tensors(self):
        return {"seen": self.seen}

    def load(self, tensors):
        self.seen = tensors["seen"]


@method(family="during training", paper="Nobody, 2026")
def bright():
    return [Train(Bright.spec())]
'''


FAILS = '''
import torch

from ipbench.errors import BadInput
from ipbench.machine.distributed import rank
from ipbench.methods import Prune, Train, Updater, method
from ipbench.methods.random import random
from ipbench.sparse.selection import Impossible, NotFinite


class Fails(Updater):
    """Fails in one of two processes, at one place."""

    masks = "pruned"

    def __init__(self, net, steps, *, place):
        self.place = place

    def penalty(self, net):
        if self.place == "penalty" and rank() == 1:
            raise NotFinite("no penalty")
        return None

    def after_backward(self, net, batch, step):
        if self.place == "before" and rank() == 0 and step == 2:
            raise Impossible("no sum")
        net.summed({"a": torch.ones(2)})
        net.prune(net.masks)
        return True

    def after_epoch(self, net, epoch):
        net.prune(net.masks)
        if self.place == "after" and rank() == 1:
            raise BadInput("no epoch")


@method(family="during training", paper="Nobody, 2026")
def fails(*, place: str = "penalty"):
    return [Prune(random, "random"), Train(Fails.spec(place=place))]
'''


def words_of(file: Path, method: str) -> list[str]:
    return [
        "run", "--device", "cpu", "--model", "lenet-300-100", "--out", "out", "--recipe", "epochs=2", "--recipe",
        "train_examples=120", "--recipe", "batch_size=6", "--recipe", "warmup=0", "--sparsity", "0.9", "--method-file",
        str(file), "--method", method,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("place", "status", "reason"),
    [("penalty", "diverged", "no penalty"), ("before", "impossible", "no sum"), ("after", "", "no epoch")],
)
def test_what_fails_in_one_process_fails_in_both(processes, tmp_path, place, status, reason):
    """Before a sum that the other one waits in, and at the end of a hook: none waits for ever."""
    (tmp_path / "own.py").write_text(FAILS)
    words = [*words_of(tmp_path / "own.py", "fails"), "--option", f"place={place}"]
    ended = processes.run(2, words, tmp_path, seconds=60)
    found = [read_json(path) for path in (tmp_path / "out").rglob("*.json")]
    if status:
        assert ended.codes == [0, 0], ended.lines
        assert [(record["status"], record["reason"]) for record in found] == [(status, reason)]
    else:
        assert ended.codes == [2, 2] and ended.lines == [f"ipbench: {reason}"] and not found


def test_two_processes_end_a_training_together(processes, tmp_path):
    """The updater is done in the first epoch of two; stopped in it, both go on bit for bit."""
    words = words_of(METHOD_FILE, "growing")
    stop = [0, "ipbench.training.loop:_asked_to_stop", ["stop"], 9]
    outcomes = []
    for world, faults in ((2, []), (2, [stop])):
        folder = tmp_path / str(len(faults))
        codes = processes.run(world, words, folder, *faults).codes
        if faults:
            assert codes == [75, 75]
            codes = processes.run(world, words, folder).codes
        assert codes == [0, 0]
        (path,) = (folder / "out/runs").rglob("*.json")
        outcomes.append(read_json(path)["outcome"])
    assert outcomes[0] == outcomes[1]
    assert outcomes[0]["training_flops"] == 6 * outcomes[0]["macs_dense"] * 6 * (18 + 18)


def test_two_processes_take_a_net_back_together(processes, tmp_path):
    """They see one accuracy; stopped after it was pruned too far, both go on bit for bit."""
    words = [word.replace("epochs=2", "epochs=3") for word in words_of(METHOD_FILE, "taking")]
    stop = [0, "ipbench.training.loop:_asked_to_stop", ["stop"], 42]
    outcomes = []
    for faults in ([], [stop]):
        folder = tmp_path / str(len(faults))
        ended = processes.run(2, words, folder, *faults)
        if faults:
            assert ended.codes == [75, 75], ended.lines
            ended = processes.run(2, words, folder)
        assert ended.codes == [0, 0], ended.lines
        (path,) = (folder / "out/runs").rglob("*.json")
        outcomes.append(read_json(path)["outcome"])
    assert outcomes[0] == outcomes[1] and set(outcomes[0]["notes"]) == {"epoch 0", "epoch 1", "epoch 2", "seen"}


def test_two_processes_decide_by_all_images(processes, tmp_path):
    """The masks are those of one process; stopped in an epoch, the two go on bit for bit."""
    (tmp_path / "own.py").write_text(BRIGHT)
    words = words_of(tmp_path / "own.py", "bright")
    stop = [1, "ipbench.training.loop:_asked_to_stop", ["stop"], 16]
    outcomes = {}
    for name, world, faults in (("one", 1, []), ("two", 2, []), ("cut", 2, [stop])):
        ended = processes.run(world, words, tmp_path / name, *faults)
        if faults:
            assert set(ended.codes) == {75}, ended.lines
            ended = processes.run(world, words, tmp_path / name)
        assert ended.codes == [0] * world, ended.lines
        (path,) = (tmp_path / name / "out/runs").rglob("*.json")
        outcomes[name] = read_json(path)["outcome"]
    assert outcomes["one"]["masks_sha256"] == outcomes["two"]["masks_sha256"]
    assert outcomes["cut"] == outcomes["two"]
