"""Average precision of detections: cases with known answers, and pycocotools as a second opinion."""

import contextlib
import copy
import io
import subprocess
import sys

import numpy as np
import pytest

from ipbench.data.average_precision import METRICS, average_precision

P, Q, CROWD = [10, 10, 20, 20], [50, 50, 20, 20], [40, 40, 40, 40]


def truth(*rows, images=1, categories=(1,)):
    """Rows: image, category, box, crowd; images of 100 x 100 pixels."""
    return {
        "images": [{"id": number + 1, "width": 100, "height": 100} for number in range(images)],
        "categories": [{"id": category, "name": str(category)} for category in categories],
        "annotations": [
            {"id": number, "image_id": image, "category_id": category, "bbox": box, "area": box[2] * box[3],
             "iscrowd": crowd}
            for number, (image, category, box, crowd) in enumerate(rows, start=1)
        ],
    }  # fmt: skip


def found(*rows):
    """Rows: image, category, box, score."""
    names = ("image_id", "category_id", "bbox", "score")
    return [dict(zip(names, row, strict=True)) for row in rows]


CROWDED = found((1, 1, P, 0.5), (1, 1, [45, 45, 10, 10], 0.9), (1, 1, [60, 60, 10, 10], 0.95))
TWO = [(1, 3, P, 0), (1, 90, Q, 0)]
#: Ground truth, detections, AP. What the libraries give for ids of 0, and for unknown categories, is tested below.
CASES = {
    "perfect": (truth((1, 1, P, 0)), found((1, 1, P, 0.9)), 1.0),
    "ids with gaps": (truth(*TWO, categories=(1, 3, 90)), found((1, 3, P, 0.9), (1, 90, Q, 0.9)), 1.0),
    "corners for sizes": (truth((1, 1, P, 0)), found((1, 1, [10, 10, 30, 30], 0.9)), 0.0),
    "crowd": (truth((1, 1, P, 0), (1, 1, CROWD, 1)), CROWDED, 1.0),
    "crowd flag lost": (truth((1, 1, P, 0), (1, 1, CROWD, 0)), CROWDED, 0.168),
    "false alarm on an empty image": (truth((1, 1, P, 0), images=2), found((1, 1, P, 0.5), (2, 1, P, 0.9)), 0.5),
    "image without detections": (truth((1, 1, P, 0), (2, 1, P, 0), images=2), found((1, 1, P, 0.9)), 0.505),
    "no truth": (truth(), found((1, 1, P, 0.9)), None),
    "crowd alone": (truth((1, 1, CROWD, 1)), found((1, 1, CROWD, 0.9)), None),
    "truth of no area": (truth((1, 1, P, 0), (1, 1, [30, 30, 0, 5], 0)), found((1, 1, P, 0.9)), 0.505),
    "no images": (truth(images=0), [], None),
    "no detections": (truth((1, 1, P, 0)), [], 0.0),
    "equal scores, hit last": (truth((1, 1, P, 0)), found((1, 1, Q, 1.0), (1, 1, P, 1.0)), 0.5),
    "equal scores, hit first": (truth((1, 1, P, 0)), found((1, 1, P, 1.0), (1, 1, Q, 1.0)), 1.0),
}


@pytest.mark.parametrize("name", CASES)
def test_the_answer_is_known(name):
    there, detections, expected = CASES[name]
    before = copy.deepcopy((there, detections))
    result = average_precision(there, detections)
    assert result["map"] == (expected if expected is None else pytest.approx(expected, abs=5e-4))
    assert tuple(result) == METRICS and (there, detections) == before
    # All boxes are of at most 32 x 32 pixels, but for those of the crowd.
    if "crowd" not in name:
        assert result["map_medium"] is result["map_large"] is None


@pytest.mark.parametrize("identity", [0, 7])
def test_ids_of_annotations_do_not_matter(identity):
    """0 means "not matched" to both libraries, which find an AP of 0; of equal ids they know one box."""
    there = truth((1, 1, P, 0), (1, 1, Q, 0))
    for annotation in there["annotations"]:
        annotation["id"] = identity
    detections = found((1, 1, P, 0.9), (1, 1, Q, 0.8))
    assert average_precision(there, detections)["map"] == pytest.approx(1)
    if identity == 0:
        there["annotations"].pop()
        with pytest.warns(UserWarning):
            assert by_faster(there, detections[:1]) == 0 == by_pycocotools(there, detections[:1])[0]


