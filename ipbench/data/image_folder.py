"""Data sets that are folders of image files, one folder a class: their layout, and the pixels of one file.

The layout is that of torchvision's ImageFolder, which is not used to read it: it passes over files that it does not
know, so that an index would mean another image where one more file lies, and it imports all of torchvision.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from ipbench.data import image_files
from ipbench.data.catalog import DataSet, dataset
from ipbench.errors import BadInput, BadProduct

#: The folder of a split: the official validation images are the test part.
FOLDERS = {"train": "train", "test": "val"}
#: An image that is longer in proportion to its width is first cut to its middle. A random crop of one beyond 17 is its
#: middle anyhow, and FFCV stores no image above 8 MiB.
LONGEST = 32

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Listing:
    """The files of one split, by class and then by name: index i means the same file everywhere.

    Attributes:
        folder: where the folders of the classes lie.
        classes: their names, sorted; the place of a name is its label.
        names: of the files, one per sample.
        labels: (n,) int64, read-only.
    """

    folder: Path
    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: np.ndarray

    def path(self, index: int) -> Path:
        """The file of a sample."""
        return self.folder / self.classes[self.labels[index]] / self.names[index]

    @property
    def classes_sha256(self) -> str:
        """Two listings with the same one agree on what a label means."""
        return hashlib.sha256("\n".join(self.classes).encode()).hexdigest()


@lru_cache(maxsize=8)
def listing(name: str, split: Literal["train", "test"], root: Path) -> Listing:
    """List one split of a data set; a process lists it once, and opens no file.

    Args:
        name: one of `catalog.DATASETS` that is a folder.
        split: "train" or "test".
        root: the data folder.

    Raises:
        BadInput: there is no such folder; the message says which files must lie where.
        BadProduct: something lies where it does not belong, or is missing; the message names it.
    """
    facts = dataset(name)
    train, folder = (root / name / FOLDERS[part] for part in ("train", split))
    for needed in (train, folder):
        if not needed.is_dir():
            raise BadInput(
                f"{name}: no folder {needed}; it cannot be downloaded for you: get it, and {_expected(name, root)}"
            )
    classes = tuple(_folders(train, facts, root))
    found = classes if split == "train" else tuple(_folders(folder, facts, root))
    if unknown := sorted(set(found) - set(classes)):
        raise BadProduct(
            f"{folder / unknown[0]}: a class that {train} does not have; {_expected(name, root)}, of the same classes"
        )
    names: list[str] = []
    counts = np.zeros(len(classes), dtype=np.int64)
    for label, kind in enumerate(classes):
        if kind in set(found):
            files = _files(folder / kind, name, root)
            counts[label] = len(files)
            names += files
    labels = np.repeat(np.arange(len(classes)), counts)
    labels.setflags(write=False)
    return Listing(folder, classes, tuple(names), labels)


@lru_cache(maxsize=8)
def sha256(name: str, split: Literal["train", "test"], root: Path) -> str:
    """Over classes, names and sizes in bytes of the files of one split; a process looks once, and opens no file.

    Arguments and errors are those of `listing`.
    """
    found = listing(name, split, root)
    digest = hashlib.sha256()
    for label, kind in enumerate(found.classes):
        first, end = np.searchsorted(found.labels, [label, label + 1])
        digest.update(os.fsencode(kind) + b"\n")
        entries = image_files.entries(found.folder / kind) if first < end else []
        sizes = {entry.name: entry.stat().st_size for entry in entries}
        for file in found.names[first:end]:
            digest.update(os.fsencode(file) + f"\0{sizes[file]}\n".encode())
    return digest.hexdigest()


def check(name: str, root: Path) -> str:
    """Make sure that both splits of a data set lie where they should.

    Returns:
        One line: where, and how many images of how many classes.

    Raises:
        BadInput, BadProduct: as `listing`.
    """
    train, test = listing(name, "train", root), listing(name, "test", root)
    return (
        f"{name}: already in {root / name}: {len(train.labels):,} training and {len(test.labels):,} test images of"
        f" {len(train.classes):,} classes"
    )


def read(path: Path, shorter_side: int) -> np.ndarray:
    """Decode an image file to RGB and bring its shorter side to `shorter_side` pixels, both by Pillow.

    The longer side becomes `shorter_side * longer // shorter`, after an image more than `LONGEST` times as long as
    wide was cut to its middle.

    Returns:
        uint8 (height, width, 3).

    Raises:
        BadProduct: as `image_files.decode`.
    """
    from PIL import Image

    image = image_files.decode(path)
    width, height = image.size
    shorter, longer = min(image.size), min(max(image.size), LONGEST * min(image.size))
    w, h = min(width, longer), min(height, longer)
    left, top = (width - w) // 2, (height - h) // 2
    resized = shorter_side * longer // shorter
    size = (resized, shorter_side) if w > h else (shorter_side, resized)
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=(left, top, left + w, top + h)))


def in_order(function: Callable[[T], R], items: Iterable[T], workers: int, ahead: int) -> Generator[R, None, None]:
    """`map(function, items)`, computed by threads; closing it early ends them.

    Args:
        function: runs in the threads; an error in it is raised here, in its turn.
        items: what it is called with.
        workers: number of threads.
        ahead: how many results are computed before they are asked for.
    """
    waiting = iter(items)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="images")
    try:
        under_way: deque[Future[R]] = deque(pool.submit(function, item) for item in islice(waiting, ahead))
        while under_way:
            result = under_way.popleft().result()
            under_way.extend(pool.submit(function, item) for item in islice(waiting, 1))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _expected(name: str, root: Path) -> str:
    places = " and ".join(f"{root / name / folder}/CLASS/*.JPEG" for folder in FOLDERS.values())
    return f"put its images into {places}, one folder per class"


def _folders(folder: Path, facts: DataSet, root: Path) -> list[str]:
    """The names of the class folders, sorted."""
    found = image_files.folders(folder, _expected(facts.name, root))
    if not found:
        raise BadProduct(f"{folder}: holds no folder of a class; {_expected(facts.name, root)}")
    if len(found) > facts.classes:
        raise BadProduct(f"{folder}: {len(found)} folders where {facts.name} has at most {facts.classes} classes")
    return found


def _files(folder: Path, name: str, root: Path) -> list[str]:
    """The names of the image files of a class, sorted."""
    found = image_files.names(folder, _expected(name, root))
    if not found:
        raise BadProduct(f"{folder}: a class without images; {_expected(name, root)}")
    return found
