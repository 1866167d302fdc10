from pathlib import Path

import numpy as np
import pytest
import torch

from ipbench import keys
from ipbench.data import beton, sources
from ipbench.data.augment import apply, draw
from ipbench.data.catalog import dataset
from ipbench.data.loaders import EVALUATION_BATCH, Data, normalise
from ipbench.data.splits import keyed_order, split
from ipbench.errors import BadInput
from ipbench.spec import Augmentation, Recipe

from .conftest import one_line, write_cifar10

RECIPE = Recipe(batch_size=64, validation=0.2, augmentation=Augmentation(flip=True, translate=2, cutout=3))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return Data("digits", RECIPE, 0, root=tmp_path_factory.mktemp("data"))


def digits(split_name="train"):
    return sources.load("digits", split_name, Path("anywhere"))


def standardised(images, name="digits"):
    """(n, height, width, channels) bytes to what a net sees, in float64."""
    facts = dataset(name)
    return ((images / 255 - np.array(facts.mean)) / np.array(facts.std)).transpose(0, 3, 1, 2)


def test_facts(data):
    assert data.shape == (1, 8, 8) and data.classes == 10
    assert len(data.train_indices) == 1200 and len(data.validation_indices) == 300
    assert data.steps_per_epoch == 18  # 1200 = 18 * 64 + 48


def test_an_epoch_from_its_parts(data):
    """Order, labels, augmentation and normalisation of epoch 3, put together by hand."""
    source = digits()
    train, _ = split(1500, 0, 0.2, None)
    order = keyed_order(train, keys.key(0, "order", 3))[: 18 * 64]
    drawn = draw(order, 0, 3, RECIPE.augmentation, 8, 8)
    pixels = apply(torch.from_numpy(source.images[order]), torch.from_numpy(drawn), RECIPE.augmentation).numpy()
    batches = list(data.train(3))
    assert [len(batch.labels) for batch in batches] == [64] * 18
    assert torch.cat([batch.labels for batch in batches]).tolist() == source.labels[order].tolist()
    images = torch.cat([batch.images for batch in batches])
    assert images.dtype == torch.float32 and images.shape == (18 * 64, 1, 8, 8)
    assert np.abs(images.numpy() - standardised(pixels)).max() < 1e-6


def test_an_epoch_needs_no_other(data):
    again = Data("digits", RECIPE, 0, root=Path("elsewhere"))
    for mine, other in zip(data.train(5), again.train(5), strict=True):
        assert torch.equal(mine.images, other.images) and torch.equal(mine.labels, other.labels)


def test_epochs_and_seeds_differ(data):
    first = next(data.train(0)).images
    assert not torch.equal(first, next(data.train(1)).images)
    assert not torch.equal(first, next(Data("digits", RECIPE, 1, root=Path("x")).train(0)).images)


def test_what_decides_the_training_and_what_does_not(data):
    """Two runs that share data set, recipe and seed are paired; the learning rate changes no image."""
    other = Data("digits", RECIPE.model_copy(update={"lr": 0.5, "epochs": 3}), 0, root=Path("x"))
    assert torch.equal(next(data.train(2)).images, next(other.train(2)).images)


@pytest.mark.parametrize("part", ["train_plain", "validation", "test"])
def test_plain_parts(data, part):
    source = digits("test" if part == "test" else "train")
    chosen = {
        "train_plain": data.train_indices,
        "validation": data.validation_indices,
        "test": np.arange(297),
    }[part]
    batches = list(getattr(data, part)())
    assert all(len(batch.labels) == EVALUATION_BATCH for batch in batches[:-1])
    assert torch.cat([batch.labels for batch in batches]).tolist() == source.labels[chosen].tolist()
    images = torch.cat([batch.images for batch in batches]).numpy()
    assert np.abs(images - standardised(source.images[chosen])).max() < 1e-6


def test_no_validation_part(tmp_path):
    data = Data("digits", RECIPE.model_copy(update={"validation": 0.0}), 0, root=tmp_path)
    assert list(data.validation()) == []
    assert len(data.train_indices) == 1500


def test_a_subset_of_the_training_images(tmp_path):
    recipe = RECIPE.model_copy(update={"train_examples": 100})
    data = Data("digits", recipe, 0, root=tmp_path)
    assert len(data.train_indices) == 80 and len(data.validation_indices) == 20
    assert data.steps_per_epoch == 1 and len(list(data.train(0))) == 1


def test_three_channels(tmp_path, resize):
    """Each channel has its own mean and standard deviation."""
    resize("cifar10", 20, 3)
    images, labels = write_cifar10(tmp_path / "cifar-10-batches-bin", 4, 3)
    recipe = Recipe(batch_size=8, validation=0)
    for channels_last in (False, True):
        data = Data("cifar10", recipe, 0, root=tmp_path, channels_last=channels_last)
        (batch,) = data.train_plain()
        assert np.abs(batch.images.numpy() - standardised(images, "cifar10")).max() < 1e-6
        assert batch.labels.tolist() == labels.tolist()
        layout = torch.channels_last if channels_last else torch.contiguous_format
        assert batch.images.is_contiguous(memory_format=layout)


