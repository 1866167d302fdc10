"""Data sets of users: folders of images in classes, NumPy's arrays, COCO's format. What they hold is looked at once.

What is found (counts, classes, size, mean and standard deviation, digests) is kept in `ROOT/own/NAME.KEY.json`, with
the sizes and dates of the files. A job compares these, which opens no image; only what has changed is read again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field

from ipbench import files, store
from ipbench.data import own_arrays, own_boxes, own_images
from ipbench.data.catalog import DATASETS, DETECTION, OWN, DataSet, OwnData, register
from ipbench.data.own_index import Options
from ipbench.errors import BadInput, BadProduct
from ipbench.spec import NAME, Augmentation, Name, Recipe, Text, Value, build, identity

#: What a net is trained with on a user's data set, where nothing else is said. No augmentation: whether a mirrored
#: image is one of the same class, only its owner knows.
RECIPE = Recipe(epochs=30, batch_size=64, lr=0.05, schedule="cosine", warmup=1)
#: Likewise for detection: torchvision's setup of its RetinaNet, as for COCO.
RECIPE_OF_BOXES = Recipe(
    epochs=26, batch_size=16, lr=0.01, weight_decay=1e-4, milestones=(16 / 26, 22 / 26),
    augmentation=Augmentation(flip=True),
)  # fmt: skip
#: The default models.
MODEL, MODEL_OF_BOXES = "small-vgg", "retinanet_resnet50_fpn"

#: Raised when what is kept of a data set, or how it is found, changes: it is looked at again then.
LAYOUT = 1
#: Seconds of a look at a data set whose result is kept even if the command then refuses something else.
WORTH_KEEPING = 10.0
_PENDING: dict[Path, dict[str, Any]] = {}
_SOURCES = {
    "images": "a user's: files of images in folders of classes",
    "arrays": "a user's: NumPy's arrays",
    "boxes": "a user's: images with boxes, in COCO's format",
}
_KINDS = {"images": own_images, "arrays": own_arrays, "boxes": own_boxes}


class Entry(Value):
    """What an experiment says of a user's data set."""

    folder: Text = Field(description="a folder, or a .npz file")
    name: Name | None = Field(None, description="in runs and tables; that of the folder if left out")
    image_size: Any = None
    resize: Any = None
    test: Any = None

    @property
    def options(self) -> Options:
        """What decides how the data set is read."""
        return Options(**self._said)

    @property
    def _said(self) -> dict[str, Any]:
        return {"image_size": self.image_size, "resize": self.resize, "test": self.test}


def entry(values: object, where: str) -> Entry:
    """Check what a user says of a data set.

    Raises:
        BadInput: an unknown key, or a value out of range.
    """
    found = build(Entry, values, where)
    build(Options, found._said, where)
    return found


def data_set(told: Entry, folder: Path, root: Path, where: str, *, trust: bool = False) -> str:
    """Make a data set known to this process by what a user says of it: it is looked at, if it was not before.

    Args:
        told: what the user says.
        folder: that its path is relative to.
        root: the data folder, which keeps what is found.
        where: how a user would find it.
        trust: take what was found last time without a look at the files, where there is such.

    Returns:
        The name of the data set in runs.

    Raises:
        BadInput, BadProduct: it is missing, or not as it should be; the message names the file.
    """
    place = folder / told.folder
    name = told.name or (place.stem if place.suffix == ".npz" else place.resolve().name)
    if not NAME.fullmatch(name):
        raise BadInput(f"{where}: {name!r:.80} is not a name: give the data set one with `name`")
    if name in DATASETS:
        raise BadInput(f"{where}: {name} is a data set of ipbench's; give {place} another name")
    register(look(name, place, told.options, root, trust=trust))
    return name


def look(name: str, place: Path, options: Options, root: Path, *, trust: bool = False) -> DataSet:
    """The facts about a data set as it is now.

    Args:
        name: of the data set.
        place: the folder, or the file.
        options: how it is read.
        root: the data folder.
        trust: as of `data_set`.

    Raises:
        BadInput, BadProduct: as `data_set`.
    """
    index = index_path(name, place, options, root)
    before = _PENDING.get(index) or _kept(index)
    if trust and before:
        return _facts(name, before["kind"], place, options, before["found"])
    begin = time.monotonic()
    kind = _kind(place)
    found = _KINDS[kind].index(place, options, before.get("found", {}) if before.get("kind") == kind else {})
    facts = _facts(name, kind, place, options, found)
    told = {"layout": LAYOUT, "place": str(place.resolve()), "kind": kind, "sha256": _own(facts).sha256, "found": found}
    if told != before:
        _PENDING[index] = told
        if time.monotonic() - begin > WORTH_KEEPING:
            keep()
    return facts


def keep() -> None:
    """Write what was found of data sets since: of a command whose input is bad nothing is written, unless it took long.

    Raises:
        NotWritten: the system refuses.
    """
    while _PENDING:
        store.write_json(*_PENDING.popitem())


def index_path(name: str, place: Path, options: Options, root: Path) -> Path:
    """Where what was found of a data set is kept."""
    key = identity({"place": str(place.resolve()), **options.differences()})
    return root.absolute() / "own" / f"{name}.{key}.json"


def verified(name: str, root: Path) -> str:
    """The digest of a data set's content, after a look at whether its files are still those that it was taken of.

    Each run looks: several of one process may have hours between them.

    Raises:
        BadInput: they are not, or this command does not know where they are; one line says what is needed.
    """
    facts = OWN[name]
    own = _own(facts)
    if own.place is None:
        raise BadInput(needed(name, own.sha256))
    now = _own(look(name, own.place, Options(**own.options), root)).sha256
    keep()
    if now != own.sha256:
        raise changed(name, own.place, now, own.sha256)
    return now


