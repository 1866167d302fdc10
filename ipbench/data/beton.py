"""The .beton files that FFCV reads: whether they can be used, where they lie, and checking them.

FFCV is optional and its import takes seconds: this module asks only whether it can be imported; `ffcv_adapter` and
`ffcv_crop` alone use it. Beside every file lies a JSON product with its checksum, because FFCV maps the file into
memory and would crash, or read garbage, where one is truncated.
"""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from ipbench import files, store
from ipbench.data import image_folder, sources
from ipbench.data.catalog import DataSet, dataset
from ipbench.errors import BadInput, BadProduct

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
    if not product(path).is_file():
        raise BadProduct(f"{path}: its checksum {product(path).name} is missing; {again} again")
    told = store.read_json(product(path))
    expected = facts_of(dataset(name), split)
    train = product(path.with_name(beton_path(name, "train", Path()).name))
    if "classes_sha256" in told and train.is_file():  # or labels would not mean the same in the two files
        expected["classes_sha256"] = store.read_json(train).get("classes_sha256")
    for fact, value in expected.items():
        if told.get(fact) != value:
            raise BadProduct(f"{path}: {fact} is {told.get(fact)} where {value} is expected; {again} again")
    stat = path.stat()
    if _digest(path, stat.st_size, stat.st_mtime_ns) != told.get("sha256"):
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
    if not product(path).is_file():
        raise BadInput(f"{product(path)}: no such file; {again}")
    found = store.read_json(product(path)).get("images_sha256")
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


def product(path: Path) -> Path:
    """The JSON with its checksum, beside a .beton file."""
    return path.with_suffix(".json")


def facts_of(data: DataSet, split: str) -> dict[str, object]:
    """What the catalogue says of a file."""
    count = data.train if split == "train" else data.test
    facts = {"dataset": data.name, "split": split, "count": count, "shape": list(data.shape)}
    if data.shorter_side is not None:
        facts["shorter_side"] = data.shorter_side
    return {name: value for name, value in facts.items() if value is not None}


@lru_cache(maxsize=32)
def _digest(path: Path, size: int, mtime_ns: int) -> str:
    """`file_sha256`, remembered for as long as the file looks unchanged."""
    return file_sha256(path)


def file_sha256(path: Path) -> str:
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
