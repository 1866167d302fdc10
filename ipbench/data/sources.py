"""The images of a data set, from wherever they lie."""

from __future__ import annotations

import hashlib
import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np

from ipbench import files, keys
from ipbench.data import archives, image_folder, own_arrays, own_images, tiny_imagenet
from ipbench.data.catalog import DataSet, cached_by_name, dataset
from ipbench.data.formats import read_cifar, read_idx
from ipbench.data.splits import keyed_order
from ipbench.errors import BadInput, BadProduct, valid_choice

Split = Literal["train", "test"]
SPLITS: tuple[str, ...] = get_args(Split)

#: Where Debian's package dataset-fashion-mnist puts its four files.
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")

#: Folders below the data root: those of torchvision and of the archives.
_FOLDERS = {
    "mnist": "MNIST/raw",
    "fashion-mnist": "FashionMNIST/raw",
    "cifar10": "cifar-10-batches-bin",
    "cifar100": "cifar-100-binary",
    "tiny-imagenet": "tiny-imagenet-200",
}
_CIFAR_FILES: dict[tuple[str, str], tuple[str, ...]] = {
    ("cifar10", "train"): tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    ("cifar10", "test"): ("test_batch.bin",),
    ("cifar100", "train"): ("train.bin",),
    ("cifar100", "test"): ("test.bin",),
}
_CIFAR_LABEL_BYTES = {"cifar10": 1, "cifar100": 2}


class Images(NamedTuple):
    """One split of a data set, read-only."""

    images: np.ndarray
    """uint8 (n, height, width, channels)"""
    labels: np.ndarray
    """int64 (n,)"""


class Download(NamedTuple):
    """One file to fetch."""

    file: str
    md5: str
    urls: tuple[str, ...]
    """Tried in this order."""
    folder: str
    """Where it goes and is unpacked, below the data root."""


@cached_by_name(16)
def load(name: str, split: Split, root: Path) -> Images:
    """Read one split of a data set; a process reads it once.

    Args:
        name: of a data set that fits into memory: not a folder of images (`image_folder`).
        split: "train" or "test".
        root: the data folder; `digits`, and Debian's Fashion-MNIST, lie elsewhere.

    Raises:
        BadInput: there is no such data set, or a file is missing; the message says how to get it.
        BadProduct: a file is truncated, corrupt or not of the expected size, or the images are not the published ones;
            the message names it.
    """
    images, place = _read(name, split, root)
    if strange := _strange(name, split, images):
        raise BadProduct(f"{place}: {strange}; {_remedy(name, place)}")
    return images


@cached_by_name(16)
def _read(name: str, split: Split, root: Path) -> tuple[Images, str]:
    """One split, of whatever images it is, and where it lies."""
    facts = dataset(name)
    valid_choice(split, SPLITS, "split")
    if facts.own is not None and facts.own.place is not None:
        images, labels, place = (own_arrays if facts.own.kind == "arrays" else own_images).read(facts, split)
    elif facts.test is None:
        raise ValueError(f"{name} is a folder of images: image_folder reads it")
    elif name == "digits":
        images, labels, place = *_digits(split, facts.test), "scikit-learn's digits"
    elif name in _CIFAR_LABEL_BYTES:
        images, labels, place = _cifar(name, split, root)
    elif name == "tiny-imagenet":
        place = str(_folder(name, root))
        count = 2 * ((facts.train if split == "train" else facts.test) or 0)  # see `_idx`
        images, labels = tiny_imagenet.read(split, _folder(name, root), facts.shape[1], count)
    else:
        images, labels, place = _idx(name, split, root)
    _check(facts, split, images, labels, place)
    images, labels = np.ascontiguousarray(images), labels.astype(np.int64)
    images.setflags(write=False)
    labels.setflags(write=False)
    return Images(images, labels), place


@cached_by_name(16)
def sha256(name: str, split: Split, root: Path) -> str:
    """Over shape, type and bytes of the images and the labels of one split; arguments and errors as of `load`."""
    return _sha256(load(name, split, root))


