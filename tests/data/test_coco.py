"""Files of annotations in COCO's format: what is read, left out, cut, refused."""

import json

import numpy as np
import pytest

from ipbench import files
from ipbench.cli.main import main
from ipbench.data import coco, coco_folder
from ipbench.data.catalog import dataset
from ipbench.errors import BadInput, BadProduct

from .coco_files import SIZES, described, write_annotations, write_coco
from .conftest import one_line


def read(told, tmp_path, classes=80, **more):
    path = tmp_path / "instances.json"
    path.write_text(told if isinstance(told, str) else json.dumps(told))
    return coco.read(path, classes, **more)


def test_what_a_file_says(tmp_path):
    found = read(described(), tmp_path)
    assert len(found) == 6 and found.note == "" and found.left_out == found.clipped == 0
    # By their ids, which fall while the names rise.
    assert found.files == tuple(f"{number:012}.jpg" for number in (5, 4, 3, 2, 1, 0))
    assert found.sizes.tolist() == [list(size[:2]) for size in reversed(SIZES)]
    assert found.categories == ("cat", "tram", "brush") and found.category_ids == (3, 7, 90)
    assert found.images.tolist() == [0, 1, 2, 3, 4, 5, 5]
    assert found.labels.tolist() == [3, 2, 1, 3, 2, 1, 1]
    assert found.crowd.tolist() == [False] * 6 + [True]
    assert found.boxes[5].tolist() == [4.5, 6.25, 40, 30] and found.boxes[6].tolist() == [0, 0, 30, 20]
    assert found.areas[5:].tolist() == [600, 100]
    assert found.of(5) == slice(5, 7) and found.of(0) == slice(0, 1)


def test_an_image_without_boxes(tmp_path):
    told = described()
    told["annotations"] = told["annotations"][:1]
    found = read(told, tmp_path)
    assert len(found) == 6 and found.of(2) == slice(0, 0) and found.of(5) == slice(0, 1)


@pytest.mark.parametrize("identity", [0, 7, None])
def test_ids_of_annotations_do_not_matter(tmp_path, identity):
    told = described()
    for annotation in told["annotations"]:
        annotation["id"] = identity
        if identity is None:
            del annotation["id"]
    assert read(told, tmp_path).sha256() == read(described(), tmp_path).sha256()


def test_boxes_of_no_area_are_left_out_and_counted(tmp_path):
    told = described()
    for number, box in enumerate(([10, 10, 0, 5], [10, 10, 5, 0], [80, 10, 5, 5], [10, 10, 1e-9, 5])):
        told["annotations"].append({"id": number, "image_id": 1000, "category_id": 3, "bbox": box, "iscrowd": 0})
    found = read(told, tmp_path)
    assert found.left_out == 4 and found.clipped == 0 and len(found.labels) == 7
    assert found.note == "boxes without an area left out: 4"


def test_boxes_that_reach_over_the_border_are_cut_and_counted(tmp_path):
    told = described()
    more = [[-5, 10, 25, 30], [70, 50, 20, 20.5]]
    told["annotations"] += [{"id": 1, "image_id": 1000, "category_id": 3, "bbox": box} for box in more]
    found = read(told, tmp_path)
    assert found.boxes[-2:].tolist() == [[0, 10, 20, 30], [70, 50, 10, 10]]
    assert found.areas[-2:].tolist() == [600, 100]  # where the file says nothing
    assert found.note == "boxes cut at the border of their image: 2"


def test_what_is_identity_and_what_is_not(tmp_path):
    first = read(described(), tmp_path).sha256()
    same = described()
    same["info"] = {"year": 2020}
    for annotation in same["annotations"]:
        annotation["segmentation"] = []
    same["images"].reverse()
    assert read(same, tmp_path).sha256() == first
    others = set()
    for key, value in (("bbox", [4.5, 6.25, 40, 30.5]), ("category_id", 7), ("iscrowd", 1), ("area", 601)):
        other = described()
        other["annotations"][0][key] = value
        others.add(read(other, tmp_path).sha256())
    renamed = described()
    renamed["categories"][0]["name"] = "dog"
    others.add(read(renamed, tmp_path).sha256())
    assert len(others | {first}) == 6


def change(*path, to):
    """Sets a value of what a file says."""

    def changed(told):
        inner = told
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = to
        return told

    return changed


def without(*path):
    def changed(told):
        inner = told
        for key in path[:-1]:
            inner = inner[key]
        del inner[path[-1]]
        return told

    return changed


