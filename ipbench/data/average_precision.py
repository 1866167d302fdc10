"""Average precision of detections as COCO defines it (cocodataset.org, "Detection evaluation"), by faster-coco-eval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

#: The numbers of `average_precision`, in the order in which COCO lists them.
METRICS = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large")


def average_precision(truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """COCO's average precision, the mean over classes that are there.

    Every image of `truth` is scored, those without a box or a detection, too. At most 100 detections of an image count,
    of each class. What is found inside a crowd is no mistake, and a crowd that is not found is none.

    Detections are ranked by their scores. Equal ones are ranked by the ids of their images, then by their order in
    `detections`: in which order the images come, and so how many processes made them, does not matter.

    Args:
        truth: COCO's `images`, `annotations`, `categories`, as `boxes.truth` returns them. Ids of annotations do not
            matter. Where an image has a `scale` (vertical, horizontal), boxes and detections are divided by it first,
            since `area` of annotations is in pixels before the image was resized.
        detections: `image_id`, `category_id`, `bbox` (x, y, width, height), `score`.

    Returns:
        `METRICS`: mean over IoU thresholds 0.5, 0.55, ..., 0.95; at 0.5; at 0.75; then the first of objects with an
        area below 32^2, up to 96^2, and above. None where there is no such object; 0.0 where there is one and no
        detection.

    Raises:
        ValueError: a detection is of an image or a category that `truth` does not have, or has a number that is not
            finite or a negative size.
    """
    # Here, not above: nothing else needs it.
    from faster_coco_eval import COCO, COCOeval_faster

    scales = {image["id"]: image.get("scale", (1.0, 1.0)) for image in truth["images"]}
    known = {category["id"] for category in truth["categories"]}
    # An id of zero counts as "not matched" there, and boxes whose ids are equal as one.
    annotations = [
        {**one, "id": number, "bbox": _unscaled(one["bbox"], scales[one["image_id"]])}
        for number, one in enumerate(truth["annotations"], start=1)
    ]
    images = [{"id": image["id"], "height": image["height"], "width": image["width"]} for image in truth["images"]]
    there = COCO({"images": images, "annotations": annotations, "categories": list(truth["categories"])})
    evaluation = COCOeval_faster(there, there.loadRes(_ranked(detections, scales, known)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    numbers = map(float, evaluation.stats[: len(METRICS)])
    return {name: None if number < 0 else number for name, number in zip(METRICS, numbers, strict=True)}


def _ranked(
    detections: Sequence[Mapping[str, Any]], scales: Mapping[int, Sequence[float]], known: set[int]
) -> list[dict[str, Any]]:
    """The detections, checked, in pixels of the files, those of one image after those of another."""
    result = []
    for one in sorted(detections, key=lambda detection: detection["image_id"]):
        image, category, box, score = (one[key] for key in ("image_id", "category_id", "bbox", "score"))
        if image not in scales or category not in known:
            raise ValueError(f"a detection of image {image} and category {category}, which the truth does not have")
        if not all(map(math.isfinite, (*box, score))) or min(box[2:]) < 0:
            raise ValueError(f"a detection with the box {list(box)} and the score {score}")
        box = _unscaled(box, scales[image])
        result.append({"image_id": image, "category_id": category, "bbox": box, "score": float(score)})
    return result


def _unscaled(box: Sequence[float], scale: Sequence[float]) -> list[float]:
    y, x = scale
    return [float(box[0]) / x, float(box[1]) / y, float(box[2]) / x, float(box[3]) / y]
