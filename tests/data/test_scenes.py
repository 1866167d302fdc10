"""`fashion-scenes`: what is on a scene, that every machine makes the same ones, and what lies on disk."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from ipbench import keys
from ipbench.cli.main import main
from ipbench.data import catalog, coco, digest, formats, scene_making, scenes, sources
from ipbench.errors import BadInput, BadProduct

from .conftest import one_line


def debian():
    if not sources.DEBIAN_FASHION_MNIST.is_dir():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The real data set, made once."""
    debian()
    root = tmp_path_factory.mktemp("scenes")
    scenes.make(root)
    return root


@pytest.fixture
def tiny(tmp_path, resize):
    """20 and 10 scenes."""
    debian()
    resize("fashion-scenes", 20, 10)
    scenes.make(tmp_path)
    return tmp_path


def image_of(side, value=255):
    return np.full((side, side), value, dtype=np.uint8)


def test_resizing_by_hand():
    """Two pixels become four: a triangle two new pixels wide, in whole numbers."""
    two = np.array([[0, 200], [0, 200]], dtype=np.uint8)
    assert scene_making.resized(two, 4).tolist() == [[0, 50, 150, 200]] * 4
    # Four become two: weights 3, 3, 1 of 7 on the first three.
    four = np.tile(np.array([70, 0, 0, 0], dtype=np.uint8), (4, 1))
    assert scene_making.resized(four, 2).tolist() == [[30, 0]] * 2


@pytest.mark.parametrize("side", [16, 28, 37, 44])
def test_resizing_against_another_implementation(side):
    """Pillow's triangle is the same in fixed-point numbers."""
    from PIL import Image

    image = np.random.default_rng(side).integers(0, 256, (28, 28), dtype=np.uint8)
    other = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)).astype(int)
    mine = scene_making.resized(image, side)
    assert mine.dtype == np.uint8 and np.abs(mine - other).max() <= 1
    assert (scene_making.resized(image_of(28, 77), side) == 77).all()
    if side == 28:
        assert np.array_equal(mine, image)


def test_overlap_by_hand():
    assert not scene_making._overlap((0, 0, 10, 10), (8, 0, 10, 10))  # 20 of 100
    assert scene_making._overlap((0, 0, 10, 10), (7, 0, 10, 10))
    assert scene_making._overlap((0, 0, 40, 40), (3, 3, 5, 5))  # inside, at a small IoU
    assert not scene_making._overlap((0, 0, 10, 10), (10, 10, 5, 5))


def test_scenes_of_any_images():
    """Boxes are tight, one garment hides little of another, and all that shines belongs to one."""
    images = np.stack([image_of(28) * (np.arange(28) > 3 * number)[:, None] for number in range(8)]).astype(np.uint8)
    images[7] = 0  # one that shows nothing is never chosen
    made = list(scene_making.scenes(200, "train", images, np.arange(8)))
    assert {len(scene.boxes) for scene in made} == {2, 3, 4, 5}
    for scene in made:
        assert scene.image.shape == (96, 96) and 7 not in scene.classes
        shown = np.zeros((96, 96), dtype=bool)
        for x, y, width, height in scene.boxes:
            part = scene.image[y : y + height, x : x + width]
            assert part.shape == (height, width) and 1 <= height <= 44 and 6 <= width <= 44
            assert all(edge.any() for edge in (part[0], part[-1], part[:, 0], part[:, -1]))
            shown[y : y + height, x : x + width] = True
        assert not scene.image[~shown].any()


def test_a_scene_depends_on_its_number_alone():
    images, labels = np.random.default_rng(0).integers(0, 256, (30, 28, 28), dtype=np.uint8), np.arange(30) % 10
    few, more = (list(scene_making.scenes(count, "test", images, labels)) for count in (5, 9))
    assert all(np.array_equal(a.image, b.image) and a[1:] == b[1:] for a, b in zip(few, more, strict=False))
    other = next(scene_making.scenes(1, "train", images, labels))
    assert not np.array_equal(other.image, few[0].image)


def test_the_draws():
    draws = scene_making._Draws(keys.key(0, "scenes", "train", 3))
    bits = keys.indexed_bits(keys.key(0, "scenes", "train", 3), np.arange(3))
    assert [draws.below(10), draws.below(2**32)] == [(int(bits[0]) >> 32) * 10 >> 32, int(bits[1]) >> 32]


