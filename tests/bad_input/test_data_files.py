"""Data files that are broken, of something else, or do not agree: through `ipbench run`, with tiny data sets."""

from __future__ import annotations

import gzip
import io
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ipbench import store
from ipbench.cli.main import main
from ipbench.data import beton, catalog
from tests.bad_input.refusing import check, everything
from tests.bad_input.test_products import PICKLE
from tests.data.conftest import idx, noise, random_images, write_cifar10, write_imagenet
from tests.data.conftest import no_debian as no_debian
from tests.data.conftest import resize as resize

TRAIN, TEST = 20, 4
SMALL = "--recipe epochs=1 --recipe warmup=0 --recipe batch_size=2 --recipe validation=0 --threads 1"
NET = "--method dense --model lenet-300-100"
MNIST, CIFAR10, TINY = "data/MNIST/raw", "data/cifar-10-batches-bin", "data/tiny-imagenet-200"


@dataclass(frozen=True)
class Broken:
    """One thing that is wrong with the files of a data set.

    Attributes:
        dataset: whose files are laid whole, below `data`.
        path: of the file that is changed, below the working folder.
        change: its new content, from the old one; None removes it, `FOLDER` puts a folder in its place.
        says: what the message must contain.
    """

    id: str
    dataset: str
    path: str
    change: Callable[[bytes], bytes | None]
    says: tuple[str, ...]

    def __str__(self) -> str:
        return self.id


FOLDER = b"a folder"


def picture(width: int, height: int) -> bytes:
    file = io.BytesIO()
    noise(height, width).save(file, "JPEG")
    return file.getvalue()


def broken(id: str, dataset: str, path: str, change: Callable[[bytes], bytes | None], *says: str) -> Broken:
    return Broken(f"{dataset}-{id}", dataset, path, change, says)


IMAGES, LABELS = f"{MNIST}/train-images-idx3-ubyte", f"{MNIST}/train-labels-idx1-ubyte"
FIRST = "data/imagenet/train/n00000000/train_0.JPEG"
BATCH, VAL = f"{CIFAR10}/data_batch_3.bin", f"{TINY}/val/val_annotations.txt"
JPEG = f"{TINY}/train/n00000000/images/n00000000_0.JPEG"

