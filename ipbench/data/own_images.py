"""A user's folder of images, one folder a class: what is in it, and its images in memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ipbench import files
from ipbench.data import image_files, image_folder
from ipbench.data.catalog import DataSet
from ipbench.data.own_index import Options, Sums, held_out, joined, stamp, sums_of, test_folder
from ipbench.errors import BadInput, BadProduct
from ipbench.spec import canonical_json

#: Bytes of pixels up to which a data set is held in memory; a larger one is decoded from its files in every epoch. The
#: pixels are the same.
MOST_HELD = 2**30
_EXPECTED = "a data set is train/CLASS/*.png (.jpg, .jpeg) and val/CLASS or test/CLASS, or CLASS/*.png with test: 0.2"


@dataclass(frozen=True)
class _Seen:
    """One image, decoded."""

    sha256: str
    size: tuple[int, int]
    grey: bool
    sums: Sums


def index(place: Path, options: Options, before: Mapping[str, Any]) -> dict[str, Any]:
    """Look at a folder: the classes of each part, with digests and sums over pixels of every class.

    Args:
        place: the folder.
        options: how it is read.
        before: what was found last time; of a folder whose files look as they did then, it is taken.

    Raises:
        BadInput, BadProduct: something is missing, broken, or where it does not belong; the message names it.
    """
    parts = _parts(place, options)
    train = place / parts["train"]
    classes = _classes(train)
    if parts["test"] != parts["train"]:
        others = _classes(place / parts["test"])
        if odd := sorted({*classes} ^ {*others}):
            lacking = place / parts["test"] if odd[0] in classes else train
            raise BadInput(f"{lacking}: no class {odd[0]}, which the other part has; both parts have the same classes")
    found: dict[str, Any] = {"parts": parts, "classes": classes, "folders": {}}
    for folder in dict.fromkeys(parts.values()):
        for kind in classes:
            known = before.get("folders", {}).get(f"{folder}/{kind}", {})
            found["folders"][f"{folder}/{kind}"] = _class(place / folder / kind, kind, options, known)
    return found


def facts(place: Path, options: Options, found: Mapping[str, Any]) -> dict[str, Any]:
    """What follows from an index: fields of `DataSet`, with `sha256` and `parts`.

    Raises:
        BadInput: the images vary in size, or show nothing.
    """
    parts, classes = found["parts"], found["classes"]
    told = {
        part: [found["folders"][f"{folder}/{kind}"][part if options.share else "all"] for kind in classes]
        for part, folder in parts.items()
    }
    everything = [one for part in told.values() for one in part]
    sizes = sorted({tuple(size) for one in everything for size in one["sizes"]})
    if len(sizes) > 1:
        some = ", ".join(f"{height} x {width}" for height, width in sizes[:3])
        raise BadInput(f"{place}: its images vary in size ({some}); say to which they are brought, `image_size: 32`")
    channels = 1 if all(one["grey"] for one in everything) else 3
    mean, std = sums_of(one["sums"] for one in told["train"]).mean_std(channels, str(place / parts["train"]))
    counts = {part: sum(one["count"] for one in of) for part, of in told.items()}
    content = {
        "kind": "images", "classes": classes, "image_size": options.image_size, "resize": options.resize,
        **{part: [one["sha256"] for one in of] for part, of in told.items()},
    }  # fmt: skip
    height, width = sizes[0]
    held = options.resize is None and sum(counts.values()) * height * width * channels <= MOST_HELD
    return {
        "shape": (channels, height, width),
        "classes": len(classes),
        **counts,
        "mean": mean,
        "std": std,
        "shorter_side": None if held else options.resize or min(height, width),
        "sha256": hashlib.sha256(canonical_json(content).encode()).hexdigest(),
        "parts": parts,
    }


def listing(facts: DataSet, split: str) -> image_folder.Listing:
    """The files of one part, by class and then by name.

    Raises:
        BadInput: the folder is not known, or not there.
    """
    own = facts.own
    assert own is not None and own.place is not None
    options = Options(**own.options)
    folder = own.place / own.parts[split]
    classes = tuple(_classes(own.place / own.parts["train"]))
    names: list[str] = []
    counts = []
    for kind in classes:
        chosen = _names(folder / kind)
        if options.share is not None:
            mask = held_out(len(chosen), options.share, kind, str(folder / kind))
            chosen = [name for name, out in zip(chosen, mask.tolist(), strict=True) if out == (split == "test")]
        names += chosen
        counts.append(len(chosen))
    labels = np.repeat(np.arange(len(classes)), counts)
    labels.setflags(write=False)
    return image_folder.Listing(folder, classes, tuple(names), labels)


def read(facts: DataSet, split: str) -> tuple[np.ndarray, np.ndarray, str]:
    """All images of one part, decoded: uint8 (n, height, width, channels), labels int64 (n,), and where they lie."""
    found = listing(facts, split)
    assert facts.own is not None
    size = Options(**facts.own.options).image_size
    workers = os.cpu_count() or 1
    images = np.empty((len(found.labels), *facts.shape[1:], facts.shape[0]), dtype=np.uint8)
    decode = partial(_decoded, size=size, resize=None)
    with closing(image_folder.in_order(decode, map(found.path, range(len(images))), workers, 4 * workers)) as decoded:
        for number, pixels in enumerate(decoded):
            if pixels.shape[:2] != facts.shape[1:]:
                raise BadProduct(f"{found.path(number)}: not of the size that it had when the data set was looked at")
            images[number] = pixels[..., : facts.shape[0]]
    return images, found.labels, str(found.folder)


def _parts(place: Path, options: Options) -> dict[str, str]:
    """Where the images of "train" and "test" lie, below the folder."""
    names = {name: place / name for name in ("train", "val", "test") if (place / name).is_dir()}
    if "train" not in names:
        if options.share is None:
            raise BadInput(f"{place}: no folder train in it; {_EXPECTED}")
        return {"train": ".", "test": "."}
    test = test_folder(place, options, names)
    return {"train": "train", "test": test or "train"}


def _classes(folder: Path) -> list[str]:
    try:
        found = image_files.folders(folder, _EXPECTED)
    except OSError as error:
        raise BadInput(files.refusal(error)) from None
    if len(found) < 2:
        raise BadInput(f"{folder}: {len(found)} folders of classes, where there must be two or more; {_EXPECTED}")
    if odd := [name for name in found if not name.isprintable()]:
        raise BadInput(f"{folder}: the name of the class {odd[0]!r:.80} is not a text on one line; rename its folder")
    return found


def _names(folder: Path) -> list[str]:
    found = image_files.names(folder, _EXPECTED)
    if not found:
        raise BadInput(f"{folder}: a class without images; {_EXPECTED}")
    return found


def _class(folder: Path, kind: str, options: Options, known: Mapping[str, Any]) -> dict[str, Any]:
    """What is in the folder of a class: all of it, or by part where a share of it is the test part."""
    names = _names(folder)
    now = stamp(folder / name for name in names)
    if known.get("stamp") == now:
        return dict(known)
    seen = _looked_at([folder / name for name in names], options)
    if options.share is None:
        return {"stamp": now, "all": _summary(seen)}
    mask = held_out(len(names), options.share, kind, str(folder))
    parts = {part: [one for one, out in zip(seen, mask.tolist(), strict=True) if out == (part == "test")]
             for part in ("train", "test")}  # fmt: skip
    return {"stamp": now, **{part: _summary(of) for part, of in parts.items()}}


def _looked_at(paths: list[Path], options: Options) -> list[_Seen]:
    workers = os.cpu_count() or 1
    one = partial(_seen, size=options.image_size, resize=options.resize)
    with closing(image_folder.in_order(one, paths, workers, 4 * workers)) as found:
        return list(found)


def _seen(path: Path, size: int | None, resize: int | None) -> _Seen:
    with files.opened(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    pixels = _decoded(path, size, resize)
    sums = Sums()
    sums.add(pixels)
    grey = bool((pixels == pixels[..., :1]).all())
    return _Seen(digest, (pixels.shape[0], pixels.shape[1]), grey, sums)


def _decoded(path: Path, size: int | None, resize: int | None) -> np.ndarray:
    """An image as evaluation sees it: uint8 (height, width, 3)."""
    if size is None:
        return np.asarray(image_files.decode(path))
    pixels = image_folder.read(path, resize or size)
    top, left = ((side - size) // 2 for side in pixels.shape[:2])  # as `crops.draw` takes it
    return pixels[top : top + size, left : left + size]


def _summary(seen: list[_Seen]) -> dict[str, Any]:
    return {
        "count": len(seen),
        "sha256": joined([one.sha256 for one in seen]),
        "sizes": [list(size) for size in sorted({one.size for one in seen})[:3]],
        "grey": all(one.grey for one in seen),
        "sums": sums_of(one.sums.to_json() for one in seen).to_json(),
    }
