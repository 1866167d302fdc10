"""Readers of the files that data sets come in (floor 2): IDX and the binary version of CIFAR. Nothing is unpickled."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from ipbench.errors import BadProduct

_CIFAR_SHAPE = (3, 32, 32)


def read_idx(path: Path) -> np.ndarray:
    """Read an IDX file of unsigned bytes: the format of MNIST and Fashion-MNIST.

    The file is a big-endian header (two zero bytes, a type, the number of dimensions, every dimension as uint32),
    then the bytes in C order.

    Args:
        path: the file; a name that ends in .gz is decompressed.

    Returns:
        uint8 array of the shape in the header, read-only.

    Raises:
        BadProduct: the file is truncated, corrupt or of another type; the message names it.
    """
    data = _content(path)
    if len(data) < 4 or data[:3] != b"\x00\x00\x08" or data[3] == 0:
        raise BadProduct(f"{path}: not an IDX file of unsigned bytes")
    start = 4 + 4 * data[3]
    shape = tuple(int.from_bytes(data[at : at + 4], "big") for at in range(4, start, 4))
    expected = start + int(np.prod(shape, dtype=object))
    if len(data) != expected:
        raise BadProduct(f"{path}: truncated or corrupt: {len(data)} bytes where its header says {expected}")
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape)


def read_cifar(path: Path, label_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Read one file of the binary version of CIFAR.

    The file is a sequence of records: the label, or for CIFAR-100 the coarse and the fine label, one byte each; then
    the red, the green and the blue plane of 32 x 32 bytes.

    Args:
        path: the file.
        label_bytes: 1 for CIFAR-10, 2 for CIFAR-100; the last one is used.

    Returns:
        Images, uint8 (n, 32, 32, 3), and labels, int64 (n,).

    Raises:
        BadProduct: the file is not a whole number of records; the message names it.
    """
    data = _content(path)
    record = label_bytes + int(np.prod(_CIFAR_SHAPE))
    if not data or len(data) % record:
        raise BadProduct(f"{path}: truncated or corrupt: {len(data)} bytes are not a multiple of {record}")
    records = np.frombuffer(data, dtype=np.uint8).reshape(-1, record)
    images = records[:, label_bytes:].reshape(-1, *_CIFAR_SHAPE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), records[:, label_bytes - 1].astype(np.int64)


def _content(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise BadProduct(f"{path}: not readable ({type(error).__name__}: {error}); truncated or corrupt") from None
