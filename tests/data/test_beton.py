import gc
import hashlib
import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from ipbench.data import beton, beton_writing, sources
from ipbench.data.augment import Keyed
from ipbench.data.loaders import Data
from ipbench.errors import BadInput, BadProduct
from ipbench.spec import Augmentation, Recipe

from .conftest import one_line, write_cifar10

RECIPE = Recipe(batch_size=64, augmentation=Augmentation(flip=True, translate=2, cutout=3))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data folder with the .beton files of digits."""
    reason = beton.available()
    if reason is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("data")
    for split in ("train", "test"):
        assert beton_writing.write("digits", split, folder) == folder / "beton" / f"digits-{split}.beton"
    return folder


@pytest.fixture
def copy(root, tmp_path):
    """The .beton file of the test images and its checksum, to be damaged."""
    path = tmp_path / "beton" / "digits-test.beton"
    path.parent.mkdir()
    for suffix in (".beton", ".json"):
        path.with_suffix(suffix).write_bytes(beton.beton_path("digits", "test", root).with_suffix(suffix).read_bytes())
    return path


def open_data(root, workers=1, recipe=RECIPE, seed=0, **kinds):
    return Data("digits", recipe, seed, root=root, loader="ffcv", workers=workers, **kinds)


def same(one, other):
    pairs = list(zip(one, other, strict=True))
    assert pairs
    return all(torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) for a, b in pairs)


def epochs_alive():
    return [thread for thread in threading.enumerate() if type(thread).__name__ == "Epoch"]


# Without FFCV ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def fresh_available():
    beton.available.cache_clear()
    yield
    beton.available.cache_clear()


def test_ffcv_is_not_installed(monkeypatch, fresh_available):
    monkeypatch.setattr(beton, "find_spec", lambda name: None)
    assert beton.available() == "FFCV is not installed"
    with pytest.raises(BadInput) as error:
        beton.require()
    one_line(error, "apt-get install libopencv-dev libturbojpeg0-dev pkg-config", "pip install 'ipbench[ffcv]'")


def test_ffcv_is_broken(monkeypatch, fresh_available):
    monkeypatch.setattr(beton, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "ffcv", None)  # makes its import fail
    assert "FFCV cannot be imported (ModuleNotFoundError" in beton.available()


def test_a_missing_file(tmp_path):
    with pytest.raises(BadInput) as error:
        beton.check("digits", "train", tmp_path / "beton" / "digits-train.beton")
    assert not isinstance(error.value, BadProduct)
    one_line(error, str(tmp_path / "beton" / "digits-train.beton"), "`ipbench data beton digits`")


# With FFCV ------------------------------------------------------------------------------------------------------------


@pytest.mark.ffcv
class TestFiles:
    def test_the_same_images_give_the_same_bytes(self, root, tmp_path):
        first = beton.beton_path("digits", "test", root)
        second = beton_writing.write("digits", "test", root, tmp_path / "again.beton")
        assert first.read_bytes() == second.read_bytes()
        assert first.with_suffix(".json").read_text() == second.with_suffix(".json").read_text()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["again.beton", "again.json"]

    def test_a_write_that_fails_leaves_nothing(self, root, tmp_path, monkeypatch):
        def fail(*_args):
            raise OSError("no space left on device")

        monkeypatch.setattr("ffcv.memory_allocator.MemoryAllocator.flush_page", fail)
        with pytest.raises(OSError, match="no space"):
            beton_writing.write("digits", "test", root, tmp_path / "x.beton")
        assert list(tmp_path.iterdir()) == []

    def test_a_whole_file(self, copy):
        beton.check("digits", "test", copy)

    @pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"", lambda data: data[:-1] + b"\x07"])
    def test_a_damaged_file(self, copy, damage):
        copy.write_bytes(damage(copy.read_bytes()))
        with pytest.raises(BadProduct) as error:
            beton.check("digits", "test", copy)
        one_line(error, str(copy), "`ipbench data beton digits`")

    def test_a_file_without_its_checksum(self, copy):
        copy.with_suffix(".json").unlink()
        with pytest.raises(BadProduct) as error:
            beton.check("digits", "test", copy)
        one_line(error, str(copy), "digits-test.json")

    def test_an_altered_checksum(self, copy):
        product = copy.with_suffix(".json")
        product.write_text(json.dumps({**json.loads(product.read_text()), "sha256": "0" * 64}))
        with pytest.raises(BadProduct) as error:
            beton.check("digits", "test", copy)
        one_line(error, str(product))

    def test_a_file_of_something_else(self, copy):
        with pytest.raises(BadProduct) as error:
            beton.check("digits", "train", copy)
        one_line(error, str(copy), "split is test where train is expected")

    def test_a_run_refuses_a_damaged_file(self, copy, root):
        train = beton.beton_path("digits", "train", root)
        for suffix in (".beton", ".json"):
            (copy.parent / train.name).with_suffix(suffix).write_bytes(train.with_suffix(suffix).read_bytes())
        copy.write_bytes(copy.read_bytes()[:-100])
        with pytest.raises(BadProduct, match="truncated or altered"):
            open_data(copy.parent.parent)


@pytest.mark.ffcv
class TestParity:
    @pytest.mark.parametrize("workers", [1, 2, 64])
    @pytest.mark.parametrize("channels_last", [False, True])
    def test_training_batches_are_those_of_the_memory_loader(self, root, workers, channels_last):
        memory = Data("digits", RECIPE, 3, root=root, channels_last=channels_last)
        ffcv = open_data(root, workers, seed=3, channels_last=channels_last)
        for epoch in (0, 1):
            assert same(memory.train(epoch), ffcv.train(epoch))

    @pytest.mark.parametrize("part", ["train_plain", "validation", "test"])
    def test_plain_batches_are_those_of_the_memory_loader(self, root, part):
        assert same(getattr(Data("digits", RECIPE, 0, root=root), part)(), getattr(open_data(root), part)())

    def test_score_batches_are_those_of_the_memory_loader(self, root):
        memory, ffcv = Data("digits", RECIPE, 0, root=root), open_data(root)
        assert same([memory.score_batch(40)], [ffcv.score_batch(40)])
        assert same([memory.score_batch(per_class=2)], [ffcv.score_batch(per_class=2)])

    @pytest.mark.parametrize(
        "augmentation",
        [Augmentation(), Augmentation(flip=True), Augmentation(translate=7), Augmentation(cutout=20)],
        ids=["none", "flip", "translate", "cutout"],
    )
    def test_every_part_of_the_augmentation(self, root, augmentation):
        recipe = RECIPE.model_copy(update={"augmentation": augmentation})
        assert same(Data("digits", recipe, 0, root=root).train(4), open_data(root, 2, recipe).train(4))

    def test_three_channels(self, root, tmp_path, resize):
        resize("cifar10", 50, 10)
        write_cifar10(tmp_path / "cifar-10-batches-bin", 10, 10)
        for split in ("train", "test"):
            beton_writing.write("cifar10", split, tmp_path)
        recipe = Recipe(batch_size=16, augmentation=Augmentation(flip=True, translate=4, cutout=16))
        memory = Data("cifar10", recipe, 0, root=tmp_path)
        ffcv = Data("cifar10", recipe, 0, root=tmp_path, loader="ffcv", workers=2)
        assert same(memory.train(0), ffcv.train(0)) and same(memory.test(), ffcv.test())

    def test_another_process_that_starts_at_a_later_epoch(self, root):
        """As a resume: epoch 2, two workers, a new process; against epochs 0 to 2 here with one worker.

        The new process also sees that nothing loads FFCV before it is needed, and that its import leaves torch's
        number of threads alone.
        """
        here = open_data(root, 1)
        for epoch in range(3):
            digest = hashlib.sha256()
            for batch in here.train(epoch):
                digest.update(batch.images.numpy().tobytes() + batch.labels.numpy().tobytes())
        code = f"""
