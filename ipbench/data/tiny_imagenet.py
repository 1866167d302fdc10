"""Tiny ImageNet as its archive lays it (floor 2): 200 classes, images of 64 x 64 pixels, all of it held in memory."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ipbench.errors import BadInput, BadProduct


def read(split: str, folder: Path, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Read one split; the archive's validation images are the test part, since those of its test part have no labels.

    Args:
        split: "train" or "test".
        folder: the archive's, `tiny-imagenet-200`.
        side: of an image, in pixels.

    Returns:
        uint8 images (n, side, side, 3), grey ones with three equal channels, and int64 labels: the rank of a class
        among the sorted folders of the training part. Samples are in the order of their classes, then of their files.

    Raises:
        BadInput: a folder or file is missing.
        BadProduct: a file cannot be read, or is of another size; the message names it.
    """
    train = folder / "train"
    if not train.is_dir():
        raise BadInput(f"tiny-imagenet: no folder {train}; run `ipbench data fetch tiny-imagenet`")
    classes = sorted(path.name for path in train.iterdir() if path.is_dir())
    if split == "train":
        files = [(train / name / "images" / file, label) for label, name in enumerate(classes)
                 for file in _names(train / name / "images")]  # fmt: skip
    else:
        files = _annotated(folder / "val", classes)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        images = list(pool.map(lambda item: _pixels(item[0], side), files))
    labels = np.array([label for _, label in files], dtype=np.int64)
    return np.stack(images) if images else np.empty((0, side, side, 3), dtype=np.uint8), labels


def _names(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise BadInput(f"tiny-imagenet: no folder {folder}; run `ipbench data fetch tiny-imagenet`")
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".JPEG")


def _annotated(folder: Path, classes: list[str]) -> list[tuple[Path, int]]:
    """The files of the validation part with their labels: its images lie in one folder, a table tells their classes."""
    table = folder / "val_annotations.txt"
    try:
        lines = table.read_text(encoding="utf-8").splitlines()
    except OSError:
        raise BadInput(f"tiny-imagenet: no file {table}; run `ipbench data fetch tiny-imagenet`") from None
    except UnicodeDecodeError:
        raise BadProduct(f"{table}: not a text") from None
    ranks = {name: label for label, name in enumerate(classes)}
    files = []
    for number, line in enumerate(lines, start=1):
        parts = line.split("\t")
        if len(parts) < 2 or parts[1] not in ranks or Path(parts[0]).name != parts[0]:
            raise BadProduct(f"{table}: line {number} is not a file name and a class of the training part")
        files.append((folder / "images" / parts[0], ranks[parts[1]]))
    return sorted(files, key=lambda item: (item[1], item[0].name))


def _pixels(path: Path, side: int) -> np.ndarray:
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise BadProduct(f"{path}: no such file") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise BadProduct(f"{path}: not a readable image ({type(error).__name__})") from None
    if pixels.shape != (side, side, 3):
        raise BadProduct(f"{path}: {pixels.shape[0]} x {pixels.shape[1]} pixels where there must be {side} x {side}")
    return pixels
