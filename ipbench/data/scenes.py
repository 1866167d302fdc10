"""The data set `fashion-scenes` on disk: made by `ipbench data make`, read back with a check.

Below the data folder lie `fashion-scenes/annotations/instances_{train,test}.json`, products with a checksum that are
COCO's format as well, and beside them all pixels of a split in one IDX file, as those of Fashion-MNIST.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np

from ipbench import files, store
from ipbench.data import coco, scene_making, sources
from ipbench.data.catalog import dataset
from ipbench.data.formats import read_idx
from ipbench.data.sources import Split
from ipbench.errors import BadInput, BadProduct

NAME = "fashion-scenes"
_MAKE = f"`ipbench data make {NAME}` makes it"


class Scenes(NamedTuple):
    """One split, read-only."""

    images: np.ndarray
    """uint8 (n, height, width, 1)"""
    annotations: coco.Annotations


def annotations_path(split: Split, root: Path) -> Path:
    """Where the annotations of a split lie."""
    return root / NAME / "annotations" / f"instances_{split}.json"


def images_path(split: Split, root: Path) -> Path:
    """Where the pixels of a split lie."""
    return root / NAME / f"{split}-images-idx3-ubyte"


def make(root: Path) -> str:
    """Make both splits from Fashion-MNIST, unless they are there, whole.

    Returns:
        One line: what was done, and where the files lie.

    Raises:
        BadInput, BadProduct: Fashion-MNIST is missing, or broken.
        store.NotWritten: the system refuses; what was there is as it was.
    """
    try:
        train, test = (load(split, root).annotations for split in get_args(Split))
        counts = f"{len(train):,} training and {len(test):,} test scenes with {len(train.labels):,} and"
        return f"{NAME}: already in {root / NAME}: {counts} {len(test.labels):,} boxes"
    except files.NotRead:  # nothing is known of it
        raise
    except BadInput:
        load.cache_clear()
    contents: dict[Path, bytes] = {}
    told = []
    for split in get_args(Split):
        found, described = _made(split, root)
        image_bytes = _idx(found)
        contents[images_path(split, root)] = image_bytes
        described["images_sha256"] = hashlib.sha256(image_bytes).hexdigest()
        contents[annotations_path(split, root)] = store.json_content(described)
        told.append(f"{len(found):,} {'training' if split == 'train' else 'test'} scenes")
    store.write_together(contents)
    for split in get_args(Split):
        load(split, root)
    return f"{NAME}: {' and '.join(told)} made from Fashion-MNIST in {root / NAME}"


def _made(split: Split, root: Path) -> tuple[np.ndarray, dict[str, object]]:
    """Pixels uint8 (n, height, width) of a split, and what its annotations say."""
    garments = sources.load("fashion-mnist", split, root)
    facts = dataset(NAME)
    count = (facts.train if split == "train" else facts.test) or 0
    found = list(scene_making.scenes(count, split, garments.images[..., 0], garments.labels))
    return np.stack([scene.image for scene in found]), scene_making.described(found, images_path(split, root).name)


def _idx(images: np.ndarray) -> bytes:
    """An IDX file of unsigned bytes."""
    sizes = b"".join(size.to_bytes(4, "big") for size in images.shape)
    return bytes([0, 0, 8, images.ndim]) + sizes + images.tobytes()


@lru_cache(maxsize=4)
def load(split: Split, root: Path) -> Scenes:
    """Read one split; a process reads it once.

    Raises:
        BadInput: a file is missing; the message says how to make it.
        BadProduct: a file is truncated, altered, or not the published one; the message names it.
    """
    facts = dataset(NAME)
    count = (facts.train if split == "train" else facts.test) or 0
    path, pixels = annotations_path(split, root), images_path(split, root)
    try:
        told = store.read_json(path)
        images = read_idx(pixels, 2 * count * scene_making.CANVAS**2)
    except files.Missing as error:
        raise BadInput(f"{NAME}: {error}; {_MAKE}") from None
    except files.NotRead:
        raise
    except BadProduct as error:
        raise BadProduct(f"{error}; {_MAKE} anew") from None
    found = coco.checked(told, path, facts.classes)
    _, height, width = facts.shape
    if images.shape != (len(found), height, width) or len(found) != count:
        raise BadProduct(
            f"{pixels}: images of {' x '.join(map(str, images.shape))} where {path} has {len(found)} of {height} x"
            f" {width} pixels, and {NAME} {count}; {_MAKE} anew"
        )
    if hashlib.sha256(_idx(images)).hexdigest() != told.get("images_sha256"):
        raise BadProduct(f"{pixels}: altered, or not that which {path} is about; {_MAKE} anew")
    result = Scenes(images[..., None], found)
    expected = facts.published.get(count)
    if expected is not None and (is_now := _sha256(result)) != expected:
        raise BadProduct(
            f"{path}: not the published {split} part of {NAME}: the SHA-256 of its images and boxes is {is_now},"
            f" expected is {expected}; {_MAKE} anew"
        )
    return result


def sha256(split: Split, root: Path) -> str:
    """SHA-256 over pixels and annotations of a split.

    Raises:
        BadInput, BadProduct: as `load`.
    """
    return _sha256(load(split, root))


def _sha256(part: Scenes) -> str:
    digest = hashlib.sha256(f"{part.images.dtype.str} {part.images.shape}\n".encode())
    digest.update(np.ascontiguousarray(part.images).data)
    digest.update(part.annotations.sha256().encode())
    return digest.hexdigest()
