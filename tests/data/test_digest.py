"""The digest of a data set's images: of what is there, whatever reads it, and checked where it is known."""

from dataclasses import replace

import numpy as np
import pytest

from ipbench import store
from ipbench.data import beton, beton_writing, catalog, digest, image_folder, sources
from ipbench.errors import BadProduct

from .conftest import one_line, random_images, write_cifar10, write_imagenet
from .test_sources import write_mnist

DIGITS = "0d96c51fa25cf1739f9e6e82c12b004f9af64e5945a6a5a2973455dc100ef1e3"


@pytest.fixture
def needs_ffcv():
    if reason := beton.available():
        pytest.skip(reason)


def mnist(folder, images, labels):
    write_mnist(folder / "MNIST/raw", images[:4], labels[:4])
    write_mnist(folder / "MNIST/raw", images[4:], labels[4:], "t10k")
    return digest.of("mnist", folder)


def test_the_images_that_every_published_number_of_digits_is_about(tmp_path):
    assert digest.of("digits", tmp_path) == DIGITS


def test_any_pixel_and_any_label_count(tmp_path, resize):
    resize("mnist", 4, 2)
    images, labels = random_images(6, 28, 28), np.arange(6)
    same = [mnist(tmp_path / name, images, labels) for name in ("a", "b")]
    assert same[0] == same[1]
    other_pixel, other_label = images.copy(), labels.copy()
    other_pixel[5, 27, 27] ^= 1
    other_label[0] = 7
    changed = {mnist(tmp_path / "c", other_pixel, labels), mnist(tmp_path / "d", images, other_label)}
    assert len(changed | {same[0]}) == 3


def test_other_images_than_the_published_ones_are_refused(tmp_path, monkeypatch):
    """Whole files of the right size whose images are not MNIST's."""
    images, labels = random_images(6, 28, 28), np.arange(6)
    published = {4: "0" * 64}
    monkeypatch.setitem(
        catalog.DATASETS, "mnist", replace(catalog.DATASETS["mnist"], train=4, test=2, published=published)
    )
    with pytest.raises(BadProduct) as error:
        mnist(tmp_path, images, labels)
    one_line(error, str(tmp_path / "MNIST/raw"), "not the published train part of mnist", "0" * 64, "data fetch mnist")
    assert sources.load("mnist", "test", tmp_path).labels.tolist() == [4, 5]


def test_every_part_at_hand_is_known():
    for name in ("digits", "mnist", "fashion-mnist"):
        facts = catalog.DATASETS[name]
        assert set(facts.published) == {facts.train, facts.test}


def test_fashion_mnist_is_the_published_one(tmp_path):
    if not sources.DEBIAN_FASHION_MNIST.is_dir():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    sources.load("fashion-mnist", "test", tmp_path)  # refused, if it were not


def test_a_folder_of_images_is_told_by_names_and_sizes(tmp_path):
    def of(name):
        image_folder.listing.cache_clear()
        image_folder.sha256.cache_clear()
        return digest.of("imagenet", tmp_path / name)

    for name in ("a", "b"):
        write_imagenet(tmp_path / name, 3, 2, 2)
    assert of("a") == (before := of("b"))
    file = tmp_path / "b/imagenet/train/n00000001/train_2.JPEG"
    file.write_bytes(file.read_bytes() + b"\0")
    assert (longer := of("b")) != before
    file.rename(file.with_name("x.JPEG"))
    renamed = of("b")
    (tmp_path / "b/imagenet/val/n00000000/val_0.JPEG").unlink()
    assert len({before, longer, renamed, of("b")}) == 4


@pytest.mark.ffcv
class TestBeton:
    def test_it_carries_the_digest_of_its_images(self, tmp_path, resize, needs_ffcv):
        resize("cifar10", 10, 3)
        write_cifar10(tmp_path / "cifar-10-batches-bin", 2, 3)
        write_imagenet(tmp_path, 2, 1, 2)
        for name in ("cifar10", "imagenet"):
            for split in ("train", "test"):
                beton_writing.write(name, split, tmp_path)
            assert digest.of(name, tmp_path, "ffcv") == digest.of(name, tmp_path)

    def test_one_of_other_images_is_refused(self, tmp_path, resize, needs_ffcv):
        resize("cifar10", 10, 3)
        write_cifar10(tmp_path / "old/cifar-10-batches-bin", 2, 3)
        path = beton_writing.write("cifar10", "test", tmp_path / "old")
        beton.check("cifar10", "test", path, tmp_path / "old")
        beton.check("cifar10", "test", path, tmp_path / "no images here")
        new = tmp_path / "new/cifar-10-batches-bin"
        write_cifar10(new, 2, 3)
        new.joinpath("test_batch.bin").write_bytes(bytes(3 * 3073))
        with pytest.raises(BadProduct) as error:
            beton.check("cifar10", "test", path, tmp_path / "new")
        one_line(error, str(path), "made from other images", "`ipbench data beton cifar10`")

    def test_one_that_does_not_say_is_refused(self, tmp_path, needs_ffcv):
        path = beton_writing.write("digits", "test", tmp_path)
        product = store.read_json(path.with_suffix(".json"))
        del product["images_sha256"]
        store.write_json(path.with_suffix(".json"), product)
        with pytest.raises(BadProduct, match="does not say which images"):
            beton.check("digits", "test", path)
