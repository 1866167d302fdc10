"""What is known about every data set: shapes, counts, statistics, defaults. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from ipbench.errors import BadInput, valid_choice
from ipbench.spec import Augmentation, Recipe

DETECTION = "detection"
#: What nets are trained for.
TASKS = ("classification", DETECTION)
#: Data sets that `ipbench data make` makes.
MADE = ("fashion-scenes",)


@dataclass(frozen=True)
class OwnData:
    """What a data set of a user's is made of.

    Attributes:
        kind: "images" (a folder of each class), "arrays" (NumPy's files) or "boxes" (COCO's format).
        sha256: of its content, and of how its images are brought to size.
        options: what the user said of it, as plain JSON values (`own.Options`).
        place: the folder, or the file; None where a command was told of the data set by a grid alone.
        parts: of folders: where the images of "train" and "test" lie, below `place`.
    """

    kind: str
    sha256: str
    options: Mapping[str, Any]
    place: Path | None = None
    parts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DataSet:
    """The facts about one data set.

    Attributes:
        name: as written in an experiment.
        shape: (channels, height, width) of one image.
        classes: number of classes; labels are 0 to classes - 1.
        train: number of training images, before any validation part is held out; None: as many as the source has.
        test: number of test images; None: as many as the source has.
        mean: per channel, over the training images, of pixels in 0..1.
        std: like `mean`.
        model: name of the default model.
        recipe: the default recipe.
        source: where the images come from, in one sentence.
        shorter_side: of data sets that are folders of images of any size: the pixels to which the shorter side of every
            image is brought before a crop of `shape` is taken, or, for detection, all of it; None: all images are of
            `shape`.
        longer_side: of data sets whose images are not cropped: the pixels that the longer side then has at most; the
            shorter one becomes shorter where it would have more. `shape` is that of a usual batch.
        multiple: height and width of a batch of images of different sizes are multiples of this.
        evaluation_batch: images in a batch that is only evaluated; None: `loaders.EVALUATION_BATCH`.
        task: what nets are trained for on it: one of `TASKS`.
        commonest: the share of the most frequent class among the test images; None: all are taken to be as frequent.
        published: SHA-256 of the pixels and labels of a part (`sources.sha256`, of scenes `scenes.sha256`), by its
            number of images; a part whose number is not there is recorded, and cannot be checked.
        own: of a data set of a user's.
    """

    name: str
    shape: tuple[int, int, int]
    classes: int
    train: int | None
    test: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    model: str
    recipe: Recipe
    source: str
    shorter_side: int | None = None
    longer_side: int | None = None
    multiple: int = 1
    evaluation_batch: int | None = None
    task: str = "classification"
    commonest: float | None = None
    published: Mapping[int, str] = field(default_factory=dict)
    own: OwnData | None = None


_CIFAR_RECIPE = Recipe(epochs=160, batch_size=128, augmentation=Augmentation(flip=True, translate=4))
_CIFAR_SOURCE = "the binary version from cs.toronto.edu/~kriz/cifar.html, fetched by `ipbench data fetch {}`"

DATASETS: dict[str, DataSet] = {
    data.name: data
    for data in (
        DataSet(
            name="digits",
            shape=(1, 8, 8),
            classes=10,
            train=1500,
            test=297,
            commonest=40 / 297,
            mean=(0.3051,),
            std=(0.3759,),
            model="small-vgg",
            # Digits have a handedness: no flip.
            recipe=Recipe(epochs=8, batch_size=64, schedule="cosine", warmup=1, augmentation=Augmentation(translate=1)),
            source="shipped inside scikit-learn (1,797 scanned digits); the test images are a fixed keyed part of them",
            published={
                1500: "3acf28da84887de192de82ddb0a179e72e53af3b80b541a4c882cc60ae6d9892",
                297: "51ec0608418ce8d7dc6f3515bf788a52c58a84287958047b807de3a4cccef069",
            },
        ),
        DataSet(
            name="fashion-mnist",
            shape=(1, 28, 28),
            classes=10,
            train=60_000,
            test=10_000,
            mean=(0.2860,),
            std=(0.3530,),
            model="small-vgg",
            recipe=Recipe(
                epochs=20,
                batch_size=128,
                schedule="cosine",
                warmup=1,
                augmentation=Augmentation(flip=True, translate=2),
            ),
            source="Debian's package dataset-fashion-mnist, else fetched by `ipbench data fetch fashion-mnist`",
            published={
                60_000: "f4433de9ee6e200af8fbc53d40bec21a9abe6351fec5fd1f3242208016f28158",
                10_000: "75c8852ef4621eb8a91d7c5d64660d73e79d496fdc94f4a4179a1d899369321b",
            },
        ),
        DataSet(
            name="mnist",
            shape=(1, 28, 28),
            classes=10,
            train=60_000,
            test=10_000,
            commonest=0.1135,
            mean=(0.1307,),
            std=(0.3081,),
            model="lenet5-caffe",
            # The SNIP setup of mil-ad/snip: Xavier normal, 250 epochs of batch 100, lr / 10 every 30,000 of the 150,000
            # iterations, no augmentation. Half its learning rate, warmed up: at 0.1 the dense LeNet-5 diverges here.
            recipe=Recipe(
                epochs=250,
                batch_size=100,
                lr=0.05,
                warmup=1,
                milestones=(0.2, 0.4, 0.6, 0.8),
                init="xavier_normal",
            ),
            source="the four IDX files of MNIST, fetched by `ipbench data fetch mnist`",
            published={
                60_000: "dd8107c020d490ddb33c732590f2e0e993240e282cfeb31d7cddd4248e9f7399",
                10_000: "d7beb96ef32db4eee6f8a6e0fe99aa005c69ddf1f77bb021bef87cc1cde11304",
            },
        ),
        DataSet(
            name="cifar10",
            shape=(3, 32, 32),
            classes=10,
            train=50_000,
            test=10_000,
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2470, 0.2435, 0.2616),
            model="vgg16",
            recipe=_CIFAR_RECIPE,
            source=_CIFAR_SOURCE.format("cifar10"),
        ),
        DataSet(
            name="cifar100",
            shape=(3, 32, 32),
            classes=100,
            train=50_000,
            test=10_000,
            mean=(0.5071, 0.4865, 0.4409),
            std=(0.2673, 0.2564, 0.2762),
            model="vgg16",
            recipe=_CIFAR_RECIPE,
            source=_CIFAR_SOURCE.format("cifar100"),
        ),
        DataSet(
            name="tiny-imagenet",
            shape=(3, 64, 64),
            classes=200,
            train=100_000,
            test=10_000,
            mean=(0.4802, 0.4481, 0.3975),
            std=(0.2770, 0.2691, 0.2821),
            model="resnet18-cifar",
            # GraSP's setup for 64 px: 300 epochs.
            recipe=Recipe(epochs=300, batch_size=128, augmentation=Augmentation(flip=True, translate=4)),
            source="tiny-imagenet-200.zip from cs231n.stanford.edu, fetched by `ipbench data fetch tiny-imagenet`; its"
            " validation images are the test part",
        ),
        DataSet(
            name="imagenet",
            shape=(3, 224, 224),
            classes=1000,
            # The folder decides, so that subsets of images or classes can be used.
            train=None,
            test=None,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            model="resnet50",
            # GraSP's setup: lr / 10 after every third of the training.
            recipe=Recipe(
                epochs=90,
                batch_size=256,
                weight_decay=1e-4,
                milestones=(1 / 3, 2 / 3),
                augmentation=Augmentation(random_resized_crop=True, flip=True),
            ),
            source="ILSVRC 2012 from image-net.org, or a part of it, as imagenet/train/CLASS/*.JPEG and"
            " imagenet/val/CLASS/*.JPEG in the data folder; the official validation images are the test part",
            shorter_side=256,
        ),
        DataSet(
            name="fashion-scenes",
            shape=(1, 96, 96),
            classes=10,
            train=4000,
            test=1000,
            mean=(0.0944,),
            std=(0.2360,),
            model="retinanet-small",
            recipe=Recipe(
                epochs=12,
                batch_size=16,
                lr=0.02,
                weight_decay=1e-4,
                schedule="cosine",
                warmup=1,
                augmentation=Augmentation(flip=True),
            ),
            source="made by `ipbench data make fashion-scenes`: two to five garments of Fashion-MNIST, of different"
            " size, on a canvas of 96 x 96 pixels",
            evaluation_batch=100,
            task=DETECTION,
            published={
                4000: "182a9aa4e4d6b19beb4107028e5bd2f29c0ca8e5758881d890a773fca405ef8f",
                1000: "0773c87ed50ddc3fe91e15226f6b5d1ba8aea5633962c5c532bd73a9292a4dfe",
            },
        ),
        DataSet(
            name="coco",
            shape=(3, 800, 1344),
            classes=80,
            # The folder decides, as for imagenet.
            train=None,
            test=None,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            model="retinanet_resnet50_fpn",
            # torchvision's setup of its RetinaNet, for a batch of 16.
            recipe=Recipe(
                epochs=26,
                batch_size=16,
                lr=0.01,
                weight_decay=1e-4,
                milestones=(16 / 26, 22 / 26),
                augmentation=Augmentation(flip=True),
            ),
            source="COCO 2017 from cocodataset.org, or a part of it, as coco/train2017/*.jpg, coco/val2017/*.jpg and"
            " coco/annotations/instances_{train,val}2017.json in the data folder; the official validation images are"
            " the test part",
            shorter_side=800,
            longer_side=1333,
            multiple=32,
            evaluation_batch=4,
            task=DETECTION,
        ),
    )
}


def check_recipe(facts: DataSet, recipe: Recipe, where: str = "") -> None:
    """Whether a recipe makes sense for a data set.

    Args:
        facts: of the data set.
        recipe: for it.
        where: where the user wrote it, for the message.

    Raises:
        BadInput: it moves images out of sight, crops what has one size, does with images what is not done with their
            boxes, or asks for more images than there are.
    """
    place, augmentation = f"{where}: {facts.name}" if where else facts.name, recipe.augmentation
    _, height, width = facts.shape
    if facts.task == DETECTION and (moving := {*augmentation.differences()} - {"flip"}):
        raise BadInput(f"{place}: augmentation.{min(moving)} does not move boxes; for detection there is flip alone")
    if facts.task == DETECTION and recipe.label_smoothing:
        raise BadInput(f"{place}: label_smoothing has no meaning for detection; leave it out")
    if augmentation.translate >= min(height, width):
        raise BadInput(
            f"{place}: augmentation.translate is {augmentation.translate}, which moves images of {height} x {width}"
            f" pixels out of sight; it is at most {min(height, width) - 1}"
        )
    if augmentation.random_resized_crop and facts.shorter_side is None:
        raise BadInput(
            f"{place}: augmentation.random_resized_crop is for images that vary in size; these are all of"
            f" {height} x {width} pixels, for which there is augmentation.translate"
        )
    if facts.train is None:
        return  # the folder decides
    if recipe.train_examples is not None and recipe.train_examples > facts.train:
        raise BadInput(
            f"{place}: train_examples is {recipe.train_examples}, but there are only {facts.train} training images"
        )
    left = _training_part(facts.train, recipe)
    if left < recipe.batch_size:
        raise BadInput(f"{place}: batch_size is {recipe.batch_size}, but the training part has only {left} images")


def check_loader(facts: DataSet, loader: str, where: str = "") -> None:
    """Whether a loader reads a data set.

    Raises:
        BadInput: "ffcv", whose files have no boxes, and the task is detection, or which are not written of users' data.
    """
    place = f"{where}: " if where else ""
    if loader == "ffcv" and facts.own is not None:
        raise BadInput(f"{place}loader ffcv reads the data sets that ipbench knows, and not {facts.name}; take memory")
    if loader == "ffcv" and facts.task == DETECTION:
        raise BadInput(f"{place}loader ffcv reads no boxes, which {facts.name} has; use the loader memory")


def steps_per_epoch(facts: DataSet, recipe: Recipe) -> int | None:
    """Full batches in the training part; None where the number of images is known only when they are opened."""
    return None if facts.train is None else _training_part(facts.train, recipe) // recipe.batch_size


def _training_part(images: int, recipe: Recipe) -> int:
    """How many images are trained on; as `splits.split` divides them."""
    chosen = recipe.train_examples or images
    return chosen - round(recipe.validation * chosen)


#: Data sets of users by name, as this command has been told of them (`ipbench.data.own`).
OWN: dict[str, DataSet] = {}
_FORGET: list[Callable[[], None]] = []

P = ParamSpec("P")
R = TypeVar("R")


def dataset(name: str, where: str = "") -> DataSet:
    """The data set of that name.

    Args:
        name: one of `DATASETS`, or of `OWN`.
        where: where the user wrote it, for the message.

    Raises:
        BadInput: there is none; the message names the nearest and all the valid ones.
    """
    found = known(name)
    return found if found is not None else DATASETS[valid_choice(name, {**DATASETS, **OWN}, "data set", where)]


def known(name: str) -> DataSet | None:
    """The data set of that name; None if there is none."""
    return DATASETS.get(name) or OWN.get(name)


def register(facts: DataSet) -> None:
    """Make a user's data set known to this process; what was read of another one of its name is forgotten.

    Raises:
        BadInput: ipbench has one of that name.
    """
    assert facts.own is not None
    if facts.name in DATASETS:
        raise BadInput(f"{facts.name} is a data set of ipbench's; give yours another name")
    before = OWN.get(facts.name)
    if before is not None and before != facts:
        for forget in _FORGET:
            forget()
    OWN[facts.name] = facts


def cached_by_name(most: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """`lru_cache` for what is read of a data set by its name: emptied when a name comes to mean another one."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        cached = lru_cache(maxsize=most)(function)
        _FORGET.append(cached.cache_clear)
        return cached  # type: ignore[return-value]

    return decorate