def _sha256(part: Images) -> str:
    digest = hashlib.sha256()
    for array in part:
        digest.update(f"{array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()


def fetch(name: str, root: Path) -> str:
    """Download a data set if it is not there yet; of one that cannot be downloaded, check that it is there.

    Returns:
        One line: what was done, and where the files lie.

    Raises:
        BadInput: the download failed, or there is none; the message says which file to put where by hand.
        BadProduct: what was downloaded, or put there, cannot be read.
    """
    if dataset(name).shorter_side is not None:
        return image_folder.check(name, root)
    if name == "digits":
        return "digits: nothing to fetch, they are part of scikit-learn"
    try:
        _read_both(name, root)
        return f"{name}: already in {_folder(name, root)}"
    except files.NotRead:  # nothing is known of it, and nothing to be mended
        raise
    except BadProduct as error:
        if _folder(name, root) == DEBIAN_FASHION_MNIST:
            raise BadProduct(f"{error}; install Debian's package dataset-fashion-mnist again") from None
        problem = str(error)
    except BadInput:
        problem = ""  # it is not there
    was = f", in place of what could not be used: {problem}" if problem else ""
    if _unpacked_again(name, root):
        return f"{name}: unpacked into {_folder(name, root)}{was}"
    from torchvision.datasets.utils import download_url

    for download in downloads(name):
        target = root / download.folder
        errors = []
        for url in download.urls:
            try:
                download_url(url, str(target), filename=download.file, md5=download.md5)
                break
            except (OSError, RuntimeError, EOFError) as error:  # URLError is an OSError
                errors.append(" ".join(str(error).split()) or type(error).__name__)
        else:
            raise BadInput(
                f"{problem or name}: could not download {download.file} ({errors[0]}); get {download.urls[0]} by"
                f" hand, put it into {target}, and run `ipbench data fetch {name}` again, which unpacks it"
            )
        archives.unpack(target / download.file, target)
    parts = {split: _read(name, split, root)[0] for split in get_args(Split)}
    strange = [text for split, part in parts.items() if (text := _strange(name, split, part))]
    refused = f"; {strange[0]}: no training takes it" if strange else ""
    return f"{name}: fetched into {_folder(name, root)}{was}{refused}"


def _unpacked_again(name: str, root: Path) -> bool:
    """Whether the whole archives that are there already are all that is needed."""
    from torchvision.datasets.utils import check_integrity

    there = [(root / item.folder / item.file, item.md5) for item in downloads(name)]
    whole = [archive for archive, md5 in there if check_integrity(str(archive), md5)]
    for archive in whole:
        archives.unpack(archive, archive.parent)
    if not whole:
        return False
    try:
        _read_both(name, root)
    except BadInput:
        return False
    return True


def downloads(name: str) -> Sequence[Download]:
    """The files that `fetch` downloads for a data set."""
    if name == "cifar10":
        url = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
        return [Download("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530", (url,), "")]
    if name == "cifar100":
        url = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
        return [Download("cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8", (url,), "")]
    if name == "tiny-imagenet":
        url = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
        return [Download("tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de", (url,), "")]
    # Addresses and sums are torchvision's. Its data sets are not used to read: they would take a pickled file of an
    # old version where they find one.
    from torchvision import datasets

    kind = {"mnist": datasets.MNIST, "fashion-mnist": datasets.FashionMNIST}[name]
    return [
        Download(file, md5, tuple(mirror + file for mirror in kind.mirrors), _FOLDERS[name])
        for file, md5 in kind.resources
    ]


def _read_both(name: str, root: Path) -> None:
    for split in get_args(Split):
        load(name, split, root)


def _digits(split: Split, test: int) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's digits have no test part: a keyed one, the same for every run."""
    # The file itself: importing scikit-learn takes seconds, in every job.
    package = importlib.util.find_spec("sklearn")
    file = Path(package.origin or "").parent / "datasets/data/digits.csv.gz" if package else Path("digits.csv.gz")
    if not file.is_file():
        raise BadInput("digits: scikit-learn, which ships the images, is not installed: pip install scikit-learn")
    table = np.loadtxt(file, delimiter=",", dtype=np.int64)
    pixels, labels = table[:, :-1].reshape(-1, 8, 8), table[:, -1]
    order = keyed_order(np.arange(len(labels)), keys.key(0, "split", "digits", "test"))
    chosen = np.sort(order[:test] if split == "test" else order[test:])
    # The pixels are 0 to 16.
    images = np.rint(pixels[chosen] * (255 / 16)).astype(np.uint8)
    return images[..., None], labels[chosen]


def _idx(name: str, split: Split, root: Path) -> tuple[np.ndarray, np.ndarray, str]:
    folder = _folder(name, root)
    stem = "train" if split == "train" else "t10k"
    path = _existing(name, [folder / f"{stem}-images-idx3-ubyte{end}" for end in ("", ".gz")])
    labels_path = _existing(name, [folder / f"{stem}-labels-idx1-ubyte{end}" for end in ("", ".gz")])
    facts = dataset(name)
    # Twice of what is right: a file of the wrong size is better described than refused.
    count = 2 * ((facts.train if split == "train" else facts.test) or 0)
    images, labels = read_idx(path, count * math.prod(facts.shape)), read_idx(labels_path, count)
    if images.ndim != 3:
        raise BadProduct(f"{path}: {images.ndim} dimensions where images have 3")
    if labels.ndim != 1:
        raise BadProduct(f"{labels_path}: {labels.ndim} dimensions where labels have 1")
    return images[..., None], labels, f"{folder}/{stem}-*"


def _cifar(name: str, split: Split, root: Path) -> tuple[np.ndarray, np.ndarray, str]:
    folder = _folder(name, root)
    paths = [_existing(name, [folder / file]) for file in _CIFAR_FILES[name, split]]
    facts = dataset(name)
    most = 2 * ((facts.train if split == "train" else facts.test) or 0) * (math.prod(facts.shape) + 2)
    parts = [read_cifar(path, _CIFAR_LABEL_BYTES[name], most) for path in paths]
    images = np.concatenate([images for images, _ in parts])
    labels = np.concatenate([labels for _, labels in parts])
    return images, labels, str(paths[0]) if len(paths) == 1 else f"{folder}/data_batch_*.bin"


def _folder(name: str, root: Path) -> Path:
    if name == "fashion-mnist" and (DEBIAN_FASHION_MNIST / "train-images-idx3-ubyte.gz").is_file():
        return DEBIAN_FASHION_MNIST
    return root / _FOLDERS[name]


def _existing(name: str, candidates: Sequence[Path]) -> Path:
    """The first of some paths that is a file."""
    for path in candidates:
        if path.is_file():
            return path
    names = " or ".join(path.name for path in candidates)
    raise BadInput(
        f"{name}: no {names} in {candidates[0].parent}; run `ipbench data fetch {name}`, or put the files of {name}"
        " there by hand"
    )


def _check(facts: DataSet, split: Split, images: np.ndarray, labels: np.ndarray, place: str) -> None:
    channels, height, width = facts.shape
    count = facts.train if split == "train" else facts.test
    if images.shape[1:] != (height, width, channels):
        size = " x ".join(map(str, images.shape[1:]))
        raise BadProduct(f"{place}: images of {size} where {facts.name} has {height} x {width} x {channels}")
    if len(images) != len(labels):
        raise BadProduct(f"{place}: {len(images)} images but {len(labels)} labels")
    if len(images) != count:
        raise BadProduct(f"{place}: {len(images)} images where the {split} part of {facts.name} has {count}")
    if len(labels) and labels.max() >= facts.classes:
        raise BadProduct(f"{place}: label {labels.max()} where {facts.name} has classes 0 to {facts.classes - 1}")


def _strange(name: str, split: Split, part: Images) -> str:
    """What is wrong with images that are not those that every number about the data set is about; empty of those."""
    expected = dataset(name).published.get(len(part.labels))
    if expected is None or (found := _sha256(part)) == expected:
        return ""
    return (
        f"not the published {split} part of {name}: the SHA-256 of its images and labels is {found}, expected is"
        f" {expected}"
    )


def _remedy(name: str, place: str) -> str:
    if name == "digits":
        return "install scikit-learn anew"
    if place.startswith(str(DEBIAN_FASHION_MNIST)):
        return "install Debian's package dataset-fashion-mnist anew, or remove it"
    return f"move these files away and run `ipbench data fetch {name}`"