import hashlib, sys, torch
from pathlib import Path
from ipbench.data.loaders import Data
from ipbench.spec import Recipe
torch.set_num_threads(3)
recipe = Recipe.model_validate_json({RECIPE.model_dump_json()!r})
for loader in ("memory", "ffcv"):
    assert "ffcv" not in sys.modules and "numba" not in sys.modules
    digest = hashlib.sha256()
    for batch in Data("digits", recipe, 0, root=Path({str(root)!r}), loader=loader, workers=2).train(2):
        digest.update(batch.images.numpy().tobytes() + batch.labels.numpy().tobytes())
    print(digest.hexdigest(), torch.get_num_threads())
"""
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=300)
        assert done.stdout.split() == [digest.hexdigest(), "3"] * 2


@pytest.mark.ffcv
class TestThreads:
    def test_an_early_end_leaves_no_thread(self, root):
        data = open_data(root)
        for taken in (1, 5, data.steps_per_epoch - 3, data.steps_per_epoch):
            for _, _batch in zip(range(taken), data.train(0), strict=False):
                pass
            gc.collect()
            assert epochs_alive() == []

    def test_an_iterator_that_was_never_asked_starts_nothing(self, root):
        iterator = open_data(root).train(0)
        assert epochs_alive() == []
        del iterator

    def test_epochs_under_way_at_once(self, root):
        """An evaluation in the middle of an epoch, and two seeds side by side, disturb nothing."""
        one, other, memory = open_data(root), open_data(root, seed=1), Data("digits", RECIPE, 0, root=root)
        for mine, _, expected in zip(one.train(0), other.train(1), memory.train(0), strict=True):
            assert same(one.test(), memory.test())
            assert torch.equal(mine.images, expected.images)
        assert epochs_alive() == []

    @pytest.mark.parametrize("workers", [1, 2])
    def test_torchs_number_of_threads_stays(self, root, workers):
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(3)
            data = open_data(root, workers)
            for _batch in data.train(0):
                assert torch.get_num_threads() == 3
            assert torch.get_num_threads() == 3
        finally:
            torch.set_num_threads(before)

    def test_an_error_in_the_thread_reaches_the_reader(self, root):
        from ipbench.data.ffcv_adapter import BetonPixels

        class Broken(Keyed):
            def draw(self, indices, height, width):
                raise ArithmeticError("what went wrong")

        pixels = BetonPixels("digits", "test", root, "cpu", 1)
        with pytest.raises(ArithmeticError, match="what went wrong"):
            list(pixels.batches(np.arange(20), 5, Broken(RECIPE.augmentation, 0, 0)))
        assert epochs_alive() == []


@pytest.mark.ffcv
def test_labels_and_order_are_those_of_the_source(root):
    from ipbench.data.ffcv_adapter import BetonPixels

    source = sources.load("digits", "test", root)
    pixels = BetonPixels("digits", "test", root, "cpu", 1)
    assert pixels.labels.tolist() == source.labels.tolist()
    images, labels = next(iter(pixels.batches(np.array([5, 3, 200]), 3, None)))
    assert np.array_equal(images.numpy(), source.images[[5, 3, 200]])
    assert labels.tolist() == source.labels[[5, 3, 200]].tolist()


def test_where_the_files_lie():
    assert beton.beton_path("digits", "train", Path("data")) == Path("data/beton/digits-train.beton")
