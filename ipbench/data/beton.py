"""The .beton files that FFCV reads (floor 2): whether they can be used, where they lie, making and checking them.

FFCV is optional and its import takes seconds: this module loads it only when it is needed, and `ffcv_adapter` is the
one place that touches it. Beside every file lies a JSON product with its checksum, because FFCV maps the file into
memory and would crash, or read garbage, where one is truncated.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from ipbench import store
from ipbench.data import sources
from ipbench.data.catalog import DataSet, dataset
from ipbench.errors import BadInput, BadProduct, valid_choice

INSTALL = (
    "`apt-get install libopencv-dev libturbojpeg0-dev pkg-config`, then `pip install 'ipbench[ffcv]'`;"
    " or use the loader 'memory', which gives the same batches"
)


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
    images = sources.load(name, split, root)
    require()
    from ipbench.data import ffcv_adapter

    path = beton_path(name, split, root) if path is None else path
    with store.atomic(path) as temporary:
        ffcv_adapter.write(temporary, images.images, images.labels)
        digest = _sha256(temporary)
    store.write_json(_product(path), {**_facts(dataset(name), split), "sha256": digest})
    return path


def check(name: str, split: sources.Split, path: Path) -> None:
    """Make sure that a .beton file is whole and holds that split; a process reads an unchanged file once.

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
    for fact, value in _facts(dataset(name), split).items():
        if product.get(fact) != value:
            raise BadProduct(f"{path}: {fact} is {product.get(fact)} where {value} is expected; {again} again")
    stat = path.stat()
    if _digest(path, stat.st_size, stat.st_mtime_ns) != product.get("sha256"):
        raise BadProduct(f"{path}: truncated or altered, its checksum does not match; {again} again")


def _product(path: Path) -> Path:
    return path.with_suffix(".json")


def _facts(data: DataSet, split: str) -> dict[str, object]:
    count = data.train if split == "train" else data.test
    return {"dataset": data.name, "split": split, "count": count, "shape": list(data.shape)}


@lru_cache(maxsize=32)
def _digest(path: Path, size: int, mtime_ns: int) -> str:
    """`_sha256`, remembered for as long as the file looks unchanged."""
    return _sha256(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