CASES = [
    broken("gone", "mnist", IMAGES, lambda old: None, "no train-images-idx3-ubyte", "ipbench data fetch mnist"),
    broken("empty", "mnist", IMAGES, lambda old: b"", "train-images", "not an IDX file"),
    broken("magic", "mnist", IMAGES, lambda old: b"\1" + old[1:], "train-images", "not an IDX file"),
    broken("of-floats", "mnist", IMAGES, lambda old: b"\0\0\x0d" + old[3:], "not an IDX file of unsigned bytes"),
    broken("no-dimensions", "mnist", IMAGES, lambda old: b"\0\0\x08\0", "not an IDX file"),
    broken("cut", "mnist", IMAGES, lambda old: old[:-1], "truncated or corrupt", f"{16 + TRAIN * 784}"),
    broken("longer", "mnist", IMAGES, lambda old: old + b"x", "truncated or corrupt"),
    broken("header-says-billions", "mnist", IMAGES, lambda old: old[:4] + b"\xff" * 12 + old[16:], "its header says"),
    broken("pickle", "mnist", IMAGES, lambda old: PICKLE, "train-images", "not an IDX file"),
    broken("size", "mnist", IMAGES, lambda old: idx(np.zeros((TRAIN, 27, 28))), "27 x 28 x 1", "28 x 28 x 1"),
    broken("flat", "mnist", IMAGES, lambda old: idx(np.zeros((TRAIN, 784))), "2 dimensions where images have 3"),
    broken(
        "too-few", "mnist", IMAGES, lambda old: idx(np.zeros((TRAIN - 1, 28, 28))), f"{TRAIN - 1} images but {TRAIN}"
    ),
    broken(
        "too-few-labels",
        "mnist",
        LABELS,
        lambda old: idx(np.zeros(TRAIN - 1)),
        f"{TRAIN} images but {TRAIN - 1} labels",
    ),
    broken("label", "mnist", LABELS, lambda old: idx(np.full(TRAIN, 10)), "label 10", "classes 0 to 9"),
    broken(
        "labels-in-rows", "mnist", LABELS, lambda old: idx(np.zeros((TRAIN, 1))), "2 dimensions where labels have 1"
    ),
    broken("folder", "mnist", LABELS, lambda old: FOLDER, "no train-labels-idx1-ubyte", "ipbench data fetch mnist"),
    broken("gone", "cifar10", BATCH, lambda old: None, "data_batch_3.bin", "ipbench data fetch cifar10"),
    broken("empty", "cifar10", BATCH, lambda old: b"", "data_batch_3.bin", "0 bytes are not a multiple of 3073"),
    broken("cut", "cifar10", BATCH, lambda old: old[:-1], "data_batch_3.bin", "not a multiple of 3073"),
    broken(
        "cut-at-an-image",
        "cifar10",
        BATCH,
        lambda old: old[:3073],
        f"{TRAIN - 3} images where the train part",
        f"{TRAIN}",
    ),
    broken("label", "cifar10", BATCH, lambda old: b"\x0a" + old[1:], "label 10", "classes 0 to 9"),
    broken("pickle", "cifar10", BATCH, lambda old: PICKLE, "data_batch_3.bin", "not a multiple of 3073"),
    broken(
        "no-table", "tiny-imagenet", VAL, lambda old: None, "val_annotations.txt", "ipbench data fetch tiny-imagenet"
    ),
    broken("table-binary", "tiny-imagenet", VAL, lambda old: b"\xff\xfe", "val_annotations.txt", "not a text"),
    broken("table-columns", "tiny-imagenet", VAL, lambda old: b"val_0.JPEG\n", "line 1", "a file name and a class"),
    broken(
        "table-class",
        "tiny-imagenet",
        VAL,
        lambda old: old.replace(b"n00000000", b"n9"),
        "line 1",
        "a class of the training",
    ),
    broken(
        "table-climbs", "tiny-imagenet", VAL, lambda old: b"../../x.JPEG\tn00000000\n" + old, "line 1", "a file name"
    ),
    broken("table-up", "tiny-imagenet", VAL, lambda old: b"..\tn00000000\n" + old, "val", "not a"),
    broken(
        "table-names-more", "tiny-imagenet", VAL, lambda old: old + b"x.JPEG\tn00000000\n", "x.JPEG", "no such file"
    ),
    broken("image-size", "tiny-imagenet", JPEG, lambda old: picture(63, 64), JPEG, "64 x 63", "must be 64 x 64"),
    broken("image-cut", "tiny-imagenet", JPEG, lambda old: old[: len(old) // 2], JPEG, "not readable as an image"),
    broken("image-empty", "tiny-imagenet", JPEG, lambda old: b"", JPEG, "not readable as an image"),
    broken("image-pickle", "tiny-imagenet", JPEG, lambda old: PICKLE, JPEG, "not readable as an image"),
    broken(
        "image-gone", "tiny-imagenet", JPEG, lambda old: None, f"{TRAIN - 1} images where the train part", f"{TRAIN}"
    ),
    broken(
        "text-among-classes",
        "imagenet",
        "data/imagenet/train/notes.txt",
        lambda old: b"x",
        "notes.txt",
        "not a folder of a class",
    ),
    broken(
        "text-among-images",
        "imagenet",
        "data/imagenet/train/n00000000/notes.txt",
        lambda old: b"x",
        "notes.txt",
        ".jpeg, .jpg, .png",
    ),
    broken("other-class", "imagenet", "data/imagenet/val/n9/x.JPEG", lambda old: b"x", "val/n9", "a class that"),
    broken("empty-class", "imagenet", "data/imagenet/train/n9", lambda old: FOLDER, "n9", "a class without images"),
    broken("no-image", "imagenet", FIRST, lambda old: b"hello", "train_0.JPEG", "whole JPEG or PNG"),
    broken("pickle", "imagenet", FIRST, lambda old: PICKLE, "train_0.JPEG", "whole JPEG or PNG"),
    broken("image-cut", "imagenet", FIRST, lambda old: old[:300], "train_0.JPEG", "whole JPEG"),
]


def write_mnist() -> None:
    folder = Path(MNIST)
    folder.mkdir(parents=True)
    for stem, count in (("train", TRAIN), ("t10k", TEST)):
        (folder / f"{stem}-images-idx3-ubyte").write_bytes(idx(random_images(count, 28, 28)))
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(idx(np.arange(count) % 10))


def write_tiny_imagenet() -> None:
    for label in range(2):
        images = Path(TINY) / "train" / f"n{label:08}" / "images"
        images.mkdir(parents=True)
        for number in range(TRAIN // 2):
            (images / f"{images.parent.name}_{number}.JPEG").write_bytes(picture(64, 64))
    images = Path(TINY) / "val/images"
    images.mkdir(parents=True)
    for number in range(TEST):
        (images / f"val_{number}.JPEG").write_bytes(picture(64, 64))
    Path(VAL).write_text("".join(f"val_{number}.JPEG\tn{number % 2:08}\t0\n" for number in range(TEST)))


WRITERS: dict[str, Callable[[], object]] = {
    "mnist": write_mnist,
    "cifar10": lambda: write_cifar10(Path(CIFAR10), TRAIN // 5, TEST),
    "tiny-imagenet": write_tiny_imagenet,
    "imagenet": lambda: write_imagenet(Path("data")),
}


@pytest.fixture
def data_set(tmp_path, monkeypatch, resize):
    """Writes a tiny data set, whole; returns the words that train on it."""

    def write(name: str) -> list[str]:
        monkeypatch.chdir(tmp_path)
        if catalog.DATASETS[name].train is not None:
            resize(name, TRAIN, TEST)
        WRITERS[name]()
        net = NET if name != "imagenet" else "--method dense --model small-vgg"
        # The whole path: a process keeps what it has read from a place.
        return [*shlex.split(f"run --dataset {name} {net} {SMALL} --data"), str(tmp_path / "data")]

    return write


@pytest.mark.parametrize("bad", CASES, ids=str)
def test_one_line_and_no_file(bad, data_set, tmp_path, capfd):
    words = data_set(bad.dataset)
    path = Path(bad.path)
    content = bad.change(path.read_bytes() if path.is_file() else b"")
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    if content == FOLDER:
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    before = everything(tmp_path)
    capfd.readouterr()
    code = main(words)
    captured = capfd.readouterr()
    check(code, captured.out, captured.err, bad.says)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("name", ["mnist", "cifar10", "tiny-imagenet"])
def test_the_whole_ones_are_trained_on(name, data_set, capfd):
    assert main(data_set(name)) == 0, capfd.readouterr().err


@pytest.mark.parametrize("change", [lambda old: old[:-9], lambda old: b"hello", lambda old: b"", lambda old: PICKLE])
def test_a_broken_gz_is_one_line(change, data_set, capfd):
    words = data_set("mnist")
    path = Path(IMAGES)
    Path(f"{IMAGES}.gz").write_bytes(change(gzip.compress(path.read_bytes())))
    path.unlink()
    capfd.readouterr()
    code = main(words)
    captured = capfd.readouterr()
    check(code, captured.out, captured.err, ["train-images-idx3-ubyte.gz"])


@pytest.mark.ffcv
@pytest.mark.parametrize(
    ("content", "product", "says"),
    [
        (None, {}, ["no such file", "`ipbench data beton digits` writes it"]),
        (PICKLE, None, ["its checksum digits-train.json is missing", "`ipbench data beton digits`"]),
        (PICKLE, {"dataset": "digits", "split": "train", "count": 1500, "shape": [1, 8, 8], "sha256": "0" * 64},
         ["truncated or altered", "`ipbench data beton digits`"]),
        (PICKLE, {"dataset": "mnist", "split": "train", "count": 1500, "shape": [1, 8, 8]},
         ["dataset is mnist where digits is expected"]),
        (PICKLE, {"dataset": "digits", "split": "test", "count": 1500, "shape": [1, 8, 8]}, ["split is test"]),
        (PICKLE, {"dataset": "digits", "split": "train", "count": 3, "shape": [1, 8, 8]}, ["count is 3", "1500"]),
        (PICKLE, {}, ["dataset is None where digits is expected"]),
    ],
)  # fmt: skip
def test_a_broken_beton_is_one_line(content, product, says, tmp_path, monkeypatch, capfd):
    if reason := beton.available():  # asked here: the answer takes the seconds of FFCV's import
        pytest.skip(reason)
    monkeypatch.chdir(tmp_path)
    path = Path("data/beton/digits-train.beton")
    path.parent.mkdir(parents=True)
    if content is not None:
        path.write_bytes(content)
        if product is not None:
            store.write_json(path.with_suffix(".json"), product)
    before = everything(tmp_path)
    capfd.readouterr()
    code = main(["run", "--loader", "ffcv"])
    captured = capfd.readouterr()
    check(code, captured.out, captured.err, ["digits-train", *says])
    assert everything(tmp_path) == before


def test_pictures_are_pictures():
    """What the cases above break is whole."""
    assert Image.open(io.BytesIO(picture(64, 64))).size == (64, 64)