@pytest.mark.parametrize(
    "row", [(1, 2, P, 0.9), (2, 1, P, 0.9), (1, 1, P, float("nan")), (1, 1, [10, 10, -5, 20], 0.9),
            (1, 1, [10, float("inf"), 5, 20], 0.9)]
)  # fmt: skip
def test_what_cannot_be_scored_is_refused(row):
    """A class's place taken for its id, for one; also where there is nothing to find."""
    for there in (truth((1, 1, P, 0), categories=(1, 3)), truth(categories=(1, 3))):
        with pytest.raises(ValueError, match="a detection "):
            average_precision(there, found(row))


def test_by_hand():
    """Two boxes, three detections: of the right one, of nothing, of the other one at an IoU of 0.6."""
    there = truth((1, 1, P, 0), (1, 1, Q, 0))
    detections = found((1, 1, P, 0.9), (1, 1, [80, 0, 9, 9], 0.8), (1, 1, [50, 50, 20, 12], 0.7))
    result = average_precision(there, detections)
    # Precision 1 up to a recall of 0.5 (51 of 101 points), then 2/3 up to IoU 0.6, and none from 0.65 on.
    at_50, above = (51 + 50 * 2 / 3) / 101, 51 / 101
    assert result["map_50"] == pytest.approx(at_50) and result["map_75"] == pytest.approx(above)
    assert result["map"] == pytest.approx((3 * at_50 + 7 * above) / 10)


def scenario(seed, equal=False):
    """Many images: boxes of all sizes, crowds, images without any; detections of them, moved, doubled, invented."""
    random = np.random.default_rng(seed)
    rows, detections = [], []
    for image in range(1, 31):
        for _ in range(random.integers(0, 7)):
            x, y = random.uniform(0, 300, 2)
            box = [float(x), float(y), *map(float, np.exp(random.uniform(1.5, 5.5, 2)))]
            category = int(random.integers(1, 5))
            rows.append((image, category, box, int(random.random() < 0.1)))
            for _ in range(random.integers(0, 3)):
                moved = [side + float(random.normal(0, 3)) for side in box]
                moved[2:] = [max(1.0, side) for side in moved[2:]]
                category = category if random.random() < 0.8 else int(random.integers(1, 5))
                score = random.integers(1, 4) / 4 if equal else random.random()
                detections.append((image, category, moved, float(score)))
    detections += [(31, 1, P, 0.99)] * 120
    return truth(*rows, images=32, categories=range(1, 6)), found(*detections)


def by_pycocotools(there, detections):
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = copy.deepcopy(there)
        known.createIndex()
        evaluation = COCOeval(known, known.loadRes(copy.deepcopy(detections)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[:6].tolist()


def by_faster(there, detections):
    from faster_coco_eval import COCO, COCOeval_faster

    known = COCO(copy.deepcopy(there))
    evaluation = COCOeval_faster(known, known.loadRes(copy.deepcopy(detections)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats[0]


@pytest.mark.parametrize("equal", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_pycocotools_agrees(seed, equal):
    there, detections = scenario(seed, equal)
    expected = [None if number < 0 else number for number in by_pycocotools(there, detections)]
    result = list(average_precision(there, detections).values())
    assert result == [number if number is None else pytest.approx(number, abs=1e-12) for number in expected]
    assert None not in result and 0 < result[0] < 1


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[1]])
def test_pycocotools_agrees_on_the_cases(name):
    there, detections, expected = CASES[name]
    assert by_pycocotools(there, detections)[0] == pytest.approx(-1 if expected is None else expected, abs=5e-4)


def test_what_the_libraries_say_of_wrong_categories():
    """Why they are refused: places of the classes taken for their ids, and the AP is 0 without a word."""
    there, detections = truth(*TWO, categories=(1, 3, 90)), found((1, 2, P, 0.9), (1, 3, Q, 0.9))
    assert by_faster(there, detections) == 0 == by_pycocotools(there, detections)[0]


def test_the_order_of_images_does_not_matter():
    """Processes give the detections of their images one after the other."""
    there, detections = scenario(5, equal=True)
    expected = average_precision(there, detections)
    for count in (2, 3, 7):
        parts = [[one for one in detections if one["image_id"] % count == rank] for rank in range(count)]
        assert average_precision(there, [one for part in reversed(parts) for one in part]) == expected
    there["images"] = there["images"][::-1]
    assert average_precision(there, detections) == expected


def test_images_that_were_resized():
    """Small, medium, large are sizes in the file; IoU is measured there, too."""
    there, detections = scenario(6)
    expected = average_precision(there, detections)
    for image in there["images"]:
        image["scale"] = [2.0, 4.0]
    for one in [*there["annotations"], *detections]:
        x, y, width, height = one["bbox"]
        one["bbox"] = [x * 4, y * 2, width * 4, height * 2]
    assert average_precision(there, detections) == expected


def test_planning_does_not_import_it():
    code = "import sys, ipbench.cli.main, ipbench.data.average_precision; assert 'faster_coco_eval' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