def test_the_published_ones(whole):
    """`load` refuses others; the numbers of the catalogue are those of these."""
    facts = catalog.dataset("fashion-scenes")
    assert set(facts.published) == {4000, 1000}
    train, test = (scenes.load(split, whole) for split in ("train", "test"))
    assert scenes.sha256("train", whole) == facts.published[4000]
    assert scenes.sha256("test", whole) == facts.published[1000]
    assert train.images.shape == (4000, 96, 96, 1) and test.images.shape == (1000, 96, 96, 1)
    assert train.annotations.categories == scene_making.NAMES and train.annotations.note == ""
    per_scene = np.bincount(train.annotations.images)
    assert set(per_scene.tolist()) == {2, 3, 4, 5} and per_scene.sum() == 14_113
    pixels = train.images / np.float32(255)
    assert pixels.mean() == pytest.approx(facts.mean[0], abs=5e-5)
    assert pixels.std() == pytest.approx(facts.std[0], abs=5e-5)
    assert np.array_equal(np.unique(train.annotations.labels), np.arange(1, 11))


def test_garments_are_those_of_their_split(whole):
    """The first scene, put together again from Fashion-MNIST's images."""
    for split in ("train", "test"):
        garments, made = sources.load("fashion-mnist", split, whole), scenes.load(split, whole)
        again = next(scene_making.scenes(1, split, garments.images[..., 0], garments.labels))
        assert np.array_equal(again.image, made.images[0, :, :, 0])
        assert made.annotations.boxes[made.annotations.of(0)].tolist() == [list(map(float, box)) for box in again.boxes]
        assert (made.annotations.labels[made.annotations.of(0)] - 1).tolist() == again.classes


def test_other_tools_read_it(tiny):
    """COCO's format, by the two libraries and by our own reader of users' files."""
    path = scenes.annotations_path("train", tiny)
    found = coco.read(path, 10)
    assert found.sha256() == scenes.load("train", tiny).annotations.sha256()
    from faster_coco_eval import COCO

    assert len(COCO(str(path)).anns) == len(found.labels) and COCO(str(path)).cats[1]["name"] == "T-shirt/top"
    pixels = formats.read_idx(scenes.images_path("train", tiny))
    assert np.array_equal(pixels, scenes.load("train", tiny).images[..., 0])
    told = json.loads(path.read_text())
    assert told["images"][4] == {"id": 5, "file_name": "train-images-idx3-ubyte:4", "width": 96, "height": 96}


def files_of(root):
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*") if path.is_file()}


def test_making_twice_and_elsewhere(tiny, tmp_path_factory):
    before = files_of(tiny)
    assert len(before) == 4
    assert scenes.make(tiny).startswith(
        f"fashion-scenes: already in {tiny / 'fashion-scenes'}: 20 training and 10 test"
    )
    other = tmp_path_factory.mktemp("other")
    assert scenes.make(other) == (
        f"fashion-scenes: 20 training scenes and 10 test scenes made from Fashion-MNIST in {other / 'fashion-scenes'}"
    )
    assert list(files_of(other).values()) != [] and set(files_of(other).values()) == set(before.values())
    assert digest.of("fashion-scenes", other) == digest.of("fashion-scenes", tiny)


PIXELS, BOXES = "fashion-scenes/train-images-idx3-ubyte", "fashion-scenes/annotations/instances_train.json"


def flip_a_byte(content):
    return content[:-99] + bytes([content[-99] ^ 1]) + content[-98:]


@pytest.mark.parametrize("name", [PIXELS, BOXES])
@pytest.mark.parametrize("change", [lambda old: None, lambda old: old[:-9], lambda old: b"", flip_a_byte])
def test_damage_is_found_and_mended(tiny, name, change):
    before, path = files_of(tiny), tiny / name
    content = change(path.read_bytes())
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    scenes.load.cache_clear()
    with pytest.raises(BadInput) as error:
        scenes.load("train", tiny)
    one_line(error, path.name, "`ipbench data make fashion-scenes` makes it")
    assert isinstance(error.value, BadProduct) == (content is not None)
    assert "made from" in scenes.make(tiny)
    assert files_of(tiny) == before


