import threading
import time

import numpy as np
import pytest
from PIL import Image

from ipbench.data import image_folder, sources
from ipbench.errors import BadInput, BadProduct

from .conftest import ODD_IMAGES, noise, one_line, write_imagenet


@pytest.fixture
def root(tmp_path):
    write_imagenet(tmp_path, 2, 1)
    return tmp_path


def test_a_listing(root):
    train, test = (image_folder.listing("imagenet", split, root) for split in ("train", "test"))
    assert train.classes == test.classes == ("n00000000", "n00000001", "n00000002")
    assert train.labels.tolist() == [0, 0, 1, 1, 2, 2] and train.labels.dtype == np.int64
    assert train.path(3) == root / "imagenet/train/n00000001/train_1.JPEG"
    assert [test.path(i) for i in range(3)] == sorted((root / "imagenet/val").glob("*/*"))
    assert train.classes_sha256 == test.classes_sha256
    assert image_folder.listing("imagenet", "train", root) is train


def test_hidden_files_are_left_out(root):
    (root / "imagenet/train/.DS_Store").touch()
    (root / "imagenet/train/n00000001/.thumbnails").mkdir()
    assert len(image_folder.listing("imagenet", "train", root).labels) == 6


def test_classes_that_only_train_has(root):
    """A label is the rank among the classes of train, whatever val lacks."""
    for file in (root / "imagenet/val/n00000001").iterdir():
        file.unlink()
    (root / "imagenet/val/n00000001").rmdir()
    assert image_folder.listing("imagenet", "test", root).labels.tolist() == [0, 2]


def test_there_is_nothing_to_fetch(root):
    place = root / "imagenet"
    assert sources.fetch("imagenet", root) == (
        f"imagenet: already in {place}: 6 training and 3 test images of 3 classes"
    )


@pytest.mark.parametrize("folder", ["train", "val"])
def test_a_missing_folder(root, folder):
    (root / "imagenet" / folder).rename(root / "elsewhere")
    with pytest.raises(BadInput) as error:
        sources.fetch("imagenet", root)
    assert not isinstance(error.value, BadProduct)
    one_line(
        error, f"no folder {root / 'imagenet' / folder}", "cannot be downloaded", f"{root}/imagenet/val/CLASS/*.JPEG"
    )


def damage_empty(place):
    (place / "train/n9").mkdir()
    return place / "train/n9", "without images"


def damage_unknown(place):
    (place / "val/n9").mkdir()
    return place / "val/n9", "a class that"


def damage_file(place):
    (place / "train/n00000002/notes.txt").touch()
    return place / "train/n00000002/notes.txt", "not an image file (.jpeg, .jpg, .png)"


def damage_folder(place):
    (place / "train/n00000002/more.JPEG").mkdir()
    return place / "train/n00000002/more.JPEG", "not an image file"


def damage_flat(place):
    """As the official archive of the validation images unpacks."""
    (place / "val/ILSVRC2012_val_00000001.JPEG").touch()
    return place / "val/ILSVRC2012_val_00000001.JPEG", "not a folder of a class"


def damage_many(place):
    for label in range(1001):
        (place / f"train/c{label}").mkdir()
    return place / "train", "1004 folders where imagenet has at most 1000"


def damage_none(place):
    (place / "train").rename(place / "old")
    (place / "train").mkdir()
    return place / "train", "holds no folder"


@pytest.mark.parametrize(
    "damage", [damage_empty, damage_unknown, damage_file, damage_folder, damage_flat, damage_many, damage_none]
)
def test_a_bad_layout(root, damage):
    path, said = damage(root / "imagenet")
    with pytest.raises(BadProduct) as error:
        sources.fetch("imagenet", root)
    one_line(error, str(path), said)


@pytest.mark.parametrize("kind", ODD_IMAGES, ids=str)
def test_every_kind_of_image_becomes_rgb(tmp_path, kind):
    height, width, mode, name = kind
    noise(height, width, mode).save(tmp_path / "x.JPEG", name)
    pixels = image_folder.read(tmp_path / "x.JPEG", 40)
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
    assert min(pixels.shape[:2]) == 40
    longer = min(max(height, width), 32 * min(height, width))
    assert max(pixels.shape[:2]) == 40 * longer // min(height, width)
    assert (pixels.shape[0] > 40) == (height > width and 40 * longer // width > 40)


def test_an_image_of_that_size_is_left_as_it_is(tmp_path):
    image = noise(40, 55)
    image.save(tmp_path / "x.png")
    assert np.array_equal(image_folder.read(tmp_path / "x.png", 40), np.asarray(image))


def test_a_very_long_image_is_cut_to_its_middle(tmp_path):
    """2 x 100: 64 columns stay, the first of them is column 18."""
    pixels = np.repeat(np.arange(100, dtype=np.uint8)[None, :, None], 2, axis=0).repeat(3, axis=2)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    assert image_folder.read(tmp_path / "x.png", 2)[0, :, 0].tolist() == list(range(18, 82))


@pytest.mark.parametrize(
    "content", [b"", b"no image", None, "png"], ids=["empty", "text", "truncated jpeg", "truncated png"]
)
def test_a_file_that_is_no_image(tmp_path, content):
    path = tmp_path / "x.JPEG"
    noise(40, 40).save(path, "PNG" if content == "png" else "JPEG")
    path.write_bytes(content if isinstance(content, bytes) else path.read_bytes()[:700])
    with pytest.raises(BadProduct) as error:
        image_folder.read(path, 40)
    one_line(error, str(path), "not readable as an image", "expected a whole JPEG or PNG file")


# Threads --------------------------------------------------------------------------------------------------------------


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("images")]


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("ahead", [1, 3, 100])
def test_results_come_in_order(workers, ahead):
    def slow(number):
        time.sleep(0.001 * (number % 3))
        return number

    assert list(image_folder.in_order(slow, range(20), workers, ahead)) == list(range(20))
    assert threads() == []


def test_it_works_ahead_and_no_further():
    started = []
    results = image_folder.in_order(started.append, range(50), 2, 5)
    next(results)
    deadline = time.monotonic() + 5
    while len(started) < 6 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.01)
    assert sorted(started) == list(range(6))
    results.close()
    assert threads() == []


def test_an_error_comes_in_its_turn():
    results = image_folder.in_order(lambda number: 1 // number, [1, 1, 0, 1], 2, 4)
    assert [next(results), next(results)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert threads() == []