def test_the_memory_format_changes_no_bit(tmp_path, resize):
    resize("cifar10", 20, 3)
    write_cifar10(tmp_path / "cifar-10-batches-bin", 4, 3)
    recipe = Recipe(batch_size=8, validation=0, augmentation=Augmentation(flip=True, translate=4, cutout=8))
    plain, last = (Data("cifar10", recipe, 0, root=tmp_path, channels_last=value) for value in (False, True))
    for one, other in zip(plain.train(1), last.train(1), strict=True):
        assert torch.equal(one.images, other.images)


def test_normalise_by_hand():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 1, 3, 1)
    mean, std = torch.full((1, 1, 1), 255 * 0.2), torch.full((1, 1, 1), 1 / (255 * 0.4))
    assert torch.allclose(normalise(images, (mean, std)), torch.tensor([-0.5, 0, 2.0]).reshape(1, 1, 1, 3))


def test_batches_are_the_readers_own(data):
    """A loop may write into a batch."""
    for batch in data.train_plain():
        batch.images.zero_()
        batch.labels.zero_()
    assert (
        torch.cat([batch.labels for batch in data.train_plain()]).tolist()
        == digits().labels[data.train_indices].tolist()
    )


def identities(batch):
    """The images of a batch as bytes, to look them up."""
    return [image.numpy().tobytes() for image in batch.images]


def test_score_batch(data):
    train = {name for batch in data.train_plain() for name in identities(batch)}
    batch = data.score_batch()
    assert len(batch.labels) == 64 and set(identities(batch)) <= train
    assert torch.equal(batch.images, data.score_batch(64).images)
    assert identities(data.score_batch(10)) == identities(batch)[:10]
    assert len(data.score_batch(1200).labels) == 1200


def test_score_batch_is_keyed_by_the_seed_alone(data):
    other = RECIPE.model_copy(update={"augmentation": Augmentation(), "lr": 0.3})
    same = Data("digits", other, 0, root=Path("x")).score_batch(50)
    assert torch.equal(same.images, data.score_batch(50).images)
    assert not torch.equal(Data("digits", other, 1, root=Path("x")).score_batch(50).images, same.images)


def test_score_batch_per_class(data):
    batch = data.score_batch(per_class=3)
    assert batch.labels.bincount().tolist() == [3] * 10
    small = data.score_batch(per_class=1)
    assert small.labels.bincount().tolist() == [1] * 10
    assert set(identities(small)) < set(identities(batch))


@pytest.mark.parametrize("wanted", [{"size": 1201}, {"size": 0}, {"per_class": 0}, {"per_class": 200}])
def test_score_batch_of_too_many(data, wanted):
    with pytest.raises(BadInput) as error:
        data.score_batch(**wanted)
    one_line(error, "digits", str(next(iter(wanted.values()))))


def test_score_batch_of_two_sizes(data):
    with pytest.raises(BadInput, match="not both"):
        data.score_batch(10, per_class=1)


def test_less_than_one_batch(tmp_path):
    with pytest.raises(BadInput) as error:
        Data("digits", Recipe(batch_size=64, train_examples=70), 0, root=tmp_path)
    one_line(error, "digits", "batch_size is 64", "63 images")


def test_an_image_moved_out_of_sight(tmp_path):
    with pytest.raises(BadInput) as error:
        Data("digits", Recipe(augmentation=Augmentation(translate=8)), 0, root=tmp_path)
    one_line(error, "digits", "translate is 8", "8 x 8")


def test_unknown_loader(tmp_path):
    with pytest.raises(BadInput, match="unknown loader 'torch'; valid: ffcv, memory"):
        Data("digits", RECIPE, 0, root=tmp_path, loader="torch")


def test_missing_images_stop_a_run_before_it_trains(tmp_path, resize):
    resize("cifar10", 20, 3)
    write_cifar10(tmp_path / "cifar-10-batches-bin", 4, 3)
    (tmp_path / "cifar-10-batches-bin" / "test_batch.bin").unlink()
    with pytest.raises(BadInput, match=r"test_batch\.bin"):
        Data("cifar10", Recipe(batch_size=8), 0, root=tmp_path)


def test_ffcv_that_is_not_there_is_no_silent_fallback(tmp_path, monkeypatch):
    monkeypatch.setattr(beton, "available", lambda: "FFCV is not installed")
    with pytest.raises(BadInput) as error:
        Data("digits", RECIPE, 0, root=tmp_path, loader="ffcv")
    one_line(
        error, "FFCV is not installed", "libopencv-dev libturbojpeg0-dev pkg-config", "pip install 'ipbench[ffcv]'"
    )
