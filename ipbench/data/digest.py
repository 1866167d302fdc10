"""Which images a run was computed from, as one SHA-256: the same for all loaders."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import get_args

from ipbench.data import beton, coco_folder, image_folder, own, scenes, sources
from ipbench.data.catalog import DETECTION, check_loader, dataset


def of(name: str, root: Path, loader: str = "memory") -> str:
    """SHA-256 of both parts of a data set, as they lie below `root`.

    Of a data set that is held in memory it is that of the decoded pixels and the labels; of a folder of images, that
    of its classes and of the names and sizes of its files. Boxes and their classes count like pixels and labels. A
    process computes it once. Of a user's data set it is that of `own`: of the content of all files.

    Args:
        name: of a data set.
        root: the data folder.
        loader: "memory", or "ffcv", whose files carry the digest of the images that they were made from.

    Raises:
        BadInput, BadProduct: as the loader does, when the images are missing or broken.
    """
    check_loader(dataset(name), loader)
    if dataset(name).own is not None:
        return own.verified(name, root)
    parts = (f"{split} {_of_part(name, split, root, loader)}\n" for split in get_args(sources.Split))
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def _of_part(name: str, split: sources.Split, root: Path, loader: str) -> str:
    if loader == "ffcv":
        return beton.images_sha256(name, split, beton.beton_path(name, split, root))
    if name == scenes.NAME:
        return scenes.sha256(split, root)
    if dataset(name).task == DETECTION:
        return coco_folder.sha256(name, split, root)
    if dataset(name).shorter_side is not None:
        return image_folder.sha256(name, split, root)
    return sources.sha256(name, split, root)