def test_pixels_of_another_product(tiny, tmp_path_factory, resize):
    """Both files are whole, and do not belong together."""
    path = tiny / PIXELS
    images = formats.read_idx(path).copy()
    images[3, 50, 50] ^= 1
    path.write_bytes(scenes._idx(images))
    scenes.load.cache_clear()
    with pytest.raises(BadProduct, match="not that which"):
        scenes.load("train", tiny)


def test_another_number_of_scenes_than_expected(tiny, resize):
    resize("fashion-scenes", 21, 10)
    scenes.load.cache_clear()
    with pytest.raises(BadProduct) as error:
        scenes.load("train", tiny)
    one_line(error, "20 x 96 x 96", "fashion-scenes 21")


def test_others_than_the_published_ones_are_refused(tiny, monkeypatch):
    facts = catalog.DATASETS["fashion-scenes"]
    changed = {**vars(facts), "published": {20: "0" * 64}}
    monkeypatch.setitem(catalog.DATASETS, "fashion-scenes", catalog.DataSet(**changed))
    scenes.load.cache_clear()
    with pytest.raises(BadProduct) as error:
        scenes.load("train", tiny)
    one_line(error, "not the published train part of fashion-scenes", "0" * 64)
    scenes.load.cache_clear()


def test_any_pixel_and_any_box_count(tiny):
    part = scenes.load("train", tiny)
    pixels = part.images.copy()
    pixels[0, 0, 0] ^= 1
    boxes = part.annotations.boxes.copy()
    boxes[0, 2] += 1
    moved = coco.Annotations(**{**vars(part.annotations), "boxes": boxes})
    found = {
        scenes._sha256(one) for one in (part, scenes.Scenes(pixels, part.annotations), part._replace(annotations=moved))
    }
    assert len(found) == 3


def refuse(*_, **__):
    raise OSError("no network")


@pytest.mark.parametrize("command", ["make", "fetch"])
def test_without_fashion_mnist(tmp_path, no_debian, capsys, monkeypatch, command):
    monkeypatch.setattr("torchvision.datasets.utils.download_url", refuse)
    assert main(["data", command, "fashion-scenes", "--data", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and "ipbench data fetch fashion-mnist" in captured.err and not captured.out
    assert list(tmp_path.iterdir()) == []


def test_the_command_line(tiny, capsys):
    assert main(["data", "make", "fashion-scenes", "--data", str(tiny)]) == 0
    assert main(["data", "fetch", "fashion-scenes", "--data", str(tiny)]) == 0
    assert capsys.readouterr().out.count("fashion-scenes: already in ") == 2
    assert main(["data", "fetch", "fashion-scenes", "--data", str(tiny / "x")]) == 0
    fetched, made = capsys.readouterr().out.splitlines()
    assert fetched.startswith("fashion-mnist: already in") and made.endswith(f" in {tiny / 'x/fashion-scenes'}")
    assert main(["data", "make", "digits"]) == 2
    assert capsys.readouterr().err == "ipbench: unknown data set to make 'digits' in NAME; valid: fashion-scenes\n"
    assert main(["data", "list"]) == 0
    listed = capsys.readouterr().out
    assert all(f"{name}  (" in listed for name in catalog.DATASETS) and listed.count("(detection)") == 2
    assert main(["data", "list", "--json"]) == 0
    named = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in named] == list(catalog.DATASETS) and named[-1]["train"] is None


def test_ffcv_is_refused(tmp_path, capsys):
    says = "loader ffcv reads no boxes, which fashion-scenes has; use the loader memory\n"
    assert main(["data", "beton", "fashion-scenes", "--data", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"ipbench: {says}"
    path = tmp_path / "x.yaml"
    path.write_text(
        "name: x\ndatasets: fashion-scenes\nmodels: small-vgg\nmethods: dense\n"
        "loader: ffcv\nsparsities: 0.5\nseeds: 1\n"
    )
    assert main(["grid", str(path)]) == 2
    assert capsys.readouterr().err == f"ipbench: {path}: {says}"
    assert not Path(tmp_path / "beton").exists()
