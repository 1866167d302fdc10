"""Detection as a task: the seam between nets, loop and metrics; resumed, on several processes, in both spaces."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ipbench import methods
from ipbench.cli.main import main
from ipbench.data.average_precision import average_precision
from ipbench.errors import BadInput
from ipbench.machine import stopping
from ipbench.methods import cross_entropy
from ipbench.models.detectors import KeyedSampler
from ipbench.planning.experiment import Experiment
from ipbench.runs.outcome import starting_gradient_norm
from ipbench.sparse.net import SparseNet
from ipbench.sparse.view import NetView
from ipbench.spec import Recipe
from ipbench.tasks import task_of
from ipbench.tasks.detection import Detected, Detection, Found
from ipbench.tasks.task import parts
from ipbench.training.loop import Progress, evaluate, train
from tests.scenes import DETECTORS, SHAPE, TinyScenes, batch, truth
from tests.tiny import TinyData, make_run, tiny_conv

ROOT = Path(__file__).parents[1]
RECIPE = Recipe(epochs=2, batch_size=4, lr=0.01, schedule="constant")


def sparse(name: str, **values: object) -> SparseNet:
    run = make_run(dataset="fashion-scenes", model="retinanet-small", method="dense", recipe=RECIPE, **values)
    return SparseNet(DETECTORS[name](), run, SHAPE)


def state(net: SparseNet) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in net.tensors().items()}


def equal(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


# Metrics.


def test_metrics_are_those_of_all_batches_and_images():
    # Two scenes: of the first everything is found, of the second nothing; then a wrong one with the highest score.
    metrics = Detection().metrics(lambda: truth(0, 3))
    (first, second), empty = batch(0, 3).targets, torch.zeros(0, 4)
    right = Found(first.boxes, first.labels, torch.full((len(first.labels),), 0.5))
    nothing = Found(empty, torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    wrong = Found(torch.tensor([[0.0, 0, 1, 1]]), second.labels[:1], torch.tensor([0.9]))
    for number, found, loss in ((0, right, 1.0), (3, nothing, 4.0)):
        metrics.add(Detected({"a": torch.tensor(loss), "b": torch.tensor(1.0)}, (found,)), batch(number))
    measured = metrics.measured(torch.device("cpu"))
    assert measured.loss == 3.5
    rows = [
        {"image_id": 1, "category_id": int(label), "bbox": [*box[:2], box[2] - box[0], box[3] - box[1]], "score": 0.5}
        for box, label in zip(first.boxes.tolist(), first.labels.tolist(), strict=True)
    ]
    wanted = average_precision(truth(0, 3), rows)
    assert measured.primary == wanted["map"] and 0 < measured.primary < 1
    assert measured.others == {name: value for name, value in wanted.items() if name != "map"}
    worse = Detection().metrics(lambda: truth(3))
    worse.add(Detected({"a": torch.tensor(1.0)}, (wrong,)), batch(3))
    assert worse.measured(torch.device("cpu")).primary == 0


def test_no_images_have_no_metrics_and_what_is_no_number_is_a_loss_that_is_none():
    assert all(value != value for value in Detection().metrics(dict).measured(torch.device("cpu"))[:2])
    metrics = Detection().metrics(dict)
    found = Found(torch.full((1, 4), float("nan")), torch.ones(1, dtype=torch.int64), torch.ones(1))
    metrics.add(Detected({"a": torch.tensor(1.0)}, (found,)), batch(0))
    primary, loss, _ = metrics.measured(torch.device("cpu"))
    assert primary == 0 and loss != loss


@pytest.mark.parametrize("name", DETECTORS)
def test_an_evaluation_changes_nothing_and_is_the_same_in_other_batches(name):
    net, data = sparse(name), TinyScenes()
    before = state(net)
    whole = evaluate(net, [batch(*range(12))], RECIPE, lambda: data.truth("test"))
    assert equal(before, state(net)) and torch.isfinite(torch.tensor(whole.loss))
    divided = evaluate(net, data.test(), RECIPE, lambda: data.truth("test"))
    assert divided.primary == pytest.approx(whole.primary, abs=1e-6)
    # RetinaNet's loss is a mean over images; that of Faster R-CNN is one over all samples of a batch.
    assert divided.loss == pytest.approx(whole.loss, rel=1e-5 if name == "retina" else 0.05)


# Training.


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_learns(name):
    net, data = sparse(name), TinyScenes()
    before = evaluate(net, data.test(), RECIPE, lambda: data.truth("test")).loss
    train(net, data, RECIPE, progress := Progress())
    assert progress.curves["train_loss"][1] < progress.curves["train_loss"][0] < 1.2 * before
    assert len(progress.curves["validation_accuracy"]) == 2
    assert all(0 <= value <= 1 for value in progress.curves["validation_accuracy"])


@pytest.mark.parametrize("name", DETECTORS)
def test_a_training_stopped_within_an_epoch_goes_on_bit_for_bit(name, monkeypatch):
    whole, data = sparse(name), TinyScenes()
    train(whole, data, RECIPE, Progress())
    cut, progress, asked = sparse(name), Progress(), iter([False, False, False, False, True])
    monkeypatch.setattr(stopping, "asked", lambda: next(asked, False))
    with pytest.raises(stopping.Stopped):
        train(cut, data, RECIPE, progress)
    assert (progress.epoch, progress.begun.steps) == (1, 1)
    train(cut, data, RECIPE, progress)
    assert equal(state(whole), state(cut))


def test_samples_are_paired_over_spaces_and_masks(monkeypatch):
    seen: list[list[int]] = []
    plain = KeyedSampler.__call__

    def noting(self: KeyedSampler, labels: list[Tensor]) -> object:
        seen.append(self.keys)
        return plain(self, labels)

    monkeypatch.setattr(KeyedSampler, "__call__", noting)
    found = []
    for values in ({}, {"space": "ip"}, {"sparsity": "0.5", "method": "random"}):
        run = make_run(
            **{"dataset": "fashion-scenes", "model": "fasterrcnn-small", "method": "dense", "recipe": RECIPE} | values
        )
        net = SparseNet(DETECTORS["faster"](), run, SHAPE)
        net.prune(
            {name: net.uniform(name) >= 0.5 if values.get("sparsity") else mask for name, mask in net.masks.items()}
        )
        seen.clear()
        for step, scenes in enumerate(TinyScenes().train(0)):
            net.train()(*task_of("fashion-scenes").inputs(scenes, run.seed, step))
        found.append([list(keys) for keys in seen])
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 6 and len({tuple(keys) for keys in found[0]}) == 6


def together(name: str, world: int) -> list[object]:
    """What the first of so many processes prints, which train a tiny detector together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    words = [sys.executable, "-m", "tests.detecting_together", name]
    processes = [
        subprocess.Popen([*words, str(rank), str(world), port], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for rank in range(world)
    ]
    try:
        told = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * world
    assert len(set(told)) == 1  # they agree
    return json.loads(told[0])


@pytest.mark.long
@pytest.mark.parametrize("name", DETECTORS)
def test_two_processes_train_and_measure_what_one_does(name):
    (losses, loss, value, half), (curve, whole, wanted, there) = together(name, 2), together(name, 1)
    assert losses == pytest.approx(curve, rel=1e-4) and there > 0
    # RetinaNet's loss is a mean over images; that of Faster R-CNN is one over all samples of a batch.
    assert loss == pytest.approx(whole, rel=1e-4 if name == "retina" else 1e-2)
    assert value == pytest.approx(wanted, abs=1e-3) and half == pytest.approx(there, abs=1e-3)


def test_the_loss_of_a_view_is_cross_entropy_bit_for_bit():
    net = SparseNet(tiny_conv(), make_run(), (2, 6, 6))
    images = next(iter(TinyData().train(0)))
    view = NetView(net.eval())
    assert view.task == "classification"
    assert torch.equal(view.loss(images), cross_entropy(view(images.images), images.labels))
    (logits,) = view.outputs(images.images)
    assert torch.equal(logits, view(images.images))
    net.double()
    double = images._replace(images=images.images.double())
    assert view.loss(double).dtype == torch.float64
    assert torch.equal(view.loss(double), cross_entropy(view(double.images), double.labels))


@pytest.mark.parametrize("name", DETECTORS)
def test_a_batch_in_parts_keeps_what_belongs_to_an_image(name):
    whole = batch(3, 1, 4, 5, 9)
    divided = list(parts(whole, 2))
    assert [part.indices.tolist() for part in divided] == [[3, 1, 4], [5, 9]]
    assert [len(part.targets) for part in divided] == [len(part.sizes) for part in divided] == [3, 2]
    assert torch.equal(divided[1].targets[0].boxes, whole.targets[3].boxes)
    net = sparse(name)
    norm = starting_gradient_norm(net, TinyScenes())
    assert norm > 0 and starting_gradient_norm(net, TinyScenes()) == norm


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("score", ["snip", "synflow", "magnitude", "random"])
def test_scores_rank_a_detector(name, score):
    net = sparse(name, space="ip")
    stage = methods.get(score).stages({})[0]
    scores = stage.score(net, batch(0, 1, 2, 3), **stage.options)
    assert all(bool(values.isfinite().all()) for values in scores.values())
    assert all(bool((values > 0).any()) for values in scores.values())


def test_grasp_and_classes_of_images_have_no_meaning_for_detection():
    net = sparse("retina")
    stage = methods.get("grasp").stages({})[0]
    with pytest.raises(BadInput, match="divides logits by a temperature, and a net for detection has other outputs"):
        stage.score(net, batch(0, 1), **stage.options)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"methods": "grasp"}, "method grasp: it is for classification, and data set fashion-scenes is of detection"),
        ({"methods": {"name": "snip", "per_class": 2}}, "per_class has no meaning for fashion-scenes"),
        (
            {"models": "small-vgg"},
            "data set fashion-scenes is of detection, and model small-vgg is for classification;",
        ),
        ({"datasets": "digits", "models": "retinanet-small"}, "digits is of classification, and model retinanet-small"),
        ({"recipe": {"label_smoothing": 0.1}}, "label_smoothing has no meaning for detection"),
    ],
)
def test_what_does_not_fit_detection_is_one_line(change, said):
    config = {"datasets": "fashion-scenes", "methods": "snip", "sparsities": "0.5"}
    with pytest.raises(BadInput) as error:
        Experiment.from_config({**config, **change}, "x")
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_model_of_another_task_is_one_line_and_writes_nothing(tmp_path, capsys):
    words = ["--dataset", "digits", "--model", "retinanet-small", "--method", "dense", "--out", str(tmp_path / "out")]
    assert main(["run", *words]) == 2
    told = capsys.readouterr().err.strip()
    assert "model retinanet-small is for detection" in told and "\n" not in told
    assert not (tmp_path / "out").exists()
