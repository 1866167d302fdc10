"""A user's images with boxes, in COCO's format: what is in a folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ipbench import files
from ipbench.data import coco, image_files, image_folder
from ipbench.data.own_index import TESTS, Options, Sums, joined, stamp, sums_of, test_folder
from ipbench.errors import BadInput
from ipbench.spec import canonical_json

#: Of a file of annotations.
MOST_CLASSES = 100_000
#: The shorter side of images where nothing else is said, and what the longer one is at most, as on COCO: 800, 1333.
SHORTER, _LONGER = 800, (5, 3)
_MULTIPLE = 32
_EXPECTED = (
    "boxes in COCO's format are train/*.jpg (.png), val/ or test/, and annotations/instances_train.json,"
    " annotations/instances_val.json (or _test); COCO's own names, train2017 and val2017, do as well"
)


def index(place: Path, options: Options, before: Mapping[str, Any]) -> dict[str, Any]:
    """Look at both parts: annotations, digests of the images, sums over their pixels.

    Args:
        place: the folder.
        options: how it is read.
        before: what was found last time; of a part whose files look as they did then, it is taken.

    Raises:
        BadInput, BadProduct: something is missing or broken; the message names it.
    """
    if options.share is not None or options.resize is not None:
        word = "a share as test part" if options.share is not None else "resize"
        raise BadInput(f"{place}: {word} is for images without boxes; {_EXPECTED}")
    parts = _parts(place, options)
    found: dict[str, Any] = {"parts": parts}
    for part, folder in parts.items():
        found[part] = _part(place, folder, before.get(part, {}) if before.get("parts") == parts else {})
    if found["train"]["categories"] != found["test"]["categories"]:
        test, train = (annotations_path(place, parts[part]) for part in ("test", "train"))
        raise BadInput(f"{test}: other categories than those of {train}")
    return found


def facts(place: Path, options: Options, found: Mapping[str, Any]) -> dict[str, Any]:
    """What follows from an index: fields of `DataSet`, with `sha256` and `parts`."""
    mean, std = sums_of([found["train"]["sums"]]).mean_std(3, str(place))
    shorter = options.image_size or SHORTER
    longer = shorter * _LONGER[0] // _LONGER[1]
    content = {
        "kind": "boxes", "train": found["train"]["sha256"], "test": found["test"]["sha256"], "image_size": shorter,
    }  # fmt: skip
    return {
        "shape": (3, shorter, -(-longer // _MULTIPLE) * _MULTIPLE),
        "classes": len(found["train"]["categories"][0]),
        "train": found["train"]["count"],
        "test": found["test"]["count"],
        "mean": mean,
        "std": std,
        "shorter_side": shorter,
        "longer_side": longer,
        "multiple": _MULTIPLE,
        "evaluation_batch": 4,
        "sha256": hashlib.sha256(canonical_json(content).encode()).hexdigest(),
        "parts": found["parts"],
    }


def annotations_path(place: Path, folder: str) -> Path:
    """Where the annotations of the images in a folder lie."""
    return place / "annotations" / f"instances_{folder}.json"


def _parts(place: Path, options: Options) -> dict[str, str]:
    called = {name: _called(place, name) for name in ("train", *TESTS)}
    names = {name: place / folder for name, folder in called.items() if folder}
    if "train" not in names:
        raise BadInput(f"{place}: no folder train in it; {_EXPECTED}")
    test = test_folder(place, options, names)
    assert test is not None  # no share is taken here
    return {"train": str(called["train"]), "test": str(called[test])}


def _called(place: Path, name: str) -> str | None:
    """What the folder of a part is called: by COCO's year, or without one."""
    return next((folder for folder in (name, f"{name}2017") if (place / folder).is_dir()), None)


def _part(place: Path, folder: str, known: Mapping[str, Any]) -> dict[str, Any]:
    path, images = annotations_path(place, folder), place / folder
    if not path.exists():
        raise BadInput(f"{path}: no such file; {_EXPECTED}")
    there = sorted((entry for entry in image_files.entries(images) if entry.is_file()), key=lambda entry: entry.name)
    now = joined([stamp(there), stamp([path])])
    if known.get("stamp") == now:
        return dict(known)
    read = coco.read(path, MOST_CLASSES)
    names = {entry.name for entry in there}
    if missing := [file for file in read.files if file not in names]:
        raise BadInput(f"{images / missing[0]}: no such file, but {path} describes it")
    workers = os.cpu_count() or 1
    one = partial(_seen, images, read)
    with closing(image_folder.in_order(one, range(len(read)), workers, 4 * workers)) as seen:
        found = list(seen)
    return {
        "stamp": now,
        "count": len(read),
        "categories": [list(read.categories), list(read.category_ids)],
        "sha256": joined([read.sha256(), *(sha256 for sha256, _ in found)]),
        "sums": sums_of(sums.to_json() for _, sums in found).to_json(),
    }


def _seen(folder: Path, read: coco.Annotations, number: int) -> tuple[str, Sums]:
    """The digest of one image's file, and the sums over its pixels."""
    path = folder / read.files[number]
    with files.opened(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    height, width = read.sizes[number].tolist()
    sums = Sums()
    sums.add(np.asarray(image_files.decode(path, (width, height))))
    return digest, sums
