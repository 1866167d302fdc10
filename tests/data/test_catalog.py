import subprocess
import sys

import numpy as np
import pytest

from ipbench.data import catalog, sources
from ipbench.errors import BadInput
from ipbench.spec import Augmentation, Recipe


def test_the_catalogue_imports_no_torch():
    code = "import sys, ipbench.data.catalog; assert 'torch' not in sys.modules and 'torchvision' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_names_and_default_models():
    assert {name: data.model for name, data in catalog.DATASETS.items()} == {
        "digits": "small-vgg",
        "fashion-mnist": "small-vgg",
        "mnist": "lenet5-caffe",
        "cifar10": "vgg16",
        "cifar100": "vgg16",
        "tiny-imagenet": "resnet18-cifar",
        "imagenet": "resnet50",
        "fashion-scenes": "retinanet-small",
        "coco": "retinanet_resnet50_fpn",
    }
    assert all(catalog.dataset(name).name == name for name in catalog.DATASETS)


@pytest.mark.parametrize("data", catalog.DATASETS.values(), ids=str)
def test_facts_fit_each_other(data):
    assert len(data.mean) == len(data.std) == data.shape[0]
    assert data.recipe.augmentation.translate < min(data.shape[1:])
    assert data.train is None or data.recipe.batch_size < data.train
    # What the folder decides is all that varies in size.
    assert (data.train is None) == (data.test is None) == (data.shorter_side is not None)
    if data.longer_side is not None:  # images are not cropped
        assert data.task == catalog.DETECTION and data.shorter_side <= data.longer_side
        assert min(data.shape[1:]) >= data.shorter_side and max(data.shape[1:]) >= data.longer_side
        assert not any(side % data.multiple for side in data.shape[1:])
    elif data.shorter_side is not None:
        assert data.shorter_side >= max(data.shape[1:])
    assert data.recipe.augmentation.random_resized_crop <= (data.shorter_side is not None)
    catalog.check_recipe(data, data.recipe)
    assert "\n" not in data.source


def test_unknown_name():
    with pytest.raises(BadInput) as error:
        catalog.dataset("cifar-10", "config/x.yaml: dataset")
    assert str(error.value) == (
        "unknown data set 'cifar-10' in config/x.yaml: dataset (did you mean 'cifar10'?);"
        " valid: cifar10, cifar100, coco, digits, fashion-mnist, fashion-scenes, imagenet, mnist, tiny-imagenet"
    )


@pytest.mark.parametrize("name", ["digits", "fashion-mnist"])
def test_statistics_are_those_of_the_training_images(name, tmp_path):
    if name == "fashion-mnist" and not sources.DEBIAN_FASHION_MNIST.is_dir():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    pixels = sources.load(name, "train", tmp_path).images / np.float32(255)
    assert pixels.mean() == pytest.approx(catalog.dataset(name).mean[0], abs=5e-5)
    assert pixels.std() == pytest.approx(catalog.dataset(name).std[0], abs=5e-5)


def test_what_has_no_boxes_reads_no_boxes():
    for name, facts in catalog.DATASETS.items():
        catalog.check_loader(facts, "memory")
        if facts.task == catalog.DETECTION:
            with pytest.raises(BadInput) as error:
                catalog.check_loader(facts, "ffcv", "--loader")
            assert str(error.value) == f"--loader: loader ffcv reads no boxes, which {name} has; use the loader memory"
        else:
            catalog.check_loader(facts, "ffcv")


def test_augmentation_that_moves_no_boxes():
    for changes in ({"translate": 2}, {"cutout": 3}, {"random_resized_crop": True}):
        recipe = Recipe(batch_size=2, augmentation=Augmentation(flip=True, **changes))
        with pytest.raises(BadInput, match=f"x: coco: augmentation.{next(iter(changes))} does not move boxes"):
            catalog.check_recipe(catalog.dataset("coco"), recipe, "x")
