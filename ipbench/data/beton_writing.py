"""Writing the .beton files that FFCV reads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np

from ipbench import store
from ipbench.data import beton, image_folder, sources
from ipbench.data.catalog import DataSet, dataset
from ipbench.errors import valid_choice


def write(name: str, split: sources.Split, root: Path, path: Path | None = None) -> Path:
    """Write one split as a .beton file, atomically: raw bytes and labels, in the order of the source.

    Args:
        name: one of `catalog.DATASETS`.
        split: "train" or "test".
        root: the data folder, read as by `sources.load`.
        path: where to write; `beton.beton_path` if None.

    Returns:
        The path of the file; its checksum lies beside it as .json. The same images give the same bytes.

    Raises:
        BadInput: FFCV cannot be used, or the images are not there.
        BadProduct: the files of the images are broken.
    """
    valid_choice(split, sources.SPLITS, "split")
    facts = dataset(name)
    path = beton.beton_path(name, split, root) if path is None else path
    if facts.shorter_side is not None:
        return _write_folder(facts, split, root, path, facts.shorter_side)
    images = sources.load(name, split, root)
    beton.require()
    from ipbench.data import ffcv_adapter

    with store.atomic(path) as temporary:
        samples = list(zip(images.images, images.labels.tolist(), strict=True))
        ffcv_adapter.write(temporary, samples, images.images.shape[1:])
        digest = beton.file_sha256(temporary)
    found = {"images_sha256": sources.sha256(name, split, root)}
    store.write_json(beton.product(path), {**beton.facts_of(facts, split), **found, "sha256": digest})
    return path


def _write_folder(facts: DataSet, split: sources.Split, root: Path, path: Path, shorter_side: int) -> Path:
    """`write` for images that vary in size: all are decoded, so that a broken file is found here."""
    listing = image_folder.listing(facts.name, split, root)
    beton.require()
    from PIL import __version__ as pillow

    from ipbench.data import ffcv_adapter

    workers = os.cpu_count() or 1
    read = partial(_sample, listing, shorter_side)
    samples = image_folder.in_order(read, range(len(listing.labels)), workers, 4 * workers)
    with closing(samples), store.atomic(path) as temporary:
        ffcv_adapter.write(temporary, _InTurn(len(listing.labels), samples), None)
        digest = beton.file_sha256(temporary)
    # Who decoded the images is part of what they are, and the file may be read where others are installed.
    found = {
        "count": len(listing.labels),
        "classes_sha256": listing.classes_sha256,
        "images_sha256": image_folder.sha256(facts.name, split, root),
        "pillow": pillow,
    }
    store.write_json(beton.product(path), {**beton.facts_of(facts, split), **found, "sha256": digest})
    return path


def _sample(listing: image_folder.Listing, shorter_side: int, index: int) -> tuple[np.ndarray, int]:
    return image_folder.read(listing.path(index), shorter_side), int(listing.labels[index])


class _InTurn:
    """Samples for FFCV's writer, which asks for each once and in order: made ahead, by threads."""

    def __init__(self, count: int, samples: Iterator[tuple[np.ndarray, int]]):
        self._count, self._samples = count, samples

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int, /) -> tuple[np.ndarray, int]:
        return next(self._samples)
