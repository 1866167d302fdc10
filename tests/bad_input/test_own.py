"""Mistakes in users' models and data sets, and in how they are named."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.bad_input.refusing import Case, Content, case, check, lay


def png(size: tuple[int, int] = (8, 8), value: int = 7) -> bytes:
    """An image of two values."""
    file = io.BytesIO()
    pixels = np.full(size, value, dtype=np.uint8)
    pixels[0] = 255 - value
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def npz(**arrays: object) -> bytes:
    file = io.BytesIO()
    np.savez(file, **{name: np.asarray(value) for name, value in arrays.items()})
    return file.getvalue()


def folder(**changes: Content) -> dict[str, Content]:
    """Two classes of two images in both parts, `d`; a key with __ in place of / changes or adds a file."""
    files: dict[str, Content] = {
        f"d/{part}/{kind}/{number}.png": png(value=10 * number)
        for part in ("train", "val") for kind in ("cat", "dog") for number in (1, 2)
    }  # fmt: skip
    files |= {name.replace("__", "/"): content for name, content in changes.items()}
    return files


def without(*beginnings: str, **changes: Content) -> dict[str, Content]:
    return {name: content for name, content in folder(**changes).items() if not name.startswith(beginnings)}


RUN = "run --method random --recipe epochs=1 --recipe warmup=0"
DATA = f"{RUN} --dataset-folder"
#: A net of which a layer acts on some images alone, or on none that is not extreme.
CHOOSING = """
class Choosing(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 10)

    def forward(self, x):
        y = self.a(x)
        return self.fc((self.b(y) if x.sum() > LIMIT else y).mean((2, 3)))


def net(classes=10):
    return Choosing()
