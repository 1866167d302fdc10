"""Which runs have other numbers than before, under the same identity."""

from __future__ import annotations

import pytest

import ipbench
from ipbench.data.catalog import dataset
from ipbench.planning.experiment import Experiment
from ipbench.planning.numerics import PASS_PIXELS, numerics
from ipbench.spec import Run
from tests.analysis.test_comparisons import REFERENCE


def run(data="fashion-mnist", model="small-vgg", method="snip", **values):
    return Run(dataset=data, model=model, method=method, recipe=dataset(data).recipe, **values)


@pytest.mark.parametrize(
    ("changed", "raised"),
    [
        (run(), 0),
        (run(method="cops"), 1),
        (run(method="cops", model="lenet-300-100"), 0),
        (run(method="cops", model="lenet-300-100", options={"controls": "synflow,grasp"}), 1),
        (run(data="cifar10", model="vgg16_bn", options={"rounds": 3}), 1),
        (run(options={"rounds": 3}), 0),
        (run(data="cifar10", model="vit_b_16"), 1),
        (run(data="cifar10", method="grasp"), 0),
        (run(data="cifar100", method="grasp"), 1),  # 1,000 images
        (run(data="cifar10", method="snip", options={"per_class": 30}), 1),
        (run(data="tiny-imagenet", method="grasp"), 1),
        (run(data="imagenet", model="resnet50", method="random"), 1),  # the norm of the first gradient
        (run(data="imagenet", model="vit_b_16", method="snip"), 2),
        (run(data="cifar100", model="vgg19"), 1),
        (run(data="imagenet", model="resnet50", method="of_a_user"), 0),  # whose code is told by a digest
    ],
)
def test_a_change_touches_its_runs_alone(changed, raised):
    assert numerics(changed) == ipbench.NUMERICS + raised


def test_passes_are_those_of_the_scores():
    """As many images as a pass holds are one pass, one more are two."""
    torch = pytest.importorskip("torch")
    from ipbench.data.loaders import Batch
    from ipbench.tasks.task import passes

    most = PASS_PIXELS // 1024
    for count, expected in ((most, 1), (most + 1, 2)):
        assert passes(Batch(torch.empty(count, 3, 32, 32, device="meta"), torch.empty(count))) == expected


def test_published_runs_keep_their_numbers():
    for folder in sorted(path for path in REFERENCE.iterdir() if path.is_dir()):
        config = REFERENCE.parent.parent / "config" / f"{folder.name}.yaml"
        assert {numerics(cell) for cell in Experiment.load(config).cells.values()} == {1}, folder.name