def words(name: str) -> list[str]:
    """Options of `ipbench run` that tell it of a data set, known or a user's, but for where it lies."""
    options = _own(OWN[name]).options if name in OWN else {}
    return ["--dataset", name, *(word for key, value in options.items() for word in _option(key, value))]


def _option(key: str, value: object) -> tuple[str, str]:
    return f"--{key.replace('_', '-')}", str(value)


def places(name: str) -> list[str]:
    """Options of `ipbench run` that tell it where a user's data set lies."""
    place = _own(OWN[name]).place if name in OWN else None
    return ["--dataset-folder", str(place)] if place is not None else []


def check(name: str, sha256: str) -> None:
    """Whether a data set is the one that a run says; "" of one that ipbench knows.

    Raises:
        BadInput: this command does not know where it is, or its content is another one.
    """
    facts = OWN.get(name)
    if facts is None or not sha256:
        if facts is not None or sha256:
            raise BadInput(needed(name, sha256) if sha256 else f"{name}: a user's data set, and not the run's")
        return
    own = _own(facts)
    if own.place is None:
        raise BadInput(needed(name, sha256))
    if own.sha256 != sha256:
        raise changed(name, own.place, own.sha256, sha256)


def paths() -> list[Path]:
    """Where the data sets of users lie that this process knows."""
    return [place for facts in OWN.values() if (place := _own(facts).place) is not None]


def needed(name: str, sha256: str) -> str:
    """What a command has to be given to read a user's data set."""
    return (
        f"data set {name} is a user's: give --dataset-folder with the folder of that content (SHA-256 {sha256:.12}) and"
        f" --dataset {name}"
    )


def changed(name: str, place: Path, now: str, then: str) -> BadInput:
    """The line that refuses other content than was planned with."""
    return BadInput(
        f"{place}: not the content that data set {name} was planned with (SHA-256 {now:.12} now, {then:.12} then):"
        " files have changed; put them back, or plan anew"
    )


def to_json(facts: DataSet) -> dict[str, Any]:
    """What `grid.json` says of a data set: enough to read results, and to find the data again."""
    own = _own(facts)
    values = {name: getattr(facts, name) for name in _PLAIN if getattr(facts, name) is not None}
    values |= {name: list(values[name]) for name in ("shape", "mean", "std")}
    return {
        **values,
        "recipe": facts.recipe.differences(),
        "own": {"kind": own.kind, "sha256": own.sha256, "options": dict(own.options)},
    }


def from_json(told: Mapping[str, Any], where: str) -> DataSet:
    """The facts that `to_json` wrote; where the data lies, they do not say.

    Raises:
        BadInput: they are not such facts.
    """
    try:
        values = {name: told[name] for name in _PLAIN if name in told}
        values |= {name: tuple(values[name]) for name in ("shape", "mean", "std")}
        if not NAME.fullmatch(values["name"]) or values["task"] not in ("classification", DETECTION):
            raise ValueError("name or task")
        if type(values["classes"]) is not int or values["classes"] < 1:
            raise ValueError("classes")
        own = OwnData(str(told["own"]["kind"]), str(told["own"]["sha256"]), dict(told["own"]["options"]))
        recipe = build(Recipe, told["recipe"], f"{where}: recipe")
        return DataSet(**values, recipe=recipe, own=own)
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{where}: not the facts of a data set ({type(error).__name__}: {error!s:.60})") from None


_PLAIN = (
    "name", "shape", "classes", "train", "test", "mean", "std", "model", "source", "shorter_side", "longer_side",
    "multiple", "evaluation_batch", "task",
)  # fmt: skip


def _own(facts: DataSet) -> OwnData:
    assert facts.own is not None
    return facts.own


def _kept(index: Path) -> dict[str, Any]:
    """What was found before; nothing if it was never looked for, or by another version."""
    try:
        told = store.read_json(index, store.MOST_GRID)
    except files.Missing:
        return {}
    return told if told.get("layout") == LAYOUT else {}


def _kind(place: Path) -> str:
    """What is there: "images", "arrays" or "boxes"."""
    if place.suffix == ".npz":
        return "arrays"
    if not place.exists():
        raise BadInput(f"{place}: no such folder, where a data set should be")
    if not place.is_dir():
        raise BadInput(f"{place}: neither a folder nor a .npz file, where a data set should be")
    if (place / "annotations").is_dir():
        return "boxes"
    return "arrays" if any(place.glob("*.npy")) else "images"


def _facts(name: str, kind: str, place: Path, options: Options, found: Mapping[str, Any]) -> DataSet:
    try:
        said = _KINDS[kind].facts(place, options, found)
        parts = said.pop("parts", {})
        boxes = kind == "boxes"
        own = OwnData(kind, said.pop("sha256"), options.differences(), place, parts)
        return DataSet(
            name=name, **said, own=own, source=_SOURCES[kind], task=DETECTION if boxes else "classification",
            model=MODEL_OF_BOXES if boxes else MODEL, recipe=RECIPE_OF_BOXES if boxes else RECIPE,
        )  # fmt: skip
    except (KeyError, TypeError) as error:
        raise BadProduct(f"what was kept of {place} is not usable ({type(error).__name__} {error!s:.40})") from error


def moved(facts: DataSet, place: Path) -> DataSet:
    """The same data set, found elsewhere."""
    return replace(facts, own=replace(_own(facts), place=place))
