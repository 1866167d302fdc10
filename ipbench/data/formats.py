"""Readers of the files that data sets come in: IDX and the binary version of CIFAR. Nothing is unpickled."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

import numpy as np

from ipbench import files
from ipbench.errors import BadProduct

_CIFAR_SHAPE = (3, 32, 32)


#: Bytes of a file where nothing else is said.
MOST = 2**30


def read_idx(path: Path, most: int = MOST) -> np.ndarray:
    """Read an IDX file of unsigned bytes: the format of MNIST and Fashion-MNIST.

    The file is a big-endian header (two zero bytes, a type, the number of dimensions, every dimension as uint32),
    then the bytes in C order.

    Args:
        path: the file; a name that ends in .gz is decompressed.
        most: bytes that its header may claim; no more are read, or decompressed, than it claims.

    Returns:
        uint8 array of the shape in the header, read-only.

    Raises:
        BadProduct: the file is truncated, corrupt or of another type; the message names it.
    """
    with _content(path) as file:
        magic = file.read(4)
        if len(magic) < 4 or magic[:3] != b"\x00\x00\x08" or magic[3] == 0:
            raise BadProduct(f"{path}: not an IDX file of unsigned bytes")
        start = 4 + 4 * magic[3]
        header = file.read(start - 4)
        if len(header) < start - 4:
            raise BadProduct(f"{path}: truncated or corrupt: it ends in its header")
        shape = tuple(int.from_bytes(header[at : at + 4], "big") for at in range(0, start - 4, 4))
        expected = math.prod(shape)
        if expected > most:
            raise BadProduct(f"{path}: its header says {start + expected} bytes, where at most {most} can be right")
        data = file.read(expected + 1)
    if len(data) != expected:
        found = f"{start + len(data)} bytes" if len(data) < expected else "more bytes"
        raise BadProduct(f"{path}: truncated or corrupt: {found} where its header says {start + expected}")
    try:
        return np.frombuffer(data, dtype=np.uint8).reshape(shape)
    except ValueError:  # hundreds of dimensions, or one of them empty and another beyond all bounds
        raise BadProduct(f"{path}: not an IDX file of unsigned bytes: {len(shape)} dimensions of no use") from None


def read_cifar(path: Path, label_bytes: int, most: int = MOST) -> tuple[np.ndarray, np.ndarray]:
    """Read one file of the binary version of CIFAR.

    The file is a sequence of records: the label, or for CIFAR-100 the coarse and the fine label, one byte each; then
    the red, the green and the blue plane of 32 x 32 bytes.

    Args:
        path: the file.
        label_bytes: 1 for CIFAR-10, 2 for CIFAR-100; the last one is used.
        most: bytes that the file may have.

    Returns:
        Images, uint8 (n, 32, 32, 3), and labels, int64 (n,).

    Raises:
        BadProduct: the file is not a whole number of records; the message names it.
    """
    data = files.read(path, most)
    record = label_bytes + int(np.prod(_CIFAR_SHAPE))
    if not data or len(data) % record:
        raise BadProduct(f"{path}: truncated or corrupt: {len(data)} bytes are not a multiple of {record}")
    records = np.frombuffer(data, dtype=np.uint8).reshape(-1, record)
    images = records[:, label_bytes:].reshape(-1, *_CIFAR_SHAPE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), records[:, label_bytes - 1].astype(np.int64)


@contextmanager
def _content(path: Path) -> Iterator[BufferedReader | gzip.GzipFile]:
    """A file to read from; a name that ends in .gz is decompressed.

    Raises:
        BadProduct: in the block, too, where it is no such file.
    """
    with files.opened(path) as file:
        try:
            yield gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
        except (OSError, EOFError, zlib.error) as error:
            if isinstance(error, OSError) and error.errno:
                raise files.not_read(path, error) from None
            raise BadProduct(f"{path}: not readable ({type(error).__name__}: {error}); truncated or corrupt") from None
