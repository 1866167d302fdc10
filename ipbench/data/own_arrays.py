"""A user's NumPy arrays: a .npz file, or a folder of .npy files. Nothing is unpickled."""

from __future__ import annotations

import hashlib
import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from ipbench import files
from ipbench.data.catalog import DataSet
from ipbench.data.own_index import Options, Sums, held_out, stamp, sums_of, test_folder
from ipbench.errors import BadInput, BadProduct
from ipbench.spec import canonical_json

#: Bytes of one array.
MOST = 2**34
#: Channels of an image.
MOST_CHANNELS = 64
_EXPECTED = (
    "arrays are train_images, train_labels, test_images, test_labels, or images, labels with test: 0.2; in a .npz file,"
    " or each in a .npy file"
)


def index(place: Path, options: Options, before: Mapping[str, Any]) -> dict[str, Any]:
    """Look at arrays: their shapes, digests and sums over pixels.

    Args:
        place: a .npz file, or a folder of .npy files.
        options: how they are read.
        before: what was found last time; taken if the files look as they did then.

    Raises:
        BadInput, BadProduct: one is missing, broken, or not what it should be; the message names it.
    """
    if options.image_size is not None:
        raise BadInput(f"{place}: image_size is for image files; the images of an array have the size that they have")
    with _opened(place) as names:
        now = stamp([place] if place.is_file() else [place / f"{name}.npy" for name in sorted(names)])
    if before.get("stamp") == now:
        return dict(before)
    parts, classes = {}, 0
    for part in ("train", "test"):
        images, labels, where = _part(place, options, part)
        classes = max(classes, int(labels.max()) + 1) if part == "train" else classes
        _check_labels(labels, classes, part, where)
        sums = Sums()
        sums.add(images)
        parts[part] = {
            "count": len(images), "shape": list(images.shape[1:]), "sha256": _sha256(images, labels),
            "sums": sums.to_json(),
        }  # fmt: skip
    if parts["train"]["shape"] != parts["test"]["shape"]:
        raise BadInput(
            f"{place}: training images of {parts['train']['shape']} and test images of {parts['test']['shape']}; they"
            " must have one size"
        )
    return {"stamp": now, "classes": classes, **parts}


def facts(place: Path, options: Options, found: Mapping[str, Any]) -> dict[str, Any]:
    """What follows from an index: fields of `DataSet`, with `sha256`."""
    height, width, channels = found["train"]["shape"]
    mean, std = sums_of([found["train"]["sums"]]).mean_std(channels, str(place))
    content = {"kind": "arrays", "train": found["train"]["sha256"], "test": found["test"]["sha256"]}
    return {
        "shape": (channels, height, width),
        "classes": found["classes"],
        "train": found["train"]["count"],
        "test": found["test"]["count"],
        "mean": mean,
        "std": std,
        "sha256": hashlib.sha256(canonical_json(content).encode()).hexdigest(),
    }


def read(facts: DataSet, split: str) -> tuple[np.ndarray, np.ndarray, str]:
    """One part: images uint8 (n, height, width, channels), labels int64 (n,), and where they lie."""
    own = facts.own
    assert own is not None and own.place is not None
    return _part(own.place, Options(**own.options), split)


def _part(place: Path, options: Options, part: str) -> tuple[np.ndarray, np.ndarray, str]:
    with _opened(place) as names:
        there = {name.removesuffix("_images"): place for name in names if name.endswith("_images")}
        if "train" in there:
            test = test_folder(place, options, there)
            prefix = "train_" if part == "train" or test is None else f"{test}_"
            keyed = test is None
        else:
            if options.share is None:
                raise BadInput(f"{place}: no train_images in it; {_EXPECTED}")
            prefix, keyed = "", True
        images, labels = (_array(place, names, prefix + kind) for kind in ("images", "labels"))
    where = f"{place}: {prefix}"
    images, labels = _checked(images, labels, where)
    if keyed:
        assert options.share is not None
        mask = np.zeros(len(labels), dtype=bool)
        for label in np.unique(labels).tolist():
            places = np.flatnonzero(labels == label)
            mask[places[held_out(len(places), options.share, str(label), f"{place}: class {label}")]] = True
        chosen = mask if part == "test" else ~mask
        images, labels = images[chosen], labels[chosen]
    return images, labels, where


