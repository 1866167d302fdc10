"""Tiny ImageNet's archive in its true layout, with few images."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ipbench.data import tiny_imagenet
from ipbench.errors import BadInput, BadProduct

from .conftest import noise, one_line


@pytest.fixture
def folder(tmp_path):
    """Three classes: three training images each (one grey), two test images of the last and one of the first."""
    root = tmp_path / "tiny-imagenet-200"
    for place, name in enumerate(("n01", "n02", "n10")):
        images = root / "train" / name / "images"
        images.mkdir(parents=True)
        (images.parent / f"{name}_boxes.txt").write_text("a\t0\t0\t1\t1\n")
        for number in range(3):
            noise(64, 64, "L" if number == 1 else "RGB").save(images / f"{name}_{number}.JPEG", quality=90 + place)
    images = root / "val" / "images"
    images.mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (64, 64), (number * 50, 0, 0)).save(images / f"val_{number}.JPEG", quality=100)
    table = "val_0.JPEG\tn10\t0\t0\t9\t9\nval_1.JPEG\tn01\t0\t0\t9\t9\nval_2.JPEG\tn10\t0\t0\t9\t9\n"
    (root / "val" / "val_annotations.txt").write_text(table)
    return root


def test_images_labels_and_order(folder):
    images, labels = tiny_imagenet.read("train", folder, 64)
    assert images.shape == (9, 64, 64, 3) and images.dtype == np.uint8
    assert labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    grey = images[1]
    assert (grey[..., 0] == grey[..., 1]).all() and (grey[..., 1] == grey[..., 2]).all()
    with Image.open(folder / "train/n02/images/n02_2.JPEG") as image:
        assert (images[5] == np.asarray(image)).all()


def test_the_test_part_is_sorted_by_class_then_name(folder):
    images, labels = tiny_imagenet.read("test", folder, 64)
    assert labels.tolist() == [0, 2, 2]
    assert [round(float(image[..., 0].mean()) / 50) for image in images] == [1, 0, 2]


def test_what_is_missing_or_broken_is_one_line(folder, tmp_path):
    with pytest.raises(BadInput) as error:
        tiny_imagenet.read("train", tmp_path / "nowhere", 64)
    one_line(error, "no folder", "ipbench data fetch tiny-imagenet")
    with pytest.raises(BadProduct) as error:
        tiny_imagenet.read("train", folder, 32)
    one_line(error, "n01_0.JPEG", "64 x 64 pixels where there must be 32 x 32")
    table = folder / "val" / "val_annotations.txt"
    table.write_text("val_0.JPEG\tn99\n")
    with pytest.raises(BadProduct) as error:
        tiny_imagenet.read("test", folder, 64)
    one_line(error, "val_annotations.txt: line 1")
    table.write_text("../val_0.JPEG\tn01\n")
    with pytest.raises(BadProduct, match="line 1"):
        tiny_imagenet.read("test", folder, 64)
    table.write_text("val_9.JPEG\tn01\n")
    with pytest.raises(BadProduct, match=r"val_9\.JPEG: no such file"):
        tiny_imagenet.read("test", folder, 64)
    (folder / "train/n01/images/n01_0.JPEG").write_bytes(b"\xff\xd8 no image")
    with pytest.raises(BadProduct) as error:
        tiny_imagenet.read("train", folder, 64)
    one_line(error, "n01_0.JPEG: not readable as an image")
    table.unlink()
    with pytest.raises(BadInput, match=r"no file .*val_annotations\.txt"):
        tiny_imagenet.read("test", folder, 64)
