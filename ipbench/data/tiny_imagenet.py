"""Tiny ImageNet as its archive lays it: 200 classes, images of 64 x 64 pixels, all of it held in memory."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ipbench import files
from ipbench.data import image_files
from ipbench.errors import BadInput, BadProduct

#: Of the table of the validation part: 10,000 lines.
_MOST_BYTES = 2**24


def read(split: str, folder: Path, side: int, most: int = 200_000) -> tuple[np.ndarray, np.ndarray]:
    """Read one split; the archive's validation images are the test part, since those of its test part have no labels.

    Args:
        split: "train" or "test".
        folder: the archive's, `tiny-imagenet-200`.
        side: of an image, in pixels.
        most: images that the split may have.

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
    classes = image_files.folders(train, "the archive has none such: move it elsewhere")
    if split == "train":
        listed = [(train / name / "images" / file, label) for label, name in enumerate(classes)
                  for file in _names(train / name / "images")]  # fmt: skip
    else:
        listed = _annotated(folder / "val", classes)
    if len(listed) > most:
        raise BadProduct(f"{folder}: {len(listed)} images, where at most {most} can be right")
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        images = list(pool.map(lambda item: np.asarray(image_files.decode(item[0], (side, side))), listed))
    labels = np.array([label for _, label in listed], dtype=np.int64)
    return np.stack(images) if images else np.empty((0, side, side, 3), dtype=np.uint8), labels


def _names(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise BadInput(f"tiny-imagenet: no folder {folder}; run `ipbench data fetch tiny-imagenet`")
    return image_files.names(folder, "the archive has none such: move it elsewhere")


def _annotated(folder: Path, classes: list[str]) -> list[tuple[Path, int]]:
    """The files of the validation part with their labels: its images lie in one folder, a table tells their classes."""
    table = folder / "val_annotations.txt"
    try:
        lines = files.read(table, _MOST_BYTES).decode().splitlines()
    except files.Missing:
        raise BadInput(f"tiny-imagenet: no file {table}; run `ipbench data fetch tiny-imagenet`") from None
    except UnicodeDecodeError:
        raise BadProduct(f"{table}: not a text") from None
    ranks = {name: label for label, name in enumerate(classes)}
    listed = []
    for number, line in enumerate(lines, start=1):
        parts = line.split("\t")
        if len(parts) < 2 or parts[1] not in ranks or Path(parts[0]).name != parts[0]:
            raise BadProduct(f"{table}: line {number} is not a file name and a class of the training part")
        listed.append((folder / "images" / parts[0], ranks[parts[1]]))
    return sorted(listed, key=lambda item: (item[1], item[0].name))
