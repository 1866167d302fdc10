"""The .beton files that FFCV reads (floor 2): whether they can be used, where they lie, making and checking them.

FFCV is optional and its import takes seconds: this module loads it only when it is needed, and `ffcv_adapter` and
`ffcv_crop` alone touch it. Beside every file lies a JSON product with its checksum, because FFCV maps the file into
memory and would crash, or read garbage, where one is truncated.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import closing
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ipbench import files, store
from ipbench.data import image_folder, sources
from ipbench.data.catalog import DataSet, dataset
from ipbench.errors import BadInput, BadProduct, valid_choice

INSTALL = (
    "`apt-get install libopencv-dev libturbojpeg0-dev pkg-config`, then `pip install 'ipbench[ffcv]'`;"
    " or use the loader 'memory', which gives the same batches"
)

#: Bytes up to which a checksum reads all of a file, and of a block of a larger one.
WHOLE, BLOCK = 2**30, 2**20


@lru_cache(maxsize=1)
def available() -> str | None:
    """Why FFCV cannot be used, in one line; None if it can."""
    if find_spec("ffcv") is None:
        return "FFCV is not installed"
    import torch

    threads = torch.get_num_threads()
    try:
        import ffcv  # noqa: F401
    except Exception as error:  # whatever a broken build of a native extension raises
        return f"FFCV cannot be imported ({type(error).__name__}: {' '.join(str(error).split())})"
    finally:
        torch.set_num_threads(threads)  # the import sets 1
    return None


def require() -> None:
    """Make sure that FFCV can be used.

    Raises:
        BadInput: it cannot; the message says why, and how to install it.
    """
    reason = available()
    if reason is not None:
        raise BadInput(f"{reason}; to install it: {INSTALL}")


def beton_path(name: str, split: str, root: Path) -> Path:
    """Where the .beton file of a split lies below the data folder."""
    return root / "beton" / f"{name}-{split}.beton"


def write(name: str, split: sources.Split, root: Path, path: Path | None = None) -> Path:
    """Write one split as a .beton file, atomically: raw bytes and labels, in the order of the source.

    Args:
        name: one of `catalog.DATASETS`.
        split: "train" or "test".
        root: the data folder, read as by `sources.load`.
        path: where to write; `beton_path` if None.

    Returns:
        The path of the file; its checksum lies beside it as .json. The same images give the same bytes.

    Raises:
        BadInput: FFCV cannot be used, or the images are not there.
        BadProduct: the files of the images are broken.
    """
    valid_choice(split, sources.SPLITS, "split")
    facts = dataset(name)
    path = beton_path(name, split, root) if path is None else path
    if facts.shorter_side is not None:
        return _write_folder(facts, split, root, path, facts.shorter_side)
    images = sources.load(name, split, root)
    require()
    from ipbench.data import ffcv_adapter

    with store.atomic(path) as temporary:
        samples = list(zip(images.images, images.labels.tolist(), strict=True))
        ffcv_adapter.write(temporary, samples, images.images.shape[1:])
        digest = _sha256(temporary)
    found = {"images_sha256": sources.sha256(name, split, root)}
    store.write_json(_product(path), {**_facts(facts, split), **found, "sha256": digest})
    return path


def _write_folder(facts: DataSet, split: sources.Split, root: Path, path: Path, shorter_side: int) -> Path:
    """`write` for images that vary in size: all are decoded, so that a broken file is found here."""
    listing = image_folder.listing(facts.name, split, root)
    require()
    from PIL import __version__ as pillow

    from ipbench.data import ffcv_adapter

    workers = os.cpu_count() or 1
    read = partial(_sample, listing, shorter_side)
    samples = image_folder.in_order(read, range(len(listing.labels)), workers, 4 * workers)
    with closing(samples), store.atomic(path) as temporary:
        ffcv_adapter.write(temporary, _InTurn(len(listing.labels), samples), None)
        digest = _sha256(temporary)
    # Who decoded the images is part of what they are, and the file may be read where others are installed.
    found = {
        "count": len(listing.labels),
        "classes_sha256": listing.classes_sha256,
        "images_sha256": image_folder.sha256(facts.name, split, root),
        "pillow": pillow,
    }
    store.write_json(_product(path), {**_facts(facts, split), **found, "sha256": digest})
    return path


def _sample(listing: image_folder.Listing, shorter_side: int, index: int) -> tuple[np.ndarray, int]:
    return image_folder.read(listing.path(index), shorter_side), int(listing.labels[index])


class _InTurn:
    """Samples for FFCV's writer, which asks for each once and in order: made ahead, by threads."""

    def __init__(self, count: int, samples: Iterator[tuple[np.ndarray, int]]):
        self._count, self._samples = count, samples

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int, /) -> tuple[np.ndarray, int]:
        return next(self._samples)


