"""A tiny COCO on disk, as users have it."""

import json
from pathlib import Path

from .conftest import noise

#: Height, width and mode of the images; some look otherwise than their names say.
SIZES = [(60, 80, "RGB"), (80, 60, "L"), (40, 40, "CMYK"), (30, 90, "RGB"), (50, 50, "RGB"), (64, 48, "RGB")]
CATEGORIES = {3: "cat", 90: "brush", 7: "tram"}


def described(images=6, first=0):
    """What COCO's file says of so many images: each has a plain box of half its size, the first one a crowd, too."""
    told = {"info": {"year": 2017}, "licenses": [], "images": [], "annotations": []}
    told["categories"] = [{"id": number, "name": name, "supercategory": "x"} for number, name in CATEGORIES.items()]
    for number in range(images):
        height, width, _ = SIZES[number % len(SIZES)]
        identity = 1000 - 7 * number  # against the order of the names
        told["images"].append(
            {"id": identity, "file_name": f"{first + number:012}.jpg", "height": height, "width": width}
        )
        told["annotations"].append(
            {
                "id": 5000 + number, "image_id": identity, "category_id": (3, 7, 90)[number % 3], "iscrowd": 0,
                "bbox": [4.5, 6.25, width / 2, height / 2], "area": width * height / 8,
                "segmentation": [[4.5, 6.25, 20, 6.25, 20, 30]],
            }
        )  # fmt: skip
    crowd = {"counts": [1, 2, 3], "size": list(SIZES[0][:2])}
    told["annotations"].append(
        {"id": 1, "image_id": 1000, "category_id": 3, "iscrowd": 1, "bbox": [0, 0, 30, 20], "area": 100,
         "segmentation": crowd}
    )  # fmt: skip
    return told


def write_coco(root: Path, train=6, test=2):
    """Images and annotations of both splits; returns what the two files say."""
    result = []
    for split, count in (("train2017", train), ("val2017", test)):
        told = described(count)
        folder = root / "coco" / split
        folder.mkdir(parents=True)
        for image, (height, width, mode) in zip(told["images"], SIZES * count, strict=False):
            noise(height, width, mode).save(folder / image["file_name"], "JPEG")
        write_annotations(root, split, told)
        result.append(told)
    return result


def write_annotations(root: Path, split: str, told: object) -> Path:
    path = root / "coco" / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(told if isinstance(told, str) else json.dumps(told))
    return path
