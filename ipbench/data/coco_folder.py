"""COCO as it is unpacked: a folder of image files for each split, and one of annotations."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ipbench import files
from ipbench.data import coco, image_files, own_boxes
from ipbench.data.catalog import DataSet, cached_by_name, dataset
from ipbench.data.sources import Split
from ipbench.errors import BadInput, BadProduct

#: The folder of a split: the official validation images are the test part.
FOLDERS: dict[str, str] = {"train": "train2017", "test": "val2017"}


@dataclass(frozen=True, eq=False)
class Listing:
    """One split.

    Attributes:
        folder: where the image files lie.
        annotations: what is to be found in them.
    """

    folder: Path
    annotations: coco.Annotations


def annotations_path(name: str, split: Split, root: Path) -> Path:
    """Where the annotations of a split lie."""
    own = dataset(name).own
    if own is not None and own.place is not None:
        return own_boxes.annotations_path(own.place, own.parts[split])
    return root / name / "annotations" / f"instances_{FOLDERS[split]}.json"


def _images_folder(name: str, split: Split, root: Path) -> Path:
    own = dataset(name).own
    return own.place / own.parts[split] if own is not None and own.place is not None else root / name / FOLDERS[split]


@cached_by_name(4)
def listing(name: str, split: Split, root: Path) -> Listing:
    """Read the annotations of one split and look whether its images are there; a process does it once.

    Raises:
        BadInput: the folder or the file is missing; the message says what must lie where.
        BadProduct: the annotations cannot be used (`coco.checked`), name an image that is not there, or have other
            categories than those of the training images; the message names file and image.
    """
    folder, path = _images_folder(name, split, root), annotations_path(name, split, root)
    if not folder.is_dir():
        raise BadInput(
            f"{name}: no folder {folder}; it cannot be downloaded for you: get it, and {_expected(name, root)}"
        )
    try:
        found = coco.read(path, dataset(name).classes)
    except files.Missing:
        raise BadInput(f"{name}: no file {path}; get COCO's annotations, and {_expected(name, root)}") from None
    there = {entry.name for entry in image_files.entries(folder) if entry.is_file()}
    if missing := [file for file in found.files if file not in there]:
        raise BadProduct(
            f"{folder / missing[0]}: no such file, but {path} describes it"
            + (f", and {len(missing) - 1:,} more that are missing" if missing[1:] else "")
        )
    if split != "train":
        train = listing(name, "train", root).annotations
        if (found.categories, found.category_ids) != (train.categories, train.category_ids):
            raise BadProduct(f"{path}: other categories than those of {annotations_path(name, 'train', root)}")
    return Listing(folder, found)


def size(found: Listing, facts: DataSet, image: int) -> tuple[int, int]:
    """Height, width to which an image is resized.

    The shorter side becomes `facts.shorter_side`; where the longer one would then exceed `facts.longer_side`, it
    becomes that, and the shorter one is in proportion. What is in proportion is rounded down.
    """
    assert facts.shorter_side is not None and facts.longer_side is not None
    height, width = found.annotations.sizes[image].tolist()
    shorter, longer = min(height, width), max(height, width)
    if facts.shorter_side * longer <= facts.longer_side * shorter:
        small, large = facts.shorter_side, facts.shorter_side * longer // shorter
    else:
        small, large = max(1, facts.longer_side * shorter // longer), facts.longer_side
    return (small, large) if height <= width else (large, small)


def read(found: Listing, facts: DataSet, image: int) -> np.ndarray:
    """Decode an image file to RGB and resize it, both by Pillow, to `size`.

    Returns:
        uint8 (height, width, 3).

    Raises:
        BadProduct: as `image_files.decode`; also where the file has another size than its annotations say.
    """
    from PIL import Image

    height, width = found.annotations.sizes[image].tolist()
    decoded = image_files.decode(found.folder / found.annotations.files[image], (width, height))
    to_height, to_width = size(found, facts, image)
    return np.asarray(decoded.resize((to_width, to_height), Image.Resampling.BILINEAR))


@cached_by_name(4)
def sha256(name: str, split: Split, root: Path) -> str:
    """Over the annotations of one split, and the names and sizes in bytes of its image files; opens no image.

    Raises:
        BadInput, BadProduct: as `listing`.
    """
    found = listing(name, split, root)
    digest = hashlib.sha256(found.annotations.sha256().encode())
    sizes = {entry.name: entry.stat().st_size for entry in image_files.entries(found.folder)}
    for file in found.annotations.files:
        digest.update(os.fsencode(file) + f"\0{sizes[file]}\n".encode())
    return digest.hexdigest()


def check(name: str, root: Path) -> str:
    """Make sure that both splits lie where they should.

    Returns:
        One line: where, how many images and boxes, and what of the boxes is left out or cut.

    Raises:
        BadInput, BadProduct: as `listing`.
    """
    train, test = (listing(name, split, root).annotations for split in ("train", "test"))
    notes = [f"; of the {part} part {found.note}" for part, found in (("train", train), ("test", test)) if found.note]
    return (
        f"{name}: already in {root / name}: {len(train):,} training and {len(test):,} test images with"
        f" {len(train.labels):,} and {len(test.labels):,} boxes of {len(train.categories)} classes{''.join(notes)}"
    )


def _expected(name: str, root: Path) -> str:
    places = " and ".join(f"{root / name / folder}/*.jpg" for folder in FOLDERS.values())
    files_there = annotations_path(name, "train", root).with_name("instances_{train,val}2017.json")
    return f"put its images into {places}, its annotations into {files_there}"