def _checked(images: np.ndarray, labels: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
    if images.dtype != np.uint8:
        raise BadInput(f"{where}images: of type {images.dtype}; images are uint8, 0 to 255")
    if images.ndim not in (3, 4) or 0 in images.shape or (images.ndim == 4 and images.shape[3] > MOST_CHANNELS):
        raise BadInput(
            f"{where}images: of shape {images.shape}; images are (n, height, width) or (n, height, width, channels)"
        )
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise BadInput(
            f"{where}labels: of type {labels.dtype} and shape {labels.shape}; labels are whole numbers, one per image"
        )
    if len(images) != len(labels):
        raise BadInput(f"{where}labels: {len(labels)} labels for {len(images)} images")
    if int(labels.min()) < 0 or int(labels.max()) >= 2**31:
        raise BadInput(f"{where}labels: {labels.min()} to {labels.max()}; labels are 0 to the number of classes - 1")
    return (images if images.ndim == 4 else images[..., None]), labels.astype(np.int64)


def _check_labels(labels: np.ndarray, classes: int, part: str, where: str) -> None:
    if int(labels.max()) >= classes:
        raise BadInput(f"{where}labels: label {labels.max()}, where training images have classes 0 to {classes - 1}")
    if classes < 2 or (classes > len(labels) and part == "train"):
        raise BadInput(
            f"{where}labels: labels up to {classes - 1} on {len(labels)} images; there are two classes or more, and an"
            " image of each"
        )
    if part == "train" and (lacking := np.flatnonzero(np.bincount(labels, minlength=classes) == 0)).size:
        raise BadInput(f"{where}labels: no image of class {lacking[0]}, but of {classes - 1}; number them without gaps")


def _sha256(images: np.ndarray, labels: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in (np.ascontiguousarray(images), np.ascontiguousarray(labels)):
        digest.update(f"{array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()


@contextmanager
def _opened(place: Path) -> Iterator[dict[str, Any]]:
    """The arrays of a .npz file or of a folder by name, not yet read."""
    if place.is_dir():
        yield {path.stem: path for path in sorted(place.glob("*.npy"))}
        return
    with files.opened(place) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                names = [name for name in archive.namelist() if name.endswith(".npy")]
                yield {name.removesuffix(".npy"): (archive, name) for name in names}
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error, EOFError) as error:
            raise BadProduct(f"{place}: not a whole .npz file ({type(error).__name__}: {error!s:.80})") from None


def _array(place: Path, names: Mapping[str, Any], name: str) -> np.ndarray:
    if name not in names:
        raise BadInput(f"{place}: no {name} in it; {_EXPECTED}")
    found = names[name]
    if isinstance(found, Path):
        with files.opened(found) as file:
            return _parsed(file, str(found))
    archive, member = found
    with archive.open(member) as file:
        return _parsed(file, f"{place}: {name}")


def _parsed(file: IO[bytes], where: str) -> np.ndarray:
    """One array, after a look at what its header claims."""
    try:
        version = npy.read_magic(file)
        header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = header(file)
    except ValueError as error:
        raise BadProduct(f"{where}: not a whole .npy file ({' '.join(str(error).split()):.80})") from None
    if dtype.hasobject:
        raise BadInput(f"{where}: an array of Python objects, which would have to be unpickled; save numbers")
    expected = math.prod(shape) * dtype.itemsize
    if expected > MOST:
        raise BadInput(f"{where}: its header says {expected:,} bytes, and an array has at most {MOST:,}")
    content = file.read(expected + 1)
    if len(content) != expected:
        few = f"{len(content):,} bytes" if len(content) < expected else "more bytes"
        raise BadProduct(f"{where}: truncated or corrupt: {few} where its header says {expected:,}")
    return np.ndarray(shape, dtype, content, order="F" if fortran else "C")