NAN, INF = float("nan"), float("inf")
OF_FIRST = ["annotation number 0", "id 5000", "000000000000.jpg"]
#: What is wrong, and what the line says of it.
BROKEN = {
    "truncated": (lambda told: json.dumps(told)[:-40], ["not readable as JSON"]),
    "no JSON": (lambda told: "hello", ["not readable as JSON"]),
    "empty": (lambda told: "", ["not readable as JSON"]),
    "deep": (lambda told: "[" * 100_000, ["not readable as JSON"]),
    "a list": (lambda told: [told], ["COCO's format"]),
    "detections": (lambda told: [{"image_id": 1, "bbox": [1, 2, 3, 4]}], ["COCO's format"]),
    "no images": (without("images"), ["'images' is no list"]),
    "no categories": (change("categories", to=[]), ["list of categories is empty"]),
    "no annotations": (change("annotations", to=[]), ["list of annotations is empty"]),
    "empty images": (change("images", to=[]), ["list of images is empty"]),
    "an image twice": (change("images", 1, "id", to=1000), ["image number 1", "id 1000 appears twice"]),
    "a file twice": (change("images", 1, "file_name", to="000000000000.jpg"), ["image number 1", "appears twice"]),
    "a path": (change("images", 0, "file_name", to="../x.jpg"), ["image number 0", "'../x.jpg'"]),
    "no name": (without("images", 0, "file_name"), ["image number 0", "file_name is None"]),
    "no size": (without("images", 0, "width"), ["image number 0", "width is None"]),
    "size of text": (change("images", 0, "height", to="60"), ["image number 0", "height is '60'"]),
    "size of zero": (change("images", 0, "height", to=0), ["image number 0", "0 x 80 pixels"]),
    "a huge size": (change("images", 0, "height", to=10**9), ["image number 0", "1000000000 x 80 pixels"]),
    "an image of no kind": (change("images", 0, to=7), ["image number 0", "id is None"]),
    "a category twice": (change("categories", 1, "id", to=3), ["category number 1", "id 3 appears twice"]),
    "a category without name": (without("categories", 1, "name"), ["category number 1", "name is None"]),
    "unknown category": (change("annotations", 0, "category_id", to=4), [*OF_FIRST, "category_id 4"]),
    "category of text": (change("annotations", 0, "category_id", to="3"), [*OF_FIRST, "category_id is '3'"]),
    "category of true": (change("annotations", 0, "category_id", to=True), [*OF_FIRST, "category_id is True"]),
    "unknown image": (change("annotations", 0, "image_id", to=4), ["annotation number 0", "id 5000", "image_id 4"]),
    "no image": (without("annotations", 0, "image_id"), ["annotation number 0", "image_id is None"]),
    "no box": (without("annotations", 0, "bbox"), [*OF_FIRST, "bbox is None"]),
    "three numbers": (change("annotations", 0, "bbox", to=[1, 2, 3]), [*OF_FIRST, "bbox is [1, 2, 3]"]),
    "negative width": (change("annotations", 0, "bbox", to=[9, 9, -3, 4]), [*OF_FIRST, "negative size"]),
    "not a number": (change("annotations", 0, "bbox", to=[9, NAN, 3, 4]), [*OF_FIRST, "finite"]),
    "infinite": (change("annotations", 0, "bbox", to=[9, 9, INF, 4]), [*OF_FIRST, "finite"]),
    "huge": (change("annotations", 0, "bbox", to=[9, 9, 10**400, 4]), [*OF_FIRST, "finite"]),
    "a text": (change("annotations", 0, "bbox", to=["9", 9, 3, 4]), [*OF_FIRST, "finite"]),
    "outside": (change("annotations", 0, "bbox", to=[90, 9, 3, 4]), ["000000000000.jpg", "outside", "60 x 80"]),
    "before": (change("annotations", 0, "bbox", to=[-9, 9, 3, 4]), ["000000000000.jpg", "outside", "60 x 80"]),
    "negative area": (change("annotations", 0, "area", to=-1), [*OF_FIRST, "area is -1"]),
    "area that is no number": (change("annotations", 0, "area", to=NAN), [*OF_FIRST, "area is nan"]),
    "a crowd of seven": (change("annotations", 0, "iscrowd", to=7), [*OF_FIRST, "iscrowd is 7"]),
    "an annotation of no kind": (change("annotations", 0, to=None), ["annotation number 0", "image_id is None"]),
    "no box with an area": (
        change("annotations", to=[{"image_id": 1000, "category_id": 3, "bbox": [1, 1, 0, 1]}]),
        ["no box with an area among its 1 annotations"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_refused_in_one_line(tmp_path, name):
    break_it, says = BROKEN[name]
    with pytest.raises(BadProduct) as error:
        read(break_it(described()), tmp_path)
    one_line(error, "instances.json", *says)


def test_more_categories_than_there_are(tmp_path):
    with pytest.raises(BadProduct, match="3 categories, where there are at most 2"):
        read(described(), tmp_path, classes=2)


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with pytest.raises(BadProduct, match="at most 100 can be right"):
        read(described(), tmp_path, most=100)


def test_what_lies_in_a_folder(tmp_path):
    write_coco(tmp_path)
    assert coco_folder.check("coco", tmp_path) == (
        f"coco: already in {tmp_path / 'coco'}: 6 training and 2 test images with 7 and 3 boxes of 3 classes"
    )
    found = coco_folder.listing("coco", "test", tmp_path)
    assert found.folder == tmp_path / "coco/val2017" and found.annotations.files[0] == "000000000001.jpg"


@pytest.mark.parametrize(
    "height, width, expected",
    [(480, 640, (800, 1066)), (640, 480, (1066, 800)), (500, 500, (800, 800)), (100, 1000, (133, 1333)),
     (1000, 100, (1333, 133)), (3000, 4000, (800, 1066)), (1, 9000, (1, 1333)), (600, 1000, (799, 1333)),
     (800, 1333, (800, 1333))],
)  # fmt: skip
def test_sizes_by_hand(tmp_path, height, width, expected):
    told = described(1)
    told["images"][0].update(height=height, width=width)
    told["annotations"][0]["bbox"] = [0, 0, 1, 1]
    told["annotations"] = told["annotations"][:1]
    found = coco_folder.Listing(tmp_path, read(told, tmp_path))
    assert coco_folder.size(found, dataset("coco"), 0) == expected


@pytest.fixture
def folder(tmp_path):
    """A whole COCO; no two tests share a path, which a process remembers."""
    write_coco(tmp_path)
    return tmp_path


def test_missing_folder_and_file(tmp_path, folder):
    for missing in ("annotations/instances_val2017.json", "annotations/instances_train2017.json"):
        (folder / "coco" / missing).unlink()
        coco_folder.listing.cache_clear()
        with pytest.raises(BadInput) as error:
            coco_folder.check("coco", folder)
        one_line(error, missing, "annotations", "instances_{train,val}2017.json")
    with pytest.raises(BadInput) as error:
        coco_folder.check("coco", tmp_path / "elsewhere")
    one_line(error, "no folder", "train2017", "val2017/*.jpg")


def test_an_image_that_is_not_there(folder):
    (folder / "coco/train2017/000000000003.jpg").unlink()
    (folder / "coco/train2017/000000000004.jpg").unlink()
    with pytest.raises(BadProduct) as error:
        coco_folder.check("coco", folder)
    one_line(error, "000000000004.jpg", "no such file", "instances_train2017.json", "and 1 more")


def test_images_that_are_not_described_are_not_used(folder):
    before = coco_folder.sha256("coco", "train", folder)
    (folder / "coco/train2017/more.jpg").write_bytes(b"?")
    coco_folder.sha256.cache_clear()
    coco_folder.listing.cache_clear()
    assert coco_folder.sha256("coco", "train", folder) == before
    (folder / "coco/train2017/000000000003.jpg").write_bytes(b"?")
    coco_folder.sha256.cache_clear()
    assert coco_folder.sha256("coco", "train", folder) != before


def test_other_categories_in_the_test_part(folder):
    told = described(2)
    told["categories"][1]["name"] = "broom"
    write_annotations(folder, "val2017", told)
    with pytest.raises(BadProduct) as error:
        coco_folder.check("coco", folder)
    one_line(error, "instances_val2017.json", "other categories", "instances_train2017.json")


def test_a_file_of_another_size_than_described(folder):
    told = described()
    told["images"][2]["width"] = 41
    write_annotations(folder, "train2017", told)
    found = coco_folder.listing("coco", "train", folder)
    with pytest.raises(BadProduct) as error:
        coco_folder.read(found, dataset("coco"), 3)
    one_line(error, "000000000002.jpg", "40 x 40 pixels where there must be 40 x 41")


def test_the_command_line(folder, capsys):
    told = described()
    told["annotations"][0]["bbox"][2] = 0
    told["annotations"][1]["bbox"][2] = 600
    write_annotations(folder, "train2017", told)
    assert main(["data", "fetch", "coco", "--data", str(folder)]) == 0
    said = capsys.readouterr().out
    assert said.endswith(
        "; of the train part boxes without an area left out: 1, boxes cut at the border of their image: 1\n"
    )
    told["annotations"][0]["bbox"][2] = -3
    write_annotations(folder, "train2017", told)
    coco_folder.listing.cache_clear()
    before = sorted(folder.rglob("*"))
    assert main(["data", "fetch", "coco", "--data", str(folder)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and "id 5000" in captured.err
    assert sorted(folder.rglob("*")) == before


def test_a_folder_in_place_of_a_file(folder):
    path = folder / "coco/annotations/instances_train2017.json"
    path.unlink()
    path.mkdir()
    with pytest.raises(files.NotRead, match="a folder"):
        coco_folder.check("coco", folder)


def test_sizes_and_boxes_are_read_only(tmp_path):
    found = read(described(), tmp_path)
    for array in (found.sizes, found.boxes, found.labels, found.images, found.areas, found.crowd):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    assert found.boxes.dtype == np.float64
