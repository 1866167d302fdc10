"""Data sets of users: what is found in them, what is kept, and that the loaders give these images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ipbench.data import catalog, digest, own, own_images
from ipbench.data.catalog import DataSet
from ipbench.data.loaders import Data
from ipbench.errors import BadInput
from ipbench.spec import Augmentation

IMAGES = np.random.default_rng(0).integers(0, 256, (24, 8, 8), dtype=np.uint8)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    catalog.OWN.clear()


def lay(folder: Path, images: np.ndarray = IMAGES, parts: tuple[str, ...] = ("train", "train", "val")) -> Path:
    """Three classes, in turn; of each nine images the first six in train, or all in one folder."""
    for number, pixels in enumerate(images):
        place = folder / parts[number // 3 % len(parts)] / "abc"[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number:02}.png")
    return folder


def known(place: Path, root: Path, name: str = "mine", **said: Any) -> DataSet:
    own.data_set(own.entry({"folder": str(place), "name": name, **said}, "x"), Path(), root, "x")
    own.keep()
    return catalog.dataset(name)


def test_what_is_found_in_a_folder(tmp_path):
    facts = known(lay(tmp_path / "d"), tmp_path)
    train = IMAGES[[number for number in range(24) if number // 3 % 3 < 2]]
    assert (facts.shape, facts.classes, facts.train, facts.test) == ((1, 8, 8), 3, 18, 6)
    assert facts.mean == (round(float(train.mean()) / 255, 4),)
    assert facts.std == (round(float(train.std()) / 255, 4),)
    data = Data("mine", own.RECIPE.model_copy(update={"batch_size": 6}), 0, root=tmp_path)
    (batch,) = data.test()
    there = [number for label in range(3) for number in range(24) if number % 3 == label and number // 3 % 3 == 2]
    expected = (torch.from_numpy(IMAGES[there]).double() / 255 - facts.mean[0]) / facts.std[0]
    assert torch.allclose(batch.images[:, 0].double(), expected, atol=1e-6)
    assert batch.labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_the_same_content_is_the_same_wherever_it_lies(tmp_path):
    first = known(lay(tmp_path / "d"), tmp_path)
    second = known(lay(tmp_path / "elsewhere/e"), tmp_path, "other")
    assert first.own and second.own and first.own.sha256 == second.own.sha256
    image = next((tmp_path / "elsewhere/e/train/b").iterdir())
    Image.fromarray(255 - np.asarray(Image.open(image))).save(image)
    assert known(tmp_path / "elsewhere/e", tmp_path, "other").own.sha256 != first.own.sha256
    assert known(tmp_path / "d", tmp_path, "sized", image_size=4).own.sha256 != first.own.sha256


def test_a_second_look_opens_no_image(tmp_path, monkeypatch):
    place = lay(tmp_path / "d")
    before = known(place, tmp_path)
    opened = []
    seen = own_images._seen
    monkeypatch.setattr(own_images, "_seen", lambda path, **said: opened.append(path) or seen(path, **said))
    assert known(place, tmp_path) == before and not opened
    image = place / "train/a/00.png"
    os.utime(image, ns=(1, 1))
    assert known(place, tmp_path) == before
    assert {path.parent for path in opened} == {image.parent}  # its class alone


def test_what_changes_behind_a_plan_is_refused(tmp_path):
    place = lay(tmp_path / "d")
    facts = known(place, tmp_path)
    assert digest.of("mine", tmp_path) == facts.own.sha256
    image = place / "val/a/06.png"
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(image)
    catalog.register(replace(facts, source="anew"))  # as another process, which has not looked yet
    catalog.register(facts)
    with pytest.raises(BadInput, match="not the content that data set mine was planned with"):
        digest.of("mine", tmp_path)


def test_a_name_that_comes_to_mean_other_images(tmp_path):
    recipe = own.RECIPE.model_copy(update={"batch_size": 6})
    known(lay(tmp_path / "d"), tmp_path)
    (first,) = Data("mine", recipe, 0, root=tmp_path).test()
    known(lay(tmp_path / "e", IMAGES[::-1]), tmp_path)
    (second,) = Data("mine", recipe, 0, root=tmp_path).test()
    assert not torch.equal(first.images, second.images)


@pytest.mark.parametrize("colour", [False, True])
def test_files_and_memory_give_the_same_batches(tmp_path, monkeypatch, colour):
    images = np.stack([IMAGES, IMAGES, IMAGES[::-1]], axis=-1) if colour else IMAGES
    place = lay(tmp_path / "d", images)
    augmentation = Augmentation(flip=True, translate=2, cutout=3)
    recipe = own.RECIPE.model_copy(update={"batch_size": 5, "augmentation": augmentation})
    said = {"image_size": 6}
    held = known(place, tmp_path, "held", **said)
    monkeypatch.setattr(own_images, "MOST_HELD", 100)
    files = known(place, tmp_path, "files", **said)
    assert held.shorter_side is None and files.shorter_side == 6 and held.own.sha256 == files.own.sha256
    assert held.shape == (3 if colour else 1, 6, 6)
    for one, other in zip(*(Data(name, recipe, 1, root=tmp_path).train(2) for name in ("held", "files")), strict=True):
        assert torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)


def test_a_keyed_share_is_the_test_part(tmp_path):
    place = lay(tmp_path / "d", parts=(".",))
    facts = known(place, tmp_path, test=0.25)
    assert (facts.train, facts.test) == (18, 6)
    train, test = (own_images.listing(facts, split) for split in ("train", "test"))
    assert not {*train.names} & {*test.names} and len({*train.names, *test.names}) == 24
    assert np.bincount(test.labels).tolist() == [2, 2, 2]
    arrays = {"images": IMAGES, "labels": np.arange(24) % 3}
    np.savez(tmp_path / "a.npz", **arrays)
    (tmp_path / "n").mkdir()
    for name, array in arrays.items():
        np.save(tmp_path / "n" / f"{name}.npy", np.asfortranarray(array))
    of_a_file = known(tmp_path / "a.npz", tmp_path, "npz", test=0.25)
    of_two = known(tmp_path / "n", tmp_path, "npy", test=0.25)
    assert of_a_file.own.sha256 == of_two.own.sha256 and (of_two.train, of_two.test) == (18, 6)
    (batch,) = Data("npy", own.RECIPE.model_copy(update={"batch_size": 6}), 0, root=tmp_path).test()
    assert batch.images.shape == (6, 1, 8, 8)


def test_facts_survive_a_grid(tmp_path):
    facts = known(lay(tmp_path / "d"), tmp_path)
    told = own.to_json(facts)
    back = own.from_json(told, "x")
    assert own.moved(back, facts.own.place) == replace(facts, own=replace(facts.own, parts={}))
    with pytest.raises(BadInput, match="give --dataset-folder with the folder of that content"):
        catalog.register(back)
        digest.of("mine", tmp_path)
    with pytest.raises(BadInput, match="x: not the facts of a data set"):
        own.from_json({**told, "classes": "3"}, "x")


def test_boxes(tmp_path):
    import json

    for part in ("train", "val"):
        (tmp_path / "d" / part).mkdir(parents=True)
        (tmp_path / "d/annotations").mkdir(exist_ok=True)
        told: dict[str, list[dict[str, Any]]] = {
            "images": [],
            "annotations": [],
            "categories": [{"id": 3, "name": "a"}],
        }
        for number in range(4):
            pixels = np.random.default_rng(number).integers(0, 256, (96, 128, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "d" / part / f"{number}.png")
            told["images"].append({"id": number, "file_name": f"{number}.png", "height": 96, "width": 128})
            told["annotations"].append({"id": number, "image_id": number, "category_id": 3, "bbox": [9, 9, 30, 40]})
        (tmp_path / f"d/annotations/instances_{part}.json").write_text(json.dumps(told))
    facts = known(tmp_path / "d", tmp_path, image_size=64)
    assert (facts.task, facts.classes, facts.train, facts.shape) == ("detection", 1, 4, (3, 64, 128))
    data = Data("mine", facts.recipe.model_copy(update={"batch_size": 2}), 0, root=tmp_path)
    batch = next(data.train(0))
    assert batch.images.shape == (2, 3, 64, 96) and len(batch.targets) == 2  # 85 pixels wide, padded to 96
    assert digest.of("mine", tmp_path) == facts.own.sha256