"""
#: A module, and what follows it: an empty line and a function.
HEAD = "import torch\nfrom torch import nn\n"
LINEAR = "nn.Sequential(nn.Flatten(), nn.Linear(64, classes))"


def model(id: str, body: str, *says: str, name: str = "net", more: str = "") -> Case:
    """A run on digits with a model file of this content."""
    words = f"{RUN} --model-file m.py --model {name} {more}"
    return case(f"model-{id}", words, *says, files={"m.py": HEAD + body})


def arrays(id: str, content: bytes, *says: str, more: str = "") -> Case:
    return case(f"arrays-{id}", f"{DATA} a.npz {more}", "a.npz", *says, files={"a.npz": content})


IMAGES, LABELS = np.arange(2 * 64, dtype=np.uint8).reshape(2, 8, 8), np.array([0, 1])
GOOD = {"train_images": IMAGES, "train_labels": LABELS, "test_images": IMAGES, "test_labels": LABELS}

MODELS = [
    case("model-file-gone", f"{RUN} --model-file gone.py --model net", "gone.py: no such file"),
    case("model-file-folder", f"{RUN} --model-file d.py --model net", "d.py", "a folder", files={"d.py": None}),
    case("model-file-text", f"{RUN} --model-file m.txt --model net", "'m.txt'", "ends in .py", files={"m.txt": ""}),
    case("model-file-alone", f"{RUN} --model-file m.py", "--model", "function", files={"m.py": HEAD}),
    case("weights-gone", f"{RUN} --model resnet18 --weights w.safetensors", "w.safetensors: no such file"),
    case("weights-name", f"{RUN} --model resnet18 --weights IMAGENET1K_V1", "ipbench data weights resnet18"),
    case("weights-path", f"{RUN} --model resnet18 --weights a/b.pth", "a/b.pth", "safetensors"),
    case("digest-name", f"{RUN} --digest x=3", "unknown digest 'x'", "code, data, weights"),
    case("digest-other", f"{RUN} --digest data={'0' * 64}", "not what was planned", "none"),
    case("label-of-ours", f"{RUN} --model resnet18 --label vgg16", "vgg16 is a model of ipbench's"),
    case("count-file-gone", "count net --model-file gone.py --input 1x8x8", "gone.py: no such file"),
    case("models-of", "models --of keras", "'keras'", "ipbench, timm, torchvision"),
    case("data-weights-of-ours", "data weights vgg16 X", "vgg16", "--weights"),
    model("choosing", CHOOSING.replace("LIMIT", "1"), "b: used for some inputs and not for others", "Choosing"),
    model(
        "choosing-rarely", CHOOSING.replace("LIMIT", "1e9"), "b.weight: not used for what was tried",
        "channels of such a net cannot be followed", more="--pattern channels --budget macs --sparsity 0.5",
    ),
    model("syntax", "def net(:\n", "m.py: does not import: SyntaxError"),
    model("no-function", "def other(shape, classes): ...\n", "unknown function 'net'", "other"),
    model("no-name", "", "a-b", "not the name of a function", name="a-b"),
    model("number", "net = 3\n", "net is int, not a function"),
    model("arguments", "def net(width): ...\n", "needs the argument 'width'", "shape and classes"),
    model("positional", "def net(classes, /): ...\n", "needs the argument 'classes'"),
    model("none", "def net(classes): ...\n", "returns NoneType", "torch.nn.Module"),
    model("raises", "def net(): raise ValueError('a\\nb')\n", "m.py: net fails: ValueError: a b"),
    model("images", "def net(): return nn.Linear(3, 10)\n", "cannot take images of 1 x 8 x 8"),
    model("classes", f"def net(classes=10): classes = 7; return {LINEAR}\n", "(2, 7)", "10 classes", "(2, 10)"),
    model("outputs", "class net(nn.Module):\n def forward(self, x): return [x]\n", "gives list in evaluation"),
    model("name-of-ours", "def vgg16(): ...\n", "vgg16", "`label`", more="--label vgg16", name="net"),
    model("label", f"def net(classes): return {LINEAR}\n", "'../x'", "not a name", more="--label ../x"),
    case(
        "weights-broken", f"{RUN} --model small-vgg --weights w.safetensors", "w.safetensors",
        files={"w.safetensors": b"\x08\0\0\0\0\0\0\0nothing "},
    ),
    case("model-twice", "grid x.yaml", "resnet18 appears twice", "`label`", files={
        "x.yaml": "datasets: digits\nsparsities: 0.5\nmethods: snip\nmodels: [small-vgg, resnet18, resnet18]\n",
    }),
    case("model-entry", "grid x.yaml", "x.yaml: models", "nam", files={
        "x.yaml": "datasets: digits\nsparsities: 0.5\nmethods: snip\nmodels: [{nam: net, name: y, file: m.py}]\n",
    }),
    case("model-of-yaml-gone", "grid c/x.yaml", "c/m.py: no such file", files={
        "c/x.yaml": "datasets: digits\nsparsities: 0.5\nmethods: snip\nmodels: [{name: net, file: m.py}]\n",
    }),
    case("data-entry", "grid x.yaml", "x.yaml: datasets", "imagesize", "image_size", files={
        "x.yaml": "datasets: [{folder: d, imagesize: 3}]\nsparsities: 0.5\nmethods: snip\n",
    }),
]  # fmt: skip

FOLDERS = [
    case("data-gone", f"{DATA} gone", "gone: no such folder"),
    case("data-file", f"{DATA} d.txt", "d.txt", "neither a folder nor a .npz file", files={"d.txt": "x"}),
    case("data-empty", f"{DATA} d", "d: no folder train in it", "CLASS/*.png", files={"d": None}),
    case("data-name", f"{DATA} d --dataset digits", "digits is a data set of ipbench's", files=folder()),
    case("data-option-alone", f"{RUN} --image-size 8", "--image-size", "--dataset-folder"),
    case("data-loader", f"{DATA} d --loader ffcv --recipe batch_size=2", "loader ffcv", "memory", files=folder()),
    case("data-batch", f"{DATA} d", "batch_size is 64", "4 images", files=folder()),
    case("data-one-class", f"{DATA} d", "d/train: 1 folders of classes", files=without("d/train/cat", "d/val/cat")),
    case("data-empty-class", f"{DATA} d", "d/train/cow: a class without images",
         files=folder(d__train__cow=None, d__val__cow=None)),
    case("data-other-classes", f"{DATA} d", "d/val: no class cow", files=folder(**{"d__train__cow__1.png": png()})),
    case("data-text", f"{DATA} d", "d/train/cat/x.txt: not an image",
         files=folder(**{"d__train__cat__x.txt": "x"})),
    case("data-image", f"{DATA} d", "d/val/dog/1.png: not readable as an image",
         files=folder(**{"d__val__dog__1.png": png()[:40]})),
    case("data-sizes", f"{DATA} d", "vary in size (8 x 8, 9 x 8)", "image_size",
         files=folder(**{"d__val__dog__1.png": png((9, 8))})),
    case("data-no-test", f"{DATA} d", "no test part", "test: 0.2", files=without("d/val")),
    case("data-two-tests", f"{DATA} d --test 0.5", "there is val, too", files=folder()),
    case("data-share", f"{DATA} d --test 1.5", "test", "1.5", files=without("d/val")),
    case("data-small-share", f"{DATA} d --test 0.1", "0.1 of 2 images is 0", files=without("d/val")),
    case("data-test-name", f"{DATA} d --test cat", "'cat'", "val, test", files=folder()),
    case("data-resize", f"{DATA} d --resize 9", "resize needs an image_size", files=folder()),
    case("data-check-gone", "data check gone", "gone: no such folder"),
    case("data-crop", f"{DATA} d --recipe batch_size=2 --recipe augmentation.random_resized_crop=true",
                       "random_resized_crop", files=folder()),
]  # fmt: skip

ARRAYS = [
    arrays("zip", b"PK nothing", "not a whole .npz file"),
    arrays("names", npz(a=IMAGES), "no train_images"),
    arrays("lacking", npz(train_images=IMAGES, train_labels=LABELS), "no test part"),
    arrays("labels-lacking", npz(images=IMAGES), "no labels", more="--test 0.5"),
    arrays("objects", npz(**{**GOOD, "train_labels": np.array([0, None], dtype=object)}), "Python objects"),
    arrays("floats", npz(**{**GOOD, "train_images": IMAGES / 255}), "float64", "uint8"),
    arrays("shape", npz(**{**GOOD, "train_images": IMAGES[0]}), "(8, 8)", "(n, height, width)"),
    arrays("labels", npz(**{**GOOD, "train_labels": [0.0, 1.0]}), "float64", "whole numbers"),
    arrays("lengths", npz(**{**GOOD, "train_labels": [0, 1, 1]}), "3 labels for 2 images"),
    arrays("negative", npz(**{**GOOD, "train_labels": [-1, 1]}), "-1 to 1"),
    arrays("gap", npz(**{**GOOD, "train_labels": [0, 2]}), "labels up to 2 on 2 images"),
    arrays("range", npz(**{**GOOD, "test_labels": [0, 2]}), "label 2", "classes 0 to 1"),
    arrays("sizes", npz(**{**GOOD, "test_images": IMAGES[:, 1:]}), "one size"),
    arrays("truncated", npz(**GOOD)[:-40], "not a whole .npz file"),
    arrays("image-size", npz(**GOOD), "image_size", more="--image-size 4"),
]

BOX = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 3, 3]}


def boxes(id: str, *says: str, **changes: object) -> Case:
    """A folder in COCO's format whose training annotations have other values."""
    told = {
        "images": [{"id": 1, "file_name": "1.png", "height": 8, "width": 8}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [BOX],
    }
    files = {
        "d/train/1.png": png(), "d/val/1.png": png(), "d/annotations/instances_val.json": json.dumps(told),
        "d/annotations/instances_train.json": json.dumps({**told, **changes}),
    }  # fmt: skip
    return case(f"boxes-{id}", f"{DATA} d", *says, files=files)


BOXES = [
    boxes("category", "category_id 2", annotations=[{**BOX, "category_id": 2}]),
    boxes("bbox", "bbox", "four finite numbers", annotations=[{**BOX, "bbox": [1, 2]}]),
    boxes("none", "its list of annotations is empty", annotations=[]),
    boxes("image", "d/train/2.png: no such file", images=[{"id": 1, "file_name": "2.png", "height": 8, "width": 8}]),
    boxes("size", "8 x 8 pixels where there must be 9 x 8",
          images=[{"id": 1, "file_name": "1.png", "height": 9, "width": 8}]),
    boxes("categories", "other categories", categories=[{"id": 1, "name": "b"}]),
    case("boxes-file", f"{DATA} d", "instances_train.json: no such file",
         files={"d/train/1.png": png(), "d/val/1.png": png(), "d/annotations": None}),
]  # fmt: skip


@pytest.mark.parametrize("bad", [*MODELS, *FOLDERS, *ARRAYS, *BOXES], ids=str)
def test_one_line_and_no_file(bad, refuses):
    refuses(bad)


@pytest.mark.parametrize("kind", ["pipe", "broken link"])
def test_no_pipe_and_no_broken_link(tmp_path: Path, monkeypatch, capfd, kind):
    from ipbench.cli.main import main

    lay(tmp_path, folder())
    odd = tmp_path / "d/train/cat/3.png"
    os.mkfifo(odd) if kind == "pipe" else odd.symlink_to("nowhere.png")
    monkeypatch.chdir(tmp_path)
    code = main([*DATA.split(), "d"])
    captured = capfd.readouterr()
    check(code, captured.out, captured.err, ["d/train/cat/3.png: not an image file"])
    assert not (tmp_path / "data").exists() and not (tmp_path / "results").exists()
