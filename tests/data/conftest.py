"""Tiny data sets in the true file formats."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ipbench.data import catalog, sources


@pytest.fixture
def resize(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int, int], None]:
    """Tell the catalogue that a data set has so many training and test images."""

    def tiny(name: str, train: int, test: int) -> None:
        monkeypatch.setitem(catalog.DATASETS, name, replace(catalog.DATASETS[name], train=train, test=test))

    return tiny


@pytest.fixture
def no_debian(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without Debian's Fashion-MNIST."""
    monkeypatch.setattr(sources, "DEBIAN_FASHION_MNIST", Path("/nonexistent"))


def idx(array: np.ndarray) -> bytes:
    """An IDX file of unsigned bytes, as the page of MNIST describes it."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def cifar_records(images: np.ndarray, *labels: np.ndarray) -> bytes:
    """A file of the binary version of CIFAR from images (n, 32, 32, 3) and columns of labels."""
    return b"".join(
        bytes(int(column[i]) for column in labels) + image.transpose(2, 0, 1).tobytes()
        for i, image in enumerate(images)
    )


def random_images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def write_cifar10(folder: Path, per_batch: int, test: int) -> tuple[np.ndarray, np.ndarray]:
    """The six files of CIFAR-10 with few images; returns the training images and labels."""
    folder.mkdir(parents=True)
    images = random_images(5 * per_batch + test, 32, 32, 3)
    labels = np.arange(len(images)) % 10
    for number in range(5):
        part = slice(number * per_batch, (number + 1) * per_batch)
        (folder / f"data_batch_{number + 1}.bin").write_bytes(cifar_records(images[part], labels[part]))
    (folder / "test_batch.bin").write_bytes(cifar_records(images[5 * per_batch :], labels[5 * per_batch :]))
    return images[: 5 * per_batch], labels[: 5 * per_batch]


def one_line(error: pytest.ExceptionInfo[BaseException], *parts: str) -> None:
    """The message is one line and says all of `parts`."""
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


def noise(height: int, width: int, mode: str = "RGB") -> Image.Image:
    """An image of random pixels."""
    channels = {"L": (), "P": (), "RGB": (3,), "RGBA": (4,), "CMYK": (4,)}[mode]
    pixels = np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, *channels), dtype=np.uint8)
    if mode != "P":
        return Image.frombytes(mode, (width, height), pixels.tobytes())
    image = Image.frombytes("P", (width, height), pixels.tobytes())
    image.putpalette(np.random.default_rng(1).integers(0, 256, 768, dtype=np.uint8).tobytes())
    return image


#: Height, width, mode and format of the images of `write_imagenet`, whatever their names say.
ODD_IMAGES = [
    (60, 80, "RGB", "JPEG"),
    (80, 60, "L", "JPEG"),
    (50, 70, "CMYK", "JPEG"),
    (45, 90, "RGBA", "PNG"),
    (40, 40, "RGB", "JPEG"),
    (7, 5, "RGB", "JPEG"),
    (3, 300, "RGB", "PNG"),
    (250, 4, "L", "PNG"),
    (41, 40, "P", "PNG"),
    (1, 1, "RGB", "PNG"),
]


def write_imagenet(root: Path, train: int = 8, test: int = 4, classes: int = 3) -> None:
    """A tiny ImageNet: so many images per class in each part, of all the kinds that ImageNet has, and a few more."""
    for folder, count in (("train", train), ("val", test)):
        for label in range(classes):
            place = root / "imagenet" / folder / f"n{label:08}"
            place.mkdir(parents=True)
            for number in range(count):
                height, width, mode, kind = ODD_IMAGES[(label * count + number) % len(ODD_IMAGES)]
                noise(height + label, width, mode).save(place / f"{folder}_{number}.JPEG", kind)
