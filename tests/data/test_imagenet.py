"""ImageNet through `Data`: both loaders, several processes. The images are tiny, and so is what is cut from them."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from ipbench.data import augment, beton, beton_writing, catalog, crops, image_folder
from ipbench.data.loaders import Data
from ipbench.errors import BadInput, BadProduct
from ipbench.spec import Augmentation, Recipe

from .conftest import one_line, write_imagenet

ALL = Augmentation(random_resized_crop=True, flip=True, translate=2, cutout=5)
RECIPE = Recipe(batch_size=8, validation=0.25, augmentation=ALL)


@pytest.fixture(scope="module", autouse=True)
def small():
    """Crops of 24 x 20 pixels from images whose shorter side is 32."""
    with pytest.MonkeyPatch.context() as patch:
        tiny = replace(catalog.DATASETS["imagenet"], shape=(3, 24, 20), shorter_side=32)
        patch.setitem(catalog.DATASETS, "imagenet", tiny)
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_imagenet(folder, 10, 5)
    return folder


@pytest.fixture(scope="module")
def beton_root(root):
    reason = beton.available()
    if reason is not None:
        pytest.skip(reason)
    for split in ("train", "test"):
        beton_writing.write("imagenet", split, root)
    return root


def open_data(root, loader="memory", recipe=RECIPE, seed=0, **more):
    return Data("imagenet", recipe, seed, root=root, loader=loader, **more)


def whole(batches):
    batches = list(batches)
    return torch.cat([batch.images for batch in batches]), torch.cat([batch.labels for batch in batches])


def same(one, other):
    pairs = list(zip(one, other, strict=True))
    assert pairs
    return all(torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) for a, b in pairs)


def test_facts(root):
    data = open_data(root)
    assert data.shape == (3, 24, 20) and data.classes == 1000
    assert len(data.train_indices) == 22 and len(data.validation_indices) == 8  # 30, a quarter of them rounded
    assert data.steps_per_epoch == 2


def test_an_epoch_from_its_parts(root):
    """Epoch 3, put together by hand."""
    from ipbench import keys
    from ipbench.data.splits import keyed_order

    data = open_data(root)
    listing = image_folder.listing("imagenet", "train", root)
    order = keyed_order(data.train_indices, keys.key(0, "order", 3))[:16]
    images = []
    for index in order.tolist():
        pixels = image_folder.read(listing.path(index), 32)
        sides = [np.array([side]) for side in pixels.shape[:2]]
        ((top, left, height, width),) = crops.draw(
            np.array([index]), augment.Keyed(ALL, 0, 3), *sides, (24, 20)
        ).tolist()
        images.append(crops.resize(pixels[top : top + height, left : left + width], (24, 20), 100))
    drawn = torch.from_numpy(augment.draw(order, 0, 3, ALL, 24, 20))
    pixels = augment.apply(torch.from_numpy(np.stack(images)), drawn, ALL).numpy()
    facts = catalog.dataset("imagenet")
    expected = ((pixels / 255 - np.array(facts.mean)) / np.array(facts.std)).transpose(0, 3, 1, 2)
    got, labels = whole(data.train(3))
    assert np.abs(got.numpy() - expected).max() < 1e-5
    assert labels.tolist() == listing.labels[order].tolist()


def test_plain_images_are_the_middle(root):
    data = open_data(root)
    images, labels = whole(data.test())
    listing = image_folder.listing("imagenet", "test", root)
    assert labels.tolist() == listing.labels.tolist()
    facts = catalog.dataset("imagenet")
    for index in range(15):
        pixels = image_folder.read(listing.path(index), 32)
        top, left = (pixels.shape[0] - 24) // 2, (pixels.shape[1] - 20) // 2
        middle = pixels[top : top + 24, left : left + 20] / 255
        expected = ((middle - np.array(facts.mean)) / np.array(facts.std)).transpose(2, 0, 1)
        assert np.abs(images[index].numpy() - expected).max() < 1e-5


def test_the_number_of_workers_changes_no_bit(root):
    one, four = open_data(root), open_data(root, workers=4)
    for epoch in range(2):
        assert same(one.train(epoch), four.train(epoch))
    assert same(one.test(), four.test())
    assert not torch.equal(next(one.train(0)).images, next(one.train(1)).images)


def test_an_early_end_leaves_no_thread(root):
    batches = open_data(root, workers=3).train(0)
    next(batches)
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("images")]


def test_a_broken_file_is_named_when_it_is_read(tmp_path):
    write_imagenet(tmp_path, 4, 1)
    path = tmp_path / "imagenet/train/n00000001/train_2.JPEG"
    path.write_bytes(path.read_bytes()[:-30])
    data = open_data(tmp_path, recipe=Recipe(batch_size=2, validation=0))
    with pytest.raises(BadProduct) as error:
        list(data.train_plain())
    one_line(error, str(path), "not readable as an image")


def test_score_batches(root):
    data = open_data(root)
    assert data.score_batch(per_class=2).labels.bincount().tolist() == [2, 2, 2]  # of the three classes there are
    assert torch.equal(data.score_batch(5).images, data.score_batch(20).images[:5])


def test_score_batches_of_several_reads(root, monkeypatch):
    data = open_data(root, channels_last=True)
    expected = data.score_batch(20)
    monkeypatch.setattr("ipbench.data.loaders.EVALUATION_BATCH", 7)
    assert same([data.score_batch(20)], [expected])
    assert data.score_batch(20).images.is_contiguous(memory_format=torch.channels_last)


def test_a_random_crop_of_images_of_one_size(tmp_path):
    with pytest.raises(BadInput) as error:
        Data("digits", Recipe(augmentation=Augmentation(random_resized_crop=True)), 0, root=tmp_path)
    one_line(error, "digits", "random_resized_crop", "8 x 8")


# Several processes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("name", ["imagenet", "digits"])
def test_the_parts_of_all_ranks_are_the_whole(root, world, name):
    recipe = RECIPE if name == "imagenet" else Recipe(batch_size=100, augmentation=Augmentation(translate=1))
    one = Data(name, recipe, 0, root=root)
    ranks = [Data(name, recipe, 0, root=root, rank=rank, world=world) for rank in range(world)]
    for batch, *parts in zip(one.train(1), *(data.train(1) for data in ranks), strict=True):
        assert all(len(part.labels) == recipe.batch_size // world for part in parts)
        assert all(torch.equal(a, b) for a, b in zip(whole(parts), batch[:2], strict=True))
    for kind in ("train_plain", "validation", "test"):
        parts = [batch for data in ranks for batch in getattr(data, kind)()]
        assert all(torch.equal(a, b) for a, b in zip(whole(parts), whole(getattr(one, kind)()), strict=True))
    assert all(same([data.score_batch()], [one.score_batch()]) for data in ranks)
    assert {data.steps_per_epoch for data in ranks} == {one.steps_per_epoch}


def test_more_ranks_than_images(root):
    recipe = Recipe(batch_size=20, validation=0.1)
    sizes = []
    for rank in range(20):
        data = open_data(root, recipe=recipe, rank=rank, world=20)
        sizes.append(sum(len(batch.labels) for batch in data.validation()))
    assert sizes == [1] * 3 + [0] * 17


@pytest.mark.parametrize(("rank", "world", "said"), [(0, 3, "divisible by 3"), (2, 2, "0 to 1"), (-1, 2, "rank -1")])
def test_ranks_that_do_not_fit(root, rank, world, said):
    with pytest.raises(BadInput) as error:
        open_data(root, rank=rank, world=world)
    one_line(error, said)


def test_an_epoch_from_its_middle(root, monkeypatch):
    """What is skipped is not read."""
    data = open_data(root, recipe=RECIPE.model_copy(update={"batch_size": 4}))
    expected = list(data.train(1))
    assert len(expected) == 5
    read, opened = image_folder.read, []
    monkeypatch.setattr(image_folder, "read", lambda path, side: opened.append(path) or read(path, side))
    assert same(data.train(1, skip=2), expected[2:])
    assert len(opened) == 12
    assert list(data.train(1, skip=5)) == []
    for wrong in (-1, 6):
        with pytest.raises(ValueError, match="skip is"):
            data.train(1, skip=wrong)


# FFCV -----------------------------------------------------------------------------------------------------------------


@pytest.mark.ffcv
class TestFfcv:
    def test_both_loaders_give_the_same_bits(self, beton_root):
        memory, ffcv = open_data(beton_root, seed=3), open_data(beton_root, "ffcv", seed=3)
        assert np.array_equal(memory.train_indices, ffcv.train_indices)
        for epoch in range(3):
            assert same(memory.train(epoch), ffcv.train(epoch))
        for part in ("train_plain", "validation", "test"):
            assert same(getattr(memory, part)(), getattr(ffcv, part)())
        assert same([memory.score_batch(20)], [ffcv.score_batch(20)])

    @pytest.mark.parametrize(
        "augmentation", [Augmentation(), Augmentation(random_resized_crop=True), Augmentation(flip=True, cutout=9)]
    )
    def test_every_part_of_the_augmentation(self, beton_root, augmentation):
        recipe = RECIPE.model_copy(update={"augmentation": augmentation})
        assert same(
            open_data(beton_root, recipe=recipe, channels_last=True).train(4),
            open_data(beton_root, "ffcv", recipe, channels_last=True).train(4),
        )

    def test_workers_ranks_and_a_start_in_the_middle(self, beton_root):
        recipe = RECIPE.model_copy(update={"batch_size": 4, "validation": 0.0})
        memory = open_data(beton_root, recipe=recipe)
        ranks = [open_data(beton_root, "ffcv", recipe, workers=2, rank=rank, world=2) for rank in range(2)]
        for batch, *parts in zip(memory.train(1, 2), *(data.train(1, 2) for data in ranks), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(whole(parts), batch[:2], strict=True))
        assert list(ranks[0].validation()) == []  # there may be nothing for a rank

    def test_crops_of_the_true_size(self, beton_root):
        """The compiled kernel and `crops.resize`, on crops of all sizes from images as large as ImageNet's."""
        from ipbench.data.ffcv_crop import _kernel

        rng = np.random.default_rng(0)
        image = rng.integers(0, 256, (256, 400, 3), dtype=np.uint8)
        n, shape, largest = 40, (224, 224), crops.longest(256)
        keyed = augment.Keyed(Augmentation(random_resized_crop=True), 0, 0)
        parts = crops.draw(np.arange(n), keyed, np.full(n, 256), np.full(n, 400), shape)
        parts[0], parts[1] = (0, 0, 256, 341), (0, 59, 256, 341)  # to the last column
        file = np.concatenate([np.zeros(11, dtype=np.uint8), image.reshape(-1)])
        file.setflags(write=False)
        out = np.zeros((n, *shape, 3), dtype=np.uint8)
        tables = crops.taps(224, largest)
        _kernel(False)(file, np.full(n, 11), np.full(n, 400), parts, tables, tables, out)
        for got, (top, left, height, width) in zip(out, parts.tolist(), strict=True):
            part = image[top : top + height, left : left + width]
            assert np.array_equal(got, crops.resize(part, shape, largest))

    def test_the_same_images_give_the_same_bytes(self, beton_root, tmp_path):
        first = beton.beton_path("imagenet", "test", beton_root)
        second = beton_writing.write("imagenet", "test", beton_root, tmp_path / "again.beton")
        assert first.read_bytes() == second.read_bytes()
        assert first.with_suffix(".json").read_text() == second.with_suffix(".json").read_text()

    def test_a_broken_image_is_found_and_leaves_nothing(self, beton_root, tmp_path):
        write_imagenet(tmp_path, 4, 1)
        path = tmp_path / "imagenet/train/n00000001/train_2.JPEG"
        path.write_bytes(b"no image")
        with pytest.raises(BadProduct) as error:
            beton_writing.write("imagenet", "train", tmp_path)
        one_line(error, str(path))
        assert list((tmp_path / "beton").iterdir()) == []
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("images")]

    def test_files_of_other_classes_or_sizes_are_refused(self, beton_root, tmp_path, monkeypatch):
        write_imagenet(tmp_path, 2, 2, classes=2)
        beton_writing.write("imagenet", "train", tmp_path)
        for suffix in (".beton", ".json"):
            path = beton.beton_path("imagenet", "test", tmp_path).with_suffix(suffix)
            path.write_bytes(beton.beton_path("imagenet", "test", beton_root).with_suffix(suffix).read_bytes())
        with pytest.raises(BadProduct) as error:
            open_data(tmp_path, "ffcv", Recipe(batch_size=2, validation=0))
        one_line(error, "imagenet-test.beton", "classes_sha256", "`ipbench data beton imagenet`")
        monkeypatch.setitem(catalog.DATASETS, "imagenet", replace(catalog.DATASETS["imagenet"], shorter_side=30))
        with pytest.raises(BadProduct, match="shorter_side is 32 where 30 is expected"):
            open_data(beton_root, "ffcv")

    def test_a_large_file_is_checked_in_parts(self, beton_root, tmp_path, monkeypatch):
        monkeypatch.setattr(beton, "WHOLE", 2**16)
        monkeypatch.setattr(beton, "BLOCK", 2**12)
        path = beton_writing.write("imagenet", "test", beton_root, tmp_path / "beton" / "imagenet-test.beton")
        beton.check("imagenet", "test", path)
        content = path.read_bytes()
        for damaged in (content[:-1], content + b"\0", b"\0" + content[1:], content[:-1] + b"\7"):
            path.write_bytes(damaged)
            with pytest.raises(BadProduct, match="truncated or altered"):
                beton.check("imagenet", "test", path)
