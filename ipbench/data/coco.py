"""Annotations in COCO's format (cocodataset.org, "Data format"): boxes of objects, checked, as arrays."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ipbench import files
from ipbench.data.image_files import MOST_PIXELS
from ipbench.errors import BadProduct

#: Bytes of a file of annotations. COCO's largest, of 118,287 images with outlines, has 470 million.
MOST = 2**30
#: Pixels below which a side of a box is taken for none: in float32 its two ends would be one.
LEAST_SIDE = 1e-3


@dataclass(frozen=True, eq=False)
class Annotations:
    """What is to be found in the n images of one split: m boxes. Arrays are read-only.

    Attributes:
        files: names of the images, by their ids in the file: image i is the one with the (i + 1)-th smallest.
        sizes: int64 (n, 2): height, width in pixels.
        categories: names of the classes; the label of the first is 1. By their ids in the file, which may have gaps.
        category_ids: these ids.
        images: int64 (m,): which image, never decreasing; within an image boxes are in the order of the file.
        boxes: float64 (m, 4): x, y of the upper left corner, width, height, inside the image.
        labels: int64 (m,), 1 to the number of categories.
        areas: float64 (m,): as the file says (COCO's are those of outlines), else width x height.
        crowd: bool (m,): many objects as one, which is never trained on; what is found inside is no mistake.
        left_out: number of boxes in the file without an area.
        clipped: number of boxes that reached over the border of their image.
    """

    files: tuple[str, ...]
    sizes: np.ndarray
    categories: tuple[str, ...]
    category_ids: tuple[int, ...]
    images: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    left_out: int = 0
    clipped: int = 0

    def __len__(self) -> int:
        """Images."""
        return len(self.files)

    def of(self, image: int) -> slice:
        """Which boxes are in an image."""
        first, end = np.searchsorted(self.images, [image, image + 1])
        return slice(int(first), int(end))

    @property
    def note(self) -> str:
        """What is not as in the file, in a few words; empty if all is."""
        parts = [f"boxes without an area left out: {self.left_out:,}"] if self.left_out else []
        parts += [f"boxes cut at the border of their image: {self.clipped:,}"] if self.clipped else []
        return ", ".join(parts)

    def sha256(self) -> str:
        """Over images, categories and boxes: two files with the same one mean the same."""
        digest = hashlib.sha256()
        for names in (self.files, self.categories):
            digest.update(json.dumps(names).encode())
        for array in (self.sizes, self.images, self.boxes, self.labels, self.areas, self.crowd):
            digest.update(f"{array.dtype.str} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def read(path: Path, most_classes: int, most: int = MOST) -> Annotations:
    """Read a file of annotations; outlines are passed over.

    Args:
        path: the file.
        most_classes: categories that it may have.
        most: bytes that it may have.

    Raises:
        files.Missing, files.NotRead: as `files.read`.
        BadProduct: it is truncated, too large, or `checked` refuses what it says; the message names it.
    """
    content = files.read(path, most)
    try:
        told = json.loads(content, object_hook=_without_outline)
    except (ValueError, RecursionError) as error:  # ValueError: no text, no JSON
        raise BadProduct(f"{path}: not readable as JSON ({type(error).__name__}); truncated or corrupt") from None
    return checked(told, path, most_classes)


def _without_outline(value: dict[str, Any]) -> dict[str, Any]:
    """Outlines are nearly all of a file: gone at once, they take no room."""
    value.pop("segmentation", None)
    return value


def checked(told: object, path: Path, most_classes: int) -> Annotations:
    """What a file says, checked.

    Ids of annotations do not matter: some files count from 0, or repeat them. Boxes without an area are left out, those
    that reach over the border of their image are cut there; both are counted.

    Args:
        told: what stands in the file.
        path: of the file, for messages.
        most_classes: categories that it may have.

    Raises:
        BadProduct: it does not say what COCO's format asks for; an image or a category is there twice, or not at all;
            a box has a negative size, a number that is not finite, or lies outside its image; there is no box.
    """
    if not isinstance(told, dict):
        raise BadProduct(f"{path}: not annotations in COCO's format: no object with images, annotations, categories")
    names, sizes, places = _images(_listed(told, "images", path), path)
    categories = _categories(_listed(told, "categories", path), path, most_classes)
    labels = {category: label for label, category in enumerate(categories, start=1)}
    listed = _listed(told, "annotations", path)
    rows = [_row(entry, number, path, places, labels, names) for number, entry in enumerate(listed)]
    table = np.array(rows, dtype=np.float64).reshape(-1, 8)
    table = table[np.argsort(table[:, 0], kind="stable")]
    images = table[:, 0].astype(np.int64)
    boxes, outside, cut = _inside(table[:, 2:6], sizes[images])
    if outside.any():
        first = int(np.flatnonzero(outside)[0])
        height, width = sizes[images[first]]
        raise BadProduct(
            f"{path}: a box of image {names[images[first]]!r:.100} lies outside of it: x, y, width, height"
            f" {table[first, 2:6].tolist()}, and the image has {height} x {width} pixels"
        )
    kept = boxes[:, 2:].min(axis=1, initial=np.inf) >= LEAST_SIDE
    if not kept.any():
        raise BadProduct(f"{path}: no box with an area among its {len(rows):,} annotations: there is nothing to find")
    areas = np.where(np.isnan(table[:, 6]), boxes[:, 2] * boxes[:, 3], table[:, 6])
    arrays = {
        "images": images[kept],
        "boxes": boxes[kept],
        "labels": table[kept, 1].astype(np.int64),
        "areas": areas[kept],
        "crowd": table[kept, 7].astype(bool),
    }
    for array in (sizes, *arrays.values()):
        array.setflags(write=False)
    left_out, clipped = int((~kept).sum()), int((cut & kept).sum())
    return Annotations(
        names, sizes, tuple(categories.values()), tuple(categories), **arrays, left_out=left_out, clipped=clipped
    )


def _inside(boxes: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes cut at the border of their image; which of them lay outside of it, and which were cut.

    Args:
        boxes: (m, 4) x, y, width, height.
        sizes: (m, 2) height, width of their images.
    """
    limits = sizes[:, ::-1].astype(np.float64)
    first, end = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    outside = ((first > limits) | (end < 0)).any(axis=1)
    cut = ((first < 0) | (end > limits)).any(axis=1)
    corner, opposite = np.clip(first, 0, limits), np.clip(end, 0, limits)
    # Width and height of what is not cut stay as they were written, to the bit.
    return np.where(cut[:, None], np.hstack([corner, opposite - corner]), boxes), outside, cut


def _listed(told: Mapping[str, Any], key: str, path: Path) -> list[Any]:
    found = told.get(key)
    if not isinstance(found, list):
        raise BadProduct(f"{path}: not annotations in COCO's format: {key!r} is no list")
    if not found:
        raise BadProduct(f"{path}: its list of {key} is empty")
    return found


def _images(listed: Sequence[Any], path: Path) -> tuple[tuple[str, ...], np.ndarray, dict[int, int]]:
    """File names, sizes (n, 2), and the place of every id."""
    found: dict[int, tuple[str, int, int]] = {}
    seen: set[str] = set()
    for number, entry in enumerate(listed):
        where = f"{path}: image number {number} of its list"
        identity, height, width = (_whole(entry, key, where) for key in ("id", "height", "width"))
        name = entry.get("file_name")
        if not isinstance(name, str) or Path(name).name != name or not name.isprintable():
            raise BadProduct(f"{where}: file_name is {name!r:.100}, not the name of a file")
        if min(height, width) < 1 or height * width > MOST_PIXELS:
            raise BadProduct(f"{where}: {name!r:.100} has {height} x {width} pixels; an image has 1 to {MOST_PIXELS:,}")
        if identity in found or name in seen:
            twice = f"id {identity}" if identity in found else f"file {name!r:.100}"
            raise BadProduct(f"{where}: {twice} appears twice")
        found[identity] = (name, height, width)
        seen.add(name)
    ordered = sorted(found)
    sizes = np.array([found[identity][1:] for identity in ordered], dtype=np.int64)
    return tuple(found[identity][0] for identity in ordered), sizes, {one: place for place, one in enumerate(ordered)}


def _categories(listed: Sequence[Any], path: Path, most: int) -> dict[int, str]:
    """The names of the categories by their ids, in the order of the ids."""
    if len(listed) > most:
        raise BadProduct(f"{path}: {len(listed):,} categories, where there are at most {most}")
    found: dict[int, str] = {}
    for number, entry in enumerate(listed):
        where = f"{path}: category number {number} of its list"
        identity, name = _whole(entry, "id", where), entry.get("name")
        if not isinstance(name, str) or not name.isprintable():
            raise BadProduct(f"{where}: name is {name!r:.100}, not a text")
        if identity in found:
            raise BadProduct(f"{where}: id {identity} appears twice")
        found[identity] = name
    return dict(sorted(found.items()))


def _row(
    entry: Any, number: int, path: Path, places: Mapping[int, int], labels: Mapping[int, int], names: Sequence[str]
) -> tuple[float, ...]:
    """Place of the image, label, x, y, width, height, area (nan if it is not told), crowd of one annotation."""
    where = f"{path}: annotation number {number} of its list"
    if isinstance(entry, dict) and "id" in entry:
        where += f" (id {entry['id']!r:.40})"
    image = _whole(entry, "image_id", where)
    if image not in places:
        raise BadProduct(f"{where}: image_id {image} is that of no image of the file")
    where += f", of image {names[places[image]]!r:.100}"
    category = _whole(entry, "category_id", where)
    if category not in labels:
        raise BadProduct(f"{where}: category_id {category} is that of no category of the file")
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_finite, box)):
        raise BadProduct(f"{where}: bbox is {box!r:.100}, not four finite numbers: x, y, width, height")
    if min(box[2:]) < 0:
        raise BadProduct(f"{where}: bbox {box} has a negative size; it is x, y, width, height")
    area = entry.get("area", math.nan)
    if "area" in entry and (not _finite(area) or area < 0):
        raise BadProduct(f"{where}: area is {area!r:.40}, not a number of pixels")
    crowd = entry.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise BadProduct(f"{where}: iscrowd is {crowd!r:.40}, not 0 or 1")
    return (places[image], labels[category], *map(float, box), float(area), float(crowd))


def _finite(value: object) -> bool:
    """Whether it is a number that a float holds."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15 and math.isfinite(value)


def _whole(entry: Any, key: str, where: str) -> int:
    """A whole number of an entry."""
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 2**63:
        raise BadProduct(f"{where}: {key} is {value!r:.40}, not a whole number")
    return value