def check(name: str, split: sources.Split, path: Path, root: Path | None = None) -> None:
    """Make sure that a .beton file is whole and holds that split; a process reads an unchanged file once.

    Args:
        name: of the data set.
        split: "train" or "test".
        path: of the file.
        root: the data folder; the images there, if there are any, must be those that the file was made from.

    Raises:
        BadInput: there is no such file; the message says how to make it.
        BadProduct: it is truncated, altered or of something else; the message names it.
    """
    again = f"`ipbench data beton {name}` writes it"
    if not path.is_file():
        raise BadInput(f"{path}: no such file; {again}")
    if not _product(path).is_file():
        raise BadProduct(f"{path}: its checksum {_product(path).name} is missing; {again} again")
    product = store.read_json(_product(path))
    expected = _facts(dataset(name), split)
    train = _product(path.with_name(beton_path(name, "train", Path()).name))
    if "classes_sha256" in product and train.is_file():  # or labels would not mean the same in the two files
        expected["classes_sha256"] = store.read_json(train).get("classes_sha256")
    for fact, value in expected.items():
        if product.get(fact) != value:
            raise BadProduct(f"{path}: {fact} is {product.get(fact)} where {value} is expected; {again} again")
    stat = path.stat()
    if _digest(path, stat.st_size, stat.st_mtime_ns) != product.get("sha256"):
        raise BadProduct(f"{path}: truncated or altered, its checksum does not match; {again} again")
    made_from, there = images_sha256(name, split, path), _images_there(dataset(name), split, root)
    if there not in (made_from, None):
        raise BadProduct(f"{path}: made from other images ({made_from}) than those of {name} ({there}); {again} again")


def images_sha256(name: str, split: sources.Split, path: Path) -> str:
    """The digest of the images that a .beton file was made from: that of `sources` or `image_folder`.

    Raises:
        BadInput: there is no such file.
        BadProduct: it does not say, as those of ipbench 0.1 do not.
    """
    again = f"`ipbench data beton {name}` writes it"
    if not _product(path).is_file():
        raise BadInput(f"{_product(path)}: no such file; {again}")
    found = store.read_json(_product(path)).get("images_sha256")
    if not isinstance(found, str):
        raise BadProduct(f"{path}: does not say which images it was made from; {again} again")
    return found


def _images_there(facts: DataSet, split: sources.Split, root: Path | None) -> str | None:
    """The digest of the images as they should be, or as they lie in the data folder; None where nothing tells."""
    count = facts.train if split == "train" else facts.test
    if count is not None and count in facts.published:
        return facts.published[count]
    if root is None or facts.name == "tiny-imagenet":  # all of its files would have to be decoded
        return None
    read = sources.sha256 if facts.shorter_side is None else image_folder.sha256
    try:
        return read(facts.name, split, root)
    except BadInput:  # the .beton files alone were brought here
        return None


def _product(path: Path) -> Path:
    return path.with_suffix(".json")


def _facts(data: DataSet, split: str) -> dict[str, object]:
    """What the catalogue says of a file."""
    count = data.train if split == "train" else data.test
    facts = {"dataset": data.name, "split": split, "count": count, "shape": list(data.shape)}
    if data.shorter_side is not None:
        facts["shorter_side"] = data.shorter_side
    return {name: value for name, value in facts.items() if value is not None}


@lru_cache(maxsize=32)
def _digest(path: Path, size: int, mtime_ns: int) -> str:
    """`_sha256`, remembered for as long as the file looks unchanged."""
    return _sha256(path)


def _sha256(path: Path) -> str:
    """Of the whole file; of one above `WHOLE`, of its size, its beginning, and blocks evenly spread over it.

    ImageNet's has 330 GB, which no job can read before it starts. The beginning holds the addresses of all images.
    """
    with files.opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size <= WHOLE:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256(str(size).encode())
        blocks = WHOLE // BLOCK // 2
        for start in (*range(0, WHOLE // 2, BLOCK), *((size - BLOCK) * n // (blocks - 1) for n in range(blocks))):
            file.seek(start)
            digest.update(file.read(BLOCK))
        return digest.hexdigest()
